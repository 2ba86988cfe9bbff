"""Executing runs: recorded first, ended as they ended, and never side by side."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from langgraph_valkey import ConfigurationError
from langgraph_valkey.errors import (
    CorruptState,
    LanggraphValkeyError,
    RunInProgress,
    RunTakenOver,
    Unreachable,
)
from langgraph_valkey.link import finish
from langgraph_valkey.runs.inputs import load
from tests.failover_ground import until
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Died, Ground, Party, Trace, chain, dying

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}
WHERE = {"configurable": {"thread_id": "t"}}


async def test_the_input_is_recorded_before_the_first_step(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace))
    seen: list[Any] = []
    trace.on["a"] = lambda: seen.append(party.known("r"))
    assert await party.run(graph, IN, thread_id="t", run_id="r") == DONE
    [run] = seen
    assert (run.state, run.owner_alive, run.attempt, run.number) == ("running", True, 1, 1)
    assert (run.turn_id, run.graph, run.face) == ("r", "graph", ground.kind)
    assert load(party.saver.serde, run.input) == IN
    assert party.runs.health().running == ()


async def test_how_it_ended_is_recorded(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace), interrupt_before=["c"])
    await party.run(graph, IN, thread_id="t", run_id="r")
    run = party.known("r")
    head = graph.get_state(WHERE).config["configurable"]["checkpoint_id"]
    assert (run.state, run.outcome, run.head, run.writes) == ("ended", "interrupted", head, 0)
    assert await party.run(graph, None, thread_id="t", run_id="r2") == DONE
    assert (party.known("r2").outcome, party.known("r2").turn_id) == ("finished", "r")
    await party.run(graph, IN, thread_id="t", run_id="r3", turn_id="mine")
    assert party.known("r3").turn_id == "mine"


async def test_a_node_that_raises_ends_the_run(ground: Ground, trace: Trace) -> None:
    def fail() -> None:
        raise RuntimeError("no")

    trace.on["b"] = fail
    party = ground.join()
    graph = party.compiled(chain(trace))
    with pytest.raises(RuntimeError, match="no") as raised:
        await party.run(graph, IN, thread_id="t", run_id="r")
    assert "recover" not in str(getattr(raised.value, "__notes__", ""))
    assert (party.known("r").state, party.known("r").outcome) == ("settled", "failed")
    with pytest.raises(ValueError, match="failed"):
        await party.run(graph, IN, thread_id="t", run_id="r")
    report = await party.recover()
    assert (report.fine, report.rerun, report.failed) == ((), (), ())
    assert trace.taken() == ["a", "b"]


async def test_the_same_run_is_not_executed_twice(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace))
    await party.run(graph, IN, thread_id="t", run_id="r")
    await party.run(graph, {"log": ["later"]}, thread_id="t")
    trace.taken()
    other = ground.join()
    again = other.compiled(chain(trace))
    assert await other.run(again, IN, thread_id="t", run_id="r") == DONE
    values = {"stream_mode": "values"}
    assert await other.stream(again, IN, thread_id="t", run_id="r", **values) == [DONE]
    assert await other.stream(again, IN, thread_id="t", run_id="r") == []
    assert trace.taken() == []
    for wrong in ({"given": {"log": ["x"]}}, {"thread_id": "u"}):
        asked: Any = {"given": IN, "thread_id": "t", **wrong}
        with pytest.raises(ValueError, match="an id of its own"):
            await other.run(again, asked.pop("given"), run_id="r", **asked)


async def test_the_same_run_is_known_where_inputs_are_encrypted(
    ground: Ground, trace: Trace
) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=os.urandom(16))
    party = ground.join(serde=serde, digest_key="k" * 32)
    graph = party.compiled(chain(trace))
    secret = {"log": ["the secret"]}
    await party.run(graph, secret, thread_id="t", run_id="r")
    run = party.known("r")
    assert b"the secret" not in run.input
    assert "the secret" not in run.context
    assert (await party.run(graph, secret, thread_id="t", run_id="r"))["log"][0] == "the secret"
    with pytest.raises(ValueError, match="an id of its own"):
        await party.run(graph, IN, thread_id="t", run_id="r")


async def test_one_run_of_a_thread_at_a_time(ground: Ground, trace: Trace) -> None:
    going, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        going.set()
        assert goes_on.wait(10)

    trace.on["b"] = hold
    party, other = ground.join(), ground.join()
    graph, others = party.compiled(chain(trace)), other.compiled(chain(trace))
    # In a thread, since the node blocks.
    first = asyncio.create_task(
        asyncio.to_thread(party.runs.run, graph, IN, thread_id="t", run_id="r")
    )
    await asyncio.to_thread(going.wait, 10)
    for each, its in ((party, graph), (other, others)):
        for run_id in ("r", "another"):
            with pytest.raises(RunInProgress) as raised:
                await each.run(its, IN, thread_id="t", run_id=run_id)
            assert (raised.value.run_id, raised.value.thread_id) == ("r", "t")
    assert finish(ground.store.blocking.run("another")) is None  # Nothing was recorded.
    waiting = asyncio.create_task(other.run(others, {"log": ["2"]}, thread_id="t", wait_s=10.0))
    await asyncio.sleep(0.15)
    assert not waiting.done()
    goes_on.set()
    assert await first == DONE
    assert (await waiting)["log"] == [*DONE["log"], "2", "a", "b", "c"]


async def test_a_stream_is_what_the_graph_streams(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace))
    chunks = await party.stream(graph, IN, thread_id="t", stream_mode=["updates", "values"])
    assert chunks == list(
        graph.stream(IN, {"configurable": {"thread_id": "u"}}, stream_mode=["updates", "values"])
    )


async def test_a_stream_that_is_closed_early_is_recovered(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace))
    if ground.kind == "async":
        chunks = party.runs.astream(graph, IN, thread_id="t", run_id="r")
        assert await anext(chunks) == {"a": {"log": ["a"]}}
        await chunks.aclose()
    else:
        blocking = party.runs.stream(graph, IN, thread_id="t", run_id="r")
        assert next(blocking) == {"a": {"log": ["a"]}}
        blocking.close()
    assert (party.known("r").state, party.known("r").owner) == ("running", "")
    other = ground.join()
    again = other.compiled(chain(trace))
    assert (await other.recover(again)).rerun == ("r",)
    assert again.get_state(WHERE).values == DONE


@pytest.mark.parametrize("kind", ["async"])
async def test_a_cancelled_run_is_recovered(ground: Ground, trace: Trace) -> None:
    going = asyncio.Event()
    party = ground.join()

    async def hang(state: Any) -> Any:
        going.set()
        await asyncio.sleep(60)

    builder = chain(trace)
    builder.nodes["b"].runnable.afunc = hang
    graph = party.compiled(builder)
    task = asyncio.create_task(party.run(graph, IN, thread_id="t", run_id="r"))
    await going.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert "recover() will bring it to its end" in raised.value.__notes__[-1]
    assert party.known("r").owner == ""
    again = party.compiled(chain(trace))
    assert (await party.recover(again)).rerun == ("r",)
    assert again.get_state(WHERE).values == DONE


@pytest.mark.parametrize(
    "trouble", [lambda: Unreachable("no"), lambda: CorruptState("torn", thread_id="t", key="k")]
)
async def test_an_outage_gives_the_run_free(
    ground: Ground, trace: Trace, trouble: Callable[[], LanggraphValkeyError]
) -> None:
    def fail() -> None:
        raise trouble()

    trace.on["b"] = fail
    party = ground.join()
    graph = party.compiled(chain(trace))
    with pytest.raises(type(trouble())) as raised:
        await party.run(graph, IN, thread_id="t", run_id="r")
    assert "run 'r' of thread 't' is recorded" in raised.value.__notes__[-1]
    assert (party.known("r").state, party.known("r").owner) == ("running", "")
    trace.on.clear()
    trace.taken()
    assert await party.run(graph, IN, thread_id="t", run_id="r") == DONE  # The same call.
    assert trace.taken() == ["b", "c"]
    assert party.known("r").attempt == 2


@pytest.mark.parametrize("commits", [False, True])
async def test_what_was_taken_over_is_left_to_the_other(
    ground: Ground, trace: Trace, *, commits: bool
) -> None:
    """A process that was too slow to say that it lives, and goes on."""
    party = ground.join()

    def take_over() -> None:
        party.fall_silent()
        assert finish(ground.store.blocking.claim_run(party.known("r").fence, "other"))

    trace.on["b"] = take_over
    graph = party.compiled(chain(trace))
    if commits:
        _commit_in(graph, party)
    with pytest.raises(RunTakenOver):
        await party.run(graph, IN, thread_id="t", run_id="r")
    assert trace.taken() == (["a", "b"] if commits else ["a", "b", "c"])
    assert (party.known("r").owner, party.known("r").state) == ("other", "running")
    assert party.receipts("t", "r") == []
    assert party.runs.health().running == ()


def _commit_in(graph: Any, party: Party) -> None:
    inner = graph.nodes["b"].bound

    def commits(state: Any) -> Any:
        inner.invoke(state)
        party.commit("pay", "1")

    graph.nodes["b"].bound = type(inner)(commits)


@pytest.mark.parametrize("kind", ["async"])
@pytest.mark.parametrize("in_a_loop", [False, True])
async def test_a_blocking_recovery_executes_async_nodes(
    ground: Ground, trace: Trace, *, in_a_loop: bool
) -> None:
    trace.die_at("b")
    writer = ground.join()
    builder = chain(trace, is_async=True)
    await writer.dies(writer.compiled(builder), IN, thread_id="t", run_id="r")
    other = ground.join()
    graph = other.compiled(builder)
    if in_a_loop:
        report = other.runs.recover(graph)
    else:
        report = await asyncio.to_thread(other.runs.recover, graph)
    assert report.rerun == ("r",), report
    assert (await graph.aget_state(WHERE)).values == DONE


async def test_a_cancelled_run_commits_nothing_more(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace))
    trace.on["b"] = lambda: party.runs.cancel("r")
    _commit_in(graph, party)
    with pytest.raises(RunTakenOver):
        await party.run(graph, IN, thread_id="t", run_id="r")
    assert (party.known("r").state, party.known("r").outcome) == ("settled", "cancelled")
    assert party.receipts("t", "r") == []
    other = ground.join()
    trace.on.clear()
    trace.die_at("b")
    with dying(), pytest.raises(Died):
        await other.run(other.compiled(chain(trace)), IN, thread_id="u", run_id="r2")
    with pytest.raises(RunInProgress):
        party.runs.cancel("r2")
    assert other.runs.forget_thread("u") == 1
    assert not other.runs.cancel("r2")


async def test_what_cannot_be_honoured_is_refused(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    graph = party.compiled(chain(trace))
    for wrong, said in (
        ({"durability": "async"}, "durability 'sync'"),
        ({"config": {"configurable": {"checkpoint_id": "x"}}}, "head"),
        ({"config": {"configurable": {"thread_id": "u"}}}, "another thread"),
    ):
        with pytest.raises(ValueError, match=said):
            await party.run(graph, IN, thread_id="t", **wrong)
    for saver in (None, InMemorySaver(), ground.join().saver):
        with pytest.raises(ConfigurationError, match="compile it with"):
            await party.run(chain(trace).compile(checkpointer=saver), IN, thread_id="t")
    await party.run(graph, IN, thread_id="t")
    with pytest.raises(ConfigurationError, match="two graphs are named 'graph'"):
        await party.run(party.compiled(chain(trace, "xyz")), IN, thread_id="t")
    await party.run(party.compiled(chain(trace)), IN, thread_id="t")  # Compiled anew.


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_process_says_that_it_lives(ground: Ground, trace: Trace) -> None:
    party = ground.join(owner_alive_s=1.0)
    await party.run(party.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    began_s = time.monotonic()
    while time.monotonic() - began_s < 1.3:
        assert party.known("r").owner_alive
        await asyncio.sleep(0.1)
    await party.runs.aclose(0.0)
    assert not party.known("r").owner_alive


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_process_says_that_it_lives_while_it_waits_for_a_shard(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover takes seconds: a process that waits for its end is not dead."""
    party = ground.join(owner_alive_s=0.6)
    waits = threading.Event()

    async def settle(_: Any) -> int:
        waits.wait(20)
        return 0

    monkeypatch.setattr(party.runs._parts.settling, "settle", settle)
    await party.run(party.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    began_s = time.monotonic()
    while time.monotonic() - began_s < 1.5:
        assert party.known("r").owner_alive
        await asyncio.sleep(0.1)
    waits.set()


async def test_its_thread_ends_with_it(ground: Ground, trace: Trace) -> None:
    party = ground.join(owner_alive_s=0.3)
    await party.run(party.compiled(chain(trace)), IN, thread_id="t")
    threads = [each for each in (party.runs._heart._thread, party.runs._keeper._thread) if each]
    assert len(threads) == 2
    gone = weakref.ref(party.runs)
    ground._parties.remove(party)
    await party.saver.aclose(0.0)
    del party
    gc.collect()
    await until(lambda: gone() is None)
    await until(lambda: not any(thread.is_alive() for thread in threads))


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_forked_child_is_another_owner(ground: Ground, trace: Trace) -> None:
    party = ground.join()
    await party.run(party.compiled(chain(trace)), IN, thread_id="t")
    runs, before = party.runs, party.runs.health()
    runs._parts.owner.after_fork()
    runs._parts.settling.after_fork()
    for each in (runs._heart, runs._keeper):
        each.stop()
        each._ended.clear()
        each.after_fork()
    assert runs.health().owner != before.owner
    assert (runs.health().settling, before.settling) == (0, 1)
    await party.run(party.compiled(chain(trace)), IN, thread_id="u", run_id="r")
    assert party.known("r").owner == runs.health().owner
