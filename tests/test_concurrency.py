"""Many tasks, many threads, many event loops, one saver: nothing lost, nothing stuck."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from langgraph_valkey import ValkeySaver, limits
from tests.faces import FACES, Twin, checkpoint, config, metadata, numbered_id, open_face
from tests.raw_server import RawServer, raw_server

STUCK_S = 30.0
"""After so long a call counts as hanging."""


@pytest.fixture
def raw(valkey: Any) -> Iterator[RawServer]:
    with raw_server(valkey.url) as server:
        yield server


@pytest.fixture
def saver(valkey: Any) -> Iterator[ValkeySaver]:
    with ValkeySaver.from_url(valkey.url, key_prefix=f"t{os.urandom(6).hex()}") as opened:
        yield opened


def put(saver: Any, thread_id: str, number: int, value: Any) -> None:
    made, new_versions = checkpoint(numbered_id(number), {"value": value})
    saver.put(config(thread_id), made, metadata(number), new_versions)


async def aput(saver: Any, thread_id: str, number: int, value: Any) -> None:
    made, new_versions = checkpoint(numbered_id(number), {"value": value})
    await saver.aput(config(thread_id), made, metadata(number), new_versions)


def value_of(found: CheckpointTuple | None) -> Any:
    assert found is not None
    return found.checkpoint["channel_values"]["value"]


async def on_its_thread(saver: Any, name: str, count: int = 20, first: int = 0) -> None:
    """A conversation of its own: put and read back, again and again."""
    for number in range(first, first + count):
        await aput(saver, name, number, [name, number])
        assert value_of(await saver.aget_tuple(config(name))) == [name, number]


def all_at_once(calls: list[Callable[[], None]], timeout_s: float = STUCK_S) -> None:
    """Run each in a thread of its own, all let go at once; raise the first error."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        gate.wait(timeout_s)
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(run, call) for call in calls]:
            future.result(timeout_s)


# --- tasks and threads --------------------------------------------------------


@pytest.mark.parametrize("kind", FACES)
async def test_200_writers_on_one_checkpoint(kind: str, valkey: Any, raw: RawServer) -> None:
    async with open_face(kind, valkey.url) as face:
        twin = Twin(face)
        where = await twin.step("t", 1, value=1)
        await twin.write(config("other", "", numbered_id(1)), [("value", 0)], "warms the script up")
        before = raw.script_calls()
        await asyncio.gather(
            *(
                twin.write(where, [("value", n), ("other", [n] * 20)], f"task {n}", f"path {n % 7}")
                for n in range(200)
            )
        )
        assert raw.script_calls() - before <= 200
        found = await twin.get(where)
        assert found is not None
        assert found.pending_writes is not None
        assert len(found.pending_writes) == 400


async def test_200_writers_of_one_cell_agree(valkey: Any) -> None:
    """Of concurrent ordinary writes to one cell exactly one stays; of special ones, too."""
    async with open_face("async", valkey.url) as face:
        where = await Twin(face).step("t", 1, value=1)
        await asyncio.gather(
            *(
                face.aput_writes(where, [("value", n), ("__interrupt__", n)], "task")
                for n in range(200)
            )
        )
        found = [await face.aget_tuple(where) for _ in range(2)]
        assert found[0] == found[1]
        assert found[0] is not None
        assert found[0].pending_writes is not None
        assert [channel for _, channel, _ in found[0].pending_writes] == ["__interrupt__", "value"]


def test_100_threads_each_on_its_own(saver: ValkeySaver) -> None:
    def converse(name: str) -> None:
        for number in range(5):
            put(saver, name, number, [name, number])
            assert value_of(saver.get_tuple(config(name))) == [name, number]
        assert len(list(saver.list(config(name)))) == 5

    all_at_once([lambda name=f"t{n}": converse(name) for n in range(100)])  # type: ignore[misc]


