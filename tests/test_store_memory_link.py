"""The store over a server in memory does what it does over a real one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from langgraph_valkey import ValkeyStore
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.testing import memory_store

LABELS = ("a", "b", "a\0b", "{x}")


def some_ops(chance: random.Random) -> list[Op]:
    """Some operations on a few items."""

    def place() -> tuple[str, ...]:
        return tuple(chance.choices(LABELS, k=chance.randint(0, 2)))

    def op() -> Op:
        kind = chance.random()
        if kind < 0.4:
            value = {"n": chance.randint(0, 3), "text": "word " * chance.randint(0, 400)}
            return PutOp(place(), chance.choice(LABELS), value, ttl=chance.choice((None, 60)))
        if kind < 0.55:
            return PutOp(place(), chance.choice(LABELS), None)
        if kind < 0.75:
            return GetOp(place(), chance.choice(LABELS), chance.random() < 0.5)
        if kind < 0.9:
            wanted = chance.choice((None, {"n": 1}, {"n": {"$gt": 1}}))
            return SearchOp(place(), wanted, chance.randint(0, 5), chance.randint(0, 2))
        return ListNamespacesOp(max_depth=chance.choice((None, 1)), limit=chance.randint(0, 9))

    return [op() for _ in range(chance.randint(1, 6))]


def plain(results: Sequence[Any]) -> list[Any]:
    """What results say, but for times."""
    found: list[Any] = []
    for result in results:
        if isinstance(result, list):
            found.append(plain(result))
        elif hasattr(result, "value"):
            found.append((result.namespace, result.key, result.value))
        else:
            found.append(result)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_it_does_what_it_does_on_the_server(seed: int, valkey: LocalValkey, prefix: str) -> None:
    chance = random.Random(seed)
    told: dict[str, Any] = {"replay": False, "store_buckets": 3}
    with ValkeyStore(valkey.url, key_prefix=prefix, **told) as real:
        other_real = ValkeyStore(valkey.url, key_prefix=prefix, **told)
        memory = memory_store(**told)
        other = memory_store(memory._session.blocking, **told)
        for _ in range(40):
            ops, at = some_ops(chance), chance.randint(0, 1)
            expected = plain((real, other_real)[at].batch(ops))
            assert plain((memory, other)[at].batch(ops)) == expected
        other_real.close(0)
