"""A durable delete outlives its deleter and the primary node, both lost at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey import ValkeySaver
from langgraph_valkey.boundary import burials
from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.errors import ConfigurationError, ThreadDeleted, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.settings import Settings
from langgraph_valkey.sql.store import SqlStore
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.failover_ground import replace_killed, threads_in
from tests.tier_graphs import INPUT, NODES, chain
from tests.tier_ground import Ground, WatchedTier, open_ground

ASYNC: dict[str, Any] = {"durability": "async", "lag_bound_s": 1.0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PrimaryStore]:
    """A primary store on SQLite."""
    made = SqlStore(f"sqlite:///{tmp_path / 'primary.db'}")
    finish(made.blocking.setup())
    yield made
    made.close()


@pytest.fixture
async def ground(
    kind: str, store: PrimaryStore, valkey: LocalValkey, prefix: str
) -> AsyncIterator[Ground]:
    """Each face over a tier that is watched, and a primary store."""
    async with open_ground(kind, WatchedTier(), valkey, prefix=prefix, store=store) as made:
        yield made
    await store.aclose()


async def fill(ground: Ground) -> Any:
    """Run a graph on the thread, each step with a commit."""
    graph = chain(ground.saver, lambda _: ground.saver.crossed(ground.thread))
    await ground.run(graph, "invoke", INPUT, ground.where)
    return graph


async def test_a_tombstone_is_written_and_confirmed(ground: Ground, store: PrimaryStore) -> None:
    await fill(ground)
    await ground.face.call("delete_thread", ground.thread, durable=True)
    tomb = finish(store.blocking.tombstone(ground.thread))
    assert tomb is not None
    assert len(tomb.stamp) == 16
    assert abs(int(tomb.stamp) / 1e6 - tomb.buried_s) < 5
    assert await ground.face.aget_tuple(ground.where) is None
    assert await ground.stored() == []


async def test_without_a_store_it_is_refused(kind: str, valkey: LocalValkey, prefix: str) -> None:
    async with open_ground(kind, WatchedTier(), valkey, prefix=prefix) as ground:
        graph = await fill(ground)
        with pytest.raises(ConfigurationError, match="store="):
            await ground.face.call("delete_thread", ground.thread, durable=True)
        with pytest.raises(ConfigurationError, match="store="):
            await ground.face.call("rebury", 60)
        assert (await ground.values(graph))["told"] == ["input", *NODES]


async def test_nothing_is_deleted_before_the_tombstone_is_written(
    ground: Ground, store: PrimaryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise Unreachable("the store is away")

    graph = await fill(ground)
    side = store.blocking if ground.face.kind == "sync" else store.loops
    with monkeypatch.context() as patch:
        patch.setattr(side, "bury", fail)
        with pytest.raises(Unreachable):
            await ground.face.call("delete_thread", ground.thread, durable=True)
    assert (await ground.values(graph))["told"] == ["input", *NODES]
    assert len(await ground.stored()) == len(NODES)


@pytest.mark.parametrize("dies_at", ["tier", "server", "tier again", "confirmation"])
async def test_whoever_reads_completes_what_a_deleter_left(
    ground: Ground, store: PrimaryStore, dies_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deleter dies at each of its steps; another process comes, before or after a rebury."""
    await fill(ground)

    class Death(BaseException):
        """The process is gone."""

    def die(method: str) -> None:
        """It deletes from the tier, and looks there whether to do so again."""
        if dies_at == {"delete_thread": "tier", "get_tuple": "tier again"}.get(method):
            raise Death

    async def die_at_once(*_: Any) -> Any:
        raise Death

    with monkeypatch.context() as patch:
        ground.tier.before = die
        if dies_at == "server":
            patch.setattr(ground.saver._core, "delete_thread", die_at_once)
        if dies_at == "confirmation":
            for side in (store.blocking, store.loops):
                patch.setattr(side, "buried", die_at_once)
        with pytest.raises(Death):
            await ground.face.call("delete_thread", ground.thread, durable=True)
        ground.tier.before = lambda _: None
    tomb = finish(store.blocking.tombstone(ground.thread))
    assert tomb is not None
    assert not tomb.stamp
    async with another(ground, store) as other:
        assert await other.face.aget_tuple(ground.where) is None
        assert await ground.stored() == []
        tomb = finish(store.blocking.tombstone(ground.thread))
        if dies_at in ("tier", "server"):
            assert tomb is not None
            assert tomb.stamp