def test_100_threads_on_one_thread(saver: ValkeySaver) -> None:
    """Heads only ever move up, and no put is lost."""

    def write_and_read(writer: int) -> None:
        last = ""
        for turn in range(3):
            put(saver, "shared", turn * 100 + writer, [writer] * 50)
            found = saver.get_tuple(config("shared"))
            assert found is not None
            assert found.checkpoint["id"] >= max(last, numbered_id(turn * 100 + writer))
            last = found.checkpoint["id"]

    all_at_once([lambda writer=n: write_and_read(writer) for n in range(100)])  # type: ignore[misc]
    listed = list(saver.list(config("shared")))
    assert [found.checkpoint["id"] for found in listed] == [*map(numbered_id, range(299, -1, -1))]
    assert all(value_of(found) == [found.metadata["step"] % 100] * 50 for found in listed)


def test_both_faces_at_once(saver: ValkeySaver) -> None:
    def blocking() -> None:
        for number in range(20):
            put(saver, "blocking", number, number)
            assert value_of(saver.get_tuple(config("blocking"))) == number

    all_at_once([blocking, lambda: asyncio.run(on_its_thread(saver, "async"))])


async def test_the_blocking_face_inside_a_running_loop(saver: ValkeySaver) -> None:
    """As a sync node or a notebook cell calls it."""
    await aput(saver, "t", 1, "async")
    assert value_of(saver.get_tuple(config("t"))) == "async"
    put(saver, "t", 2, "sync")
    assert value_of(await saver.aget_tuple(config("t"))) == "sync"


# --- event loops --------------------------------------------------------------


def test_event_loops_one_after_the_other(saver: ValkeySaver) -> None:
    for turn in range(4):
        asyncio.run(asyncio.wait_for(on_its_thread(saver, f"loop {turn}", 5), STUCK_S))
        assert value_of(saver.get_tuple(config(f"loop {turn}"))) == [f"loop {turn}", 4]


def test_event_loops_side_by_side(saver: ValkeySaver) -> None:
    all_at_once(
        [
            lambda name=f"loop {n}": asyncio.run(  # type: ignore[misc]
                asyncio.wait_for(on_its_thread(saver, name), STUCK_S)
            )
            for n in range(8)
        ]
    )


def test_the_first_loop_ends_while_others_go_on(saver: ValkeySaver) -> None:
    first_ended = threading.Event()

    async def outlive() -> None:
        await on_its_thread(saver, "outlives", 3)
        assert await asyncio.to_thread(first_ended.wait, STUCK_S)
        await asyncio.wait_for(on_its_thread(saver, "outlives", 10, first=3), STUCK_S)

    def first() -> None:
        asyncio.run(on_its_thread(saver, "first", 3))
        first_ended.set()

    all_at_once([first, lambda: asyncio.run(outlive())])


@pytest.mark.parametrize("blocked", ["first", "second"])
def test_a_blocked_loop_blocks_no_other(saver: ValkeySaver, blocked: str) -> None:
    """GLIDE brings all replies through the loop that came first; here that loop stands still."""
    is_blocked, may_go_on = threading.Event(), threading.Event()

    async def stand_still() -> None:
        await on_its_thread(saver, "blocked", 2)
        is_blocked.set()
        may_go_on.wait(STUCK_S)  # blocks the loop, as a long computation would
        await asyncio.wait_for(on_its_thread(saver, "blocked", 2, first=2), STUCK_S)

    def others() -> None:
        try:
            assert is_blocked.wait(STUCK_S)
            asyncio.run(asyncio.wait_for(on_its_thread(saver, "goes on", 5), STUCK_S / 2))
            put(saver, "blocking", 1, "too")
        finally:
            may_go_on.set()

    if blocked == "second":
        asyncio.run(on_its_thread(saver, "came first", 2))
    all_at_once([lambda: asyncio.run(stand_still()), others])
    assert value_of(saver.get_tuple(config("goes on"))) == ["goes on", 4]


