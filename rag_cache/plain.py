"""Plain keys: values that are found by an exact key and never become stale.

An embedding of a text, or what a node of a graph returned for an input, depends on its key
alone. Such values need no versions and no embedder, only a time to live and a way to forget
a namespace at once. Namespaces have lives: clearing one begins another life, under which
nothing is kept yet, so nothing has to be searched for. What was cleared may be back after a
failover that loses the clearing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from langgraph_valkey.link import Call, Link
from rag_cache.operations import calls
from rag_cache.partitions import BUCKETS
from rag_cache.scope import digest_of

CALL_BYTES = 512 * 1024
"""A call ends when it holds this much."""

LIVES_MS = 40 * 24 * 3600 * 1000
"""For how long a namespace that nobody writes to keeps its life: longer than any value."""


class Plain:
    """Values under plain keys.

    Args:
        prefix: What all keys begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    async def recall(self, link: Link, namespace: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the keys that have a value."""
        by_bucket: dict[int, dict[bytes, str]] = {}
        for key in keys:
            name = digest_of("key", namespace, key)
            by_bucket.setdefault(name[0] % BUCKETS, {})[name] = key
        space = _space(namespace)
        replies = await link.send(
            [
                calls.recall(self._prefix, bucket, space, list(names))
                for bucket, names in by_bucket.items()
            ]
        )
        return {
            key: value
            for names, reply in zip(by_bucket.values(), replies, strict=True)
            for key, value in zip(names.values(), reply, strict=False)
            if value is not None
        }

    async def keep(
        self, link: Link, namespace: str, values: Mapping[str, tuple[bytes, int]]
    ) -> None:
        """Keep values: of each key its value, and its time to live in ms."""
        by_bucket: dict[int, list[tuple[bytes, int, bytes]]] = {}
        for key, (value, ttl_ms) in values.items():
            name = digest_of("key", namespace, key)
            by_bucket.setdefault(name[0] % BUCKETS, []).append((name, ttl_ms, value))
        await link.send(
            [
                self._keep_call(bucket, namespace, some)
                for bucket, items in by_bucket.items()
                for some in _in_parts(items)
            ]
        )

    def _keep_call(
        self, bucket: int, namespace: str, items: Sequence[tuple[bytes, int, bytes]]
    ) -> Call:
        nonce = os.urandom(8)
        return calls.keep(self._prefix, bucket, _space(namespace), nonce, LIVES_MS, items)

    async def forget(self, link: Link, namespace: str | None) -> None:
        """Forget a namespace's values; those of all namespaces if it is None."""
        space = b"" if namespace is None else _space(namespace)
        await link.send([calls.forget(self._prefix, bucket, space) for bucket in range(BUCKETS)])


def _space(namespace: str) -> bytes:
    return digest_of("namespace", namespace)


def _in_parts(
    items: Sequence[tuple[bytes, int, bytes]],
) -> list[list[tuple[bytes, int, bytes]]]:
    parts: list[list[tuple[bytes, int, bytes]]] = [[]]
    size = 0
    for item in items:
        if parts[-1] and size + len(item[2]) > CALL_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += len(item[2])
    return parts
