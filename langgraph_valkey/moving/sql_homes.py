"""Threads in LangGraph's own databases: `PostgresSaver` and `SqliteSaver`.

Checkpoints are read and written by the savers. Their writes are read from the tables:
only there stand the paths and numbers of tasks, by which writes that come later are put
in order. What a database raises may quote state, so its texts are never passed on.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langgraph_valkey.boundary.carrying import Cargo, address
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.moving.cargo import Address, Row, tasks_of
from langgraph_valkey.moving.homes import SaverHome
from langgraph_valkey.moving.opaque import NotCarried

_PG_ADDRESSES = """
SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = %s
ORDER BY checkpoint_ns COLLATE "C", checkpoint_id COLLATE "C"
"""
_PG_WRITES = """
SELECT task_path, task_id, idx, channel, type, blob FROM checkpoint_writes
WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s
"""
_PG_MARK = """
SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (
    SELECT 'c' || md5(checkpoint_ns) || md5(checkpoint_id) || md5(checkpoint::text)
        || md5(metadata::text) || md5(coalesce(parent_checkpoint_id, '')) AS line
    FROM checkpoints WHERE thread_id = %s
    UNION ALL
    SELECT 'w' || md5(checkpoint_ns) || md5(checkpoint_id) || md5(task_id) || idx
        || md5(channel) || md5(blob)
    FROM checkpoint_writes WHERE thread_id = %s
) AS lines
"""
_LITE_ADDRESSES = """
SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = ?
ORDER BY checkpoint_ns, checkpoint_id
"""
_LITE_WRITES = """
SELECT task_path, task_id, idx, channel, type, value FROM writes
WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?
"""
_LITE_MARK = (
    "SELECT * FROM checkpoints WHERE thread_id = ? ORDER BY checkpoint_ns, checkpoint_id",
    "SELECT * FROM writes WHERE thread_id = ? ORDER BY checkpoint_ns, checkpoint_id, task_id, idx",
)
_LARGE = 2**63
"""Integers from here on are none of msgpack's."""

_THREADS = "SELECT DISTINCT thread_id FROM checkpoints"


class _SqlHome(SaverHome):
    """What both have in common."""

    @abstractmethod
    def rows(self, query: str, *given: str) -> list[Sequence[Any]]:
        """What the database answers."""

    addresses_query = ""
    writes_query = ""

    def threads(self) -> Iterator[str]:
        """See `Home.threads`."""
        yield from [row[0] for row in self.rows(_THREADS)]

    def addresses(self, thread: str) -> list[Address]:
        """See `Home.addresses`."""
        return [(row[0], row[1]) for row in self.rows(self.addresses_query, thread)]

    def cargo(self, thread: str, at: Address) -> Cargo | None:
        """See `SaverHome.cargo`."""
        with _asking():
            found = self.saver.get_tuple(address(thread, *at))
            rows = self.rows(self.writes_query, thread, *at)
            loads = self.serde.loads_typed
            cells = [
                Row(path, task_id, idx, channel, loads((kind, bytes(data))))
                for path, task_id, idx, channel, kind, data in rows
            ]
        return None if found is None else Cargo(found, tasks_of(cells))

    def heads(self, thread: str) -> dict[str, str]:
        """See `Home.heads`: the highest ids."""
        return dict(self.addresses(thread))

    def put(self, thread: str, cargoes: Iterable[Cargo], heads: Mapping[str, str]) -> None:
        """See `Home.put`."""
        with _asking():
            super().put(thread, cargoes, heads)

    def delete(self, thread: str) -> None:
        """See `Home.delete`."""
        with _asking():
            super().delete(thread)


class PostgresHome(_SqlHome):
    """`PostgresSaver`."""

    addresses_query = _PG_ADDRESSES
    writes_query = _PG_WRITES

    def cargo(self, thread: str, at: Address) -> Cargo | None:
        """See `SaverHome.cargo`."""
        cargo = super().cargo(thread, at)
        if cargo is not None:
            values = cargo.found.checkpoint["channel_values"]
            values.update({name: _restored(value) for name, value in values.items()})
        return cargo

    def rows(self, query: str, *given: str) -> list[Sequence[Any]]:
        """See `_SqlHome.rows`."""
        saver: Any = self.saver
        with _asking(), saver._cursor() as cursor:  # noqa: SLF001 - its connection, or its pool's
            cursor.execute(query, given)
            return [tuple(row.values()) for row in cursor.fetchall()]

    def mark(self, thread: str) -> str:
        """See `Home.mark`."""
        return self.rows(_PG_MARK, thread, thread)[0][0] or ""


class SqliteHome(_SqlHome):
    """`SqliteSaver`."""

    addresses_query = _LITE_ADDRESSES
    writes_query = _LITE_WRITES

    def rows(self, query: str, *given: str) -> list[Sequence[Any]]:
        """See `_SqlHome.rows`."""
        saver: Any = self.saver
        with _asking(), saver.cursor(transaction=False) as cursor:
            return list(cursor.execute(query, given))

    def mark(self, thread: str) -> str:
        """See `Home.mark`."""
        found = [row for query in _LITE_MARK for row in self.rows(query, thread)]
        told = repr(found).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(told, digest_size=16).hexdigest() if found else ""


def _restored(value: Any) -> Any:
    """A large float, of which JSON made an integer that no other saver can store."""
    is_large = type(value) is int and abs(value) >= _LARGE
    return float(value) if is_large and int(float(value)) == value else value


@contextmanager
def _asking() -> Iterator[None]:
    """Turn what a database raises into our errors, without its texts."""
    try:
        yield
    except Exception as error:
        kinds = {each.__name__ for each in type(error).__mro__ if _is_of_database(each)}
        if kinds & {"OperationalError", "InterfaceError"}:
            raise Unreachable(
                f"the database does not answer ({type(error).__name__}): look whether it runs, "
                "whether its disk has room and whether this user may use its tables, and call again"
            ) from error
        if "Error" in kinds:
            raise NotCarried(
                f"the database does not keep it as it is ({type(error).__name__}): PostgreSQL has "
                "no NUL characters in texts, and no NaN"
            ) from error
        raise


def _is_of_database(kind: type) -> bool:
    """Whether a class is one of DB-API's errors; neither driver need be installed."""
    return kind.__module__.partition(".")[0] in ("psycopg", "sqlite3")
