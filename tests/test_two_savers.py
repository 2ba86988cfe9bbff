"""Two savers on one thread: what one knows of the server, the other may have changed.

A saver remembers what it stored, so as not to send it again. These tests make
that memory wrong: the other saver adds, prunes, deletes, or keys vanish. Each
put must then end whole, or be refused; never lean on something that is gone.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_valkey import ValkeySaver, limits
from langgraph_valkey.errors import ThreadDeleted
from langgraph_valkey.link import Call, Link
from tests.faces import (
    FACES,
    Face,
    Twin,
    assert_equal,
    checkpoint,
    config,
    metadata,
    numbered_id,
    open_face,
)
from tests.raw_server import raw_server

PREFIX_BYTES = 6


class Two:
    """Two savers with the same keys, and one InMemorySaver beside both."""

    def __init__(self, first: Face, second: Face) -> None:
        self.twins: Sequence[Twin] = (Twin(first), Twin(second))
        self.twins[1].oracle = self.twins[0].oracle
        self.twins[1].last = self.twins[0].last
        self.first, self.second = first, second

    async def check(self, *thread_ids: str) -> None:
        for twin in self.twins:
            await twin.check(*thread_ids)


@pytest.fixture
def prefix() -> str:
    return f"t{os.urandom(PREFIX_BYTES).hex()}"


@pytest.fixture(params=FACES)
async def two(request: pytest.FixtureRequest, valkey: Any, prefix: str) -> AsyncIterator[Two]:
    async with (
        open_face(request.param, valkey.url, key_prefix=prefix) as first,
        open_face(request.param, valkey.url, key_prefix=prefix) as second,
    ):
        yield Two(first, second)


def state(number: int) -> list[str]:
    """A list of several groups of elements that grows from step to step."""
    return [f"element {n} " + "word " * 20 for n in range(20 * number)]


async def begin(two: Two, count: int = 5) -> None:
    """The first saver fills a thread; the second has read all of it."""
    for number in range(1, count + 1):
        about = metadata(number, run_id=f"run {number}")
        await two.twins[0].step("t", number, about=about, state=state(number), fixed=state(3))
    await two.check("t")


async def test_taking_turns(two: Two) -> None:
    for number in range(1, 12):
        await two.twins[number % 2].step("t", number, state=state(number), fixed=state(2))
        await two.twins[number % 2].step("t", number + 20, "child", state=state(number))
    await two.check("t")


async def test_each_on_a_branch_of_its_own(two: Two) -> None:
    await begin(two)
    fork = two.twins[0].last["t", ""]
    for number in range(6, 12):
        twin = two.twins[number % 2]
        made, new_versions = checkpoint(
            numbered_id(number), {"state": [*state(4), number]}, parent=fork
        )
        await twin.put(config("t", "", fork["id"]), made, metadata(number), new_versions)
    await two.check("t")


@pytest.mark.parametrize("pruned", ["keep_latest", "runs", "last run"])
async def test_going_on_after_the_other_removed_checkpoints(two: Two, pruned: str) -> None:
    await begin(two)
    if pruned == "keep_latest":
        await two.second.aprune(["t"])
    elif pruned == "runs":
        await two.second.adelete_for_runs(["run 1", "run 2", "run 4"])
    else:
        await two.second.adelete_for_runs(["run 5"])
    for number in (6, 7):
        await two.twins[0].step("t", number, state=state(number))
        for face in (two.first, two.second):
            found = await face.aget_tuple(config("t"))
            assert_equal(found, two.twins[0].oracle.get_tuple(config("t")))
    for found in await two.second.listed(config("t")):
        assert_equal(found, two.twins[0].oracle.get_tuple(found.config))


async def test_a_deleted_thread_is_not_brought_back_by_a_run_in_flight(two: Two) -> None:
    await begin(two)
    await two.twins[1].delete("t")
    made, new_versions = checkpoint(
        numbered_id(6), {"state": state(6)}, parent=two.twins[0].last["t", ""]
    )
    with pytest.raises(ThreadDeleted) as refused:
        await two.first.aput(config("t", "", numbered_id(5)), made, metadata(6), new_versions)
    assert refused.value.thread_id == "t"
    for face in (two.first, two.second):
        assert await face.aget_tuple(config("t")) is None
        assert await face.listed(None) == []


@pytest.mark.parametrize("removal", ["delete", "prune"])
async def test_a_list_that_is_open_while_the_other_removes(two: Two, removal: str) -> None:
    """Each checkpoint it still yields is whole; then it ends."""
    count = 2 * limits.LIST_PAGE + 10
    stored: dict[str, Any] = {}
    for number in range(count):
        made, new_versions = checkpoint(numbered_id(number), {"state": state(2), "n": number})
        await two.first.aput(config("t"), made, metadata(number), new_versions)
        stored[made["id"]] = made["channel_values"]
    yielded = []
    async for found in two.first.alist(config("t")):
        assert found.checkpoint["channel_values"] == stored[found.checkpoint["id"]]
        yielded.append(found.checkpoint["id"])
        if len(yielded) == 5:
            await (
                two.second.adelete_thread("t") if removal == "delete" else two.second.aprune(["t"])
            )
    assert yielded == sorted(stored, reverse=True)[: len(yielded)]
    assert 5 <= len(yielded) <= limits.LIST_PAGE


async def test_a_list_that_is_left_early(two: Two) -> None:
    await begin(two)
    for _ in range(3):
        async for found in two.first.alist(config("t")):
            assert found.checkpoint["id"] == numbered_id(5)
            break
    gc.collect()  # what was left open is closed now, without a warning
    await asyncio.sleep(0)
    await two.check("t")


@pytest.mark.parametrize("deleter", [0, 1])
async def test_a_deleted_thread_may_begin_anew(two: Two, deleter: int) -> None:
    for turn in range(3):
        await begin(two)
        await two.twins[deleter].delete("t")
        await two.check("t")
        two.twins[0].last.clear()
        await two.twins[turn % 2].step("t", 1, state=state(2), fixed=state(3))
        await two.check("t")
        two.twins[0].last.clear()


@pytest.mark.parametrize("vanished", ["state", "index", "all"])
async def test_a_put_heals_a_thread_whose_keys_vanished(
    two: Two, valkey: Any, prefix: str, vanished: str
) -> None:
    """As by eviction: what the put brings along is whole again."""
    await begin(two)
    with raw_server(valkey.url) as raw:
        for key in raw.keys(prefix):
            if vanished == "all" or key.endswith(vanished.encode()):
                raw.do("DEL", key)
    await two.twins[0].step("t", 6, state=state(6))
    for face in (two.first, two.second):
        found = await face.aget_tuple(config("t"))
        assert_equal(found, two.twins[0].oracle.get_tuple(config("t")))
    for found in await two.second.listed(config("t")):
        assert_equal(found, two.twins[0].oracle.get_tuple(found.config))


async def test_unchanged_channels_by_version_from_a_parent_of_the_other(two: Two) -> None:
    """Only what changed stands in ``channel_values``; this saver has not seen the rest yet."""
    for parent, number in ((5, 6), (2, 7), (6, 8)):  # the head; an older one; one of its own
        if number == 6:
            for step in range(1, 6):
                await two.twins[0].step("t", step, state=state(step), fixed="small")
        oracle: InMemorySaver = two.twins[0].oracle
        where = config("t", "", numbered_id(parent))
        before = oracle.get_tuple(where)
        assert before is not None
        made, new_versions = checkpoint(
            numbered_id(number), {"other": number}, parent=before.checkpoint
        )
        made["channel_values"] = {"other": number}
        stored = await two.twins[1].put(where, made, metadata(number), new_versions)
        found = await two.twins[0].get(stored)
        assert found is not None
        assert found.checkpoint["channel_values"] == {
            **before.checkpoint["channel_values"],
            "other": number,
        }


@pytest.mark.parametrize("upkeep", ["prune", "delete_for_runs"])
async def test_upkeep_while_a_writer_goes_on(two: Two, upkeep: str) -> None:
    """Chunks that are swept away are not those that a put just then leans on."""
    least, last, rounds, done = 60, 0, 0, asyncio.Event()
    twin = two.twins[0]

    async def write() -> None:
        nonlocal last
        while last < least or rounds < 2 or last % 3:  # The last is of a run that stays.
            last = number = last + 1
            # Elements come, go and come again, so that swept chunks are wanted anew.
            value = [*state(1 + number % 5), number]
            about = metadata(number, run_id=f"run {number % 3}")
            await twin.step("t", number, about=about, state=value, fixed=state(number % 2))
        done.set()

    async def tidy() -> None:
        nonlocal rounds
        while not done.is_set():
            if upkeep == "prune":
                await two.second.aprune(["t"])
            else:
                await two.second.adelete_for_runs(["run 1", "run 2"])
            rounds += 1
            await asyncio.sleep(0)

    await asyncio.gather(write(), tidy())
    listed = list(await two.second.listed(config("t")))
    assert listed[0].checkpoint["id"] == numbered_id(last)
    for found in listed:
        assert_equal(found, twin.oracle.get_tuple(found.config))


class Between:
    """A link of another saver's that does something just before its sweep drops chunks."""

    def __init__(self, link: Link, act: Callable[[], None]) -> None:
        self._link, self._act = link, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def send(self, calls: Sequence[Call]) -> list[Any]:
        if any(call.script.name == "sweep" and b"drop" in call.args for call in calls):
            self._act()
        return await self._link.send(calls)


