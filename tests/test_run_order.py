"""What a new turn does about older ones of its thread: they come first, or it does not begin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langgraph_valkey import ConfigurationError
from langgraph_valkey.errors import ReplayIncomplete, RunInProgress
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import NewRun, Started
from langgraph_valkey.runs import admitting
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Died, Ground, Log, Trace, chain, dying

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}


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


# --- what comes in between ------------------------------------------------------


def two_questions(answers: list[Any], trace: Trace) -> Any:
    """A graph that asks twice; the answers are told."""

    def ask(question: str) -> Any:
        def node(_: Log) -> dict[str, Any]:
            answer = interrupt(question)
            answers.append((question, answer))
            trace.enter(question)
            return {"log": [answer]}

        return node

    builder: Any = StateGraph(Log)
    for question in ("draft?", "all?"):
        builder.add_node(question, ask(question))
    builder.add_edge(START, "draft?")
    builder.add_edge("draft?", "all?")
    return builder


async def test_who_clicks_twice_answers_once(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits for the first, and finds a question that nobody has seen."""
    answers: list[Any] = []
    entered, waits, goes_on = (threading.Event() for _ in range(3))
    real = admitting._make_sure

    async def make_sure(*args: Any) -> Any:
        came = await real(*args)
        if came[0] is not None:
            waits.set()
        return came

    def stay() -> None:
        entered.set()
        goes_on.wait(10.0)

    party = ground.join()
    graph = party.compiled(two_questions(answers, trace))
    await party.run(graph, IN, thread_id="t", run_id="r")
    trace.on["draft?"] = stay
    monkeypatch.setattr(admitting, "_make_sure", make_sure)
    yes: Any = Command(resume="yes")
    one = asyncio.ensure_future(party.run(graph, yes, thread_id="t", run_id="click"))
    await asyncio.to_thread(entered.wait, 10.0)
    what = party.run(graph, yes, thread_id="t", run_id="again", wait_s=10.0)
    two = asyncio.ensure_future(what)
    await asyncio.to_thread(waits.wait, 10.0)
    goes_on.set()
    assert (await one)["__interrupt__"][0].value == "all?"
    with pytest.raises(ReplayIncomplete, match="answered by another one"):
        await two
    assert answers == [("draft?", "yes")]
    assert finish(ground.store.blocking.run("again")) is None
    assert (await party.run(graph, yes, thread_id="t", run_id="click"))["__interrupt__"]


def come_between(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, newcomer: Callable[[], Any]
) -> None:
    """Something happens between a run's look at its thread, and its being recorded."""
    face = ground.store.loops if ground.kind == "async" else ground.store.blocking
    real = face.start_run
    came: list[NewRun] = []

    async def start_run(new: NewRun) -> Started:
        if not came:
            came.append(new)
            newcomer()
        return await real(new)

    monkeypatch.setattr(face, "start_run", start_run)


async def test_who_comes_late_answers_nothing(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    party, other = ground.join(), ground.join()
    builder = two_questions(answers, trace)
    graph, theirs = party.compiled(builder), other.compiled(builder)
    await party.run(graph, IN, thread_id="t", run_id="r")
    yes: Any = Command(resume="yes")
    come_between(
        ground, monkeypatch, lambda: other.runs.run(theirs, yes, thread_id="t", run_id="click")
    )
    with pytest.raises(ReplayIncomplete, match="with another run_id"):
        await party.run(graph, yes, thread_id="t", run_id="late")
    assert answers == [("draft?", "yes")]
    assert party.known("late").outcome == "cancelled"


async def test_what_was_cut_off_in_between_comes_first(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    party, other = ground.join(), ground.join()
    graph, theirs = party.compiled(chain(trace)), other.compiled(chain(trace))

    def newcomer() -> None:
        trace.die_at("b")
        with pytest.raises(Died):
            other.runs.run(theirs, {"log": ["other"]}, thread_id="t", run_id="other")

    come_between(ground, monkeypatch, newcomer)
    done = await party.run(graph, {"log": ["mine"]}, thread_id="t", run_id="mine")
    assert done["log"] == ["other", "a", "b", "c", "mine", "a", "b", "c"]


async def test_a_run_says_whether_it_is_recorded(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    party, other = ground.join(), ground.join()
    graph, theirs = party.compiled(chain(trace)), other.compiled(chain(trace))
    store = ground.store.blocking

    def newcomer() -> None:
        trace.die_at("b")
        with dying(), pytest.raises(Died):
            other.runs.run(theirs, {"log": ["other"]}, thread_id="t", run_id="other")
        finish(store.release_run(other.known("other").fence))

    face = ground.store.loops if ground.kind == "async" else ground.store.blocking
    come_between(ground, monkeypatch, newcomer)
    real = face.start_run

    async def taken_at_once(new: NewRun) -> Started:
        started = await real(new)
        if new.run_id == "mine":
            finish(store.alive("third", 60.0))
            assert finish(store.claim_run(other.known("other").fence, "third"))
        return started

    monkeypatch.setattr(face, "start_run", taken_at_once)
    with pytest.raises(RunInProgress, match="That is recorded") as raised:
        await party.run(graph, {"log": ["mine"]}, thread_id="t", run_id="mine")
    assert raised.value.run_id == "other"
    monkeypatch.undo()
    finish(store.alive("third", 0.0))
    done = await party.run(graph, {"log": ["mine"]}, thread_id="t", run_id="mine")
    assert done["log"] == ["other", "a", "b", "c", "mine", "a", "b", "c"]
