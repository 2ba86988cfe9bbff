"""Tables for people, and one JSON file for each figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.figures import Case, Figure

MISSED, MET, UNKNOWN = "MISSED", "met", "-"


def number(value: float | None) -> str:
    """Three digits that matter, thousands apart."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def verdict(figure: Figure, case: Case) -> str:
    """Whether ours met the goal of a case."""
    reached = figure.reached(case)
    if case.goal is None or reached is None:
        return UNKNOWN
    return MET if case.goal.is_met(reached) else MISSED


def _goal_text(case: Case) -> str:
    if case.goal is None:
        return ""
    over = {"nothing": case.unit}.get(case.goal.over, f"x {case.goal.over}")
    sign = ">=" if case.goal.at_least else "<="
    return f"{sign} {number(case.goal.most)} {over}".rstrip()


def _row(figure: Figure, case: Case) -> list[str]:
    cells = [case.name]
    for column in figure.columns:
        median = case.median(column.name)
        cells.append("failed" if column.name in case.failures else number(median))
    ours, floor, best = figure.named("ours"), figure.named("floor"), figure.best_peer(case)
    if floor:
        cells.append(number(case.ratio(ours, floor) if ours else None))
    cells.append(number(case.ratio(ours, best) if ours and best else None))
    cells += [_goal_text(case), number(figure.reached(case)), verdict(figure, case)]
    return cells


def table(figure: Figure) -> str:
    """The figure as a Markdown table with its notes."""
    heads = ["case", *(column.name for column in figure.columns)]
    if figure.named("floor"):
        heads.append("ours / floor")
    heads += ["ours / best peer", "goal", "reached", "verdict"]
    if any(case.anchor for case in figure.cases):
        heads.append("anchor of the floor")
    rows = [heads]
    for case in figure.cases:
        row = _row(figure, case)
        rows.append([*row, number(case.anchor)] if len(heads) > len(row) else row)
    widths = [max(len(row[at]) for row in rows) for at in range(len(heads))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    failures = [
        f"{case.name}: {name}: {text}."
        for case in figure.cases
        for name, text in case.failures.items()
    ]
    return "\n".join([f"## {figure.title}", "", *lines, "", *figure.notes, *failures, ""])


def as_data(figure: Figure, about: dict[str, Any]) -> dict[str, Any]:
    """The figure with all its samples, and what it must be read with."""
    ours, floor = figure.named("ours"), figure.named("floor")
    return {
        "figure": figure.name,
        "title": figure.title,
        **about,
        "roles": {column.name: column.role for column in figure.columns},
        "cases": [
            {
                "case": case.name,
                "unit": case.unit,
                "medians": {column.name: case.median(column.name) for column in figure.columns},
                "ours": case.median(ours) if ours else None,
                "floor": case.median(floor) if floor else None,
                "floor_anchor": case.anchor,
                "best_peer": figure.best_peer(case),
                "goal": {"most": case.goal.most, "over": case.goal.over} if case.goal else None,
                "reached": figure.reached(case),
                "verdict": verdict(figure, case),
                "failures": case.failures,
                "rounds": max((len(values) for values in case.samples.values()), default=0),
                "samples": case.samples,
            }
            for case in figure.cases
        ],
        "notes": figure.notes,
    }


def write(figure: Figure, about: dict[str, Any], folder: Path) -> Path:
    """Write the figure's JSON file; return its path."""
    path = folder / f"{figure.name}.json"
    path.write_text(json.dumps(as_data(figure, about), indent=1, sort_keys=False) + "\n")
    return path
