"""What the scripts answer."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple


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
    ORPHAN = b"orphan"
    """The parent is gone, and the checkpoint can't be loaded without it."""
    MOVED = b"moved"
    """Another primary answers than the writer expected: it must replay first."""
    REWOUND = b"rewound"
    """The thread is behind what the writer was told of it."""
    CLOSED = b"closed"
    """The sweep ran out of time."""


class Standing(NamedTuple):
    """What a process knows of a thread on the server, as the server put it.

    Attributes:
        nonce: The thread's mark, 16 bytes; zeros if there is none.
        gen: The stamp of its creation, 16 digits; zeros if there is none.
        stamp: The newest stamp seen: microseconds of the server's clock, 16 digits.
        dead: The stamp of the deletion before its creation; zeros if there was none.
    """

    nonce: bytes = bytes(16)
    gen: bytes = b"0" * 16
    stamp: bytes = b"0" * 16
    dead: bytes = b"0" * 16

    @property
    def exists(self) -> bool:
        """Whether there is such a thread."""
        return self.nonce != bytes(16)


class Answer(NamedTuple):
    """A script's reply.

    Attributes:
        status: How the operation ended.
        identity: Which primary answered: its `master_replid`, or where that is hidden
            ``n`` and its node id but for the last digit, 40 characters; empty where the
            server tells neither.
        standing: The thread as the server has it.
        rest: What else the script returned.
        beyond: What else it told beside the standing: of a bucket, see `items.memories`.
    """

    status: Status
    identity: bytes
    standing: Standing
    rest: list[Any]
    beyond: bytes = b""

    @property
    def may_hide_loss(self) -> bool:
        """Whether the server may have lost something and still be the same, by its identity.

        A node id does not change when the node comes back empty, or fails back.
        """
        return not self.identity or self.identity[:1] == b"n"


_STATUS = {status.value: status for status in Status}


def read(reply: list[Any]) -> Answer:
    """Take a reply apart."""
    status, identity, text = reply[:3]
    standing = Standing(text[:16], text[16:32], text[32:48], text[48:64])
    return Answer(_STATUS[status], identity, standing, reply[3:], text[64:])
