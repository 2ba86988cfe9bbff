"""The embedder as the cache uses it: a name, a dimension, and one method for each face."""

from __future__ import annotations

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
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.id = identity_of(embeddings)
        self.dimension: int | None = getattr(embeddings, "dimension", None)

    async def blocking(self, text: str) -> np.ndarray[Any, Any]:
        """Embed a text; never suspends."""
        return self._vector(self._embeddings.embed_query(text))

    async def looping(self, text: str) -> np.ndarray[Any, Any]:
        """Embed a text, while others run."""
        return self._vector(await self._embeddings.aembed_query(text))

    def _vector(self, numbers: Any) -> np.ndarray[Any, Any]:
        import numpy as np

        vector = np.asarray(numbers, dtype="<f4")
        self.dimension = len(vector)
        return vector
