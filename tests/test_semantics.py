"""What the base class leaves open is done as InMemorySaver does it: listing, writes, identity.

Every answer of the saver is compared with InMemorySaver's (see `Twin`); a test
states an expectation of its own where it matters that the two agree *and* are right.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED
from pydantic import BaseModel

from langgraph_valkey import limits
from tests.faces import (
    FACES,
    Twin,
    assert_equal,
    checkpoint,
    config,
    metadata,
    numbered_id,
    open_face,
)


class Person(BaseModel):
    name: str


@pytest.fixture(params=FACES)
async def twin(request: pytest.FixtureRequest, valkey: Any) -> AsyncIterator[Twin]:
    async with open_face(request.param, valkey.url) as face:
        yield Twin(face)


def ids(found: Any) -> list[str]:
    return [one.checkpoint["id"] for one in found]


# --- listing ------------------------------------------------------------------


async def test_list_walks_threads_and_namespaces(twin: Twin) -> None:
    for thread_id in ("a", "b"):
        for ns in ("", "child", "child|grandchild"):
            for number in (1, 2):
                await twin.step(thread_id, number, ns, value=[thread_id, ns, number])

    assert len(await twin.list(None)) == 12
    assert len(await twin.list({})) == 12
    assert len(await twin.list({"configurable": {"thread_id": "a"}})) == 6
    assert len(await twin.list(config("a"))) == 2
    assert len(await twin.list(config("a", "child"))) == 2
    assert await twin.list(config("a", "chil")) == []
    assert await twin.list(config("absent")) == []
    assert len(await twin.list(None, filter={"step": 2})) == 6
    # How many, but not which: the order of threads and namespaces is open.
    for where in (None, {"configurable": {"thread_id": "a"}}):
        assert len(await twin.face.listed(where, limit=5)) == 5  # type: ignore[arg-type]


TAGGED = [
    {},
    {"step": 3},
    {"step": True},
    {"step": 2.0},
    {"step": "3"},
    {"tags": ["x", {"y": 1}]},
    {"tags": ["x"]},
    {"nested": {"a": [1, None]}},
    {"absent": None},
    {"absent": 1},
    {"source": "loop", "step": 4},
    {"source": "input", "step": 4},
    {"when": datetime(2026, 1, 2, tzinfo=UTC)},
    {"labels": {"p", "q"}},
    {"raw": b"\x00\xff"},
]


@pytest.mark.parametrize("limit", [None, 0, -1, 1, 2, 100])
async def test_filter_comes_before_limit(twin: Twin, limit: int | None) -> None:
    for number in range(1, 8):
        about = metadata(number)
        if number % 2:
            about = metadata(
                number,
                tags=["x", {"y": 1}],
                nested={"a": [1, None]},
                when=datetime(2026, 1, 2, tzinfo=UTC),
                labels={"q", "p"},
                raw=b"\x00\xff",
            )
        await twin.step("t", number, about=about, value=number)

    for criteria in TAGGED:
        await twin.list(config("t"), filter=criteria, limit=limit)
        await twin.list(
            config("t"), filter=criteria, limit=limit, before=config("t", "", numbered_id(6))
        )
    if limit == 2:
        assert ids(await twin.list(config("t"), filter={"raw": b"\x00\xff"}, limit=2)) == [
            numbered_id(7),
            numbered_id(5),
        ]


async def test_before_and_checkpoint_id(twin: Twin) -> None:
    for number in (10, 20, 30):
        await twin.step("t", number, value=number)

    for number, expected in ((5, []), (10, []), (15, [10]), (25, [20, 10]), (99, [30, 20, 10])):
        before = config("t", "", numbered_id(number))
        assert ids(await twin.list(config("t"), before=before)) == [*map(numbered_id, expected)]
    assert len(await twin.list(config("t"), before=config("t"))) == 3
    assert len(await twin.list(config("t"), before=config("other", "x", "zzz"))) == 3

    one = config("t", "", numbered_id(20))
    assert ids(await twin.list(one)) == [numbered_id(20)]
    assert await twin.list(one, filter={"step": 30}) == []
    assert await twin.list(one, before=one) == []
    assert await twin.list(config("t", "", numbered_id(21))) == []
    assert ids(
        await twin.list({"configurable": {"thread_id": "t", "checkpoint_id": numbered_id(20)}})
    )


async def test_list_over_page_borders(twin: Twin) -> None:
    count = 2 * limits.LIST_PAGE + 7
    for number in range(count):
        await twin.step("t", number, value=number)

    newest_first = [numbered_id(number) for number in reversed(range(count))]
    assert ids(await twin.list(config("t"))) == newest_first
    for limit in (limits.LIST_PAGE - 1, limits.LIST_PAGE, limits.LIST_PAGE + 1):
        assert ids(await twin.list(config("t"), limit=limit)) == newest_first[:limit]
    assert ids(await twin.list(config("t"), filter={"step": 0}, limit=1)) == newest_first[-1:]


async def test_put_while_a_list_is_open(twin: Twin) -> None:
    count = limits.LIST_PAGE + 20
    for number in range(count):
        await twin.step("t", number, value=number)

    seen = []
    async for found in twin.face.alist(config("t")):
        seen.append(found.checkpoint["id"])
        if len(seen) % 10 == 0:  # a writer adds newer ones and older ones meanwhile
            await twin.step("t", count + len(seen), value=len(seen))
            made, new_versions = checkpoint(f"0{len(seen):04}", {"value": 0})
            await twin.put(config("t"), made, metadata(0), new_versions)

    at_start = [numbered_id(number) for number in reversed(range(count))]
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in at_start] == at_start
    await twin.check("t")


# --- heads and identity -------------------------------------------------------


async def test_head_is_the_highest_id_whatever_the_order(twin: Twin) -> None:
    free_ids = ["9", "10", "1f00000a", "1F00000A", "é", "z", "~", "", "𝄞", "\uffff"]
    for ns in ("", "other"):
        for number, checkpoint_id in enumerate(free_ids):
            if checkpoint_id:  # an empty id means "none" in a config
                made, new_versions = checkpoint(checkpoint_id, {"value": number})
                await twin.put(config("t", ns), made, metadata(number), new_versions)
                await twin.check("t")
    head = await twin.get(config("t"))
    assert head is not None
    assert head.checkpoint["id"] == "𝄞"


async def test_put_again_is_one_checkpoint(twin: Twin) -> None:
    await twin.step("t", 1, value=["a"])
    made, new_versions = checkpoint(
        numbered_id(2), {"value": ["a", "b"]}, parent=twin.last["t", ""]
    )
    where = config("t", "", numbered_id(1))
    for about in (metadata(2), metadata(2), metadata(3, note="again")):
        stored = await twin.put(where, made, about, new_versions)
        await twin.write(stored, [("value", "c")], "task")
    await twin.check("t")
    assert len(await twin.list(config("t"))) == 2


async def test_shapes_of_configs(twin: Twin) -> None:
    where = config("t")
    where["metadata"] = {"user": "u\0ser", "n": 3, "flag": True, "skipped": ["no"], "__x": 1}
    where["configurable"] |= {"tenant": "a", "__pregel": object(), "thread_ts": "x"}
    made, new_versions = checkpoint(numbered_id(1), {"value": 1})
    await twin.put(where, made, metadata(1, run_id="r\0un", nested={"nul": "\0"}), new_versions)

    asked = config("t", "", numbered_id(1))
    asked["configurable"]["extra"] = "kept"
    asked["tags"] = ["kept"]
    found = await twin.get(asked)
    assert found is not None
    assert found.config == asked
    assert found.metadata["run_id"] == "run"
    await twin.get({"configurable": {"thread_id": "t"}})
    assert await twin.get(config("t", "", numbered_id(2))) is None
    assert await twin.get(config("t", "other")) is None

    made, new_versions = checkpoint(numbered_id(5), {"value": 2})
    await twin.put(config("t", "", "never stored"), made, metadata(5), new_versions)
    await twin.check("t")


STRANGE = [
    "", "u1", "u[1]", "u?", "u*", "*", "{}", "{u1}", "u1}", "{", "}{", "a:b", "a::b", "a|b", ":",
    "a\\", "a\\:b", "\\", "%", "%25", "%7B%7D", "a\0b", "\0", "ab", " ", "\n", "é", "e\u0301", "😀",
    "\ud83d\ude00", "\ud800", "\udfff", "x" * 3000, "U1", "None", "0", "/", "../u1", "a,b", "~",
    "\x01", "\x01\x01", "\x01\x02", "a\x01b",
]  # fmt: skip


async def test_any_characters_name_threads_apart(twin: Twin) -> None:
    for number, name in enumerate(STRANGE):
        await twin.step(name, 1, about=metadata(number, name=number), value=[number])
        await twin.write(config(name, "", numbered_id(1)), [("value", number)], "task", name)
    await twin.check()

    for name in STRANGE[::2]:
        await twin.delete(name)
    await twin.check(*STRANGE)
    assert len(await twin.list(None)) == len(STRANGE[1::2])


async def test_any_characters_name_namespaces_apart(twin: Twin) -> None:
    for number, name in enumerate(STRANGE):
        await twin.step("t", 1, name, about=metadata(number), value=[number])
        await twin.step(name, 1, "t", about=metadata(number), value=[-number])
        await twin.write(config("t", name, numbered_id(1)), [("value", number)], name, name)
    await twin.check()
    await twin.delete("t")
    await twin.check(*STRANGE, "t")


@pytest.mark.parametrize("thread_id", [7, 0, uuid.UUID(int=7)])
async def test_thread_ids_that_are_no_strings(twin: Twin, thread_id: Any) -> None:
    made, new_versions = checkpoint(numbered_id(1), {"value": 1})
    where = await twin.put(config(thread_id), made, metadata(1), new_versions)
    await twin.get(where)
    await twin.get(config(thread_id))
    await twin.delete(thread_id)
    assert await twin.get(where) is None


# --- writes -------------------------------------------------------------------


async def test_writes_come_back_in_task_path_order(twin: Twin) -> None:
    where = await twin.step("t", 1, value=1)
    paths = ["~__pregel_pull, b", "~__pregel_push, 0000000010", "", "~__pregel_push, 0000000002"]
    for number, path in enumerate([*paths, "", paths[0]]):
        await twin.write(
            where, [("b", number), ("a", -number), ("b", None)], f"task{9 - number}", path
        )
    many = [("c", number) for number in range(120)]  # index 2 comes before index 10
    await twin.write(where, many, "many", paths[0])
    await twin.check("t")


@pytest.mark.parametrize("channel", [ERROR, INTERRUPT, RESUME, SCHEDULED, "ordinary"])
async def test_only_special_writes_overwrite(twin: Twin, channel: str) -> None:
    where = await twin.step("t", 1, value=1)
    await twin.write(where, [("value", "first"), (channel, "first"), (channel, "same call")], "one")
    await twin.write(where, [("value", "second"), (channel, "second")], "one", "path")
    await twin.write(where, [(channel, "alone")], "one")
    await twin.write(where, [(channel, "of another task")], "two")
    found = await twin.get(where)
    assert found is not None
    assert found.pending_writes is not None
    mine = [value for task, name, value in found.pending_writes if (task, name) == ("one", channel)]
    assert mine == (["first", "same call"] if channel == "ordinary" else ["alone"])


async def test_writes_before_their_checkpoint(twin: Twin) -> None:
    await twin.step("t", 1, value=1)
    await twin.write(config("t", "", numbered_id(2)), [("value", "early")], "task", "path")
    await twin.write(config("new", "ns", numbered_id(2)), [("value", "early")], "task")
    await twin.write({"configurable": {"thread_id": "t", "checkpoint_id": numbered_id(2)}}, [], "x")
    await twin.check("t", "new")
    assert await twin.get(config("new", "ns")) is None
    assert await twin.list(config("new")) == []
    await twin.step("t", 2, value=2)
    await twin.step("new", 2, "ns", value=2)
    await twin.check()
    found = await twin.get(config("new", "ns"))
    assert found is not None
    assert found.pending_writes == [("task", "value", "early")]


# --- metadata -----------------------------------------------------------------


async def test_metadata_that_json_cannot_hold(twin: Twin) -> None:
    about: Any = metadata(
        1,
        when=datetime(2026, 1, 2, tzinfo=UTC),
        labels={"p", "q"},
        raw=b"\x00\xff",
        person=Person(name="Ada"),
        pair=("a", 1),
        nul="a\0b",
        inner={"nul": "a\0b", "keys": {1: "one", None: "none"}},
    )
    await twin.step("t", 1, about=about, value=1)
    await twin.check("t")
    for key in ("when", "labels", "raw", "person", "inner"):
        assert len(await twin.list(config("t"), filter={key: about[key]})) == 1
    await twin.list(config("t"), filter={"pair": ("a", 1)})  # stored as a list
    await twin.list(config("t"), filter={"nul": "a\0b"})
    await twin.list(config("t"), filter={"nul": "ab"})


# --- the interface around it --------------------------------------------------


async def test_versions_are_those_of_the_oracle(twin: Twin) -> None:
    saver, oracle = twin.face.saver, InMemorySaver()
    ours: Any = None
    for _ in range(30):
        following = saver.get_next_version(ours, None)
        assert re.fullmatch(r"\d{32}\.\S+", following)
        assert ours is None or following > ours
        assert oracle.get_next_version(following, None) > following
        assert saver.get_next_version(oracle.get_next_version(ours, None), None) > following[:32]
        ours = following
    assert saver.get_next_version(7, None).startswith(f"{8:032}.")  # type: ignore[arg-type]
    assert saver.config_specs == oracle.config_specs


async def test_with_allowlist_gives_a_working_clone(twin: Twin) -> None:
    where = await twin.step("t", 1, value=[1])
    clone = twin.face.saver.with_allowlist([("tests.test_semantics", "Person")])
    assert type(clone) is type(twin.face.saver)
    face = type(twin.face)(clone)
    assert_equal(await face.aget_tuple(where), twin.oracle.get_tuple(where))
    made, new_versions = checkpoint(numbered_id(2), {"value": Person(name="Ada")})
    await face.aput(where, made, metadata(2), new_versions)
    found = await face.aget_tuple(config("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"value": Person(name="Ada")}


async def test_get_returns_the_checkpoint_alone(twin: Twin) -> None:
    where = await twin.step("t", 1, value=[1])
    found = await twin.face.call("get", where)
    assert_equal(found, twin.oracle.get(where))
    assert await twin.face.call("get", config("absent")) is None


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_put_leaves_the_saver_usable(valkey: Any, turns: int) -> None:
    async with open_face("async", valkey.url) as face:
        first, new_versions = checkpoint(numbered_id(1), {"value": ["a"] * 2000})
        where = await face.aput(config("t"), first, metadata(1), new_versions)
        second, new_versions = checkpoint(numbered_id(2), {"value": ["b"] * 2000}, parent=first)
        putting = asyncio.create_task(face.aput(where, second, metadata(2), new_versions))
        for _ in range(turns):
            await asyncio.sleep(0)
        putting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await putting

        found = await face.aget_tuple(config("t"))
        assert found is not None
        either: dict[str, Checkpoint] = {first["id"]: first, second["id"]: second}
        assert found.checkpoint == either[found.checkpoint["id"]]
        await face.aput(where, second, metadata(2), new_versions)
        found = await face.aget_tuple(config("t"))
        assert found is not None
        assert found.checkpoint == second
