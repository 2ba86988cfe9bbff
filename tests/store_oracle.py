"""InMemoryStore as the judge of a store, with its slips mended, and a plain embedder.

Mended is what nobody would want copied:

- A namespace that was only read, or deleted from, is none.
- What an update does not embed any more is not found by what was embedded before.
- Two texts that are equal are one text, not an error.
- A comparison with what is no number is not met, instead of raising.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store import memory
from langgraph.store.base import Item, PutOp
from langgraph.store.memory import InMemoryStore

DIMENSION = 4
WORDS = ("red", "green", "blue")


class Counting(Embeddings):
    """Embeds a text as how often it has each of three words, and its length otherwise.

    Whole numbers, and small ones: cosines are equal where they ought to be, to the last bit.
    """

    def embed_query(self, text: str) -> list[float]:
        found = re.findall(r"[a-z]+", text)
        counts = [float(found.count(word)) for word in WORDS]
        return [*counts, float(len(found)) - sum(counts)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)


class Oracle(InMemoryStore):
    """InMemoryStore, mended."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._born: set[tuple[str, ...]] = set()

    def _prepare_ops(self, ops: Any) -> Any:
        with _comparing():
            found = super()._prepare_ops(ops)
        self._clean()
        return found

    def _apply_put_ops(self, put_ops: dict[Any, PutOp]) -> None:
        for place, op in put_ops.items():
            super()._apply_put_ops({place: op})
            self._born |= {namespace for namespace, items in self._data.items() if items}
            self._clean()

    def _extract_texts(self, put_ops: dict[Any, PutOp]) -> Any:
        for namespace, key in put_ops:
            self._vectors[namespace].pop(key, None)
        return super()._extract_texts(put_ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: Any) -> None:
        for places, vector in zip(to_embed.values(), embeddings, strict=True):
            for namespace, key, path in places:
                self._vectors[namespace][key][path] = vector

    def _handle_list_namespaces(self, op: Any) -> list[tuple[str, ...]]:
        whole = self._data
        self._data = {name: items for name, items in whole.items() if items}
        try:
            return super()._handle_list_namespaces(op)
        finally:
            self._data = whole

    def _clean(self) -> None:
        for namespace in self._data.keys() - self._born:
            del self._data[namespace]


@contextmanager
def _comparing() -> Iterator[None]:
    original = memory._apply_operator

    def compare(value: Any, operator: str, operand: Any) -> bool:
        try:
            return original(value, operator, operand)
        except TypeError:
            return False
        except ValueError as failure:
            if "Unsupported" in str(failure):
                raise
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_apply_operator", compare)
        yield


def seen(result: Any) -> Any:
    """What can be compared of a result: all but times."""
    if isinstance(result, list):
        return [seen(each) for each in result]
    if isinstance(result, Item):
        score = getattr(result, "score", None)
        return result.namespace, result.key, result.value, score
    return result
