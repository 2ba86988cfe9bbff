"""Items that were put with ``durable=True``: there whatever Valkey loses, and gone when deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from langgraph.store.base import GetOp, PutOp

from langgraph_valkey import ConfigurationError, DurablePut, Unreachable, ValkeyStore, limits
from langgraph_valkey.items import committing, durable, tending
from langgraph_valkey.items.memories import Step, kept, operation, reach
from langgraph_valkey.items.names import bucket_keys, item_name, pack_namespace, told
from langgraph_valkey.items.records import pack
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.operations import Status
from langgraph_valkey.primary.memories import Memory, bucket_key
from tests.durable_ground import BUCKET, Ground, Keys, bring, die_between, look
from tests.failover_ground import until
from tests.store_ground import NS, StoreFace, opened


async def test_it_goes_to_the_primary_store_and_to_valkey(lasting: Ground) -> None:
    face, other = lasting.open(), lasting.open()
    await face.put(NS, "k", {"n": 1}, durable=True)
    assert list(lasting.recorded()) == [item_name(pack_namespace(NS), b"k")]
    first = await other.get(NS, "k")
    assert first.value == {"n": 1}
    await other.put(NS, "k", {"n": 2}, durable=True)
    second = await face.get(NS, "k")
    assert (second.value, second.created_at) == ({"n": 2}, first.created_at)
    assert second.updated_at > first.updated_at
    await face.put(NS, "passing", {})
    await face.delete(NS, "k", durable=True)
    assert await other.keys() == ["passing"]
    [memory] = lasting.recorded().values()
    assert (memory.record, memory.change) == (None, 3)


async def test_without_a_primary_store_it_is_refused(
    kind: str, valkey: LocalValkey, prefix: str
) -> None:
    async with opened(kind, valkey.url, key_prefix=prefix) as face:
        for call in (face.put(NS, "k", {}, durable=True), face.delete(NS, "k", durable=True)):
            with pytest.raises(ConfigurationError, match="primary_store='sqlite:///path'"):
                await call
        with pytest.raises(ConfigurationError, match="Nothing of this batch was stored"):
            await face.batch([PutOp(NS, "l", {}), DurablePut(NS, "k", {})])
        assert await face.keys() == []


async def test_a_url_is_opened_and_closed(
    kind: str, valkey: LocalValkey, prefix: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/own.db"
    async with opened(kind, valkey.url, key_prefix=prefix, primary_store=url) as face:
        await face.setup()
        await face.put(NS, "k", {"n": 1}, durable=True)
        assert await face.value("k") == {"n": 1}


async def test_what_valkey_lost_is_there_again(lasting: Ground, store_keys: Keys) -> None:
    """Found by any read, in each process; in the same order, and what was passing is gone."""
    face, other = lasting.open(), lasting.open()
    for key in ("c", "a", "gone", "b"):
        await face.put(NS, key, {"of": key}, durable=True)
    await face.delete(NS, "gone", durable=True)
    await face.put(NS, "passing", {})
    assert await other.keys() == ["c", "a", "b", "passing"]
    created = [hit.created_at for hit in await face.search(NS)]
    for each in (face, other, lasting.open()):
        store_keys.lose()
        assert await each.keys() == ["c", "a", "b"]
        assert await each.list_namespaces() == [NS]
        assert [hit.created_at for hit in await each.search(NS)] == created[:3]
        store_keys.lose()
        assert [await each.value(key) for key in "cab"] == [{"of": key} for key in "cab"]
        assert await each.value("gone") is None
        store_keys.lose()
        mixed = [GetOp(NS, "a"), PutOp(NS, "passing", {}), GetOp(NS, "gone")]
        [found, _, gone] = await each.batch(mixed)
        assert (found.value, gone) == ({"of": "a"}, None)


async def test_a_deletion_stays_when_valkey_goes_back(lasting: Ground, store_keys: Keys) -> None:
    face, other = lasting.open(), lasting.open()
    await face.put(NS, "gone", {"n": 1}, durable=True)
    await face.put(NS, "k", {"n": 1}, durable=True)
    assert await other.keys() == ["gone", "k"]
    before = store_keys.dump()
    await face.delete(NS, "gone", durable=True)
    await face.put(NS, "k", {"n": 2}, durable=True)
    assert await other.keys() == ["k"]
    for each in (face, other, lasting.open()):
        store_keys.rewind(before)
        lasting.since.clear()
        assert await each.value("gone") is None
        assert set(lasting.since) == {2}  # What is there is not asked for again.
        assert await each.value("k") == {"n": 2}
        assert await each.keys() == ["k"]


async def test_what_a_dead_process_left_is_brought(
    lasting: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once by a process that begins; by one that runs, when it was missing in two rounds."""
    face, other = lasting.open(), lasting.open()
    await face.put(NS, "old", {"n": 1}, durable=True)
    assert await other.value("old") == {"n": 1}
    die_between(face, monkeypatch, "k", {"n": 1})
    assert await lasting.open().value("k") == {"n": 1}
    die_between(face, monkeypatch, "l", {"n": 2})
    die_between(face, monkeypatch, "old", {"n": 2})
    await look(other)
    assert await other.keys() == ["old", "k"]
    await look(other)
    assert await other.value("old") == {"n": 2}
    assert await other.keys() == ["old", "k", "l"]


