"""Each key once, whatever breaks: answers, connections, processes, servers."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from langgraph_valkey.errors import OutcomeUnknown, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import RunEnd
from langgraph_valkey.sql import database as sql_database
from langgraph_valkey.sql.store import SqlStore
from tests.postgres_wire import PostgresWire
from tests.primary_ground import (
    FACES,
    Postgres,
    SqlGround,
    asked,
    gathered,
    new_name,
    new_postgres,
    new_run,
)

LOST = 20
KILLS = 10
COMMITS = 50
"""At least so many."""
AGAIN = 8
"""How many keys a worker does again."""


@pytest.fixture
def wire(postgres: Postgres) -> Iterator[PostgresWire]:
    """A wire to the server that loses what it is told to."""
    with PostgresWire(postgres.socket) as made:
        yield made


@pytest.fixture(params=FACES)
async def ground(
    request: pytest.FixtureRequest, wire: PostgresWire, threads: ThreadPoolExecutor
) -> AsyncIterator[SqlGround]:
    """PostgreSQL behind the wire, on each face."""
    schema = new_name()
    store = SqlStore(wire.url, schema=schema, pool_size=4)
    try:
        finish(store.blocking.setup())
        yield SqlGround(store, request.param, threads, schema=schema)
    finally:
        await store.aclose()


# --- answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["lose_answers", "lose_requests"])
async def test_a_commit_whose_answer_is_lost_is_done_once(
    ground: SqlGround, wire: PostgresWire, plan: str
) -> None:
    for n in range(LOST):
        setattr(wire, plan, 1)
        receipt = await ground.call("commit", asked(str(n)), ground.adding(1, n))
        assert receipt.result == n
        assert receipt.replayed == (plan == "lose_answers")
    assert wire.lost == LOST
    assert await ground.balance() == LOST


async def test_answers_lost_again_and_again_are_said_to_be_unknown(
    ground: SqlGround, wire: PostgresWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_database, "TRIES_MOST", 3)
    wire.lose_requests = 1000
    with pytest.raises(OutcomeUnknown, match=r"3 tries.*same key"):
        await ground.call("commit", asked(), ground.adding(1))
    wire.lose_requests = 0
    assert not (await ground.call("commit", asked(), ground.adding(1))).replayed
    assert await ground.balance() == 1


async def test_what_else_lost_its_answer_knows_its_own_work(
    ground: SqlGround, wire: PostgresWire
) -> None:
    wire.lose_answers = 1
    began = await ground.call("start_run", new_run())
    assert (began.is_new, began.run.number) == (True, 1)
    wire.lose_answers = 1
    taken = await ground.call("claim_run", began.run.fence, "other")
    assert (taken.attempt, taken.owner) == (2, "other")
    wire.lose_answers = 1
    assert await ground.call("end_run", taken.fence, RunEnd("failed", "", 0))
    wire.lose_answers = 1
    lease = await ground.call("acquire", "report", "me", 100.0)
    assert lease.token == 1
    wire.lose_answers = 1
    assert await ground.call("renew", lease, "me")
    assert wire.lost == 5


# --- processes -----------------------------------------------------------------------------


class Victim:
    """The process whose workers are killed."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.primary_victim", url],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, first: int, end: int, killed_after_s: float | None = None) -> int:
        """Have a worker commit keys; the status with which it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{first} {end} {killed_after_s or 'never'}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=20)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path
) -> Iterator[tuple[SqlStore, str]]:
    """A store with a balance, and its URL."""
    url = f"sqlite:///{tmp_path}/primary.db"
    if request.param == "postgresql":
        url = postgres.url_of_new_schema()
    made = SqlStore(url)
    finish(made.blocking.setup())
    with made.engine.begin() as connection:
        connection.execute(text("CREATE TABLE bank (amount BIGINT)"))
        connection.execute(text("CREATE TABLE added (number BIGINT)"))
        connection.execute(text("INSERT INTO bank VALUES (0)"))
    yield made, url
    made.close()


def test_killed_anywhere_each_key_is_committed_once(store: tuple[SqlStore, str]) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw, victim, kills, end = random.Random(seed), Victim(store[1]), 0, 0
    patience = 1.0
    try:
        while kills < KILLS or end < COMMITS:
            status = victim.run(max(0, end - AGAIN), end, draw.uniform(0.02, 0.08) * patience)
            kills += status == signal.SIGKILL
            before, end = end, max(numbers(store[0]), default=-1) + 1
            if end == before:
                patience *= 1.5  # A slow machine: it was killed before it came to anything new.
        assert victim.run(0, end + AGAIN) == 0
    finally:
        victim.close()
    with store[0].engine.connect() as connection:
        balance = connection.execute(text("SELECT amount FROM bank")).scalar_one()
    assert sorted(numbers(store[0])) == list(range(end + AGAIN))
    assert balance == sum(range(end + AGAIN))


def numbers(store: SqlStore) -> list[int]:
    """What was added."""
    with store.engine.connect() as connection:
        return list(connection.execute(text("SELECT number FROM added")).scalars())


# --- servers -------------------------------------------------------------------------------


@pytest.mark.parametrize("face", FACES)
async def test_a_database_that_is_down_is_unreachable_until_it_is_back(
    face: str, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_database, "TRY_DEADLINE_S", 0.5)
    with new_postgres() as server:
        store = SqlStore(server.url)
        try:
            finish(store.blocking.setup())
            ground = SqlGround(store, face, threads)
            await gathered([ground.call("receipt", asked().key) for _ in range(8)])
            with pytest.raises(OutcomeUnknown):  # It may have gone while it committed.
                await ground.call("commit", asked(), ground.adding(1, meanwhile=server.stop))
            begun_s = time.monotonic()
            for method, *given in (("commit", asked(), ground.adding(1)), ("setup",)):
                with pytest.raises(Unreachable, match=r"nothing was done: it does not answer"):
                    await ground.call(method, *given)
            assert time.monotonic() - begun_s < 5
            server.start()
            assert not (await ground.call("commit", asked(), ground.adding(1))).replayed
            store.engine.dispose()  # The test's own connections broke too.
            assert await ground.balance() == 1
        finally:
            await store.aclose()
