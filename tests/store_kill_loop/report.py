"""What came of a run, as one JSON object."""

from __future__ import annotations

from typing import Any

from tests.kill_loop import report
from tests.kill_loop.loop import Plan, Result

MUST_BE_ZERO = (
    "missing_after_replay", "deleted_and_back", "expired_and_back", "false_alarms", "calls_failed",
)  # fmt: skip
"""Figures by which a run fails."""

_NAMES = {
    "resurrected": "deleted_and_back",
    "ttls_extended": "expired_and_back",
    "runs_failed": "calls_failed",
    "threads": "items",
    "heads_moved_back": None,
    "forks": None,
}


def figures(plan: Plan, result: Result) -> dict[str, Any]:
    """Those of any kill loop, in the store's words."""
    found: dict[str, Any] = {"of": "store"}
    for name, value in report.figures(plan, result).items():
        told = _NAMES.get(name, name)
        if told is not None:
            found[told] = value
    return found
