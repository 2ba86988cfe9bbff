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
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import xxhash
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_valkey import limits
from langgraph_valkey.codec import Codec

WHOLE = -1
"""`Piece.count` of a value that is not cut."""

_SEED = int.from_bytes(os.urandom(8), "big")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored chunk.

    Attributes:
        digest: Its name; empty while it has none yet.
        count: How many list elements it holds, or `WHOLE`.
        size: Length of its plain bytes.
    """

    digest: bytes
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Value:
    """One channel's value as stored, without its bytes.

    Attributes:
        kind: The serializer's type name.
        pieces: Its chunks in order; empty when it stands in the record.
        inline: Its plain bytes, when they stand in the record.
        print: Fingerprint of all its plain bytes (of a list's elements).
        is_snapshot: Whether it is what a `DeltaChannel` stores now and then.
    """

    kind: str
    pieces: tuple[Piece, ...]
    inline: bytes | None
    print: bytes
    is_snapshot: bool = False

    @property
    def is_list(self) -> bool:
        """Whether it is a list cut into groups."""
        return bool(self.pieces) and self.pieces[0].count != WHOLE


def fingerprint(plain: bytes | memoryview) -> bytes:
    """16 bytes by which this process, and no other, knows these bytes again."""
    return xxhash.xxh3_128_digest(plain, _SEED)


def encode(codec: Codec, value: Any, last: Value | None) -> tuple[Value, bytes]:
    """Serialize a value and cut it into pieces.

    Args:
        codec: The saver's.
        value: Any value its serializer takes.
        last: What the channel held before, if known: lists are cut alike, and
            equal bytes are not named again.

    Returns:
        The value as stored, and its plain bytes.
    """
    kind, plain = codec.dumps(value)
    snapshot = isinstance(value, _DeltaSnapshot)
    if len(plain) <= limits.INLINE_BYTES:
        return Value(kind, (), plain, b"", snapshot), plain
    if codec.splits and kind == "msgpack" and type(value) is list:
        return _cut(codec, value, plain, last), plain
    seen = fingerprint(plain)
    if last is not None and last.print == seen and last.kind == kind and not last.is_list:
        return last, plain
    whole = Piece(codec.digest(plain), WHOLE, len(plain))
    return Value(kind, (whole,), None, seen, snapshot), plain


def chunks(value: Value, plain: bytes, wanted: Collection[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Digest and plain bytes of the wanted pieces of a value, in order."""
    at = _header_size(plain) if value.is_list else 0
    for piece in value.pieces:
        if piece.digest in wanted:
            yield piece.digest, plain[at : at + piece.size]
        at += piece.size


def joined(bodies: list[bytes], count: int) -> bytes:
    """The msgpack array of `count` elements that stand in the bodies of its groups."""
    return b"".join([_header(count), *bodies])


def list_print(plain: bytes) -> bytes:
    """The fingerprint of a list's elements."""
    return fingerprint(memoryview(plain)[_header_size(plain) :])


def _cut(codec: Codec, value: list[Any], plain: bytes, last: Value | None) -> Value:
    """A list in groups: those of `last` as far as its elements are unchanged."""
    start = _header_size(plain)
    body = memoryview(plain)[start:]
    seen = fingerprint(body)
    if last is not None and last.print == seen and last.is_list:
        return last
    pieces = _kept(codec, value, body, last)
    taken = sum(p.count for p in pieces)
    if taken < len(value):
        closing = max(limits.GROUP_CLOSED_BYTES, len(plain) // limits.GROUPS_MOST)
        appended = len(body) - sum(p.size for p in pieces)
        pieces += _appended(codec, value, taken, appended, closing)
        _merge(pieces, closing)
    return Value("msgpack", tuple(_named(codec, body, pieces)), None, seen)


def _kept(codec: Codec, value: list[Any], body: memoryview, last: Value | None) -> list[Piece]:
    """The groups of `last` that still fit, without a name where they changed."""
    if last is None or not last.is_list:
        return []
    size = sum(p.size for p in last.pieces)
    count = sum(p.count for p in last.pieces)
    if len(value) >= count and len(body) >= size and fingerprint(body[:size]) == last.print:
        return list(last.pieces)
    pieces: list[Piece] = []
    at = taken = 0
    for piece in last.pieces:
        if taken + piece.count > len(value):
            break
        if codec.digest(body[at : at + piece.size]) == piece.digest:
            pieces.append(piece)
        else:
            changed = value[taken : taken + piece.count]
            pieces.append(Piece(b"", piece.count, _body_size(codec, changed)))
        at += pieces[-1].size
        taken += piece.count
    return pieces


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


def _named(codec: Codec, body: memoryview, pieces: list[Piece]) -> Iterator[Piece]:
    """The pieces, those without a name now named by their bytes."""
    at = 0
    for piece in pieces:
        stop = at + piece.size
        if piece.digest:
            yield piece
        else:
            yield Piece(codec.digest(body[at:stop]), piece.count, piece.size)
        at = stop


def _tier(count: int) -> int:
    """Groups of one tier hold about the same number of elements."""
    return (count.bit_length() - 1) // (limits.GROUP_FAN_IN.bit_length() - 1)


def _merge(pieces: list[Piece], closing: int) -> None:
    """Merge groups at the end, in place, where enough of one tier stand there."""
    tier = 0
    while True:
        run = peers = count = size = 0
        higher = False
        for piece in reversed(pieces):
            if piece.size >= closing or size >= 2 * closing:
                break
            level = _tier(piece.count)
            if level > tier:
                higher = True
                break
            run, count, size = run + 1, count + piece.count, size + piece.size
            peers += level == tier
        if peers >= limits.GROUP_FAN_IN or size >= 2 * closing:
            pieces[-run:] = [Piece(b"", count, size)]
        elif not higher:
            return
        tier += 1


def _header(count: int) -> bytes:
    if count < 16:
        return bytes([0x90 | count])
    if count < 0x10000:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def _header_size(plain: bytes) -> int:
    return {0xDC: 3, 0xDD: 5}.get(plain[0], 1)
