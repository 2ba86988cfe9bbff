"""What came of a run: a table, and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.rag_pipeline.pipeline import Answer
from langgraph_valkey.errors import ConfigurationError
from rag_cache import Prices

COLOURS = {"model": "tab:red", "exact": "tab:green", "process": "tab:blue", "server": "tab:cyan"}
NAMES = {
    "model": "by the model",
    "exact": "cached: the very question",
    "process": "cached: other words, by this process' matrix",
    "server": "cached: other words, by the server's index",
}


@dataclass(frozen=True, slots=True)
class Run:
    """A stream of questions that was answered.

    Attributes:
        answers: In the order in which the questions came.
        edited_at: After how many of them a document was edited.
        versions: Of the documents at the end, which is since the edit.
    """

    answers: Sequence[Answer]
    edited_at: int
    versions: Mapping[str, str]

    @property
    def by_model(self) -> list[Answer]:
        """Those that the model was asked for."""
        return [each for each in self.answers if each.came_from == "model"]

    @property
    def stale(self) -> int:
        """How many were given after the edit, and were made from what it had changed."""
        return sum(
            any(self.versions.get(name) != version for name, version in each.evidence.items())
            for each in self.answers[self.edited_at :]
        )

    def tokens(self, name: str) -> int:
        """How many tokens of input or output the model used."""
        return sum(each.usage.get(name, 0) for each in self.by_model)

    def cost(self, prices: Prices) -> float:
        """What these cost."""
        given = self.tokens("input_tokens") * prices.input_per_million
        return (given + self.tokens("output_tokens") * prices.output_per_million) / 1e6

    def took_at_most_s(self, part: float) -> float:
        """How long this part of the answers took at most."""
        took = sorted(each.took_s for each in self.answers)
        return took[max(0, math.ceil(part * len(took)) - 1)]


def rows(plain: Run, cached: Run, prices: Prices) -> list[tuple[str, str, str]]:
    """Two runs of the same questions, side by side."""

    def cells(run: Run) -> list[str]:
        return [
            f"{len(run.answers):,}",
            f"{len(run.by_model):,}",
            f"{run.tokens('input_tokens'):,} / {run.tokens('output_tokens'):,}",
            f"{run.cost(prices):.6f} {prices.currency}",
            f"{1000 * run.took_at_most_s(0.5):,.1f} / {1000 * run.took_at_most_s(0.99):,.1f} ms",
            f"{sum(each.took_s for each in run.answers):,.2f} s",
            f"{run.stale:,}",
        ]

    heads = [
        "questions",
        "answered by the model",
        "tokens, input / output",
        "cost",
        "an answer took, p50 / p99",
        "waited for answers, together",
        "after the edit, from what it changed",
    ]
    return list(zip(heads, cells(plain), cells(cached), strict=True))


def plot(plain: Run, cached: Run, path: Path) -> None:
    """Draw how long each answer took, as the file's ending says.

    Raises:
        ConfigurationError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as failure:
        raise ConfigurationError(
            "matplotlib is not installed: pip install 'langgraph-valkey[plot]'"
        ) from failure
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    numbers = range(1, len(plain.answers) + 1)
    took_ms = [1000 * each.took_s for each in plain.answers]
    axes.plot(numbers, took_ms, color="lightgrey", label="without a cache")
    for source, colour in COLOURS.items():
        points = [
            (at, 1000 * each.took_s)
            for at, each in enumerate(cached.answers, 1)
            if each.came_from == source
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=colour, label=NAMES[source], ms=4)
    axes.axvline(cached.edited_at + 0.5, color="black", linestyle="--", linewidth=1)
    where = axes.get_xaxis_transform()  # Counted in questions, and from the bottom to the top.
    axes.text(cached.edited_at + 0.8, 0.02, "a document is edited", transform=where, fontsize=8)
    axes.set_yscale("log")
    axes.set_xlabel("question")
    axes.set_ylabel("answered after, ms")
    axes.legend(fontsize=7, loc="center right")
    figure.savefig(path)
