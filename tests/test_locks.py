"""Locks: one holder at a time, tokens that only rise, and nobody locked out for long."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from langgraph_valkey.errors import (
    LockLost,
    LockUnavailable,
)
from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.settings import Settings
from langgraph_valkey.tiers.locks import ClusterLeases, Lock, Way, ways
from tests.failover_ground import new_prefix

Faces = tuple[Way, Way]


@pytest.fixture(params=["cluster", "primary"])
def faces(request: pytest.FixtureRequest, valkey: LocalValkey, tmp_path: Path) -> Iterator[Faces]:
    """Where leases are kept: a server, and a store."""
    if request.param == "primary":
        store = open_store(f"sqlite:///{tmp_path}/locks.db")
        finish(store.blocking.setup())
        yield ways(store.blocking, store.loops)
        store.close()
        return
    settings = Settings.from_url(valkey.url)
    blocking = BlockingLink(settings)
    loops = LoopLink(settings, blocking)
    prefix = new_prefix()
    yield ways(ClusterLeases(blocking, prefix), ClusterLeases(loops, prefix))
    loops.close()
    blocking.close()


# --- one at a time ---------------------------------------------------------------------


def test_a_lock_is_held_by_one(faces: Faces) -> None:
    with Lock(faces, "report", 30) as lock:
        first = lock.token
        lock.check()
        lock.renew()
        with pytest.raises(LockUnavailable, match="'report'") as raised:
            Lock(faces, "report", 30).__enter__()
        assert raised.value.name == "report"
        with Lock(faces, "another", 30):
            pass
    with Lock(faces, "report", 30) as lock:
        assert lock.token > first


async def test_both_faces_hold_the_same_lock(faces: Faces) -> None:
    async with Lock(faces, "report", 30) as lock:
        await lock.arenew()
        with pytest.raises(LockUnavailable):
            await asyncio.to_thread(Lock(faces, "report", 30).__enter__)
        first = lock.token
    with Lock(faces, "report", 30) as lock:
        assert lock.token > first
        with pytest.raises(LockUnavailable):
            await Lock(faces, "report", 30).__aenter__()


def test_twenty_threads_take_turns(faces: Faces) -> None:
    inside, most, tokens = 0, 0, []

    def work(number: int) -> None:
        nonlocal inside, most
        for _ in range(3):
            with Lock(faces, "counter", 30, wait_s=60) as lock:
                inside += 1
                most = max(most, inside)
                tokens.append(lock.token)
                time.sleep(random.Random(number).uniform(0, 0.002))
                inside -= 1

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(20)))
    assert most == 1
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 60


async def test_twenty_tasks_take_turns(faces: Faces) -> None:
    inside, tokens = 0, []

    async def work() -> None:
        nonlocal inside
        async with Lock(faces, "counter", 30, wait_s=60) as lock:
            inside += 1
            assert inside == 1
            tokens.append(lock.token)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("name", ["{", "}", "a}b{c", "%7D", "*[x]?", "\n\0", "ä" * 500, "\ud800"])
def test_a_name_may_hold_any_character(faces: Faces, name: str) -> None:
    with Lock(faces, name, 30), pytest.raises(LockUnavailable):
        Lock(faces, name, 30).__enter__()


def test_waiting_ends_when_the_lock_is_given_back(faces: Faces) -> None:
    holding, waited_s = threading.Event(), 0.0

    def wait() -> None:
        nonlocal waited_s
        holding.wait(10)
        began_s = time.monotonic()
        with Lock(faces, "report", 30, wait_s=30):
            waited_s = time.monotonic() - began_s

    waiter = threading.Thread(target=wait)
    waiter.start()
    with Lock(faces, "report", 30):
        holding.set()
        time.sleep(0.3)
    waiter.join(30)
    assert 0.2 < waited_s < 10


# --- fencing ---------------------------------------------------------------------------


class Resource:
    """A row that refuses whoever comes with a lower token than it has seen."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("CREATE TABLE report (text TEXT, token INTEGER)")
        self._database.execute("INSERT INTO report VALUES ('', 0)")

    def write(self, text: str, token: int) -> bool:
        put = "UPDATE report SET text = ?, token = ? WHERE token <= ?"
        return self._database.execute(put, (text, token, token)).rowcount == 1

    def read(self) -> str:
        return str(self._database.execute("SELECT text FROM report").fetchone()[0])

    def close(self) -> None:
        self._database.close()


