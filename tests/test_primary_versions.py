"""Versions of documents, on every store and both faces."""

from __future__ import annotations

import asyncio
import random

import pytest

from langgraph_valkey.primary.versions import (
    FORMER_MOST,
    MARK_LENGTH_MAX,
    MARKS_MOST,
    Entered,
    KeptPartition,
    PartitionKey,
    Standing,
    Version,
)
from tests.primary_ground import AWKWARD, Ground

HERE = PartitionKey("handbook", "acme", 0)
THERE = PartitionKey("handbook", "other", 3)


async def walk(ground: Ground, corpus: str, limit: int = 3) -> list[Version]:
    found: list[Version] = []
    after = None
    while True:
        page = await ground.call("versions", corpus, after=after, limit=limit)
        found += page
        if len(page) < limit:
            return found
        after = page[-1].mark


async def test_changes_are_numbered_and_seen(ground: Ground) -> None:
    first = await ground.call("change_versions", "handbook", {"d:1": "a", "d:2": None})
    second = await ground.call("change_versions", "handbook", {"d:1": "b"})
    assert (first.number, second.number) == (1, 2)
    assert first.versions == {"d:1": "a", "d:2": None}
    found = {each.mark: each for each in await walk(ground, "handbook")}
    assert found == {"d:1": Version("d:1", "b", 2), "d:2": Version("d:2", None, 1)}
    assert await walk(ground, "elsewhere") == []


async def test_a_version_can_be_forgotten_again(ground: Ground) -> None:
    await ground.call("change_versions", "handbook", {"d:1": "a"})
    await ground.call("change_versions", "handbook", {"d:1": None})
    assert await walk(ground, "handbook") == [Version("d:1", None, 2)]


async def test_a_walk_of_many_pages_sees_each_version_once(ground: Ground) -> None:
    for first in range(0, 60, 20):
        await ground.call(
            "change_versions", "c", {f"d:{n}": str(n) for n in range(first, first + 20)}
        )
    found = await walk(ground, "c", limit=7)
    assert sorted(each.mark for each in found) == sorted(f"d:{n}" for n in range(60))


async def test_names_may_hold_any_characters(ground: Ground) -> None:
    for name in AWKWARD:
        key = PartitionKey(name, name, 1)
        assert (await ground.call("enter", key, "p1")).accepted
        change = await ground.call("change_versions", name, {name or "x": name})
        assert change.partitions == (KeptPartition(key, "p1"),)
        assert (await walk(ground, name))[0].version == name


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {f"d:{n}": None for n in range(MARKS_MOST + 1)},
        {"d" * (MARK_LENGTH_MAX + 1): None},
        {"d:1": "v" * (MARK_LENGTH_MAX + 1)},
    ],
)
async def test_what_is_too_much_is_refused(ground: Ground, versions: dict[str, str | None]) -> None:
    with pytest.raises(ValueError, match="must"):
        await ground.call("change_versions", "handbook", versions)
    assert await walk(ground, "handbook") == []


async def test_a_change_is_pending_until_it_is_settled(ground: Ground) -> None:
    await ground.call("enter", HERE, "p1")
    change = await ground.call("change_versions", "handbook", {"d:1": "a"})
    [standing, elsewhere] = await ground.call(
        "standing", [HERE, PartitionKey("another", "acme", 0)]
    )
    assert standing.identity == "p1"
    assert 0 <= standing.pending_s < 60
    assert elsewhere == Standing("", None)
    await asyncio.sleep(0.02)
    assert await ground.call("pending_changes", "handbook", older_than_s=0.01, limit=9) == [change]
    assert await ground.call("pending_changes", "another", older_than_s=0, limit=9) == []
    assert await ground.call("pending_changes", "handbook", older_than_s=1000, limit=9) == []
    for _ in range(2):
        await ground.call("settle_change", change)
    assert await ground.call("pending_changes", "handbook", older_than_s=0, limit=9) == []
    assert await ground.call("standing", [HERE]) == [Standing("p1", None)]


async def test_a_replaced_primary_never_counts_again(ground: Ground) -> None:
    assert await ground.call("enter", HERE, "p1") == Entered(accepted=True, since_s=None)
    assert await ground.call("enter", HERE, "p1") == Entered(accepted=True, since_s=None)
    second = await ground.call("enter", HERE, "p2")
    assert (second.accepted, second.since_s) == (True, 0.0)
    assert await ground.call("enter", HERE, "p1") == Entered(accepted=False)
    await asyncio.sleep(0.02)
    again = await ground.call("enter", HERE, "p2")
    assert again.accepted
    assert 0 <= again.since_s < 60
    assert await ground.call("standing", [HERE, THERE]) == [
        Standing("p2", None),
        Standing("", None),
    ]


async def test_only_so_many_former_primaries_are_remembered(ground: Ground) -> None:
    for n in range(FORMER_MOST + 2):
        assert (await ground.call("enter", HERE, f"p{n}")).accepted
    assert not (await ground.call("enter", HERE, "p1")).accepted
    assert (await ground.call("enter", HERE, "p0")).accepted


async def test_each_partition_of_the_corpus_has_to_be_told(ground: Ground) -> None:
    await ground.call("enter", HERE, "p1")
    await ground.call("enter", THERE, "q1")
    await ground.call("enter", PartitionKey("another", "acme", 0), "p1")
    change = await ground.call("change_versions", "handbook", {"d:1": None})
    assert set(change.partitions) == {KeptPartition(HERE, "p1"), KeptPartition(THERE, "q1")}
    await ground.call("forget_partition", THERE)
    change = await ground.call("change_versions", "handbook", {"d:1": None})
    assert change.partitions == (KeptPartition(HERE, "p1"),)


async def test_a_change_and_an_entering_never_miss_each_other(ground: Ground) -> None:
    """The change finds the new primary, or the walk after the entering finds the change."""
    draw = random.Random(5)

    async def change(n: int) -> bool:
        await asyncio.sleep(draw.uniform(0, 0.01))
        made = await ground.call("change_versions", "handbook", {f"d:{n}": str(n)})
        return KeptPartition(HERE, f"p{n}") in made.partitions

    async def enter(n: int) -> bool:
        await asyncio.sleep(draw.uniform(0, 0.01))
        await ground.call("enter", HERE, f"p{n}")
        return any(each.mark == f"d:{n}" for each in await walk(ground, "handbook", limit=50))

    for n in range(12):
        told, copied = await asyncio.gather(change(n), enter(n))
        assert told or copied, n


async def test_concurrent_changes_have_numbers_of_their_own(ground: Ground) -> None:
    changes = await asyncio.gather(
        *(ground.call("change_versions", "handbook", {"d:1": str(n)}) for n in range(8))
    )
    last = max(changes, key=lambda change: change.number)
    assert sorted(change.number for change in changes) == list(range(1, 9))
    assert await walk(ground, "handbook") == [Version("d:1", last.versions["d:1"], 8)]


async def test_many_standings_at_once(ground: Ground) -> None:
    keys = [PartitionKey("handbook", f"tenant {n}", 0) for n in range(450)]
    await ground.call("enter", keys[449], "p1")
    found = await ground.call("standing", keys)
    assert [each.identity for each in found] == [""] * 449 + ["p1"]
