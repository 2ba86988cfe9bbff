"""One connection each: a lane for threads, and a lane for the reading loop.

A lane makes its client at first use, lets a bounded number of calls at it (the
others wait their turn), and makes a standalone client anew when it is done for:
such a client never finds a new primary by itself.

**Deadlines.** GLIDE's own timeout runs on a thread of its own. On the loop that
reads GLIDE's replies nothing can keep the answer from us but that loop itself,
and a stalled loop would be late for any deadline of ours as well. So a call
needs no timer. What remains is a reply lost between GLIDE and us, and one timer
a lane, not a call, watches for that. It counts its own ticks, not seconds: a
loop that stalled finds the replies waiting and must not mistake them for lost.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from glide_shared.exceptions import GlideError, RequestError
from glide_shared.exceptions import TimeoutError as GlideTimeoutError

from langgraph_valkey import limits
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.glide.clients import (
    BlockingClient,
    NativeClient,
    batch_of,
    close_native,
    make_blocking,
    make_native,
)
from langgraph_valkey.glide.errors import Kind, kind_of
from langgraph_valkey.settings import ConnectionSettings

T = TypeVar("T")

_TICKS_OVERDUE = 4
"""A reply is given up when it is missing at this many ticks of the timer."""

_HEALING = frozenset({Kind.STALE, Kind.BROKEN, Kind.NOT_SENT})
"""After one of these a standalone client is made anew."""

_TIMEOUTS_MOST = 2
"""So it is after this many timeouts in a row."""

_LOST = frozenset({Kind.TIMED_OUT, Kind.MOVED})
_LOST_WITHIN_S = 10.0
"""A cluster client is made anew after as many of these within this time ..."""

_RENEWED_S = 1.0
"""... and not again for so long."""


def closed() -> ConfigurationError:
    """The error of a link that is used after its end."""
    return ConfigurationError("this connection was closed: make a new one")


class Health:
    """When the clients of a link have to be made anew; its lanes share one.

    A standalone client stays with the node it found at first. One lane's trouble ends
    the clients of all, since a demoted primary refuses writes but goes on answering
    reads, from a past it is stuck in. A cluster client finds a new primary by itself,
    with two exceptions: where the old one is frozen and keeps its connections open it
    goes on asking that one, and all it shows is timeouts; and after two failovers in a
    row it may ask the wrong node for seconds.

    Args:
        settings: Where the server is.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.matters = not settings.cluster_mode
        self.generation = 0
        self._timeouts = 0
        self._lost_s: deque[float] = deque(maxlen=_TIMEOUTS_MOST)
        self._renewed_s = float("-inf")

    def note(self, generation: int, result: Any, error: GlideError | None = None) -> None:
        """Take note of how a call ended; start a new generation if need be.

        Args:
            generation: That of the client it ran on.
            result: What it returned.
            error: What it raised.
        """
        if error is not None:
            failures: list[GlideError] = [error]
        else:
            found = result if isinstance(result, list) else []
            failures = [each for each in found if isinstance(each, RequestError)]
        kinds = [kind_of(failure) for failure in failures]
        if not self.matters:
            self._note_of_cluster(generation, kinds)
            return
        self._timeouts = self._timeouts + 1 if Kind.TIMED_OUT in kinds else 0
        if not _HEALING.isdisjoint(kinds) or self._timeouts >= _TIMEOUTS_MOST:
            self._timeouts = 0
            self.generation = max(self.generation, generation + 1)

    def _note_of_cluster(self, generation: int, kinds: list[Kind]) -> None:
        """Successes don't count here: they may be another shard's."""
        if generation != self.generation or _LOST.isdisjoint(kinds):
            return
        now_s = time.monotonic()
        self._lost_s.append(now_s)
        recent = [each for each in self._lost_s if now_s - each < _LOST_WITHIN_S]
        if len(recent) == _TIMEOUTS_MOST and now_s - self._renewed_s > _RENEWED_S:
            self.generation = generation + 1
            self._renewed_s = now_s
            self._lost_s.clear()


def _failed(result: Any) -> bool:
    """Whether a batch's only command failed."""
    return type(result) is list and bool(result) and isinstance(result[0], RequestError)


class _Held:
    """A blocking client, and how many threads are in a call on it."""

    __slots__ = ("client", "generation", "retired", "users")

    def __init__(self, client: BlockingClient, generation: int) -> None:
        self.client = client
        self.generation = generation
        self.users = 0
        self.retired = False


