"""How values become stored bytes and back.

A serializer turns a value into a type name and *plain* bytes. What is stored is
those bytes *sealed*: encrypted if the serializer encrypts, else compressed where
that pays, behind a tag:

    tag(1)  payload        tag: 1 as is, 2 zstd, 3 encrypted

Whoever stores sealed bytes keeps a checksum (XXH3) of the whole beside them, so
that a truncated or foreign value is an error at once, never a subtly different
state. A chunk is named by a digest of its plain bytes, so equal pieces have one
name however often they are encrypted; with an encrypting serializer the digest
is keyed, since a bare one would let whoever reads the server test guesses about
what is stored.
"""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import Any

import xxhash
import zstandard
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey import limits
from langgraph_valkey.errors import ConfigurationError

_AS_IS, _ZSTD, _ENCRYPTED = 1, 2, 3
_TAGS = [bytes([tag]) for tag in range(4)]


class Damaged(ValueError):
    """Stored bytes that are not what was stored; callers name the place."""


class _PerThread(threading.local):
    """zstd contexts must not be shared between threads."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _PerThread()


def checksum(payload: bytes | memoryview) -> bytes:
    """Eight bytes that change when the payload does."""
    return xxhash.xxh3_64_digest(payload)


def is_plain(stored: bytes) -> bool:
    """Whether a sealed value's bytes stand in it as they are."""
    return stored[:1] == _TAGS[_AS_IS]


class Codec:
    """A serializer with what storing needs of it.

    Attributes:
        serde: The serializer.
        splits: Whether lists may be cut in pieces that are put together again
            as bytes: so with LangGraph's own serializers, whose encoding of a
            list is a count and its elements.
    """

    def __init__(self, serde: SerializerProtocol, digest_key: bytes | None = None) -> None:
        """Args are as `ValkeySaver` takes them.

        Raises:
            ConfigurationError: The serializer encrypts and there is no key for
                the digests, or the key is too short.
        """
        self.serde = serde
        inner = serde
        self._cipher = None
        if (
            isinstance(serde, EncryptedSerializer)
            and type(serde).dumps_typed is EncryptedSerializer.dumps_typed
        ):
            inner, self._cipher = serde.serde, serde.cipher
        self._dumps = inner.dumps_typed
        self._loads = inner.loads_typed
        self.splits = (
            isinstance(inner, JsonPlusSerializer)
            and type(inner).dumps_typed is JsonPlusSerializer.dumps_typed
            and type(inner).loads_typed is JsonPlusSerializer.loads_typed
        )
        if self._cipher is not None and digest_key is None:
            raise ConfigurationError(
                "the serializer encrypts, so the names of stored pieces need a key of their own: "
                "pass digest_key= (16 to 64 random bytes, the same in every process; keep it "
                "with the encryption key) or set LANGGRAPH_VALKEY_DIGEST_KEY"
            )
        if digest_key is not None and not 16 <= len(digest_key) <= 64:
            raise ConfigurationError(
                f"digest_key must be 16 to 64 bytes long, not {len(digest_key)}"
            )
        self._digest_key = digest_key or b""

    @property
    def encrypts(self) -> bool:
        """Whether stored values are encrypted."""
        return self._cipher is not None

    def dumps(self, value: Any) -> tuple[str, bytes]:
        """Type name and plain bytes of a value."""
        kind, plain = self._dumps(value)
        return kind, plain if type(plain) is bytes else bytes(plain)

    def loads(self, kind: str, plain: bytes) -> Any:
        """The value of plain bytes."""
        return self._loads((kind, plain))

    def digest(self, plain: bytes | memoryview) -> bytes:
        """The name of a chunk: 16 bytes (BLAKE2b, keyed where there is a key)."""
        return blake2b(plain, digest_size=limits.DIGEST_BYTES, key=self._digest_key).digest()

    def seal(self, plain: bytes, *, compress_from: int = limits.COMPRESS_BYTES) -> bytes:
        """Stored form of plain bytes.

        Args:
            plain: Any bytes.
            compress_from: From this length on they are compressed, where that
                saves at least a tenth and the serializer does not encrypt.
        """
        if self._cipher is not None:
            name, hidden = self._cipher.encrypt(plain)
            label = name.encode()
            return b"".join([_TAGS[_ENCRYPTED], bytes([len(label)]), label, hidden])
        if compress_from <= len(plain) <= limits.PLAIN_BYTES_MAX:
            small: bytes = _zstd.compress(plain)
            if len(small) * 10 < len(plain) * 9:
                return _TAGS[_ZSTD] + small
        return _TAGS[_AS_IS] + plain

    def open(self, stored: bytes) -> bytes:
        """Plain bytes of a stored form.

        Raises:
            Damaged: It is not what was stored.
            ConfigurationError: It is encrypted and the serializer is not.
        """
        tag = stored[0] if stored else 0
        if tag == _AS_IS:
            return stored[1:]
        if tag == _ZSTD:
            small = stored[1:]
            try:
                if not 0 <= zstandard.frame_content_size(small) <= limits.PLAIN_BYTES_MAX:
                    raise Damaged("it would be too large, or does not tell its size")
                plain: bytes = _zstd.decompress(small)
            except zstandard.ZstdError as error:
                raise Damaged(
                    "it can't be decompressed: it was cut short or overwritten"
                ) from error
            return plain
        if tag != _ENCRYPTED:
            raise Damaged(f"its tag {tag} is unknown: it was written by something else")
        if self._cipher is None:
            raise ConfigurationError(
                "this thread is encrypted and the saver has no cipher: pass the "
                "EncryptedSerializer it was written with as serde="
            )
        end = 2 + stored[1]
        try:
            return self._cipher.decrypt(stored[2:end].decode(), stored[end:])
        except ValueError as error:
            raise Damaged(
                "it can't be decrypted: it was written with another key, or overwritten"
            ) from error

    def view(self, stored: bytes) -> bytes | memoryview:
        """The same as `open`, without a copy where there need be none."""
        return memoryview(stored)[1:] if is_plain(stored) else self.open(stored)

    def seal_typed(self, value: Any) -> bytes:
        """Stored form of a value together with its type name."""
        kind, plain = self.dumps(value)
        return self.seal(kind.encode() + b"\0" + plain)

    def open_typed(self, stored: bytes) -> Any:
        """The inverse of `seal_typed`.

        Raises:
            Damaged: It is not what was stored.
        """
        kind, separator, plain = self.open(stored).partition(b"\0")
        try:
            if separator:
                return self.loads(kind.decode(), plain)
        except ValueError as error:
            raise Damaged("it can't be deserialized: it was cut short or overwritten") from error
        raise Damaged("it was cut short")
