"""A long thread: 1,000 checkpoints, read, listed, searched and resumed.

The state is small and does not grow, so that what is measured is the walk and
not the size. The thread is made by a real graph, so its oldest checkpoint, and
only that, came from an input.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from benchmarks.contenders import line_up
from benchmarks.faces import FACES, FaceName, Opened
from benchmarks.figures import Figure, Goal, take_turns
from benchmarks.session import Session
from benchmarks.workloads import thread

CHECKPOINTS = 1_000
ROUNDS, ROUNDS_QUICK = 11, 2
KEPT_NOTES = 5
REPEATS = {"get latest": 20, "list(limit=10)": 10}
GOALS = {
    "list(limit=10)": Goal(0.6, "nothing"),
    "full list": Goal(50, "nothing"),
    "list(filter, limit=1), the match is the oldest": Goal(5, "nothing"),
}


def _keep(old: list[str], new: list[str]) -> list[str]:
    return [*old, *new][-KEPT_NOTES:]


class State(TypedDict):
    """A counter, and the last few of some notes."""

    notes: Annotated[list[str], _keep]
    count: int
    until: int


def _work(state: State) -> dict[str, Any]:
    number = state["count"] + 1
    return {"notes": [f"note {number}: nothing new under the sun"], "count": number}


def build(saver: Any) -> Any:
    """A graph of one node that loops."""
    graph = StateGraph(State)
    graph.add_node("work", _work)
    graph.add_edge(START, "work")
    graph.add_conditional_edges(
        "work", lambda state: END if state["count"] >= state["until"] else "work"
    )
    return graph.compile(checkpointer=saver)


async def _invoke(who: Opened, graph: Any, state: dict[str, Any], thread_id: str) -> Any:
    config = {**thread(thread_id), "recursion_limit": 2 * CHECKPOINTS}
    if who.contender.face == "async":
        return await graph.ainvoke(state, config)
    return graph.invoke(state, config)


async def _times(call: Callable[[], Awaitable[Any]], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        await call()
    return (time.perf_counter() - started) / repeats * 1e3


def measure(session: Session) -> list[Figure]:
    """Both faces."""
    checkpoints = CHECKPOINTS // 5 if session.quick else CHECKPOINTS
    figure = Figure("history", f"A thread of {checkpoints:,} checkpoints, ms")
    for face in FACES:
        with session.opened(line_up(session.servers, face), figure) as opened:
            _one_face(session, figure, opened, face, checkpoints)
    figure.notes.append("'resume' is a whole run of a graph: an input and one superstep.")
    return [figure]


def _one_face(
    session: Session, figure: Figure, opened: list[Opened], face: FaceName, checkpoints: int
) -> None:
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    # The input makes one checkpoint, entering the graph another.
    first = {"notes": [], "count": 0, "until": checkpoints - 2}
    names: dict[str, str] = {}
    graphs: dict[str, Any] = {}
    for who in opened:
        name = who.contender.name
        session.progress(f"history: {face}, writing {checkpoints:,} checkpoints, {name}")
        names[name], graphs[name] = session.new_thread(), build(who.saver)
        who.run(_invoke(who, graphs[name], first, names[name]))

    def one(who: Opened, turn: int) -> None:
        name = who.contender.name
        session.progress(f"history: {face}, round {turn + 1}/{rounds}, {name}")
        for what, value_ms in who.run(_reads(who, names[name], checkpoints)).items():
            figure.case(f"{what}, {face}", "ms", GOALS.get(what)).add(name, value_ms)

    def resume(who: Opened, turn: int) -> None:
        name = who.contender.name
        session.progress(f"history: {face}, resuming, round {turn + 1}/{rounds}, {name}")
        gc.collect()
        more = {"until": checkpoints - 1 + turn}
        call = _times(lambda: _invoke(who, graphs[name], more, names[name]), 1)
        figure.case(f"resume, {face}", "ms").add(name, who.run(call))

    take_turns(opened, rounds, one)
    take_turns(opened, rounds, resume)


async def _reads(who: Opened, thread_id: str, checkpoints: int) -> dict[str, float]:
    calls, config = who.calls, thread(thread_id)
    wanted: dict[str, Callable[[], Awaitable[Any]]] = {
        "get latest": lambda: calls.get_tuple(config),
        "list(limit=10)": lambda: calls.list(config, limit=10),
        "full list": lambda: calls.list(config),
        "list(filter, limit=1), the match is the oldest": lambda: calls.list(
            config, filter={"source": "input"}, limit=1
        ),
    }
    if len(await calls.list(config)) != checkpoints:
        raise AssertionError(f"{who.contender.name} does not list {checkpoints} checkpoints")
    gc.collect()
    return {what: await _times(call, REPEATS.get(what, 1)) for what, call in wanted.items()}
