"""The stored form of pending writes.

One call of `put_writes` is stored as it came, under its own number (*entry*), and
the list of a checkpoint's entries is kept in the order of their arrival. What
stands of them is worked out when they are read, so that storing never reads
first, and storing the same call twice is storing it once:

    stamp of the server(16 digits) format(1) checksum(8) sealed writes
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import ormsgpack
from langgraph.checkpoint.base import WRITES_IDX_MAP, PendingWrite, writes_sort_key

from langgraph_valkey.keys import to_bytes, to_text
from langgraph_valkey.stored.codec import Codec, Damaged, checksum, is_plain
from langgraph_valkey.stored.records import FORMAT, KIND_CODES, KINDS, NEWEST_READ, UnknownFormat

_STAMP, _SUM = 16, 8
_BEGIN = _STAMP + 1 + _SUM
_FORMAT_BYTE = bytes([FORMAT])


class Write(NamedTuple):
    """One pending write, not yet loaded."""

    task_path: str
    task_id: str
    idx: int
    channel: str
    kind: str
    plain: bytes
    entry: bytes


def build(codec: Codec, writes: Iterable[tuple[str, Any]], task_id: str, task_path: str) -> bytes:
    """The stored form of one task's writes, without the server's stamp."""
    cells = []
    for number, (channel, value) in enumerate(writes):
        kind, plain = codec.dumps(value)
        code = KIND_CODES.get(kind, kind)
        cells.append((WRITES_IDX_MAP.get(channel, number), to_bytes(channel), code, plain))
    packed = codec.seal(ormsgpack.packb((to_bytes(task_id), to_bytes(task_path), cells)))
    return b"".join((_FORMAT_BYTE, checksum(packed), packed))


def unstamped(stored: bytes) -> bytes:
    """What was given to the server, of what it stored."""
    return stored[_STAMP:]


def stamp_of(stored: bytes) -> bytes:
    """The server's stamp on it, 16 digits."""
    return stored[:_STAMP]


def may_mention(stored: bytes | None, channels: Collection[bytes]) -> bool:
    """Whether a call may have written to one of these channels; False is certain."""
    if stored is None or not is_plain(stored[_BEGIN:]):
        return True
    return any(channel in stored for channel in channels)


def merge(codec: Codec, entries: bytes, stored: Sequence[bytes | None]) -> list[Write]:
    """What stands of the writes on a checkpoint, in the order they are applied.

    An ordinary write of a task stays as it first came; a special one (error,
    interrupt, resume, scheduled) is replaced by a later one, except by an older
    call of the same writer that comes late. What came first is told by the server's
    stamps: a replay restores them, and not the order of arrival.

    Args:
        codec: The saver's.
        entries: Writer and sequence number of each call, 16 bytes, as they came.
        stored: The writes of each call.

    Raises:
        Damaged: One of them is missing or damaged.
    """
    if len(stored) == 1:
        found = parse(codec, entries, stored[0])
        if all(write.idx >= 0 for write in found):
            return found  # One task's, in the order of their numbers.
    cells: dict[tuple[str, int], Write] = {}
    newest: dict[tuple[str, int, bytes], bytes] = {}
    came = sorted(range(len(stored)), key=lambda number: (stored[number] or b"")[:_STAMP])
    for number in came:
        raw, entry = stored[number], entries[16 * number : 16 * number + 16]
        for write in parse(codec, entry, raw):
            cell = (write.task_id, write.idx)
            if write.idx >= 0:
                cells.setdefault(cell, write)
                continue
            by_writer = (*cell, entry[:8])
            if newest.get(by_writer, b"") <= entry:
                newest[by_writer] = entry
                cells[cell] = write
    if len(cells) < 2:
        return list(cells.values())
    return sorted(cells.values(), key=lambda w: writes_sort_key(w.task_path, w.task_id, w.idx))


def parse(codec: Codec, entry: bytes, stored: bytes | None) -> list[Write]:
    """The writes of one call.

    Raises:
        Damaged: They are missing or damaged.
        UnknownFormat: A later release wrote them.
    """
    if stored is None or len(stored) <= _BEGIN:
        raise Damaged(f"its writes {entry.hex()} are gone or cut short")
    if stored[_STAMP] > NEWEST_READ:
        raise UnknownFormat(
            f"its writes are of format {stored[_STAMP]}: they were written by a later release; "
            "upgrade this one"
        )
    packed = stored[_BEGIN:]
    if checksum(packed) != stored[_STAMP + 1 : _BEGIN]:
        raise Damaged(f"its writes {entry.hex()} were cut short or overwritten")
    task_id, task_path, cells = ormsgpack.unpackb(codec.open(packed))
    task, path = to_text(task_id), to_text(task_path)
    return [
        Write(
            path, task, idx, to_text(channel),
            kind if isinstance(kind, str) else KINDS[kind], plain, entry,
        )
        for idx, channel, kind, plain in cells
    ]  # fmt: skip


def load(codec: Codec, pending: Iterable[Write]) -> list[PendingWrite]:
    """Writes as LangGraph takes them: task id, channel, value."""
    return [(w.task_id, w.channel, codec.loads(w.kind, w.plain)) for w in pending]
