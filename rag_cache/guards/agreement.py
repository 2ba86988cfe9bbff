"""Whether what else is known agrees with an answer: its neighbours, and today's documents.

A question between two answers has neighbours of both. One whose nearest neighbours all have
the same answer is safe at a lower similarity than any one of them alone would be: on a
stream of questions to a bank that buys 1.7 times the hits at the same share of wrong ones
(`benchmarks/rag_stream.py`).
"""

from __future__ import annotations

from typing import Literal

from rag_cache.guards.guard import Asked, Candidate

AGREEING = 4
SURE = 0.95
"""Found on the stream of `benchmarks/rag_stream.py` with a small sentence transformer."""


class NeighbourAgreement:
    """Refuses where the nearest entries have different answers.

    It takes a scope with several entries an answer: canned answers, retrieval, routing.
    Where a model words each answer anew, entries can agree by their best document instead,
    which tells less: two answers may come from one document.

    Args:
        agreeing: How many of the nearest entries must agree, the candidate among them.
        sure: A candidate of at least this cosine needs no agreement.
        by: In what they must agree.
    """

    name = "neighbours"

    def __init__(
        self,
        agreeing: int = AGREEING,
        sure: float = SURE,
        by: Literal["answer", "document"] = "answer",
    ) -> None:
        if agreeing < 1 or by not in ("answer", "document"):
            raise ValueError('agreeing must be at least 1, and by "answer" or "document"')
        self.agreeing = agreeing
        self.sure = sure
        self.by = by

    def __repr__(self) -> str:
        by = "" if self.by == "answer" else f", by={self.by!r}"
        return f"NeighbourAgreement({self.agreeing}, sure={self.sure}{by})"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        """See `Guard.refusal`."""
        if candidate.score >= self.sure:
            return None
        nearest = asked.neighbours[: self.agreeing]
        agreeing = sum(self._agree(candidate, each) for each in nearest)
        if agreeing == self.agreeing:
            return None
        return f"{agreeing} of the {self.agreeing} nearest entries agree"

    def _agree(self, one: Candidate, other: Candidate) -> bool:
        if self.by == "answer":
            return one.answer == other.answer
        return bool(one.documents) and one.documents[:1] == other.documents[:1]


class EvidenceAgreement:
    """Refuses where the best document now is not the one the answer was made from.

    It needs to be told the best documents with the lookup; without them, or for an answer
    without evidence, it refuses nothing.

    Args:
        depth: Among how many of the answer's best documents today's best one must be.
    """

    name = "evidence"

    def __init__(self, depth: int = 1) -> None:
        if depth < 1:
            raise ValueError("depth must be at least 1")
        self.depth = depth

    def __repr__(self) -> str:
        return f"EvidenceAgreement(depth={self.depth})"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        """See `Guard.refusal`."""
        if not asked.documents or not candidate.documents:
            return None
        if asked.documents[0] in candidate.documents[: self.depth]:
            return None
        return "the best document now is another one"
