"""The embedder as the cache uses it: a name, a dimension, and one method for each face."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from rag_cache.embedders import identity_of

if TYPE_CHECKING:
    import numpy as np


class Embedder:
    """Embeds questions.

    Args:
        embeddings: Any of LangChain's.

    Attributes:
        id: Its name with its parameters: vectors under another one are not compared.
        dimension: Of its vectors; None until the first one was made.
        took_s: About how long it takes: an average that follows the last ones.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.id = identity_of(embeddings)
        self.dimension: int | None = getattr(embeddings, "dimension", None)
        self.took_s = 0.0

    async def blocking(self, text: str) -> np.ndarray[Any, Any]:
        """Embed a text; never suspends.

        Raises:
            ValueError: What the embedder gave has no direction.
        """
        started_s = time.perf_counter()
        return self._vector(self._embeddings.embed_query(text), started_s)

    async def looping(self, text: str) -> np.ndarray[Any, Any]:
        """Embed a text, while others run.

        Raises:
            ValueError: What the embedder gave has no direction.
        """
        started_s = time.perf_counter()
        return self._vector(await self._embeddings.aembed_query(text), started_s)

    def _vector(self, numbers: Any, started_s: float) -> np.ndarray[Any, Any]:
        import numpy as np

        self.took_s += (time.perf_counter() - started_s - self.took_s) / 8
        vector = np.asarray(numbers, dtype="<f4")
        if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
            raise ValueError(
                "an embedder must give a list of numbers that are not all zeros: check what the "
                f"one known as {self.id!r} returns"
            )
        self.dimension = len(vector)
        return vector
