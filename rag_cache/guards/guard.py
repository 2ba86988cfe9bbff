"""What a guard sees, and what it is asked.

Two questions of almost the same meaning by their embeddings may want opposite answers:
"order 48213" and "order 48231" are as near as any paraphrase. A similarity tells what a
text is about, not what it says of it. So each candidate that is near enough has to pass
guards, which look at the words and at what else is known; one that refuses says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cached entry that might answer a question.

    Attributes:
        question: The question it was stored under.
        score: Cosine of the angle between the two questions' embeddings, -1 to 1.
        answer: A digest of the cached value: equal values have equal ones.
        documents: Ids of the documents the value was made from, the best first.
    """

    question: str
    score: float
    answer: str
    documents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what is known about it.

    Attributes:
        question: The question.
        neighbours: The nearest entries of its scope, the best first, whether or not they
            are near enough to be served.
        documents: Ids of the documents that are best for it now; None if not known.
    """

    question: str
    neighbours: tuple[Candidate, ...] = ()
    documents: tuple[str, ...] | None = None


class Guard(Protocol):
    """One reason not to serve a candidate."""

    @property
    def name(self) -> str:
        """What it is called in metrics and settings."""
        ...

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        """Why the candidate must not be served; None if nothing speaks against it.

        Args:
            asked: The question.
            candidate: What might answer it.

        Returns:
            A short text for `explain`, which may name words of either question.
        """
        ...
