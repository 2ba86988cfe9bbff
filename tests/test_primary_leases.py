"""Leases and tombstones, on every store and both faces."""

from __future__ import annotations

import asyncio
import time

from langgraph_valkey.primary.records import Tombstone
from tests.primary_ground import (
    AWKWARD,
    Ground,
    gathered,
)

LONG_S = 100.0


async def test_a_lease_has_one_holder(ground: Ground) -> None:
    lease = await ground.call("acquire", "report", "me", LONG_S)
    assert (lease.name, lease.ttl_s) == ("report", LONG_S)
    assert await ground.call("acquire", "report", "other", LONG_S) is None
    assert await ground.call("acquire", "another", "other", LONG_S) is not None
    assert await ground.call("renew", lease, "me")
    assert not await ground.call("renew", lease, "other")
    await ground.call("release", lease, "other")
    assert await ground.call("acquire", "report", "other", LONG_S) is None


async def test_who_asks_again_gets_the_same_lease(ground: Ground) -> None:
    lease = await ground.call("acquire", "report", "me", LONG_S)
    assert await ground.call("acquire", "report", "me", LONG_S) == lease


async def test_tokens_only_rise(ground: Ground) -> None:
    tokens = []
    for n in range(3):
        lease = await ground.call("acquire", "report", f"holder {n}", LONG_S)
        tokens.append(lease.token)
        await ground.call("release", lease, f"holder {n}")
        assert not await ground.call("renew", lease, f"holder {n}")
    for n in range(2):
        lease = await ground.call("acquire", "report", f"short {n}", 0.03)
        tokens.append(lease.token)
        await asyncio.sleep(0.05)
    assert tokens == sorted(set(tokens))


async def test_a_request_that_comes_late_takes_nothing(ground: Ground) -> None:
    lease = await ground.call("acquire", "report", "me", LONG_S)
    await ground.call("release", lease, "me")
    assert await ground.call("acquire", "report", "me", LONG_S) is None
    assert await ground.call("acquire", "report", "other", LONG_S) is not None


async def test_a_lease_ends_with_its_time(ground: Ground) -> None:
    lease = await ground.call("acquire", "report", "me", 0.05)
    await asyncio.sleep(0.1)
    assert not await ground.call("renew", lease, "me")
    taken = await ground.call("acquire", "report", "other", LONG_S)
    assert taken.token > lease.token
    await ground.call("release", lease, "me")
    assert await ground.call("renew", taken, "other")


async def test_a_renewed_lease_goes_on(ground: Ground) -> None:
    lease = await ground.call("acquire", "report", "me", 0.4)
    for _ in range(2):
        await asyncio.sleep(0.25)
        assert await ground.call("renew", lease, "me")
    assert await ground.call("acquire", "report", "other", LONG_S) is None


async def test_of_many_at_once_one_gets_it(ground: Ground) -> None:
    leases = await gathered(
        [ground.call("acquire", "report", f"holder {n}", LONG_S) for n in range(12)]
    )
    assert sum(lease is not None for lease in leases) == 1


async def test_names_may_hold_any_characters(ground: Ground) -> None:
    for name in AWKWARD:
        lease = await ground.call("acquire", name, name, LONG_S)
        assert lease.name == name
        assert await ground.call("renew", lease, name)
        assert (await ground.call("bury", name)).thread_id == name
    found = await ground.call("tombstones", since_s=LONG_S, limit=100)
    assert {each.thread_id for each in found} == set(AWKWARD)


# --- tombstones --------------------------------------------------------------------------


async def test_a_deletion_is_recorded_and_confirmed(ground: Ground) -> None:
    assert await ground.call("tombstone", "thread") is None
    made = await ground.call("bury", "thread")
    assert (made.thread_id, made.stamp) == ("thread", "")
    assert abs(made.buried_s - time.time()) < 2
    assert await ground.call("tombstone", "thread") == made
    await ground.call("buried", made, "0000000000000017")
    assert (await ground.call("tombstone", "thread")).stamp == "0000000000000017"
    await ground.call("buried", Tombstone("no such thread", 1.5), "0000000000000017")
    assert await ground.call("tombstone", "no such thread") is None


async def test_a_thread_that_is_deleted_again_has_a_new_tombstone(ground: Ground) -> None:
    first = await ground.call("bury", "thread")
    await ground.call("buried", first, "0000000000000017")
    again = await ground.call("bury", "thread")
    assert again.stamp == ""
    assert again.buried_s >= first.buried_s
    assert await ground.call("tombstones", since_s=LONG_S, limit=5) == [again]


async def test_the_stamp_of_a_deletion_never_goes_back(ground: Ground) -> None:
    """A reader that stood still since it read a tombstone, or a slow first deleter."""
    stamps = [f"{number:016d}" for number in (17, 18, 19)]

    async def stamp() -> str:
        return str((await ground.call("tombstone", "thread")).stamp)

    first = await ground.call("bury", "thread")
    await asyncio.sleep(0.01)
    again = await ground.call("bury", "thread")
    await ground.call("buried", first, stamps[0])
    assert await stamp() == "", "the later deletion was not completed by that"
    await ground.call("buried", again, stamps[1])
    for tomb in (first, again):
        await ground.call("buried", tomb, stamps[0])
        assert await stamp() == stamps[1]
    await ground.call("buried", first, stamps[2])
    assert await stamp() == stamps[2], "the server deleted for the first one last"


async def test_tombstones_come_page_by_page(ground: Ground) -> None:
    made = [await ground.call("bury", f"thread {n}") for n in range(5)]
    found, after = [], None
    while page := await ground.call("tombstones", since_s=LONG_S, after=after, limit=2):
        found += page
        after = (page[-1].buried_s, page[-1].thread_id)
    assert sorted(found, key=lambda each: each.thread_id) == made
    assert [each.buried_s for each in found] == sorted(each.buried_s for each in found)
    await asyncio.sleep(0.25)
    late = await ground.call("bury", "late")
    assert await ground.call("tombstones", since_s=0.2, limit=9) == [late]
