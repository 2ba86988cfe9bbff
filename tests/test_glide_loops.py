"""Loops, threads and processes: whoever calls from wherever gets an answer.

GLIDE's async client answers on one loop of a process only, and hangs on others.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from anyio import to_thread

from langgraph_valkey import limits
from langgraph_valkey.errors import OutcomeUnknown
from langgraph_valkey.glide.clients import can_own_replies, owns_replies
from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.glide.native_lane import NativeLane
from langgraph_valkey.link import NotSent, finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.settings import ConnectionSettings
from tests.link_ground import count, get, in_a_thread, links, outcomes, put

SOON_S = 5.0
"""Far more than a call takes, far less than any hang."""


@pytest.fixture(scope="module")
def shard() -> Iterator[LocalValkey]:
    with LocalValkey() as server:
        yield server


@pytest.fixture
def pair(shard: LocalValkey) -> Iterator[tuple[BlockingLink, LoopLink]]:
    shard.command("FLUSHALL")
    with links(shard.url) as both:
        yield both


def is_native(link: LoopLink) -> bool:
    """Whether the running loop uses GLIDE's async client."""
    native = link._open.native
    return native is not None and native.loop is asyncio.get_running_loop()


def test_loops_one_after_the_other_are_all_native(pair: tuple[BlockingLink, LoopLink]) -> None:
    async def once() -> tuple[Any, bool]:
        return await pair[1].send([count(b"n")]), is_native(pair[1])

    assert [asyncio.run(once()) for _ in range(4)] == [([n], True) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("_round", range(3))
async def test_a_fresh_loop_for_each_test_is_native(
    pair: tuple[BlockingLink, LoopLink], _round: int
) -> None:
    assert await pair[1].send([get(b"x")]) == [None]
    assert is_native(pair[1])


async def test_loops_side_by_side(pair: tuple[BlockingLink, LoopLink]) -> None:
    """The owner's calls are native, the others' go through threads; nobody waits."""
    link = pair[1]
    await link.send([get(b"x")])
    assert is_native(link)

    async def many() -> tuple[set[Any], bool]:
        replies = await outcomes([link.send([put(b"k", b"v")]) for _ in range(30)])
        return {tuple(reply) for reply in replies}, is_native(link)

    others = await asyncio.gather(*(asyncio.to_thread(in_a_thread, many) for _ in range(3)), many())
    assert others == [({(1,)}, False)] * 3 + [({(1,)}, True)]


async def test_other_loops_work_while_the_owner_is_blocked(
    pair: tuple[BlockingLink, LoopLink],
) -> None:
    link = pair[1]
    await link.send([get(b"x")])
    assert is_native(link)
    took_s: list[float] = []

    async def timed() -> None:
        start = time.perf_counter()
        await link.send([count(b"n")])
        took_s.append(time.perf_counter() - start)

    other = threading.Thread(target=lambda: asyncio.run(timed()))
    other.start()
    other.join(SOON_S)  # Blocks this loop, the owner.
    assert len(took_s) == 1
    assert took_s[0] < 1.0
    assert await link.send([count(b"n")]) == [2]


def test_a_stopped_owner_does_not_hold_up_others(pair: tuple[BlockingLink, LoopLink]) -> None:
    link = pair[1]
    stopped = asyncio.new_event_loop()
    try:
        assert stopped.run_until_complete(link.send([count(b"n")])) == [1]
        assert in_a_thread(lambda: link.send([count(b"n")])) == [2]
        assert asyncio.run(asyncio.wait_for(link.send([count(b"n")]), SOON_S)) == [3]
        assert stopped.run_until_complete(link.send([count(b"n")])) == [4]
    finally:
        stopped.close()

    async def later() -> bool:
        assert await link.send([count(b"n")]) == [5]
        return is_native(link)

    assert asyncio.run(later())


async def test_a_call_that_waits_while_its_own_loop_stalls_is_not_lost(
    shard: LocalValkey,
) -> None:
    """Also when the stall is longer than every deadline: the reply is there afterwards."""
    with links(shard.url, request_timeout_ms=40, connection_timeout_ms=40) as (_, link):
        await link.send([get(b"x")])
        for _ in range(5):
            task = asyncio.create_task(link.send([get(b"x")]))
            await asyncio.sleep(0)
            time.sleep(0.25)
            assert await task == [None]


def test_who_waits_for_a_thread_for_too_long_is_told_so(
    pair: tuple[BlockingLink, LoopLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is sent: on asyncio beside the loop that reads replies, and on trio."""
    monkeypatch.setattr(limits, "WORKER_THREADS_MOST", 1)
    blocking, _ = pair
    free = threading.Event()

    def taking(*_: Any) -> Any:
        free.wait(SOON_S)
        return link.now()

    with contextlib.closing(LoopLink(blocking.settings, blocking, turn_s=0.05)) as link:
        assert in_a_thread(lambda: link._in_thread(lambda: "x")) == "x"

        async def beside() -> list[Any]:
            held = asyncio.ensure_future(link._in_thread(taking))
            waiting = [asyncio.ensure_future(link._in_thread(taking)) for _ in range(20)]
            await asyncio.sleep(0.1)
            free.set()
            await held
            return await asyncio.gather(*waiting, return_exceptions=True)

        found = in_a_thread(beside)
        assert {type(each) for each in found} == {NotSent}
        assert "nothing was sent" in str(found[0])

        async def late() -> Any:
            async with trio.open_nursery() as nursery:
                limiter = to_thread.current_default_thread_limiter()
                limiter.total_tokens = 1
                free.clear()
                nursery.start_soon(link._in_thread, taking)
                await trio.sleep(0.1)
                with pytest.raises(NotSent):
                    await waited(link, free)

        trio.run(late)


async def waited(link: LoopLink, free: threading.Event) -> None:
    """Wait for a thread that gets free after a while."""
    threading.Timer(0.2, free.set).start()
    await link._in_thread(lambda: None)


def test_trio(pair: tuple[BlockingLink, LoopLink]) -> None:
    link = pair[1]

    async def main() -> Any:
        await link.sleep(0.0)
        return [*await link.send([put(b"k", b"v")]), *(await link.scan(None, b"k"))[1]]

    assert trio.run(main) == [1, b"k"]


def test_many_threads(pair: tuple[BlockingLink, LoopLink]) -> None:
    blocking, loop = pair
    found: list[Any] = []

    def work(index: int) -> None:
        if index % 2:
            found.append(finish(blocking.send([count(b"n")])))
        else:
            found.append(asyncio.run(loop.send([count(b"n")])))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert sorted(reply[0] for reply in found) == list(range(1, 41))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_uses_both_faces(pair: tuple[BlockingLink, LoopLink]) -> None:
    blocking, loop = pair
    assert finish(blocking.send([count(b"n")])) == [1]
    assert asyncio.run(loop.send([count(b"n")])) == [2]
    loop._open.lock.acquire()  # As if another thread were in the middle of something.
    child = os.fork()
    if child == 0:
        status = 1
        try:
            native: list[bool] = []

            async def in_child() -> list[Any]:
                replies = await loop.send([count(b"n")])
                native.append(is_native(loop))
                return replies

            replies = [finish(blocking.send([count(b"n")])), asyncio.run(in_child())]
            status = 0 if replies == [[3], [4]] and native == [True] else 2
        finally:
            os._exit(status)
    loop._open.lock.release()
    deadline = time.monotonic() + 30
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert (ended, os.waitstatus_to_exitcode(status)) == (child, 0)
    assert finish(blocking.send([count(b"n")])) == [5]
    assert asyncio.run(loop.send([count(b"n")])) == [6]


async def test_a_lost_reply_is_given_up(
    shard: LocalValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that never comes, not even as GLIDE's own timeout, ends by our deadline."""
    with links(shard.url, request_timeout_ms=50, connection_timeout_ms=10) as (_, link):
        await link.send([put(b"k", b"v")])
        native = link._open.native
        assert native is not None
        lane = native.lanes[1]
        assert isinstance(lane, NativeLane)
        lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def silent(*_: Any) -> Any:
            return await lost

        monkeypatch.setattr(lane.open(), "exec", silent)
        task = asyncio.current_task()
        assert task is not None
        start = time.perf_counter()
        with pytest.raises(OutcomeUnknown):
            await link.send([put(b"k", b"v")])
        took_s = time.perf_counter() - start
        assert limits.OUTER_DEADLINE_FACTOR * 0.05 <= took_s < 2.0
        assert task.cancelling() == 0
        cancelled = asyncio.create_task(link.send([put(b"k", b"v")]))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        monkeypatch.undo()
        assert await link.send([put(b"k", b"v")]) == [1]


async def test_closing_from_another_loop(shard: LocalValkey) -> None:
    with links(shard.url) as (_, link):
        await link.send([get(b"x")])
        in_a_thread(link.aclose)
        await asyncio.sleep(0)
        native = link._open.native
        assert native is None


def test_what_glide_tells_of_its_loops_is_still_there() -> None:
    """We look at private names of one exact version; they must exist."""
    from glide import glide_client

    for name in ("_async_pipe_loop", "_async_pipe_init_pid", "_async_pipe_registered"):
        assert hasattr(glide_client, name)
    loop = asyncio.new_event_loop()
    assert can_own_replies(loop)
    assert not owns_replies(loop)
    loop.close()


LEFT_OPEN = """
import asyncio, gc, sys
from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.link import Call, Script, finish
from langgraph_valkey.settings import ConnectionSettings

def use(close):
    settings = ConnectionSettings.from_url(sys.argv[1])
    blocking = BlockingLink(settings)
    loop = LoopLink(settings, blocking)
    calls = [Call(Script("s", "return 1"), (b"k",), [], False)]
    assert finish(blocking.send(calls)) == [1]
    assert asyncio.run(loop.send(calls)) == [1]
    assert asyncio.run(loop.send(calls)) == [1]
    if close:
        loop.close()
        blocking.close()
    return loop

use(True)
use(False)
gc.collect()
kept = use(False)
print("done")
"""


def test_nothing_is_complained_of_when_links_are_left_open(shard: LocalValkey) -> None:
    gc.collect()
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", LEFT_OPEN, shard.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")


async def test_connections_are_closed_with_their_links(shard: LocalValkey) -> None:
    def connections() -> int:
        listing = shard.command("CLIENT", "LIST")
        assert isinstance(listing, bytes)
        return listing.count(b" name=closing ")

    settings = ConnectionSettings.from_url(shard.url, client_name="closing")
    blocking = BlockingLink(settings)
    link = LoopLink(settings, blocking)
    finish(blocking.send([get(b"x")]))
    await link.send([get(b"x"), put(b"x", b"")])
    assert connections() >= 3
    link.close()
    blocking.close()
    deadline = time.monotonic() + SOON_S
    while connections() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert connections() == 0
