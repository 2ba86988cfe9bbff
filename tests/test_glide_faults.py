"""Servers that stop, freeze or change roles: an error in bounded time, then recovery."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.errors import OutcomeUnknown, Unreachable, WriteRejected
from langgraph_valkey.link import Link, finish
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.local.node import free_ports
from langgraph_valkey.retry import Retrying
from langgraph_valkey.settings import ConnectionSettings
from tests.link_ground import Face, ask, count, fail, get, links, put, standalone

FAST = {"request_timeout_ms": 200, "connection_timeout_ms": 200}


@pytest.fixture(params=["blocking", "loop"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def timed(attempt: Callable[[], Awaitable[Any]], error: type[Exception]) -> float:
    """How long it took to raise this error."""
    start = time.perf_counter()
    with pytest.raises(error) as caught:
        await attempt()
    assert type(caught.value) is error
    return time.perf_counter() - start


@pytest.mark.parametrize("mode", ["cluster", "standalone"])
async def test_no_server_at_all(kind: str, mode: str) -> None:
    (port,) = free_ports(1)
    face = Face(kind, ConnectionSettings.from_url(f"valkey://127.0.0.1:{port}?mode={mode}", **FAST))
    assert await timed(lambda: face.send(get(b"k")), Unreachable) < 1.5
    assert await timed(lambda: face.send(put(b"k", b"v")), Unreachable) < 1.5
    assert await timed(lambda: face.scan(None, b"*"), Unreachable) < 1.5
    face.close()


@pytest.mark.parametrize("mode", ["cluster", "standalone"])
async def test_a_server_that_dies_and_comes_back(kind: str, mode: str) -> None:
    with LocalValkey() as server:
        settings = ConnectionSettings.from_url(
            f"{server.url}?mode={mode}", read_deadline_s=0.5, unknown_retry_deadline_s=0.5, **FAST
        )
        face = Face(kind, settings)
        inner: Link = face.blocking if kind == "blocking" else face.loop
        link = Retrying(inner, settings)

        async def send(*calls: Any) -> Any:
            return finish(link.send(calls)) if kind == "blocking" else await link.send(calls)

        assert await send(put(b"k", b"1")) == [1]
        assert await send(get(b"k")) == [b"1"]
        server.kill()
        assert await timed(lambda: send(get(b"k")), Unreachable) < 3
        start = time.perf_counter()
        with pytest.raises((Unreachable, OutcomeUnknown)):
            await send(put(b"k", b"2"))
        assert time.perf_counter() - start < 3
        server.restart()
        deadline = time.monotonic() + 15
        while True:
            try:
                assert await send(put(b"k", b"3")) == [1]
                break
            except (Unreachable, OutcomeUnknown):
                assert time.monotonic() < deadline
        assert await send(get(b"k")) == [b"3"]
        face.close()


async def test_a_frozen_server(kind: str) -> None:
    with LocalValkey() as server:
        face = Face(kind, ConnectionSettings.from_url(server.url, **FAST))
        assert await face.send(put(b"k", b"1")) == [1]
        assert await face.send(get(b"k")) == [b"1"]
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert await timed(lambda: face.send(put(b"k", b"2")), OutcomeUnknown) < 1.5
            assert await timed(lambda: face.send(get(b"k")), Unreachable) < 1.5
        finally:
            os.kill(server.pid, signal.SIGCONT)
        deadline = time.monotonic() + 15
        found = None
        # The write of unknown outcome is applied after all; it came over a connection of its
        # own, so the first read that is answered may still be ahead of it.
        while found != [b"2"]:
            assert time.monotonic() < deadline, found
            with contextlib.suppress(Unreachable):
                found = await face.send(get(b"k"))
        face.close()


async def test_rejected_writes_are_tried_until_their_deadline(kind: str) -> None:
    with LocalValkey() as server:
        settings = ConnectionSettings.from_url(server.url, reject_deadline_s=0.4)
        face = Face(kind, settings)
        inner: Link = face.blocking if kind == "blocking" else face.loop
        link = Retrying(inner, settings)
        call = fail("CLUSTERDOWN The cluster is down", writes=True)
        start = time.perf_counter()
        with pytest.raises(WriteRejected) as caught:
            finish(link.send([call])) if kind == "blocking" else await link.send([call])
        assert 0.4 <= time.perf_counter() - start < 2.0
        assert 0.4 <= caught.value.rejected_s < 2.0
        face.close()


@pytest.mark.parametrize("kept", [False, True], ids=["primary dies", "primary is demoted"])
async def test_a_standalone_failover_is_followed(kind: str, kept: bool, tmp_path: Path) -> None:
    """GLIDE's standalone client alone would never find the new primary."""
    first, second = free_ports(2)
    with (
        standalone(tmp_path, first) as primary,
        standalone(tmp_path, second, "--replicaof", "127.0.0.1", str(first)),
    ):
        settings = ConnectionSettings.from_url(
            f"valkey://127.0.0.1:{first},127.0.0.1:{second}?mode=standalone",
            read_deadline_s=20,
            unknown_retry_deadline_s=20,
            **FAST,
        )
        face = Face(kind, settings)
        inner: Link = face.blocking if kind == "blocking" else face.loop
        link = Retrying(inner, settings)

        async def send(*calls: Any) -> Any:
            return finish(link.send(calls)) if kind == "blocking" else await link.send(calls)

        assert await send(put(b"k", b"1")) == [1]
        assert ask(second, "REPLICAOF", "NO", "ONE") == b"+OK\r\n"
        if kept:
            assert ask(first, "REPLICAOF", "127.0.0.1", str(second)) == b"+OK\r\n"
        else:
            primary.kill()
            primary.wait()
        start = time.perf_counter()
        assert await send(put(b"k", b"2")) == [1]
        assert await send(get(b"k")) == [b"2"]
        assert time.perf_counter() - start < 20
        assert ask(second, "GET", "k") == b"$1\r\n2\r\n"
        face.close()


async def test_three_shards(kind: str) -> None:
    """Keys of all shards in one send, and a walk over all of them."""
    with LocalCluster(shards=3, replicas=0) as cluster, links(cluster.url) as (blocking, loop):
        keys = {b"key:%d" % index for index in range(1_500)}
        calls = [put(key, key) for key in keys]
        cursor, found = None, set()
        if kind == "blocking":
            assert finish(blocking.send(calls)) == [1] * len(keys)
        else:
            assert await loop.send(calls) == [1] * len(keys)
        while True:
            cursor, page = await (blocking if kind == "blocking" else loop).scan(cursor, b"key:*")
            found.update(page)
            if cursor is None:
                break
        assert found == keys
        assert await loop.send([count(b"n"), get(b"key:7")]) == [1, b"key:7"]
