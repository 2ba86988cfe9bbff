"""A calibration for people: a table, and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from langgraph_valkey.errors import ConfigurationError

if TYPE_CHECKING:
    from rag_cache.calibration.choosing import Calibration, Choice


def table(calibration: Calibration) -> str:
    """The choice, and every one that was tested on held-out examples, as Markdown."""
    held_out, confidence = calibration.held_out, calibration.confidence
    lines = [
        f"threshold {calibration.threshold:.2f}, guards: {_named(calibration.guards)}",
        f"held out: {held_out.asked:,} asked, {held_out.served:,} served "
        f"({held_out.hit_rate:.1%}), {held_out.wrong:,} wrong ({held_out.wrong_rate:.2%} of them; "
        f"at most {calibration.bound:.2%} with confidence {confidence:.0%})",
        "",
        "| threshold | guards | hit rate | wrong of served | at most | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(choice, calibration) for choice in calibration.choices if choice.held_out]
    return "\n".join(lines)


def _row(choice: Choice, calibration: Calibration) -> str:
    outcome = choice.held_out
    assert outcome is not None
    bound = outcome.bound(calibration.confidence)
    is_chosen = outcome is calibration.held_out
    verdict = "chosen" if is_chosen else "kept" if bound <= calibration.wrong_rate else "failed"
    return (
        f"| {choice.threshold:.2f} | {_named(choice.guards)} | {outcome.hit_rate:.1%} "
        f"| {outcome.wrong_rate:.2%} | {bound:.2%} | {verdict} |"
    )


def _named(guards: tuple[object, ...]) -> str:
    return ", ".join(map(repr, guards)) or "none"


def plot(calibration: Calibration, path: str | Path) -> None:
    """Draw wrong rate against hit rate of every choice; see `Calibration.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as failure:
        raise ConfigurationError(
            "matplotlib is not installed: pip install 'langgraph-valkey[plot]'"
        ) from failure
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    groups: dict[str, list[Choice]] = {}
    for choice in calibration.choices:
        groups.setdefault(_named(choice.guards), []).append(choice)
    for name, some in groups.items():
        some = sorted(some, key=lambda choice: choice.threshold)
        axes.plot(
            [100 * choice.fitted.hit_rate for choice in some],
            [100 * choice.fitted.wrong_rate for choice in some],
            *("o-",),
            markersize=3,
            linewidth=1,
            label=name if len(name) <= 60 else name[:57] + "...",
        )
    axes.plot(
        *(100 * calibration.held_out.hit_rate, 100 * calibration.held_out.wrong_rate, "k*"),
        markersize=12,
        label="chosen, on held-out examples",
    )
    axes.axhline(100 * calibration.wrong_rate, color="grey", linestyle="--", linewidth=1)
    axes.set_xlabel("served, % of questions")
    axes.set_ylabel("wrong, % of what is served")
    axes.set_ylim(0, max(5.0, 400 * calibration.wrong_rate))
    axes.legend(fontsize=6)
    figure.savefig(path)
