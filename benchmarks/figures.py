"""What a figure group hands back, and how its samples become numbers.

A figure has cases (say, messages at 20 KiB on the async face); each case has,
for each contender, one sample a round. A ratio is taken within each round and
the median of those ratios is reported: a slow round slows both its sides.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.faces import Opened, Role

Over = Literal["floor", "best peer", "best Valkey peer", "nothing"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What ours must reach in one case.

    Attributes:
        most: The largest value, or ratio, that meets the goal.
        over: What it is divided by; "nothing" for an absolute value.
        at_least: Whether it is the smallest value instead.
    """

    most: float
    over: Over
    at_least: bool = False

    def is_met(self, reached: float) -> bool:
        """Whether a value meets it."""
        return reached >= self.most if self.at_least else reached <= self.most


@dataclass(frozen=True, slots=True)
class Column:
    """A contender in a figure, reduced to what the report needs."""

    name: str
    role: Role
    speaks_valkey: bool


@dataclass(slots=True)
class Case:
    """One row of a figure.

    Attributes:
        name: What was measured.
        unit: Of the samples.
        goal: If there is one.
        samples: For each contender's name one value a round, in the same order.
        failures: Of contenders that could not do it: what happened.
        anchor: An earlier measurement of the floor, as a check of the machine.
    """

    name: str
    unit: str
    goal: Goal | None = None
    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    anchor: float | None = None

    def add(self, name: str, value: float) -> None:
        """Take a sample."""
        self.samples.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        """Of a contender's samples; None if it has none or failed."""
        if name in self.failures or not self.samples.get(name):
            return None
        return statistics.median(self.samples[name])

    def ratio(self, name: str, to: str) -> float | None:
        """Median of the ratios within the rounds."""
        if self.median(name) is None or self.median(to) is None:
            return None
        pairs = zip(self.samples[name], self.samples[to], strict=True)
        ratios = [one / other for one, other in pairs if other]
        return statistics.median(ratios) if ratios else None


@dataclass(slots=True)
class Figure:
    """One table.

    Attributes:
        name: Of its result file.
        title: Of the table.
        columns: Who took part.
        cases: Its rows.
        notes: Sentences below the table.
    """

    name: str
    title: str
    columns: list[Column] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def case(
        self, name: str, unit: str, goal: Goal | None = None, anchor: float | None = None
    ) -> Case:
        """The row of this name, made when first asked for."""
        for case in self.cases:
            if case.name == name:
                return case
        self.cases.append(Case(name, unit, goal, anchor=anchor))
        return self.cases[-1]

    def take_part(self, opened: Opened) -> None:
        """Give a contender its column."""
        who = opened.contender
        column = Column(who.name, who.role, who.speaks_valkey)
        if column not in self.columns:
            self.columns.append(column)

    def named(self, role: Role) -> str | None:
        """The contender of a role that only one has."""
        return next((column.name for column in self.columns if column.role == role), None)

    def best_peer(self, case: Case, *, on_valkey: bool = False) -> str | None:
        """The peer with the smallest median; references are no peers."""
        medians = {
            column.name: median
            for column in self.columns
            if column.role == "peer" and (column.speaks_valkey or not on_valkey)
            if (median := case.median(column.name)) is not None
        }
        return min(medians, key=medians.__getitem__, default=None)

    def reached(self, case: Case) -> float | None:
        """Our value in the terms of the case's goal; None if it can't be told."""
        ours = self.named("ours")
        if case.goal is None or ours is None:
            return None
        if case.goal.over == "nothing":
            return case.median(ours)
        if case.goal.over == "floor":
            other = self.named("floor")
        else:
            other = self.best_peer(case, on_valkey=case.goal.over == "best Valkey peer")
        return case.ratio(ours, other) if other else None


def take_turns(
    contenders: Sequence[Opened], rounds: int, measure: Callable[[Opened, int], None]
) -> None:
    """Every round each contender in turn, another one first each time."""
    for turn in range(rounds):
        start = turn % max(len(contenders), 1)
        for opened in (*contenders[start:], *contenders[:start]):
            measure(opened, turn)
