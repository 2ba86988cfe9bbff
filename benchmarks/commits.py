"""What a commit's record costs, and how long it takes to find that runs are fine.

The floor is the business transaction alone: an update and an insert in a database that
syncs each transaction to disk. A commit does the same two statements and keeps its
record. A duplicate finds the record and does neither. The three take turns, one
transaction at a time, since a disk's syncs are never the same for long.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph
from sqlalchemy import Connection, Engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from benchmarks import hasty
from benchmarks.contenders import OURS
from benchmarks.faces import FACES, FaceName, Opened
from benchmarks.figures import Column, Figure, Goal
from benchmarks.session import Session
from langgraph_valkey.commits.commit import commit
from langgraph_valkey.commits.turns import Turn
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.runs.registry import Runs
from langgraph_valkey.sql.engines import Address
from langgraph_valkey.sql.store import SqlStore

BARE = "the transaction alone"
COMMIT, DUPLICATE = Goal(1.6, "floor"), Goal(0.6, "floor")
RECOVERED = Goal(2, "nothing")

TRANSACTIONS, TRANSACTIONS_QUICK = 300, 60
WARM_UP = 20
ROUNDS, ROUNDS_QUICK = 11, 2
ACCOUNTS = 1_000

RUNS, RUNS_QUICK = 1_000, 100
RECOVERIES, RECOVERIES_QUICK = 5, 2
LAG_BOUND_S = 300.0
"""Long enough that no run is settled meanwhile."""

_TABLES = (
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
    "CREATE TABLE payments (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, about TEXT)",
)
_OPEN = text("INSERT INTO accounts VALUES (:id, 1000000)")
_CHARGE = text("UPDATE accounts SET balance = balance - 1 WHERE id = :account")
_NOTE = text("INSERT INTO payments VALUES (:id, :account, :about)")


def measure(session: Session) -> list[Figure]:
    """Both figures, on both databases and both faces."""
    return [_records(session), _recoveries(session)]


def _urls(session: Session, name: str) -> Iterator[tuple[str, str]]:
    """A fresh database of each kind."""
    yield "PostgreSQL", session.servers.postgres(name).url
    yield "SQLite", f"sqlite:///{session.servers.sqlite(name).path}"


def _figure(name: str, title: str, *columns: Column) -> Figure:
    return Figure(name, title, list(columns))


_OURS = Column(OURS, "ours", speaks_valkey=False)
_FLOOR = Column(BARE, "floor", speaks_valkey=False)


# --- a commit and its record -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Business:
    """The two statements of the transaction that this number stands for."""

    number: int

    @property
    def _values(self) -> dict[str, Any]:
        account = self.number % ACCOUNTS
        return {"id": self.number, "account": account, "about": f"payment {self.number}"}

    def blocking(self, connection: Connection) -> dict[str, int]:
        """In a blocking transaction."""
        connection.execute(_CHARGE, self._values)
        connection.execute(_NOTE, self._values)
        return {"payment": self.number}

    async def looping(self, connection: AsyncConnection) -> dict[str, int]:
        """In an async one."""
        await connection.execute(_CHARGE, self._values)
        await connection.execute(_NOTE, self._values)
        return {"payment": self.number}


@dataclass(frozen=True, slots=True)
class _Ways:
    """The three things that are measured, on one face; each gets a number."""

    bare: Callable[[int], Awaitable[Any]]
    commit: Callable[[int], Awaitable[Any]]


def _blocking_ways(engine: Engine, primary: Primary) -> _Ways:
    async def bare(number: int) -> None:
        with engine.begin() as connection:
            _Business(number).blocking(connection)

    return _Ways(bare, lambda number: _committed(primary, number, _Business(number).blocking))


def _async_ways(engine: AsyncEngine, primary: Primary) -> _Ways:
    async def bare(number: int) -> None:
        async with engine.begin() as connection:
            await _Business(number).looping(connection)

    return _Ways(bare, lambda number: _committed(primary, number, _Business(number).looping))


async def _committed(primary: Primary, number: int, fn: Callable[..., Any]) -> Any:
    turn = Turn(f"thread {number % ACCOUNTS}", f"turn {number}", None, "sync", "")
    payload = {"account": number % ACCOUNTS, "amount": 1}
    key = f"order {number}"
    return await commit(primary, turn, "charge", key, payload, fn, "turn", "raise", ())


def _records(session: Session) -> Figure:
    figure = _figure("commits", "A commit with its record, us", _OURS, _FLOOR)
    figure.notes.append(
        "The floor is an UPDATE and an INSERT in one transaction, by SQLAlchemy Core on an "
        "engine that is set up the same way; each transaction is synced to disk."
    )
    for kind, url in _urls(session, "commits"):
        store = SqlStore(url)
        try:
            finish(store.blocking.setup())
            _make_tables(store.engine)
            numbers = itertools.count(1)
            for face in FACES:
                _one_face(session, figure, store, url, f"{kind}, {face}", face, numbers)
        finally:
            session.runner.run(store.aclose())
    return figure


def _make_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in _TABLES:
            connection.execute(text(table))
        connection.execute(_OPEN, [{"id": number} for number in range(ACCOUNTS)])


def _one_face(
    session: Session,
    figure: Figure,
    store: SqlStore,
    url: str,
    name: str,
    face: FaceName,
    numbers: Iterator[int],
) -> None:
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    count = TRANSACTIONS_QUICK if session.quick else TRANSACTIONS
    commits = figure.case(f"commit, {name}", "us", COMMIT)
    duplicates = figure.case(f"duplicate, {name}", "us", DUPLICATE)
    for turn in range(rounds):
        session.progress(f"{figure.name}: {name}, round {turn + 1}/{rounds}")
        with _no_gc():
            if face == "async":
                spent_us = session.runner.run(_async_round(store, url, count, numbers))
            else:
                ways = _blocking_ways(store.engine, store.blocking)
                spent_us = finish(_in_turns(ways, count, numbers))
        bare_us, commit_us, duplicate_us = map(statistics.median, spent_us)
        for case, ours_us in ((commits, commit_us), (duplicates, duplicate_us)):
            case.add(OURS, ours_us)
            case.add(BARE, bare_us)


async def _async_round(
    store: SqlStore, url: str, count: int, numbers: Iterator[int]
) -> list[list[float]]:
    async with _async_engine(url) as engine:
        return await _in_turns(_async_ways(engine, store.loops), count, numbers)


@asynccontextmanager
async def _async_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """One of the same kind as the store's."""
    engine = Address(url).async_engine()
    try:
        yield engine
    finally:
        await engine.dispose()