@pytest.mark.parametrize("puts", ["child of the removed", "anew", "not at all"])
def test_a_put_between_the_marks_and_the_sweep(valkey: Any, prefix: str, puts: str) -> None:
    """It leans on chunks that no record needed when they were counted."""
    acted: list[str] = []
    with ValkeySaver.from_url(valkey.url, key_prefix=prefix) as writer:
        first, versions = checkpoint(numbered_id(1), {"state": ["kept"]})
        root = writer.put(config("t"), first, metadata(1, run_id="kept"), versions)
        second, versions = checkpoint(numbered_id(2), {"state": state(5)}, parent=first)
        writer.put(root, second, metadata(2, run_id="removed"), versions)
        third, versions = checkpoint(numbered_id(3), {"other": 1}, parent=second)

        def act() -> None:
            acted.append(puts)
            if puts == "child of the removed":
                where = config("t", "", numbered_id(2))
                writer.put(where, third, metadata(3), versions)
            elif puts == "anew":
                writer.put(root, third, metadata(3), {"state": "", "other": ""})

        link = cast(Link, Between(writer._blocking, act))
        ValkeySaver.over(link, key_prefix=prefix).delete_for_runs(["removed"])
        assert acted == [puts]
        found = [one.checkpoint["channel_values"] for one in writer.list(config("t"))]
        expected = [first["channel_values"]]
        assert found == (expected if puts == "not at all" else [third["channel_values"], *expected])
    with raw_server(valkey.url) as raw:
        assert (raw.memory_bytes(prefix) < 1500) == (puts == "not at all")
