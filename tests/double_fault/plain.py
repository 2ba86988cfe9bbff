"""The control: agents run plainly, as many are.

There is a list of requests; those that were not answered are submitted again once their
process is dead. There is a record of each commit, in its transaction; its key is the
task that made it. Both sound right. A request that was answered is not looked at again,
though its thread may be lost; and a task is another one when a model takes another path.

The blocking face only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from langchain_core.messages import messages_from_dict, messages_to_dict
from langchain_core.runnables.config import ensure_config
from langgraph.graph.state import CompiledStateGraph
from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)

from langgraph_valkey import ValkeySaver
from langgraph_valkey.commits.turns import TURN_ID, turn_of
from langgraph_valkey.primary.records import Receipt
from langgraph_valkey.settings import Settings
from tests.double_fault.bank import engine_of

_META = MetaData()
_REQUESTS = Table(
    "plain_requests",
    _META,
    Column("run_id", String(60), primary_key=True),
    Column("thread_id", String(60)),
    Column("graph", String(20)),
    Column("input", Text),
    Column("process", Integer),
    Column("is_answered", Boolean),
)
_COMMITS = Table(
    "plain_commits",
    _META,
    Column("id", String(300), primary_key=True),
    Column("turn", String(60)),
    Column("key", String(80)),
    Column("result", Text),
)


@dataclass(slots=True)
class PlainReport:
    """What was submitted again."""

    fine: list[str] = field(default_factory=list)
    rerun: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)


class Plain:
    """Stands in the place of `StateTiers`.

    Args:
        settings: Of the saver.
        primary: URL of the database.
    """

    def __init__(self, settings: Settings, primary: str) -> None:
        self.saver = ValkeySaver(settings)
        self._engine = engine_of(primary)
        self._graphs: dict[str, CompiledStateGraph] = {}

    def setup(self) -> None:
        """Nothing: whoever opened the bank made the tables."""

    def close(self, *, drain_s: float | None = None) -> None:
        """Close saver and database."""
        self.saver.close(drain_s=drain_s)
        self._engine.dispose()

    def register(self, graph: CompiledStateGraph, *, name: str) -> None:
        """By this name its requests are submitted again."""
        self._graphs[name] = graph
        graph.name = name

    # --- commits ------------------------------------------------------------------

    def commit(self, op: str, *, key: str, payload: Any, fn: Callable[..., Any]) -> Receipt:
        """Do it once in this task."""
        turn = turn_of()
        task = ensure_config()["configurable"]["checkpoint_ns"]
        digest = json.dumps(payload, sort_keys=True)
        commit_id = f"{turn.thread_id} {task} {digest}"[:300]
        with self._engine.begin() as connection:
            found = connection.execute(
                select(_COMMITS.c.key, _COMMITS.c.result).where(_COMMITS.c.id == commit_id)
            ).first()
            if found is None:
                result = fn(connection)
                row = {"id": commit_id, "turn": turn.turn_id, "key": key}
                connection.execute(insert(_COMMITS), {**row, "result": json.dumps(result)})
            else:
                key, result = found.key, json.loads(found.result)
        return Receipt(op, key, result, found is not None, datetime.now(UTC), "")

    async def acommit(self, op: str, *, key: str, payload: Any, fn: Callable[..., Any]) -> Receipt:
        """Not offered."""
        raise NotImplementedError

    def receipts(self) -> Sequence[Receipt]:
        """None are known by turn."""
        return []

    async def areceipts(self) -> Sequence[Receipt]:
        """None are known by turn."""
        return []

    # --- requests -----------------------------------------------------------------

    def run(self, graph: CompiledStateGraph, given: Any, *, thread_id: str, run_id: str) -> Any:
        """Write the request down, answer it, and tick it off."""
        told = {**given, "messages": messages_to_dict(given["messages"])}
        with self._engine.begin() as connection:
            connection.execute(
                insert(_REQUESTS),
                {
                    "run_id": run_id,
                    "thread_id": thread_id,
                    "graph": graph.name,
                    "input": json.dumps(told),
                    "process": os.getpid(),
                    "is_answered": False,
                },
            )
        return self._answer(graph, given, thread_id, run_id)

    async def arun(
        self, graph: CompiledStateGraph, given: Any, *, thread_id: str, run_id: str
    ) -> Any:
        """Not offered."""
        raise NotImplementedError

    def _answer(self, graph: CompiledStateGraph, given: Any, thread_id: str, run_id: str) -> Any:
        config: Any = {"configurable": {"thread_id": thread_id, TURN_ID: run_id}}
        found = graph.invoke(given, config, durability="sync")
        with self._engine.begin() as connection:
            row = _REQUESTS.c.run_id == run_id
            connection.execute(update(_REQUESTS).where(row).values(is_answered=True))
        return found

    def recover(self) -> PlainReport:
        """Submit again what dead processes did not answer."""
        report = PlainReport()
        for row in unanswered(self._engine):
            if _lives(row.process):
                report.busy.append(row.run_id)
                continue
            told = json.loads(row.input)
            given = {**told, "messages": messages_from_dict(told["messages"])}
            self._answer(self._graphs[row.graph], given, row.thread_id, row.run_id)
            report.rerun.append(row.run_id)
        return report

    async def arecover(self) -> PlainReport:
        """Not offered."""
        raise NotImplementedError


def open_lists(engine: Engine) -> None:
    """Make the tables."""
    _META.create_all(engine)


def unanswered(engine: Engine) -> Sequence[Any]:
    """Requests that were not ticked off."""
    with engine.connect() as connection:
        return connection.execute(select(_REQUESTS).where(~_REQUESTS.c.is_answered)).all()


def requested(engine: Engine) -> set[str]:
    """All that were written down."""
    with engine.connect() as connection:
        return set(connection.scalars(select(_REQUESTS.c.run_id)))


def committed(engine: Engine) -> list[tuple[str, str]]:
    """Turn and key of each commit."""
    with engine.connect() as connection:
        return [(row.turn, row.key) for row in connection.execute(select(_COMMITS))]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
