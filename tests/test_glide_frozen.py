"""A frozen node of a cluster: calls to the healthy ones go on as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.link import Call, Reply
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.settings import ConnectionSettings
from tests.link_ground import Face, get, put

SHARDS = 3
LONGER_S = 3.2
"""Longer than connecting is tried twice."""

CALLS = 300
"""Of each caller: they last for some seconds, in which the client is made anew."""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(shards=SHARDS, replicas=0) as made:
        yield made
        for shard in range(SHARDS):
            made.resume(shard)


@pytest.fixture(params=["blocking", "loop"])
def face(request: pytest.FixtureRequest, cluster: LocalCluster) -> Iterator[Face]:
    settings = ConnectionSettings.from_url(
        cluster.url, request_timeout_ms=100, connection_timeout_ms=500
    )
    made = Face(str(request.param), settings)
    yield made
    made.close()


def keys(cluster: LocalCluster) -> list[bytes]:
    """A key of each shard."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < SHARDS:
        key = b"{key %d}" % number
        found.setdefault(cluster.shard_of(key), key)
        number += 1
    return [found[shard] for shard in range(SHARDS)]


async def ask(face: Face, key: bytes, counts: Counter[bool], until: threading.Event) -> None:
    """Read a key again and again, and count what comes back."""
    for _ in range(CALLS):
        if until.is_set():
            return
        try:
            [reply] = await face.send(get(key))
        except LanggraphValkeyError:
            counts[False] += 1
        else:
            counts[reply == b"v"] += 1
        if face.name == "loop":
            await asyncio.sleep(0.01)
        else:
            until.wait(0.01)


async def again(face: Face, call: Call) -> list[Reply]:
    """Call until there is an answer."""
    for _ in range(100):
        try:
            return await face.send(call)
        except LanggraphValkeyError:
            await asyncio.sleep(0.05)
    raise AssertionError("it never answered again")


async def test_the_healthy_shards_are_served(face: Face, cluster: LocalCluster) -> None:
    mine = keys(cluster)
    for key in mine:
        await face.send(put(key, b"v"))
    cluster.freeze_primary(0)
    frozen, healthy, over = Counter[bool](), Counter[bool](), threading.Event()
    for_ever = [ask(face, mine[0], frozen, over) for _ in range(2)]
    for_now = [ask(face, key, healthy, over) for key in mine[1:] for _ in range(2)]

    def run(one: object) -> None:
        asyncio.run(one)  # type: ignore[arg-type]

    if face.name == "loop":
        waiting = [asyncio.ensure_future(each) for each in for_ever]
        await asyncio.gather(*for_now)
        over.set()
        await asyncio.gather(*waiting)
    else:
        threads = [threading.Thread(target=run, args=(each,)) for each in (*for_ever, *for_now)]
        for thread in threads:
            thread.start()
        for thread in threads[len(for_ever) :]:
            await asyncio.to_thread(thread.join)
        over.set()
        for thread in threads[: len(for_ever)]:
            await asyncio.to_thread(thread.join)
    assert frozen[True] == 0
    assert frozen[False] > 10
    # The client is made anew meanwhile; it may answer late now and then, on a busy machine.
    assert sum(healthy.values()) == 4 * CALLS
    assert healthy[False] <= 0.02 * sum(healthy.values()), healthy


async def test_a_client_that_was_made_anew_finds_the_shard_again(
    face: Face, cluster: LocalCluster
) -> None:
    key = keys(cluster)[0]
    await face.send(put(key, b"v"))
    cluster.freeze_primary(0)
    for _ in range(5):
        with pytest.raises(LanggraphValkeyError):
            await face.send(get(key))
    cluster.resume(0)
    assert await again(face, get(key)) == [b"v"]


async def test_a_single_caller_is_served_by_the_healthy_shards(
    face: Face, cluster: LocalCluster
) -> None:
    """One who asks one after the other: no other call sets a held up one free."""
    frozen, *healthy = keys(cluster)
    for key in (frozen, *healthy):
        await face.send(put(key, b"v"))
    cluster.freeze_primary(0)
    late = 0
    for _ in range(8):
        with pytest.raises(LanggraphValkeyError):
            await face.send(get(frozen))
        for key in healthy * 5:
            try:
                await face.send(get(key))
            except LanggraphValkeyError:
                late += 1
    # Until the first timeout nothing is known of it.
    assert late <= 8, late


@pytest.mark.parametrize("name", ["blocking", "loop"])
async def test_where_no_node_answers_calls_keep_their_time(name: str) -> None:
    """A client that is made anew can't connect: calls on it would wait for that, in a row."""
    took_s: list[float] = []
    with LocalValkey() as valkey:
        settings = ConnectionSettings.from_url(
            valkey.url, request_timeout_ms=50, connection_timeout_ms=1_000
        )
        face = Face(name, settings)
        await face.send(put(b"k", b"v"))
        await face.send(get(b"k"))

        async def ask_for_a_time() -> None:
            until_s = time.monotonic() + LONGER_S
            while time.monotonic() < until_s:
                asked_s = time.monotonic()
                with pytest.raises(LanggraphValkeyError):
                    await face.send(get(b"k"))
                took_s.append(time.monotonic() - asked_s)
                await asyncio.sleep(0.05)

        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            if name == "loop":
                await asyncio.gather(*[ask_for_a_time() for _ in range(8)])
            else:
                calls = [asyncio.to_thread(asyncio.run, ask_for_a_time()) for _ in range(8)]
                await asyncio.gather(*calls)
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        assert await again(face, get(b"k")) == [b"v"]
        face.close()
    assert max(took_s) < 0.9
