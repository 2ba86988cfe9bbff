"""The stored form of an item.

The scripts read the first part, so it is laid out by position; numbers are 16 digits:

    stamp  born  created  ttl_ms  count(1)  entry(16 each)     and the body

`stamp` is the server's, of the last write, in microseconds: the newest one wins, and it is
the time of the update, too. `created` is that of the first write. `born` is the writer's,
and orders results: items stay where they were first put. The entries are those of the last
writes of the last few writers, the newest first, so that a write which is sent again, or
comes late, is known. As it is read, two numbers stand before all that: the deadline in
milliseconds of the server's clock (0 for none), and the birth of the namespace.

The body is made here, and nothing else looks into it:

    format(1)  checksum(8)  length(4, big-endian)  sealed value  sealed vectors

The value is sealed together with its type name, and the vectors (msgpack of path to
float32) as they are; so both are encrypted where the serializer encrypts. In the format
`SEEN` the vectors are not sealed: the scripts put them where the server's search sees them
(``vectors.lua``). Each is then length of path(4)  length of vector(4)  path  vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any

import ormsgpack

from langgraph_valkey.items.names import unpack_namespace
from langgraph_valkey.keys import to_bytes, to_text
from langgraph_valkey.stored.codec import Codec, Damaged, checksum

FORMAT, SEEN = b"1", b"2"
"""The formats that this release writes and reads: vectors are nobody's but ours, or the
server's search sees them, too."""

_HEAD = 16 * 6 + 1
_BODY_HEAD = 13
_NEVER_COMPRESSED = 1 << 62
"""Floats don't shrink."""

_LENGTHS = Struct(">II")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNREAD = object()


class Record:
    """An item as it was read.

    Attributes:
        namespace: Its namespace.
        key: Its key.
        stamp: Of its last write: 16 digits.
        created: Of its first write: 16 digits.
        number: Writer and sequence number of that, 16 bytes.
        born: Its place in results: below what was put later.
        namespace_born: The place of its namespace, which goes before; 0 where only the
            item was asked for.
        deadline_ms: When it expires, on the server's clock; None for never.
        ttl_ms: From a write or a read on, how long it then lives; 0 for ever.
        vectors: By path, float32 in little-endian order.
    """

    __slots__ = (
        "_codec",
        "_sealed",
        "_value",
        "body",
        "born",
        "created",
        "deadline_ms",
        "key",
        "namespace",
        "namespace_born",
        "number",
        "stamp",
        "ttl_ms",
        "vectors",
    )

    def __init__(self, codec: Codec, namespace: bytes, key: bytes, raw: bytes) -> None:
        self._codec = codec
        self.namespace = unpack_namespace(namespace)
        self.key = to_text(key)
        if len(raw) < _HEAD or not raw[: _HEAD - 1].isdigit():
            raise Damaged("its head was cut short or overwritten")
        self.deadline_ms = int(raw[:16]) or None
        self.namespace_born = int(raw[16:32])
        self.stamp = raw[32:48]
        self.born = int(raw[48:64])
        self.created = raw[64:80]
        self.ttl_ms = int(raw[80:96])
        self.number = raw[_HEAD : _HEAD + 16]
        body = raw[_HEAD + 16 * raw[_HEAD - 1] :]
        if body[:1] not in (FORMAT, SEEN):
            raise Damaged("it was cut short, or written by another release or program")
        if checksum(body[9:]) != body[1:9]:
            raise Damaged("it was cut short or overwritten")
        self.body = body
        end = _BODY_HEAD + int.from_bytes(body[9:_BODY_HEAD], "big")
        self._sealed = _BODY_HEAD, end
        self._value: Any = _UNREAD
        self.vectors: Mapping[str, bytes] = {}
        if body[:1] == SEEN:
            self.vectors = _spread(body[end:])
        elif end < len(body):
            self.vectors = ormsgpack.unpackb(codec.open(body[end:]))

    @property
    def value(self) -> dict[str, Any]:
        """The value; read at the first time, and the same object then on.

        Raises:
            Damaged: It can't be deserialized.
        """
        if self._value is _UNREAD:
            self._value = self.read_value()
        found: dict[str, Any] = self._value
        return found

    def read_value(self) -> dict[str, Any]:
        """The value, read anew: an object that nobody else has.

        Raises:
            Damaged: It can't be deserialized.
        """
        start, end = self._sealed
        found: dict[str, Any] = self._codec.open_typed(self.body[start:end])
        return found

    @property
    def created_at(self) -> datetime:
        """When it was first put."""
        return _EPOCH + timedelta(0, 0, int(self.created))

    @property
    def updated_at(self) -> datetime:
        """When it was put last."""
        return _EPOCH + timedelta(0, 0, int(self.stamp))


def unpack(codec: Codec, namespace: bytes, key: bytes, raw: bytes) -> Record:
    """An item as a script gave it.

    Args:
        codec: The store's.
        namespace: The name of its namespace (`names.pack_namespace`).
        key: Its key, as bytes.
        raw: What the script gave.

    Raises:
        Damaged: It is not what was stored.
        ConfigurationError: It is encrypted, and the serializer is not.
    """
    return Record(codec, namespace, key, raw)


def pack(
    codec: Codec, value: Mapping[str, Any], vectors: Mapping[str, bytes], *, seen: bool = False
) -> bytes:
    """The body of an item: what is sent of it, besides the numbers before.

    Args:
        codec: The store's.
        value: Its value.
        vectors: By path, float32 in little-endian order.
        seen: Whether the server's search shall see the vectors.
    """
    sealed = codec.seal_typed(dict(value))
    rest = b""
    if vectors and seen:
        rest = b"".join(_in_a_row(path, vector) for path, vector in vectors.items())
    elif vectors:
        plain = ormsgpack.packb(dict(vectors))
        rest = codec.seal(plain, compress_from=_NEVER_COMPRESSED)
    covered = len(sealed).to_bytes(4, "big") + sealed + rest
    return (SEEN if vectors and seen else FORMAT) + checksum(covered) + covered


def _in_a_row(path: str, vector: bytes) -> bytes:
    name = to_bytes(path)
    return b"".join((_LENGTHS.pack(len(name), len(vector)), name, vector))


def _spread(row: bytes) -> dict[str, bytes]:
    """The inverse of `_in_a_row`, of all vectors."""
    found, at = {}, 0
    while at < len(row):
        name, vector = _LENGTHS.unpack_from(row, at)
        at += _LENGTHS.size
        found[to_text(row[at : at + name])] = row[at + name : at + name + vector]
        at += name + vector
    return found
