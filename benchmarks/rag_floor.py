"""What no cache on Valkey can go below: one call of GLIDE that brings as many bytes as a hit.

Two rulers. The floor is a GET, the cheapest thing that a server does. The *bare call* is the
very command of a hit, sent and not looked at: what lies between the two is the server's work,
and what a hit takes beyond it is spent in this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import patch

from benchmarks.contenders import FLOOR
from benchmarks.faces import Contender, FaceName, Role
from benchmarks.rag_faces import AsyncOurs
from benchmarks.servers import ValkeyStore
from langgraph_valkey.glide.blocking_lane import BlockingLane
from langgraph_valkey.glide.clients import close_native, make_blocking, make_native
from langgraph_valkey.settings import ConnectionSettings

BARE_CALL = "the bare call of a hit"
UNTIL_KNOWN = 10
"""Hits after which a process knows its scope, so that its calls are all the same."""


class AsyncRaw:
    """A command, sent as it is."""

    def __init__(self, client: Any, command: list[bytes]) -> None:
        self._client = client
        self._command = command

    async def ask(self, _question: str) -> Any:
        """Send it."""
        return await self._client.custom_command(self._command)


class BlockingRaw(AsyncRaw):
    """The same over GLIDE's blocking client."""

    async def ask(self, _question: str) -> Any:
        """Send it."""
        return self._client.custom_command(self._command)


@contextlib.asynccontextmanager
async def _async_raw(url: str, command: list[bytes]) -> AsyncIterator[AsyncRaw]:
    client = make_native(ConnectionSettings.from_url(url))
    try:
        yield AsyncRaw(client, command)
    finally:
        close_native(client)


@contextlib.contextmanager
def _raw(url: str, command: list[bytes]) -> Iterator[BlockingRaw]:
    with contextlib.closing(make_blocking(ConnectionSettings.from_url(url))) as client:
        yield BlockingRaw(client, command)


def rulers(face: FaceName, store: ValkeyStore, cache: AsyncOurs, question: str) -> list[Contender]:
    """Both of them.

    Args:
        face: On which of GLIDE's clients.
        store: Where the cache has its entries.
        cache: Whose hits are to be compared with them.
        question: One that has an answer there.
    """
    command, size = _call_of_a_hit(cache, question)
    store.command("SET", "floor", b"x" * size)
    both: tuple[tuple[str, Role, list[bytes]], ...] = (
        (FLOOR, "floor", [b"GET", b"floor"]),
        (BARE_CALL, "reference", command),
    )
    return [
        Contender(
            *(name, role, face, True, store),
            _async_raw(store.url, words) if face == "async" else _raw(store.url, words),
        )
        for name, role, words in both
    ]


def _call_of_a_hit(cache: AsyncOurs, question: str) -> tuple[list[bytes], int]:
    """Its command, and how many bytes it brings."""
    seen: list[tuple[list[bytes], Any]] = []
    send = BlockingLane.exec

    async def note(lane: BlockingLane, commands: list[list[bytes]]) -> list[Any]:
        replies = await send(lane, commands)
        seen.extend(zip(commands, replies, strict=True))
        return replies

    with patch.object(BlockingLane, "exec", note):
        for _ in range(UNTIL_KNOWN):
            seen.clear()
            if not cache.cache.lookup(question, cache.scopes.of("")):
                raise AssertionError("the question has no answer")
    [(command, reply)] = seen
    return command, _size(reply)


def _size(reply: Any) -> int:
    if isinstance(reply, list):
        return sum(map(_size, reply))
    return len(reply) if isinstance(reply, bytes) else 8
