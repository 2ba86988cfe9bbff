"""Trying a threshold and guards on examples, as a cache would use them.

Traffic is played back: each question is looked up among those before it that missed, and
served or stored. So what one choice serves early changes what it has later, as in life.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from langchain_core.embeddings import Embeddings

from rag_cache.calibration.bounds import upper_bound
from rag_cache.calibration.examples import Logged, Pair, connected
from rag_cache.entries import Card
from rag_cache.judging import Judge
from rag_cache.shelves import Filed

if TYPE_CHECKING:
    import numpy as np

    Vectors = np.ndarray[Any, Any]

NEIGHBOURS = 8
"""How many of the nearest entries guards see: the default of `CacheSettings.neighbours`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of some examples.

    Attributes:
        asked: How many questions there were.
        served: How many of them were served.
        wrong: How many of those wrongly.
    """

    asked: int
    served: int
    wrong: int

    @property
    def hit_rate(self) -> float:
        """Served of those asked."""
        return self.served / self.asked if self.asked else 0.0

    @property
    def wrong_rate(self) -> float:
        """Wrong of those served."""
        return self.wrong / self.served if self.served else 0.0

    def bound(self, confidence: float) -> float:
        """Upper bound of the wrong rate of those served."""
        return upper_bound(self.wrong, self.served, confidence)


class Trial(Protocol):
    """Examples that are ready to be tried."""

    def run(self, judge: Judge) -> Outcome:
        """Try a threshold and guards."""
        ...


class PairTrial:
    """Pairs.

    Args:
        pairs: What to try.
        scores: The cosine of each.
    """

    def __init__(self, pairs: Sequence[Pair], scores: Sequence[float]) -> None:
        self._pairs = pairs
        self._scores = scores

    def run(self, judge: Judge) -> Outcome:
        """See `Trial.run`."""
        served = [
            pair
            for pair, score in zip(self._pairs, self._scores, strict=True)
            if judge.judge(pair.asked, [(score, _filed(pair.cached, "", ()))], None).admitted
        ]
        return Outcome(len(self._pairs), len(served), sum(not pair.same for pair in served))


class TrafficTrial:
    """Traffic, played back into an empty cache.

    Args:
        logged: Questions, in the order of time.
        vectors: Their embeddings: unit vectors, float32 of shape (questions, dimension).
    """

    def __init__(self, logged: Sequence[Logged], vectors: Vectors) -> None:
        import numpy as np

        self._logged = logged
        self._cosines = np.asarray(vectors @ vectors.T)
        # Equal answers have equal digests, however they are written.
        digests: dict[Hashable, str] = {}
        self._filed = [
            _filed(
                each.question, digests.setdefault(each.answer, str(len(digests))), each.documents
            )
            for each in logged
        ]

    def run(self, judge: Judge) -> Outcome:
        """See `Trial.run`."""
        import numpy as np

        cached = np.empty(len(self._logged), np.intp)
        count = served = wrong = 0
        for at, asked in enumerate(self._logged):
            found = self._nearest(at, cached[:count], judge.threshold)
            admitted = judge.judge(asked.question, found, asked.documents or None).admitted
            if admitted:
                served += 1
                wrong += self._logged[int(admitted[0][1].entry_id)].answer != asked.answer
            else:
                cached[count], count = at, count + 1
        return Outcome(len(self._logged), served, wrong)

    def _nearest(self, at: int, cached: Vectors, threshold: float) -> list[tuple[float, Filed]]:
        """The nearest ones of those that are cached; none if none is near enough."""
        scores = self._cosines[at][cached]
        if not len(scores) or scores.max() < threshold:
            return []
        if len(scores) > NEIGHBOURS:
            some = (-scores).argpartition(NEIGHBOURS)[:NEIGHBOURS]
        else:
            some = (-scores).argsort()
        some = some[(-scores[some]).argsort(kind="stable")]
        return [
            (float(scores[each]), self._filed[cached[each]]._replace(entry_id=str(cached[each])))
            for each in some
        ]


def _filed(question: str, answer: str, documents: tuple[str, ...]) -> Filed:
    return Filed("", Card(question, answer, documents))


def halves(
    examples: Sequence[Pair] | Sequence[Logged], embedder: Embeddings, seed: int
) -> tuple[Trial, Trial]:
    """A half that chooses, and one that scores.

    Pairs are drawn at random, those that share a question together; traffic is parted in
    time.

    Args:
        examples: All of one sort.
        embedder: Embeds the questions.
        seed: For the draw.
    """
    if isinstance(examples[0], Logged):
        logged = [each for each in examples if isinstance(each, Logged)]
        vectors = _embedded(embedder, [each.question for each in logged])
        middle = len(logged) // 2
        return (
            TrafficTrial(logged[:middle], vectors[:middle]),
            TrafficTrial(logged[middle:], vectors[middle:]),
        )
    pairs = [each for each in examples if isinstance(each, Pair)]
    first, second = (
        _embedded(embedder, [getattr(each, side) for each in pairs]) for side in ("cached", "asked")
    )
    scores = (first * second).sum(axis=1).tolist()
    groups = connected([(each.cached, each.asked) for each in pairs])
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)  # noqa: S311 - no secret
    chosen = set(names[: len(names) // 2])
    parts = [
        [at for at, group in enumerate(groups) if (group in chosen) is first_half]
        for first_half in (True, False)
    ]
    one, other = (
        PairTrial([pairs[at] for at in part], [scores[at] for at in part]) for part in parts
    )
    return one, other


def _embedded(embedder: Embeddings, texts: list[str]) -> Vectors:
    """Unit vectors of texts."""
    import numpy as np

    vectors = np.asarray(embedder.embed_documents(texts), "<f4")
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
