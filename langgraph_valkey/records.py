"""The stored form of a checkpoint and of a task's writes.

A checkpoint is a *record* that says how its state is put together, and *chunks*
it refers to, shared with its neighbours. The scripts read the first part of a
record, so it is laid out by position (integers big-endian):

    format(1) writer(8) seq(8) parent length(2) digests(4) metadata length(4)
    parent  digests(16 each)  metadata  body  checksum(8)

Metadata and body are sealed (see `codec`). The body holds a manifest and the
checkpoint without its values. The manifest names, for each channel with a value,
its type and where the value is: here, in one chunk, or in groups of a list.

Formats: a release reads `FORMAT` and the one after it, and writes `FORMAT`. The
rule for the next format, by which this release reads it, is that it may only
append to manifest entries and to the manifest itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import ormsgpack
from langgraph.checkpoint.base import WRITES_IDX_MAP, PendingWrite, writes_sort_key

from langgraph_valkey import limits, pieces
from langgraph_valkey.codec import Codec, Damaged, checksum
from langgraph_valkey.keys import to_bytes, to_text

FORMAT = 1
"""The record format this release writes."""

NEWEST_READ = FORMAT + 1
"""The newest it reads."""

_HEADER = struct.Struct(">B16sHII")
_SIGNED = 17
"""Where the part begins that the checksum covers: a copy gets another number."""

_SUM = 8
_FORMAT_BYTE = bytes([FORMAT])
_STAMP = 16
_KINDS = ("msgpack", "null", "bytes", "bytearray", "json", "pickle")
_KIND_CODES = {kind: code for code, kind in enumerate(_KINDS)}


Entry: TypeAlias = tuple[str, str, Any, bool, bytes]
"""A channel in a manifest: its name, its kind, where its value is (plain bytes;
the index of a chunk; or the index and element count of each group, in turn),
whether it is a delta channel's snapshot, and a checksum of what chunks hold."""


class UnknownFormat(Damaged):
    """A record of a format newer than this release can read."""


@dataclass(slots=True)
class Record:
    """A record taken apart.

    Attributes:
        parent: Id of the parent checkpoint, or None.
        digests: The chunks it refers to.
        metadata: Sealed metadata.
        manifest: An entry for each channel with a value.
        checkpoint: The checkpoint without its values, typed but not loaded.
    """

    parent: str | None
    digests: list[bytes]
    metadata: bytes
    manifest: list[Entry]
    checkpoint: bytes


def build(
    codec: Codec,
    entry: bytes,
    parent: str,
    checkpoint: Mapping[str, Any],
    metadata: Mapping[str, Any],
    values: Mapping[str, pieces.Value],
) -> bytes:
    """The record of a checkpoint.

    Args:
        codec: The saver's.
        entry: Writer and sequence number, 16 bytes.
        parent: The parent's id, or ''.
        checkpoint: The checkpoint without `channel_values`.
        metadata: Its metadata.
        values: What its channels hold.
    """
    digests: dict[bytes, int] = {}
    manifest = []
    for name, value in values.items():
        where: Any = value.inline
        if value.is_list:
            where = []
            for digest, elements, _ in value.pieces:
                where += (digests.setdefault(digest, len(digests)), elements)
        elif value.pieces:
            where = digests.setdefault(value.pieces[0].digest, len(digests))
        kind = _KIND_CODES.get(value.kind, value.kind)
        manifest.append((to_bytes(name), kind, where, value.is_snapshot, value.sum))
    packed = ormsgpack.packb(manifest)
    kind, plain = codec.dumps(checkpoint)
    body = codec.seal(
        b"%s%s%s\0%s" % (len(packed).to_bytes(4, "big"), packed, kind.encode(), plain)
    )
    sealed_metadata = codec.seal_typed(metadata)
    parent_raw = to_bytes(parent)
    head = _HEADER.pack(FORMAT, entry, len(parent_raw), len(digests), len(sealed_metadata))
    record = b"".join((head, parent_raw, *digests, sealed_metadata, body))
    return record + checksum(memoryview(record)[_SIGNED:])


