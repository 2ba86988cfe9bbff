"""Closing `Runs`: what is executed is waited for, or left for others to execute again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.local import LocalValkey
from tests.failover_ground import until
from tests.runs_ground import Ground, Trace, chain

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


class Gate:
    """Where a node waits until it is opened."""

    def __init__(self) -> None:
        self._is_open = threading.Event()

    def __call__(self) -> None:
        self._is_open.wait(20)

    def open(self) -> None:
        """Let it go on."""
        self._is_open.set()


async def test_what_is_closed_under_a_run_is_no_end_of_it(ground: Ground, trace: Trace) -> None:
    """Its next put raises that the connection was closed: not the user's error."""
    party = ground.join()
    gate = trace.on["a"] = Gate()
    running = asyncio.ensure_future(
        party.run(party.compiled(chain(trace)), IN, thread_id="t", run_id="r")
    )
    await until(lambda: trace.calls == ["a"])
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
