"""A server in memory that loses writes, and stores over it."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.base import GetOp

from langgraph_valkey import (
    Hooks,
    RecoveryReport,
    ValkeyStore,
)
from langgraph_valkey.items.names import bucket_of, pack_namespace, told
from langgraph_valkey.link import finish
from langgraph_valkey.loss_window.tending import tend
from langgraph_valkey.testing import MemoryLink, memory_store
from tests.loss_world import SHORT_S

NS = ("a", "b")
OTHER = ("c",)
OPTIONS: dict[str, Any] = {"durability": "async"}
BUCKET = told(bucket_of(pack_namespace(NS), 16))


class World(MemoryLink):
    """A server, and the processes that look after themselves while another one waits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stores: list[ValkeyStore] = []
        self.reports: dict[int, list[RecoveryReport]] = {}
        self._waits = False

    def process(self, link: Any = None, **options: Any) -> ValkeyStore:
        reports: list[RecoveryReport] = []
        hooks = Hooks(on_rewind=reports.append)
        store = memory_store(link or self, hooks=hooks, **OPTIONS, **options)
        self.stores.append(store)
        self.reports[id(store)] = reports
        return store

    def report(self, store: ValkeyStore) -> RecoveryReport:
        """What came of its last recovery."""
        finish(tend(store._window, self))
        return self.reports[id(store)][-1]

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s)
        if not self._waits and delay_s >= SHORT_S:
            self._waits = True
            for store in self.stores:
                finish(tend(store._window, self))
            self._waits = False


@pytest.fixture
def world() -> World:
    return World()


def values(store: ValkeyStore) -> dict[str, Any]:
    """All items, by each way to read them."""
    found = store.search((), limit=99)
    got = store.batch([GetOp(each.namespace, each.key) for each in found])
    assert [each.value for each in got] == [each.value for each in found]  # type: ignore
    return {each.key: each.value for each in found}
