"""Items, news and mirrors: what the tests of the store's mirrors stand on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey.items import records
from langgraph_valkey.items.mirror import Changes, Mirror
from langgraph_valkey.items.names import pack_namespace
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import Basis, Name
from langgraph_valkey.stored.codec import Codec
from tests.store_oracle import DIMENSION, Counting

CODEC = Codec(JsonPlusSerializer())
INDEX: Any = {"dims": DIMENSION, "embed": Counting(), "fields": ["a", "b[*]"]}
BUCKET = "3.16"


def item(
    namespace: tuple[str, ...] = ("n",),
    key: str = "k",
    value: Mapping[str, Any] | None = None,
    *,
    born: int = 1,
    home_born: int = 1,
    stamp: int = 1,
    deadline_ms: int = 0,
    vectors: Mapping[str, bytes] | None = None,
) -> tuple[Name, Record]:
    """An item as a script would tell it."""
    name = pack_namespace(namespace), key.encode()
    body = records.pack(CODEC, value or {}, vectors or {})
    numbers = deadline_ms, home_born, stamp, born, stamp, 0
    raw = b"".join(b"%016d" % each for each in numbers) + b"\x01" + bytes(16) + body
    return name, records.unpack(CODEC, *name, raw)


def at(watermark: int, identity: str = "one", nonce: str = "life") -> Basis:
    return Basis(identity.encode(), nonce.encode(), b"%016d" % watermark)


def told(
    basis: Basis, since: Basis, *items: tuple[Name, Record | None], server_ms: int = 0
) -> Changes:
    return Changes(basis, since, dict(items), server_ms)


def keys(mirror: Mirror) -> list[str]:
    return [row.record.key for row in mirror.rows]


def vectors(number: int) -> dict[str, bytes]:
    return {"a": np.array([number, 0, 0, 0], "<f4").tobytes()}
