"""Memories that are kept for good, on every store and both faces."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

import pytest

from langgraph_valkey.primary.memories import (
    MEMORIES_MOST,
    PAGE_BYTES,
    UNTIL_MS_MAX,
    BucketStanding,
    Memory,
    NewMemory,
    Recorded,
    bucket_key,
)
from langgraph_valkey.primary.records import Purged
from langgraph_valkey.sql import database as sql_database
from tests.primary_ground import AWKWARD, Ground, SqlGround

SPACE, HERE, THERE = "agents:store", "3.16", "7.16"
HOUR_MS = 3_600_000


def now_ms() -> int:
    return int(time.time() * 1000)


def new(name: bytes, record: bytes | None = b"1", bucket: str = HERE, **given: Any) -> NewMemory:
    return NewMemory(bucket, name, record, **given)


async def put(ground: Ground, *items: NewMemory, space: str = SPACE) -> Recorded:
    recorded = await ground.call("put_memories", space, items)
    assert isinstance(recorded, Recorded)
    return recorded


async def known(
    ground: Ground, *names: bytes, bucket: str = HERE, space: str = SPACE
) -> dict[bytes, Memory]:
    found = await ground.call("memory", space, bucket, names)
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


async def walk(
    ground: Ground, bucket: str = HERE, *, limit: int = 3, since: int = 0, space: str = SPACE
) -> list[Memory]:
    found: list[Memory] = []
    after = None
    while page := await ground.call(
        "memories", space, bucket, since=since, after=after, limit=limit
    ):
        assert len(page) <= limit
        found += page
        after = page[-1]
    return found


# --- what was put ----------------------------------------------------------------------


async def test_the_last_one_that_was_put_is_what_is_known(ground: Ground) -> None:
    until_ms = now_ms() + HOUR_MS
    assert (await put(ground, new(b"a", b"1"), new(b"b", b"2", until_ms=until_ms))).changes == (
        1,
        1,
    )
    assert (await put(ground, new(b"a", b"3"))).changes == (2,)
    expected = {b"a": Memory(b"a", b"3", None, 2), b"b": Memory(b"b", b"2", until_ms, 1)}
    assert await known(ground, b"a", b"b", b"a", b"unknown") == expected
    assert {each.name: each for each in await walk(ground)} == expected
    assert await known(ground) == {}
    assert (await put(ground, new(b"b", b"4"))).changes == (3,)
    assert await known(ground, b"b") == {b"b": Memory(b"b", b"4", None, 3)}


async def test_buckets_and_spaces_are_apart(ground: Ground) -> None:
    both = await put(ground, new(b"a", b"1"), new(b"a", b"2", THERE), new(b"b", b"3", THERE))
    assert both == Recorded((1, 1, 1), {HERE: "", THERE: ""})
    assert (await put(ground, new(b"a", b"4", THERE), new(b"a", b"5"))).changes == (2, 2)
    assert (await put(ground, new(b"a", b"6"), space="another")).changes == (1,)
    assert (await known(ground, b"a"))[b"a"].record == b"5"
    assert (await known(ground, b"a", bucket=THERE))[b"a"].record == b"4"
    assert (await known(ground, b"a", space="another"))[b"a"].record == b"6"
    assert {each.name for each in await walk(ground, THERE)} == {b"a", b"b"}
    assert await walk(ground, "elsewhere") == []


async def test_of_two_for_one_item_the_last_is_put(ground: Ground) -> None:
    given = [new(b"a", b"1"), new(b"b", b"2"), new(b"a", None), new(b"a", b"3")]
    assert (await put(ground, *given)).changes == (0, 1, 0, 1)
    assert {name: each.record for name, each in (await known(ground, b"a", b"b")).items()} == {
        b"a": b"3",
        b"b": b"2",
    }


async def test_a_deletion_is_known_until_the_item_is_put_again(ground: Ground) -> None:
    await put(ground, new(b"a", b"1", until_ms=now_ms() + HOUR_MS))
    assert (await put(ground, new(b"a", None), new(b"never there", None))).changes == (2, 2)
    gone = {name: Memory(name, None, None, 2) for name in (b"a", b"never there")}
    assert await known(ground, b"a", b"never there") == gone
    assert {each.name: each for each in await walk(ground)} == gone
    assert (await put(ground, new(b"a", b"2"))).changes == (3,)
    assert await known(ground, b"a") == {b"a": Memory(b"a", b"2", None, 3)}


async def test_what_has_expired_is_known_to_be_gone(ground: Ground) -> None:
    """An older record of the item, which a server came back with, must not count instead."""
    await put(ground, new(b"a", b"older"))
    past_ms, soon_ms = now_ms() - 60_000, now_ms() + 250
    await put(ground, new(b"a", b"newer", until_ms=past_ms), new(b"b", b"1", until_ms=soon_ms))
    assert await known(ground, b"a") == {b"a": Memory(b"a", None, past_ms, 2)}
    assert Memory(b"a", None, past_ms, 2) in await walk(ground)
    await asyncio.sleep(0.3)
    gone = Memory(b"b", None, soon_ms, 2)
    assert await known(ground, b"b") == {b"b": gone}
    assert gone in await walk(ground)


async def test_names_and_records_may_be_of_any_bytes(ground: Ground) -> None:
    texts = [text.encode("utf-8", "surrogatepass") for text in AWKWARD]
    names = [b"", b"\0", bytes(range(256)), b"n" * 3000, *texts]
    await put(ground, *(new(name, name) for name in names))
    assert {name: each.record for name, each in (await known(ground, *names)).items()} == {
        name: name for name in names
    }
    assert sorted(each.name for each in await walk(ground, limit=2)) == sorted(names)


async def test_spaces_and_buckets_may_hold_any_characters(ground: Ground) -> None:
    for name in AWKWARD:
        assert (await ground.call("enter", bucket_key(name, name), "p1")).accepted
        recorded = await put(ground, new(b"a", b"1", name), space=name)
        assert recorded == Recorded((1,), {name: "p1"})
        assert [each.name for each in await walk(ground, name, space=name)] == [b"a"]
    assert await ground.call("memory_standing", "a", ["b", "a\0b"]) == [BucketStanding("", 0)] * 2


# --- bounds ----------------------------------------------------------------------------


async def test_what_is_too_much_is_refused(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    """By a text that says nothing of what it is about."""
    caplog.set_level(logging.DEBUG, "langgraph_valkey")
    room = ground.primary.room
    secret = b"secret-7f3a"
    large = secret * (room.memory_bytes_max // len(secret) + 1)
    of_half = bytes(room.memory_bytes_max // 2)
    so_many = room.memories_bytes_max // len(of_half) + 1
    refused: list[tuple[list[NewMemory], str]] = [
        ([], "1 to 50"),
        ([new(b"%d" % n) for n in range(MEMORIES_MOST + 1)], "1 to 50"),
        ([new(b"a"), new(secret, large)], "memory 2 of 2 takes .* store its contents"),
        ([new(large)], "memory 1 of 1 takes"),
        ([new(b"%d" % n, of_half) for n in range(so_many)], "make several"),
        ([new(secret, until_ms=-1)], "between 1970 and 2286"),
        ([new(secret, until_ms=UNTIL_MS_MAX + 1)], "between 1970 and 2286"),
        ([new(secret, None, until_ms=1)], "can't expire as well"),
    ]
    for items, why in refused:
        with pytest.raises(ValueError, match=why) as failure:
            await put(ground, *items)
        assert "secret" not in f"{failure.value!r}{caplog.text}"
    assert await walk(ground) == []
    assert await ground.call("memory_standing", SPACE, [HERE]) == [BucketStanding("", 0)]


async def test_what_is_just_not_too_much_is_kept(sql_ground: SqlGround) -> None:
    """On DynamoDB: see `test_primary_memories_lost`."""
    ground, room = sql_ground, sql_ground.primary.room
    most = new(b"n" * 1000, bytes(room.memory_bytes_max - 1000), until_ms=UNTIL_MS_MAX)
    await put(ground, most)
    [found] = await walk(ground, limit=1)
    assert found == Memory(most.name, most.record, UNTIL_MS_MAX, 1)
    each = room.memories_bytes_max // MEMORIES_MOST
    spread = [new(b"n", bytes(each - 1), f"bucket {n}") for n in range(MEMORIES_MOST)]
    assert (await put(ground, *spread)).changes == (1,) * MEMORIES_MOST


def test_neither_names_nor_records_are_shown() -> None:
    shown = f"{new(b'secret', b'secret')!r}{Memory(b'secret', b'secret', None, 1)!r}"
    assert "secret" not in shown


# --- walks -----------------------------------------------------------------------------


async def test_a_walk_of_many_pages_sees_each_memory_once(ground: Ground) -> None:
    for first in range(0, 60, 20):
        await put(ground, *(new(b"%d" % n) for n in range(first, first + 20)))
    await put(ground, *(new(b"%d" % n, None) for n in range(0, 60, 4)))
    await put(ground, new(b"elsewhere", b"1", THERE))
    found = await walk(ground, limit=7)
    assert sorted(each.name for each in found) == sorted(b"%d" % n for n in range(60))
    assert {each.name for each in found if each.record is None} == {
        b"%d" % n for n in range(0, 60, 4)
    }
    assert await walk(ground, limit=7) == found


async def test_a_walk_may_begin_after_a_change(ground: Ground) -> None:
    for n in range(8):
        await put(ground, new(b"%d" % n), new(b"of all", b"%d" % n))
    found = await walk(ground, since=5, limit=1)
    assert {each.name: each.change for each in found} == {b"5": 6, b"6": 7, b"7": 8, b"of all": 8}
    assert len(found) == 4
    assert await walk(ground, since=8) == []


async def test_what_is_put_meanwhile_does_not_hide_what_was_there(ground: Ground) -> None:
    names = [b"%d" % n for n in range(12)]
    await put(ground, *(new(name, b"old") for name in names))
    first = await ground.call("memories", SPACE, HERE, limit=4)
    for name in names:
        await put(ground, new(name, b"new"))
    found, after = list(first), first[-1]
    while page := await ground.call("memories", SPACE, HERE, after=after, limit=4):
        found += page
        after = page[-1]
    assert {each.name for each in found} == set(names)
    assert {each.name for each in found if each.record == b"new"} >= set(names) - {
        each.name for each in first
    }


async def test_a_page_ends_when_it_is_large(ground: Ground) -> None:
    size = PAGE_BYTES // 4
    for n in range(10):
        await put(ground, new(b"%d" % n, bytes(size)))
    page = await ground.call("memories", SPACE, HERE, limit=100)
    assert 1 <= len(page) <= 5
    assert len(await walk(ground, limit=100)) == 10


# --- at once ---------------------------------------------------------------------------


async def test_concurrent_puts_of_one_item_have_one_winner(ground: Ground) -> None:
    puts = await asyncio.gather(*(put(ground, new(b"a", b"%d" % n)) for n in range(8)))
    numbers = [each.changes[0] for each in puts]
    assert sorted(numbers) == list(range(1, 9))
    winner = b"%d" % numbers.index(8)
    assert await known(ground, b"a") == {b"a": Memory(b"a", winner, None, 8)}


async def test_puts_into_the_same_buckets_don_t_stand_in_each_other_s_way(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their order: none waits for one who waits for it, so none has to be undone."""
    monkeypatch.setattr(sql_database, "TRIES_MOST", 1)
    draw = random.Random(6)
    buckets = [f"{n}.16" for n in range(4)]

    async def one(n: int) -> Recorded:
        order = draw.sample(buckets, len(buckets))
        return await put(ground, *(new(b"a", b"%d" % n, bucket) for bucket in order))

    puts = await asyncio.gather(*(one(n) for n in range(8)))
    assert sorted(each.changes for each in puts) == [(n,) * 4 for n in range(1, 9)]
    winner = b"%d" % [each.changes[0] for each in puts].index(8)
    for bucket in buckets:
        assert (await known(ground, b"a", bucket=bucket))[b"a"].record == winner


