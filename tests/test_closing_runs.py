"""Closing `Runs`: what is executed is waited for, or left for others to execute again.

And the threads that see to that, where the system has none.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.runs import recovering
from langgraph_valkey.runs.heads import sights
from langgraph_valkey.runs.report import RunsReport
from langgraph_valkey.runs.rewinds import Rewinds
from tests.failover_ground import until
from tests.runs_fixtures import new_trace, open_ground  # noqa: F401
from tests.runs_ground import Ground, Party, Trace, chain

IN = {"log": ["in"]}
DONE = {"log": ["in", "a", "b", "c"]}


class Gate:
    """Where a node waits until it is opened."""

    def __init__(self) -> None:
        self._is_open = threading.Event()

    def __call__(self) -> None:
        self._is_open.wait(20)

    def open(self) -> None:
        """Let it go on."""
        self._is_open.set()


async def begun(party: Party, trace: Trace) -> tuple[Gate, asyncio.Future[Any]]:
    """The gate at which a run waits in its first node, and the run."""
    graph, gate = party.compiled(chain(trace)), Gate()
    trace.on["a"] = gate
    running = asyncio.ensure_future(party.run(graph, IN, thread_id="t", run_id="r"))
    await until(lambda: trace.calls == ["a"])
    return gate, running


def take_shards_away(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be settled from now on."""

    async def away(_: Any) -> int:
        raise Unreachable("the shard is away")

    monkeypatch.setattr(party.runs._parts.settling, "settle", away)


async def test_what_is_closed_under_a_run_is_no_end_of_it(ground: Ground, trace: Trace) -> None:
    """Its next put raises that the connection was closed: not the user's error."""
    party = ground.join()
    gate, running = await begun(party, trace)
    await party.runs.aclose(0.0)
    await party.saver.aclose(0.0)
    gate.open()
    with pytest.raises(ConfigurationError, match="closed") as raised:
        await running
    assert "recover() will bring it to its end" in raised.value.__notes__[0]
    assert party.known("r").state == "running"
    other = ground.join()
    graph = other.compiled(chain(trace))
    assert (await other.recover(graph)).rerun == ("r",)
    assert graph.get_state({"configurable": {"thread_id": "t"}}).values == DONE


async def test_nothing_is_begun_after_closing(ground: Ground, trace: Trace) -> None:
    """Nobody says any more that the process lives: another one would execute it as well."""
    party = ground.join()
    graph = party.compiled(chain(trace))
    await party.run(graph, IN, thread_id="t")
    await party.runs.aclose(0.0)
    trace.taken()
    for call in (party.run, party.stream):
        with pytest.raises(ConfigurationError, match="closed"):
            await call(graph, IN, thread_id="t", run_id="r")
    with pytest.raises(ConfigurationError, match="closed"):
        await party.recover(graph)
    assert trace.calls == []
    assert finish(ground.store.blocking.run("r")) is None
    assert party.runs.health().silent_s is None  # Nor did it say that it lives.


@pytest.mark.parametrize("kind", ["sync"])
async def test_a_recovery_under_way_is_waited_for_and_takes_nothing_over(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = ground.join()
    trace.die_at("a")
    await dead.dies(dead.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    trace.taken()
    party, other, gate = ground.join(), ground.join(), Gate()

    async def slow(*of: Any) -> Any:
        gate()
        return await sights(*of)

    monkeypatch.setattr(recovering, "sights", slow)
    recovery = asyncio.ensure_future(party.recover(party.compiled(chain(trace))))
    await until(lambda: party.runs._parts.owner.is_busy)
    closing = asyncio.ensure_future(party.runs.aclose(10.0))
    await until(lambda: party.runs._parts.owner.is_leaving)
    await asyncio.sleep(0.3)
    assert not closing.done()
    gate.open()
    report = await recovery
    await closing
    assert (report.rerun, [each.run_id for each in report.failed]) == ((), ["r"])
    assert trace.calls == []
    assert (await other.recover(other.compiled(chain(trace)))).rerun == ("r",)


async def test_it_passes_for_alive_while_its_runs_are_waited_for(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at a shard that is being failed over takes seconds."""
    party, shard = ground.join(owner_alive_s=0.6), Gate()

    async def slow(_: Any) -> int:
        if threading.current_thread().name != "langgraph-valkey-keeper":
            shard()
        return 0

    monkeypatch.setattr(party.runs._parts.settling, "settle", slow)
    gate, running = await begun(party, trace)
    closing = asyncio.ensure_future(party.runs.aclose(10.0))
    await until(lambda: party.runs._parts.owner.is_leaving)
    for _ in range(15):
        await asyncio.sleep(0.1)
        assert party.known("r").owner_alive
    gate.open()
    assert await running == DONE
    shard.open()
    await closing
    assert not party.known("r").owner_alive


async def test_a_shard_that_is_away_ends_no_waiting_for_runs(
    ground: Ground,
    trace: Trace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    party = ground.join()
    take_shards_away(party, monkeypatch)
    gate, running = await begun(party, trace)
    caplog.clear()
    caplog.set_level(logging.WARNING, "langgraph_valkey")
    await party.runs.aclose(0.5)
    said = [each.getMessage() for each in caplog.records if "runs" in each.getMessage()]
    assert [each for each in said if "executed still" in each]
    assert [each for each in said if "could be settled" in each]
    gate.open()
    assert await running == DONE


async def test_runs_that_end_are_waited_for_though_a_shard_is_away(
    ground: Ground, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = ground.join()
    take_shards_away(party, monkeypatch)
    gate, running = await begun(party, trace)
    closing = asyncio.ensure_future(party.runs.aclose(20.0))
    await asyncio.sleep(0.4)
    assert not closing.done()
    gate.open()
    assert await running == DONE
    await asyncio.wait_for(closing, 10.0)
    assert not party.known("r").owner_alive


@pytest.fixture
def threadless(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What threads can't be started, by what their names begin with; to be changed."""
    names: set[str] = set()
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith(tuple(names)):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return names


def test_a_recovery_that_finds_no_thread_is_due_again(threadless: set[str]) -> None:
    rewinds, recovered = Rewinds(15.0), threading.Event()

    def recover() -> Any:
        recovered.set()
        return RunsReport((), (), (), (), (), (), (), 0.0)

    threadless.add("langgraph-valkey-recovery")
    rewinds.lost()
    assert rewinds.begin()
    with pytest.raises(RuntimeError, match="new thread"):
        rewinds.launch(recover)
    threadless.clear()
    assert rewinds.begin()
    rewinds.launch(recover)
    assert recovered.wait(10)


async def test_a_keeper_that_finds_no_thread_is_started_by_the_next_run(
    ground: Ground, trace: Trace, threadless: set[str]
) -> None:
    party = ground.join()
    graph, heart, keeper = party.compiled(chain(trace)), party.runs._heart, party.runs._keeper

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keeper, "start", fail)  # The second one of the two.
        with pytest.raises(RuntimeError, match="new thread"):
            await party.run(graph, IN, thread_id="t", run_id="r")
    assert (heart._thread is None, keeper._thread is None) == (False, True)
    assert (trace.calls, finish(ground.store.blocking.run("r"))) == ([], None)
    assert await party.run(graph, IN, thread_id="t", run_id="r") == DONE
    assert keeper._thread is not None
    threadless.add("langgraph-valkey-keeper")
    other = ground.join()
    graph = other.compiled(chain(trace))
    with pytest.raises(RuntimeError, match="new thread"):
        await other.run(graph, IN, thread_id="u")
    threadless.clear()
    assert await other.run(graph, IN, thread_id="u") == DONE
