"""Entries: what the journal keeps of one write, or of one read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import ormsgpack

from langgraph_valkey import limits
from langgraph_valkey.loss_window.spool_file import Row
from langgraph_valkey.loss_window.watermark import NOTHING_YET
from langgraph_valkey.operations import Standing

PUT, WRITES, REMOVE, DELETE = b"P", b"W", b"R", b"D"
ITEMS = b"I"
"""Puts and deletions of the store's items, in one bucket: what a thread is to a saver."""


class Entry:
    """A write, from before it was sent until it is durable.

    Attributes:
        number: Writer and sequence number, 16 bytes.
        kind: `PUT`, `WRITES`, `REMOVE` or `DELETE`; of the store's `ITEMS`.
        thread: The thread's name.
        slot: Its hash slot.
        args: The arguments of the call; None while they are only in the spool.
        size: Bytes it takes up here, roughly.
        sent_wall_s: When it was first sent, on this machine's clock.
        acked_s: Since when the primary has had it; None while it is on its way.
        identity: That primary.
        sure: It was acknowledged; else its outcome is not known.
        standing: The thread, by the acknowledgement, or by what was known before.
        deadline_ms: When the thread then was to expire, on the server's clock; 0 for
            never.
        is_read: It was read, not written.
        bare: Its payload was given up: it can be asked for, and no more.
        serial: Its number in the spool; 0 if it is not there.
        missing_since_s: Since when a replay has found that what it refers to is not
            there; another process may bring it.
        is_over: By the last replay it was deleted, or has expired.
    """

    # What most entries never differ in stands here, since making one has to be cheap.
    acked_s: float | None = None
    identity = b""
    sure = False
    deadline_ms = 0
    is_read = False
    bare = False
    serial = 0
    missing_since_s: float | None = None
    is_over = False

    def __init__(
        self, number: bytes, kind: bytes, thread: str, slot: int, args: list[bytes],
        size: int, standing: Standing,
    ) -> None:  # fmt: skip
        self.number = number
        self.kind = kind
        self.thread = thread
        self.slot = slot
        self.args: list[bytes] | None = args
        self.size = size
        self.standing = standing
        self.sent_wall_s = time.time()

    @property
    def in_memory(self) -> bool:
        """Whether all of it is held in memory."""
        return self.args is not None and not self.bare


@dataclass(slots=True)
class OfThread:
    """What the journal holds of one thread.

    Attributes:
        entries: In the order in which they were sent, by their numbers.
        heads: In each namespace (as it is stored), ids that were its head once and
            are not of an entry here.
        replayed_s: When it was replayed last.
    """

    entries: dict[bytes, Entry] = field(default_factory=dict)
    heads: dict[bytes, dict[bytes, None]] = field(default_factory=dict)
    replayed_s: float = NOTHING_YET

    @property
    def is_own(self) -> bool:
        """Whether it is this process's, and no other one is known to write it."""
        entries = self.entries.values()
        return not any(entry.is_read for entry in entries) and any(not e.is_over for e in entries)

    def saw(self, namespace: bytes, checkpoint_id: bytes) -> None:
        """Note a head, so that a replay may move on from it."""
        seen = self.heads.setdefault(namespace, {})
        seen[checkpoint_id] = None
        if len(seen) > limits.SEEN_MOST:
            del seen[next(iter(seen))]


def packed(entry: Entry) -> bytes:
    """An entry for the spool."""
    about = entry.number, entry.kind, entry.slot, entry.args, entry.deadline_ms, entry.sure
    return ormsgpack.packb((*about, *entry.standing))


def unpacked(row: Row) -> Entry:
    """The inverse of `packed`."""
    number, kind, slot, args, deadline_ms, sure, *standing = ormsgpack.unpackb(row.body)
    size = sum(map(len, args))
    entry = Entry(number, kind, row.thread, slot, args, size, Standing(*standing))
    entry.sent_wall_s, entry.deadline_ms, entry.sure = row.first_sent_s, deadline_ms, sure
    return entry
