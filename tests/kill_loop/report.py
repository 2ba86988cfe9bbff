"""What came of a run: a table by kind of fault, and one JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.kill_loop.loop import OfKind, Plan, Result

MUST_BE_ZERO = (
    "missing_after_replay", "resurrected", "heads_moved_back", "false_alarms",
    "ttls_extended", "runs_failed",
)  # fmt: skip
"""Figures by which a run fails."""

_HEADINGS = (
    "failovers", "lost", "missing", "resurrected", "moved back", "outlived", "false alarms",
    "forks", "incomplete", "p50 s", "p99 s", "most s",
)  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that this share of them does not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(result: Result) -> str:
    """By kind of fault, in columns."""
    rows: list[tuple[str, ...]] = [("", *_HEADINGS)]
    rows += [(kind, *_row(of_kind)) for kind, of_kind in sorted(result.kinds.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _row(of_kind: OfKind) -> tuple[str, ...]:
    found, times_s = of_kind.findings, of_kind.recovery_s
    counts = (
        of_kind.failovers, of_kind.lost, len(found.missing), len(found.resurrected),
        len(found.moved_back), len(found.outlived), of_kind.false_alarms, of_kind.forks,
        of_kind.incomplete,
    )  # fmt: skip
    times = percentile(times_s, 0.5), percentile(times_s, 0.99), percentile(times_s, 1.0)
    return *map(str, counts), *("-" if each is None else f"{each:.2f}" for each in times)


def figures(plan: Plan, result: Result) -> dict[str, Any]:
    """The object of the last line."""
    kinds = result.kinds.values()
    times_s = [each for of_kind in kinds for each in of_kind.recovery_s]
    seen_back = sum(len(each.moved_back) for each in result.tally)
    p50_s, p99_s = percentile(times_s, 0.5), percentile(times_s, 0.99)
    return {
        "failovers": result.failovers,
        "acked": sum(each.acked for each in result.tally),
        "lost_by_store": sum(each.lost for each in kinds),
        "missing_after_replay": sum(len(each.findings.missing) for each in kinds),
        "resurrected": sum(len(each.findings.resurrected) for each in kinds),
        "heads_moved_back": sum(len(each.findings.moved_back) for each in kinds) + seen_back,
        "false_alarms": sum(each.false_alarms for each in kinds),
        "forks": sum(each.forks for each in kinds),
        "recovery_p50_s": p50_s and round(p50_s, 3),
        "recovery_p99_s": p99_s and round(p99_s, 3),
        "ttls_extended": sum(len(each.findings.outlived) for each in kinds),
        "runs_failed": sum(sum(each.errors.values()) for each in result.tally),
        "unavailable": sum(sum(each.unavailable.values()) for each in result.tally),
        "stale_reads": sum(each.stale_reads for each in result.tally),
        "planned": sum(each.planned for each in kinds),
        "threads": sum(each.threads for each in result.tally),
        "seed": plan.seed,
        "took_s": round(result.took_s, 1),
    }


def errors(result: Result) -> Counter[str]:
    """What calls and runs failed with, and how often."""
    found: Counter[str] = Counter()
    for each in result.tally:
        found.update(each.errors)
        found.update(each.unavailable)
    return found


def seen_back(result: Result) -> list[str]:
    """Heads that a reader saw move back."""
    return [each for tally in result.tally for each in tally.moved_back]
