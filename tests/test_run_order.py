"""What a new turn does about older ones of its thread: they come first, or it does not begin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langgraph.types import Command

from langgraph_valkey import ConfigurationError
from langgraph_valkey.errors import ReplayIncomplete
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from tests.runs_ground import Died, Ground, Trace, chain, dying

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}


@pytest.fixture
async def ground(kind: str, valkey: LocalValkey, tmp_path: Path) -> AsyncIterator[Ground]:
    made = Ground(kind, valkey, tmp_path)
    yield made
    await made.leave()


@pytest.fixture
def trace() -> Trace:
    return Trace()


async def test_a_new_turn_waits_for_what_was_lost(ground: Ground, trace: Trace) -> None:
    before = ground.moment("t")
    writer = ground.join()
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    ground.rewind(before)
    writer.fall_silent()
    other = ground.join()
    graph = other.compiled(chain(trace))
    again = await other.run(graph, {"log": ["2"]}, thread_id="t", run_id="r2")
    assert again["log"] == [*DONE["log"], "2", "a", "b", "c"]
    assert (other.known("r").attempt, other.known("r").outcome) == (2, "finished")


async def test_a_new_turn_waits_for_what_died_halfway(ground: Ground, trace: Trace) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    other = ground.join()
    graph = other.compiled(chain(trace))
    again = await other.run(graph, {"log": ["2"]}, thread_id="t")
    assert again["log"] == [*DONE["log"], "2", "a", "b", "c"]


async def test_a_new_turn_does_not_wait_for_what_its_own_process_left(
    ground: Ground, trace: Trace
) -> None:
    trace.die_at("b")
    party = ground.join()
    graph = party.compiled(chain(trace))
    with dying(), pytest.raises(Died):  # Not even its end could be told.
        await party.run(graph, IN, thread_id="t", run_id="r")
    again = await party.run(graph, {"log": ["2"]}, thread_id="t")
    assert again["log"] == [*DONE["log"], "2", "a", "b", "c"]


async def test_an_answer_to_a_turn_that_was_lost_is_refused(ground: Ground, trace: Trace) -> None:
    """What is asked now may not be what was answered."""
    before = ground.moment("t")
    stops = {"interrupt_before": ["b"]}
    writer = ground.join()
    await writer.run(writer.compiled(chain(trace), **stops), IN, thread_id="t", run_id="r")
    ground.rewind(before)
    writer.fall_silent()
    other = ground.join()
    graph = other.compiled(chain(trace), **stops)
    with pytest.raises(ReplayIncomplete, match="may have been asked anew"):
        await other.run(graph, Command(resume="yes"), thread_id="t", run_id="r2")
    assert finish(ground.store.blocking.run("r2")) is None
    assert await other.run(graph, None, thread_id="t", run_id="r2") == DONE
    assert other.known("r2").turn_id == "r"


async def test_what_cannot_be_run_again_keeps_its_thread(ground: Ground, trace: Trace) -> None:
    trace.die_at("b")
    writer = ground.join()
    secret = writer.compiled(chain(trace))
    writer.runs.register(secret, "secret")
    await writer.dies(secret, IN, thread_id="t", run_id="r")
    other = ground.join()
    graph = other.compiled(chain(trace))
    with pytest.raises(ConfigurationError, match="'secret' is not known here"):
        await other.run(graph, IN, thread_id="t")
    assert other.runs.cancel("r")
    assert (await other.run(graph, IN, thread_id="t"))["log"][-1] == "c"
