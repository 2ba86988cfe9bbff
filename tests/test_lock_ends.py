"""Locks that are left late, or not entered to the end: told of, and held by nobody after."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest

from langgraph_valkey.errors import LockLost, LockUnavailable, Unreachable
from langgraph_valkey.primary.records import Lease
from langgraph_valkey.testing import MemoryLink
from langgraph_valkey.tiers import locks
from langgraph_valkey.tiers.locks import ClusterLeases, Lock, Way, ways


class Hanging(ClusterLeases):
    """Leases whose next answers, after all was done, come too late for whoever waits.

    Attributes:
        asked: Names of holders, as they asked for a lease.
        hangs: The methods that hang, once each.
        error: What comes instead of an answer on the blocking face.
    """

    def __init__(self, *hangs: str, error: type[BaseException] | None = None) -> None:
        super().__init__(MemoryLink(), "locks")
        self.asked: list[str] = []
        self.hangs = list(hangs)
        self.error = error

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        self.asked.append(holder)
        found = await super().acquire(name, holder, ttl_s)
        await self._hang("acquire")
        return found

    async def release(self, lease: Lease, holder: str) -> None:
        await super().release(lease, holder)
        await self._hang("release")

    async def _hang(self, method: str) -> None:
        if method not in self.hangs:
            return
        self.hangs.remove(method)
        if self.error is not None:
            raise self.error
        await anyio.sleep(60)

    @property
    def faces(self) -> tuple[Way, Way]:
        return ways(self, self)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves does not wait for long."""
    monkeypatch.setattr(locks, "LOCK_LEAVE_S", 0.05)


# --- leaving -----------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
async def test_a_lost_lock_is_told_of_though_giving_it_back_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(LockLost, match="'report'"):
        async with Lock(Hanging("release").faces, "report", 0.01):
            await asyncio.sleep(0.02)
    assert "could not be given back (it took too long)" in caplog.text


@pytest.mark.usefixtures("short")
async def test_giving_back_in_time_may_hang(caplog: pytest.LogCaptureFixture) -> None:
    async with Lock(Hanging("release").faces, "report", 30):
        pass
    assert "could not be given back (it took too long)" in caplog.text


@pytest.mark.usefixtures("short")
async def test_a_body_that_is_cancelled_stays_so_though_giving_it_back_hangs() -> None:
    entered = asyncio.Event()

    async def body() -> None:
        async with Lock(Hanging("release").faces, "report", 0.01):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- entering ----------------------------------------------------------------------------


async def test_who_is_cancelled_while_entering_holds_nothing() -> None:
    leases = Hanging("acquire")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Lock(leases.faces, "report", 3600):
            pytest.fail("it was entered")
    assert len(set(leases.asked)) == 1
    async with Lock(leases.faces, "report", 30) as lock:
        assert lock.token == 2


async def test_a_scope_that_is_cancelled_while_entering_holds_nothing() -> None:
    leases = Hanging("acquire")
    with anyio.move_on_after(0.05) as scope:
        async with Lock(leases.faces, "report", 3600):
            pytest.fail("it was entered")
    assert scope.cancelled_caught
    async with Lock(leases.faces, "report", 30):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, OSError])
def test_who_is_interrupted_while_entering_holds_nothing(error: type[BaseException]) -> None:
    """Whatever the handler of a signal raises."""
    leases = Hanging("acquire", error=error)
    with pytest.raises(error):
        Lock(leases.faces, "report", 3600).__enter__()
    with Lock(leases.faces, "report", 30):
        pass


async def test_who_is_cancelled_while_another_holds_it_takes_nothing_from_him() -> None:
    leases = Hanging()
    async with Lock(leases.faces, "report", 30) as lock:
        leases.hangs.append("acquire")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), Lock(leases.faces, "report", 3600):
                pytest.fail("it was entered")
        await lock.arenew()
        with pytest.raises(LockUnavailable):
            await Lock(leases.faces, "report", 30).__aenter__()


@pytest.mark.usefixtures("short")
async def test_who_is_cancelled_does_not_wait_for_a_store_that_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leases = Hanging("acquire", "acquire")
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Lock(leases.faces, "report", 3600):
            pytest.fail("it was entered")
    assert time.monotonic() - began_s < 5
    assert "ends by itself within 3600 s" in caplog.text


def test_an_outage_while_entering_is_not_asked_again() -> None:
    leases = Hanging("acquire", error=Unreachable)
    with pytest.raises(Unreachable):
        Lock(leases.faces, "report", 30).__enter__()
    assert len(leases.asked) == 1


# --- time --------------------------------------------------------------------------------


def test_time_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read from the clock that counts that, which the usual one does not."""
    suspended_s = 0.0
    clock: Any = time.clock_gettime

    def read(which: int) -> float:
        return float(clock(which)) + (suspended_s if which == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr(time, "clock_gettime", read)
    lock = Lock(Hanging().faces, "report", 30).__enter__()
    lock.check()
    suspended_s = 31.0
    with pytest.raises(LockLost):
        lock.check()
    with pytest.raises(LockLost):
        lock.__exit__(None, None, None)
