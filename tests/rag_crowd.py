"""Callers who miss at once: what the tests of single flight stand on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from rag_cache import SemanticCache
from tests.rag_flyer import QUESTION
from tests.rag_ground import SCOPE


class Crowd:
    """Callers of `get_or_compute`, on threads or on an event loop, who begin together."""

    def __init__(self, cache: SemanticCache, kind: str) -> None:
        self.cache = cache
        self.kind = kind
        self.running = self.most = self.times = 0
        self._lock = threading.Lock()

    def _count(self, step: int) -> None:
        with self._lock:
            self.running += step
            self.most = max(self.most, self.running)
            self.times += step > 0

    async def ask(self, count: int, value: Callable[[int], Any], takes_s: float) -> list[Any]:
        """So many at once; each result, or what was raised.

        Args:
            count: How many.
            value: What a computation returns, by its number; it is called at its end.
            takes_s: How long one takes.
        """

        async def acompute() -> Any:
            number = self.times
            self._count(1)
            await asyncio.sleep(takes_s)
            self._count(-1)
            return value(number)

        def compute() -> Any:
            number = self.times
            self._count(1)
            time.sleep(takes_s)
            self._count(-1)
            return value(number)

        if self.kind == "async":
            calls = [self.cache.aget_or_compute(QUESTION, SCOPE, acompute) for _ in range(count)]
            return await asyncio.gather(*calls, return_exceptions=True)
        return await asyncio.to_thread(self._on_threads, count, compute)

    def _on_threads(self, count: int, compute: Callable[[], Any]) -> list[Any]:
        found: list[Any] = []
        together = threading.Barrier(count)

        def one() -> None:
            together.wait()
            try:
                found.append(self.cache.get_or_compute(QUESTION, SCOPE, compute))
            except Exception as failure:
                found.append(failure)

        threads = [threading.Thread(target=one) for _ in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return found
