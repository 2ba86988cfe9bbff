"""One connection in, one connection out, and whatever stands between them.

A `Tunnel` is made when somebody connects. It connects to the server, passes bytes
both ways through `from_near` and `from_far`, which a subclass defines, and ends both
connections when either ends: what was sent on is still delivered, what was not is
gone. A side that does not read makes the other one wait, so no tunnel grows without
bound. All of it runs in the event loop of one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol


class Shuttable(Protocol):
    """A socket, as an event loop shows it."""

    def shutdown(self, how: int, /) -> None:
        """Shut it down."""
        ...


def shut(sock: Shuttable) -> None:
    """End a connection, or stop listening, for every process that has the socket."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class End(asyncio.Protocol):
    """One of a tunnel's two connections."""

    def __init__(
        self,
        came: Callable[[], None],
        received: Callable[[bytes], None],
        full: Callable[[bool], None],
        ended: Callable[[], None],
    ) -> None:
        self._came, self._received, self._full, self._ended = came, received, full, ended
        self._transport: asyncio.Transport | None = None
        self._stopped_by: set[str] = set()

    @property
    def open(self) -> bool:
        """Whether it can still be written to."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, data: bytes) -> None:
        """Send, if it is open."""
        if self._transport is not None and data and not self._transport.is_closing():
            self._transport.write(data)

    def stop(self, reason: str) -> None:
        """Read no more until `go` was called for each reason."""
        self._stopped_by.add(reason)
        if self._transport is not None and self.open:
            self._transport.pause_reading()

    def go(self, reason: str) -> None:
        """End `stop` for this reason."""
        self._stopped_by.discard(reason)
        if self._transport is not None and self.open and not self._stopped_by:
            self._transport.resume_reading()

    def close(self) -> None:
        """End it when what was sent is delivered."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._came()

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._received(data)

    def pause_writing(self) -> None:
        """The other side of this connection does not read."""
        self._full(True)

    def resume_writing(self) -> None:
        """It does again."""
        self._full(False)

    def connection_lost(self, _error: Exception | None) -> None:
        """End, also where a forked child has the connection open as well."""
        assert self._transport is not None
        shut(self._transport.get_extra_info("socket"))
        self._ended()


class Tunnel(ABC):
    """A connection to a proxy, and the one to the server that belongs to it.

    Args:
        port: Of the server, on 127.0.0.1.
        open_tunnels: Where it stands while it is open.

    Attributes:
        near: The connection that came.
        far: The connection to the server.
    """

    def __init__(self, port: int, open_tunnels: set[Tunnel]) -> None:
        self._port = port
        self._open_tunnels = open_tunnels
        self._reaching: asyncio.Task[None] | None = None
        self.near = End(self._came, self._guard(self.from_near), self._near_full, self._near_ended)
        self.far = End(self._begin, self._guard(self.from_far), self._far_full, self._far_ended)

    @abstractmethod
    def from_near(self, data: bytes) -> None:
        """Something came from whom connected."""

    @abstractmethod
    def from_far(self, data: bytes) -> None:
        """Something came from the server."""

    def ended(self) -> None:
        """Either connection has ended. Called once."""
        self._open_tunnels.discard(self)

    def end(self) -> None:
        """End both connections at once."""
        if self._reaching is not None:
            self._reaching.cancel()
        self.near.abort()
        self.far.abort()

    def _guard(self, take: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def guarded(data: bytes) -> None:
            try:
                take(data)
            except ValueError:  # it does not speak the protocol
                self.end()

        return guarded

    def _came(self) -> None:
        self._open_tunnels.add(self)
        self.near.stop("no server")
        self._reaching = asyncio.get_running_loop().create_task(self._reach())

    async def _reach(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.far, "127.0.0.1", self._port)
        except OSError:
            self.near.abort()

    def _begin(self) -> None:
        if self.near.open:
            self.near.go("no server")
        else:
            self.far.abort()

    def _near_full(self, full: bool) -> None:
        self.far.stop("full") if full else self.far.go("full")

    def _far_full(self, full: bool) -> None:
        self.near.stop("full") if full else self.near.go("full")

    def _near_ended(self) -> None:
        self._leave()
        self.far.close()

    def _far_ended(self) -> None:
        self._leave()
        self.near.close()

    def _leave(self) -> None:
        if self in self._open_tunnels:
            self.ended()
