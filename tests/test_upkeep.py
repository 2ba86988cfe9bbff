"""Copying, pruning, deleting by run, expiring: what is left, and what it costs.

InMemorySaver has none of these, so the measure is the thread itself: what was
kept reads back as before, and the server holds no more than it has to.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR

from tests.faces import (
    FACES,
    Face,
    Twin,
    assert_equal,
    by_namespace,
    checkpoint,
    config,
    metadata,
    numbered_id,
    open_face,
)
from tests.raw_server import RawServer, raw_server

TTL_S = 600


@pytest.fixture
def prefix() -> str:
    return f"t{os.urandom(6).hex()}"


@pytest.fixture(params=FACES)
async def twin(request: pytest.FixtureRequest, valkey: Any, prefix: str) -> AsyncIterator[Twin]:
    async with open_face(request.param, valkey.url, key_prefix=prefix) as face:
        yield Twin(face)


@pytest.fixture
def raw(valkey: Any) -> Any:
    with raw_server(valkey.url) as server:
        yield server


async def fill(twin: Twin, thread_id: str, first: int = 1, count: int = 4) -> None:
    """Checkpoints in two namespaces, each with an ordinary and a special write."""
    for ns in ("", "child:1"):
        for number in range(first, first + count):
            state = [f"{thread_id} {ns} {n} " * 20 for n in range(10 * number)]
            about = metadata(number, run_id=f"run {number}")
            where = await twin.step(thread_id, number, ns, about=about, state=state, n=number)
            await twin.write(where, [("state", number), (ERROR, "no")], "task 2", "path b")
            await twin.write(where, [("state", -number)], "task 1", "path c")


async def whole(face: Face, thread_id: str) -> list[CheckpointTuple]:
    return list(await face.listed({"configurable": {"thread_id": thread_id}}))


def renamed(found: list[CheckpointTuple], thread_id: str) -> Any:
    """The same checkpoints as they would read in another thread."""
    moved = []
    for one in found:
        configs = [one.config, one.parent_config]
        named = [
            {"configurable": {**c["configurable"], "thread_id": thread_id}} if c else None
            for c in configs
        ]
        moved.append(one._replace(config=named[0], parent_config=named[1]))  # type: ignore[arg-type]
    return by_namespace(moved)


# --- copy ---------------------------------------------------------------------


@pytest.mark.parametrize("target", ["copy", "u[1]*{}", "a\0b"])
async def test_copy_has_it_all_and_is_apart(twin: Twin, target: str) -> None:
    await fill(twin, "source")
    await twin.face.acopy_thread("source", target)

    source = await whole(twin.face, "source")
    assert len(source) == 8
    assert_equal(by_namespace(await whole(twin.face, target)), renamed(source, target))
    await twin.check("source")

    await twin.delete("source")
    copied = await whole(twin.face, target)
    assert_equal(by_namespace(copied), renamed(source, target))
    made, new_versions = checkpoint(numbered_id(9), {"n": 9}, parent=copied[0].checkpoint)
    await twin.face.aput(copied[0].config, made, metadata(9), new_versions)
    assert len(await whole(twin.face, target)) == 9


async def test_copy_onto_an_existing_thread(twin: Twin) -> None:
    await fill(twin, "source")
    await fill(twin, "target", first=11, count=2)
    own = by_namespace(await whole(twin.face, "target"))
    for _ in range(2):  # doing it twice changes nothing
        await twin.face.acopy_thread("source", "target")
        merged = by_namespace(await whole(twin.face, "target"))
        copied = renamed(await whole(twin.face, "source"), "target")
        for where in own:
            assert_equal(merged[where], own[where] + copied[where])
    await twin.check("source")
    head = await twin.face.aget_tuple(config("target"))
    assert head is not None
    assert head.checkpoint["id"] == numbered_id(12)


async def test_copy_of_nothing_and_onto_itself(twin: Twin) -> None:
    await fill(twin, "source")
    await twin.face.acopy_thread("absent", "target")
    await twin.face.acopy_thread("source", "source")
    assert await whole(twin.face, "target") == []
    await twin.check("source")


async def test_copy_of_a_long_thread(twin: Twin) -> None:
    value: list[str] = []
    for number in range(620):  # more than one page of a walk
        value = [*value, f"element {number}"]
        await twin.step("source", number, value=value)
    await twin.face.acopy_thread("source", "target")
    source = await whole(twin.face, "source")
    assert len(source) == 620
    assert_equal(by_namespace(await whole(twin.face, "target")), renamed(source, "target"))


async def test_copy_keeps_the_order_in_which_writes_came(twin: Twin) -> None:
    """Large and small calls travel apart; what came first must still count as first."""
    noise = random.Random(3)
    for number in range(1, 9):
        new = {"large": noise.randbytes(300_000)} if number % 3 == 1 else {"small": number}
        where = await twin.step("source", number, **new)
        for value in (noise.randbytes(300_000), "small", noise.randbytes(200_000), "last"):
            # The first value of an ordinary write stays, the last of a special one.
            await twin.write(where, [("state", value), (ERROR, value)], "task")
    for target in ("copy 1", "copy 2", "copy 3"):
        await twin.copy("source", target)
        await twin.check(target)


# --- prune --------------------------------------------------------------------


async def test_prune_keeps_each_namespaces_head(twin: Twin) -> None:
    for thread_id in ("a", "b", "c"):
        await fill(twin, thread_id)
    before = {t: {ns: await twin.get(config(t, ns)) for ns in ("", "child:1")} for t in "ab"}
    await twin.face.aprune(["a", "b", "absent"], strategy="keep_latest")
    for thread_id in ("a", "b"):
        assert len(await whole(twin.face, thread_id)) == 2
        for ns, head in before[thread_id].items():
            assert_equal(await twin.face.aget_tuple(config(thread_id, ns)), head)
            assert await twin.face.aget_tuple(config(thread_id, ns, numbered_id(1))) is None
    await twin.check("c")
    await twin.face.aprune(["a"])  # keep_latest is the default; again changes nothing
    assert len(await whole(twin.face, "a")) == 2


async def test_prune_then_go_on(twin: Twin) -> None:
    await fill(twin, "t")
    await twin.face.aprune(["t"])
    for number in (5, 6):
        await twin.step("t", number, state=["new"] * number)
        assert_equal(await twin.face.aget_tuple(config("t")), twin.oracle.get_tuple(config("t")))
    assert len(await twin.face.listed(config("t"))) == 3


async def test_prune_delete(twin: Twin) -> None:
    await fill(twin, "a")
    await fill(twin, "b")
    await twin.face.aprune(["a"], strategy="delete")
    assert await whole(twin.face, "a") == []
    await twin.check("b")


async def test_prune_by_an_unknown_strategy(twin: Twin) -> None:
    await fill(twin, "t")
    for strategy in ("keep_last", "", "KEEP_LATEST"):
        with pytest.raises(ValueError, match="strategy"):
            await twin.face.aprune(["t"], strategy=strategy)
    await twin.check("t")


@pytest.mark.parametrize("how", ["prune", "delete_for_runs"])
async def test_nothing_unreferenced_is_left(
    twin: Twin, raw: RawServer, prefix: str, how: str
) -> None:
    """After it a thread costs about what it had cost with the kept checkpoint alone."""
    noise = random.Random(5)
    states = [[noise.randbytes(500) for _ in range(200)] for _ in range(12)]
    for number, state in enumerate(states):
        about = metadata(number, run_id=f"run {number}")
        where = await twin.step("t", number, about=about, state=state, name="x" * number)
        await twin.write(where, [("state", noise.randbytes(5000))], "task")
    full_bytes = raw.memory_bytes(prefix)

    if how == "prune":
        await twin.face.aprune(["t"])
    else:
        await twin.face.adelete_for_runs([f"run {number}" for number in range(11)])
    left_bytes = raw.memory_bytes(prefix)
    kept = await twin.face.aget_tuple(config("t"))
    assert kept is not None
    assert kept.checkpoint["channel_values"] == {"state": states[-1], "name": "x" * 11}

    await twin.face.aprune(["t"], strategy="delete")
    gone_bytes = raw.memory_bytes(prefix)
    made, new_versions = checkpoint(numbered_id(11), kept.checkpoint["channel_values"])
    where = await twin.face.aput(config("alone"), made, metadata(11), new_versions)
    await twin.face.aput_writes(where, [("state", noise.randbytes(5000))], "task")
    alone_bytes = raw.memory_bytes(prefix) - gone_bytes
    print(f"bytes: full {full_bytes}, left {left_bytes}, gone {gone_bytes}, alone {alone_bytes}")
    assert alone_bytes > 100_000  # or nothing was measured
    assert full_bytes > 8 * alone_bytes
    assert left_bytes < 1.1 * alone_bytes
    assert gone_bytes < 0.05 * alone_bytes


# --- delete by run ------------------------------------------------------------


async def test_delete_for_runs_moves_the_head_back(twin: Twin) -> None:
    await fill(twin, "a")
    await fill(twin, "b")
    await fill(twin, "c", first=11)
    kept = {ns: await twin.get(config("a", ns, numbered_id(3))) for ns in ("", "child:1")}
    await twin.face.adelete_for_runs(["run 4", "run 1", "absent"])
    for thread_id in ("a", "b"):
        found = await whole(twin.face, thread_id)
        assert sorted(one.checkpoint["id"] for one in found) == [
            numbered_id(n) for n in (2, 2, 3, 3)
        ]
    for ns, tuple_kept in kept.items():
        assert tuple_kept is not None
        assert_equal(await twin.face.aget_tuple(config("a", ns)), tuple_kept)
    await twin.check("c")


RUNS = ["r{1}", "r1", "*", "r[1]", "r\\", "a:b", "%", "a\0b", "", "é", "r?"]


@pytest.mark.parametrize("deleted", RUNS)
async def test_delete_for_runs_is_exact(twin: Twin, deleted: str) -> None:
    for number, run_id in enumerate(RUNS):
        made, new_versions = checkpoint(numbered_id(number), {"value": number})
        await twin.face.aput(config(f"t{number}"), made, metadata(0, run_id=run_id), new_versions)
    await twin.face.adelete_for_runs([deleted])
    found = {one.checkpoint["channel_values"]["value"] for one in await twin.face.listed(None)}
    assert found == set(range(len(RUNS))) - {RUNS.index(deleted)}


@pytest.mark.parametrize("kind", FACES)
async def test_walks_reach_every_shard(kind: str, three_shards: Any) -> None:
    async with open_face(kind, three_shards.url) as face:
        twin = Twin(face)
        names = [f"user {number}" for number in range(40)]
        for name in names:
            for number in (1, 2):
                about = metadata(number, run_id=f"run {number}")
                await twin.step(name, number, about=about, value=[name, number])
        assert len(await twin.list(None)) == 80
        assert len(await twin.list(None, filter={"step": 2})) == 40
        await twin.delete_runs("run 2")
        await twin.copy(names[0], "elsewhere")
        await twin.prune(*names)
        await twin.check()
        assert len(await twin.list(None)) == 41


# --- expiry -------------------------------------------------------------------


def deadline_ms(raw: RawServer, prefix: str) -> int:
    """The one deadline that all keys of the thread share."""
    deadlines = raw.deadlines_ms(prefix)
    assert len(deadlines) >= 1
    assert len(set(deadlines.values())) == 1, deadlines
    return next(iter(deadlines.values()))


def move_back(raw: RawServer, prefix: str) -> int:
    """As if the last write were 100 s old: all keys expire 100 s sooner."""
    sooner_ms = deadline_ms(raw, prefix) - 100_000
    for key in raw.keys(prefix):
        raw.do("PEXPIREAT", key, str(sooner_ms))
    return sooner_ms


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize("on_read", [False, True])
async def test_a_thread_expires_as_one(
    kind: str, on_read: bool, valkey: Any, raw: RawServer, prefix: str
) -> None:
    options: dict[str, Any] = {"ttl_s": TTL_S, "refresh_ttl_on_read": on_read}
    async with open_face(kind, valkey.url, key_prefix=prefix, **options) as face:
        twin = Twin(face)
        asked_ms = 1000 * int(raw.do("TIME")[0])
        await fill(twin, "t")
        set_ms = deadline_ms(raw, prefix)
        assert asked_ms + TTL_S * 1000 - 1 <= set_ms <= asked_ms + (TTL_S + 60) * 1000

        sooner_ms = move_back(raw, prefix)
        await twin.check("t")
        read_ms = deadline_ms(raw, prefix)
        assert (read_ms >= set_ms) if on_read else (read_ms == sooner_ms)

        head = config("t", "", numbered_id(4))
        move_back(raw, prefix)
        await twin.write(head, [("state", "later")], "task 3")
        written_ms = deadline_ms(raw, prefix)
        assert written_ms >= set_ms

        move_back(raw, prefix)
        await twin.step("t", 5, state=["small"])
        assert deadline_ms(raw, prefix) >= written_ms

        for key in raw.keys(prefix):
            raw.do("PEXPIREAT", key, "1")
        assert await face.aget_tuple(config("t")) is None
        assert await whole(face, "t") == []
        again, new_versions = checkpoint(numbered_id(6), {"state": ["again"]})
        await face.aput(config("t", "", numbered_id(5)), again, metadata(6), new_versions)
        found = await face.aget_tuple(config("t"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"state": ["again"]}


async def test_without_ttl_nothing_expires(twin: Twin, raw: RawServer, prefix: str) -> None:
    await fill(twin, "t")
    await twin.face.acopy_thread("t", "copy")
    assert set(raw.deadlines_ms(prefix).values()) == {-1}


async def test_a_copy_expires_as_one(valkey: Any, raw: RawServer, prefix: str) -> None:
    async with open_face("async", valkey.url, key_prefix=prefix, ttl_s=TTL_S) as face:
        await fill(Twin(face), "t")
        await face.acopy_thread("t", "copy")
        await face.adelete_thread("t")
        assert len(await whole(face, "copy")) == 8
        deadlines = {at for key, at in raw.deadlines_ms(prefix).items() if b"copy" in key}
        assert len(deadlines) == 1
        assert deadlines.pop() > 1000 * int(raw.do("TIME")[0])
