"""Telling why a question hits or misses."""

from __future__ import annotations

from rag_cache.answers import Answers, Face
from rag_cache.asking import Asking
from rag_cache.judging import Judge
from rag_cache.results import Considered, Explanation, Hit, Miss
from rag_cache.shelves import Filed

_VERDICTS = {
    "k": "could be served, but another one was",
    "g": "gone: expired, evicted or deleted",
    "s": "stale: made from something that has changed",
    "o": "of another scope",
    "corrupt": "can't be read",
}


async def explain(answers: Answers, face: Face, judge: Judge, asking: Asking) -> Explanation:
    """Look it up, and tell what was considered.

    Args:
        answers: The cache.
        face: Of which face.
        judge: Its threshold and guards.
        asking: The lookup.
    """
    result = await answers.find(face, asking, is_timed=False)
    considered = [
        Considered(filed.card.question, score, _verdict(asking, judge, result, score, filed))
        for score, filed in asking.judged.nearest
    ]
    served = {filed.entry_id for _, filed in asking.judged.nearest}
    if isinstance(result, Hit) and result.entry_id not in served:
        considered.insert(0, Considered(result.question, result.score, "served"))
    if isinstance(result, Miss):
        return Explanation(result.reason, "", judge.threshold, tuple(considered))
    return Explanation("hit", result.tier, judge.threshold, tuple(considered))


def _verdict(asking: Asking, judge: Judge, result: Hit | Miss, score: float, filed: Filed) -> str:
    if isinstance(result, Hit) and filed.entry_id == result.entry_id:
        return "served"
    if score < judge.threshold:
        return "below the threshold"
    for refusal in (*asking.judged.refusals, *asking.refusals):
        if refusal.question == filed.card.question:
            return f"refused by {refusal.guard}: {refusal.why}"
    verdict = asking.verdicts.get(filed.entry_id)
    return "not needed: a better one was served" if verdict is None else _VERDICTS[verdict]
