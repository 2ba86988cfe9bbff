"""Recovering runs: what was lost is executed again, by one process, and nothing else is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from langgraph_valkey.errors import Unreachable
from langgraph_valkey.link import Call, finish
from langgraph_valkey.runs import admitting, attempts, redoing
from langgraph_valkey.runs.heads import sights
from langgraph_valkey.runs.rerun import LATER_RUN, UNKNOWN_HEAD
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Died, Ground, Party, Trace, chain, dying

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}
WHERE = {"configurable": {"thread_id": "t"}}


def values(party: Party, graph: Any, thread_id: str = "t") -> Any:
    return graph.get_state({"configurable": {"thread_id": thread_id}}).values


async def test_a_whole_turn_that_was_lost_is_executed_again(ground: Ground, trace: Trace) -> None:
    before = ground.moment("t")
    writer = ground.join()
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    writer.fall_silent()
    ground.rewind(before)
    trace.taken()
    other = ground.join()
    graph = other.compiled(chain(trace))
    report = await other.recover(graph)
    assert (report.rerun, report.fine, report.failed) == (("r",), (), ())
    assert trace.taken() == ["a", "b", "c"]
    assert values(other, graph) == DONE
    run = other.known("r")
    assert (run.attempt, run.state, run.outcome) == (2, "ended", "finished")
    assert run.head == graph.get_state(WHERE).config["configurable"]["checkpoint_id"]
    assert (await other.recover(graph)).fine == ("r",)
    assert trace.taken() == []


async def test_half_a_turn_goes_on_from_what_is_left(ground: Ground, trace: Trace) -> None:
    moments: list[Any] = []
    trace.on["b"] = lambda: moments.append(ground.moment("t"))
    writer = ground.join()
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    writer.fall_silent()
    ground.rewind(moments[0])
    trace.taken()
    trace.on.clear()
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).rerun == ("r",)
    assert trace.taken() == ["b", "c"]
    assert values(other, graph) == DONE


async def test_a_run_that_died_halfway_goes_on(ground: Ground, trace: Trace) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    trace.taken()
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).rerun == ("r",)
    assert trace.taken() == ["b", "c"]
    assert values(other, graph) == DONE


async def test_a_step_whose_writes_are_stored_is_not_executed_again(
    ground: Ground, trace: Trace
) -> None:
    """It died between a task's writes and the checkpoint: no task waits, yet it is not over."""
    writer = ground.join()

    def refuse(*_: Any) -> Any:
        raise Died

    graph = writer.compiled(chain(trace))
    method = "aput" if ground.kind == "async" else "put"
    trace.on["c"] = lambda: setattr(graph.checkpointer, method, refuse)
    await writer.dies(graph, IN, thread_id="t", run_id="r")
    trace.taken()
    trace.on.clear()
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).rerun == ("r",)
    assert trace.taken() == []
    assert values(other, graph) == DONE


async def test_a_run_that_was_done_but_not_ended_executes_nothing(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: Any) -> None:
        raise Died

    writer = ground.join()
    with monkeypatch.context() as patched:
        patched.setattr(attempts, "_record", die)
        await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    trace.taken()
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).fine == ("r",)
    assert trace.taken() == []
    assert (other.known("r").outcome, other.known("r").state) == ("finished", "ended")


async def test_what_is_there_is_not_executed_again(ground: Ground, trace: Trace) -> None:
    writer = ground.join()
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    writer.fall_silent()
    trace.taken()
    other = ground.join()
    report = await other.recover(other.compiled(chain(trace)))
    assert report.fine == ("r",)
    assert trace.taken() == []
    assert other.known("r").attempt == 1  # Nobody had to take it over.
    assert other.runs.health().settling == 1


async def test_two_that_recover_at_once_execute_it_once(ground: Ground, trace: Trace) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    trace.taken()
    others = [ground.join() for _ in range(3)]
    graphs = [other.compiled(chain(trace)) for other in others]
    reports = await asyncio.gather(
        *(other.recover(graph) for other, graph in zip(others, graphs, strict=True))
    )
    assert trace.taken() == ["b", "c"]
    assert sum(len(report.rerun) for report in reports) == 1
    assert all(not report.failed and not report.conflicts for report in reports)
    assert values(others[0], graphs[0]) == DONE


