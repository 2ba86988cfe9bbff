"""How the server and the agent's process talk: JSON, a line each, over a pair of sockets.

The server asks, and each question has a number under which it is answered. The agent also
tells, unasked, what happens: those are events. What ends the one process ends the
connection, and by that the other one knows.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]

LINE_BYTES_MOST = 16 * 1024 * 1024
"""A whole conversation is one line."""


def packed(message: Message) -> bytes:
    """A message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Wire:
    """The agent's end.

    Args:
        descriptor: The socket, as it was inherited.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()

    def heard(self) -> Iterator[Message]:
        """What the server asks, until it is gone."""
        with self._socket.makefile("rb") as lines, suppress(OSError):
            for line in lines:
                yield json.loads(line)

    def say(self, message: Message) -> None:
        """Say something; nobody minds if the server is gone."""
        with self._lock, suppress(OSError):
            self._socket.sendall(packed(message))

    def tell(self, event: str, **about: Any) -> None:
        """Say what happens."""
        self.say({"event": event, **about})
