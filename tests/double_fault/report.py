"""What came of a run: one JSON object, and in words what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.double_fault.loop import Plan, Result

MUST_BE_ZERO = (
    "duplicates", "missing_commits", "unfinished_turns", "wrongly_rerun", "broken_threads",
    "missing_money",
)  # fmt: skip
"""Figures by which a run fails."""

CONFLICTS_SHARE_MOST = 0.01
"""Share of the accepted turns that may be only reported."""

SAID_MOST = 12
"""How much of each thing that is wrong is told in words."""


def figures(plan: Plan, result: Result) -> dict[str, Any]:
    """The object of the last line."""
    verdict = result.verdict
    return {
        "double_faults": result.faults.get("both", 0),
        "single_faults": sum(result.faults.values()) - result.faults.get("both", 0),
        "commits": verdict.commits,
        "duplicates": len(verdict.duplicates),
        "missing_commits": len(verdict.missing),
        "unfinished_turns": len(verdict.unfinished),
        "wrongly_rerun": len(verdict.wrongly_rerun),
        "broken_threads": len(verdict.broken),
        "missing_money": verdict.missing_money,
        "conflicts": verdict.conflicts,
        "turns": verdict.accepted,
        "refused": result.refused,
        "rerun": verdict.rerun,
        "recover_p50_s": round(result.recover_p50_s, 2),
        "recover_most_s": round(max(result.recover_s, default=0.0), 2),
        "seed": plan.seed,
        "took_s": round(result.took_s, 1),
    }


def is_wrong(figures: dict[str, Any]) -> bool:
    """Whether a run with these figures has failed."""
    too_many = figures["conflicts"] > CONFLICTS_SHARE_MOST * figures["turns"]
    return too_many or any(figures[name] for name in MUST_BE_ZERO)


def in_words(result: Result) -> Iterator[str]:
    """What is wrong, and what turns and recoveries ended with."""
    verdict = result.verdict
    for name in ("duplicates", "missing", "unfinished", "wrongly_rerun", "broken"):
        for each in getattr(verdict, name)[:SAID_MOST]:
            yield f"{name}: {each}"
    for error, often in result.errors.most_common(SAID_MOST):
        yield f"{often} x {error}"
