"""`SqlStore`: the primary store on SQLite (embedded) or PostgreSQL.

One URL gives both faces: ``sqlite:///path/to/file`` (sqlite3 and aiosqlite) or
``postgresql://user@host/database`` (psycopg on both). The tables stand beside the
user's own, since that is the point: a commit's record is written in the transaction in
which the user's function writes.

What is committed is on disk: SQLite runs with a write-ahead log that is synced at each
commit, PostgreSQL with its own default. SQLite lets one write at a time, so a function
that takes long keeps all others waiting.
"""

from __future__ import annotations

import functools
from typing import cast, get_args

from sqlalchemy import Connection, Engine, delete, exists, func
from sqlalchemy.ext.asyncio import AsyncEngine

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import Purged, Room
from langgraph_valkey.sql.commits import SqlCommits
from langgraph_valkey.sql.database import Database
from langgraph_valkey.sql.engines import POOL_SIZE, Address
from langgraph_valkey.sql.faces import BlockingFace, LoopsFace
from langgraph_valkey.sql.leases import SqlLeases, SqlTombstones
from langgraph_valkey.sql.memories import SqlMemories
from langgraph_valkey.sql.migrations import bring_up, is_up_to_date
from langgraph_valkey.sql.outbox import SqlOutbox
from langgraph_valkey.sql.runs import SqlRuns
from langgraph_valkey.sql.schema import ROOM, Kind, Tables, now_s
from langgraph_valkey.sql.versions import SqlVersions


class SqlPrimary(
    SqlCommits, SqlRuns, SqlLeases, SqlTombstones, SqlOutbox, SqlVersions, SqlMemories
):
    """One face of a SQL store; see `Primary` for what its methods do."""

    @property
    def room(self) -> Room:
        """What the store takes at most."""
        return ROOM

    async def setup(self) -> None:
        """Make the tables, or bring them to this version's form; see `Primary`."""
        tables = self._tables
        if not await self._database.read(lambda at: is_up_to_date(at, tables)):
            await self._database.write(lambda at: bring_up(at, tables), patient=True)

    async def purge(self, older_than_s: float, tombstones_s: float | None = None) -> Purged:
        """Drop records of an age; see `Primary`."""
        buried_s = older_than_s if tombstones_s is None else tombstones_s
        purging = functools.partial(self._purge, older_than_s=older_than_s, buried_s=buried_s)
        return await self._database.write(purging, patient=True)

    def _purge(self, connection: Connection, older_than_s: float, buried_s: float) -> Purged:
        tables, before_s = self._tables, now_s() - older_than_s
        commits, runs, outbox = tables.commits.c, tables.runs.c, tables.outbox.c
        is_waited_for = exists().where(outbox.commit_id == commits.id)
        # A run that is not settled may be run again, and has to find what it committed.
        is_needed = exists().where(
            runs.state != "settled",
            runs.thread_id == commits.thread_id,
            runs.turn_id == commits.turn_id,
        )
        old_commits = delete(tables.commits).where(
            commits.committed_s <= before_s, ~is_waited_for, ~is_needed
        )
        old_runs = delete(tables.runs).where(
            runs.state == "settled", func.coalesce(runs.ended_s, runs.started_s) <= before_s
        )
        tombstones = tables.tombstones.c
        old_tombstones = delete(tables.tombstones).where(
            tombstones.buried_s <= now_s() - buried_s,
            tombstones.stamp != "",  # Else the Valkey server has yet to delete the thread.
        )
        old_memories = delete(tables.memories).where(tables.memories.c.gone_s <= now_s() - buried_s)
        connection.execute(delete(tables.owners).where(tables.owners.c.until_s <= before_s))
        return Purged(
            commits=connection.execute(old_commits).rowcount,
            runs=connection.execute(old_runs).rowcount,
            tombstones=connection.execute(old_tombstones).rowcount,
            memories=connection.execute(old_memories).rowcount,
        )

    async def close(self) -> None:
        """Close the connections of this face."""
        await self._database.close()


class SqlStore:
    """A store of record on SQLite or PostgreSQL.

    Args:
        url: Where: ``sqlite:///path`` or ``postgresql://user@host/database``.
        engine: The user's own engine, for the blocking face; then `async_engine` is
            needed too. How their connections are set up stays the user's business, and
            so does closing them.
        async_engine: The same for the async face, for one event loop.
        schema: PostgreSQL schema for the tables, made if it is not there; None: the
            first one of the connection's search path.
        pool_size: Connections that one face keeps open, the async one for each loop.

    Attributes:
        engine: The engine of the blocking face.
        blocking: The blocking face.
        loops: The async face.

    Raises:
        ConfigurationError: These don't say where, or a driver is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        engine: Engine | None = None,
        async_engine: AsyncEngine | None = None,
        schema: str | None = None,
        pool_size: int = POOL_SIZE,
    ) -> None:
        if url is not None and engine is None and async_engine is None:
            address = Address(url, pool_size)
            self.engine, make = address.engine(), address.async_engine
        elif url is None and engine is not None and async_engine is not None:
            self.engine, make = engine, lambda: async_engine
        else:
            raise ConfigurationError(
                "a SQL store takes either a URL, or two engines of your own (engine and "
                "async_engine, for its two faces)"
            )
        kind, driver = self.engine.dialect.name, self.engine.dialect.driver
        if kind not in get_args(Kind):
            raise ConfigurationError(f"a SQL store can't be on {kind!r}: use SQLite or PostgreSQL")
        if kind == "postgresql" and driver != "psycopg":
            raise ConfigurationError(
                f"a SQL store on PostgreSQL can't use {driver!r}: make the engine for a URL that "
                "begins with postgresql+psycopg://"
            )
        if schema is not None and kind != "postgresql":
            raise ConfigurationError("SQLite has no schemas: leave schema out, or use another file")
        tables = Tables(cast(Kind, kind), schema)
        self._blocking = BlockingFace(self.engine, is_ours=url is not None)
        self._loops = LoopsFace(make, is_ours=url is not None)
        self.blocking = SqlPrimary(Database(self._blocking, tables), tables)
        self.loops = SqlPrimary(Database(self._loops, tables), tables)
        renew_after_fork(self._blocking)
        renew_after_fork(self._loops)

    def close(self) -> None:
        """Close both faces; connections of event loops that run elsewhere are dropped."""
        finish(self._blocking.close())
        self._loops.close_from_outside()

    async def aclose(self) -> None:
        """Close both faces."""
        await self._blocking.close()
        await self._loops.close()