async def test_the_keeper_brings_it_by_itself(
    lasting: Ground,
    store_keys: Keys,
    unkept: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    valkey: LocalValkey,
) -> None:
    unkept()
    monkeypatch.setattr(tending, "ROUND_S", 0.05)
    monkeypatch.setattr("langgraph_valkey.keeper.ROUND_S", 0.05)
    face = lasting.open()
    await face.put(NS, "k", {"n": 1}, durable=True)
    item = bucket_keys(lasting.space, BUCKET).state.removesuffix(b"state")
    item += b"i:" + item_name(pack_namespace(NS), b"k")
    assert valkey.command("EXISTS", item) == 1
    store_keys.lose()
    await until(lambda: valkey.command("EXISTS", item) == 1)


async def test_several_processes_do_not_repeat_it(lasting: Ground, store_keys: Keys) -> None:
    """The bucket tells how far it is; and what is here is not asked for again."""
    face, other = lasting.open(), lasting.open()
    await face.put(NS, "k", {"n": 1}, durable=True)
    for each in (face, other):
        assert await each.value("k") == {"n": 1}
    store_keys.lose()
    assert await face.value("k") == {"n": 1}
    lasting.asked.clear()
    assert await face.value("k") == await other.value("k") == {"n": 1}
    assert await other.keys() == await face.keys() == ["k"]
    assert "memories" not in lasting.asked
    lasting.asked.clear()
    assert await face.keys() == ["k"]
    assert lasting.asked == []


async def test_a_passing_put_over_a_durable_one_counts_until_that_is_lost(
    lasting: Ground, store_keys: Keys
) -> None:
    face = lasting.open()
    await face.put(NS, "k", {"n": 1}, durable=True)
    await face.put(NS, "l", {"n": 1}, durable=True)
    await face.put(NS, "k", {"n": "passing"})
    await face.delete(NS, "l")
    await look(face, 3)
    # A walk over all there is changes nothing, either.
    answer = bring(face, [operation(each) for each in lasting.recorded().values()], Step())
    assert answer.rest[2] == [b"l", b"l"]
    assert await lasting.open().value("k") == {"n": "passing"}
    assert await lasting.open().value("l") is None
    store_keys.lose()
    assert await face.value("k") == await face.value("l") == {"n": 1}


