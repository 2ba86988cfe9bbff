"""The plots of the README: horizontal bars in SVG, drawn from the result files.

Colours are chosen by the reader's colour scheme, and where a viewer knows none,
they can be read on white and on black alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 760, 236, 132
BAR, GAP, GROUP_GAP, HEAD = 16, 5, 34, 56
STYLE = """
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Arial, sans-serif; fill: #6b7683 }
  .title { font-size: 15px; font-weight: 600 } .group { font-weight: 600 }
  .peer { fill: #97a3b2 } .ours { fill: #12906f } .floor { fill: none; stroke: #97a3b2 }
  .ours-text { font-weight: 600; fill: #12906f }
  @media (prefers-color-scheme: light) { text { fill: #454f5b } .ours-text { fill: #0b6b52 } }
  @media (prefers-color-scheme: dark) {
    text { fill: #b4bfca } .peer { fill: #66727f }
    .ours { fill: #2fbd96 } .ours-text { fill: #4fd6b0 } }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a contender's value and how it is written out."""

    name: str
    role: str
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Bars under one heading."""

    heading: str
    bars: Sequence[Bar]


def chart(title: str, subtitle: str, groups: Sequence[Group], *, logarithmic: bool) -> str:
    """A chart as SVG text.

    Args:
        title: Above it.
        subtitle: What the bars are, below the title.
        groups: From top to bottom.
        logarithmic: Whether bar lengths go by the logarithm.
    """
    values = [bar.value for group in groups for bar in group.bars]
    least, most = min(values), max(values)
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH

    def length(value: float) -> float:
        if not logarithmic:
            return room * value / most
        # The smallest bar keeps a visible length.
        return room * (0.04 + 0.96 * math.log(value / least) / (math.log(most / least) or 1.0))

    parts = [
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
        f'<text x="8" y="38">{escape(subtitle)}</text>',
    ]
    y = HEAD
    for group in groups:
        parts.append(f'<text class="group" x="8" y="{y + 12}">{escape(group.heading)}</text>')
        y += 20
        for bar in group.bars:
            parts += _bar(bar, y, length(bar.value))
            y += BAR + GAP
        y += GROUP_GAP - 20
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" '
        f'height="{y}" role="img" aria-label="{escape(title)}">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _bar(bar: Bar, y: int, length: float) -> Iterator[str]:
    css = bar.role if bar.role in ("ours", "floor") else "peer"
    text = ' class="ours-text"' if bar.role == "ours" else ""
    x, base = LABEL_WIDTH, y + BAR - 4
    yield f'<text{text} x="{x - 8}" y="{base}" text-anchor="end">{escape(bar.name)}</text>'
    yield f'<rect class="{css}" x="{x}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
    yield f'<text{text} x="{x + length + 6:.1f}" y="{base}">{escape(bar.text)}</text>'


def _named(data: dict[str, Any], case: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Role and value of everyone who has a value in a case."""
    roles = data["roles"]
    return {
        name: (roles[name], value)
        for name, value in case["medians"].items()
        if value is not None and roles.get(name, "reference") != "reference"
    }


def step_time(data: dict[str, Any]) -> str | None:
    """Time of a step over the floor's, by size; messages, async."""
    groups = []
    for case in data["cases"]:
        kind, size, face = case["case"].split(", ")
        found = _named(data, case)
        if (kind, face) != ("messages", "async") or "floor" not in found:
            continue
        floor = found["floor"][1]
        bars = [
            Bar(name, role, value / floor, f"{value / floor:.2f} x, {value:,.0f} us")
            for name, (role, value) in sorted(found.items(), key=lambda pair: pair[1][1])
        ]
        groups.append(Group(f"average state {size}", bars))
    title = "Time of a step: put + put_writes + get_tuple"
    subtitle = (
        "over raw round trips of the whole state (floor); async, LangChain messages; less is better"
    )
    return chart(title, subtitle, groups, logarithmic=False) if groups else None


def bytes_stored(data: dict[str, Any]) -> str | None:
    """KiB stored after 100 steps, by size; messages."""
    groups = []
    for case in data["cases"]:
        kind, size, *rest = case["case"].split(", ")
        if kind != "messages" or rest != ["100 steps"]:
            continue
        bars = [
            Bar(name, role, value, f"{value:,.0f} KiB")
            for name, (role, value) in sorted(
                _named(data, case).items(), key=lambda pair: pair[1][1]
            )
        ]
        groups.append(Group(f"average state {size}", bars))
    title = "Bytes stored after 100 steps"
    subtitle = "LangChain messages; logarithmic; less is better"
    return chart(title, subtitle, groups, logarithmic=True) if groups else None


Make = Callable[[dict[str, Any]], str | None]
PLOTS: dict[str, tuple[str, Make]] = {
    "steps": ("step-time.svg", step_time),
    "stored": ("bytes-stored.svg", bytes_stored),
}


def draw(folder: Path, plots: Mapping[str, tuple[str, Make]]) -> list[Path]:
    """Draw what the folder has results for; return the files written.

    Args:
        folder: Of results.
        plots: By the figure's name: a file, and what makes it of the figure's data.
    """
    drawn = []
    for name, (file, make) in plots.items():
        source = folder / f"{name}.json"
        if source.exists() and (svg := make(json.loads(source.read_text()))):
            (folder / file).write_text(svg)
            drawn.append(folder / file)
    return drawn
