"""Recovering runs, the hard cases: side lines, races, and what has to be tried again."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from langgraph_valkey import keeper
from langgraph_valkey.errors import OutcomeUnknown, ReplayIncomplete, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.runs import attempts, home_loop
from langgraph_valkey.runs import recovering as recover_runs
from langgraph_valkey.runs.faces import BlockingFace, LoopFace
from langgraph_valkey.runs.heads import sights
from langgraph_valkey.runs.redoing import BUSY, FINE, redo
from tests.failover_ground import until
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Died, Ground, Party, Trace, chain, dying

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}
WHERE = {"configurable": {"thread_id": "t"}}


def values(party: Party, graph: Any, thread_id: str = "t") -> Any:
    return graph.get_state({"configurable": {"thread_id": thread_id}}).values


async def test_what_stands_on_a_side_line_is_lost(ground: Ground, trace: Trace) -> None:
    """The thread's head went back behind it: as by a failover that tears a line."""
    heads: list[Any] = []
    trace.on["b"] = lambda: heads.append(ground.head("t"))
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    for run_id in ("r1", "r2"):
        await writer.run(graph, IN, thread_id="t", run_id=run_id)
    writer.fall_silent()
    ground.set_head("t", heads[0])
    trace.taken()
    face = writer.runs._blocking
    assert finish(sights(face.core, face.link, [writer.known("r1"), writer.known("r2")])) == {}
    other = ground.join()
    graph = other.compiled(chain(trace))
    # The second one's last checkpoint is older than what the first one makes anew.
    assert (await other.recover(graph)).rerun == ("r1", "r2")
    assert trace.taken() == ["c", "a", "b", "c"]  # What b wrote is there.
    assert values(other, graph) == {"log": DONE["log"] * 2}


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_thread_that_was_edited_is_whole(ground: Ground, trace: Trace) -> None:
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t", run_id="r")
    for _ in range(2):
        graph.update_state(WHERE, {"log": ["by hand"]})
    writer.fall_silent()
    other = ground.join()
    assert (await other.recover(other.compiled(chain(trace)))).fine == ("r",)


@pytest.mark.parametrize("kind", ["sync"])
async def test_it_is_looked_again_while_an_owner_may_live(ground: Ground, trace: Trace) -> None:
    """The process was killed, and started anew at once: it still counts as alive."""
    trace.die_at("b")
    before = ground.join(owner_alive_s=0.5)
    with dying(), pytest.raises(Died):
        await before.run(before.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    before.runs._heart.stop()
    other = ground.join(owner_alive_s=0.3)
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).busy == ("r",)
    await until(lambda: other.known("r").state == "ended")
    assert values(other, graph) == DONE
    assert trace.taken() == ["a", "b", "b", "c"]


@pytest.mark.parametrize("kind", ["sync"])
async def test_it_is_looked_again_where_something_raised(ground: Ground, trace: Trace) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    trace.fail_at("b", RuntimeError("429"))
    other = ground.join(owner_alive_s=0.3)
    graph = other.compiled(chain(trace))
    [trouble] = (await other.recover(graph)).failed
    assert trouble.why == f"it raised RuntimeError in attempt 2 of {attempts.ATTEMPTS_MOST}"
    await until(lambda: other.known("r").state == "ended")
    assert values(other, graph) == DONE