def test_a_loop_blocked_while_calls_are_under_way(saver: ValkeySaver) -> None:
    """Replies that arrive while the loop stands still are there when it goes on."""
    pause = threading.Event()

    async def main() -> None:
        calls = [asyncio.ensure_future(on_its_thread(saver, f"t{n}", 3)) for n in range(20)]
        for _ in range(3):
            await asyncio.sleep(0)
            pause.wait(0.2)
        await asyncio.wait_for(asyncio.gather(*calls), STUCK_S)

    asyncio.run(main())


# --- slow servers -------------------------------------------------------------


@pytest.mark.parametrize("kind", FACES)
async def test_more_calls_than_fit_wait_their_turn(kind: str, valkey: Any, raw: RawServer) -> None:
    """GLIDE refuses the 1001st request under way; here five times as many as fit are asked for."""
    count = 5 * limits.IN_FLIGHT_MOST if kind == "async" else limits.IN_FLIGHT_MOST
    async with open_face(kind, valkey.url) as face:
        where = await Twin(face).step("t", 1, value=1)
        raw.do("CLIENT", "PAUSE", "300", "WRITE")
        await asyncio.gather(
            *(face.aput_writes(where, [("value", n)], f"task {n}") for n in range(count))
        )
        found = await face.aget_tuple(where)
        assert found is not None
        assert found.pending_writes is not None
        assert sorted(value for _, _, value in found.pending_writes) == list(range(count))


class Loop(TypedDict):
    count: Annotated[int, lambda a, b: a + b]
    text: str


@pytest.mark.parametrize("kind", FACES)
async def test_a_graph_that_outruns_a_slow_server(kind: str, valkey: Any, raw: RawServer) -> None:
    """With durability="async" LangGraph does not wait for puts; all of them arrive all the same."""
    steps = 150
    builder = StateGraph(Loop)
    builder.add_node("work", lambda state: {"count": 1, "text": "x" * 500 * (state["count"] % 7)})
    builder.add_edge(START, "work")
    builder.add_conditional_edges(
        "work", lambda state: "work" if state["count"] < steps else END, ["work", END]
    )
    async with open_face(kind, valkey.url) as face:
        graph = builder.compile(checkpointer=face.saver)
        where: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": steps + 10}
        raw.do("CLIENT", "PAUSE", "500", "WRITE")
        result = await face.run(graph, "invoke", {"count": 0}, where, durability="async")
        assert result["count"] == steps
        states = await face.run(graph, "get_state_history", where)
        assert [state.metadata["step"] for state in states] == [*range(steps, -2, -1)]
        assert states[0].values == result


# --- processes ----------------------------------------------------------------


FORKING = """
    import asyncio, os, sys, warnings
    from langgraph_valkey import ValkeySaver
    from tests.faces import config
    from tests.test_concurrency import aput, put, value_of

    warnings.simplefilter("ignore", DeprecationWarning)  # of os.fork beside other threads
    saver = ValkeySaver.from_url(sys.argv[1], key_prefix=sys.argv[2])
    put(saver, "parent", 1, "before")
    if sys.argv[3] == "async":
        asyncio.run(aput(saver, "parent", 2, "before"))
    child = os.fork()
    name = "parent" if child else "child"

    async def on_async():
        await aput(saver, name, 3, name)
        assert value_of(await saver.aget_tuple(config(name))) == name

    code = 1
    try:
        assert value_of(saver.get_tuple(config("parent"))) == "before" or child == 0
        for _ in range(20):
            put(saver, name, 4, name)
            assert value_of(saver.get_tuple(config(name))) == name
        if sys.argv[3] == "async":
            asyncio.run(asyncio.wait_for(on_async(), 20))
        code = 0
    finally:
        if child == 0:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert value_of(saver.get_tuple(config("child"))) == "child"
    saver.close()
    print("both went on")
"""


@pytest.mark.parametrize("used", FACES)
def test_after_a_fork_both_processes_go_on(valkey: Any, used: str) -> None:
    """As under a forking web server that was set up before it forked."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(FORKING),
            valkey.url,
            f"t{os.urandom(6).hex()}",
            used,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1:] == ["both went on"]
