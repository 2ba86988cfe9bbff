"""Values as bytes: whatever a pipeline computes, and nothing that runs code when it is read.

LangGraph's serializer writes msgpack, and knows messages, documents, generations and the
other classes of LangChain. A cache is a place where others write, too, so what is read is
built only from those classes and from the standard library; `allow` adds others. What would
come back as something else is refused when it is stored, not found out when it is read. Two
differences are msgpack's own: a tuple comes back as a list, and an object of a class that
extends `str`, `int` or `dict` as one of these, if the two are equal.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import zstandard
from langchain_core.messages import BaseMessage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel

from rag_cache.entries import Corrupt

VALUE_BYTES_MAX = 8 * 1024 * 1024
"""The largest value: one that takes longer to move than to compute is no use in a cache."""

COMPRESS_BYTES = 1024
"""Values from this size on are compressed."""

_PLAIN, _ZSTD = b"p", b"z"
_SEPARATOR = b"\0"
_KINDS = (b"msgpack", b"bytes", b"bytearray", b"null")


class TooLarge(ValueError):
    """A value, or what it was made from, is larger than what is stored."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat generation in stored form.

    Its own form has a message of no particular kind, without the tools that it calls.

    Attributes:
        message: The message, with what makes its kind.
        info: What the model told beside it.
        is_chunk: Whether it is a part of a stream.
    """

    message: BaseMessage
    info: dict[str, Any] | None
    is_chunk: bool

    @classmethod
    def of(cls, found: Any) -> Any:
        """Anything, with this in place of a chat generation."""
        if type(found) not in (ChatGeneration, ChatGenerationChunk):
            return found
        is_chunk = type(found) is ChatGenerationChunk
        return cls(found.message, found.generation_info, is_chunk)

    @classmethod
    def undone(cls, found: Any) -> Any:
        """Anything, with a chat generation in place of this."""
        if not isinstance(found, cls):
            return found
        kind = ChatGenerationChunk if found.is_chunk else ChatGeneration
        return kind(message=found.message, generation_info=found.info)  # type: ignore[arg-type]


_allowed: set[type] = {Generation, GenerationChunk, Chat}
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
        TooLarge: It is larger than `VALUE_BYTES_MAX`.
    """
    try:
        kind, raw = _serde.dumps_typed(_each(value, Chat.of))
    except Exception as failure:  # noqa: BLE001 - whatever its classes raise
        raise TypeError(
            f"a value of type {type(value).__name__} can't be stored: {type(failure).__name__}. "
            "Store text, messages, documents, or what msgpack can hold"
        ) from None
    whole = kind.encode() + _SEPARATOR + raw
    if len(whole) > VALUE_BYTES_MAX:
        raise TooLarge(f"a value must take at most {VALUE_BYTES_MAX} bytes: store less of it")
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
            size = zstandard.frame_content_size(rest)
            if not 0 <= size <= VALUE_BYTES_MAX:  # The memory is taken before it is read.
                raise Corrupt("a value is too large, or does not tell its size")
            rest = _decompressor().decompress(rest, allow_extra_data=False)
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
    if not separator or kind not in _KINDS:
        raise Corrupt("a value is not whole, or of another kind")
    try:
        return _each(_serde.loads_typed((kind.decode(), rest)), Chat.undone)
    except Exception as failure:  # noqa: BLE001 - what is read may be anything
        raise Corrupt(f"a value can't be read: {type(failure).__name__}") from None


def digest(value: bytes) -> str:
    """A name of an encoded value: 32 hex digits; equal values have equal ones."""
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with a change made to all that is in its lists and dicts."""
    if isinstance(value, dict):
        return {name: _each(each, change) for name, each in value.items()}
    if type(value) in (list, tuple):
        return [_each(each, change) for each in value]
    return change(value)


def _is_same(value: Any, back: Any) -> bool:
    """Whether what came back is built as the value is, and of the same plain data."""
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
    if type(value) is not type(back) or getattr(value, "dtype", 0) != getattr(back, "dtype", 0):
        return False
    if isinstance(value, set | frozenset):
        return bool(value == back)
    if isinstance(value, deque):
        return _is_same(list(value), list(back))
    return _is_same(_parts_of(value), _parts_of(back))


def _parts_of(value: Any) -> Mapping[str, Any] | None:
    """What an object is made of, where it tells."""
    if isinstance(value, BaseModel):
        told = {name: getattr(value, name) for name in type(value).model_fields}
        return {**told, **(value.model_extra or {})}
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    return None


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
