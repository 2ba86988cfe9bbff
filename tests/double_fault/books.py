"""What the primary store says of runs and commits, for whoever judges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from sqlalchemy import Engine

from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.primary.records import Run
from tests.double_fault import plain

PAGE = 200


class Entry(NamedTuple):
    """A commit: in which turn, and under which key."""

    turn: str
    key: str


class Books(Protocol):
    """The primary store, read."""

    def accepted(self, run_ids: Iterable[str]) -> dict[str, str]:
        """Those that are recorded, and in which state they are, with their outcome."""
        ...

    def unsettled(self) -> list[Run]:
        """Runs that may have to be done again."""
        ...

    def run(self, run_id: str) -> Run | None:
        """One run; None if it is not recorded."""
        ...

    def commits(self, threads: dict[str, str]) -> list[Entry]:
        """All commits of turns; which thread each turn was in is given."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


class StoreBooks:
    """Those of a `PrimaryStore`.

    Args:
        store: The store.
    """

    def __init__(self, store: PrimaryStore) -> None:
        self._store = store

    def accepted(self, run_ids: Iterable[str]) -> dict[str, str]:
        """See `Books`."""
        found = {}
        for run_id in run_ids:
            run = self.run(run_id)
            if run is not None:
                found[run_id] = f"{run.state} {run.outcome}".strip()
        return found

    def run(self, run_id: str) -> Run | None:
        """See `Books`."""
        return finish(self._store.blocking.run(run_id))

    def unsettled(self) -> list[Run]:
        """See `Books`."""
        runs: list[Run] = []
        while True:
            after = (runs[-1].started_s, runs[-1].run_id) if runs else None
            page = finish(self._store.blocking.unsettled_runs(after=after, limit=PAGE))
            runs += page
            if len(page) < PAGE:
                return runs

    def commits(self, threads: dict[str, str]) -> list[Entry]:
        """See `Books`."""
        return [
            Entry(turn, receipt.key)
            for turn, thread in threads.items()
            for receipt in finish(self._store.blocking.receipts(thread, turn))
        ]

    def close(self) -> None:
        """See `Books`."""
        self._store.close()


class PlainBooks:
    """Those of the control; see `plain`.

    Args:
        engine: Of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def accepted(self, run_ids: Iterable[str]) -> dict[str, str]:
        """See `Books`."""
        return dict.fromkeys(plain.requested(self._engine).intersection(run_ids), "requested")

    def run(self, run_id: str) -> Run | None:
        """See `Books`; it has none."""
        return None

    def unsettled(self) -> list[Run]:
        """See `Books`; it has none that could be looked at."""
        return []

    def commits(self, threads: dict[str, str]) -> list[Entry]:
        """See `Books`."""
        return [Entry(*each) for each in plain.committed(self._engine)]

    def close(self) -> None:
        """See `Books`."""
