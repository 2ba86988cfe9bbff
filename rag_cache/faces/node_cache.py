"""What nodes of a graph return, cached for LangGraph: its `BaseCache`, on both of its faces.

```python
graph = builder.compile(cache=NodeCache(cache))
builder.add_node("search", search, cache_policy=CachePolicy(ttl=600))
```

LangGraph keeps a node's writes under its name and a key that `CachePolicy.key_func` makes of
its input; by default a hash of all of it. So a node whose result depends on more than its
input, such as on who asks, needs a ``key_func`` that says so. Nothing is compared by meaning
here, and nothing becomes stale but by its time to live or by `NodeCache.clear`.

`label` keeps apart what must not mix: give releases of an application different ones if
their nodes return different things for one input.

Values are written and read by a serializer of LangGraph's. Its default can build objects of
any class when it reads, as LangGraph's own caches do; with the environment variable
``LANGGRAPH_STRICT_MSGPACK=true``, or a ``serde`` that has a list of classes, it builds none
but those. With LangGraph's `EncryptedSerializer` the server sees no values.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import zstandard
from langgraph.cache.base import BaseCache, FullKey, Namespace, ValueT
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from rag_cache.scope import digest_of
from rag_cache.settings import TTL_MOST_S, check_ttl
from rag_cache.values import COMPRESS_BYTES, VALUE_BYTES_MAX

if TYPE_CHECKING:
    from rag_cache.plain_face import PlainFace

PLAIN, ZSTD = b"p", b"z"
"""First byte of a kept value; its serializer's name, a zero byte and its bytes follow."""

_SEPARATOR = b"\0"
_log = logging.getLogger("rag_cache")


class NodeCache(BaseCache[ValueT]):
    """A cache of what nodes return; see the module for how it is used.

    It fails open: what can't be read is not there, what can't be kept is not kept.

    Args:
        cache: The semantic cache; whoever made it closes it.
        serde: Writes and reads values; LangGraph's default if not given.
        label: Caches with different ones share nothing. Letters, digits, and ``_.-``.
        ttl_s: How long values live whose policy has no time to live; as the cache's
            settings say for "node" if None.

    Raises:
        ValueError: The label or the time to live can't be used.
    """

    def __init__(
        self,
        cache: PlainFace,
        *,
        serde: SerializerProtocol | None = None,
        label: str = "nodes",
        ttl_s: float | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._plain = cache.apart(label)
        self._ttl_s = None if ttl_s is None else check_ttl(ttl_s)

    # --- as LangGraph calls it -------------------------------------------------------------

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Those of the keys that have a value."""
        found: dict[FullKey, ValueT] = {}
        for namespace, names in _grouped(keys).items():
            raws = self._plain.get_many(_name(namespace), names)
            found.update(self._read(namespace, raws))
        return found

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """Those of the keys that have a value; see `get`."""
        found: dict[FullKey, ValueT] = {}

        async def look(namespace: Namespace, names: Sequence[str]) -> None:
            raws = await self._plain.aget_many(_name(namespace), names)
            found.update(self._read(namespace, raws))

        async with anyio.create_task_group() as group:
            for namespace, names in _grouped(keys).items():
                group.start_soon(look, namespace, names)
        return found

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep values, each with its time to live in seconds; None for the default."""
        for (namespace, ttl_s), values in self._written(pairs).items():
            self._plain.put_many(_name(namespace), values, ttl_s=ttl_s, kind="node")

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Keep values; see `set`."""
        for (namespace, ttl_s), values in self._written(pairs).items():
            await self._plain.aput_many(_name(namespace), values, ttl_s=ttl_s, kind="node")

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Forget the values of some namespaces; those of all of this label if not given.

        Raises:
            LanggraphValkeyError: The server could not be told, and may have told only some.
        """
        for name in [None] if namespaces is None else map(_name, namespaces):
            self._plain.clear_namespace(name)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Forget the values of some namespaces; see `clear`."""
        for name in [None] if namespaces is None else map(_name, namespaces):
            await self._plain.aclear_namespace(name)

    # --- values ----------------------------------------------------------------------------

    def _read(self, namespace: Namespace, raws: Mapping[str, bytes]) -> dict[FullKey, ValueT]:
        found: dict[FullKey, ValueT] = {}
        for name, raw in raws.items():
            try:
                found[namespace, name] = self._decoded(raw)
            except Exception as failure:  # noqa: BLE001 - whatever a serializer raises
                _log.warning("a node's value can't be read: %s", type(failure).__name__)
        return found

    def _written(
        self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]
    ) -> dict[tuple[Namespace, float | None], dict[str, bytes]]:
        """Values in stored form, by where and for how long they are kept."""
        found: dict[tuple[Namespace, float | None], dict[str, bytes]] = {}
        for (namespace, name), (value, ttl_s) in pairs.items():
            if (ttl_s is not None and ttl_s <= 0) or not _is_done(value):
                continue
            lives_s = self._ttl_s if ttl_s is None else min(ttl_s, TTL_MOST_S)
            try:
                raw = self._encoded(value)
            except Exception as failure:  # noqa: BLE001 - whatever a serializer raises
                _log.warning("what node %r returned can't be kept: %s", namespace[-1:], failure)
                continue
            found.setdefault((tuple(namespace), lives_s), {})[name] = raw
        return found

    def _encoded(self, value: Any) -> bytes:
        kind, raw = self.serde.dumps_typed(value)
        whole = kind.encode() + _SEPARATOR + raw
        if len(whole) > VALUE_BYTES_MAX:
            raise ValueError(f"it takes more than {VALUE_BYTES_MAX} bytes")
        return PLAIN + whole if len(whole) < COMPRESS_BYTES else ZSTD + zstandard.compress(whole)

    def _decoded(self, raw: bytes) -> ValueT:
        form, whole = raw[:1], raw[1:]
        if form == ZSTD:
            if not 0 <= zstandard.frame_content_size(whole) <= VALUE_BYTES_MAX:
                raise ValueError("it is too large")  # The memory is taken before it is read.
            whole = zstandard.decompress(whole)
        elif form != PLAIN:
            raise ValueError("it is of another format")
        kind, separator, rest = whole.partition(_SEPARATOR)
        if not separator:
            raise ValueError("it is not whole")
        value: ValueT = self.serde.loads_typed((kind.decode(), rest))
        return value


def _is_done(writes: Any) -> bool:
    """Whether a node has ended well, as far as its writes tell.

    Up to 1.2.12 at least, LangGraph hands errors over as well, and a hit on one would skip a
    node without raising it.
    """
    if not isinstance(writes, list | tuple | deque):
        return True
    channels = [each[0] for each in writes if isinstance(each, list | tuple) and each]
    return not any(channel in (ERROR, INTERRUPT) for channel in channels)


def _grouped(keys: Sequence[FullKey]) -> dict[Namespace, list[str]]:
    found: dict[Namespace, list[str]] = {}
    for namespace, name in keys:
        found.setdefault(tuple(namespace), []).append(name)
    return found


def _name(namespace: Namespace) -> str:
    return digest_of("node", *namespace).hex()
