"""The floor: what a saver can't go below, and nothing else.

A saver that keeps whole states must at each step serialize the state once and
send it, send the writes, and fetch and deserialize the state once. This does
just that, over the same client with the same settings as ours: one SET, one
HSET, one GET, each awaited and nothing more. It keeps no order, no history, no
metadata and no parents, checks nothing, and returns the bare checkpoint: it is a
ruler, not a saver. One key holds the latest state and is overwritten, which is
the cheapest a server can do.

`bare` does the same three round trips with bytes made beforehand: the network's
share of the floor, and what its anchors measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from glide_shared.constants import TEncodable as Encodable
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey.glide.clients import (
    BlockingClient,
    NativeClient,
    close_native,
    make_blocking,
    make_native,
)
from langgraph_valkey.settings import ConnectionSettings

Fields: TypeAlias = Mapping[Encodable, Encodable]

ANCHORS_US = {
    "async": {2: 470.0, 20: 513.0, 200: 810.0},
    "sync": {2: 268.0, 20: 419.0, 200: 643.0},
}
"""Raw GLIDE round trips with the same bytes, by face and average state in KiB,
as they were measured once on 2 cores over loopback: a check of the machine."""

SERDE = JsonPlusSerializer()
get_next_version = InMemorySaver().get_next_version


def fields_of(writes: Sequence[tuple[str, Any]]) -> Fields:
    """Each write serialized, under its number and channel."""
    return {
        f"{index}:{channel}": SERDE.dumps_typed(value)[1]
        for index, (channel, value) in enumerate(writes)
    }


class Floor:
    """Three round trips over GLIDE's async client."""

    get_next_version = staticmethod(get_next_version)

    def __init__(self, client: NativeClient) -> None:
        self._client = client

    async def put(
        self, config: RunnableConfig, checkpoint: Any, _metadata: Any, _versions: Any
    ) -> RunnableConfig:
        """Serialize once, SET."""
        await self._client.set(
            config["configurable"]["thread_id"], SERDE.dumps_typed(checkpoint)[1]
        )
        return config

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], _task_id: str
    ) -> None:
        """Serialize each write, HSET."""
        name = config["configurable"]["thread_id"]
        await self._client.hset(f"{name}:writes", fields_of(writes))

    async def get_tuple(self, config: RunnableConfig) -> Any:
        """GET, deserialize once."""
        stored = await self._client.get(config["configurable"]["thread_id"])
        return SERDE.loads_typed(("msgpack", stored or b""))

    async def bare(self, name: str, state: bytes, fields: Fields) -> None:
        """The round trips alone."""
        await self._client.set(name, state)
        await self._client.hset(f"{name}:writes", fields)
        await self._client.get(name)

    async def close(self) -> None:
        """Drop the connection."""
        close_native(self._client)


class BlockingFloor:
    """The same three round trips over GLIDE's blocking client.

    The methods are coroutines that never suspend, as those of every blocking
    contender are here (`benchmarks.faces`), so that one loop times them all.
    """

    get_next_version = staticmethod(get_next_version)

    def __init__(self, client: BlockingClient) -> None:
        self._client = client

    async def put(
        self, config: RunnableConfig, checkpoint: Any, _metadata: Any, _versions: Any
    ) -> RunnableConfig:
        """Serialize once, SET."""
        self._client.set(config["configurable"]["thread_id"], SERDE.dumps_typed(checkpoint)[1])
        return config

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], _task_id: str
    ) -> None:
        """Serialize each write, HSET."""
        name = config["configurable"]["thread_id"]
        self._client.hset(f"{name}:writes", fields_of(writes))

    async def get_tuple(self, config: RunnableConfig) -> Any:
        """GET, deserialize once."""
        stored = self._client.get(config["configurable"]["thread_id"])
        return SERDE.loads_typed(("msgpack", stored or b""))

    async def bare(self, name: str, state: bytes, fields: Fields) -> None:
        """The round trips alone."""
        self._client.set(name, state)
        self._client.hset(f"{name}:writes", fields)
        self._client.get(name)

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()


async def open_floor(url: str) -> Floor:
    """Connect with our saver's settings, on the running loop."""
    return Floor(make_native(ConnectionSettings.from_url(url)))


def open_blocking_floor(url: str) -> BlockingFloor:
    """Connect the blocking client with the same settings."""
    return BlockingFloor(make_blocking(ConnectionSettings.from_url(url)))
