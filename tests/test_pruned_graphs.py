"""Graphs without delta channels: pruned at any moment, one checkpoint a namespace is enough.

Their consumed channels (``__start__``, ``branch:to:x``, sends, barriers) have
versions, writes and no values, which makes them look like delta channels. Pruned
after each call, such a graph must keep nothing more and still run as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.types import Command

from tests.faces import FACES, Face, open_face
from tests.test_graphs import (
    DURABILITIES,
    Pair,
    approving,
    chatting,
    failing,
    fanning,
    functional,
    nested,
    of,
)

START = {"log": ["start"], "count": 0}

RUNS: dict[str, tuple[Any, list[Any]]] = {
    "interrupts": (approving, [START, Command(resume="a"), Command(resume="b"), START]),
    "subgraphs": (nested, [START, Command(resume="a"), START, Command(resume="b")]),
    "sends": (fanning, [START, START, START]),
    "functional": (functional, [[1, 2], Command(resume="a"), [3], Command(resume="b")]),
    "messages": (chatting, [{"messages": [HumanMessage("hi", id=str(n))]} for n in range(4)]),
    "barrier": (partial(failing, ["open"]), [START, START]),
}


@pytest.fixture(params=FACES)
async def face(request: pytest.FixtureRequest, valkey: Any) -> AsyncIterator[Face]:
    async with open_face(request.param, valkey.url) as opened:
        yield opened


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("name", RUNS)
async def test_pruned_after_each_call(face: Face, name: str, durability: str) -> None:
    build, inputs = RUNS[name]
    pair = Pair(face, build)
    for given in inputs:
        await pair.do("invoke", given, of("t"), durability=durability)
        before = await heads(face)
        await face.aprune(["t"])
        kept = await face.listed(of("t"))
        counts = Counter(found.config["configurable"]["checkpoint_ns"] for found in kept)
        assert set(counts.values()) == {1}, counts
        assert await heads(face) == before


async def heads(face: Face) -> dict[str, Any]:
    """The newest checkpoint of each namespace."""
    newest: dict[str, Any] = {}
    for found in await face.listed(of("t")):
        newest.setdefault(found.config["configurable"]["checkpoint_ns"], found)
    return newest


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_pruned_where_it_had_failed(face: Face, durability: str) -> None:
    """The writes of the task that had succeeded stay with the kept checkpoint."""
    gate: list[str] = []
    graph = failing(gate, face.saver)
    with pytest.raises(RuntimeError, match="not yet"):
        await face.run(graph, "invoke", START, of("t"), durability="sync")
    await face.aprune(["t"])
    assert len(await face.listed(of("t"))) == 1
    gate.append("open")
    result = await face.run(graph, "invoke", None, of("t"), durability=durability)
    assert result["log"] == ["start", "sure ran", "unsure ran", "end"]
    assert gate == ["sure ran", "open"]  # once
