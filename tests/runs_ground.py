"""What tests of runs share: processes that die, threads that are rewound, and graphs.

A process is a `Party`: a saver, and `Runs` over it. It dies by `Died`, which nothing of
ours may handle as the end of a run (`dying` sees to that), and by falling silent. A
server that lost what came after a moment is one whose keys are as they were then.
"""

from __future__ import annotations

import asyncio
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypedDict
from unittest.mock import patch

from langchain_core.messages import AnyMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from sqlalchemy import insert, select

from langgraph_valkey import ValkeySaver
from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.commits.commit import commit
from langgraph_valkey.commits.turns import turn_of
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.primary.records import Receipt, Run, digest_of
from langgraph_valkey.runs import attempts
from langgraph_valkey.runs.registry import Runs
from langgraph_valkey.runs.report import RunsReport
from langgraph_valkey.settings import Settings
from langgraph_valkey.sql.schema import Tables
from langgraph_valkey.sql.store import SqlStore


class Died(BaseException):
    """The process is gone."""


class Log(TypedDict):
    log: Annotated[list[Any], operator.add]


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Trace:
    """What a graph's nodes did, and are to do.

    Attributes:
        calls: Names of the nodes, as they were executed.
        on: What a node does first.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on: dict[str, Callable[[], Any]] = {}

    def enter(self, name: str) -> None:
        self.calls.append(name)
        if name in self.on:
            self.on[name]()

    def die_at(self, name: str) -> None:
        """The process dies when this node is executed next."""

        def die() -> None:
            del self.on[name]
            raise Died

        self.on[name] = die

    def fail_at(self, name: str, error: Exception) -> None:
        """This node raises when it is executed next."""

        def fail() -> None:
            del self.on[name]
            raise error

        self.on[name] = fail

    def taken(self) -> list[str]:
        """The calls since this was asked last."""
        calls, self.calls = self.calls, []
        return calls


def chain(trace: Trace, names: str = "abc", *, is_async: bool = False) -> Any:
    """A graph of nodes in a row, each of which adds its name to the log."""
    builder = StateGraph(Log)
    for name in names:
        builder.add_node(name, _node(trace, name, is_async=is_async))
    builder.add_edge(START, names[0])
    for before, after in pairwise(names):
        builder.add_edge(before, after)
    return builder


def _node(trace: Trace, name: str, *, is_async: bool) -> Any:
    def blocking(state: Log) -> dict[str, Any]:
        trace.enter(name)
        return {"log": [name]}

    async def loops(state: Log) -> dict[str, Any]:
        return blocking(state)

    return loops if is_async else blocking


class Party:
    """A process that executes runs.

    Attributes:
        runs: Its runs.
        saver: Its saver.
        store: The primary store, which all share.
    """

    def __init__(self, kind: str, url: str, store: SqlStore, **settings: Any) -> None:
        options = {name: settings.pop(name) for name in ("serde",) if name in settings}
        alive_s = settings.pop("owner_alive_s", 15.0)
        self.kind = kind
        self.store = store
        if "tier" in settings:
            tier = settings.pop("tier")
            places = {"tier": tier, "store": store, **options}
            self.saver: ValkeySaver = TieredSaver(Settings.from_url(url, **settings), **places)
        else:
            self.saver = ValkeySaver.from_url(url, **options, **settings)
        self.runs = Runs(self.saver, store, owner_alive_s=alive_s)

    def compiled(self, builder: Any, **options: Any) -> Any:
        """A graph with this party's saver."""
        return builder.compile(checkpointer=self.saver, name="graph", **options)

    async def run(self, graph: Any, given: Any, **options: Any) -> Any:
        """Execute a run on this party's face."""
        if self.kind == "async":
            return await self.runs.arun(graph, given, **options)
        return await asyncio.to_thread(self.runs.run, graph, given, **options)

    async def stream(self, graph: Any, given: Any, **options: Any) -> list[Any]:
        """Execute a run, and collect what it streams."""
        if self.kind == "async":
            return [chunk async for chunk in self.runs.astream(graph, given, **options)]
        return await asyncio.to_thread(lambda: list(self.runs.stream(graph, given, **options)))

    async def recover(self, graphs: Any = None) -> RunsReport:
        """Recover on this party's face."""
        if self.kind == "async":
            return await self.runs.arecover(graphs)
        return await asyncio.to_thread(self.runs.recover, graphs)

    async def dies(self, graph: Any, given: Any, **options: Any) -> None:
        """Execute a run that does not live to see its end."""
        with dying():
            try:
                await self.run(graph, given, **options)
            except Died:
                self.fall_silent()
                return
        raise AssertionError("it lived")

    async def dies_recovering(self, graph: Any) -> None:
        """Recover, and die in the middle of that."""
        with dying():
            try:
                await self.recover(graph)
            except (Died, BaseExceptionGroup):
                self.fall_silent()
                return
        raise AssertionError("it lived")

    def fall_silent(self) -> None:
        """Let nobody believe that it lives."""
        self.runs._keeper.stop()
        self.runs._heart.stop()
        finish(self.store.blocking.alive(self.runs.health().owner, 0.0))

    def known(self, run_id: str) -> Run:
        """A run, as it is recorded."""
        run = finish(self.store.blocking.run(run_id))
        assert run is not None
        return run

    def receipts(self, thread_id: str, turn_id: str) -> Sequence[Receipt]:
        """What was committed."""
        return finish(self.store.blocking.receipts(thread_id, turn_id))

    def commit(self, op: str, key: str) -> Receipt:
        """Commit something; to be called by a node."""
        turn = turn_of()
        what = self.store.blocking, turn, op, key, None, lambda _: f"{op} {key} done"
        return finish(commit(*what, "turn", "raise", ()))