@pytest.mark.parametrize("kind", ["sync"])
async def test_it_is_looked_again_after_an_outage(ground: Ground, trace: Trace) -> None:
    party = ground.join(owner_alive_s=0.3)
    graph = party.compiled(chain(trace))
    trace.fail_at("b", Unreachable("no server"))
    with pytest.raises(Unreachable):
        await party.run(graph, IN, thread_id="t", run_id="r")
    await until(lambda: party.known("r").state == "ended")
    assert values(party, graph) == DONE


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_recovery_that_failed_is_done_again(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace.die_at("b")
    writer = ground.join()
    await writer.dies(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    other = ground.join(owner_alive_s=0.3)
    asked: list[Any] = []
    real = type(ground.store.blocking).unsettled_runs

    async def away_at_first(self: Any, **given: Any) -> Any:
        asked.append(given)
        if len(asked) == 1:
            raise Unreachable("away")
        return await real(self, **given)

    monkeypatch.setattr(type(ground.store.blocking), "unsettled_runs", away_at_first)
    monkeypatch.setattr(type(ground.store.loops), "unsettled_runs", away_at_first)
    with pytest.raises(Unreachable):
        await other.recover(other.compiled(chain(trace)))
    await until(lambda: other.known("r").state == "ended")


async def test_what_could_not_be_told_is_told_later(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was cut off while the registry was away: it must not pass for executed."""

    async def away(*_: Any) -> None:
        raise Unreachable("away")

    monkeypatch.setattr(keeper, "ROUND_S", 0.1)
    party = ground.join()
    graph = party.compiled(chain(trace))
    trace.fail_at("b", Unreachable("no server"))
    with monkeypatch.context() as patched:
        for face in (ground.store.blocking, ground.store.loops):
            patched.setattr(type(face), "release_run", away)
        with pytest.raises(Unreachable) as raised:
            await party.run(graph, IN, thread_id="t", run_id="r")
        assert "recover() will bring it to its end" in raised.value.__notes__[-1]
        assert party.known("r").owner == party.runs.health().owner
    await until(lambda: party.known("r").owner == "")
    other = ground.join()
    assert (await other.recover(other.compiled(chain(trace)))).rerun == ("r",)


async def test_a_start_that_may_have_been_recorded_is_given_free(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace))
    with monkeypatch.context() as patched:
        for face in (ground.store.blocking, ground.store.loops):
            real = type(face).start_run

            async def lost(self: Any, new: Any, real: Any = real) -> Any:
                await real(self, new)
                raise OutcomeUnknown("lost")

            patched.setattr(type(face), "start_run", lost)
        with pytest.raises(OutcomeUnknown):
            await party.run(graph, IN, thread_id="t", run_id="r")
    assert (party.known("r").state, party.known("r").owner_alive) == ("running", True)
    assert finish(party.runs._parts.owner.tell(ground.store.blocking)) == 1
    assert party.known("r").owner == ""
    # The same call brings it to its end, and nothing is told of the first one any more.
    party.runs._parts.owner.tell_later(party.known("r").fence, None)
    assert await party.run(graph, IN, thread_id="t", run_id="r") == DONE
    assert finish(party.runs._parts.owner.tell(ground.store.blocking)) == 0


@pytest.mark.parametrize("kind", ["sync"])
async def test_only_what_is_its_own_and_over_is_told(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    party, other = ground.join(), ground.join()
    owner, primary = party.runs._parts.owner, ground.store.blocking
    graph = party.compiled(chain(trace))
    with monkeypatch.context() as patched:

        async def away(*_: Any) -> None:
            raise Unreachable("away")

        patched.setattr(type(primary), "start_run", away)
        with pytest.raises(Unreachable):
            await party.run(graph, IN, thread_id="t", run_id="r")
    told: list[int] = []
    trace.on["b"] = lambda: told.append(finish(owner.tell(primary)))
    assert await party.run(graph, IN, thread_id="t", run_id="r") == DONE
    assert [*told, finish(owner.tell(primary))] == [0, 0]  # It was not recorded, and then was.
    assert party.known("r").owner == owner.id
    await other.run(other.compiled(chain(trace)), IN, thread_id="u", run_id="other's")
    for run_id in ("r", "other's"):
        owner.tell_later(party.known(run_id).fence, None)
    assert owner.begin("r")
    assert finish(owner.tell(primary)) == 0  # It is executed again already.
    owner.end("r")
    assert finish(owner.tell(primary)) == 1
    assert party.known("other's").owner == other.runs.health().owner


async def test_what_raises_while_it_is_judged_ends_no_recovery(
    ground: Ground, trace: Trace
) -> None:
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    for thread_id in ("t", "u"):
        trace.die_at("b")
        await writer.dies(graph, IN, thread_id=thread_id, run_id=f"r {thread_id}")
    with ground.store.engine.begin() as connection:
        odd = "update lgv_runs set context = '[1]' where run_id like '%r t%'"
        connection.exec_driver_sql(odd)
    other = ground.join()
    graph = other.compiled(chain(trace))
    report = await other.recover(graph)
    assert report.rerun == ("r u",)
    assert [t.why for t in report.failed] == ["it can't be judged: AttributeError"]
    with pytest.raises(ReplayIncomplete, match="can't be judged: AttributeError"):
        await other.run(graph, IN, thread_id="t")


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_run_behind_one_that_was_left_is_left_on_the_next_page_too(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover_runs, "PAGE", 1)
    before = ground.moment("t")
    writer = ground.join()
    secret = chain(trace).compile(checkpointer=writer.saver, name="secret")
    await writer.run(secret, IN, thread_id="t", run_id="r1")
    await writer.run(writer.compiled(chain(trace)), IN, thread_id="t", run_id="r2")
    writer.fall_silent()
    ground.rewind(before)
    trace.taken()
    other = ground.join()
    report = await other.recover(other.compiled(chain(trace)))
    assert [t.run_id for t in report.unknown_graphs] == ["r1"]
    assert [t.run_id for t in report.failed] == ["r2"]
    assert trace.taken() == []


async def test_a_thread_is_busy_as_a_whole(ground: Ground, trace: Trace) -> None:
    """An older run of it is executed again elsewhere: the later one has to wait."""
    writer = ground.join()
    graph = writer.compiled(chain(trace))
    await writer.run(graph, IN, thread_id="t", run_id="r1")
    before = ground.moment("t")
    await writer.run(graph, IN, thread_id="t", run_id="r2")
    writer.fall_silent()
    ground.rewind(before)
    trace.taken()
    finish(ground.store.blocking.alive("somebody", 60.0))
    finish(ground.store.blocking.claim_run(writer.known("r1").fence, "somebody"))
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).busy == ("r1", "r2")
    # Also where the list is older than that: nothing is executed beside another run.
    face = other.runs._loops if ground.kind == "async" else other.runs._blocking
    known = other.runs._parts.graphs.of(graph)
    doing = redo(other.runs._parts, face, other.known("r2"), known)
    verdict = await doing if ground.kind == "async" else finish(doing)
    assert verdict == BUSY
    assert other.known("r2").owner == ""
    assert trace.taken() == []


async def test_a_run_that_has_ended_since_is_not_executed_again(
    ground: Ground, trace: Trace
) -> None:
    """The list that it stands in is older than its end."""
    party = ground.join()
    graph = party.compiled(chain(trace))
    listed: list[Any] = []
    trace.on["b"] = lambda: listed.append(party.known("r"))
    await party.run(graph, IN, thread_id="t", run_id="r")
    trace.taken()
    await party.run(party.compiled(chain(trace), interrupt_before=["b"]), IN, thread_id="t")
    trace.taken()
    face = party.runs._loops if ground.kind == "async" else party.runs._blocking
    doing = redo(party.runs._parts, face, listed[0], party.runs._parts.graphs.of(graph))
    verdict = await doing if ground.kind == "async" else finish(doing)
    assert verdict == FINE
    assert (trace.taken(), party.known("r").attempt) == ([], 1)


async def test_a_run_whose_base_is_lost_under_it_has_not_ended(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover comes while it is executed, and it has made no checkpoint of its own."""
    party = ground.join()
    graph = party.compiled(chain(trace), interrupt_before=["b"])
    await party.run(graph, IN, thread_id="t", run_id="r1")
    before = ground.moment("t")
    await party.run(graph, None, thread_id="t", run_id="r2")

    async def idle(*_: Any) -> None:
        ground.rewind(before)

    for face in (BlockingFace, LoopFace):
        monkeypatch.setattr(face, "invoke", idle)
    with pytest.raises(ReplayIncomplete, match="lost what run 'r3' was to go on with"):
        await party.run(graph, IN, thread_id="t", run_id="r3")
    assert (party.known("r3").state, party.known("r3").owner) == ("running", "")


@pytest.mark.parametrize("kind", ["async"])
async def test_async_runs_are_executed_again_in_their_own_loop(
    ground: Ground, trace: Trace
) -> None:
    """What their nodes use (pools, clients, locks) is bound to it."""
    report: Any = None
    loops: list[Any] = []
    trace.on["b"] = lambda: loops.append(asyncio.get_running_loop())
    before = ground.moment("t")
    party = ground.join(owner_alive_s=0.3)
    graph = party.compiled(chain(trace, is_async=True))
    await party.run(graph, IN, thread_id="t", run_id="r")
    ground.rewind(before)
    party.runs.rewound(report)
    await until(lambda: party.known("r").attempt == 2 and party.known("r").state == "ended")
    here = asyncio.get_running_loop()
    assert loops == [here, here]


def test_a_loop_that_ends_or_does_not_answer_cuts_runs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_loop, "LOOK_S", 0.02)
    monkeypatch.setattr(home_loop, "BEGIN_S", 0.1)
    home = home_loop.HomeLoop()

    async def told() -> str:
        return "done"

    async def app() -> None:
        home.remember()
        assert await asyncio.to_thread(home.run, "t", told) == "done"
        assert home.run("t", told) == "done"  # From within it: in another one.
        with ThreadPoolExecutor(1) as pool, pytest.raises(ReplayIncomplete):
            pool.submit(home.run, "t", told).result()  # It waits for whoever waits for it.
        hanging.append(asyncio.get_running_loop().run_in_executor(None, home.run, "t", hang))
        await began.wait()

    async def hang() -> None:
        began.set()
        await asyncio.sleep(60)

    hanging: list[Any] = []
    began = asyncio.Event()
    asyncio.run(app())
    assert home.run("t", told) == "done"  # It has ended: in another one.
    assert isinstance(hanging[0].exception(), ReplayIncomplete)


@pytest.mark.parametrize("kind", ["sync"])
async def test_who_leaves_keeps_what_it_executes(ground: Ground, trace: Trace) -> None:
    going, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        going.set()
        assert goes_on.wait(10)

    trace.on["b"] = hold
    party = ground.join()
    graph = party.compiled(chain(trace))
    running = asyncio.create_task(
        asyncio.to_thread(party.runs.run, graph, IN, thread_id="t", run_id="r")
    )
    await asyncio.to_thread(going.wait, 10)
    await party.runs.aclose(0.0)
    assert party.known("r").owner_alive
    closing = asyncio.create_task(party.runs.aclose(10.0))
    await asyncio.sleep(0.15)
    assert not closing.done()
    goes_on.set()
    assert await running == DONE
    await closing
    assert not party.known("r").owner_alive
