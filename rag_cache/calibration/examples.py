"""What one calibrates with: pairs that somebody has labelled, or traffic that was logged."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer serves both.

    Attributes:
        cached: The question that has an answer.
        asked: The one that is asked.
        same: Whether the first one's answer is right for the second.
    """

    cached: str
    asked: str
    same: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """A question of one scope's traffic, and what was right to answer.

    Attributes:
        question: The question.
        answer: What tells right answers apart: a label, an intent, the answer itself.
        documents: Ids of the documents it was made from, the best first, if they are known.
    """

    question: str
    answer: Hashable
    documents: tuple[str, ...] = ()


def connected(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Which pairs hang together, by questions that they share, over any others.

    Args:
        pairs: Two texts each.

    Returns:
        Of each pair the number of the first one of those that hang together with it.
    """
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            # Halved on the way, or a long chain of pairs would be walked again for each.
            parent[text] = text = parent[parent[text]]
        return text

    for one, other in pairs:
        parent[root(one)] = root(other)
    first: dict[str, int] = {}
    return [first.setdefault(root(one), at) for at, (one, _) in enumerate(pairs)]