async def test_changes_count_in_their_order_however_they_arrive(lasting: Ground) -> None:
    face = lasting.open()
    await face.get(NS, "k")
    codec = face.store._buckets.codec

    def change(number: int, value: str | None) -> bytes:
        body = None if value is None else pack(codec, {"is": value}, {})
        new = kept(BUCKET, pack_namespace(NS), b"k", body, born=1, ttl_ms=0)
        return operation(Memory(new.name, new.record, None, number))

    assert reach(bring(face, [change(2, "second")], Step(number=2))).number == 0
    late = bring(face, [change(1, "first")], Step(number=1))
    assert (late.rest[2], reach(late).number) == ([b"l"], 2)
    assert (await face.get(NS, "k")).value == {"is": "second"}
    bring(face, [change(4, None)], Step(number=4))
    answer = bring(face, [change(3, "third")], Step(number=3))
    assert (answer.rest[2], reach(answer).number) == ([b"l"], 4)
    assert await face.value("k") is None


async def test_what_is_lost_while_pages_are_brought_is_noticed(
    lasting: Ground, store_keys: Keys
) -> None:
    """The count must not say that pages are here which were lost with it."""
    face = lasting.open()
    await face.put(NS, "k", {}, durable=True)
    store_keys.lose()
    first = bring(face, [], Step())
    going_on = Step(reach(first).epoch, first.standing.stamp, upto=7)
    store_keys.lose()
    assert bring(face, [], going_on).status is Status.REWOUND
    again = bring(face, [], Step())
    assert bring(face, [], going_on).status is Status.REWOUND
    later = Step(reach(again).epoch, b"%016d" % (int(again.standing.stamp) + 1), upto=7)
    assert bring(face, [], later).status is Status.REWOUND
    last = bring(face, [], later._replace(stamp=again.standing.stamp))
    assert (last.status, reach(last).number) == (Status.OK, 7)


async def test_many_are_brought_in_pages(
    lasting: Ground, store_keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "PAGE", 7)
    face = lasting.open()
    names = [f"{number:03}" for number in range(130)]
    await face.batch([DurablePut(NS, name, {"n": name}) for name in names])
    assert {memory.change for memory in lasting.recorded().values()} == {1, 2, 3}
    store_keys.lose()
    assert await face.keys(limit=999) == names
    many = await asyncio.gather(*(face.value(name) for name in names[:20]))
    assert many == [{"n": name} for name in names[:20]]


async def test_a_batch_reads_what_was_there_before(lasting: Ground) -> None:
    face = lasting.open()
    await face.put(NS, "a", {"n": 1}, durable=True)
    other = ("elsewhere",)
    ops = [
        DurablePut(NS, "a", {"n": 2}),
        GetOp(NS, "a"),
        PutOp(NS, "b", {"n": 3}),
        DurablePut(other, "c", {"n": 4}),
        DurablePut(NS, "both", {"n": 5}),
        PutOp(NS, "both", {"n": 6}),
        GetOp(other, "c"),
    ]
    found = await face.batch(ops)
    assert (found[1].value, found[6]) == ({"n": 1}, None)
    assert [hit.value["n"] for hit in await face.search(NS)] == [2, 3, 6]
    assert await face.value("c", other) == {"n": 4}
    names = {name.rpartition(b"/")[2] for name in lasting.recorded()}
    assert names == {b"a", b"both"}


async def test_what_expired_stays_expired(lasting: Ground, store_keys: Keys) -> None:
    face = lasting.open()
    await face.put(NS, "short", {}, durable=True, ttl=0.4 / 60)
    await face.put(NS, "long", {"n": 1}, durable=True, ttl=5)
    before = store_keys.dump()
    assert await face.keys() == ["short", "long"]
    await asyncio.sleep(0.5)
    store_keys.lose()
    assert await face.value("short") is None
    assert await face.value("long") == {"n": 1}
    store_keys.rewind(before)  # Where they have no end.
    assert await lasting.open().value("long") == {"n": 1}
    store_keys.lose()
    assert await face.keys() == ["long"]
    ends = bucket_keys(lasting.space, BUCKET).state.removesuffix(b"state") + b"ends"
    assert store_keys._server.command("ZCARD", ends) == 1


