"""Outages: an error in bounded time, never None or an empty list; then all goes on as before."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey import limits
from langgraph_valkey.errors import OutcomeUnknown, StoreFull, Unreachable, WriteRejected
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.local.node import free_ports
from langgraph_valkey.local.proxy import RejectingProxy
from tests.every_call import (
    LAST,
    MARK,
    assert_silent,
    every,
    fill,
    outcomes,
    put_next,
    reads,
    writes,
)
from tests.faces import FACES, Face, Twin, config, metadata, open_face
from tests.raw_server import raw_server

FAST: dict[str, Any] = {
    "request_timeout_ms": 250,
    "connection_timeout_ms": 250,
    "read_deadline_s": 0.3,
    "unknown_retry_deadline_s": 0.3,
    "reject_deadline_s": 0.5,
}
BOUND_S = 5.0
"""Far above the deadlines, since the machine may be busy, and far below forever."""

OUTAGE = (Unreachable, WriteRejected, OutcomeUnknown)


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server() -> Iterator[LocalValkey]:
    with LocalValkey() as started:
        yield started


@pytest.fixture
def proxy(server: LocalValkey) -> Iterator[RejectingProxy]:
    with RejectingProxy(server) as started:
        yield started


@pytest.fixture
async def face(kind: str, proxy: RejectingProxy) -> AsyncIterator[Face]:
    async with open_face(kind, proxy.url, key_prefix="lgv", **FAST) as opened:
        yield opened


async def until(done: Callable[[], Any], bound_s: float = 20.0) -> None:
    deadline = time.monotonic() + bound_s
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def answered(call: Callable[[], Awaitable[Any]], bound_s: float = 20.0) -> Any:
    """Call until the server answers."""
    deadline = time.monotonic() + bound_s
    while True:
        try:
            return await call()
        except OUTAGE:
            assert time.monotonic() < deadline


WALKS = ("list all threads", "delete_for_runs")
"""What looks at every thread."""


def assert_outage(found: dict[str, tuple[Any, float]], count: int, log: str) -> None:
    assert len(found) == count
    for name, (result, seconds) in found.items():
        assert isinstance(result, OUTAGE), name
        assert seconds < BOUND_S, name
    assert_silent([error for error, _ in found.values()], log)


@contextmanager
def broken(server: LocalValkey, fault: str) -> Iterator[None]:
    """A server that does not answer for a while; it loses nothing."""
    pid = server.pid
    assert pid is not None
    if fault == "frozen":
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
        return
    os.kill(pid, signal.SIGKILL if fault == "killed" else signal.SIGTERM)
    deadline = time.monotonic() + 20
    while server.pid is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield
    finally:
        server.restart()


@pytest.mark.parametrize("fault", ["stopped", "killed", "frozen"])
async def test_every_method_raises_while_no_server_answers(
    kind: str, fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with LocalValkey(tmp_path) as server:
        async with open_face(kind, server.url, **FAST) as face:
            twin = await fill(face)
            await twin.check()
            calls = {name: c for name, c in every(face, twin).items() if name not in WALKS}
            with broken(server, fault):
                found = await outcomes(calls)
            assert_outage(found, 12, caplog.text)
            await answered(lambda: face.aget_tuple(config("t")))
            if fault == "frozen":
                # What was sent may have been applied since, or not; the thread is whole.
                await face.listed(config("t"))
                await face.adelete_thread("t")
                assert await face.aget_tuple(config("t")) is None
            else:
                await twin.check()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_every_walk_over_all_threads_raises_while_no_server_answers(
    kind: str, fault: str, tmp_path: Path
) -> None:
    with LocalValkey(tmp_path) as server:
        async with open_face(kind, server.url, **FAST) as face:
            twin = await fill(face)
            assert len(await face.listed(None)) == LAST
            calls = {name: c for name, c in every(face, twin).items() if name in WALKS}
            with broken(server, fault):
                walks = asyncio.ensure_future(outcomes(calls))
                await asyncio.wait({walks}, timeout=BOUND_S)
                in_time = walks.done()
            found = await walks
            assert in_time, "a walk waits for the server without a deadline"
            assert_outage(found, 2, "")


async def test_every_method_raises_where_there_never_was_a_server(
    kind: str, valkey: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_face(kind, valkey.url) as face:
        twin = await fill(face)
    (port,) = free_ports(1)
    async with open_face(kind, f"valkey://127.0.0.1:{port}", **FAST) as face:
        assert_outage(await outcomes(every(face, twin)), 14, caplog.text)


@pytest.mark.parametrize("criteria", [{}, {"filter": {"source": "loop"}}], ids=["all", "filtered"])
async def test_a_list_that_is_cut_off_does_not_end_as_if_it_were_whole(
    kind: str, criteria: Any, server: LocalValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIST_PAGE", 1)
    monkeypatch.setattr(limits, "WALK_PAGE", 1)
    async with open_face(kind, server.url, **FAST) as face:
        await fill(face)
        walk = face.alist(config("t"), **criteria)
        assert await anext(walk)
        server.kill()
        with pytest.raises(Unreachable):
            await anext(walk)


def refused_times(proxy: RejectingProxy, count: int) -> bool:
    return proxy.rejected >= count


# --- refused writes -----------------------------------------------------------


async def test_reads_that_put_off_expiry_go_on_while_writes_are_refused(
    kind: str, proxy: RejectingProxy
) -> None:
    options = {**FAST, "reject_deadline_s": 60.0, "ttl_s": 900.0, "refresh_ttl_on_read": True}
    async with open_face(kind, proxy.url, **options) as opened:
        await fill(opened)
        proxy.reject()
        found = await asyncio.wait_for(opened.aget_tuple(config("t")), BOUND_S)
        assert found is not None
        assert proxy.rejected == 1, "it was tried again"


async def test_refused_writes_end_rejected_and_leave_nothing(
    proxy: RejectingProxy, server: LocalValkey, face: Face, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    twin = await fill(face)
    with raw_server(server.url) as raw:
        before = raw.content("lgv")
        proxy.reject()
        calls = writes(face, twin)
        refused = asyncio.ensure_future(outcomes(calls))
        await until(lambda: proxy.rejected)
        rounds = 0
        while not refused.done():  # Reads go on meanwhile, and see nothing of it.
            await twin.check()
            for name, (result, _) in (await outcomes(reads(face))).items():
                assert result, name
            rounds += 1
        found = await refused
        assert rounds > 0
        assert raw.content("lgv") == before
    for name, (error, seconds) in found.items():
        assert type(error) is WriteRejected, name
        assert 0.5 <= error.rejected_s <= seconds < BOUND_S, name
    # Tried again, with growing waits: never in a busy loop.
    assert 2 * len(calls) <= proxy.rejected < 60 * len(calls)
    assert_silent([error for error, _ in found.values()], caplog.text)
    proxy.accept()
    await twin.step("t", LAST + 1, short="after")
    await twin.check()


async def test_a_refusal_that_ends_in_time_is_not_noticed(kind: str, proxy: RejectingProxy) -> None:
    patient = {**FAST, "reject_deadline_s": 30}
    async with open_face(kind, proxy.url, **patient) as face:
        twin = await fill(face)
        for number in (LAST + 1, LAST + 2):
            proxy.reject()
            enough = proxy.rejected + 2
            putting = asyncio.ensure_future(twin.step("t", number, messages=[MARK, number]))
            await until(partial(refused_times, proxy, enough))
            assert not putting.done()
            proxy.accept()
            await putting
        await twin.check()
        assert len(await twin.list(config("t"))) == LAST + 2


async def test_a_primary_without_enough_replicas(kind: str, server: LocalValkey) -> None:
    async with open_face(kind, server.url, **FAST) as face:
        twin = await fill(face)
        server.command("CONFIG", "SET", "min-replicas-to-write", 1)
        for name, (error, _) in (await outcomes(writes(face, twin))).items():
            assert type(error) is WriteRejected, name
            assert error.rejected_s >= 0.5, name
        await twin.check()
        server.command("CONFIG", "SET", "min-replicas-to-write", 0)
        await twin.step("t", LAST + 1, short="after")
        await twin.check()


# --- broken connections -------------------------------------------------------


@pytest.mark.parametrize("executed", [True, False], ids=["answer lost", "request lost"])
async def test_a_cut_connection_is_made_good_by_sending_again(
    kind: str, executed: bool, proxy: RejectingProxy
) -> None:
    patient = {**FAST, "read_deadline_s": 10, "unknown_retry_deadline_s": 10}

    def cut(*verbs: bytes) -> None:
        proxy.cut_next(executed=executed, matching=lambda words: words[0].upper() in verbs)

    async with open_face(kind, proxy.url, **patient) as face:
        twin = await fill(face)
        cut(b"EVALSHA")
        where = await twin.step("t", LAST + 1, messages=["next"])
        assert len(await twin.list(config("t"))) == LAST + 1
        cut(b"EVALSHA")
        await twin.write(where, [("messages", 1), ("__interrupt__", 2)], "cut task")
        cut(b"EVALSHA_RO")
        await twin.check()
        cut(b"EVALSHA")
        await twin.copy("t", "copy")
        await twin.check()
        cut(b"EVALSHA")
        await twin.prune("copy")
        cut(b"EVALSHA")
        await twin.delete_runs("run 2")
        cut(b"SCAN")
        await twin.list(None)
        cut(b"EVALSHA")
        await twin.delete("t")
        await twin.check()
        assert await twin.get(config("t")) is None
        assert len(await twin.list(None)) == 1


async def test_a_first_put_whose_answer_is_lost_makes_one_thread(
    kind: str, proxy: RejectingProxy
) -> None:
    patient = {**FAST, "unknown_retry_deadline_s": 10}
    async with open_face(kind, proxy.url, **patient) as face:
        twin = Twin(face)
        await twin.step("warm", 1, a=1)
        proxy.cut_next(executed=True, matching=lambda words: words[0] == b"EVALSHA")
        await twin.step("new", 1, a=MARK)
        await twin.step("new", 2, a=2)
        await twin.check()


# --- a full server ------------------------------------------------------------


@pytest.mark.parametrize("slides", [False, True], ids=["", "reads put off the expiry"])
async def test_a_full_server_still_reads_deletes_and_prunes(
    kind: str, slides: bool, server: LocalValkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = {"ttl_s": 600, "refresh_ttl_on_read": True} if slides else {}
    async with open_face(kind, server.url, **FAST, **options) as face:
        twin = await fill(face)
        for number in range(1, 9):
            about = metadata(number, run_id=f"big {number}")
            await twin.step("big", number, about=about, blob=os.urandom(100_000).hex())
        await twin.copy("big", "other")
        fill_up(server)
        refusing = {
            name: call
            for name, call in writes(face, twin).items()
            if name in ("put", "put_writes", "copy_thread")
        }
        found = await outcomes(refusing)
        for name, (error, seconds) in found.items():
            assert type(error) is StoreFull, name
            assert seconds < BOUND_S, name
        assert_silent([error for error, _ in found.values()], caplog.text)
        await twin.check()
        await twin.prune("big")
        assert len(await twin.list(config("big"))) == 1
        await twin.step("t", LAST + 1, short="after pruning")
        fill_up(server)
        with pytest.raises(StoreFull):
            await put_next(face, twin, number=LAST + 2)
        await twin.delete_runs("big 1", "big 2")
        await twin.delete("other")
        await twin.step("t", LAST + 2, short="after deleting")
        await twin.check()


def fill_up(server: LocalValkey) -> None:
    """Leave the server less memory than it uses."""
    told = server.command("INFO", "memory")
    assert isinstance(told, bytes)
    figures = dict(line.split(":", 1) for line in told.decode().splitlines() if ":" in line)
    server.command("CONFIG", "SET", "maxmemory", int(figures["used_memory"]) - 100_000)
