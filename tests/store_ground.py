"""What tests of the store share: a store on one of its faces, and servers to put it on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from langgraph_valkey import Hooks, RecoveryReport, ValkeyStore
from langgraph_valkey.local import LocalCluster, LocalValkey

NS = ("memories", "ada")


class StoreFace:
    """One face of a store, as its ``a`` methods; what it was told of failovers.

    Attributes:
        store: The store.
        kind: Which face.
        reports: What came of recoveries.
        uncovered: How many entries were not covered, each time it was told.
    """

    def __init__(self, kind: str, *args: Any, **settings: Any) -> None:
        self.kind = kind
        self.reports: list[RecoveryReport] = []
        self.uncovered: list[int] = []
        hooks = Hooks(on_rewind=self.reports.append, on_uncovered=self.uncovered.append)
        self.store = ValkeyStore(*args, hooks=hooks, **settings)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of this face by its name on the blocking one."""

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.kind == "async":
                return await getattr(self.store, f"a{name}")(*args, **kwargs)
            return await asyncio.to_thread(getattr(self.store, name), *args, **kwargs)

        return call

    async def value(self, key: str, namespace: tuple[str, ...] = NS) -> Any:
        """The value of an item; None if there is none."""
        found = await self.get(namespace, key)
        return None if found is None else found.value

    async def keys(self, prefix: tuple[str, ...] = NS, **wanted: Any) -> list[str]:
        """The keys of the items that a search finds."""
        return [each.key for each in await self.search(prefix, **wanted)]


@asynccontextmanager
async def opened(kind: str, *args: Any, **settings: Any) -> AsyncIterator[StoreFace]:
    """A store that leaves without waiting."""
    face = StoreFace(kind, *args, **settings)
    try:
        yield face
    finally:
        await face.store.aclose(0)


@pytest.fixture(params=["one shard", "three shards"])
def server_url(
    request: pytest.FixtureRequest, valkey: LocalValkey, three_shards: LocalCluster
) -> str:
    """A server of one shard, and of three."""
    return str((valkey if request.param == "one shard" else three_shards).url)


Opener = Callable[..., StoreFace]


def _opening(kind: str, url: str, prefix: str) -> Iterator[Opener]:
    made: list[StoreFace] = []

    def open_store(**settings: Any) -> StoreFace:
        made.append(StoreFace(kind, url, key_prefix=prefix, **settings))
        return made[-1]

    yield open_store
    for each in made:
        each.store.close(0)


@pytest.fixture
def stores(server_url: str, prefix: str, kind: str) -> Iterator[Opener]:
    """Opens stores beneath one prefix of keys, each another process; closes them."""
    yield from _opening(kind, server_url, prefix)


@pytest.fixture
def near(valkey: LocalValkey, prefix: str, kind: str) -> Iterator[Opener]:
    """The same on one shard alone, for tests that look at the server's keys."""
    yield from _opening(kind, valkey.url, prefix)


@pytest.fixture
def store(stores: Opener) -> StoreFace:
    """A store."""
    return stores()
