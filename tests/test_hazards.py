"""What once lost a thread, or brought one back: each was found by breaking it."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey import ReplayIncomplete, ThreadDeleted, ValkeySaver
from langgraph_valkey.local import LocalCluster
from langgraph_valkey.stored import pieces
from langgraph_valkey.stored.codec import Codec
from langgraph_valkey.testing import MemoryLink, memory_saver
from tests.faces import checkpoint, config, metadata, numbered_id


def put(saver: ValkeySaver, number: int, parent: int | None, **values: Any) -> Any:
    made, versions = checkpoint(numbered_id(number), values)
    where = config("t", "", numbered_id(parent) if parent else None)
    return saver.put(where, made, metadata(number), versions)


@pytest.mark.parametrize("grows", [1, 3, 40])
def test_a_list_that_grows_while_it_is_put_is_stored_as_it_was(grows: int) -> None:
    """With durability="async" a node may append to a list that is being stored."""
    codec = Codec(JsonPlusSerializer())
    live: list[str] = []
    last: pieces.Value | None = None
    plain_dumps = codec.dumps

    def dumps(value: Any) -> tuple[str, bytes]:
        done = plain_dumps(value)
        if value is live:
            live.extend("more" for _ in range(grows))
        return done

    codec.dumps = dumps  # type: ignore[method-assign]
    for number in range(30):
        live.append(f"element {number} " + "word " * (number * 7 % 90))
        seen = list(live)
        last, plain, _ = encoded = pieces.encode(codec, live, last)
        if last.pieces:
            bodies = [body for _, body in pieces.chunks(encoded)]
            plain, _ = pieces.joined(bodies, [piece.elements for piece in last.pieces])
        assert codec.loads("msgpack", plain) == seen


def test_a_failover_in_the_middle_of_a_sweep_drops_nothing_that_is_used() -> None:
    """A scan's cursor means nothing on another node."""
    text = "word " * 100
    with LocalCluster(shards=3, replicas=1) as cluster, ValkeySaver.from_url(cluster.url) as saver:
        for number in range(300):
            for step in (1, 2):
                made, versions = checkpoint(numbered_id(step), {"value": f"{number} {step} {text}"})
                where = config("t", f"n{number}", numbered_id(step - 1) if step > 1 else None)
                saver.put(where, made, metadata(step), versions)
        shard = cluster.shard_of("{t}")
        link, scans = saver._blocking, 0
        send = link.send

        async def failing_over(calls: Any) -> Any:
            nonlocal scans
            if calls[0].script.name == "sweep" and calls[0].args[0] == b"scan":
                scans += 1
                if scans == 2:
                    cluster.wait_replicated(shard)
                    cluster.promote(shard)
            return await send(calls)

        link.send = failing_over  # type: ignore[method-assign]
        saver.prune(["t"])
        assert scans >= 2
        for number in range(300):
            found = saver.get_tuple(config("t", f"n{number}"))
            assert found is not None
            assert found.checkpoint["channel_values"]["value"] == f"{number} 2 {text}"


def test_a_run_does_not_bring_back_the_thread_it_lost() -> None:
    link = MemoryLink()
    saver, fresh = memory_saver(link), memory_saver(link)
    stored = put(saver, 1, None, value=1)
    saver.delete_thread("t")
    for other in (saver, fresh, memory_saver(link)):
        for _ in range(2):
            with pytest.raises(ThreadDeleted):
                other.put_writes(stored, [("value", 2)], "task")
            with pytest.raises(ThreadDeleted):
                put(other, 2, 1, value=2)
            assert other.get_tuple(config("t")) is None
    put(fresh, 3, None, value=3)
    assert [one.checkpoint["id"] for one in saver.list(config("t"))] == [numbered_id(3)]


def test_a_delta_channel_is_not_stored_without_what_it_builds_upon() -> None:
    link = MemoryLink()
    saver = memory_saver(link, replay=False)
    for number in (1, 2, 3):
        made, versions = checkpoint(numbered_id(number), {"other": number})
        made["channel_versions"]["delta"] = versions["delta"] = f"{number:032}.5"
        about = metadata(number, counters_since_delta_snapshot={"delta": (number, number)})
        where = config("t", "", numbered_id(number - 1) if number > 1 else None)
        if number == 3:
            link.rewind(2)  # The second checkpoint and its writes.
            with pytest.raises(ReplayIncomplete):
                saver.put(where, made, about, versions)
        else:
            stored = saver.put(where, made, about, versions)
            saver.put_writes(stored, [("delta", number)], "task")


def test_a_parent_that_another_saver_put_anew_is_not_trusted() -> None:
    link = MemoryLink()
    one, other = memory_saver(link), memory_saver(link)
    big = "word " * 100
    made, versions = checkpoint(numbered_id(1), {"value": big, "more": 1})
    one.put(config("t"), made, metadata(1), versions)
    again, changed = checkpoint(numbered_id(1), {"value": "other " * 100, "more": 1})
    other.put(config("t"), again, metadata(1), changed)
    other.prune(["t"])
    put(other, 0, None, value=1)
    other.prune(["t"])
    child, versions = checkpoint(numbered_id(2), {"more": 2}, parent=made)
    one.put(config("t", "", numbered_id(1)), child, metadata(2), versions)
    found = one.get_tuple(config("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"value": big, "more": 2}


def test_a_mended_index_expires_with_its_thread() -> None:
    link = MemoryLink()
    saver = memory_saver(link, ttl_s=60)
    put(saver, 1, None, value=1)
    link.evict("index")
    assert len(list(saver.list(config("t")))) == 1
    link.advance(3600)
    assert saver.get_tuple(config("t")) is None
    assert list(link.keys) == []


def test_writes_ahead_of_the_root_of_a_thread_begun_anew_wait_for_it() -> None:
    """LangGraph stores both at once; the writes must not end as those of the old thread."""
    link = MemoryLink()
    saver = memory_saver(link)
    put(saver, 1, None, value=1)
    saver.delete_thread("t")
    pauses: list[float] = []

    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)
        if len(pauses) == 3:
            put(saver, 2, None, value=2)

    link.sleep = sleep  # type: ignore[method-assign]
    saver.put_writes(config("t", "", numbered_id(2)), [("value", "early")], "task")
    found = saver.get_tuple(config("t"))
    assert found is not None
    assert found.pending_writes == [("task", "value", "early")]
    assert len(pauses) == 3
