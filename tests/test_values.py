"""Every channel value comes back as it was put, however it is cut and shared inside.

A value is stored in pieces that checkpoints share, so what matters is not one
value but a sequence of them in one channel: lists that grow, shrink and change
in the middle, and objects that are changed in place between two puts.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

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


class Sentences(list[str]):
    """A list by inheritance only."""


VALUES: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "zero": lambda: 0,
    "false": lambda: False,
    "float": lambda: 1.0,
    "big int": lambda: 2**63 - 1,
    "empty string": lambda: "",
    "text": lambda: "nul \0 and ünïcode 😀",
    "empty list": list,
    "empty dict": dict,
    "empty bytes": lambda: b"",
    "bytes": lambda: bytes(range(256)) * 30,
    "bytearray": lambda: bytearray(range(256)) * 30,
    "tuple": lambda: (1, (2, [3])),
    "long tuple": lambda: tuple(f"element {n}" for n in range(3000)),
    "set": lambda: {1, 2, 3},
    "frozenset": lambda: frozenset({"a"}),
    "deque": lambda: deque(["a", "b"]),
    "datetime": lambda: datetime(2026, 1, 2, tzinfo=UTC),
    "nested": lambda: {"a": [{"b": [[], {}, (), None]}], "keys": {1: "int", "1": "text"}},
    "list of none": lambda: [None] * 10,
    "list of lists": lambda: [[n] * 20 for n in range(200)],
    "list of bytes": lambda: [bytes([n]) * 1000 for n in range(100)],
    "mixed list": lambda: [1, "1", 1.0, True, None, b"1", (1,), {1}, [1], {"1": 1}],
    "messages": lambda: [
        kind(f"text {n}" * 10, id=str(n))
        for n in range(60)
        for kind in (HumanMessage, AIMessage)
    ],
    "list subclass": lambda: Sentences(["a", "b"]),
    "long list subclass": lambda: Sentences(f"sentence {n}" for n in range(1000)),
    "20,000 elements": lambda: [f"element {n}" for n in range(20_000)],
    "1 MiB": lambda: random.Random(1).randbytes(1 << 20),
    "5 MiB": lambda: random.Random(2).randbytes(5 << 20),
    "list of 1 MiB": lambda: [random.Random(n).randbytes(1 << 18) for n in range(4)],
    "one large element": lambda: ["small", "x" * 200_000, "small"],
}  # fmt: skip


@pytest.fixture(params=FACES)
async def twin(request: pytest.FixtureRequest, valkey: Any) -> AsyncIterator[Twin]:
    async with open_face(request.param, valkey.url) as face:
        yield Twin(face)


@pytest.mark.parametrize("name", VALUES)
async def test_value_comes_back(twin: Twin, name: str) -> None:
    value = VALUES[name]()
    where = await twin.step("t", 1, value=value, other="x")
    await twin.step("t", 2, other="y")  # the value is carried over
    await twin.step("t", 3, value=VALUES[name](), other="z")  # equal, but put anew
    await twin.write(where, [("value", value), ("value", None)], "task")
    await twin.check("t")


def long_list() -> list[Any]:
    return [{"id": n, "text": f"{n} " + "word " * (n % 40)} for n in range(300)]


def history(kind: str) -> list[list[Any]]:
    """Successive values of one channel, each several groups of elements long."""
    base = long_list()
    random_source = random.Random(kind)
    if kind == "grows":
        return [base[:n] for n in range(0, 300, 13)]
    if kind == "shrinks":
        return [base[:n] for n in range(300, -1, -29)]
    if kind == "loses its front":
        return [base[n:] for n in range(0, 300, 29)]
    if kind == "swings":
        return [base[:n] for n in (300, 10, 299, 0, 300, 1, 150, 300)]
    if kind == "changes in the middle":
        return [
            [*base[:at], {"new": at}, *base[at + 1 :]]
            for at in random_source.sample(range(300), 12)
        ]
    if kind == "loses one in the middle":
        return [[*base[:at], *base[at + 1 :]] for at in random_source.sample(range(300), 12)]
    if kind == "is shuffled":
        return [random_source.sample(base, len(base)) for _ in range(8)]
    if kind == "repeats itself":
        return [base[:40] * n for n in range(1, 9)]
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "grows",
        "shrinks",
        "loses its front",
        "swings",
        "changes in the middle",
        "loses one in the middle",
        "is shuffled",
        "repeats itself",
    ],
)
async def test_list_over_time(twin: Twin, kind: str) -> None:
    for number, value in enumerate(history(kind)):
        await twin.step("t", number, value=value)
        await twin.get(config("t"))
    await twin.check("t")


async def test_change_in_place_is_seen(twin: Twin) -> None:
    """The same list object, put again after it, or something in it, was changed."""
    value = long_list()
    await twin.step("t", 1, value=value)
    changes: list[Callable[[], Any]] = [
        lambda: value.append("at the end"),
        lambda: value[3].update(text="element changed, same object"),
        lambda: value[299]["text"].__class__,  # no change at all
        lambda: value.__setitem__(150, "replaced"),
        lambda: value.pop(0),
        lambda: value.insert(100, {"inner": [1, 2]}),
        lambda: value[100]["inner"].append(3),
        lambda: value.reverse(),
        lambda: value.clear(),
    ]
    for number, change in enumerate(changes, start=2):
        change()
        await twin.step("t", number, value=value)
        await twin.get(config("t"))
    await twin.check("t")


async def test_change_between_list_and_other_types(twin: Twin) -> None:
    values = [["a"], "a", ("a",), None, ["a"], {"a": 1}, [], {"a"}, Sentences(["a"]), b"a", ["a"]]
    for number, value in enumerate(values):
        await twin.step("t", number, value=value)
    await twin.check("t")


async def test_channel_with_a_version_and_no_value(twin: Twin) -> None:
    await twin.step("t", 1, value=["a"], branch="go")
    made, new_versions = checkpoint(
        numbered_id(2), {"branch": None, "never": None}, parent=twin.last["t", ""]
    )
    del made["channel_values"]["branch"], made["channel_values"]["never"]
    where = await twin.put(config("t", "", numbered_id(1)), made, metadata(2), new_versions)
    found = await twin.get(where)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"value": ["a"]}
    twin.last["t", ""] = made
    await twin.step("t", 3, value=["a", "b"])
    await twin.step("t", 4, branch="again")
    await twin.check("t")


async def test_unchanged_channels_come_from_the_parent_by_version(twin: Twin) -> None:
    """Only what changed stands in ``channel_values``, the versions name the rest."""
    large, small = long_list(), "small"
    await twin.step("t", 1, large=large, small=small, other=0)
    for number in (2, 3, 4):
        made, new_versions = checkpoint(
            numbered_id(number), {"other": number}, parent=twin.last["t", ""]
        )
        twin.last["t", ""] = copy.deepcopy(made)
        made["channel_values"] = {"other": number}
        where = config("t", "", numbered_id(number - 1))
        found = await twin.get(await twin.put(where, made, metadata(number), new_versions))
        assert found is not None
        assert found.checkpoint["channel_values"] == {
            "large": large,
            "small": small,
            "other": number,
        }
    await twin.check("t")


@pytest.mark.parametrize("versions", [[1, 2, 3], [0.5, 1.5, 2.0], ["1", "2", "3"], [1, 1.5, 2]])
async def test_kinds_of_versions(twin: Twin, versions: list[Any]) -> None:
    where = config("t")
    for number, version in enumerate(versions):
        made, _ = checkpoint(numbered_id(number), {"a": [number], "b": number})
        made["channel_versions"] = {"a": version, "b": versions[0]}
        new_versions = {"a": version, "b": version} if number == 0 else {"a": version}
        made["channel_values"]["b"] = 0
        where = await twin.put(where, made, metadata(number), new_versions)
    await twin.check("t")


async def test_what_was_returned_is_a_private_copy(twin: Twin) -> None:
    where = await twin.step(
        "t", 1, about=metadata(1, tags=["x"]), value=long_list(), inner={"a": [1]}
    )
    await twin.write(where, [("value", ["written"])], "task")
    for _ in range(2):
        found = await twin.face.aget_tuple(where)
        assert found is not None
        assert_equal(found, twin.oracle.get_tuple(where))
        found.checkpoint["channel_values"]["value"][0]["text"] = "changed"
        found.checkpoint["channel_values"]["value"].append("changed")
        found.checkpoint["channel_values"]["inner"]["a"].append("changed")
        found.checkpoint["channel_versions"].clear()
        found.metadata["tags"].append("changed")  # type: ignore[typeddict-item]
        assert found.pending_writes is not None
        found.pending_writes[0][2].append("changed")
    for listed in await twin.face.listed(config("t")):
        listed.checkpoint["channel_values"]["inner"]["a"].append("changed")
    await twin.check("t")


async def test_what_was_put_may_be_changed_afterwards(twin: Twin) -> None:
    value, about = long_list(), metadata(1, tags=["x"])
    made, new_versions = checkpoint(numbered_id(1), {"value": value, "other": {"a": 1}})
    where = await twin.put(config("t"), made, about, new_versions)
    written = ["written"]
    await twin.write(where, [("value", written)], "task")
    original = copy.deepcopy(made)
    value.clear()
    written.clear()
    made["channel_values"]["other"]["a"] = 2
    made["channel_versions"].clear()
    await twin.check("t")
    # A child of it that carries the unchanged channels over still finds the old ones.
    child, new_versions = checkpoint(numbered_id(2), {"third": 3}, parent=original)
    await twin.put(where, child, metadata(2), new_versions)
    await twin.check("t")


async def test_threads_and_namespaces_share_nothing_they_can_lose(twin: Twin) -> None:
    """Equal values in several places: deleting one place leaves the others whole."""
    for thread_id in ("a", "b"):
        for ns in ("", "child"):
            for number in (1, 2):
                await twin.step(thread_id, number, ns, value=long_list()[: 100 * number])
    await twin.delete("a")
    await twin.check("a", "b")
    await twin.step("b", 3, value=long_list())
    await twin.check("b")


async def test_very_many_channels(twin: Twin) -> None:
    """More pieces than one command of a script can name."""
    noise = random.Random(7)
    updates: list[dict[str, Any]] = [
        {f"channel {n}": noise.randbytes(200) for n in range(2500)},
        {f"channel {n}": noise.randbytes(200) for n in range(0, 2500, 2)},
        {f"channel {n}": n for n in range(0, 2500, 3)},
    ]
    for number, changed in enumerate(updates):
        await twin.step("t", number, **changed)
    await twin.check("t")


async def test_list_of_large_states(twin: Twin) -> None:
    """A page is bounded in bytes, too; a checkpoint larger than that still comes."""
    noise = random.Random(8)
    for number in range(8):
        await twin.step("t", number, value=noise.randbytes(1 << (21 if number == 4 else 20)))
    assert len(await twin.list(config("t"))) == 8
    assert len(await twin.list(config("t"), limit=5, filter={"source": "loop"})) == 5
    await twin.copy("t", "copy")
    await twin.check("copy")
    await twin.prune("copy")
    await twin.check()


class PickleTyped:
    """A serializer of a user's own, of the current protocol."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "my own", pickle.dumps(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert data[0] == "my own"
        return pickle.loads(data[1])


class PickleUntyped:
    """A serializer of the older protocol, without types."""

    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize(
    "serde", [PickleTyped(), PickleUntyped(), JsonPlusSerializer(pickle_fallback=True)], ids=type
)
async def test_other_serializers(kind: str, serde: Any, valkey: Any) -> None:
    async with open_face(kind, valkey.url, serde=serde) as face:
        twin = Twin(face)
        twin.oracle.serde = face.saver.serde
        for number, value in enumerate([*history("grows")[::5], range(3), [range(3)] * 100, b"x"]):
            about = metadata(number, tags={"a", number})
            where = await twin.step("t", number, about=about, value=value, fixed=long_list())
            await twin.write(where, [("value", value), ("__interrupt__", value)], "task")
        await twin.list(config("t"), filter={"tags": {"a", 2}})
        await twin.copy("t", "copy")
        await twin.prune("t")
        await twin.check("t", "copy")