# --- who counts ------------------------------------------------------------------------


async def test_a_put_is_told_whose_copy_counts(ground: Ground) -> None:
    assert (await ground.call("enter", bucket_key(SPACE, HERE), "p1")).accepted
    recorded = await put(ground, new(b"a"), new(b"a", bucket=THERE))
    assert recorded == Recorded((1, 1), {HERE: "p1", THERE: ""})
    assert (await ground.call("enter", bucket_key(SPACE, HERE), "p2")).accepted
    assert (await put(ground, new(b"a", None))).identities == {HERE: "p2"}
    assert await ground.call("memory_standing", SPACE, [THERE, HERE, "new", HERE]) == [
        BucketStanding("", 1),
        BucketStanding("p2", 2),
        BucketStanding("", 0),
        BucketStanding("p2", 2),
    ]
    assert await ground.call("memory_standing", SPACE, []) == []


async def test_many_at_once_are_asked_for(ground: Ground) -> None:
    buckets = [f"{n}.450" for n in range(450)]
    await put(ground, new(b"3", bucket=buckets[449]), new(b"449", bucket=buckets[449]))
    await ground.call("enter", bucket_key(SPACE, buckets[449]), "p1")
    found = await ground.call("memory_standing", SPACE, buckets)
    assert found == [BucketStanding("", 0)] * 449 + [BucketStanding("p1", 1)]
    names = [b"%d" % n for n in range(450)]
    assert set(await known(ground, *names, bucket=buckets[449])) == {b"3", b"449"}


