"""A wire between a client and a PostgreSQL server that loses what is sent about COMMIT.

It stands on a port of 127.0.0.1 and passes bytes on to the server's socket. When told
to, it breaks a connection once a transaction was committed, before the answer got
through (`lose_answers`), or before COMMIT arrived (`lose_requests`). To the client the
two look alike.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Self

COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""The server's message that a transaction was committed."""

COMMIT = b"COMMIT\x00"
"""How the client says so, within a message that is a query or is to be parsed."""

CHUNK = 64 * 1024


class PostgresWire:
    """The wire; a context manager.

    Args:
        server: The server's socket.

    Attributes:
        lose_answers: How many more answers to COMMIT get lost.
        lose_requests: How many more COMMITs get lost.
        lost: How many of both were lost so far.
        is_silent: Whether it takes what it is sent and passes nothing on.
    """

    def __init__(self, server: Path) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self.lose_answers = 0
        self.lose_requests = 0
        self.lost = 0
        self.is_silent = False

    @property
    def url(self) -> str:
        """For clients."""
        return f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}/postgres"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._listener)
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            self._end(each)
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                with self._lock:
                    self._sockets |= {client, server}
                self._start(self._pass_on, client, server, COMMIT, "lose_requests")
                self._start(self._pass_on, server, client, COMMITTED, "lose_answers")

    def _pass_on(
        self, source: socket.socket, target: socket.socket, sign: bytes, plan: str
    ) -> None:
        """Pass bytes on, up to a chunk with the sign, if that is to be lost."""
        with contextlib.suppress(OSError):
            while (chunk := source.recv(CHUNK)) and not (sign in chunk and self._loses(plan)):
                if not self.is_silent:
                    target.sendall(chunk)
        self._end(source)
        self._end(target)

    def _loses(self, plan: str) -> bool:
        with self._lock:
            left = int(getattr(self, plan))
            if left:
                setattr(self, plan, left - 1)
                self.lost += 1
            return left > 0

    def _end(self, each: socket.socket) -> None:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
        with self._lock:
            self._sockets.discard(each)