async def test_what_a_run_stores_while_its_thread_is_deleted_goes_along(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the tier and the server a checkpoint comes to the tier that was due there."""
    await fill(ground)
    delete = ground.saver._core.delete_thread

    async def meanwhile(*given: Any) -> bytes:
        carried = ground.saver.acarry(ground.thread)
        if ground.face.kind == "async":
            assert await carried
        else:
            carried.close()
            assert ground.saver.carry(ground.thread)
        assert ground.tier.storage[ground.thread]
        return await delete(*given)

    monkeypatch.setattr(ground.saver._core, "delete_thread", meanwhile)
    await ground.face.adelete_thread(ground.thread)
    assert await ground.stored() == []


async def test_a_late_deleter_leaves_what_was_begun_anew(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the server and the tier's second turn the thread is begun anew, and commits."""
    graph = await fill(ground)
    delete = ground.saver._core.delete_thread

    async def then_anew(*given: Any) -> bytes:
        stamp = await delete(*given)
        anew = {"thread_id": ground.thread}
        if ground.face.kind == "async":
            await graph.ainvoke(INPUT, {"configurable": anew}, durability="sync")
        else:
            graph.invoke(INPUT, {"configurable": anew}, durability="sync")
        ground.tier.before = lambda _: ground.saver.crossed(ground.thread)
        return stamp

    with monkeypatch.context() as patch:
        patch.setattr(ground.saver._core, "delete_thread", then_anew)
        await ground.face.adelete_thread(ground.thread)
    ground.tier.before = lambda _: None
    assert len(await ground.stored()) == len(NODES)
    later = numbered_id(9)
    assert ground.saver._boundary._crossings.due(ground.thread, "", later, ""), "is due still"


@asynccontextmanager
async def another(ground: Ground, store: PrimaryStore) -> AsyncIterator[Ground]:
    """Another process, and the same thread."""
    prefix = ground.saver.settings.key_prefix
    given = ground.face.kind, ground.tier, ground.valkey
    async with open_ground(*given, prefix=prefix, store=store) as other:
        other.thread, other.where = ground.thread, ground.where
        yield other


async def test_a_thread_begun_anew_is_another_one(ground: Ground, store: PrimaryStore) -> None:
    graph = await fill(ground)
    await ground.face.call("delete_thread", ground.thread, durable=True)
    await fill(ground)
    assert await ground.face.call("rebury", 60) == 0
    async with another(ground, store) as other:
        assert (await other.values(graph))["told"] == ["input", *NODES]
        ground.wipe()
        assert (await other.values(graph))["told"] == ["input", *NODES]


async def test_a_tier_that_kept_the_thread_does_not_bring_it_back(
    ground: Ground, store: PrimaryStore
) -> None:
    """A run that was in the middle of the thread; the server has forgotten the deletion."""
    await fill(ground)
    kept = {name: dict(stored) for name, stored in ground.tier.storage[ground.thread].items()}
    blobs = dict(ground.tier.blobs)
    await ground.face.call("delete_thread", ground.thread, durable=True)
    ground.tier.storage[ground.thread].update(kept)
    ground.tier.blobs.update(blobs)
    ground.wipe()
    async with another(ground, store) as other:
        assert await other.face.aget_tuple(ground.where) is None
    assert await ground.stored() == []


async def test_deletes_are_reburied_page_by_page(
    ground: Ground, store: PrimaryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burials, "PAGE", 3)
    threads = [f"{ground.thread} {number}" for number in range(7)]
    for thread in threads:
        made, versions = checkpoint(numbered_id(1), {"value": 1})
        await ground.face.aput(config(thread), made, metadata(1), versions)
        await ground.face.call("delete_thread", thread, durable=True)
    assert await ground.face.call("rebury", 60) == 0
    ground.wipe()
    assert await ground.face.call("rebury", 60) == 7
    assert await ground.face.call("rebury", 60) == 0
    made, versions = checkpoint(numbered_id(2), {"value": 2}, parent=made)
    with pytest.raises(ThreadDeleted):
        await ground.face.aput(config(threads[0], "", numbered_id(1)), made, metadata(2), versions)


async def test_without_a_stamp_the_tombstones_own_time_tells(
    ground: Ground, store: PrimaryStore
) -> None:
    """The deleter died before the server could answer; one of the threads was begun later."""
    await fill(ground)
    anew = f"{ground.thread} anew"
    for thread in (ground.thread, anew):
        finish(store.blocking.bury(thread))
    made, versions = checkpoint(numbered_id(1), {"value": 1})
    async with open_ground(
        ground.face.kind, None, ground.valkey, prefix=ground.saver.settings.key_prefix
    ) as unaware:
        await unaware.face.aput(config(anew), made, metadata(1), versions)
    assert await ground.face.call("rebury", 60) == 2
    assert await ground.face.aget_tuple(ground.where) is None
    assert await ground.stored() == []
    assert await ground.face.aget_tuple(config(anew)) is not None
    tomb = finish(store.blocking.tombstone(ground.thread))
    assert tomb is not None
    assert int(tomb.stamp) == round(tomb.buried_s * 1e6)


# --- with the primary node ------------------------------------------------------------


def delete_and_hang(url: str, prefix: str, path: Path, threads: list[str], tells: int) -> None:
    """What the deleter does, until it is killed."""
    store = SqlStore(f"sqlite:///{path}")
    saver = TieredSaver(Settings.from_url(url, key_prefix=prefix, **ASYNC), store=store)
    for thread in threads:
        saver.delete_thread(thread, durable=True)
    os.write(tells, b"d")
    signal.pause()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
async def test_the_deleter_is_killed_together_with_the_primary_node(
    kind: str, durable: LocalCluster, prefix: str, store: PrimaryStore, tmp_path: Path
) -> None:
    """The replica knows nothing of the deletes. One thread was begun anew since: that stays."""
    gone, reads, anew = threads_in(durable, prefix, 0, 3)
    lab: Any = durable
    path = tmp_path / "primary.db"
    told, tells = os.pipe()
    with ValkeySaver.from_url(durable.url, key_prefix=prefix, **ASYNC) as writer:
        for thread in (gone, reads, anew):
            made, versions = checkpoint(numbered_id(1), {"value": "old"})
            writer.put(config(thread), made, metadata(1), versions)
        writer.close(0)
    durable.hold_log(0)
    child = os.fork()
    if child == 0:
        try:
            delete_and_hang(durable.url, prefix, path, [gone, reads, anew], tells)
        finally:
            os._exit(1)
    try:
        assert await asyncio.to_thread(os.read, told, 1) == b"d"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tells)
    async with open_ground(kind, None, lab, prefix=prefix, store=store, **ASYNC) as early:
        made, versions = checkpoint(numbered_id(2), {"value": "new"})
        await early.face.aput(config(anew), made, metadata(2), versions)
        await asyncio.to_thread(durable.kill_primary, 0)
        await asyncio.to_thread(replace_killed, durable)
        async with open_ground(kind, None, lab, prefix=prefix, **ASYNC) as unaware:
            assert await unaware.face.aget_tuple(config(gone)) is not None
            await unaware.saver.aclose(0)
        async with open_ground(kind, None, lab, prefix=prefix, store=store, **ASYNC) as late:
            assert await late.face.aget_tuple(config(reads)) is None
            assert await late.face.call("rebury", 60) >= 1
            for thread in (gone, reads):
                assert await late.face.aget_tuple(config(thread)) is None
            found = await early.face.aget_tuple(config(anew))
            assert found is not None
            assert found.checkpoint["channel_values"] == {"value": "new"}
            assert await late.face.aget_tuple(config(anew)) is not None
            assert len(await late.face.listed(config(anew))) == 1
            await late.saver.aclose(0)
        await early.saver.aclose(0)
    await store.aclose()
