"""The stored form of a checkpoint.

A checkpoint is a *record* that says how its state is put together, and *chunks*
it refers to, shared with its neighbours. The scripts read the first part of a
record, so it is laid out by position (integers big-endian):

    format(1) writer(8) seq(8) parent length(2) digests(4) metadata length(4)
    parent  digests(16 each)  metadata  body  checksum(8)

The metadata are sealed (see `codec`), with a checksum(8) of their own before them,
since they are also read alone. Sealed, too, are the two parts of the body: a
manifest, with its length(4) before it, and the checkpoint without its values. The
manifest names, for each channel with a value, its type and where the value is:
here, in one chunk, or in groups of a list.

Formats: a release reads `FORMAT` and the one after it, and writes `FORMAT`. The
rule for the next format, by which this release reads it, is that it may only
append elements to manifest entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import ormsgpack

from langgraph_valkey import limits
from langgraph_valkey.keys import to_bytes, to_text
from langgraph_valkey.stored import pieces
from langgraph_valkey.stored.codec import Codec, Damaged, checksum

FORMAT = 1
"""The record format this release writes."""

NEWEST_READ = FORMAT + 1
"""The newest it reads."""

_HEADER = struct.Struct(">B16sHII")
_SIGNED = 17
"""Where the part begins that the checksum covers: a copy gets another number."""

_SUM = 8
KINDS = ("msgpack", "null", "bytes", "bytearray", "json", "pickle")
KIND_CODES = {kind: code for code, kind in enumerate(KINDS)}


Entry: TypeAlias = tuple[str, str, Any, bool, bytes]
"""A channel in a manifest: its name, its kind, where its value is (plain bytes;
the index of a chunk; or the index and element count of each group, in turn),
whether it is a delta channel's snapshot, and a checksum of what chunks hold."""


class UnknownFormat(Damaged):
    """A record of a format newer than this release can read."""