class BlockingLane:
    """A connection for threads, closed when the last call on it has ended.

    Args:
        settings: Where the server is.
        health: What the lanes of the link know of their clients.
    """

    def __init__(self, settings: ConnectionSettings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._held: _Held | None = None
        self._under_way = 0
        self._waiting = 0
        self._is_closed = False
        self._lock = threading.Condition(threading.Lock())

    async def exec(self, commands: list[list[bytes]]) -> list[Any]:
        """Run the commands; failures of single ones stand in the list. Never suspends."""
        batch = batch_of(self._settings, commands)
        return self.use(lambda client: client.exec(batch, False))

    def use(self, run: Callable[[Any], T]) -> T:
        """Run something on the client, when it is this thread's turn.

        Raises:
            GlideError: As GLIDE raised it.
            ConfigurationError: The lane was closed.
        """
        held = self._enter()
        try:
            result = run(held.client)
            if self._health.matters or _failed(result):
                self._health.note(held.generation, result)
        except GlideError as error:
            self._health.note(held.generation, None, error)
            raise
        finally:
            self._leave(held)
        return result

    def _enter(self) -> _Held:
        former = None
        try:
            with self._lock:
                while self._under_way >= self._settings.in_flight_most:
                    self._waiting += 1
                    self._lock.wait()
                    self._waiting -= 1
                if self._is_closed:
                    raise closed()
                held = self._held
                generation = self._health.generation
                if held is not None and held.generation != generation:
                    held.retired = True
                    former = None if held.users else held
                    held = None
                if held is None:
                    held = self._held = _Held(make_blocking(self._settings), generation)
                held.users += 1
                self._under_way += 1
                return held
        finally:
            if former is not None:
                former.client.close()

    def _leave(self, held: _Held) -> None:
        with self._lock:
            self._under_way -= 1
            held.users -= 1
            if self._waiting:
                self._lock.notify()
            done = held.retired and not held.users
        if done:
            held.client.close()

    def close(self) -> None:
        """Close the client, now or when the last call on it has ended."""
        with self._lock:
            self._is_closed = True
            held, self._held = self._held, None
            if held is None:
                return
            held.retired = True
            done = not held.users
        if done:
            held.client.close()

    def after_fork(self) -> None:
        """Forget the threads that were left behind. GLIDE re-makes its connection."""
        self._lock = threading.Condition(threading.Lock())
        self._under_way = self._waiting = 0
        if self._held is not None:
            self._held.users = 0


class NativeLane:
    """A connection of the loop that reads GLIDE's replies; used on that loop only.

    Args:
        settings: Where the server is.
        loop: The loop.
        health: What the lanes of the link know of their clients.
    """

    def __init__(
        self, settings: ConnectionSettings, loop: asyncio.AbstractEventLoop, health: Health
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._health = health
        self._generation = 0
        self._client: NativeClient | None = None
        self._retired: list[tuple[int, NativeClient]] = []
        # Who waits for a reply: the task, and the tick at which it began.
        self._entered: dict[asyncio.Task[Any], int] = {}
        # Whom the timer cancelled, and how many cancellations it had before.
        self._overdue: dict[asyncio.Task[Any], int] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._most = settings.in_flight_most
        self._is_closed = False
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        deadline_ms = (
            limits.OUTER_DEADLINE_FACTOR * settings.request_timeout_ms
            + settings.connection_timeout_ms
        )
        self._period_s = deadline_ms / 1_000 / (_TICKS_OVERDUE - 1)

    def open(self) -> NativeClient:
        """Make the client, unless there is one.

        Raises:
            GlideError: GLIDE refuses the configuration.
            ConfigurationError: The lane was closed, or the settings can't be used.
        """
        if self._client is not None and self._generation != self._health.generation:
            # Its calls under way end first; the timer closes it then.
            self._retired.append((self._tick, self._client))
            self._client = None
        if self._client is None:
            if self._is_closed:
                raise closed()
            self._generation = self._health.generation
            self._client = make_native(self._settings)
        return self._client

    async def exec(self, commands: list[list[bytes]]) -> list[Any]:
        """Run the commands; failures of single ones stand in the list."""
        batch = batch_of(self._settings, commands)
        return await self.use(lambda client: client.exec(batch, False))

    async def use(self, run: Callable[[Any], Awaitable[T]]) -> T:
        """Run something on the client, when it is this task's turn.

        Raises:
            GlideError: As GLIDE raised it, or a timeout if the reply was lost.
            ConfigurationError: The lane was closed.
        """
        entered = self._entered
        if len(entered) >= self._most:
            await self._turn()
        client = self._client
        if client is None or self._generation != self._health.generation:
            client = self.open()
        generation = self._generation
        task = asyncio.current_task(self._loop)
        assert task is not None
        entered[task] = self._tick
        if self._timer is None:
            self._timer = self._loop.call_later(self._period_s, self._look)
        try:
            result = await run(client)
            if self._health.matters or _failed(result):
                self._health.note(generation, result)
        except asyncio.CancelledError:
            if task in self._overdue and task.uncancel() <= self._overdue[task]:
                raise GlideTimeoutError("timed out: the reply was lost") from None
            raise
        except GlideError as error:
            self._health.note(generation, None, error)
            raise
        finally:
            del entered[task]
            if self._overdue:
                self._overdue.pop(task, None)
            if self._waiting:
                self._wake()
        return result

    async def _turn(self) -> None:
        """Wait for a free place: first come, first served."""
        while len(self._entered) >= self._most:
            mine: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine.cancelled():
                    self._waiting.remove(mine)
                else:
                    self._wake()  # The place was given to us: pass it on.
                raise

    def _wake(self) -> None:
        if self._waiting and len(self._entered) < self._most:
            following = self._waiting.popleft()
            if following.done():
                self._wake()
            else:
                following.set_result(None)

    def _look(self) -> None:
        """One tick: give up on replies that have been missing for too many."""
        self._tick += 1
        self._timer = None
        while self._retired and self._tick - self._retired[0][0] >= _TICKS_OVERDUE:
            close_native(self._retired.pop(0)[1])
        if not self._entered and not self._retired:
            return
        self._timer = self._loop.call_later(self._period_s, self._look)
        for task, tick in self._entered.items():
            if self._tick - tick < _TICKS_OVERDUE:
                break  # The rest entered later.
            if task not in self._overdue:
                self._overdue[task] = task.cancelling()
                task.cancel()

    def close(self) -> None:
        """Close the clients: on the loop's thread, or after the loop has ended."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        clients = [client for _, client in self._retired]
        if self._client is not None:
            clients.append(self._client)
        self._client, self._retired = None, []
        for client in clients:
            close_native(client)
