"""Questions for the semantic cache, made from a seed, and an embedder that takes no time.

Each question can be asked in other words that mean the same: their vectors have a cosine of
`NEAR` with its own, and those of different questions one of about zero. So it is known what
hits, and what is measured is the cache and not the model.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

DIMENSION = 384
NEAR = 0.95
THRESHOLD = 0.9
"""The cosine from which on all caches here serve."""

ANSWER_WORDS = 110
"""Of an answer: about 550 characters, some 130 tokens."""

_STORED = "How do I {}?"
_REWORDED = (
    *("How can I {}?", "How could I {}?", "How would I {}?", "How should I {}?"),
    *("Please, how do I {}?", "How do I {}, please?", "How can I {}, please?"),
    *("Can you tell me how to {}?", "Could you tell me how to {}?", "How to {}?"),
    *("What can I do to {}?", "Tell me how I can {}.", "How can we {}?", "Hello, how do I {}?"),
)
_THINGS = ("invoice", "order", "contract", "parcel", "ticket", "account", "meter", "booking")
_PARTS = ("address", "owner", "status", "price", "date", "currency", "language", "contact")
_WORDS = (
    *("open", "the", "page", "of", "your", "settings", "and", "choose", "what", "you", "want"),
    *("to", "change", "then", "confirm", "it", "by", "mail", "within", "two", "days"),
)
_batches = itertools.count()


class Questions:
    """Questions that have answers, unlike those of any other batch.

    Args:
        count: How many.
        seed: Of their vectors.

    Attributes:
        stored: The questions.
    """

    def __init__(self, count: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        one, other = (_units(draw.standard_normal((count, DIMENSION))) for _ in range(2))
        # What is left of the other ones at right angles to the first.
        aside = _units(other - np.sum(one * other, axis=1, keepdims=True) * one)
        self._rows = one, _units(NEAR * one + np.sqrt(1 - NEAR**2) * aside)
        first = 1_000_000 + 100_000 * next(_batches)
        self._tasks = [
            f"change the {_PARTS[at % 8]} of {_THINGS[at // 8 % 8]} {first + at}"
            for at in range(count)
        ]
        self.stored = [_STORED.format(task) for task in self._tasks]
        self._place = {text: (0, at) for at, text in enumerate(self.stored)}
        self._lists: dict[tuple[int, int], list[float]] = {}
        self._new = self._rewordings()

    def __len__(self) -> int:
        return len(self.stored)

    def reworded(self, count: int) -> list[str]:
        """Questions that mean the same as stored ones, in words that were not used before.

        A cache reads a text's words when it first sees it, and remembers what it read.
        """
        texts = list(itertools.islice(self._new, count))
        for text in texts:
            self.vector(text)  # Made before anything is timed.
        return texts

    def _rewordings(self) -> Iterator[str]:
        for wording in _REWORDED:
            for step in range(len(self)):
                at = 7 * step % len(self)
                text = wording.format(self._tasks[at])
                self._place[text] = (1, at)
                yield text

    def number(self, text: str) -> int:
        """Which stored question a text means."""
        return self._place[text][1]

    def vector(self, text: str) -> list[float]:
        """Its vector, as embedders return one; any that no other text has, if it is not known."""
        place = self._place.get(text)
        if place is None:
            draw = np.random.default_rng(list(text.encode()))
            return _as_list(_units(draw.standard_normal((1, DIMENSION)))[0])
        known = self._lists.get(place)
        if known is not None:
            return known
        which, at = place
        found = _as_list(self._rows[which][at])
        if which:
            self._lists[place] = found
        return found

    def answer(self, number: int) -> str:
        """The answer to a stored question."""
        step = 1 + number % 7
        words = [_WORDS[(number + at * step) % len(_WORDS)] for at in range(ANSWER_WORDS)]
        return f"{number}: {' '.join(words)}."

    def evidence(self, number: int) -> dict[str, str | None]:
        """The documents it was made from."""
        return {f"handbook/{number % 97}": "v3", f"faq/{number % 89}": "v12"}


def _units(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found.astype("<f4")


def _as_list(vector: np.ndarray[Any, Any]) -> list[float]:
    found: list[float] = vector.tolist()
    return found


class Prepared(Embeddings):
    """Vectors that were made before, as lists of floats: what embedders return.

    Args:
        questions: Whose vectors.
        busy_s: For how long it computes something else first, as a model would.

    Attributes:
        spent_s: How long it has been busy.
    """

    dimension = DIMENSION
    id = "prepared"

    def __init__(self, questions: Questions, busy_s: float = 0.0) -> None:
        self._questions = questions
        self._busy_s = busy_s
        self.spent_s = 0.0

    def embed_query(self, text: str) -> list[float]:
        """Look it up."""
        if self._busy_s:
            started_s = time.perf_counter()
            while time.perf_counter() - started_s < self._busy_s:
                pass
            self.spent_s += time.perf_counter() - started_s
        return self._questions.vector(text)

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Look them up."""
        return [self.embed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        """Look it up at once: a thread would take longer."""
        return self.embed_query(text)
