"""Vectors, cached for LangChain: embeddings around any others.

```python
embeddings = CachedEmbeddings(OpenAIEmbeddings(model="..."), cache)
```

A vector depends on its text and its embedder alone: it is kept under exactly these, as
float32, for as long as the cache's settings say for "embedding". Of a batch only what is
missing is embedded, each text once, in one call. Questions and documents are kept apart,
since many embedders embed them differently. A cache that is slow, away or damaged costs its
own time and nothing else.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from langchain_core.embeddings import Embeddings

from langgraph_valkey.link import finish
from rag_cache.embedders import identity_of
from rag_cache.settings import check_ttl

if TYPE_CHECKING:
    from rag_cache.plain_face import PlainFace

TEXTS_MOST = 512
"""Texts that are looked up at once: a lookup has little time, so what it answers is small."""

FORMAT = b"f"
"""First byte of a kept vector: little-endian float32 follow."""

_log = logging.getLogger("rag_cache")

Vector: TypeAlias = list[float]


@dataclass(frozen=True, slots=True)
class _Side:
    """One face of the cache and of an embedder, for questions or for documents.

    Attributes:
        recall: Reads what is kept of some texts.
        keep: Keeps values.
        embed: Embeds texts.
    """

    recall: Callable[[Sequence[str]], Awaitable[dict[str, bytes]]]
    keep: Callable[[Mapping[str, bytes]], Awaitable[bool]]
    embed: Callable[[list[str]], Awaitable[list[Vector]]]


class CachedEmbeddings(Embeddings):
    """Embeddings that ask a cache first; see the module for how they are used.

    Args:
        embeddings: Any of LangChain's.
        cache: The semantic cache; whoever made it closes it.
        identity: What tells the embedder from others: its model with all that changes what
            it makes. Not given: as `identity_of` tells it, which knows neither prefixes of
            texts nor whether vectors are normalized.
        ttl_s: How long vectors are kept; as the cache's settings say for "embedding" if None.

    Attributes:
        id: The identity.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        cache: PlainFace,
        *,
        identity: str | None = None,
        ttl_s: float | None = None,
    ) -> None:
        self.id = identity_of(embeddings) if identity is None else identity
        self._embeddings = embeddings
        self._cache = cache
        self._ttl_s = None if ttl_s is None else check_ttl(ttl_s)
        told = getattr(embeddings, "dimension", None)
        self._dimension = told if isinstance(told, int) else None

    # --- as LangChain calls it -------------------------------------------------------------

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts; see `Embeddings`."""

        async def embed(some: list[str]) -> list[Vector]:
            return self._embeddings.embed_documents(some)

        return finish(self._embedded(texts, self._blocking("documents", embed)))

    def embed_query(self, text: str) -> list[float]:
        """Embed one text; see `Embeddings`."""

        async def embed(some: list[str]) -> list[Vector]:
            return [self._embeddings.embed_query(each) for each in some]

        return finish(self._embedded([text], self._blocking("questions", embed)))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts; see `Embeddings`."""
        side = self._looping("documents", self._embeddings.aembed_documents)
        return await self._embedded(texts, side)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text; see `Embeddings`."""

        async def embed(some: list[str]) -> list[Vector]:
            return [await self._embeddings.aembed_query(each) for each in some]

        return (await self._embedded([text], self._looping("questions", embed)))[0]

    # --- more ------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget this embedder's vectors.

        Raises:
            LanggraphValkeyError: The server could not be told, and may have told only some.
        """
        for what in ("documents", "questions"):
            self._cache.clear_namespace(self._namespace(what))

    async def aclear(self) -> None:
        """Forget this embedder's vectors; see `clear`."""
        for what in ("documents", "questions"):
            await self._cache.aclear_namespace(self._namespace(what))

    def _namespace(self, what: str) -> str:
        return f"embedding {what} {self.id}"

    def _blocking(self, what: str, embed: Callable[[list[str]], Awaitable[list[Vector]]]) -> _Side:
        cache, namespace, ttl_s = self._cache, self._namespace(what), self._ttl_s

        async def recall(texts: Sequence[str]) -> dict[str, bytes]:
            return cache.get_many(namespace, texts)

        async def keep(values: Mapping[str, bytes]) -> bool:
            return cache.put_many(namespace, values, ttl_s=ttl_s, kind="embedding")

        return _Side(recall, keep, embed)

    def _looping(self, what: str, embed: Callable[[list[str]], Awaitable[list[Vector]]]) -> _Side:
        cache, namespace, ttl_s = self._cache, self._namespace(what), self._ttl_s

        async def recall(texts: Sequence[str]) -> dict[str, bytes]:
            return await cache.aget_many(namespace, texts)

        async def keep(values: Mapping[str, bytes]) -> bool:
            return await cache.aput_many(namespace, values, ttl_s=ttl_s, kind="embedding")

        return _Side(recall, keep, embed)

    # --- for both faces --------------------------------------------------------------------

    async def _embedded(self, texts: Sequence[str], side: _Side) -> list[Vector]:
        wanted = list(dict.fromkeys(texts))
        known: dict[str, Vector] = {}
        for some in _pages(wanted):
            for text, raw in (await side.recall(some)).items():
                vector = unpacked(raw)
                if vector is not None:
                    known[text] = vector
        lengths = {len(vector) for vector in known.values()}
        if self._dimension is None and len(lengths) > 1:
            known = {}  # Who is right can't be told.
        await self._add(known, [text for text in wanted if not self._fits(known, text)], side)
        # The embedder has the last word on how long a vector is.
        await self._add(known, [text for text in wanted if not self._fits(known, text)], side)
        return [list(known[text]) for text in texts]

    def _fits(self, known: Mapping[str, Vector], text: str) -> bool:
        return text in known and self._dimension in (None, len(known[text]))

    async def _add(self, known: dict[str, Vector], missing: list[str], side: _Side) -> None:
        """Embed what is missing, and keep it."""
        if not missing:
            return
        made = await side.embed(missing)
        if len(made) != len(missing):
            raise ValueError(
                f"the embedder returned {len(made)} vectors for {len(missing)} texts: it must "
                "return one for each"
            )
        self._dimension = len(made[-1])
        fresh: dict[str, bytes] = {}
        for text, vector in zip(missing, made, strict=True):
            raw = packed(vector)
            # As it will come back: the same text has the same vector, cached or not.
            known[text] = list(vector) if raw is None else unpacked(raw) or []
            if raw is not None:
                fresh[text] = raw
        for some in _pages(list(fresh)):
            await side.keep({text: fresh[text] for text in some})


def packed(vector: Sequence[float]) -> bytes | None:
    """A vector in stored form; None if it is none, such as one with NaN."""
    if not len(vector) or not all(map(math.isfinite, vector)):
        return None
    try:
        return FORMAT + struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError:
        return None  # Too large for float32.


def unpacked(raw: bytes) -> Vector | None:
    """The vector; None if it can't be read."""
    size = len(raw) - len(FORMAT)
    if not raw.startswith(FORMAT) or size < 4 or size % 4:
        _log.info("a kept vector can't be read, and is embedded anew")
        return None
    return list(struct.unpack(f"<{size // 4}f", raw[len(FORMAT) :]))


def _pages(texts: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(texts), TEXTS_MOST):
        yield texts[first : first + TEXTS_MOST]
