"""Failovers that lose what the store was told: what comes back, and what must not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.store.base import GetOp, Op, PutOp, SearchOp

from tests.loss_world import Hiding
from tests.store_replay_ground import BUCKET, NS, OTHER, World, values


def test_what_was_acknowledged_is_there_again_at_the_next_read(world: World) -> None:
    store = world.process()
    store.put(NS, "durable", {"n": 1})
    before = store.get(NS, "durable")
    assert before is not None
    store.batch([PutOp(NS, "lost", {"n": 1}), PutOp(OTHER, "far", {"n": 1})])
    store.put(NS, "durable", {"n": 2})
    store.delete(OTHER, "far")
    lost = store.get(NS, "lost")
    world.rewind(4)
    assert store.get(NS, "lost") == lost
    assert values(store) == {"durable": {"n": 2}, "lost": {"n": 1}}
    after = store.get(NS, "durable")
    assert after is not None
    assert after.created_at == before.created_at < after.updated_at
    report = world.report(store)
    assert BUCKET in report.rewound
    assert (report.replayed, report.already_there, report.incomplete) == (4, 1, ())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("last", ["put", "delete"])
def test_the_last_one_wins_whoever_replays_first(
    world: World, order: Sequence[int], last: str
) -> None:
    stores = [world.process(), world.process()]
    stores[0].put(NS, "k", {"by": 0})
    if last == "put":
        stores[1].put(NS, "k", {"by": 1})
    else:
        stores[1].delete(NS, "k")
    world.rewind(2)
    for at in order:
        stores[at].recover()
    for store in stores:
        assert values(store) == ({"k": {"by": 1}} if last == "put" else {})


@pytest.mark.parametrize("lost", [1, 2])
def test_what_was_deleted_does_not_come_back(world: World, lost: int) -> None:
    """Neither where the server lost the deletion, nor where it lost the item, too."""
    writer, deleter = world.process(), world.process()
    writer.put(NS, "k", {})
    deleter.delete(NS, "k")
    world.rewind(lost)
    assert deleter.get(NS, "k") is None
    writer.recover()
    for store in (writer, deleter):
        assert store.get(NS, "k") is None
        assert values(store) == {}
        assert store.list_namespaces() == []


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_has_expired_does_not_come_back(world: World, lost: int) -> None:
    """Nor does what stood there before it."""
    writer, other = world.process(), world.process()
    writer.put(NS, "k", {"n": 1})
    other.put(NS, "k", {"n": 2}, ttl=0.1)
    world.advance(1)
    writer.put(OTHER, "beside", {})
    world.advance(6)
    world.rewind(lost and lost + 1)
    other.recover()
    writer.recover()
    other.recover()
    assert values(writer) == values(other) == {"beside": {}}


def test_what_expires_later_has_its_end_again(world: World) -> None:
    store = world.process()
    store.put(NS, "k", {}, ttl=1)
    world.rewind()
    assert store.get(NS, "k", refresh_ttl=False) is not None
    world.advance(59 - world.now())
    assert store.get(NS, "k", refresh_ttl=False) is not None
    world.advance(1.1)
    assert store.get(NS, "k", refresh_ttl=False) is None


@pytest.mark.parametrize("how", ["get", "search"])
@pytest.mark.parametrize("config", [None, {"default_ttl": 1.0}])
def test_an_end_that_was_put_off_by_a_read_stays_so(world: World, how: str, config: Any) -> None:
    """Give or take a sixteenth of the item's time, also of the reader's own item."""
    store = world.process(ttl=config)
    store.put(NS, "k", {}, ttl=1)
    world.advance(50)
    if how == "get":
        store.get(NS, "k")
    else:
        store.search(NS)
    world.rewind()
    world.advance(55)
    store.recover()
    assert store.get(NS, "k", refresh_ttl=False) is not None
    world.advance(6)
    assert store.get(NS, "k", refresh_ttl=False) is None


@pytest.mark.parametrize("op", [GetOp(NS, "k"), SearchOp(NS), SearchOp((), filter={"n": 1})])
def test_what_was_read_is_there_again(world: World, op: Any) -> None:
    """Its writer is gone with the primary; its reader has built upon it."""
    writer, reader = world.process(), world.process()
    writer.batch([PutOp(NS, "k", {"n": 1}), PutOp(NS, "unread", {})])
    [found] = reader.batch([op._replace(limit=1) if isinstance(op, SearchOp) else op])
    item = found[0] if isinstance(found, list) else found
    world.stores.remove(writer)
    world.rewind(2)
    assert reader.get(NS, "unread") is None
    again = reader.get(NS, "k")
    assert again is not None
    assert (again.value, again.created_at) == (item.value, item.created_at)  # type: ignore


def test_a_read_waits_for_what_other_processes_replay(world: World) -> None:
    writer, reader = world.process(), world.process()
    reader.put(OTHER, "warm", {})
    for op in (GetOp(NS, "k"), SearchOp(NS)):
        writer.put(NS, "k", {})
        assert reader.get(NS, "k") is not None
        world.rewind()
        began_s = world.now()
        [found] = reader.batch([op])
        assert found
        assert 1.9 < world.now() - began_s < 3.0
        writer.delete(NS, "k")
        world.advance(5)


def test_a_batch_that_reads_and_writes_after_a_failover(world: World) -> None:
    """What it reads is complete, and what it writes wins."""
    store, other = world.process(), world.process()
    ops: list[Op] = [
        GetOp(NS, "k"),
        GetOp(OTHER, "k"),
        PutOp(NS, "mine", {"n": 1}),
        PutOp(OTHER, "k", {}),
    ]
    store.batch(ops)
    other.batch([PutOp(NS, "k", {"n": 1}), PutOp(OTHER, "k", {"n": 1})])
    world.rewind(4)
    found = store.batch(ops)
    assert [each and each.value for each in found[:2]] == [{"n": 1}] * 2  # type: ignore
    after = [GetOp(NS, "k"), GetOp(NS, "mine"), GetOp(OTHER, "k")]
    assert [each.value for each in store.batch(after)] == [{"n": 1}, {"n": 1}, {}]  # type: ignore


def test_a_whole_bucket_that_is_lost(world: World) -> None:
    store = world.process()
    store.batch([PutOp((str(n),), "k", {"n": n}) for n in range(40)])
    world.rewind(99)
    assert world.keys == []
    assert values(store)
    assert len(store.search((), limit=99)) == 40
    assert store.list_namespaces(limit=99) == sorted((str(n),) for n in range(40))


@pytest.mark.parametrize("lost", [1, 3])
def test_a_server_that_hides_who_it_is(world: World, lost: int) -> None:
    """What it lost shows by what it has: at a read, and at a write."""
    world._server.__class__ = Hiding
    store = world.process()
    store.put(NS, "a", {"n": 1})
    for name in ("b", "c"):
        store.put(NS, name, {"n": 1})
    world.rewind(lost)
    if lost == 1:
        store.put(NS, "d", {"n": 1})
    assert sorted(values(store)) == ["a", "b", "c", "d"][: 4 if lost == 1 else 3]


def test_a_write_meets_what_was_lost_before_it(world: World) -> None:
    """Another primary refuses it until this process has replayed what it knows."""
    store = world.process()
    store.put(NS, "k", {"n": 1})
    first = store.get(NS, "k")
    world.rewind()
    world.calls.clear()
    store.put(NS, "k", {"n": 2})
    assert world.calls == ["turn", "join", "turn"]
    second = store.get(NS, "k")
    assert first is not None
    assert second is not None
    assert second.created_at == first.created_at


def test_a_deletion_that_is_lost_with_its_process(world: World) -> None:
    """What it deleted is there again, as it was last; not as it was before that."""
    writer, deleter = world.process(), world.process()
    writer.put(NS, "k", {"n": 1})
    mark = len(world._applied)
    writer.put(NS, "k", {"n": 2})
    world.rewind()
    deleter.delete(NS, "k")
    assert writer.get(NS, "k") is None
    world.stores.remove(deleter)
    world.rewind(len(world._applied) - mark)
    found = writer.get(NS, "k")
    assert found is not None
    assert found.value == {"n": 2}


def test_what_has_expired_is_known_until_that_is_durable(world: World) -> None:
    """Though a failover loses it twice: what it replaced must not come back."""
    store = world.process()
    store.put(NS, "k", {"n": 1})
    mark = len(world._applied)
    store.put(NS, "k", {"n": 2}, ttl=0.1)
    world.advance(7)
    for _ in range(2):
        world.rewind(len(world._applied) - mark)
        assert store.get(NS, "k") is None
