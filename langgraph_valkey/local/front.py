"""The two doors of a node of a durable cluster, and the thread that keeps them.

Clients find the one, other nodes the other: a server can announce a port of its own
to each (``cluster-announce-client-port`` and ``cluster-announce-port``). Behind the
first stands the `gate`, behind the second the `replication` connection with its
log. Nodes talk about each other on a third port, which has no door.

Doors stay open while a node is down, so that it comes back on the same ports; who
knocks meanwhile is turned away.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from langgraph_valkey.local.gate import ClientTunnel, Wanted
from langgraph_valkey.local.log import Log
from langgraph_valkey.local.replication import ReplicaTunnel
from langgraph_valkey.local.tunnel import Tunnel, shut

THREAD_NAME = "valkey-durability"
ANSWER_DEADLINE_S = 10.0

QUIET_TURNS = 8
"""Turns of the loop without a connection, after which none can be on its way any more: from
its acceptance until its tunnel knows of it takes three, and ending what it reached for two."""

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, daemon=True, name=THREAD_NAME
        )
        self._thread.start()

    def call(self, work: Callable[[], T]) -> T:
        """Do something in the thread; return what it returned."""

        async def working() -> T:
            return work()

        return self.wait(working())

    def wait(self, work: Awaitable[T]) -> T:
        """Await something in the thread; return its result."""

        async def waiting() -> T:
            return await work

        future = asyncio.run_coroutine_threadsafe(waiting(), self._loop)
        return future.result(ANSWER_DEADLINE_S)

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_DEADLINE_S)
        self._loop.close()


class Front:
    """The doors of one node.

    Args:
        thread: Where everything runs.
        server_port: The port of the server itself.
        log: The node's.

    Attributes:
        log: As given; it belongs to the thread.
        client_port: Where clients find the node.
        node_port: Where its replicas find it.
    """

    def __init__(self, thread: LoopThread, server_port: int, log: Log) -> None:
        self.log = log
        self.client_port = self.node_port = 0
        self._thread = thread
        self._server_port = server_port
        self._wanted = Wanted(frozenset(), lambda: 1)
        self._doors: list[asyncio.Server] = []
        self._tunnels: set[Tunnel] = set()

    def open(self) -> None:
        """Open both doors, on free ports."""
        self._thread.wait(self._open())

    def want(self, wanted: Wanted) -> None:
        """Tell the gate what it needs to know; until then nothing counts as a write."""
        self._wanted = wanted

    def call(self, work: Callable[[Log], T]) -> T:
        """Do something with the log; return what it returned."""
        return self._thread.call(lambda: work(self.log))

    def close(self) -> None:
        """Close the doors, and end every connection."""
        self._thread.wait(self._close())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        for make in (self._client_came, self._replica_came):
            self._doors.append(await loop.create_server(make, "127.0.0.1", 0))
        self.client_port, self.node_port = (
            door.sockets[0].getsockname()[1] for door in self._doors
        )

    def _client_came(self) -> asyncio.Protocol:
        return ClientTunnel(self._server_port, self._tunnels, self.log, self._wanted).near

    def _replica_came(self) -> asyncio.Protocol:
        return ReplicaTunnel(self._server_port, self._tunnels, self.log).near

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        listening = [sock for door in self._doors for sock in door.sockets]
        for sock in listening:
            loop.remove_reader(sock.fileno())
        # A door that closes on somebody who is just coming in would leave him standing there.
        quiet = 0
        while quiet < QUIET_TURNS:
            quiet = 0 if self._tunnels else quiet + 1
            for tunnel in tuple(self._tunnels):
                tunnel.end()
            await asyncio.sleep(0)
        for sock in listening:
            shut(sock)
        for door in self._doors:
            door.close()
        self._doors.clear()
