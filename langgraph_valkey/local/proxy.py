"""`RejectingProxy`: a server whose writes are refused, stalled or cut off at will.

It stands between clients and one node, on a port of its own, and has the node
announce that port to clients (``cluster-announce-client-port``), so that a cluster
client that discovers the node's address ends up here too; replicas and other nodes
go on using the real one.

For a cluster that refuses writes by itself, when its log lags, see `LocalCluster`.

It reads requests one by one and passes replies through as they are. How it keeps
their order when it refuses one of several that are under way: it *replaces* the
refused request by a script that returns the error, so that the server itself
answers in its turn, within a millisecond.

What it stands for:

==============  ================================================================
`reject`        a primary whose durability lags: ``CLUSTERDOWN`` for writes while
                reads go on
`stall`         a network that delivers late, or not at all
`cut`           a connection that breaks before a request arrived, or after it
                was executed but before the answer: the caller can't tell which
==============  ================================================================
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol, Self, TypeAlias

from langgraph_valkey.errors import LanggraphValkeyError, Unreachable
from langgraph_valkey.local.lifecycle import Lifecycle
from langgraph_valkey.local.resp import CLUSTERDOWN, Argument, Reply, encode, write_commands

Request: TypeAlias = Sequence[bytes]
"""The words of one command."""

Matching: TypeAlias = Callable[[Request], bool]

ANNOUNCE = "cluster-announce-client-port"

_ERROR_SCRIPT = b"return server.error_reply(ARGV[1])"

THREAD_NAME = "valkey-proxy"
RECEIVE_BYTES = 64 * 1024
JOIN_DEADLINE_S = 2.0


class Target(Protocol):
    """What can stand behind a proxy: a `LocalValkey` or a `Node`."""

    @property
    def port(self) -> int:
        """Its port for clients."""
        ...

    def command(self, *args: Argument, timeout_s: float | None = None) -> Reply:
        """Send it one command."""
        ...


class RejectingProxy(Lifecycle):
    """A TCP proxy in front of one node, passing everything on until told otherwise.

    Connections that clients opened before it started go on past it.

    Args:
        target: A started `LocalValkey`, or a `Node` of a `LocalCluster`.

    Attributes:
        rejected: How many requests were refused so far.
        passed: How many requests were passed on so far.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._announced = b"0"
        self._tunnels: set[_Tunnel] = set()
        self._writes: frozenset[bytes] = frozenset()
        self._refusal: tuple[bytes, Matching] | None = None
        self._cut: tuple[bool, Matching] | None = None
        self._cuts_left = 0
        self._requests_flow = threading.Event()
        self._replies_flow = threading.Event()
        self.rejected = 0
        self.passed = 0

    @property
    def port(self) -> int:
        """The proxy's own port."""
        if self._listener is None:
            raise Unreachable("the proxy is not started: use `with`, or call start()")
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """``valkey://127.0.0.1:PORT`` of the proxy."""
        return f"valkey://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen, and have the node announce the proxy's port to clients."""
        if self._listener is None:
            self._writes = write_commands(self._target.command("COMMAND"))
            self._requests_flow.set()
            self._replies_flow.set()
            self._listener = socket.create_server(("127.0.0.1", 0))
            announced = self._target.command("CONFIG", "GET", ANNOUNCE)
            if isinstance(announced, list) and isinstance(announced[1], bytes):
                self._announced = announced[1]
            self._target.command("CONFIG", "SET", ANNOUNCE, self.port)
            _thread(self._accept, self._listener).start()
        return self

    def stop(self) -> None:
        """Have the node announce what it announced before; close every connection."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(LanggraphValkeyError):  # the node may be gone
            self._target.command("CONFIG", "SET", ANNOUNCE, self._announced)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        self.flow()
        for tunnel in self._open_tunnels():
            tunnel.close()
            tunnel.join(JOIN_DEADLINE_S)

    def is_write(self, request: Request) -> bool:
        """Whether a request may write: scripts count, unless called read-only."""
        return bool(request) and request[0].upper() in self._writes

    # --- faults -------------------------------------------------------------------

    def reject(self, error: str = CLUSTERDOWN, *, matching: Matching | None = None) -> None:
        """Refuse requests with an error, until `accept`.

        Args:
            error: The error's text, its code first.
            matching: Which requests to refuse; None: all that may write.
        """
        text = error.encode()
        with self._lock:
            self._refusal = (
                encode((b"EVAL_RO", _ERROR_SCRIPT, 0, text)),
                matching or self.is_write,
            )

    def accept(self) -> None:
        """End `reject`."""
        with self._lock:
            self._refusal = None

    def stall(self, *, requests: bool = True, replies: bool = True) -> None:
        """Hold back what comes from now on, in order, until `flow`.

        Args:
            requests: Hold requests: they are executed late.
            replies: Hold replies: requests are executed at once, and answered late.
        """
        if requests:
            self._requests_flow.clear()
        if replies:
            self._replies_flow.clear()

    def flow(self) -> None:
        """End `stall`: deliver what was held back."""
        self._requests_flow.set()
        self._replies_flow.set()

    def cut_next(self, *, executed: bool, matching: Matching | None = None, count: int = 1) -> None:
        """Break the connection of the next requests that match.

        Args:
            executed: True: the request reaches the server and is executed, but its
                answer, and every other one under way, is lost. False: it is lost.
            matching: Which requests; None: all that may write.
            count: How many.
        """
        with self._lock:
            self._cut, self._cuts_left = (executed, matching or self.is_write), count

    def cut(self) -> None:
        """Break every connection now."""
        for tunnel in self._open_tunnels():
            tunnel.close()

    # --- passing on ---------------------------------------------------------------

    def _open_tunnels(self) -> list[_Tunnel]:
        with self._lock:
            return list(self._tunnels)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed by `stop`
            try:
                server = socket.create_connection(("127.0.0.1", self._target.port))
            except OSError:
                client.close()
                continue
            tunnel = _Tunnel(client, server)
            with self._lock:
                self._tunnels.add(tunnel)
            tunnel.run(self._pass_requests, self._pass_replies, self._ended)

    def _ended(self, tunnel: _Tunnel) -> None:
        with self._lock:
            self._tunnels.discard(tunnel)

    def _pass_requests(self, tunnel: _Tunnel) -> None:
        with tunnel.client.makefile("rb") as stream:
            while (parsed := _read_request(stream)) is not None:
                raw, request = parsed
                self._requests_flow.wait()
                executed = self._cut_now(request)
                if executed is None:
                    tunnel.server.sendall(self._replaced(raw, request))
                    continue
                if executed:
                    tunnel.deaf = True
                    tunnel.server.sendall(raw)
                    # The server executes what it has read before it sees this end.
                    tunnel.server.shutdown(socket.SHUT_WR)
                    tunnel.drained.wait(JOIN_DEADLINE_S)
                return

    def _pass_replies(self, tunnel: _Tunnel) -> None:
        try:
            while data := tunnel.server.recv(RECEIVE_BYTES):
                self._replies_flow.wait()
                if not tunnel.deaf:
                    tunnel.client.sendall(data)
        finally:
            tunnel.drained.set()

    def _cut_now(self, request: Request) -> bool | None:
        """Whether to cut after execution (True), before (False), or not (None)."""
        with self._lock:
            if self._cut is None or not self._cut[1](request):
                return None
            executed = self._cut[0]
            self._cuts_left -= 1
            if self._cuts_left <= 0:
                self._cut = None
            return executed

    def _replaced(self, raw: bytes, request: Request) -> bytes:
        with self._lock:
            if self._refusal is not None and self._refusal[1](request):
                self.rejected += 1
                return self._refusal[0]
            self.passed += 1
            return raw


class _Tunnel:
    """One client's connection and the one to the server that belongs to it.

    Attributes:
        deaf: Replies are dropped from now on.
        drained: The server has nothing more to say.
    """

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.deaf = False
        self.drained = threading.Event()
        self._ended = threading.Event()
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self, there: _Side, back: _Side, ended: _Side) -> None:
        """Serve each direction in a thread; when both have ended, close and say so."""
        _thread(self._serve, there, back, ended).start()

    def _serve(self, there: _Side, back: _Side, ended: _Side) -> None:
        answering = _thread(self._go, back)
        answering.start()
        self._go(there)
        answering.join()
        self.client.close()
        self.server.close()
        ended(self)
        self._ended.set()

    def _go(self, side: _Side) -> None:
        # A side may break, or not speak the protocol: both end the connection.
        with contextlib.suppress(OSError, ValueError):
            side(self)
        self.close()

    def close(self) -> None:
        """Break both connections; the threads end by it."""
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def join(self, timeout_s: float) -> None:
        """Wait until both directions have ended."""
        self._ended.wait(timeout_s)


def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
    return threading.Thread(target=target, args=args, daemon=True, name=THREAD_NAME)


_Side: TypeAlias = Callable[[_Tunnel], None]


def _read_request(stream: BinaryIO) -> tuple[bytes, list[bytes]] | None:
    """One request as it came and as words; None at the end."""
    line = stream.readline()
    if not line.startswith(b"*"):
        return (line, line.split()) if line else None
    raw, words = [line], []
    for _ in range(int(line[1:])):
        size = stream.readline()
        word = stream.read(int(size[1:]) + 2)
        raw += (size, word)
        words.append(word[:-2])
    return b"".join(raw), words
