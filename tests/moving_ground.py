"""What tests of moving threads share: a graph with all that a thread can hold, and the command."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph, add_messages
from langgraph.types import Command, interrupt
from langgraph_checkpoint_aws import ValkeySaver as AwsSaver

from langgraph_valkey import ValkeySaver, cli
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.moving.copying import Copying, Walk
from langgraph_valkey.moving.homes import SaverHome
from langgraph_valkey.moving.ledger import Ledger
from langgraph_valkey.moving.opening import open_home, pair
from tests.failover_ground import new_prefix
from tests.primary_ground import Postgres

ROOT = Path(__file__).parents[1]


@dataclass
class Order:
    """A class of the program's, which whoever moves its threads need not have."""

    number: str
    cents: int


def joined(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    """How the delta channel grows."""
    return [*state, *(word for write in writes for word in write)]


class State(TypedDict, total=False):
    """What the graph keeps."""

    messages: Annotated[list[Any], add_messages]
    order: Order
    log: Annotated[list[str], DeltaChannel(joined, snapshot_frequency=2)]
    plain: str
    figure: float


def take(state: State) -> State:
    return {
        "messages": [AIMessage("word " * 500)],
        "order": Order("1001", 4500),
        "log": ["take"],
        "plain": "text",
        "figure": 1e22,  # JSON makes an integer of it.
    }


def approve(state: State) -> State:
    return {"log": [interrupt({"approve": 4500})]}


def builder() -> StateGraph[Any]:
    """Parallel tasks, a subgraph, an interrupt, a delta channel, objects."""
    inner = StateGraph(State)
    inner.add_node("look", lambda state: {"log": ["look"], "messages": [AIMessage("looked")]})
    inner.add_edge(START, "look")
    made = StateGraph(State)
    made.add_node("take", take)
    made.add_node("second", lambda state: {"log": ["second"]})
    made.add_node("first", lambda state: {"log": ["first"]})
    made.add_node("inner", inner.compile(checkpointer=True))
    made.add_node("approve", approve)
    made.add_node("rest", lambda state: {"plain": "rested"})
    made.add_edge(START, "take")
    made.add_edge("take", "second")
    made.add_edge("take", "first")
    made.add_edge("first", "inner")
    made.add_edge("second", "approve")
    made.add_edge("approve", "rest")
    return made


def turn(saver: BaseCheckpointSaver[Any], thread: str, *, approved: bool = False) -> Any:
    """One turn of a thread, up to the interrupt or past it."""
    graph = builder().compile(checkpointer=saver)
    at: Any = {"configurable": {"thread_id": thread}}
    found = graph.invoke({"messages": [HumanMessage("hello")]}, at, durability="sync")
    if approved:
        found = graph.invoke(Command(resume="approved"), at, durability="sync")
    return found


def fill(saver: BaseCheckpointSaver[Any], *threads: str) -> None:
    """Threads of different lengths; the first waits for approval."""
    for number, thread in enumerate(threads):
        for _ in range(number):
            turn(saver, thread, approved=True)
        turn(saver, thread)


def whole(saver: BaseCheckpointSaver[Any], thread: str) -> dict[tuple[str, str], Any]:
    """All that a checkpointer gives of a thread, as moved threads are compared by hand.

    Snapshots of delta channels are left out, which savers give at different checkpoints.
    """
    listed = [
        each
        for namespace in ("", "inner")  # One of them lists no other than it is asked for.
        for each in saver.list({"configurable": {"thread_id": thread, "checkpoint_ns": namespace}})
    ]
    found: dict[tuple[str, str], Any] = {}
    for each in listed:
        values = {k: v for k, v in each.checkpoint["channel_values"].items() if k != "log"}
        about = {**each.checkpoint, "channel_values": values}
        at = each.config["configurable"]
        found[at["checkpoint_ns"], at["checkpoint_id"]] = (
            about,
            _as_lists(dict(each.metadata)),
            (each.parent_config or {}).get("configurable", {}).get("checkpoint_id"),
            _by_task(each.pending_writes or []),
        )
    return found


def _by_task(pending: Sequence[tuple[str, str, Any]]) -> list[Any]:
    """Writes of each task in their order; special ones, which have none, before the others."""
    tasks: dict[str, tuple[list[Any], list[Any]]] = {}
    for task_id, channel, value in pending:
        special, ordinary = tasks.setdefault(task_id, ([], []))
        (special if channel in WRITES_IDX_MAP else ordinary).append((channel, value))
    return [
        (task_id, sorted(special, key=lambda write: write[0]), ordinary)
        for task_id, (special, ordinary) in tasks.items()
    ]


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_lists(inner) for key, inner in value.items()}
    return [_as_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


def log_of(saver: BaseCheckpointSaver[Any], thread: str) -> list[str]:
    """The delta channel of a thread's head, rebuilt."""
    graph = builder().compile(checkpointer=saver)
    found: list[str] = graph.get_state({"configurable": {"thread_id": thread}}).values["log"]
    return found


def head_of(saver: BaseCheckpointSaver[Any], thread: str) -> CheckpointTuple:
    """A thread's head."""
    found = saver.get_tuple({"configurable": {"thread_id": thread}})
    assert found is not None
    return found


def home(place: str, *, writes: bool = True) -> SaverHome:
    """A home at a place."""
    return open_home(place, nothing_is_named, writes=writes)


def keys_of(url: str, prefix: str) -> str:
    """A URL with a key prefix."""
    return f"{url}{'&' if '?' in url else '?'}key_prefix={prefix}"


KINDS = ("ours", "postgres", "sqlite", "aws")
THREADS = ("t{1}", "t*2 [x]")


class Places:
    """Places of each kind, and savers at them as programs use them."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._stack = ExitStack()

    def make(self, kind: str) -> str:
        """A new place with nothing in it."""
        if kind == "sqlite":
            return f"sqlite:///{self._folder}/{new_prefix()}.db"
        if kind == "postgres":
            server: Postgres = self._request.getfixturevalue("postgres")
            return server.url_of_new_schema()
        if kind == "aws":  # It has no prefix of keys.
            return "aws+" + self._stack.enter_context(LocalValkey()).url
        valkey: LocalValkey = self._request.getfixturevalue("valkey")
        return keys_of(valkey.url, new_prefix())

    def saver(self, place: str) -> BaseCheckpointSaver[Any]:
        """The saver of a program's at a place, with its own serializer."""
        enter = self._stack.enter_context
        if place.startswith("sqlite"):
            path = place.removeprefix("sqlite:///")
            return SqliteSaver(enter(closing(sqlite3.connect(path, check_same_thread=False))))
        if place.startswith("postgres"):
            made = enter(PostgresSaver.from_conn_string(place))
            made.setup()
            return made
        if place.startswith("aws+"):
            opened: BaseCheckpointSaver[Any] = enter(AwsSaver.from_conn_string(place[4:]))
            return opened
        return enter(ValkeySaver.from_url(place))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    made = Places(request, tmp_path)
    yield made
    made.close()


def nothing_is_named(name: str) -> Any:
    raise AssertionError(f"{name} is no place")


class Move:
    """A migration between two places."""

    def __init__(self, source: str, target: str, **options: Any) -> None:
        self.ends = pair(source, target, nothing_is_named)
        self.ledger = Ledger(None, ("source", "target"))
        self.copying = Copying(*self.ends, self.ledger, **options)

    def whole(self) -> Walk:
        """Copy all, and verify."""
        self.copying.catch_up()
        walk = self.copying.verify()
        self.close()
        return walk

    def close(self) -> None:
        for end in self.ends:
            end.close()


def fresh(places: Places, kind: str = "ours") -> tuple[str, str, BaseCheckpointSaver[Any]]:
    origin, goal = places.make("ours"), places.make(kind)
    saver = places.saver(origin)
    fill(saver, "t")
    return origin, goal, saver


class Done(NamedTuple):
    """What a call came to."""

    status: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Calls the command in this process, in a folder of the test's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: str, **environ: str) -> Done:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        return Done(cli.main(arguments), *capsys.readouterr())

    return call


def started(
    *arguments: str, folder: Path, entry: bool = False, **environ: str
) -> subprocess.Popen[str]:
    """The command in a process of its own: as a module, or by its entry point."""
    script = str(Path(sys.executable).with_name("langgraph-valkey"))
    program = [script] if entry else [sys.executable, "-m", "langgraph_valkey"]
    return subprocess.Popen(
        [*program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], timeout_s: float = 60.0) -> Done:
    """What a process came to."""
    out, err = process.communicate(timeout=timeout_s)
    return Done(process.returncode, out, err)
