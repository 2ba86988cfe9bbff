"""Values carried as they are stored, without the classes that they are of.

Whoever moves threads does not have the program that made them. LangGraph's serializer
would import its modules to build each object, and where it can't it gives back a bare dict,
with no error: a copy of that is another state. So what is moved is taken apart only as far
as msgpack itself goes. What stands for an object stays a closed package, stored again as the
same bytes, and no code is imported for data that anybody may have written.

`shown` opens the packages for somebody to read, still without the classes.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_valkey.errors import LanggraphValkeyError

_ARRAY = 6
"""The tag of a numpy array: dtype, shape, order, bytes."""

_KEYS = ormsgpack.OPT_NON_STR_KEYS


class NotCarried(LanggraphValkeyError):
    """A thread can't be carried as it is; nothing else is in its way.

    Its text names ids and kinds, never state.
    """


class Opaque(JsonPlusSerializer):
    """LangGraph's serializer, with objects as closed packages."""

    def __init__(self) -> None:
        super().__init__(__unpack_ext_hook__=_closed)

    def _reviver(self, value: dict[str, Any]) -> Any:
        if "lc" in value and "type" in value:
            raise NotCarried(
                "it was stored as JSON by an early release of LangGraph, which only its classes "
                "can read: name a saver of the program's, as in module:attribute, instead of a URL"
            )
        return value


def _closed(tag: int, data: bytes) -> Any:
    if tag == EXT_DELTA_SNAPSHOT:  # Savers look whether a value is one.
        return _DeltaSnapshot(ormsgpack.unpackb(data, ext_hook=_closed, option=_KEYS))
    return ormsgpack.Ext(tag, data)


def opaque(serde: SerializerProtocol) -> SerializerProtocol | None:
    """The same serializer with objects as closed packages; None if it can't have them.

    Args:
        serde: LangGraph's own, also if it encrypts. Any other one makes of its values what
            nobody else knows, and so does one that pickles.
    """
    if isinstance(serde, EncryptedSerializer):
        inner = opaque(serde.serde)
        return None if inner is None else EncryptedSerializer(serde.cipher, inner)
    if not isinstance(serde, JsonPlusSerializer) or serde.pickle_fallback:
        return None
    for method in ("dumps_typed", "loads_typed"):
        if getattr(type(serde), method) is not getattr(JsonPlusSerializer, method):
            return None
    return Opaque()


def shown(serde: SerializerProtocol, value: Any) -> Any:
    """A value as JSON can hold it; objects under the names of their classes.

    Args:
        serde: What the value was loaded by.
        value: Any value.
    """
    plain = serde.serde if isinstance(serde, EncryptedSerializer) else serde
    try:
        kind, data = plain.dumps_typed(value)
    except Exception:  # noqa: BLE001 - whatever a serializer of the user's raises
        return {f"{type(value).__module__}.{type(value).__qualname__}": "not to be shown"}
    if kind != "msgpack":
        return _as_json(value)
    return _as_json(ormsgpack.unpackb(data, ext_hook=_opened, option=_KEYS))


def _opened(tag: int, data: bytes) -> Any:
    held = ormsgpack.unpackb(data, ext_hook=_opened, option=_KEYS)
    if tag == EXT_DELTA_SNAPSHOT:
        return {"delta snapshot": held}
    if tag == _ARRAY:
        return {"numpy.ndarray": {"dtype": held[0], "shape": held[1]}}
    if not isinstance(held, list) or len(held) < 3:
        return {f"extension {tag}": held}
    return {f"{held[0]}.{held[1]}": held[2]}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(name): _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: b64encode(value).decode("ascii")}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _key(name: Any) -> str:
    return name if isinstance(name, str) else str(name)
