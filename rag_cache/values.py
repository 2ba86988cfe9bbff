"""Values as bytes: whatever a pipeline computes, and nothing that runs code when it is read.

LangGraph's serializer writes msgpack, and knows messages, documents, generations and the
other classes of LangChain. A cache is a place where others write, too, so what is read is
built only from those classes and from the standard library; `allow` adds others. What would
come back as something else is refused when it is stored, not found out when it is read. One
difference is msgpack's own: a tuple comes back as a list.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import zstandard
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from rag_cache.entries import Corrupt

VALUE_BYTES_MAX = 8 * 1024 * 1024
"""The largest value: one that takes longer to move than to compute is no use in a cache."""

COMPRESS_BYTES = 1024
"""Values from this size on are compressed."""

_PLAIN, _ZSTD = b"p", b"z"
_SEPARATOR = b"\0"
_GENERATIONS = (Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk)

_allowed: set[type] = set(_GENERATIONS)
_local = threading.local()


def _serializer() -> JsonPlusSerializer:
    names = [(kind.__module__, kind.__qualname__) for kind in _allowed]
    return JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=names)


_serde = _serializer()


def allow(*kinds: type) -> None:
    """Let values hold objects of further classes, in this process.

    Args:
        *kinds: Classes that the serializer can write (dataclasses, pydantic models), and
            that may be built from what stands in the cache.
    """
    global _serde
    _allowed.update(kinds)
    _serde = _serializer()


def encode(value: Any) -> bytes:
    """A value in stored form.

    Args:
        value: Text, messages, documents, generations, and lists or dicts of these; anything
            else that msgpack can hold.

    Raises:
        TypeError: It holds something that can't be stored.
        ValueError: It is larger than `VALUE_BYTES_MAX`.
    """
    try:
        kind, raw = _serde.dumps_typed(value)
    except Exception as failure:  # noqa: BLE001 - whatever its classes raise
        raise TypeError(
            f"a value of type {type(value).__name__} can't be stored: {type(failure).__name__}. "
            "Store text, messages, documents, or what msgpack can hold"
        ) from None
    whole = kind.encode() + _SEPARATOR + raw
    if len(whole) > VALUE_BYTES_MAX:
        raise ValueError(f"a value must take at most {VALUE_BYTES_MAX} bytes: store less of it")
    if not _is_same(value, decode_whole(whole)):
        raise TypeError(
            f"a value of type {type(value).__name__} would come back as something else: store "
            "text, messages, documents or plain data, or name its classes to values.allow()"
        )
    if len(whole) < COMPRESS_BYTES:
        return _PLAIN + whole
    return _ZSTD + _compressor().compress(whole)


def decode(raw: bytes) -> Any:
    """The value.

    Raises:
        Corrupt: It can't be read back.
    """
    form, rest = raw[:1], raw[1:]
    if form == _ZSTD:
        try:
            rest = _decompressor().decompress(rest, max_output_size=VALUE_BYTES_MAX)
        except zstandard.ZstdError:
            raise Corrupt("a value is not whole") from None
    elif form != _PLAIN:
        raise Corrupt("a value is of another format")
    return decode_whole(rest)


def decode_whole(raw: bytes) -> Any:
    """The value of what `encode` has not compressed yet.

    Raises:
        Corrupt: It can't be read back.
    """
    kind, separator, rest = raw.partition(_SEPARATOR)
    if not separator:
        raise Corrupt("a value is not whole")
    try:
        return _serde.loads_typed((kind.decode(), rest))
    except Exception as failure:  # noqa: BLE001 - what is read may be anything
        raise Corrupt(f"a value can't be read: {type(failure).__name__}") from None


def digest(value: bytes) -> str:
    """A name of an encoded value: 32 hex digits; equal values have equal ones."""
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def _is_same(value: Any, back: Any) -> bool:
    """Whether what came back is built as the value is; contents are the serializer's care."""
    if isinstance(value, dict):
        return (
            isinstance(back, dict)
            and len(value) == len(back)
            and all(name in back and _is_same(value[name], back[name]) for name in value)
        )
    if type(value) in (list, tuple):
        return (
            isinstance(back, list) and len(value) == len(back) and all(map(_is_same, value, back))
        )
    if value is None or isinstance(value, str | bytes | int | float):
        return bool(value == back) or value != value  # NaN is not.
    return type(value) is type(back)


def _compressor() -> zstandard.ZstdCompressor:
    """This thread's: such contexts must not be shared."""
    found: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if found is None:
        found = _local.compressor = zstandard.ZstdCompressor()
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found
