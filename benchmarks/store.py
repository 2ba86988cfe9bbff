"""Single calls of the stores, at two sizes, and what each call asks of a server.

Items stand in namespaces of a hundred: what an agent remembers of one user. What searches
and listings take among many has figures of its own (`store_search`, `store_namespaces`), and
so have batches (`store_batch`).

Commands are counted by the server, which counts those of scripts alike: ours sends scripts
alone, and the others none. A pipeline is many commands in one round trip, so round trips are
counted as the server's read events, which for one call after the other are the same.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from benchmarks import store_peers
from benchmarks.faces import FACES, FaceName, Opened
from benchmarks.figures import Case, Figure, Goal, take_turns
from benchmarks.roundtrips import Monitor
from benchmarks.servers import ValkeyStore
from benchmarks.session import Session
from benchmarks.store_faces import Namespace, timed
from benchmarks.store_items import FOUND, SIZE, Batches, fill, key, namespaces, puts
from benchmarks.store_right import Oracle, fits

SIZES = (1_000, 10_000)
EACH = 100
"""Items in a namespace."""
WARM_UP = max(SIZES) // EACH
"""Calls before those that are timed: one in each namespace."""
CHECKED = 10
CALLS, CALLS_QUICK = 200, 30
ROUNDS, ROUNDS_QUICK = 11, 2
BUDGET_S = 0.5
ONE = Goal(1, "nothing")


class _Call(NamedTuple):
    """A call of a store, by a number.

    Attributes:
        op: The same as an operation of a batch.
        make: Makes it.
    """

    op: Callable[[int], Op]
    make: Callable[[Any, int], Coroutine[Any, Any, Any]]


def _calls(spaces: Sequence[Namespace], filling: Sequence[PutOp]) -> dict[str, _Call]:
    """All that are measured: none of them changes what is there."""
    values = {(op.namespace, op.key): op.value or {} for op in filling}
    filtered: dict[str, Any] = {"filter": {"kind": "plan"}, "limit": FOUND}

    def space(number: int) -> Namespace:
        return spaces[7 * number % len(spaces)]

    def item(number: int) -> tuple[Namespace, str]:
        return space(number), key(31 * number % EACH)

    return {
        "get": _Call(
            lambda n: GetOp(*item(n), False),
            lambda store, n: store.get(*item(n)),
        ),
        "put": _Call(
            lambda n: PutOp(*item(n), values[item(n)]),
            lambda store, n: store.put(*item(n), values[item(n)]),
        ),
        "search": _Call(
            lambda n: SearchOp(space(n), limit=FOUND),
            lambda store, n: store.search(space(n), limit=FOUND),
        ),
        "search, one in 8": _Call(
            lambda n: SearchOp(space(n), **filtered),
            lambda store, n: store.search(space(n), **filtered),
        ),
        "list_namespaces": _Call(
            lambda _: ListNamespacesOp(),
            lambda store, _: store.namespaces(),
        ),
    }


def measure(session: Session) -> list[Figure]:
    """Both figures, on both faces, at all sizes."""
    spent = Figure("store", "A call of a store, p50, us")
    spent.notes += [
        f"Items stand in namespaces of {EACH}, each of which is searched by itself.",
        "InMemoryStore is a reference, not a peer: it stores nothing.",
    ]
    trips = Figure("store-roundtrips", "Round trips and commands of a store's call, steady state")
    trips.notes.append(
        "A search or a listing of ours asks all buckets of the store for what is new, side by "
        "side. What scripts run is counted without their INFO, by which they name the primary."
    )
    for face in FACES:
        for size in SIZES:
            _one_size(session, spent, trips, face, size)
    return [spent, trips]


def _one_size(session: Session, spent: Figure, trips: Figure, face: FaceName, size: int) -> None:
    spaces = namespaces(size // EACH)
    filling = puts(spaces, EACH, session.seed)
    oracle = Oracle(filling)
    ours = store_peers.ours(session.servers, face, session.new_thread())
    lined_up = [ours, *store_peers.line_up(session.servers, face)]
    with session.opened(lined_up, spent) as opened:
        for who in opened:
            session.progress(f"{spent.name}: {face}, storing {size:,}, {who.contender.name}")
            who.run(fill(who.saver, filling))
        for name, call in _calls(spaces, filling).items():
            case = spent.case(f"{name}, {size:,} items, {face}", "us")
            asked = [([op], oracle.judgements([op])) for op in map(call.op, range(CHECKED))]
            fit = [who for who in opened if fits(who, case, asked)]
            _time(session, spent, case, fit, call)
            if size == min(SIZES):
                _count(session, trips, f"{name}, {face}", fit, call.make)
        if size == min(SIZES):
            _count_batches(session, trips, face, opened[0], spaces)


def _time(session: Session, figure: Figure, case: Case, who: Sequence[Opened], call: _Call) -> None:
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    count = CALLS_QUICK if session.quick else CALLS

    def one(who: Opened, turn: int) -> None:
        session.progress(f"{figure.name}: {case.name}, round {turn + 1}/{rounds}")
        first = turn * count
        who.run(timed(lambda n: call.make(who.saver, n), WARM_UP, BUDGET_S))
        spent_s = who.run(timed(lambda n: call.make(who.saver, first + n), count, BUDGET_S))
        case.add(who.contender.name, statistics.median(spent_s) * 1e6)

    take_turns(who, rounds, one)


# --- what it asks --------------------------------------------------------------------------


def _count(
    session: Session,
    figure: Figure,
    name: str,
    everyone: Sequence[Opened],
    make: Callable[[Any, int], Coroutine[Any, Any, Any]],
    goal: Goal | None = ONE,
) -> None:
    for who in everyone:
        server, column = who.contender.store, who.contender.name
        if not isinstance(server, ValkeyStore):
            continue
        session.progress(f"{figure.name}: {name}, {column}")
        figure.take_part(who)
        calls = CALLS_QUICK if session.quick else CALLS
        trips, sent, inside = _asked(who, server, calls, make)
        figure.case(f"{name}: round trips", "", goal).add(column, trips)
        figure.case(f"{name}: commands sent", "").add(column, sent)
        if who.contender.role == "ours":
            figure.case(f"{name}: commands run by scripts", "").add(column, inside)


def _asked(
    who: Opened,
    server: ValkeyStore,
    calls: int,
    make: Callable[[Any, int], Coroutine[Any, Any, Any]],
) -> tuple[float, float, float]:
    """Round trips, commands sent, and commands that scripts ran, of a call on average.

    Calls during which our monitor asked something of its own are left out.
    """
    found = []
    with Monitor(server) as monitor:
        for number in range(calls):
            monitor.until_marker()
            before = _seen(server)
            who.run(make(who.saver, number))
            after = _seen(server)
            _, aside = monitor.until_marker()
            if not aside:
                # The second look is itself a read.
                found.append((after[2] - before[2] - 1, after[0] - before[0], after[1] - before[1]))
    trips, sent, inside = (statistics.mean(counts) for counts in zip(*found, strict=True))
    return trips, sent, inside


def _count_batches(
    session: Session, figure: Figure, face: FaceName, ours: Opened, spaces: Sequence[Namespace]
) -> None:
    """Ours alone: others send as many commands as there are operations, or more.

    Without a goal: a server may take two reads for what was sent at once, if it is long.
    """
    for name, finds in ((f"batch of {SIZE}", False), (f"finding batch of {SIZE}", True)):
        batches = Batches(spaces, EACH, session.seed, finds=finds)

        def make(store: Any, number: int, batches: Batches = batches) -> Coroutine[Any, Any, Any]:
            return store.batch(store.prepared(batches.ops(number + 1)))  # type: ignore[no-any-return]

        _count(session, figure, f"{name}, {face}", [ours], make, None)


def _seen(server: ValkeyStore) -> tuple[int, int, int]:
    """Commands that the server was sent, those that scripts ran, and its read events."""
    text = server.command("INFO", "stats", "commandstats").decode()
    reads = int(re.findall(r"^total_reads_processed:(\d+)", text, re.M)[0])
    found = re.findall(r"^cmdstat_(\S+?):calls=(\d+)", text, re.M)
    counts = {name.lower(): int(count) for name, count in found}
    # A look at the server, as this one, is one of those; scripts look, too.
    counts.pop("info", None)
    scripts = sum(count for name, count in counts.items() if name.startswith("eval"))
    every = sum(counts.values())
    return (scripts, every - scripts, reads) if scripts else (every, 0, reads)
