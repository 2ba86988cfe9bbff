"""Listing namespaces, where there are many of them.

Ours answers from the names that its process has at hand, after asking all buckets for what
is new; that round trip is part of what is measured. The first listing of a process has a row
of its own, and so has a listing after another process has made a namespace.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langgraph.store.base import ListNamespacesOp, MatchCondition, PutOp

from benchmarks import store_peers
from benchmarks.faces import FACES, FaceName, Opened
from benchmarks.figures import Figure, Goal, take_turns
from benchmarks.session import Session
from benchmarks.store_faces import Namespace, timed
from benchmarks.store_items import LISTED, fill, key
from benchmarks.store_right import Oracle, fits

GOAL = Goal(20, "nothing")
SPACES, SPACES_QUICK = 10_000, 2_000
WARM_UP = 5
LISTINGS, LISTINGS_QUICK = 30, 10
ROUNDS, ROUNDS_QUICK = 11, 2
BUDGET_S = 1.0

ASKED: dict[str, dict[str, Any]] = {
    "the first 100": {},
    "all": {"limit": 100_000},
    "beneath a prefix": {"prefix": ("org3",)},
    "by the end": {"suffix": ("notes",)},
    "by the end, all": {"suffix": ("notes",), "limit": 100_000},
    "any label, then one": {"prefix": ("*", "user77")},
    "cut at depth 1": {"max_depth": 1},
    "page 16": {"offset": 15 * LISTED},
}


def spaces(count: int) -> list[Namespace]:
    """Namespaces of organisations, users in them, and what is kept of each."""
    kept = itertools.cycle(("memories", "notes"))
    return [(f"org{number % 12}", f"user{number // 2}", next(kept)) for number in range(count)]


def measure(session: Session) -> list[Figure]:
    """Both faces."""
    count = SPACES_QUICK if session.quick else SPACES
    figure = Figure("store-namespaces", f"A listing of {count:,} namespaces, p50, ms")
    figure.notes += [
        f"Each has one item; {LISTED} are asked for where nothing else is said.",
        "Ours asks the server what is new, in one round trip, and then answers in its process.",
        "InMemoryStore is a reference, not a peer: it stores nothing.",
    ]
    filling = [PutOp(space, key(0), {"text": "likes figs"}) for space in spaces(count)]
    for face in FACES:
        _one_face(session, figure, face, filling)
    return [figure]


def _one_face(session: Session, figure: Figure, face: FaceName, filling: Sequence[PutOp]) -> None:
    prefix = session.new_thread()
    ours = store_peers.ours(session.servers, face, prefix)
    lined_up = [ours, *store_peers.line_up(session.servers, face)]
    oracle = Oracle(filling)
    with session.opened(lined_up, figure) as opened:
        for who in opened:
            session.progress(f"{figure.name}: {face}, storing, {who.contender.name}")
            who.run(fill(who.saver, filling))
        for name, how in ASKED.items():
            case = figure.case(f"{name}, {face}", "ms", GOAL)
            ops = [_op(**how)]
            fit = [who for who in opened if fits(who, case, [(ops, oracle.judgements(ops))])]
            _time(session, figure, case.name, fit, how)
        _changed(session, figure, face, prefix, opened[0])
    _first(session, figure, face, prefix)


def _op(
    prefix: Namespace | None = None, suffix: Namespace | None = None, **how: Any
) -> ListNamespacesOp:
    """The operation of a call of `list_namespaces`."""
    conditions = [MatchCondition("prefix", prefix)] if prefix else []
    conditions += [MatchCondition("suffix", suffix)] if suffix else []
    return ListNamespacesOp(match_conditions=tuple(conditions), **how)


# --- what takes how long -----------------------------------------------------------------


def _sizes(session: Session) -> tuple[int, int]:
    """Rounds, and listings in each."""
    if session.quick:
        return ROUNDS_QUICK, LISTINGS_QUICK
    return ROUNDS, LISTINGS


def _time(
    session: Session, figure: Figure, name: str, who: Sequence[Opened], how: dict[str, Any]
) -> None:
    rounds, count = _sizes(session)
    case = figure.case(name, "ms")

    def one(who: Opened, turn: int) -> None:
        session.progress(f"{figure.name}: {name}, round {turn + 1}/{rounds}")
        listing = _listing(who, how)
        who.run(timed(listing, WARM_UP, BUDGET_S / 10))
        spent_s = who.run(timed(listing, count, BUDGET_S))
        case.add(who.contender.name, statistics.median(spent_s) * 1e3)

    take_turns(who, rounds, one)


def _listing(who: Opened, how: dict[str, Any]) -> Callable[[int], Awaitable[Any]]:
    return lambda _: who.saver.namespaces(**how)


def _changed(session: Session, figure: Figure, face: FaceName, prefix: str, ours: Opened) -> None:
    """After another process has made a namespace."""
    case = figure.case(f"the first 100, changed elsewhere, {face}", "ms", GOAL)
    rounds, count = _sizes(session)
    numbers = itertools.count()
    elsewhere = store_peers.ours(session.servers, face, prefix)
    with session.opened([elsewhere], figure) as [other]:

        async def change(_: int) -> None:
            await other.saver.put(("org3", f"new{next(numbers)}"), key(0), {"text": "likes figs"})

        for _ in range(rounds):
            spent_s = ours.run(timed(_listing(ours, {}), count, BUDGET_S, change))
            case.add(ours.contender.name, statistics.median(spent_s) * 1e3)


def _first(session: Session, figure: Figure, face: FaceName, prefix: str) -> None:
    """The first one of a process that is connected, but has read nothing yet."""
    case = figure.case(f"the first of a process, {face}", "ms", GOAL)
    for _ in range(_sizes(session)[0]):
        with session.opened([store_peers.ours(session.servers, face, prefix)], figure) as [who]:
            who.run(who.saver.get(("org0",), key(0)))
            [spent_s] = who.run(timed(_listing(who, {}), 1, BUDGET_S))
            case.add(who.contender.name, spent_s * 1e3)