def test_a_holder_that_was_paused_is_fenced_off(faces: Faces, tmp_path: Path) -> None:
    resource = Resource(tmp_path / "resource.db")
    paused = Lock(faces, "report", 0.2).__enter__()
    assert resource.write("first", paused.token)
    with Lock(faces, "report", 30, wait_s=10) as second:  # The first one's time runs out.
        assert second.token > paused.token
        assert resource.write("second", second.token)
        assert not resource.write("late", paused.token)
        with pytest.raises(LockLost, match="'report'"):
            paused.check()
        with pytest.raises(LockLost):
            paused.renew()
        with pytest.raises(LockLost):  # Even if its body knew nothing of it.
            paused.__exit__(None, None, None)
        with pytest.raises(LockUnavailable):  # The second one's is as it was.
            Lock(faces, "report", 30).__enter__()
    assert resource.read() == "second"
    resource.close()


def test_a_clock_that_stood_still_does_not_renew_what_another_one_holds(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder's own clock is only the first look: what counts is what the store says."""
    paused = Lock(faces, "report", 0.2).__enter__()
    with Lock(faces, "report", 30, wait_s=10):
        monkeypatch.setattr(paused, "_until_s", float("inf"))
        paused.check()
        with pytest.raises(LockLost):
            paused.renew()
    with pytest.raises(LockLost):  # Also when nobody holds it any more.
        paused.check()


def test_a_lease_that_ran_out_is_not_renewed_though_nobody_took_it(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Lock(faces, "report", 0.05).__enter__()
    time.sleep(0.1)
    monkeypatch.setattr(late, "_until_s", float("inf"))
    with pytest.raises(LockLost):
        late.renew()


def test_renewing_puts_the_end_off(faces: Faces) -> None:
    with Lock(faces, "report", 0.6) as lock:
        for _ in range(4):
            time.sleep(0.25)
            lock.renew()
            with pytest.raises(LockUnavailable):
                Lock(faces, "report", 30).__enter__()


def test_tokens_rise_over_release_and_expiry(faces: Faces) -> None:
    tokens = []
    for ttl_s in (30, 0.05, 30, 0.05, 30):
        lock = Lock(faces, "report", ttl_s, wait_s=10).__enter__()
        tokens.append(lock.token)
        if ttl_s == 30:
            lock.__exit__(None, None, None)
    assert tokens == sorted(set(tokens))


HOLDER = """
import sys
from langgraph_valkey.link import finish
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.tiers.locks import ClusterLeases, Lock, ways
from langgraph_valkey.settings import Settings

leases = ClusterLeases(BlockingLink(Settings.from_url(sys.argv[1])), sys.argv[2])
with Lock(ways(leases, leases), "report", 1.0) as lock:
    print(lock.token, flush=True)
    sys.stdin.read()
"""


def test_a_holder_that_is_killed_locks_nobody_out(valkey: LocalValkey) -> None:
    prefix = new_prefix()
    command = [sys.executable, "-c", HOLDER, valkey.url, prefix]
    link = BlockingLink(Settings.from_url(valkey.url))
    leases = ClusterLeases(link, prefix)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        token = int(holder.stdout.readline())
        holder.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        with pytest.raises(LockUnavailable):
            Lock(ways(leases, leases), "report", 30).__enter__()
        with Lock(ways(leases, leases), "report", 30, wait_s=30) as lock:
            assert lock.token > token
            assert time.monotonic() - killed_s < 5
    link.close()


# --- cancelling -------------------------------------------------------------------------


async def test_a_body_that_is_cancelled_gives_the_lock_back(faces: Faces) -> None:
    entered = asyncio.Event()

    async def body() -> None:
        async with Lock(faces, "report", 30):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with Lock(faces, "report", 30):
        pass


async def test_a_cancelled_scope_gives_the_lock_back(faces: Faces) -> None:
    with anyio.CancelScope() as scope:
        async with Lock(faces, "report", 30):
            scope.cancel()
            await anyio.sleep(60)
    async with Lock(faces, "report", 30):
        pass