async def test_one_that_was_judged_by_two_is_executed_by_who_claims_it_first(
    ground: Ground, trace: Trace
) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    old = writer.known("r")
    other, late = ground.join(), ground.join()
    assert (await other.recover(other.compiled(chain(trace)))).rerun == ("r",)
    assert finish(ground.store.blocking.claim_run(old.fence, late.runs.health().owner)) is None


async def test_a_run_whose_owner_lives_is_left_alone(ground: Ground, trace: Trace) -> None:
    writer = ground.join()
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="u", run_id="ended")
    trace.die_at("b")
    with dying(), pytest.raises(Died):  # It hangs, say: it still says that it lives.
        await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    trace.taken()
    other = ground.join()
    report = await other.recover(other.compiled(chain(trace)))
    assert (report.busy, report.rerun, report.fine) == (("ended", "r"), (), ())
    assert trace.taken() == []
    assert writer.known("r").attempt == 1
    # The process itself knows that nothing of its executes it any more.
    assert (await writer.recover(writer.compiled(chain(trace)))).rerun == ("r",)


async def test_a_thread_that_went_on_is_left_alone(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is lost at the moment at which the second one begins."""

    async def looked_just_before(*_: Any) -> Any:
        return None, False

    before = ground.moment("t")
    writer, party = ground.join(), ground.join()
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="lost")
    ground.rewind(before)
    second = {"log": ["in 2"]}
    with monkeypatch.context() as patched:
        patched.setattr(admitting, "_make_sure", looked_just_before)
        await party.run(party.compiled(chain(trace)), second, thread_id="t", run_id="later")
    trace.taken()
    for each in (writer, party):
        each.fall_silent()
    other = ground.join()
    graph = other.compiled(chain(trace))
    for _ in range(2):  # Each time, until it is cancelled.
        report = await other.recover(graph)
        assert [(c.run_id, c.why) for c in report.conflicts] == [("lost", LATER_RUN)]
        assert report.fine == ("later",)
    assert trace.taken() == []
    assert values(other, graph) == {"log": ["in 2", "a", "b", "c"]}
    assert other.known("lost").attempt == 1
    assert other.runs.cancel("lost")
    assert not (await other.recover(graph)).conflicts
    assert not other.runs.cancel("lost")


async def test_a_thread_that_somebody_else_wrote_to_is_left_alone(
    ground: Ground, trace: Trace
) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    other = ground.join()
    graph = other.compiled(chain(trace))
    graph.update_state(WHERE, {"log": ["by hand"]})
    trace.taken()
    report = await other.recover(graph)
    assert [(c.run_id, c.thread_id, c.why) for c in report.conflicts] == [("r", "t", UNKNOWN_HEAD)]
    assert trace.taken() == []
    # It does not keep the thread from going on.
    assert (await other.run(graph, IN, thread_id="t"))["log"][-1] == "c"


async def test_runs_of_a_thread_are_executed_in_their_order(ground: Ground, trace: Trace) -> None:
    before = ground.moment("t")
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    await writer.run(graph, {"log": ["1"]}, thread_id="t", run_id="r1")
    await writer.run(graph, {"log": ["2"]}, thread_id="t", run_id="r2")
    expected = values(writer, graph)
    writer.fall_silent()
    ground.rewind(before)
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).rerun == ("r1", "r2")
    assert values(other, graph) == expected


async def test_what_cannot_be_executed_is_told_and_left(ground: Ground, trace: Trace) -> None:
    moments = [ground.moment(thread) for thread in ("t", "u", "v")]
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    odd = {"configurable": {"handle": object()}}
    await writer.run(graph, IN, thread_id="t", run_id="bad input")
    await writer.run(graph, {"log": ["later"]}, thread_id="t", run_id="behind")
    await writer.run(graph, IN, thread_id="u", run_id="odd", config=odd)
    secret = writer.compiled(chain(trace, "xy"))
    writer.runs.register(secret, "secret")
    await writer.run(secret, IN, thread_id="v", run_id="unknown")
    for moment in moments:
        ground.rewind(moment)
    with ground.store.engine.begin() as connection:
        connection.exec_driver_sql("update lgv_runs set input = x'00' where run_id like '%bad%'")
    writer.fall_silent()
    trace.taken()
    other = ground.join()
    graph = other.compiled(chain(trace))
    report = await other.recover(graph)
    assert {t.run_id: t.why.split(":")[0] for t in report.failed} == {
        "bad input": "its input can't be deserialized here",
        "behind": "an older run of its thread could not be executed again",
        "odd": "it was given what can't be kept (configurable.handle)",
    }
    assert [t.run_id for t in report.unknown_graphs] == ["unknown"]
    assert trace.taken() == []
    assert {other.known(each).state for each in ("bad input", "odd", "unknown")} == {"ended"}
    other.runs.register(graph, config={"configurable": {"handle": object()}})
    assert (await other.recover()).rerun == ("odd",)


async def test_a_rerun_that_keeps_raising_has_ended(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "ATTEMPTS_MOST", 3)
    monkeypatch.setattr(redoing, "ATTEMPTS_MOST", 3)
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")

    def fail() -> None:
        raise RuntimeError("the customer's name is Ann")

    trace.on["b"] = fail
    other = ground.join()
    graph = other.compiled(chain(trace))
    [trouble] = (await other.recover(graph)).failed
    assert trouble.why == "it raised RuntimeError in attempt 2 of 3"
    assert (other.known("r").state, other.known("r").owner) == ("running", "")
    [trouble] = (await other.recover(graph)).failed
    assert trouble.why == "it raised RuntimeError"
    assert isinstance(trouble.error, RuntimeError)
    assert "Ann" not in repr(trouble)
    assert (other.known("r").state, other.known("r").outcome) == ("settled", "failed")
    assert (await other.recover(graph)).failed == ()


async def test_a_rerun_that_is_cut_off_is_left(ground: Ground, trace: Trace) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")

    def fail() -> None:
        raise Unreachable("no server")

    trace.on["b"] = fail
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert [t.run_id for t in (await other.recover(graph)).failed] == ["r"]
    trace.on.clear()
    later = ground.join()  # Whoever comes next.
    assert (await later.recover(later.compiled(chain(trace)))).rerun == ("r",)


async def test_a_thread_that_was_deleted_for_good_stays_so(ground: Ground, trace: Trace) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    trace.taken()
    other = ground.join()
    finish(ground.store.blocking.bury("t"))
    other.saver.delete_thread("t")
    assert (await other.recover(other.compiled(chain(trace)))).deleted == ("r",)
    assert trace.taken() == []
    assert other.known("r").state == "settled"


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_thousand_runs_that_are_fine_take_two_seconds(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ground.join()
    await writer.run(writer.compiled(chain(trace, "a")), IN, thread_id="t", run_id="r")
    ground.multiply("t", "r", 999)
    writer.fall_silent()
    other = ground.join()
    graph = other.compiled(chain(trace, "a"))
    link, asked = other.runs._blocking.link, list[int]()

    async def counted(calls: Sequence[Call]) -> list[Any]:
        asked.append(len(calls))
        return await send(calls)

    send = link.send
    monkeypatch.setattr(link, "send", counted)
    began_s = time.monotonic()
    report = await other.recover(graph)
    took_s = time.monotonic() - began_s
    print(f"{took_s:.2f} s")
    assert len(report.fine) == 1000
    assert took_s <= 2.0
    assert sum(asked) == 1000
    assert len(asked) <= 5  # Many at once.


@pytest.mark.parametrize("kind", ["sync"])
async def test_runs_are_seen_behind_the_head_too(ground: Ground, trace: Trace) -> None:
    before = ground.moment("t")
    party = ground.join()
    graph = party.compiled(chain(trace))
    for run_id in ("r1", "r2"):
        await party.run(graph, IN, thread_id="t", run_id=run_id)
    runs, face = [party.known("r1"), party.known("r2")], party.runs._blocking
    found = finish(sights(face.core, face.link, runs))
    assert set(found) == {"r1", "r2"}
    ground.rewind(before)
    assert finish(sights(face.core, face.link, runs)) == {}
