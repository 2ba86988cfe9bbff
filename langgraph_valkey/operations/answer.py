"""What the scripts answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Status(Enum):
    """How an operation ended. The scripts say when each is given."""

    OK = b"ok"
    NONE = b"none"
    """There is no such thread, namespace or checkpoint."""
    TORN = b"torn"
    """A key of the thread is gone: evicted, or lost."""
    UNORDERED = b"unordered"
    """The thread's index is gone, and can be made anew."""
    MISSING = b"missing"
    """Chunks that were not sent are not there."""
    RESEND = b"resend"
    """The thread is not the one the writer knows: it must send everything."""
    STALE = b"stale"
    """Something of this name was deleted since the writer last heard of it."""
    DELETED = b"deleted"
    """The writer's thread was deleted."""
    CLOSED = b"closed"
    """The sweep ran out of time."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a process knows of a thread on the server.

    Attributes:
        nonce: The thread's mark, 16 bytes; empty if there is none.
        gen: The stamp of its creation; 0 if there is none.
        stamp: The newest stamp seen: microseconds of the server's clock.
    """

    nonce: bytes = b""
    gen: int = 0
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A script's reply.

    Attributes:
        status: How the operation ended.
        identity: Which primary answered (its `master_replid`); empty where the
            server does not tell.
        standing: The thread as the server has it.
        rest: What else the script returned.
    """

    status: Status
    identity: bytes
    standing: Standing
    rest: list[Any]


_STATUS = {status.value: status for status in Status}


def read(reply: list[Any]) -> Answer:
    """Take a reply apart."""
    status, identity, stamp, gen, nonce = reply[:5]
    return Answer(_STATUS[status], identity, Standing(nonce, int(gen), int(stamp)), reply[5:])
