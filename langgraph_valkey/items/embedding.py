"""The index config: which texts of an item are embedded, and how.

Texts are taken from values as LangGraph's own stores take them: by the paths of the config,
or those that a put names. Where a path leads to several texts, each is a vector of its own.
Vectors are kept as the embedder gave them, as float32: only the direction counts.

The embedder has two faces, as everything here: `Indexing.blocking` never suspends,
`Indexing.looping` lets others run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, PutOp
from langgraph.store.base.embed import ensure_embeddings, get_text_at_path, tokenize_path

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.vectors.matrix import Matrix

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, Any]

WHOLE = "$"
"""The path that leads to the whole value."""


class Face(Protocol):
    """An embedder, on one of its faces."""

    async def documents(self, texts: list[str]) -> Sequence[Sequence[float]]:
        """Embed texts that are to be found."""
        ...

    async def queries(self, texts: list[str]) -> Sequence[Sequence[float]]:
        """Embed texts by which to find."""
        ...


class Indexing:
    """What an index config says; see LangGraph's `IndexConfig`.

    Args:
        config: ``dims`` and ``embed``, and ``fields``, the paths to be embedded: the whole
            value if there are none.

    Attributes:
        dimension: Numbers in each vector.
        blocking: The embedder for callers that block.
        looping: The embedder for callers that await.

    Raises:
        ConfigurationError: The config lacks something, or numpy is not installed.
    """

    def __init__(self, config: IndexConfig) -> None:
        dimension = config.get("dims")
        if not isinstance(dimension, int) or dimension < 1:
            raise ConfigurationError(
                "index= needs dims, the count of numbers in each vector of its embedder: pass "
                "index={'dims': 384, 'embed': ...}"
            )
        Matrix[None](dimension)  # Without numpy no search could be answered later on.
        self.dimension = dimension
        embeddings = _embeddings(config)
        self.blocking: Face = _Blocking(embeddings)
        self.looping: Face = _Looping(embeddings)
        self._fields = [_tokenized(path) for path in config.get("fields") or [WHOLE]]

    def texts(self, put: PutOp) -> dict[str, str]:
        """The texts of a put that are to be embedded, by their paths."""
        if put.value is None or put.index is False:
            return {}
        fields = self._fields if put.index is None else map(_tokenized, put.index)
        found: dict[str, str] = {}
        for path, tokens in fields:
            texts = get_text_at_path(put.value, tokens)
            if len(texts) == 1:
                found[path] = texts[0]
            else:
                found.update((f"{path}.{at}", text) for at, text in enumerate(texts))
        return found

    async def of_puts(self, face: Face, puts: Sequence[PutOp]) -> list[dict[str, bytes]]:
        """Embed what is to be found of some puts; each text once.

        Args:
            face: Which one of the embedder's.
            puts: What is to be stored, or deleted.

        Returns:
            The vectors of each put by their paths: float32, little-endian.

        Raises:
            ValueError: The embedder gave vectors of another dimension or number.
        """
        wanted = [self.texts(put) for put in puts]
        texts = list(dict.fromkeys(text for each in wanted for text in each.values()))
        if not texts:
            return [{} for _ in puts]
        made = await face.documents(texts)
        if len(made) != len(texts):
            raise ValueError(f"the embedder gave {len(made)} vectors for {len(texts)} texts")
        vectors = dict(zip(texts, map(self.vector, made), strict=True))
        return [{path: vectors[text].tobytes() for path, text in each.items()} for each in wanted]

    async def of_queries(self, face: Face, queries: Iterable[str]) -> dict[str, Vector]:
        """Embed queries; each once.

        Raises:
            ValueError: The embedder gave a vector of another dimension.
        """
        texts = list(dict.fromkeys(queries))
        made = await face.queries(texts) if texts else ()
        return dict(zip(texts, map(self.vector, made), strict=True))

    def vector(self, numbers: Any) -> Vector:
        """A vector of the embedder's, checked.

        Raises:
            ValueError: It has another dimension, or numbers that are not finite.
        """
        import numpy as np

        with np.errstate(over="ignore"):  # What float32 can't hold shows as infinite.
            found = np.asarray(numbers, dtype="<f4")
        if found.shape != (self.dimension,):
            raise ValueError(
                f"the embedder gave a vector of {found.size} numbers where index= says "
                f"dims={self.dimension}: they must agree"
            )
        if not np.isfinite(found).all():
            raise ValueError("the embedder gave a vector with a number that is not finite")
        return found


def _embeddings(config: Mapping[str, Any]) -> Embeddings:
    embed = config.get("embed")
    if embed is None:
        raise ConfigurationError(
            "index= needs embed: any of LangChain's Embeddings, a function from texts to vectors, "
            "or the name of a model such as 'openai:text-embedding-3-small'"
        )
    return ensure_embeddings(embed)


def _tokenized(path: str) -> tuple[str, str | list[str]]:
    return path, path if path == WHOLE else tokenize_path(path)


class _Blocking:
    """The blocking face: what it awaits returns at once."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    async def documents(self, texts: list[str]) -> Sequence[Sequence[float]]:
        return self._embeddings.embed_documents(texts)

    async def queries(self, texts: list[str]) -> Sequence[Sequence[float]]:
        return [self._embeddings.embed_query(text) for text in texts]


class _Looping:
    """The async face: queries are embedded side by side."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    async def documents(self, texts: list[str]) -> Sequence[Sequence[float]]:
        return await self._embeddings.aembed_documents(texts)

    async def queries(self, texts: list[str]) -> Sequence[Sequence[float]]:
        if len(texts) == 1:
            return [await self._embeddings.aembed_query(texts[0])]
        found: dict[str, Sequence[float]] = {}

        async def embed(text: str) -> None:
            found[text] = await self._embeddings.aembed_query(text)

        try:
            async with anyio.create_task_group() as group:
                for text in texts:
                    group.start_soon(embed, text)
        except* Exception as failures:  # noqa: BLE001 - raised again, as one failure
            raise failures.exceptions[0] from failures.exceptions[0].__cause__
        return [found[text] for text in texts]
