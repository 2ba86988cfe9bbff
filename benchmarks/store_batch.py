"""A batch of mixed operations over the floor: the same values, one round trip for each slot.

Everyone is given the same batches one after the other, and so has the same items at each of
them. Before anything is timed, what each one answers is held against InMemoryStore; who
answers something else is shown as failed, with what it did.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import store_peers
from benchmarks.faces import FACES, FaceName, Opened
from benchmarks.figures import Case, Figure, Goal, take_turns
from benchmarks.servers import ValkeyStore
from benchmarks.session import Session
from benchmarks.store_faces import Namespace, timed
from benchmarks.store_floor import PIPELINE, SCRIPTED, Floor, rulers
from benchmarks.store_items import (
    GETS,
    LISTINGS,
    PASSING,
    SEARCHES,
    SIZE,
    UPDATES,
    Batches,
    fill,
    namespaces,
    puts,
)
from benchmarks.store_right import Oracle, fits
from langgraph_valkey.settings import Settings

GOAL = Goal(1.5, "floor")
SPACES = 16
CHECKED = 3
"""Batches whose answers are looked at."""
WARM_UP = 10
BATCHES, BATCHES_QUICK = 100, 20
ROUNDS, ROUNDS_QUICK = 11, 2
BUDGET_S = 1.0


@dataclass(frozen=True, slots=True)
class _Kind:
    """A sort of batches.

    Attributes:
        name: What they are like.
        spaces: The namespaces that they are about.
        each: Items in each of these.
        finds: Whether they search and list, too.
    """

    name: str
    spaces: Sequence[Namespace]
    each: int
    finds: bool = False


KINDS = (
    _Kind("one namespace", namespaces(1), 1_000),
    _Kind(f"{SPACES} namespaces", namespaces(SPACES), 100),
    _Kind(f"{SPACES} namespaces, finding", namespaces(SPACES), 100, finds=True),
)


def measure(session: Session) -> list[Figure]:
    """Both faces, all sorts of batches."""
    figure = Figure("store-batch", f"A batch of {SIZE} mixed operations, us")
    figure.notes += [
        f"A batch reads {GETS} items, writes {UPDATES} anew, stores {PASSING} new ones and deletes "
        f"{PASSING}; a finding one makes {SEARCHES} filtered searches and {LISTINGS} listing in "
        "place of as many reads.",
        "The floor serializes, sends, fetches and deserializes the same values in one round trip, "
        "with one MGET, one MSET and one UNLINK for each slot, and knows what is to be found; "
        f"{PIPELINE!r} does it with as many commands as there are operations, {SCRIPTED!r} as a "
        "script that also keeps an index of what is there: the least that a store has to do.",
        "What goes to which slot is sorted out for these beforehand, and in a finding batch they "
        "ask no slot in which nothing is found, and nothing before they write; a store asks all.",
        "InMemoryStore is a reference, not a peer: it stores nothing.",
    ]
    for face in FACES:
        for kind in KINDS:
            _one_case(session, figure, face, kind)
    return [figure]


def _one_case(session: Session, figure: Figure, face: FaceName, kind: _Kind) -> None:
    case = figure.case(f"{kind.name}, {face}", "us", GOAL)
    ours = store_peers.ours(session.servers, face, session.new_thread())
    assert isinstance(ours.store, ValkeyStore)
    ruled = rulers(face, ours.store, session.new_thread(), Settings().store_buckets)
    lined_up = [ours, *ruled, *store_peers.line_up(session.servers, face)]
    batches = Batches(kind.spaces, kind.each, session.seed, finds=kind.finds)
    filling = puts(kind.spaces, kind.each, session.seed)
    oracle = Oracle(filling)
    asked = [(ops, oracle.judgements(ops)) for ops in map(batches.ops, range(1, CHECKED + 1))]
    with session.opened(lined_up, figure) as opened:
        fit = []
        for who in opened:
            session.progress(f"{figure.name}: {case.name}, storing, {who.contender.name}")
            who.run(_fill(who.saver, filling, kind.spaces))
            if fits(who, case, asked):
                fit.append(who)
        _time(session, figure, case, fit, batches)


async def _fill(store: Any, filling: Any, spaces: Sequence[Namespace]) -> None:
    if isinstance(store, Floor):
        await store.fill(filling, spaces)
    else:
        await fill(store, filling)


def _time(
    session: Session, figure: Figure, case: Case, fit: Sequence[Opened], batches: Batches
) -> None:
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    count = WARM_UP + (BATCHES_QUICK if session.quick else BATCHES)

    def one(who: Opened, turn: int) -> None:
        name = who.contender.name
        session.progress(f"{figure.name}: {case.name}, round {turn + 1}/{rounds}, {name}")
        first = CHECKED + 1 + turn * count
        ready = [who.saver.prepared(batches.ops(first + number)) for number in range(count)]
        spent_s = who.run(timed(lambda number: who.saver.batch(ready[number]), count, BUDGET_S))
        case.add(name, statistics.median(spent_s[len(spent_s) * WARM_UP // count :]) * 1e6)

    take_turns(fit, rounds, one)
