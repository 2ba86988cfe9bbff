"""The faults: each breaks one shard under load, and has it whole again in the end.

Each yields a `Shock` for every primary that is replaced. Whoever runs it then waits
until all savers have told of it, and lets the fault go on.

==================  =============================================================
crash               the primary dies with what its log did not persist
forced              a replica takes over without asking, and lacks what was held
frozen              the primary hangs, is replaced, and thaws: what waited in its
                    sockets, and what comes meanwhile, is acknowledged and lost
split               the primary is cut off, and goes on for as long as it may
rejected            the log stands still until writes are refused; then a crash
failback            a crash, and back to the old primary at once, as planned
double              two crashes; what the first replay restored is lost again
planned             nothing is lost
==================  =============================================================
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from langgraph_valkey.local import LocalCluster
from langgraph_valkey.local.faults import MANY_REPLICAS
from tests.kill_loop.watch import Promotion, Watch

BOUND_S = 1.0
"""The cluster's lag bound: writes are refused beyond."""

HELD_S = (0.2, 0.7)
"""For how long writes go on that will be lost, at least and at most."""

REFUSED_S = (0.2, 0.6)
STALE_S = (0.05, 0.7)
"""For how long after the promotion the old primary stays frozen, or cut off."""


@dataclass(frozen=True, slots=True)
class Shock:
    """A primary was replaced.

    Attributes:
        promotion: Whom by, and when.
        is_planned: Nothing may have been lost.
        is_timed: Whether the time to recover counts from the promotion: not where the
            fault itself keeps savers from it.
    """

    promotion: Promotion
    is_planned: bool = False
    is_timed: bool = True


Fault = Callable[[LocalCluster, int, random.Random], Iterator[Shock]]


def crash(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    cluster.hold_log(shard)
    time.sleep(chance.uniform(*HELD_S))
    yield from _killed(cluster, shard)


def _killed(cluster: LocalCluster, shard: int) -> Iterator[Shock]:
    with Watch(cluster, shard) as watch:
        victim = cluster.kill_primary(shard)
        promotion = watch.promoted()
    cluster.wait_healthy()
    # Soon: without a replica nothing is persisted, and after the bound all is refused.
    cluster.restart_node(victim)
    cluster.wait_healthy()
    yield Shock(promotion)


def forced(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    cluster.hold_log(shard)
    time.sleep(chance.uniform(*HELD_S))
    with Watch(cluster, shard) as watch:
        cluster.force_failover(shard)
        yield Shock(watch.promoted())


def frozen(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    if chance.random() < 0.5:
        cluster.hold_log(shard)
        time.sleep(chance.uniform(*HELD_S))
    with Watch(cluster, shard) as watch:
        cluster.freeze_primary(shard)
        promotion = watch.promoted()
    time.sleep(chance.uniform(*STALE_S))
    cluster.resume(shard)
    cluster.wait_healthy()
    yield Shock(promotion)


def split(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    with Watch(cluster, shard) as watch:
        cluster.split_primary(shard)
        promotion = watch.promoted()
    time.sleep(chance.uniform(*STALE_S))
    cluster.heal(shard)
    yield Shock(promotion, is_timed=False)


def rejected(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    cluster.hold_log(shard)
    time.sleep(BOUND_S + chance.uniform(*REFUSED_S))
    yield from _killed(cluster, shard)


def failback(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    yield from crash(cluster, shard, chance)
    yield from planned(cluster, shard, chance)


def double(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    """What the first replay restored is lost again, so none of it may be persisted.

    The new primary therefore refuses all writes until the old one follows it, under a
    log that is held.
    """
    [heir] = cluster.replicas(shard)
    cluster.hold_log(shard)
    time.sleep(chance.uniform(*HELD_S))
    heir.command("CONFIG", "SET", "min-replicas-to-write", MANY_REPLICAS)
    with Watch(cluster, shard) as watch:
        victim = cluster.kill_primary(shard)
        promotion = watch.promoted()
    cluster.wait_healthy()
    cluster.restart_node(victim)
    cluster.wait_healthy()
    cluster.hold_log(shard)
    cluster.accept_writes(shard)
    yield Shock(promotion, is_timed=False)
    yield from _killed(cluster, shard)


def planned(cluster: LocalCluster, shard: int, chance: random.Random) -> Iterator[Shock]:
    with Watch(cluster, shard) as watch:
        cluster.promote(shard)
        yield Shock(watch.promoted(), is_planned=True)


FAULTS: dict[str, Fault] = {
    each.__name__: each
    for each in (crash, forced, frozen, split, rejected, failback, double, planned)
}
"""All of them, by name."""

DECK = (
    *("crash", "crash", "forced", "frozen", "split", "rejected", "failback", "double"),
    *("planned", "planned", "planned"),
)
"""Of which a schedule is dealt: with `failback` more than a quarter are planned."""


def schedule(seed: int, kinds: tuple[str, ...] = DECK) -> Iterator[str]:
    """Kinds of faults, for ever: shuffled decks, so that each kind has its share."""
    chance = random.Random(seed)
    while True:
        deck = list(kinds)
        chance.shuffle(deck)
        yield from deck
