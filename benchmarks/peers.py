"""The rivals, each set up as its own documentation recommends.

A rival that is not installed is named on stderr and left out. What a rival
needs beside its constructor (tables, a pool) stands here, and nothing else of
it: they are used by their public interfaces alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from benchmarks.faces import Connection, Contender, FaceName, Role
from benchmarks.servers import NoStore, Servers, Store

MEMORY, SQLITE, POSTGRES = "InMemorySaver", "SqliteSaver", "PostgresSaver"
AWS, AWS_POOL_200 = "langgraph-checkpoint-aws", "langgraph-checkpoint-aws, pool of 200"
PLAINREDIS = "langgraph-checkpoint-plainredis"
PLAINREDIS_POOL_200 = "langgraph-checkpoint-plainredis, pool of 200"

POOL_RAISED = 200
AWS_POOL_DEFAULT = 10


def memory(_servers: Servers, _face: FaceName) -> tuple[Store, Connection]:
    """LangGraph's own, in this process: shown as a reference."""
    return NoStore(), contextlib.nullcontext(InMemorySaver())


def sqlite(servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """A file, through the documented constructor."""
    store = servers.sqlite(f"sqlite_{face}")
    if face == "async":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        return store, _async_with_tables(AsyncSqliteSaver.from_conn_string(str(store.path)))
    from langgraph.checkpoint.sqlite import SqliteSaver

    return store, _with_tables(SqliteSaver.from_conn_string(str(store.path)))


def postgres(servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """An embedded PostgreSQL, through the documented constructor."""
    if face == "async":
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        store = servers.postgres(f"bench_{face}")
        return store, _async_with_tables(AsyncPostgresSaver.from_conn_string(store.url))
    from langgraph.checkpoint.postgres import PostgresSaver

    store = servers.postgres(f"bench_{face}")
    return store, _with_tables(PostgresSaver.from_conn_string(store.url))


def aws(
    servers: Servers, face: FaceName, pool_size: int = AWS_POOL_DEFAULT
) -> tuple[Store, Connection]:
    """langgraph-checkpoint-aws on a standalone Valkey: it does not run in cluster mode."""
    from langgraph_checkpoint_aws import AsyncValkeySaver, ValkeySaver

    store = servers.valkey(cluster=False)
    if face == "async":
        return store, AsyncValkeySaver.from_conn_string(store.url, pool_size=pool_size)
    return store, ValkeySaver.from_conn_string(store.url, pool_size=pool_size)


def aws_pool_200(servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """The same with a pool that many concurrent graphs do not exhaust."""
    return aws(servers, face, POOL_RAISED)


def plainredis(servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """langgraph-checkpoint-plainredis on a standalone Valkey, likewise."""
    from langgraph_checkpoint_plainredis import AsyncRedisSaver, RedisSaver

    store = servers.valkey(cluster=False)
    url = store.url.replace("valkey://", "redis://")
    if face == "async":
        return store, _async_closing(lambda: AsyncRedisSaver(url=url))
    return store, contextlib.closing(RedisSaver(url=url))


def plainredis_pool_200(servers: Servers, face: FaceName) -> tuple[Store, Connection]:
    """The same over a client whose pool many concurrent graphs do not exhaust."""
    import redis
    from langgraph_checkpoint_plainredis import AsyncRedisSaver, RedisSaver
    from redis import asyncio as async_redis

    store = servers.valkey(cluster=False)
    address: dict[str, Any] = {
        "host": store.host,
        "port": store.port,
        "db": store.database,
        "protocol": 2,
        "max_connections": POOL_RAISED,
    }
    if face == "async":
        return store, _async_closing(lambda: AsyncRedisSaver(async_redis.Redis(**address)))
    return store, contextlib.closing(RedisSaver(redis.Redis(**address)))


@contextlib.contextmanager
def _with_tables(opening: Any) -> Iterator[Any]:
    with opening as saver:
        saver.setup()
        yield saver


@contextlib.asynccontextmanager
async def _async_with_tables(opening: Any) -> AsyncIterator[Any]:
    async with opening as saver:
        await saver.setup()
        yield saver


@contextlib.asynccontextmanager
async def _async_closing(build: Callable[[], Any]) -> AsyncIterator[Any]:
    async with contextlib.aclosing(build()) as saver:
        yield saver


Constructor = Callable[[Servers, FaceName], tuple[Store, Connection]]

PEERS: dict[str, tuple[Constructor, Role, bool]] = {
    MEMORY: (memory, "reference", False),
    SQLITE: (sqlite, "peer", False),
    POSTGRES: (postgres, "peer", False),
    AWS: (aws, "peer", True),
    PLAINREDIS: (plainredis, "peer", True),
}
"""By name: constructor, role, and whether it speaks to a Valkey."""


def build(servers: Servers, face: FaceName, name: str, how: Any = None) -> Contender:
    """One rival, not yet open.

    Args:
        servers: What it stores to.
        face: How it will be called.
        name: Of `PEERS`, or any name with `how` given.
        how: A constructor, role and protocol of its own.

    Raises:
        ImportError: It is not installed.
    """
    constructor, role, speaks_valkey = how or PEERS[name]
    store, connection = constructor(servers, face)
    return Contender(name, role, face, speaks_valkey, store, connection)
