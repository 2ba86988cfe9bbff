"""Recovering runs, the hard cases: side lines, races, and what has to be tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.heads import sights
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from tests.runs_ground import Ground, Party, Trace, chain

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}
WHERE = {"configurable": {"thread_id": "t"}}


@pytest.fixture
async def ground(kind: str, valkey: LocalValkey, tmp_path: Path) -> AsyncIterator[Ground]:
    made = Ground(kind, valkey, tmp_path)
    yield made
    await made.leave()


@pytest.fixture
def trace() -> Trace:
    return Trace()


def values(party: Party, graph: Any, thread_id: str = "t") -> Any:
    return graph.get_state({"configurable": {"thread_id": thread_id}}).values


async def test_what_stands_on_a_side_line_is_lost(ground: Ground, trace: Trace) -> None:
    """The thread's head went back behind it: as by a failover that tears a line."""
    heads: list[Any] = []
    trace.on["b"] = lambda: heads.append(ground.head("t"))
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t", run_id="r")
    writer.fall_silent()
    ground.set_head("t", heads[0])
    trace.taken()
    face = writer.runs._blocking
    assert finish(sights(face.core, face.link, [writer.known("r")])) == {}
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).rerun == ("r",)
    assert trace.taken() == ["c"]  # What b wrote is there.
    assert values(other, graph) == DONE


async def test_a_thread_that_was_edited_is_whole(ground: Ground, trace: Trace) -> None:
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t", run_id="r")
    for _ in range(2):
        graph.update_state(WHERE, {"log": ["by hand"]})
    writer.fall_silent()
    other = ground.join()
    assert (await other.recover(other.compiled(chain(trace)))).fine == ("r",)
