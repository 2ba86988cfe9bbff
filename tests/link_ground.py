"""What the tests of the links stand on: scripts, faces, servers, and a faulty wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.link import Call, Reply, Script, finish
from langgraph_valkey.local.node import free_ports, server_binary
from langgraph_valkey.settings import ConnectionSettings

GET = Script("get", "return redis.call('GET', KEYS[1])")
PUT = Script("put", "redis.call('SET', KEYS[1], ARGV[1]) return 1")
COUNT = Script("count", "return redis.call('INCR', KEYS[1])")
FAIL = Script("fail", "return redis.error_reply(ARGV[1])")
ECHO = Script("echo", "return {KEYS[1], 7, false, {ARGV[1]}}")


def get(key: bytes, size: int = 0) -> Call:
    return Call(GET, (key,), [], writes=False, size=size)


def put(key: bytes, value: bytes, size: int = 0) -> Call:
    return Call(PUT, (key,), [value], writes=True, size=size)


def count(key: bytes) -> Call:
    return Call(COUNT, (key,), [], writes=True)


def fail(text: str, *, writes: bool) -> Call:
    """A call that the server answers with this error."""
    return Call(FAIL, (b"k",), [text.encode()], writes=writes)


class Face:
    """One way to send: the tests that hold for all of them take it as fixture."""

    def __init__(self, name: str, settings: ConnectionSettings) -> None:
        self.name = name
        self.settings = settings
        self.blocking = BlockingLink(settings)
        self.loop = LoopLink(settings, self.blocking)

    async def send(self, *calls: Call) -> list[Reply]:
        if self.name == "blocking":
            return finish(self.blocking.send(calls))
        return await self.loop.send(calls)

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        if self.name == "blocking":
            return finish(self.blocking.scan(cursor, pattern))
        return await self.loop.scan(cursor, pattern)

    def close(self) -> None:
        self.loop.close()
        self.blocking.close()


@contextlib.contextmanager
def links(url: str, **fields: Any) -> Iterator[tuple[BlockingLink, LoopLink]]:
    """Both links to a server, closed at the end."""
    settings = ConnectionSettings.from_url(url, **fields)
    blocking = BlockingLink(settings)
    loop = LoopLink(settings, blocking)
    try:
        yield blocking, loop
    finally:
        loop.close()
        blocking.close()


def in_a_thread(run: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine on a new event loop in a new thread; return what it returns."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(_awaited(run))))
    thread.start()
    thread.join(60)
    return found[0]


async def _awaited(run: Callable[[], Awaitable[Any]]) -> Any:
    return await run()


@contextlib.contextmanager
def standalone(directory: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server without cluster mode."""
    server = subprocess.Popen(
        [server_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(1_000):
            with contextlib.suppress(OSError):
                if ask(port, "PING") == b"+PONG\r\n":
                    break
            threading.Event().wait(0.01)
        yield server
    finally:
        server.kill()
        server.wait()


def ask(port: int, *words: str) -> bytes:
    """One command over a connection of its own; the first bytes of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
        wire.sendall((" ".join(words) + "\r\n").encode())
        return wire.recv(4_096)


class Wire:
    """A proxy that can encrypt, cut connections and swallow answers.

    Attributes:
        port: Where it listens; give it to the server as the port to announce.
        cuts: Close a connection when the server's answer to it arrives, unseen.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_ports(1)[0]
        self.target = 0
        self.cuts = False
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as ends:
            ends.enter_context(client)
            if self._tls is not None:
                client = ends.enter_context(self._tls.wrap_socket(client, server_side=True))
            server = ends.enter_context(socket.create_connection(("127.0.0.1", self.target)))
            self._open += [client, server]
            back = threading.Thread(target=self._back, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(65_536):
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            back.join(5)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if self.cuts:
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


async def outcomes(waits: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await them all; errors stand in the list."""
    return list(await asyncio.gather(*waits, return_exceptions=True))
