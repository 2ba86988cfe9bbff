"""One connection of the loop that reads GLIDE's replies.

**Deadlines.** GLIDE's own timeout runs on a thread of its own. On the loop that
reads GLIDE's replies nothing can keep the answer from us but that loop itself,
and a stalled loop would be late for any deadline of ours as well. So a call
needs no timer. What remains is a reply lost between GLIDE and us, and one timer
a lane, not a call, watches for that. It counts its own ticks, not seconds: a
loop that stalled finds the replies waiting and must not mistake them for lost.

A client is made anew as a blocking lane's is (see `blocking_lane`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from glide_shared.exceptions import GlideError, RequestError
from glide_shared.exceptions import TimeoutError as GlideTimeoutError
from glide_shared.routes import RandomNode

from langgraph_valkey import limits
from langgraph_valkey.glide.clients import NativeClient, batch_of, close_native, make_native
from langgraph_valkey.glide.errors import kind_of
from langgraph_valkey.glide.health import HEALING, LOST, Health, closed, failed, is_one_read
from langgraph_valkey.settings import ConnectionSettings

T = TypeVar("T")

_TICKS_OVERDUE = 4
"""A reply is given up when it is missing at this many ticks of the timer."""


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
        self._connecting: asyncio.Task[None] | None = None
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
        if self._health.in_trouble and is_one_read(commands):
            return [await self._read(commands[0])]
        batch = batch_of(self._settings, commands)
        return await self.use(lambda client: client.exec(batch, False))

    async def _read(self, command: list[bytes]) -> Any:
        """Run one reading command by itself; as of a blocking lane."""
        try:
            return await self.use(lambda client: client.custom_command(command))
        except RequestError as error:
            if kind_of(error) in HEALING | LOST:
                raise
            return error

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
            client = self._renewed()
        generation = self._generation
        task = asyncio.current_task(self._loop)
        assert task is not None
        entered[task] = self._tick
        if self._timer is None:
            self._timer = self._loop.call_later(self._period_s, self._look)
        try:
            result = await run(client)
            if self._health.matters or failed(result):
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

    def _renewed(self) -> NativeClient:
        """The next client; a cluster's is made aside, since connecting may take a second.

        The healthy shards are served by the present one meanwhile.
        """
        if self._client is None or not self._settings.cluster_mode:
            return self.open()
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())
        return self._client

    async def _connect(self) -> None:
        generation = self._health.generation
        client: Any = make_native(self._settings)
        is_connected = False
        try:
            with contextlib.suppress(GlideError):
                await client.custom_command([b"PING"], route=RandomNode())
                is_connected = True
        finally:
            self._connecting = None
            if self._is_closed or not is_connected:
                # No node is there: each call would wait to be connected.
                close_native(client)
            else:
                if self._client is not None:
                    self._retired.append((self._tick, self._client))
                self._client = client
            self._generation = generation  # It is tried again in its time.

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
        if self._connecting is not None and not self._loop.is_closed():
            self._connecting.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        clients = [client for _, client in self._retired]
        if self._client is not None:
            clients.append(self._client)
        self._client, self._retired = None, []
        for client in clients:
            close_native(client)
