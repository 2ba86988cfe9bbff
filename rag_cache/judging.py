"""Which of the nearest entries may answer a question."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rag_cache.entries import Card
from rag_cache.guards.guard import Asked, Candidate, Guard
from rag_cache.results import Refusal
from rag_cache.shelves import Filed

_log = logging.getLogger("rag_cache")


Found: TypeAlias = Sequence[tuple[float, Filed]]
"""Entries with their cosines, the best first."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of the nearest entries.

    Attributes:
        admitted: Those that may be served, the best first, with their cosines.
        refusals: Those that were near enough and refused.
        nearest: All of them, the best first, with their cosines.
    """

    admitted: Found = ()
    refusals: tuple[Refusal, ...] = ()
    nearest: Found = ()


class Judge:
    """A threshold and guards.

    Args:
        threshold: The least cosine of an entry that may be served.
        guards: Each may refuse.
    """

    def __init__(self, threshold: float, guards: Sequence[Guard]) -> None:
        self.threshold = threshold
        self.guards = tuple(guards)

    def warm_up(self) -> None:
        """Have guards load what they know: a lookup has no time for that."""
        question = "Is it ready?"
        self.judge(question, [(1.0, Filed("", Card(question, "", ())))], None)

    def judge(
        self,
        question: str,
        found: Found,
        documents: tuple[str, ...] | None,
    ) -> Judged:
        """Judge the nearest entries.

        Args:
            question: What is asked.
            found: The nearest entries of the scope with their cosines, the best first.
            documents: Ids of the current top documents, where they are known.
        """
        if not found or not found[0][0] >= self.threshold:  # NaN is neither.
            return Judged(nearest=found)
        nearest = tuple(
            Candidate(filed.card.question, score, filed.card.answer, filed.card.documents)
            for score, filed in found
        )
        asked = Asked(question, nearest, documents)
        admitted, refusals = [], []
        for (score, filed), candidate in zip(found, nearest, strict=True):
            if not score >= self.threshold:  # NaN is neither.
                break
            refusal = self._refusal(asked, candidate)
            if refusal is None:
                admitted.append((score, filed))
            else:
                refusals.append(refusal)
        return Judged(tuple(admitted), tuple(refusals), found)

    def _refusal(self, asked: Asked, candidate: Candidate) -> Refusal | None:
        for guard in self.guards:
            try:
                why = guard.refusal(asked, candidate)
            except Exception:  # noqa: BLE001 - a guard that can't tell has not let it pass
                _log.exception("guard %s failed, which counts as a refusal", guard.name)
                why = "the guard failed"
            if why is not None:
                return Refusal(guard.name, why, candidate.question, candidate.score)
        return None