def parse(codec: Codec, raw: bytes) -> Record:
    """Take a record apart.

    Raises:
        Damaged: It is not a whole record.
        UnknownFormat: It was written by a later release.
    """
    if raw and raw[0] > NEWEST_READ:
        raise UnknownFormat(
            f"it is of format {raw[0]}, and this release reads up to {NEWEST_READ}: "
            "it was written by a later release; upgrade this one"
        )
    if len(raw) < _HEADER.size + _SUM or raw[0] == 0:
        raise Damaged("it is too short for a record")
    if checksum(memoryview(raw)[_SIGNED:-_SUM]) != raw[-_SUM:]:
        raise Damaged("its checksum does not fit: it was cut short or overwritten")
    _, _, parent_size, many, metadata_size = _HEADER.unpack_from(raw)
    at = _HEADER.size + parent_size
    parent = to_text(raw[_HEADER.size : at]) or None
    end = at + many * limits.DIGEST_BYTES
    digests = [raw[i : i + limits.DIGEST_BYTES] for i in range(at, end, limits.DIGEST_BYTES)]
    metadata = raw[end : end + metadata_size]
    body = codec.open(raw[end + metadata_size : -_SUM])
    size = 4 + int.from_bytes(body[:4], "big")
    manifest = [
        (to_text(name), kind if isinstance(kind, str) else _KINDS[kind], where, snapshot, total)
        for name, kind, where, snapshot, total, *_ in ormsgpack.unpackb(body[4:size])
    ]
    return Record(parent, digests, metadata, manifest, body[size:])


def indices(entry: Entry) -> list[int]:
    """Which of the record's digests a channel's value refers to."""
    where = entry[2]
    if isinstance(where, bytes):
        return []
    return [where] if isinstance(where, int) else list(where[::2])


def is_snapshot(entry: Entry) -> bool:
    """Whether the value is a delta channel's snapshot."""
    return entry[3]


def reentered(raw: bytes, entry: bytes) -> bytes:
    """The same record under another writer and sequence number."""
    return raw[:1] + entry + raw[17:]


def parent_id(raw: bytes) -> str:
    """The parent's id, or '', without taking the record apart."""
    size = int.from_bytes(raw[17:19], "big")
    return to_text(raw[_HEADER.size : _HEADER.size + size])


def load_checkpoint(codec: Codec, record: Record) -> dict[str, Any]:
    """The checkpoint without its values."""
    kind, _, plain = record.checkpoint.partition(b"\0")
    loaded: dict[str, Any] = codec.loads(kind.decode(), plain)
    return loaded


def load_value(
    codec: Codec, record: Record, entry: Entry, chunks: Mapping[bytes, bytes | None]
) -> tuple[Any, pieces.Value]:
    """A channel's value, and how it is stored.

    Args:
        codec: The saver's.
        record: The record.
        entry: The channel's entry in its manifest.
        chunks: Stored chunks by digest.

    Raises:
        Damaged: A chunk is missing or damaged.
    """
    name, kind, where, snapshot, total = entry
    if isinstance(where, bytes):
        return codec.loads(kind, where), pieces.Value(kind, (), where, 0, b"", b"", snapshot)
    indices, elements = ((where,), (pieces.WHOLE,)) if isinstance(where, int) else (
        where[::2], where[1::2]
    )  # fmt: skip
    digests = [record.digests[index] for index in indices]
    bodies = [_chunk(codec, digest, chunks.get(digest)) for digest in digests]
    body = b"".join(bodies)
    if checksum(body) != total:
        raise Damaged(f"the chunks of channel {name!r} are not what was stored")
    cut = tuple(map(pieces.Piece, digests, elements, map(len, bodies)))
    value = pieces.Value(kind, cut, None, len(body), pieces.fingerprint(body), total, snapshot)
    plain = pieces.array(body, sum(elements)) if value.is_list else body
    return codec.loads(kind, plain), value


