"""The loop: break a shard, wait until all savers have told of it, look, and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langgraph_valkey.local import LocalCluster
from tests.kill_loop.crew import Aboard, Crew, Order, Tally, Told, ask_all
from tests.kill_loop.faults import BOUND_S, DECK, FAULTS, Shock, schedule
from tests.kill_loop.ledger import clock
from tests.kill_loop.search import Findings

RECOVERED_DEADLINE_S = 20.0
READY_DEADLINE_S = 60.0
POLL_S = 0.05
SAID_MOST = 10
"""How much of what is wrong is told in words."""

THE_END = "the end"
SETTLE_S = (0.1, 0.6)
"""For how long writers go on between two faults, at least and at most."""

MISSED_MOST = 2
"""Faults in a run that the lab may fail to bring about: an election that is lost again
and again, say."""

TTL_S = 15.0
"""Of every third saver's threads: longer than any outage, shorter than a run."""

UNTOLD_S = 1.0
"""Without replay nobody tells of a failover: how long writers then go on before the
search."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        failovers: How many primaries are to be replaced, at least.
        seed: Of the schedule, and of all that writers draw.
        kinds: Kinds of faults to deal.
        crews: Processes that write.
        writers: In each of them.
        replays: Without it the savers lose what the store loses: the control.
        node_timeout_ms: Of the cluster.
    """

    failovers: int = 200
    seed: int = 0
    kinds: tuple[str, ...] = DECK
    crews: int = 3
    writers: int = 8
    replays: bool = True
    node_timeout_ms: int = 1000


@dataclass(slots=True)
class OfKind:
    """What came of one kind of fault."""

    failovers: int = 0
    planned: int = 0
    lost: int = 0
    false_alarms: int = 0
    forks: int = 0
    incomplete: int = 0
    findings: Findings = field(default_factory=Findings)
    recovery_s: list[float] = field(default_factory=list)

    def add(self, shock: Shock, told: Told, took_s: float | None) -> None:
        """A primary was replaced, and all savers have told of it."""
        self.failovers += 1
        self.planned += shock.is_planned
        self.lost += told.replayed
        self.forks += told.forks
        self.incomplete += told.incomplete
        self.false_alarms += shock.is_planned and told.replayed > 0
        if took_s is not None and shock.is_timed:
            self.recovery_s.append(took_s)


@dataclass(slots=True)
class Result:
    """What came of a run, by kind of fault; "the end" is the last search."""

    kinds: dict[str, OfKind] = field(default_factory=dict)
    tally: list[Tally] = field(default_factory=list)
    took_s: float = 0.0

    def of(self, kind: str) -> OfKind:
        """What came of one kind."""
        return self.kinds.setdefault(kind, OfKind())

    @property
    def failovers(self) -> int:
        """Primaries replaced so far."""
        return sum(each.failovers for each in self.kinds.values())


def run(plan: Plan, say: Callable[[str], None] = print, aboard: type[Any] = Aboard) -> Result:
    """Run it.

    Args:
        plan: What to do.
        say: Called with a line about each fault.
        aboard: Who writes in each crew, and looks.

    Raises:
        TimeoutError: The cluster, or a crew, did not come to where it had to be.
    """
    started_s = time.monotonic()
    with _lab(plan, aboard) as (cluster, crews):
        loop = _Loop(plan, cluster, crews, say)
        loop.run()
    loop.result.took_s = time.monotonic() - started_s
    return loop.result


@contextmanager
def _lab(plan: Plan, aboard: type[Any]) -> Iterator[tuple[LocalCluster, list[Crew]]]:
    common: dict[str, Any] = {
        "durability": "async",
        "lag_bound_s": BOUND_S,
        "replay": plan.replays,
    }
    savers = common, {**common, "ttl_s": TTL_S}, common
    crews: list[Crew] = []
    with LocalCluster(
        durability="async", lag_bound_s=BOUND_S, node_timeout_ms=plan.node_timeout_ms
    ) as cluster:
        try:
            for number in range(plan.crews):
                order = Order(number, cluster.url, plan.seed, plan.writers, savers, common)
                crews.append(Crew(order, aboard))
            yield cluster, crews
        finally:
            for crew in crews:
                crew.end()


class _Loop:
    """A run under way."""

    def __init__(
        self, plan: Plan, cluster: LocalCluster, crews: list[Crew], say: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._crews = crews
        self._say = say
        self._chance = random.Random(f"{plan.seed} faults")
        self._missed = 0
        self.result = Result()

    def run(self) -> None:
        """From the first write to the last search."""
        self._await(lambda: all(ask_all(self._crews, "ready")), READY_DEADLINE_S, "ready")
        for kind in schedule(self._plan.seed, self._plan.kinds):
            self._break(kind)
            if self.result.failovers >= self._plan.failovers:
                break
            time.sleep(self._chance.uniform(*SETTLE_S))
        self.result.tally = ask_all(self._crews, "stop")
        end = self.result.of(THE_END).findings
        for found in ask_all(self._crews, "check_all"):
            end.add(found)
        self._say(f"      at the end {end.looked_at} elements were looked for{_wrong(end)}")

    def _shocks(self, kind: str, shard: int) -> Iterator[Shock]:
        """The promotions of a fault. One that the lab can't bring about is told, not counted."""
        shocks = FAULTS[kind](self._cluster, shard, self._chance)
        while True:
            try:
                shock = next(shocks, None)
            except TimeoutError as error:
                self._missed += 1
                self._say(f"{clock()}       {kind:8}  shard {shard}  did not come about: {error}")
                if self._missed > MISSED_MOST:
                    raise
                self._cluster.heal(shard)
                return
            if shock is None:
                return
            yield shock

    def _break(self, kind: str) -> None:
        started_s = time.monotonic()
        shard = self._chance.randrange(3)
        of_kind = self.result.of(kind)
        lost, times_s = 0, []
        for shock in self._shocks(kind, shard):
            told = self._told_of(shock)
            took_s = told.last_s - shock.promotion.at_s
            times_s.append(took_s)
            of_kind.add(shock, told, took_s if self._plan.replays else None)
            lost += told.replayed
        found = Findings()
        for each in ask_all(self._crews, "check"):
            found.add(each)
        of_kind.findings.add(found)
        times = " and ".join(f"{each:.2f} s" for each in times_s)
        self._say(
            f"{clock()} {self.result.failovers:4d}  {kind:8}  shard {shard}  lost {lost:4d}  "
            f"all there after {times:17}  ({time.monotonic() - started_s:.1f} s in all)"
            f"{_wrong(found)}"
        )

    def _told_of(self, shock: Shock) -> Told:
        """What all savers told of it, once they have."""
        told = Told()

        def have_told() -> bool:
            nonlocal told
            told = Told()
            for each in ask_all(self._crews, "told", shock.promotion):
                told.add(each)
            return not told.waiting

        if self._plan.replays:
            self._await(have_told, RECOVERED_DEADLINE_S, "recovered", lambda: told)
        else:
            time.sleep(UNTOLD_S)
        return told

    def _await(
        self,
        what: Callable[[], bool],
        deadline_s: float,
        word: str,
        about: Callable[[], object] = str,
    ) -> None:
        until_s = time.monotonic() + deadline_s
        while not what():
            if time.monotonic() > until_s:
                raise TimeoutError(f"the crews were not {word} within {deadline_s:.0f} s {about()}")
            time.sleep(POLL_S)


def _wrong(found: Findings) -> str:
    wrong = [*found.missing, *found.resurrected, *found.moved_back, *found.outlived]
    return "".join(f"\n      WRONG: {each}" for each in wrong[:SAID_MOST])