async def _in_turns(ways: _Ways, count: int, numbers: Iterator[int]) -> list[list[float]]:
    """Microseconds of each transaction alone, each commit, and each duplicate."""
    spent_us: list[list[float]] = [[], [], []]
    for _ in range(WARM_UP + count):
        number = next(numbers)
        # The duplicate comes after its commit, and the transaction alone between them.
        calls = (ways.commit(number), ways.bare(next(numbers)), ways.commit(number))
        for place, call in zip((1, 0, 2), calls, strict=True):
            started = time.perf_counter()
            await call
            spent_us[place].append((time.perf_counter() - started) * 1e6)
    return [each[WARM_UP:] for each in spent_us]


@contextmanager
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# --- runs that are fine ----------------------------------------------------------------


class _State(TypedDict):
    """Of a graph that is as small as can be."""

    text: str


def _recoveries(session: Session) -> Figure:
    count = RUNS_QUICK if session.quick else RUNS
    figure = _figure("recover", f"recover() of {count:,} unsettled runs that are fine, s", _OURS)
    figure.notes.append(
        "Each run is of a thread of its own, has ended, and its process has left: all that is "
        "to be found out is that its last checkpoint is there."
    )
    for face in FACES:
        for kind, url in _urls(session, f"recover_{face}"):
            store = SqlStore(url)
            try:
                finish(store.blocking.setup())
                cluster = session.servers.valkey(cluster=True)
                contender = hasty.ours(
                    OURS, "ours", face, cluster, cluster.url, lag_bound_s=LAG_BOUND_S
                )
                with Opened(contender, session.runner) as who, hasty.quiet():
                    _recover(session, figure, store, who, f"{kind}, {face}", count)
            finally:
                session.runner.run(store.aclose())
    return figure


def _recover(
    session: Session, figure: Figure, store: SqlStore, who: Opened, name: str, count: int
) -> None:
    """Leave runs behind, and look after them again and again: each time they are fine."""
    rounds = RECOVERIES_QUICK if session.quick else RECOVERIES
    session.progress(f"{figure.name}: {name}, {count} runs")
    builder = StateGraph(_State)
    builder.add_node("answer", lambda state: {"text": state["text"] + "!"})
    builder.add_edge(START, "answer")
    graph = builder.compile(checkpointer=who.saver, name="agent")
    case = figure.case(name, "s", RECOVERED)
    with _runs(who, store) as runs:
        for _ in range(count):
            runs.run(graph, {"text": "so"}, thread_id=session.new_thread())
    for turn in range(rounds):
        session.progress(f"{figure.name}: {name}, round {turn + 1}/{rounds}")
        with _runs(who, store) as runs, _no_gc():
            started = time.perf_counter()
            if who.contender.face == "async":
                report = who.run(runs.arecover(graph))
            else:
                report = runs.recover(graph)
            case.add(OURS, time.perf_counter() - started)
        assert len(report.fine) == count, report


@contextmanager
def _runs(who: Opened, store: SqlStore) -> Iterator[Runs]:
    """A process that leaves without waiting."""
    runs = Runs(who.saver, store)
    try:
        yield runs
    finally:
        runs.close(drain_s=0)
