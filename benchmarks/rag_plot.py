"""The semantic cache's plots: what is served against what is served wrongly, in SVG.

Each line is one way to decide at many thresholds; up and to the left is better. They are
drawn from the result files, like the bars of `plot`, and in its colours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.contenders import OURS
from benchmarks.plot import STYLE, WIDTH, Make

HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 430, 64, 72, 190, 52
TICKS = 5
NAME_HEIGHT = 16
LINES = """
  .line { fill: none; stroke: #97a3b2; stroke-width: 2 } .ours-line { stroke: #12906f }
  .dashed { stroke-dasharray: 6 4 } .axis { stroke: #97a3b2 } .goal { stroke: #c2571a }
  .goal-text { fill: #c2571a }
  @media (prefers-color-scheme: dark) {
    .ours-line { stroke: #2fbd96 } .goal { stroke: #ef8f55 } .goal-text { fill: #ef8f55 } }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One way to decide: a point for each threshold.

    Attributes:
        name: Written at its end.
        points: Wrong and served, in per cent.
        is_ours: Whether it stands out.
        is_dashed: Whether it is drawn as a second one of its kind.
    """

    name: str
    points: Sequence[tuple[float, float]]
    is_ours: bool = False
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """What is drawn: titles, and how far the axes go.

    Attributes:
        title, subtitle: Above.
        across, up: Names of the axes.
        across_most, up_most: Where they end.
        goal_across: The most that may be wrong.
        goal_up: The least to be served; None if that is not one number.
    """

    title: str
    subtitle: str
    across: str
    up: str
    across_most: float
    up_most: float
    goal_across: float
    goal_up: float | None = None

    def x(self, value: float) -> float:
        """Where a wrong rate lies."""
        return LEFT + (WIDTH - LEFT - RIGHT) * min(value / self.across_most, 1.0)

    def y(self, value: float) -> float:
        """Where a hit rate lies."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value / self.up_most, 1.0)


def chart(axes: Axes, lines: Sequence[Line]) -> str:
    """A chart as SVG text."""
    parts = list(_frame(axes))
    taken: list[float] = []
    # From the top down, so that a name that would stand on another one goes below it.
    for line in sorted(lines, key=lambda each: -max(each.points)[1]):
        x, y = _end(axes, line)
        y = max([y, *(other + NAME_HEIGHT for other in taken if y < other + NAME_HEIGHT)])
        taken.append(y)
        parts += _line(axes, line, (x, y))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(axes.title)}">\n'
        f"<style>{STYLE}{LINES}</style>\n{body}\n</svg>\n"
    )


def _frame(axes: Axes) -> Iterator[str]:
    left, right, base, top = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, TOP
    yield f'<text class="title" x="8" y="20">{escape(axes.title)}</text>'
    yield f'<text x="8" y="38">{escape(axes.subtitle)}</text>'
    yield f'<path class="line axis" d="M{left} {top}V{base}H{right}"/>'
    for tick in range(TICKS + 1):
        across, up = axes.across_most * tick / TICKS, axes.up_most * tick / TICKS
        x, y = axes.x(across), axes.y(up)
        yield f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{across:g}</text>'
        yield f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{up:g}</text>'
    middle = (left + right) / 2
    yield f'<text x="{middle}" y="{base + 40}" text-anchor="middle">{escape(axes.across)}</text>'
    yield f'<text x="{left}" y="{top - 8}">{escape(axes.up)}</text>'
    x = axes.x(axes.goal_across)
    yield f'<path class="line goal dashed" d="M{x:.1f} {top}V{base}"/>'
    text = f"at most {axes.goal_across:g} %"
    yield f'<text class="goal-text" x="{x + 6:.1f}" y="{base - 8}">{text}</text>'
    if axes.goal_up is not None:
        y = axes.y(axes.goal_up)
        yield f'<path class="line goal dashed" d="M{left} {y:.1f}H{x:.1f}"/>'
        text = f"at least {axes.goal_up:g} %"
        yield f'<text class="goal-text" x="{x + 6:.1f}" y="{y + 16:.1f}">{text}</text>'


def _end(axes: Axes, line: Line) -> tuple[float, float]:
    """Where its name stands: beside its last point, and above a single one."""
    wrong, served = max(line.points)
    return axes.x(wrong) + 10, axes.y(served) + (4 if len(line.points) > 1 else -6)


def _line(axes: Axes, line: Line, end: tuple[float, float]) -> Iterator[str]:
    points = [(axes.x(wrong), axes.y(served)) for wrong, served in sorted(line.points)]
    css = "line ours-line" if line.is_ours else "line"
    css += " dashed" if line.is_dashed else ""
    mark, text = ("ours", "ours-text") if line.is_ours else ("peer", "")
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline class="{css}" points="{path}"/>'
    for x, y in points:
        yield f'<circle class="{mark}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if line.is_ours else 3}"/>'
    x, y = end
    yield f'<text class="{text}" x="{x:.1f}" y="{y:.1f}">{escape(line.name)}</text>'


def stream(data: dict[str, Any]) -> str | None:
    """Hits against wrong answers of a stream, for each way to decide."""
    rows = {case["case"]: case["medians"] for case in data["cases"]}
    lines = []
    for name in data["roles"]:
        points = [
            (rows[case.replace("served", "wrong")][name], medians[name])
            for case, medians in rows.items()
            if case.endswith("served") and medians.get(name) is not None
        ]
        lines.append(Line(name, points, name.startswith(OURS), name != OURS and OURS in name))
    shown = 3.0
    lines = [
        Line(each.name, inside, each.is_ours, each.is_dashed)
        for each in lines
        if (inside := [point for point in each.points if point[0] <= shown])
    ]
    if not lines:
        return None
    axes = Axes(
        title="Questions to a bank, as a stream: hits against wrong answers",
        subtitle="banking77, MiniLM; each line: thresholds; up and to the left is better",
        across="wrong, % of questions",
        up="served, % of questions",
        across_most=shown,
        up_most=_round_up(max(served for each in lines for _, served in each.points)),
        goal_across=1.0,
    )
    return chart(axes, lines)


def pairs(data: dict[str, Any]) -> str | None:
    """Paraphrases served against traps served, at every threshold, and ours."""
    rows = {case["case"]: case["medians"] for case in data["cases"]}
    traps, right = rows["traps served, %"], rows["paraphrases served, %"]
    plain = [(traps[name], right[name]) for name in data["roles"] if re.search(r", 0\.\d+$", name)]
    lines = [
        Line("threshold alone", plain),
        Line(OURS, [(traps[OURS], right[OURS])], is_ours=True),
    ]
    axes = Axes(
        title="Sealed pairs: paraphrases served against traps served",
        subtitle="fow-cache, MiniLM, no model asked; up and to the left is better",
        across="traps served, % of traps",
        up="paraphrases served, % of paraphrases",
        across_most=100.0,
        up_most=100.0,
        goal_across=4.0,
        goal_up=35.0,
    )
    return chart(axes, lines)


def _round_up(value: float) -> float:
    return 10.0 * -(-value // 10)


PLOTS: dict[str, tuple[str, Make]] = {
    "rag-curve": ("rag-stream.svg", stream),
    "rag-pairs-sealed": ("rag-pairs.svg", pairs),
}