def _chunk(codec: Codec, digest: bytes, stored: bytes | None) -> bytes:
    if stored is None:
        raise Damaged(f"its chunk {digest.hex()} is gone")
    try:
        return codec.open(stored)
    except Damaged as damage:
        raise Damaged(f"its chunk {digest.hex()}: {damage}") from None


def build_writes(
    codec: Codec, writes: Iterable[tuple[str, Any]], task_id: str, task_path: str
) -> bytes:
    """The stored form of one task's writes."""
    cells = []
    for index, (channel, value) in enumerate(writes):
        kind, plain = codec.dumps(value)
        code = _KIND_CODES.get(kind, kind)
        cells.append((WRITES_IDX_MAP.get(channel, index), to_bytes(channel), code, plain))
    packed = codec.seal(ormsgpack.packb((to_bytes(task_id), to_bytes(task_path), cells)))
    return b"".join((_FORMAT_BYTE, checksum(packed), packed))


class Write(NamedTuple):
    """One pending write, not yet loaded."""

    task_path: str
    task_id: str
    idx: int
    channel: str
    kind: str
    plain: bytes
    entry: bytes


def merge_writes(codec: Codec, entries: bytes, stored: Sequence[bytes | None]) -> list[Write]:
    """What stands of the writes on a checkpoint, in the order they are applied.

    An ordinary write of a task stays as it first came; a special one (error,
    interrupt, resume, scheduled) is replaced by a later one, except by an older
    call of the same writer that comes late.

    Args:
        codec: The saver's.
        entries: Writer and sequence number of each call, 16 bytes, as they came.
        stored: The writes of each call.

    Raises:
        Damaged: One of them is missing or damaged.
    """
    cells: dict[tuple[str, int], Write] = {}
    for number, raw in enumerate(stored):
        entry = entries[16 * number : 16 * number + 16]
        for write in parse_writes(codec, entry, raw):
            cell = (write.task_id, write.idx)
            standing = cells.get(cell)
            if standing is not None and (
                write.idx >= 0
                or (standing.entry[:8] == entry[:8] and standing.entry[8:] > entry[8:])
            ):
                continue
            cells[cell] = write
    if len(cells) < 2:
        return list(cells.values())
    return sorted(cells.values(), key=lambda w: writes_sort_key(w.task_path, w.task_id, w.idx))


def parse_writes(codec: Codec, entry: bytes, stored: bytes | None) -> list[Write]:
    """The writes of one call.

    Args:
        codec: The saver's.
        entry: Writer and sequence number, 16 bytes.
        stored: The server's stamp in 16 digits, and what `build_writes` gave.
    """
    begin = _STAMP + 1 + _SUM
    if stored is None or len(stored) <= begin:
        raise Damaged(f"its writes {entry.hex()} are gone or cut short")
    if stored[_STAMP] > NEWEST_READ:
        raise UnknownFormat(
            f"its writes are of format {stored[_STAMP]}: they were written by a later release; "
            "upgrade this one"
        )
    packed = stored[begin:]
    if checksum(packed) != stored[_STAMP + 1 : begin]:
        raise Damaged(f"its writes {entry.hex()} were cut short or overwritten")
    task_id, task_path, cells = ormsgpack.unpackb(codec.open(packed))
    task, path = to_text(task_id), to_text(task_path)
    return [
        Write(
            path, task, idx, to_text(channel),
            kind if isinstance(kind, str) else _KINDS[kind], plain, entry,
        )
        for idx, channel, kind, plain in cells
    ]  # fmt: skip


def load_writes(codec: Codec, writes: Iterable[Write]) -> list[PendingWrite]:
    """Writes as LangGraph takes them: task id, channel, value."""
    return [(w.task_id, w.channel, codec.loads(w.kind, w.plain)) for w in writes]
