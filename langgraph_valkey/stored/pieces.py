"""Cutting a channel's value into pieces that are stored once.

Writing the whole state at every step costs a thread of n steps O(n^2) bytes,
because what grows (a list of messages, mostly) is written again with each new
element. Here a list is cut at its top level into *groups* of neighbours, each
stored under the digest of its bytes; a step then stores only groups it has not
stored yet.

Which groups? Appending adds a small group. When `GROUP_FAN_IN` small groups of
about one size stand at the end they are merged into one, so an element is
rewritten once for each level it climbs: O(log n) times, not n times. A group
that has reached the closing size stays as it is. (The scheme is that of
log-structured merge trees: O'Neil et al., Acta Informatica 33, 1996.) The closing
size grows with the list, so that the number of groups stays about
`GROUPS_MOST`.

Everything is serialized at each put, once, since state may have been changed in
place. What is spared is naming, sending and storing: where the new bytes begin
with those of the last put, its groups keep their names unseen. That rests on
msgpack's encoding of a list being a count and then its elements (MessagePack
specification, "array format family"), so that a slice of the bytes is a slice of
the list. "Begin with" is judged by a 128-bit XXH3 under a seed drawn at start, so
that no copy of anybody's state is kept for comparing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import xxhash
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_valkey import limits
from langgraph_valkey.stored.codec import Codec, checksum

WHOLE = -1
"""`Piece.elements` of a value that is not cut."""

_SEED = int.from_bytes(os.urandom(8), "big")


class Piece(NamedTuple):
    """A stored chunk.

    Attributes:
        digest: Its name; empty while it has none yet.
        elements: How many list elements it holds, or `WHOLE`.
        size: Length of its plain bytes.
    """

    digest: bytes
    elements: int
    size: int


class Value(NamedTuple):
    """One channel's value as stored, without its bytes.

    Attributes:
        kind: The serializer's type name.
        pieces: Its chunks in order; empty when it stands in the record.
        inline: Its plain bytes, when they stand in the record.
        size: Length of what its chunks hold.
        print: Fingerprint of the same, for this process.
        sum: Checksum of the same, for everyone.
        is_snapshot: Whether it is what a `DeltaChannel` stores now and then.
    """

    kind: str
    pieces: tuple[Piece, ...]
    inline: bytes | None
    size: int
    print: bytes
    sum: bytes
    is_snapshot: bool

    @property
    def is_list(self) -> bool:
        """Whether it is a list cut into groups."""
        return bool(self.pieces) and self.pieces[0].elements != WHOLE


class Encoded(NamedTuple):
    """A value on its way.

    Attributes:
        value: It, as stored.
        plain: Its plain bytes.
        named: Digest and plain bytes of the pieces that were not in `last`.
    """

    value: Value
    plain: bytes
    named: list[tuple[bytes, bytes]]


def fingerprint(plain: bytes | memoryview) -> bytes:
    """16 bytes by which this process, and no other, knows these bytes again."""
    return xxhash.xxh3_128_digest(plain, _SEED)


def encode(codec: Codec, value: Any, last: Value | None) -> Encoded:
    """Serialize a value and cut it into pieces.

    Args:
        codec: The saver's.
        value: Any value its serializer takes.
        last: What the channel held before, if known: lists are cut alike, and
            equal bytes are not named again.
    """
    kind, plain = codec.dumps(value)
    snapshot = isinstance(value, _DeltaSnapshot)
    if len(plain) <= limits.INLINE_BYTES:
        return Encoded(Value(kind, (), plain, 0, b"", b"", snapshot), plain, [])
    if codec.splits and kind == "msgpack" and type(value) is list:
        return _cut(codec, value, plain, last)
    seen = fingerprint(plain)
    if last is not None and last.print == seen and last.kind == kind and not last.is_list:
        return Encoded(last._replace(is_snapshot=snapshot), plain, [])
    size, digest = len(plain), codec.digest(plain)
    whole = (Piece(digest, WHOLE, size),)
    stored = Value(kind, whole, None, size, seen, checksum(plain), snapshot)
    return Encoded(stored, plain, [(digest, plain)])


def chunks(encoded: Encoded) -> Iterator[tuple[bytes, bytes]]:
    """Digest and plain bytes of each piece of a value, in order."""
    at = _header_size(encoded.plain) if encoded.value.is_list else 0
    for piece in encoded.value.pieces:
        yield piece.digest, encoded.plain[at : at + piece.size]
        at += piece.size


def joined(
    bodies: Sequence[bytes | memoryview], elements: Sequence[int]
) -> tuple[bytes, memoryview]:
    """Put the pieces of a value together again.

    Args:
        bodies: The plain bytes of each piece.
        elements: How many list elements each holds, or `WHOLE`.

    Returns:
        The value's plain bytes, and of these what the pieces hold.
    """
    header = b"" if elements[0] == WHOLE else _header(sum(elements))
    plain = b"".join([header, *bodies])
    return plain, memoryview(plain)[len(header) :]


def _cut(codec: Codec, value: list[Any], plain: bytes, last: Value | None) -> Encoded:
    """A list in groups: those of `last` as far as its elements are unchanged."""
    start = _header_size(plain)
    body = memoryview(plain)[start:]
    seen = fingerprint(body)
    if last is not None and not last.is_list:
        last = None
    if last is not None and last.print == seen:
        return Encoded(last, plain, [])
    total = _count(plain)
    pieces = _groups(codec, value, body, total, last)
    if not _cover(pieces, total, len(body)):
        # The list was changed while it was being put: its bytes are what counts.
        pieces = [Piece(b"", total, len(body))]
    named = _name(codec, plain, start, pieces)
    stored = Value("msgpack", tuple(pieces), None, len(body), seen, checksum(body), False)
    return Encoded(stored, plain, named)


def _cover(pieces: list[Piece], total: int, size: int) -> bool:
    """Whether groups make up a list of so many elements and bytes."""
    return (
        sum(p.elements for p in pieces) == total
        and sum(p.size for p in pieces) == size
        and all(p.size > 0 for p in pieces)
    )


def _groups(
    codec: Codec, value: list[Any], body: memoryview, total: int, last: Value | None
) -> list[Piece]:
    """Groups for a list of `total` elements, without a name where they are new.

    The list itself is asked where its elements begin and end. It may have changed
    since it was serialized, so what this returns has to be checked.
    """
    try:
        pieces, taken, size = _kept(codec, value, body, last)
        if taken < total:
            closing = max(limits.GROUP_CLOSED_BYTES, len(body) // limits.GROUPS_MOST)
            pieces += _appended(codec, value[:total], taken, len(body) - size, closing)
            _merge(pieces, closing)
    except Exception:  # noqa: BLE001 - whatever a serializer makes of a changing value
        return []
    return pieces


def _kept(
    codec: Codec, value: list[Any], body: memoryview, last: Value | None
) -> tuple[list[Piece], int, int]:
    """The groups of `last` that still fit, without a name where they changed.

    Returns:
        The groups, how many elements they hold, and their size.
    """
    if last is None:
        return [], 0, 0
    if len(body) >= last.size and fingerprint(body[: last.size]) == last.print:
        return list(last.pieces), sum(p.elements for p in last.pieces), last.size
    pieces: list[Piece] = []
    at = taken = 0
    for piece in last.pieces:
        if taken + piece.elements > len(value):
            break
        if codec.digest(body[at : at + piece.size]) == piece.digest:
            pieces.append(piece)
        else:
            changed = value[taken : taken + piece.elements]
            pieces.append(Piece(b"", piece.elements, _body_size(codec, changed)))
        at += pieces[-1].size
        taken += piece.elements
    return pieces, taken, at


def _appended(
    codec: Codec, value: list[Any], taken: int, size: int, closing: int
) -> Iterator[Piece]:
    """Groups for the elements from `taken` on, which have `size` bytes in all."""
    count = len(value) - taken
    many = min(size // closing, count)
    if many <= 1:
        yield Piece(b"", count, size)
        return
    edges = [taken + count * i // many for i in range(many + 1)]
    for begin, stop in pairwise(edges):
        yield Piece(b"", stop - begin, _body_size(codec, value[begin:stop]))


def _body_size(codec: Codec, elements: list[Any]) -> int:
    plain = codec.dumps(elements)[1]
    return len(plain) - _header_size(plain)


def _name(codec: Codec, plain: bytes, at: int, pieces: list[Piece]) -> list[tuple[bytes, bytes]]:
    """Give those a name, in place, that have none; their names and bytes."""
    named = []
    for index, (digest, elements, size) in enumerate(pieces):
        if not digest:
            body = plain[at : at + size]
            digest = codec.digest(body)
            pieces[index] = Piece(digest, elements, size)
            named.append((digest, body))
        at += size
    return named


def _merge(pieces: list[Piece], closing: int) -> None:
    """Merge groups at the end, in place, where enough of one tier stand there.

    A tier is what about the same number of elements belongs to. Walks from the
    end towards the front, a tier at a time.
    """
    tier = peers = elements = size = 0
    at = len(pieces)
    while True:
        while at:
            piece = pieces[at - 1]
            level = (piece.elements.bit_length() - 1) // _TIER_BITS
            if level > tier or piece.size >= closing or size >= 2 * closing:
                break
            at -= 1
            peers += level == tier
            elements += piece.elements
            size += piece.size
        merges = peers >= limits.GROUP_FAN_IN or size >= 2 * closing
        if merges:
            pieces[at:] = [Piece(b"", elements, size)]
        if not at or pieces[at - 1].size >= closing or size >= closing:
            return
        tier += 1
        peers = int(merges and (elements.bit_length() - 1) // _TIER_BITS == tier)


_TIER_BITS = limits.GROUP_FAN_IN.bit_length() - 1


def _count(plain: bytes) -> int:
    """How many elements a msgpack array has, by its header."""
    size = _header_size(plain)
    return plain[0] & 0x0F if size == 1 else int.from_bytes(plain[1:size], "big")


def _header(count: int) -> bytes:
    if count < 16:
        return bytes([0x90 | count])
    if count < 0x10000:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def _header_size(plain: bytes) -> int:
    return {0xDC: 3, 0xDD: 5}.get(plain[0], 1)
