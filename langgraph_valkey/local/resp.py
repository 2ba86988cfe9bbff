"""A minimal client of the server's protocol, for administration.

The servers of this package are set up, watched and broken by a handful of plain
commands. One blocking connection for one command is enough for that, costs
about 0.1 ms on the loopback, and needs no client library: so the faults of a
test never go through the client that the test is about.

Protocol (RESP2): a request is an array of byte strings; a reply starts with one
of ``+`` (text), ``-`` (error), ``:`` (integer), ``$`` (bytes, length -1 is null)
or ``*`` (array of replies, length -1 is null).
"""

from __future__ import annotations

import socket
from typing import BinaryIO, TypeAlias

from langgraph_valkey.errors import LanggraphValkeyError, OutcomeUnknown, Unreachable

Argument: TypeAlias = bytes | str | int | float
Reply: TypeAlias = "bytes | int | list[Reply] | ServerError | None"

COMMAND_TIMEOUT_S = 5.0
"""How long one administrative command may take: `CLUSTER FAILOVER` and the like
answer within milliseconds, a server that is frozen never does."""

CLUSTERDOWN = "CLUSTERDOWN The cluster is down"
"""What a cluster with durability answers to writes while its log lags."""

SCRIPT_COMMANDS = frozenset({b"EVAL", b"EVALSHA", b"FCALL"})
"""They may write, and the server's table of commands does not say so."""


class ServerError(LanggraphValkeyError):
    """The server answered with an error.

    Attributes:
        code: Its first word, such as ``NOREPLICAS``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


def encode(args: tuple[Argument, ...]) -> bytes:
    """The bytes of one request."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def read_reply(stream: BinaryIO) -> Reply:
    """Read one reply.

    Returns:
        Bytes for texts and byte strings, an int, None, or a list. An error
        inside an array stands in it as a `ServerError`.

    Raises:
        ServerError: The reply is an error.
        EOFError: The connection ended before the reply did.
        ValueError: What came is no RESP2.
    """
    reply = _read(stream)
    if isinstance(reply, ServerError):
        raise reply
    return reply


def _read(stream: BinaryIO) -> Reply:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError("the connection ended within a reply")
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest
        case b"-":
            return ServerError(rest.decode("utf-8", "replace"))
        case b":":
            return int(rest)
        case b"$":
            size = int(rest)
            if size < 0:
                return None
            data = stream.read(size + 2)
            if len(data) != size + 2:
                raise EOFError("the connection ended within a reply")
            return data[:-2]
        case b"*":
            count = int(rest)
            return None if count < 0 else [_read(stream) for _ in range(count)]
    raise ValueError(f"a reply starts with {kind!r}, which RESP2 does not know")


def command(port: int, *args: Argument, timeout_s: float = COMMAND_TIMEOUT_S) -> Reply:
    """Send one command to the server on this machine's port; return its reply.

    Args:
        port: A TCP port of 127.0.0.1.
        args: The command's words.
        timeout_s: How long connecting, and each wait for bytes, may take.

    Raises:
        ServerError: The server answered with an error.
        Unreachable: No connection came about; nothing was sent.
        OutcomeUnknown: The connection broke, or the time ran out, after sending.
    """
    name = args[0] if args else ""
    try:
        sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    except OSError as error:
        raise Unreachable(f"no server answers on port {port}: is it started?") from error
    with sock, sock.makefile("rb") as stream:
        try:
            sock.sendall(encode(args))
            return read_reply(stream)
        except (OSError, EOFError) as error:
            raise OutcomeUnknown(
                f"the server on port {port} did not answer {name!s} within {timeout_s} s"
                if isinstance(error, TimeoutError)
                else f"the connection to port {port} broke before {name!s} was answered"
            ) from error


def write_commands(table: Reply) -> frozenset[bytes]:
    """Names of the commands that may write, by the server's reply to ``COMMAND``."""
    rows = [row for row in table if isinstance(row, list)] if isinstance(table, list) else []
    names = set()
    for name, _, flags, *_ in rows:
        if isinstance(name, bytes) and isinstance(flags, list) and b"write" in flags:
            names.add(name.upper())
    return frozenset(names) | SCRIPT_COMMANDS
