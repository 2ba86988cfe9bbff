"""The store on a real cluster that fails over: what was put is there, what was deleted is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraph.store.base import GetOp, Op, PutOp

from langgraph_valkey import RecoveryReport
from langgraph_valkey.items.names import bucket_keys, bucket_of, pack_namespace, told
from langgraph_valkey.local import LocalCluster, LocalValkey
from tests.failover_ground import LAG_BOUND_S, replace_killed, until
from tests.store_ground import NS, StoreFace, opened

DURABLE: dict[str, Any] = {"durability": "async", "lag_bound_s": LAG_BOUND_S}


def places_in(cluster: LocalCluster, prefix: str, shard: int, count: int) -> list[tuple[str, ...]]:
    """Namespaces of which the buckets live in a shard."""
    found: list[tuple[str, ...]] = []
    number = 0
    while len(found) < count:
        number += 1
        place = ("memories", str(number))
        bucket = bucket_of(pack_namespace(place), 16)
        if cluster.shard_of(bucket_keys(f"{prefix}:store", bucket).state) == shard:
            found.append(place)
    return found


async def values(face: StoreFace, places: Sequence[tuple[str, ...]]) -> list[Any]:
    """What stands at ``k`` in each namespace; by gets, and by a search beneath all of them."""
    got = await face.batch([GetOp(place, "k") for place in places])
    found = await face.search(("memories",), limit=999)
    hits = {hit.namespace: hit.value for hit in found if hit.key == "k"}
    assert [hits.get(place) for place in places] == [item and item.value for item in got]
    return [item and item.value for item in got]


def total(reports: Sequence[RecoveryReport], what: str) -> int:
    return sum(getattr(report, what) for report in reports)


async def test_what_a_crash_lost_is_there_again_and_deletions_stay(
    kind: str, durable: LocalCluster, prefix: str
) -> None:
    """Also where nobody calls after it, for every process."""
    settings = {**DURABLE, "key_prefix": prefix}
    async with (
        opened(kind, durable.url, **settings) as face,
        opened(kind, durable.url, **settings) as other,
    ):
        lost, kept = (places_in(durable, prefix, shard, 12) for shard in (0, 1))
        every = lost + kept
        await face.batch([PutOp(place, "k", {"n": 1}) for place in every])
        assert await values(other, every) == [{"n": 1}] * 24
        await asyncio.to_thread(durable.hold_log, 0)
        changes: list[Op] = [PutOp(place, "k", {"n": 2}) for place in every]
        await face.batch(changes)
        await face.batch([PutOp(place, "k", None) for place in every[::3]])
        await other.batch([PutOp(place, "new", {"n": 3}) for place in every])
        await asyncio.to_thread(durable.kill_primary, 0)
        await asyncio.to_thread(durable.wait_healthy)
        await until(lambda: face.reports and other.reports)
        wanted = [None if at % 3 == 0 else {"n": 2} for at in range(24)]
        async with opened(kind, durable.url, **settings) as stranger:
            assert await values(stranger, every) == wanted
        for each in (face, other):
            assert await values(each, every) == wanted
        gets = [GetOp(place, "new") for place in every]
        assert [item.value for item in await face.batch(gets)] == [{"n": 3}] * 24
        assert total(face.reports, "replayed") == 12 + 4
        assert total(other.reports, "replayed") >= 12
        buckets = {told(bucket_of(pack_namespace(place), 16)) for place in lost}
        assert set().union(*(report.rewound for report in face.reports)) == buckets
        assert not total(face.reports, "uncovered")


async def test_calls_go_on_through_a_crash(
    kind: str, durable: LocalCluster, prefix: str, unwatched: None
) -> None:
    """Without a monitor: the next call finds out, and replays before it answers."""
    async with opened(kind, durable.url, key_prefix=prefix, **DURABLE) as face:
        places = places_in(durable, prefix, 0, 6)
        await face.batch([PutOp(place, "k", {"n": 1}) for place in places])
        await asyncio.to_thread(durable.hold_log, 0)
        await face.batch([PutOp(place, "k", {"n": 2}) for place in places])
        await asyncio.to_thread(durable.kill_primary, 0)
        mending = asyncio.ensure_future(asyncio.to_thread(replace_killed, durable))
        mixed: list[Op] = [GetOp(places[0], "k"), PutOp(places[0], "beside", {})]
        [found, _] = await face.batch(mixed)
        assert found.value == {"n": 2}
        assert await values(face, places) == [{"n": 2}] * 6
        await mending


async def test_a_read_waits_for_what_another_process_replays(
    kind: str, durable: LocalCluster, prefix: str, unwatched: None
) -> None:
    settings = {**DURABLE, "key_prefix": prefix, "replay_grace_s": 1.0}
    async with (
        opened(kind, durable.url, **settings) as writer,
        opened(kind, durable.url, **settings) as reader,
    ):
        [place] = places_in(durable, prefix, 0, 1)
        await reader.put(place, "warm", {})
        assert await values(reader, [place]) == [None]
        await asyncio.to_thread(durable.hold_log, 0)
        await writer.put(place, "k", {"n": 1})
        await asyncio.to_thread(durable.kill_primary, 0)
        await asyncio.to_thread(durable.wait_healthy)
        began_s = time.monotonic()
        reading = asyncio.ensure_future(values(reader, [place]))
        await asyncio.sleep(0.1)
        await writer.recover()
        assert await reading == [{"n": 1}]
        assert 0.9 < time.monotonic() - began_s < 3.0


async def test_a_planned_failover_loses_nothing(
    kind: str, plain: LocalCluster, prefix: str
) -> None:
    async with opened(kind, plain.url, key_prefix=prefix, **DURABLE) as face:
        places = places_in(plain, prefix, 0, 4)
        count = 0
        await face.batch([PutOp(place, "k", {"n": count}) for place in places])
        promoting = asyncio.ensure_future(asyncio.to_thread(plain.promote, 0))
        while not promoting.done():
            count += 1
            await face.batch([PutOp(place, "k", {"n": count}) for place in places])
        await promoting
        assert await values(face, places) == [{"n": count}] * 4
        await until(lambda: face.reports)
        assert total(face.reports, "replayed") == 0


async def test_waiting_until_it_is_durable(kind: str, plain: LocalCluster, prefix: str) -> None:
    """And leaving only then."""
    async with opened(kind, plain.url, key_prefix=prefix, durability="none") as face:
        here, there = (places_in(plain, prefix, shard, 1)[0] for shard in (0, 1))

        async def durable(timeout_s: float, *place: Any) -> bool:
            if kind == "async":
                return await face.store.await_durable(timeout_s, *place)
            return await asyncio.to_thread(face.store.wait_durable, timeout_s, *place)

        assert await durable(0)
        await asyncio.to_thread(plain.hold_replication, 0, 60_000)
        await face.batch([PutOp(here, "k", {}), PutOp(there, "k", {})])
        assert await durable(5, there)
        assert not await durable(0.3, here)
        assert not await durable(0)
        await asyncio.to_thread(plain.release_replication, 0)
        assert await durable(5)
        await face.store.aclose(5)
        assert face.uncovered == []


async def test_what_a_process_left_in_the_spool_is_taken_over(
    kind: str, valkey: LocalValkey, prefix: str, tmp_path: Path
) -> None:
    """In a folder of its own, so that a saver beside it keeps to what is the saver's."""
    settings = {"key_prefix": prefix, "spool_dir": tmp_path, **DURABLE}
    async with opened(kind, valkey.url, **settings) as face:
        await face.batch([PutOp(NS, "k", {"n": 1}), PutOp(NS, "gone", {})])
        await face.delete(NS, "gone")
    assert face.uncovered == []
    assert len(list((tmp_path / "store").glob("*.spool"))) == 1
    keys = bucket_keys(f"{prefix}:store", bucket_of(pack_namespace(NS), 16))
    stem = keys.state.removesuffix(b"state")
    left = [b"state", b"index", b"names", b"graves", b"n:" + pack_namespace(NS)]
    left.append(b"i:" + pack_namespace(NS) + b"\x01/k")
    assert [valkey.command("DEL", stem + name) for name in left] == [1] * 6
    async with opened(kind, valkey.url, **settings) as successor:
        assert await successor.value("k") == {"n": 1}
        assert await successor.value("gone") is None
        assert await successor.keys() == ["k"]
