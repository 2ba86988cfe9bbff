"""What tests of the semantic cache share: an embedder, caches, and both faces behind one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from rag_cache import Scope, SemanticCache

DIMENSION = 2048
_words: dict[str, int] = {}
SCOPE = Scope(tenant="acme", corpus="handbook")


class Bag(Embeddings):
    """Embeds a text as the bag of its words: the same words, the same direction."""

    id = "bag"
    dimension = DIMENSION

    def __init__(self) -> None:
        self.times = 0

    def embed_query(self, text: str) -> list[float]:
        self.times += 1
        vector = np.full(DIMENSION, 1e-3)
        for word in re.findall(r"\w+", text.casefold()):
            vector[_words.setdefault(word, len(_words)) % DIMENSION] += 1
        found: list[float] = (vector / np.linalg.norm(vector)).tolist()
        return found

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


class Caller:
    """One face of a cache: its methods by their names, awaited."""

    def __init__(self, cache: SemanticCache, kind: str) -> None:
        self.cache = cache
        self.kind = kind

    async def __call__(self, method: str, *args: Any, **given: Any) -> Any:
        if self.kind == "async":
            return await getattr(self.cache, f"a{method}")(*args, **given)
        call = getattr(self.cache, method)
        return await asyncio.to_thread(call, *args, **given)

    async def computed(self, question: str, value: Any, scope: Scope = SCOPE) -> Any:
        """`get_or_compute` with a computation that returns this, or calls it."""

        def compute() -> Any:
            return value() if callable(value) else value

        async def acompute() -> Any:
            await asyncio.sleep(0)
            return compute()

        chosen = acompute if self.kind == "async" else compute
        return await self("get_or_compute", question, scope, chosen)


class Caches:
    """Makes caches on one server and one primary store: each stands for a process."""

    def __init__(self, url: str, prefix: str, primary: str, stack: ExitStack) -> None:
        self._given = {"key_prefix": prefix, "primary": primary}
        self._url = url
        self._stack = stack

    def __call__(self, **settings: Any) -> SemanticCache:
        # A lookup may take long on a busy machine: what is too slow has tests of its own.
        fixed = {"embedder": Bag(), "guards": (), "threshold": 0.8, "lookup_deadline_ms": 2000}
        given = {**fixed, **self._given, **settings}
        made = self._stack.enter_context(SemanticCache(self._url, **given))
        made.setup()  # Making tables may take long, too.
        return made


@contextmanager
def caches_on(url: str, prefix: str, folder: Path) -> Iterator[Caches]:
    """Caches on a server, closed at the end."""
    with ExitStack() as stack:
        yield Caches(url, prefix, f"sqlite:///{folder}/{prefix}.db", stack)


@pytest.fixture
def caches(valkey: Any, prefix: str, tmp_path: Path) -> Iterator[Caches]:
    """Caches on one shard."""
    with caches_on(valkey.url, prefix, tmp_path) as made:
        yield made


@pytest.fixture
def call(caches: Caches, kind: str) -> Caller:
    """A cache, on each face."""
    return Caller(caches(), kind)
