"""Durable items on a real cluster that fails over, splits, and refuses."""

from __future__ import annotations

import asyncio

import pytest
from langgraph.store.base import GetOp

from langgraph_valkey import Unreachable, WriteRejected, limits
from langgraph_valkey.local import LocalCluster
from tests.durable_ground import Ground, look
from tests.test_store_failover import places_in


async def test_a_failover_that_loses_it(
    lasting_on_many: Ground, plain: LocalCluster, prefix: str, kind: str
) -> None:
    face, other = lasting_on_many.open(), lasting_on_many.open()
    [place] = places_in(plain, prefix, 0, 1)
    await face.put(place, "kept", {"n": 1}, durable=True)
    await face.put(place, "gone", {"n": 1}, durable=True)
    assert await other.keys(place) == ["kept", "gone"]
    await asyncio.to_thread(plain.primary(0).command, "WAIT", 1, 5000)
    await asyncio.to_thread(plain.hold_replication, 0, 20_000)
    await face.put(place, "kept", {"n": 2}, durable=True)
    await face.put(place, "new", {"n": 3}, durable=True)
    await face.delete(place, "gone", durable=True)
    await asyncio.to_thread(plain.kill_primary, 0)
    await asyncio.to_thread(plain.force_failover, 0)
    for each in (other, face, lasting_on_many.open()):
        got = await each.batch([GetOp(place, key) for key in ("kept", "new", "gone")])
        assert [item and item.value for item in got] == [{"n": 2}, {"n": 3}, None]
        assert await each.keys(place) == ["kept", "new"]


@pytest.mark.parametrize("kind", ["async"])
async def test_a_primary_that_is_cut_off_is_not_believed(
    lasting_on_many: Ground, plain: LocalCluster, prefix: str
) -> None:
    """It acknowledges what it is told; who reads from its successor must see that, too."""
    stays, reader = lasting_on_many.open(), lasting_on_many.open()
    [place] = places_in(plain, prefix, 2, 1)
    await stays.put(place, "k", {"n": 1}, durable=True)
    assert await reader.value("k", place) == {"n": 1}
    await asyncio.to_thread(plain.split_primary, 2)
    fresh = lasting_on_many.open()
    assert await fresh.value("k", place) == {"n": 1}
    putting = asyncio.ensure_future(stays.put(place, "k", {"n": 2}, durable=True))
    await asyncio.sleep(limits.FORMER_S + 0.5)
    assert not putting.done()
    await asyncio.to_thread(plain.heal, 2)
    await putting
    assert await fresh.value("k", place) == {"n": 2}


@pytest.mark.parametrize("kind", ["sync"])
async def test_what_valkey_refuses_is_recorded(
    lasting_on_many: Ground, plain: LocalCluster, prefix: str
) -> None:
    face = lasting_on_many.open(reject_deadline_s=0.3)
    [place] = places_in(plain, prefix, 1, 1)
    await face.put(place, "k", {"n": 1}, durable=True)
    assert await face.value("k", place) == {"n": 1}
    await asyncio.to_thread(plain.reject_writes, 1)
    with pytest.raises(WriteRejected, match="are recorded in the primary store") as caught:
        await face.put(place, "k", {"n": 2}, durable=True)
    assert caught.value.rejected_s > 0
    assert await face.value("k", place) == {"n": 1}
    with pytest.raises(Unreachable, match="its shard refuses writes"):
        await lasting_on_many.open().value("k", place)  # None would not be true
    await asyncio.to_thread(plain.accept_writes, 1)
    await look(face, 2)
    assert await face.value("k", place) == {"n": 2}