class Record:
    """A record taken apart as far as it is asked for.

    Attributes:
        parent: Id of the parent checkpoint, or None.
        metadata: The metadata, not loaded.
        checkpoint: The checkpoint without its values, sealed.
    """

    __slots__ = ("_digests", "_manifest", "_packed", "checkpoint", "metadata", "parent")

    def __init__(
        self, parent: str | None, digests: bytes, metadata: bytes, packed: bytes, checkpoint: bytes
    ) -> None:
        self.parent = parent
        self.metadata = metadata
        self.checkpoint = checkpoint
        self._digests = digests
        self._packed = packed
        self._manifest: list[Entry] | None = None

    def digest(self, index: int) -> bytes:
        """The name of a chunk it refers to."""
        return self._digests[index * limits.DIGEST_BYTES : (index + 1) * limits.DIGEST_BYTES]

    @property
    def digests(self) -> list[bytes]:
        """The chunks it refers to."""
        return [self.digest(index) for index in range(len(self._digests) // limits.DIGEST_BYTES)]

    @property
    def manifest(self) -> list[Entry]:
        """An entry for each channel with a value."""
        if self._manifest is None:
            self._manifest = [
                (to_text(name), kind if isinstance(kind, str) else KINDS[kind], where, delta, total)
                for name, kind, where, delta, total, *_ in ormsgpack.unpackb(self._packed)
            ]
        return self._manifest

    def may_hold(self, names: Iterable[bytes]) -> bool:
        """Whether one of these channels may have a value here; False is certain."""
        return any(name in self._packed for name in names)


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
        kind = KIND_CODES.get(value.kind, value.kind)
        manifest.append((to_bytes(name), kind, where, value.is_snapshot, value.sum))
    packed = codec.seal(ormsgpack.packb(manifest))
    sealed_metadata = codec.seal_typed(metadata)
    sealed_metadata = checksum(sealed_metadata) + sealed_metadata
    parent_raw = to_bytes(parent)
    head = _HEADER.pack(FORMAT, entry, len(parent_raw), len(digests), len(sealed_metadata))
    body = len(packed).to_bytes(4, "big"), packed, codec.seal_typed(checkpoint)
    record = b"".join((head, parent_raw, *digests, sealed_metadata, *body))
    return record + checksum(memoryview(record)[_SIGNED:])


def require_whole(raw: bytes) -> None:
    """Raise unless these bytes are a record; nothing of it is opened.

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


def parse(codec: Codec, raw: bytes) -> Record:
    """Take a record apart.

    Raises:
        Damaged: It is not a whole record.
        UnknownFormat: It was written by a later release.
    """
    require_whole(raw)
    _, _, parent_size, many, metadata_size = _HEADER.unpack_from(raw)
    at = _HEADER.size + parent_size
    parent = to_text(raw[_HEADER.size : at]) or None
    end = at + many * limits.DIGEST_BYTES
    body = end + metadata_size + 4
    checkpoint = body + int.from_bytes(raw[body - 4 : body], "big")
    packed = codec.open(raw[body:checkpoint])
    return Record(parent, raw[at:end], raw[end : body - 4], packed, raw[checkpoint:-_SUM])


def indices(entry: Entry) -> Sequence[int]:
    """Which of the record's digests a channel's value refers to."""
    where = entry[2]
    if isinstance(where, bytes):
        return ()
    return (where,) if isinstance(where, int) else where[::2]


def is_snapshot(entry: Entry) -> bool:
    """Whether the value is a delta channel's snapshot."""
    return entry[3]


def reentered(raw: bytes, entry: bytes) -> bytes:
    """The same record under another writer and sequence number."""
    return raw[:1] + entry + raw[17:]


def entry_of(raw: bytes) -> bytes:
    """Writer and sequence number of the call that stored it."""
    return raw[1:17]


def parent_id(raw: bytes) -> str:
    """The parent's id, or '', without taking the record apart."""
    size = int.from_bytes(raw[17:19], "big")
    return to_text(raw[_HEADER.size : _HEADER.size + size])


def digests_of(raw: bytes) -> list[bytes]:
    """The chunks it refers to, without taking the record apart."""
    _, _, parent_size, many, _ = _HEADER.unpack_from(raw)
    at, size = _HEADER.size + parent_size, limits.DIGEST_BYTES
    return [raw[i : i + size] for i in range(at, at + many * size, size)]


def load_metadata(codec: Codec, stored: bytes) -> dict[str, Any]:
    """The metadata of a record.

    Raises:
        Damaged: They are not what was stored.
    """
    if checksum(memoryview(stored)[_SUM:]) != stored[:_SUM]:
        raise Damaged("its metadata were cut short or overwritten")
    loaded: dict[str, Any] = codec.open_typed(stored[_SUM:])
    return loaded


def load_checkpoint(codec: Codec, record: Record) -> dict[str, Any]:
    """The checkpoint without its values."""
    loaded: dict[str, Any] = codec.open_typed(record.checkpoint)
    return loaded


class Loaded(NamedTuple):
    """A channel's value, put together from its chunks.

    Attributes:
        kind: The serializer's type name.
        plain: Its plain bytes.
        bodies: The plain bytes of each chunk.
        body: What the chunks hold, as one.
    """

    kind: str
    plain: bytes
    bodies: list[bytes | memoryview]
    body: memoryview


def load_value(
    codec: Codec, record: Record, entry: Entry, chunks: Mapping[bytes, bytes | None]
) -> Loaded:
    """Put a channel's value together.

    Args:
        codec: The saver's.
        record: The record.
        entry: The channel's entry in its manifest.
        chunks: Stored chunks by digest.

    Raises:
        Damaged: A chunk is missing or damaged.
    """
    name, kind, where, _, total = entry
    if isinstance(where, bytes):
        return Loaded(kind, where, [], memoryview(b""))
    bodies = [_chunk(codec, record.digest(at), chunks) for at in indices(entry)]
    plain, body = pieces.joined(bodies, _elements(where))
    if checksum(body) != total:
        raise Damaged(f"the chunks of channel {name!r} are not what was stored")
    return Loaded(kind, plain, bodies, body)


def as_stored(record: Record, entry: Entry, loaded: Loaded) -> pieces.Value:
    """How a value that was put together is stored."""
    _, kind, where, snapshot, total = entry
    if isinstance(where, bytes):
        return pieces.Value(kind, (), where, 0, b"", b"", snapshot)
    digests = [record.digest(at) for at in indices(entry)]
    cut = tuple(map(pieces.Piece, digests, _elements(where), map(len, loaded.bodies)))
    body = loaded.body
    return pieces.Value(kind, cut, None, len(body), pieces.fingerprint(body), total, snapshot)


def _elements(where: Any) -> Sequence[int]:
    return (pieces.WHOLE,) if isinstance(where, int) else where[1::2]


def _chunk(codec: Codec, digest: bytes, chunks: Mapping[bytes, bytes | None]) -> bytes | memoryview:
    stored = chunks.get(digest)
    if stored is None:
        raise Damaged(f"its chunk {digest.hex()} is gone")
    try:
        return codec.view(stored)
    except Damaged as damage:
        raise Damaged(f"its chunk {digest.hex()}: {damage}") from None
