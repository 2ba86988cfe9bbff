"""What is read may be built upon, so it is journaled, too.

A checkpoint that another process stored is kept as the write that would store it,
under the number under which that process did. What this process wrote itself
already stands in its journal, or is durable; unless its outcome was not known, and
the read tells that it was applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from langgraph_valkey import operations
from langgraph_valkey.keys import namespace_field, to_text
from langgraph_valkey.known import Base
from langgraph_valkey.loss_window.entries import PUT, WRITES, Entry
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Answer, Standing, Stored
from langgraph_valkey.place import Place
from langgraph_valkey.stored import records, writes


class Found(NamedTuple):
    """A checkpoint as the server gave it.

    Attributes:
        checkpoint_id: Its id.
        record: Its record.
        chunks: Its chunks by digest.
        entries: The numbers of its writes, 16 bytes each.
        writes: Those.
        known: A checkpoint that this process has written or read before, if any: what
            that refers to need not be kept again.
    """

    checkpoint_id: bytes
    record: bytes
    chunks: Mapping[bytes, bytes | None]
    entries: bytes
    writes: Sequence[bytes | None]
    known: Base | None = None


def note(
    window: LossWindow, writer: bytes, place: Place, answer: Answer, deadline_ms: int,
    namespace: str, found: Sequence[Found], now_s: float,
) -> None:  # fmt: skip
    """Journal what others stored of that which was read.

    Args:
        window: The saver's.
        writer: This process, as its entries name it.
        place: The thread.
        answer: What was read.
        deadline_ms: When the thread expires, on the server's clock; not positive for
            never.
        namespace: The checkpoints' namespace.
        found: The checkpoints, the head first.
        now_s: When the answer came.
    """
    if not window.rule.journals:
        return
    foreign: list[Entry] = []
    doubtful = window.doubtful
    for one in found:
        at = to_text(one.checkpoint_id)
        number = records.entry_of(one.record)
        if number[:8] != writer or number in doubtful:
            fresh = one.chunks if one.known is None else one.known.without_own(one.chunks)
            chunks = [digest + chunk for digest, chunk in fresh.items() if chunk is not None]
            stored = Stored(one.record, chunks, bytes(16), complete=True, root=True, leans=False)
            call = operations.put(place.keys, number, None, namespace, at, stored, answer.standing)
            foreign.append(_entry(number, PUT, place, call.args, answer.standing))
        for index, stored_writes in enumerate(one.writes):
            number = one.entries[16 * index : 16 * index + 16]
            others = number[:8] != writer or number in doubtful
            if others and stored_writes is not None:
                payload = writes.unstamped(stored_writes)
                where = place.keys, number, None, namespace, at
                call = operations.put_writes(*where, payload, answer.standing)
                standing = answer.standing._replace(stamp=writes.stamp_of(stored_writes))
                foreign.append(_entry(number, WRITES, place, call.args, standing))
    if foreign:
        for entry in foreign:
            entry.deadline_ms = max(0, deadline_ms)
        window.read(foreign, answer.identity, now_s)
        window.saw_head(place.thread, namespace_field(namespace), found[0].checkpoint_id)


def _entry(
    number: bytes, kind: bytes, place: Place, args: list[bytes], standing: Standing
) -> Entry:
    size = sum(map(len, args))
    return Entry(number, kind, place.thread, place.keys.slot, args, size, standing)
