"""One connection for threads.

It makes its client at first use, and lets a bounded number of calls at it; the others wait
their turn. A standalone client is made anew when it is done for, since it never finds a new
primary by itself. A cluster's is made anew beside the calls, which go on with the old one:
that still serves the healthy shards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from glide_shared.exceptions import GlideError, RequestError
from glide_shared.routes import RandomNode

from langgraph_valkey.glide.clients import BlockingClient, batch_of, make_blocking
from langgraph_valkey.glide.errors import kind_of
from langgraph_valkey.glide.health import HEALING, LOST, Health, closed, failed, is_one_read
from langgraph_valkey.settings import ConnectionSettings

T = TypeVar("T")


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
        self._is_connecting = False
        self._under_way = 0
        self._waiting = 0
        self._is_closed = False
        self._lock = threading.Condition(threading.Lock())

    async def exec(self, commands: list[list[bytes]]) -> list[Any]:
        """Run the commands; failures of single ones stand in the list. Never suspends."""
        if self._health.in_trouble and is_one_read(commands):
            return [self._read(commands[0])]
        batch = batch_of(self._settings, commands)
        return self.use(lambda client: client.exec(batch, False))

    def _read(self, command: list[bytes]) -> Any:
        """Run one reading command by itself: its reply, or the server's error.

        A batch that a node does not answer holds up batches for all other nodes. Writes are
        sent as batches all the same: only so a refusal comes back with the server's words.
        """
        try:
            return self.use(lambda client: client.custom_command(command))
        except RequestError as error:
            if kind_of(error) in HEALING | LOST:
                raise
            return error

    def use(self, run: Callable[[Any], T]) -> T:
        """Run something on the client, when it is this thread's turn.

        Raises:
            GlideError: As GLIDE raised it.
            ConfigurationError: The lane was closed.
        """
        held = self._enter()
        try:
            result = run(held.client)
            if self._health.matters or failed(result):
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
                    if self._settings.cluster_mode:
                        self._connect_aside(generation)
                    else:  # Whatever it is asked, it asks the wrong node.
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

    def _connect_aside(self, generation: int) -> None:
        """Have the next client of a cluster made while the present one is used.

        Connecting takes a second if a node is frozen, and the others' calls must not wait.
        """
        if not self._is_connecting:
            thread = threading.Thread(target=self._connect, args=(generation,), daemon=True)
            thread.start()
            self._is_connecting = True

    def _connect(self, generation: int) -> None:
        client: Any = make_blocking(self._settings)
        following = _Held(client, generation)
        is_connected = False
        with contextlib.suppress(GlideError):
            client.custom_command([b"PING"], route=RandomNode())
            is_connected = True
        with self._lock:
            self._is_connecting = False
            done: _Held | None = following
            # Where no node is there each call would wait to be connected, one after the other.
            if is_connected and not self._is_closed:
                done, self._held = self._held, following
            if self._held is not None:
                self._held.generation = generation  # It is tried again in its time.
            if done is not None:
                done.retired = True
                done = None if done.users else done
        if done is not None:
            done.client.close()

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
        self._is_connecting = False
        if self._held is not None:
            self._held.users = 0