async def test_a_put_and_an_entering_never_miss_each_other(ground: Ground) -> None:
    """The put finds the new primary, or the walk after the entering finds what was put."""
    draw = random.Random(5)

    async def putting(n: int) -> bool:
        await asyncio.sleep(draw.uniform(0, 0.01))
        recorded = await put(ground, new(b"%d" % n))
        return recorded.identities[HERE] == f"p{n}"

    async def enter(n: int) -> bool:
        await asyncio.sleep(draw.uniform(0, 0.01))
        await ground.call("enter", bucket_key(SPACE, HERE), f"p{n}")
        return b"%d" % n in {each.name for each in await walk(ground, limit=50)}

    for n in range(12):
        told, copied = await asyncio.gather(putting(n), enter(n))
        assert told or copied, n


# --- upkeep ----------------------------------------------------------------------------


async def test_only_what_is_gone_for_so_long_is_dropped(ground: Ground) -> None:
    now = now_ms()
    await put(
        ground,
        *(new(b"lives"), new(b"lives on", until_ms=now + HOUR_MS), new(b"deleted", None)),
        *(new(b"back again", None), new(b"expired", until_ms=now - HOUR_MS)),
    )
    await put(ground, new(b"back again"))
    await asyncio.sleep(0.02)
    assert await ground.call("purge", 0.001, 2 * HOUR_MS / 1000) == Purged(0, 0, 0)
    assert await ground.call("purge", 60.0, HOUR_MS / 1000 - 60) == Purged(0, 0, 0, memories=1)
    assert set(await known(ground, b"expired", b"deleted")) == {b"deleted"}
    assert await ground.call("purge", 0.01) == Purged(0, 0, 0, memories=1)
    assert {each.name for each in await walk(ground)} == {b"lives", b"lives on", b"back again"}
    assert (await put(ground, new(b"deleted"))).changes == (3,), "numbers go on"
