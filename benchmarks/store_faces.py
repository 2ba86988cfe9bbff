"""One way to call all stores: the five calls of a `BaseStore`, awaited.

As with savers, the methods of blocking stores are coroutines that never suspend, so that one
loop times them all.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from langgraph.store.base import BaseStore, Item, Op, Result, SearchItem

from benchmarks.faces import FaceName

Namespace = tuple[str, ...]


class Stored(Protocol):
    """A store, as it is used here."""

    async def get(self, namespace: Namespace, key: str) -> Item | None:
        """Read an item."""
        ...

    async def put(self, namespace: Namespace, key: str, value: dict[str, Any]) -> None:
        """Store an item."""
        ...

    async def search(self, namespace: Namespace, **how: Any) -> list[SearchItem]:
        """Find items."""
        ...

    async def namespaces(self, **how: Any) -> list[Namespace]:
        """List namespaces."""
        ...

    def prepared(self, ops: Sequence[Op]) -> Any:
        """A batch as `batch` takes it: what is done with it here is not timed."""
        ...

    async def batch(self, prepared: Any) -> list[Result]:
        """Run some operations at once."""
        ...


class AsyncStore:
    """A store's async methods."""

    def __init__(self, store: BaseStore) -> None:
        self.store = store
        self.get = store.aget
        self.put = store.aput
        self.search: Callable[..., Any] = store.asearch
        self.namespaces: Callable[..., Any] = store.alist_namespaces
        self.batch = store.abatch

    def prepared(self, ops: Sequence[Op]) -> Sequence[Op]:
        """As it is."""
        return ops


class BlockingStore:
    """A store's blocking methods, as coroutines that never suspend."""

    def __init__(self, store: BaseStore) -> None:
        self.store = store

    async def get(self, namespace: Namespace, key: str) -> Item | None:
        """See `Stored`."""
        return self.store.get(namespace, key)

    async def put(self, namespace: Namespace, key: str, value: dict[str, Any]) -> None:
        """See `Stored`."""
        self.store.put(namespace, key, value)

    async def search(self, namespace: Namespace, **how: Any) -> list[SearchItem]:
        """See `Stored`."""
        return self.store.search(namespace, **how)

    async def namespaces(self, **how: Any) -> list[Namespace]:
        """See `Stored`."""
        return self.store.list_namespaces(**how)

    def prepared(self, ops: Sequence[Op]) -> Sequence[Op]:
        """As it is."""
        return ops

    async def batch(self, prepared: Sequence[Op]) -> list[Result]:
        """See `Stored`."""
        return self.store.batch(prepared)


def faced(store: BaseStore, face: FaceName) -> Stored:
    """A store by one of its faces."""
    return AsyncStore(store) if face == "async" else BlockingStore(store)


@contextlib.asynccontextmanager
async def async_stored(opening: Any, *, sets_up: bool = False) -> AsyncIterator[Stored]:
    """An async store, from what opens it.

    Args:
        opening: A context manager, or the store itself if that is one.
        sets_up: Whether its `setup` has to be awaited first.
    """
    async with opening as store:
        if sets_up:
            await store.setup()
        yield AsyncStore(store)


@contextlib.contextmanager
def stored(opening: Any, *, sets_up: bool = False) -> Iterator[Stored]:
    """The same for a blocking one."""
    with opening as store:
        if sets_up:
            store.setup()
        yield BlockingStore(store)


async def timed(
    call: Callable[[int], Awaitable[Any]],
    count: int,
    budget_s: float,
    before: Callable[[int], Awaitable[Any]] | None = None,
) -> list[float]:
    """Seconds of each call.

    Args:
        call: Makes a call, given its number.
        count: How many.
        budget_s: After this no more are made: some stores take seconds for what others do
            in a millisecond.
        before: What has to happen before each call, and is not timed.
    """
    spent_s: list[float] = []
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        for number in range(count):
            if before is not None:
                await before(number)
            started = time.perf_counter()
            await call(number)
            ended = time.perf_counter()
            spent_s.append(ended - started)
            if ended - began > budget_s:
                break
    finally:
        gc.enable()
    return spent_s
