"""Many graphs at once: 50 threads of 20 supersteps each, default settings.

A graph with a list that grows by a message a superstep and a counter that ends
the loop. All threads run at the same time, as tasks of one event loop or on a
pool of OS threads. Failed graphs are counted; the time of a contender any of
whose graphs failed means nothing and is not shown.
"""

from __future__ import annotations

import asyncio
import gc
import operator
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from benchmarks import peers
from benchmarks.contenders import line_up
from benchmarks.faces import FACES, FaceName, Opened
from benchmarks.figures import Case, Figure, Goal, take_turns
from benchmarks.session import Session
from benchmarks.workloads import thread

THREADS, SUPERSTEPS = 50, 20
ROUNDS, ROUNDS_QUICK = 11, 2
GOAL = Goal(0.75, "best Valkey peer")
TEXT = "A turn of the conversation, about as long as people's turns are. " * 2
RAISED = {
    peers.AWS_POOL_200: (peers.aws_pool_200, "peer", True),
    peers.PLAINREDIS_POOL_200: (peers.plainredis_pool_200, "peer", True),
}


class State(TypedDict):
    """A conversation and its length."""

    messages: Annotated[list[dict[str, str]], operator.add]
    loop: int


def _turn(state: State) -> dict[str, Any]:
    number = state["loop"] + 1
    role = ("user", "assistant")[number % 2]
    return {"messages": [{"role": role, "content": f"{number}: {TEXT}"}], "loop": number}


def build(saver: Any, supersteps: int) -> Any:
    """A graph of one node that loops."""
    graph = StateGraph(State)
    graph.add_node("turn", _turn)
    graph.add_edge(START, "turn")
    graph.add_conditional_edges(
        "turn", lambda state: END if state["loop"] >= supersteps else "turn"
    )
    return graph.compile(checkpointer=saver)


async def _all_tasks(graph: Any, thread_ids: list[str]) -> tuple[float, list[Any]]:
    started = time.perf_counter()
    ended = await asyncio.gather(
        *(graph.ainvoke({"messages": [], "loop": 0}, thread(name)) for name in thread_ids),
        return_exceptions=True,
    )
    return time.perf_counter() - started, ended


def _all_threads(graph: Any, thread_ids: list[str]) -> tuple[float, list[Any]]:
    def one(name: str) -> Any:
        try:
            return graph.invoke({"messages": [], "loop": 0}, thread(name))
        except Exception as error:  # noqa: BLE001 - it is counted, whatever it is
            return error

    started = time.perf_counter()
    with ThreadPoolExecutor(len(thread_ids)) as pool:
        ended = list(pool.map(one, thread_ids))
    return time.perf_counter() - started, ended


def measure(session: Session) -> list[Figure]:
    """Both faces."""
    figure = Figure("graph", f"Graph of {THREADS} threads x {SUPERSTEPS} supersteps, us a step")
    figure.notes.append(
        "Wall time by threads and supersteps. 'over InMemorySaver' is what a step costs beyond "
        "the same graph on LangGraph's own saver in memory."
    )
    for face in FACES:
        with session.opened(line_up(session.servers, face, more=RAISED), figure) as opened:
            _one_face(session, figure, opened, face)
    return [figure]


def _one_face(session: Session, figure: Figure, opened: list[Opened], face: FaceName) -> None:
    case = figure.case(f"a step, {face}", "us", GOAL)
    errors = figure.case(
        f"failed graphs of {THREADS} (most in a round), {face}", "", Goal(0, "nothing")
    )
    rounds = ROUNDS_QUICK if session.quick else ROUNDS

    def run(who: Opened, threads: int, supersteps: int) -> tuple[float, list[Any]]:
        who.contender.store.clear()
        graph = build(who.saver, supersteps)
        names = [session.new_thread() for _ in range(threads)]
        gc.collect()
        if face == "async":
            result = session.runner.run(_all_tasks(graph, names))
        else:
            result = _all_threads(graph, names)
        if who.contender.role == "reference":
            for name in names:
                who.run(who.calls.delete_thread(name))
        return result

    def one(who: Opened, turn: int) -> None:
        name = who.contender.name
        session.progress(f"graph: {face}, round {turn + 1}/{rounds}, {name}")
        spent_s, ended = run(who, THREADS, SUPERSTEPS)
        case.add(name, spent_s / (THREADS * SUPERSTEPS) * 1e6)
        errors.add(name, _count_failures(case, name, ended))

    for who in opened:
        run(who, 2, 2)
    take_turns(opened, rounds, one)
    for name, values in errors.samples.items():
        errors.samples[name] = [max(values)]
    _beyond_memory(figure, case, face)


def _count_failures(case: Case, name: str, ended: list[Any]) -> int:
    failed = [one for one in ended if isinstance(one, BaseException)]
    failed += [
        AssertionError("messages are missing")
        for one in ended
        if isinstance(one, dict) and len(one["messages"]) != SUPERSTEPS
    ]
    if failed:
        kinds = sorted({type(error).__name__ for error in failed})
        case.failures[name] = f"{len(failed)} of {len(ended)} failed: {', '.join(kinds)}"
    return len(failed)


def _beyond_memory(figure: Figure, case: Case, face: FaceName) -> None:
    """Another row: each round's time less that of the saver in memory."""
    beyond = figure.case(f"over InMemorySaver, {face}", "us")
    memory = case.samples.get(peers.MEMORY, [])
    for name, values in case.samples.items():
        if name != peers.MEMORY and name not in case.failures:
            beyond.samples[name] = [one - other for one, other in zip(values, memory, strict=True)]