@contextmanager
def dying() -> Iterator[None]:
    """Whoever dies here tells nobody of it."""

    async def silence(*_: Any) -> None:
        return None

    with patch.object(attempts, "_give_up", silence):
        yield


class Ground:
    """A server, a primary store, and the processes that use both.

    Args:
        kind: On which face.
        server: Where threads are.
        folder: Where the primary store is.
    """

    def __init__(self, kind: str, server: LocalValkey, folder: Path) -> None:
        self.kind = kind
        self.prefix = f"t{os.urandom(6).hex()}"
        self._server = server
        self.store = SqlStore(f"sqlite:///{folder / 'primary.db'}")
        finish(self.store.blocking.setup())
        self._parties: list[Party] = []

    def join(self, **settings: Any) -> Party:
        """Another process; what it wrote is not replayed by anybody."""
        settings = {"key_prefix": self.prefix, "durability": "async", "replay": False, **settings}
        party = Party(self.kind, self._server.url, self.store, **settings)
        self._parties.append(party)
        return party

    def moment(self, thread_id: str) -> dict[bytes, bytes | None]:
        """A thread as the server has it now, for `rewind`."""
        keys = thread_keys(self.prefix, thread_id)
        return {key: self._raw("DUMP", key) for key in (keys.state, keys.index, keys.graves)}

    def rewind(self, moment: dict[bytes, bytes | None]) -> None:
        """The server lost what came after a moment."""
        for key, value in moment.items():
            self._raw("DEL", key)
            if value is not None:
                self._raw("RESTORE", key, 0, value)

    def head(self, thread_id: str) -> bytes:
        """A thread's head, as it is stored."""
        return bytes(self._raw("HGET", thread_keys(self.prefix, thread_id).state, "H"))

    def set_head(self, thread_id: str, head: bytes) -> None:
        """The thread's head goes elsewhere; all checkpoints stay."""
        self._raw("HSET", thread_keys(self.prefix, thread_id).state, "H", head)

    def multiply(self, thread_id: str, run_id: str, count: int) -> None:
        """As many more threads like this one, and runs that ended so on each."""
        of = thread_keys(self.prefix, thread_id)
        dumped = [(key, self._raw("DUMP", key)) for key in (of.state, of.index)]
        names = [f"{thread_id} {number}" for number in range(count)]
        for name in names:
            keys = thread_keys(self.prefix, name)
            for (_, dump), key in zip(dumped, (keys.state, keys.index), strict=True):
                self._raw("RESTORE", key, 0, dump)
        runs = Tables("sqlite", None).runs
        with self.store.engine.begin() as connection:
            chosen = select(runs).where(runs.c.id == digest_of(run_id))
            row = connection.execute(chosen).one()._asdict()
            copies = [
                {**row, "id": digest_of(name), "run_id": name, "thread_id": name,
                 "thread": digest_of(name)} for name in names
            ]  # fmt: skip
            connection.execute(insert(runs), copies)

    def _raw(self, *command: Any) -> Any:
        return self._server.command(*command)

    async def leave(self) -> None:
        """Everybody leaves."""
        for party in self._parties:
            await asyncio.to_thread(party.runs.close, 0.0)
            await party.saver.aclose(0.0)
        await self.store.aclose()