async def test_an_outage_of_the_primary_store_stops_durable_puts_alone(
    lasting: Ground,
    store_keys: Keys,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    face = lasting.open()
    await face.put(NS, "k", {"n": 1}, durable=True)
    lasting.is_away = True
    caplog.set_level(logging.WARNING, "langgraph_valkey")
    late = lasting.open()
    for each in (face, late):
        for call in (each.put(NS, "k", {"n": 2}, durable=True), each.delete(NS, "k", durable=True)):
            with pytest.raises(Unreachable, match="the primary store is away"):
                await call
    assert not caplog.records
    asked = len(lasting.asked)
    for each in (face, late):
        await each.put(NS, "passing", {"n": 3})
        for _ in range(3):
            assert await each.value("k") == {"n": 1}
            assert await each.keys() == ["k", "passing"]
        await each.delete(NS, "passing")
    assert len(caplog.records) == 2  # One for each process.
    assert len(lasting.asked) == asked + 2
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 5.0)
    monkeypatch.setattr(durable, "AWAY_S", 0.0)
    for each in (face, late):
        assert await each.value("k") == {"n": 1}
    assert len(lasting.asked) == asked + 4
    store_keys.lose()
    assert await face.value("k") is None
    with pytest.raises(Unreachable):
        await look(face)
    lasting.is_away = False
    await look(face)
    assert await face.value("k") == {"n": 1}
    assert await late.value("k") == {"n": 1}
    assert len(caplog.records) == 2


async def test_a_read_does_not_wait_for_ever(
    lasting: Ground, store_keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = lasting.open()
    await face.put(NS, "k", {"n": 1}, durable=True)
    store_keys.lose()
    monkeypatch.setattr(durable, "COMPLETE_S", 0.0)
    with pytest.raises(Unreachable, match=f"{told(BUCKET)}.* Call again"):
        await face.value("k")
    monkeypatch.setattr(durable, "COMPLETE_S", 10.0)
    assert await face.value("k") == {"n": 1}


async def test_a_primary_that_others_have_seen_replaced(
    lasting: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no more believed than another one that was; until it must be that it is back."""
    monkeypatch.setattr(limits, "FORMER_S", 0.4)
    monkeypatch.setattr(committing, "COMPLETE_S", 1.0)
    face = lasting.open()
    await face.put(NS, "k", {"n": 1}, durable=True)
    assert await face.value("k") == {"n": 1}
    finish(lasting.primary.blocking.enter(bucket_key(lasting.space, BUCKET), "f" * 40))
    late = lasting.open()
    began_s = time.monotonic()
    assert await late.value("k") == {"n": 1}
    assert time.monotonic() - began_s > 0.4
    for each in (face, late):
        with pytest.raises(Unreachable, match=r"others have seen replaced.*are recorded"):
            await each.put(NS, "k", {"n": 2}, durable=True)
    monkeypatch.setattr(durable, "MOVED_BACK_S", 0.0)
    await late.put(NS, "k", {"n": 3}, durable=True)
    assert await face.value("k") == {"n": 3}


async def test_many_at_once(lasting: Ground, store_keys: Keys) -> None:
    """Processes put to one bucket at once, and the count keeps up with them."""
    faces = [lasting.open() for _ in range(3)]

    async def work(face: StoreFace, name: str) -> None:
        for number in range(8):
            await face.put(NS, "shared", {"by": name, "n": number}, durable=True)
            await face.put(NS, f"{name} {number}", {"n": number}, durable=True)

    await asyncio.gather(*(work(face, str(at)) for at, face in enumerate(faces)))
    assert reach(bring(faces[0], [], Step())).number == 48
    shared = await faces[0].value("shared")
    newest = max(lasting.recorded().values(), key=lambda each: each.change)
    store_keys.lose()
    assert len(await faces[1].keys(limit=99)) == 25
    assert await faces[2].value("shared") == shared
    assert newest.change == 48


def test_the_default_store_is_as_before(valkey: LocalValkey, prefix: str) -> None:
    """Without a primary store nothing of it is there: no keeper, and nothing is asked."""
    with ValkeyStore(valkey.url, key_prefix=prefix) as store:
        assert store._keeper is None
        store.tend()
        store.put(NS, "k", {"n": 1})
        store.close(0)
