"""The tables of a SQL store, as the statements of this version see them.

`sql_migrations` makes them; a test holds the two against each other.

Texts that users make up may hold characters that a database refuses (PostgreSQL takes
no NUL, no encoding takes a lone surrogate), so they stand there as JSON in ASCII
(`Quoted`), and are found by a digest of fixed length. Times are seconds since 1970 by
the database's clock (`now_s`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from langgraph_valkey.primary.records import Room

PREFIX = "lgv_"
"""What the names of all tables begin with: they may stand beside the user's own."""


Kind: TypeAlias = Literal["sqlite", "postgresql"]
"""Which database it is, by SQLAlchemy's name for it."""


class Quoted(TypeDecorator[str]):
    """A text of any characters, kept as JSON in ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """As it is kept."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """As it was given."""
        return None if value is None else str(json.loads(value))


def as_kept(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a row as a driver takes them, where it is asked directly."""
    columns = table.columns
    return {
        name: json.dumps(value)
        if value is not None and name in columns and isinstance(columns[name].type, Quoted)
        else value
        for name, value in values.items()
    }


class now_s(FunctionElement[float]):  # noqa: N801  # It reads as a function of SQL.
    """The time by the database's clock, in seconds since 1970."""

    type = Float()
    inherit_cache = True


@compiles(now_s)
def _now_on_postgresql(*_: Any, **__: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(now_s, "sqlite")
def _now_on_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


class Tables:
    """The tables, in one schema.

    Args:
        kind: Of which database.
        schema: Name of the schema (PostgreSQL); None: the connection's own.

    Attributes:
        insert: INSERT that can say what to do if the row is there (ON CONFLICT).
        version: Which form they have.
        commits, outbox: What was committed, and what is to be sent about it.
        threads, runs, owners: Runs, the numbers given to them, and who executes them.
        leases, tombstones: As of the contract.
        corpora, versions, partitions, changes: As of `primary.versions`.
        memories: As of `primary.memories`.
    """

    def __init__(self, kind: Kind, schema: str | None = None) -> None:
        self.kind = kind
        self.schema = schema
        self.insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[kind]
        self.metadata = MetaData(schema=schema)
        self.version = self._table("version", Column("version", Integer, primary_key=True))
        self.commits = self._commits()
        self.threads = self._table("threads", _digest(), _number("number"))
        self.runs = self._runs()
        self.owners = self._table(
            "owners", _digest(), Column("owner", Quoted), Column("until_s", Float)
        )
        self.leases = self._table(
            "leases",
            *(_digest(), Column("name", Quoted), Column("holder", Quoted)),
            *(_number("token"), Column("until_s", Float)),
        )
        self.tombstones = self._table(
            "tombstones",
            *(_digest(), Column("thread_id", Quoted)),
            *(Column("buried_s", Float), Column("stamp", Quoted)),
        )
        self.outbox = self._outbox()
        self.corpora = self._table("corpora", _digest(), _number("number"))
        self.versions = self._table(
            "versions",
            *(_digest(), Column("corpus", Text), Column("mark", Quoted)),
            *(Column("version", Quoted), _number("change")),
        )
        self.partitions = self._partitions()
        self.changes = self._changes()
        self.memories = self._memories()

    def _table(self, name: str, *columns: Column[Any]) -> Table:
        return Table(PREFIX + name, self.metadata, *columns)

    def _commits(self) -> Table:
        """``turn`` is a digest of thread and turn; ``result`` is JSON."""
        return self._table(
            "commits",
            Column("seq", BigInteger, primary_key=True),
            *(Column("id", Text), Column("turn", Text)),
            *(Column("op", Quoted), Column("key", Quoted), Column("scope", Text)),
            *(Column("thread_id", Quoted), Column("turn_id", Quoted)),
            *(Column("run_id", Quoted), _number("attempt")),
            *(Column("payload_sha256", Text), Column("result", Text)),
            Column("committed_s", Float),
        )

    def _runs(self) -> Table:
        """``thread`` and ``owner_digest`` are digests of names; ``claim``: see `sql_runs`."""
        return self._table(
            "runs",
            *(_digest(), Column("run_id", Quoted), Column("thread", Text)),
            *(Column("thread_id", Quoted), Column("turn_id", Quoted), Column("graph", Quoted)),
            *(Column("face", Text), Column("input", LargeBinary), Column("input_sha256", Text)),
            *(Column("context", Text), _number("number"), _number("attempt")),
            *(Column("claim", Text), Column("owner", Quoted), Column("owner_digest", Text)),
            *(Column("state", Text), Column("outcome", Text)),
            *(Column("head", Quoted), _number("writes")),
            *(Column("started_s", Float), Column("ended_s", Float)),
        )

    def _outbox(self) -> Table:
        """``commit_id`` is the commit's ``id``; ``due_s`` is null for a dead letter."""
        return self._table(
            "outbox",
            Column("seq", BigInteger, primary_key=True),
            *(Column("id", Text), Column("commit_id", Text)),
            *(Column("topic", Quoted), Column("topic_digest", Text), Column("body", Text)),
            *(Column("op", Quoted), Column("key", Quoted)),
            *(_number("attempts"), Column("due_s", Float), Column("error", Quoted)),
            Column("created_s", Float),
        )

    def _partitions(self) -> Table:
        """``corpus`` is a digest; ``former`` a JSON list of identities that were replaced."""
        return self._table(
            "partitions",
            *(_digest(), Column("corpus", Text), Column("corpus_name", Quoted)),
            *(Column("tenant", Quoted), _number("number")),
            *(Column("identity", Text), Column("former", Text), Column("entered_s", Float)),
        )

    def _changes(self) -> Table:
        """Those that are pending; ``corpus`` is a digest, ``versions`` a JSON object."""
        return self._table(
            "changes",
            *(_digest(), Column("corpus", Text), Column("corpus_name", Quoted)),
            *(_number("number"), Column("versions", Text), Column("begun_s", Float)),
        )

    def _memories(self) -> Table:
        """``bucket`` is the id of the corpus that numbers it; ``gone_s``: since when, or when."""
        return self._table(
            "memories",
            *(_digest(), Column("bucket", Text), Column("name", LargeBinary)),
            *(Column("record", LargeBinary), _number("until_ms"), _number("change")),
            *(Column("token", Text), Column("gone_s", Float)),
        )


def _digest() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger)


ROOM = Room(
    result_bytes_max=1024 * 1024,
    input_bytes_max=16 * 1024 * 1024,
    outbox_most=1_000,
    message_bytes_max=1024 * 1024,
    memory_bytes_max=16 * 1024 * 1024,
    memories_bytes_max=16 * 1024 * 1024,
)
"""What a SQL store takes. The databases take more; but a turn's results are read whenever
it is run again, inputs and messages many at a time, and memories are meant to be read often."""
