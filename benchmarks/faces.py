"""One way to call them all: a face has the same awaitable methods for everyone.

The async face of a saver is awaited as it is. A blocking saver's methods are
wrapped in coroutines that never suspend, and are run to their end without an
event loop (`langgraph_valkey.link.finish`); that costs well below a
microsecond a call. So each workload is written, and timed, by one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from benchmarks.servers import Store
from langgraph_valkey.link import finish

T = TypeVar("T")
FaceName = Literal["async", "sync"]
Role = Literal["ours", "floor", "peer", "reference"]
FACES: tuple[FaceName, ...] = ("async", "sync")


class Steps(Protocol):
    """The three calls of a step: all that the floor has."""

    def get_next_version(self, current: Any, channel: None, /) -> Any:
        """As LangGraph asks a saver for it."""
        ...

    async def put(
        self, config: RunnableConfig, checkpoint: Any, metadata: Any, versions: Any, /
    ) -> RunnableConfig:
        """Store a checkpoint."""
        ...

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, /
    ) -> None:
        """Store a task's writes."""
        ...

    async def get_tuple(self, config: RunnableConfig, /) -> Any:
        """Fetch a checkpoint."""
        ...


class AsyncFace:
    """A saver's async methods."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self.saver = saver
        self.get_next_version = saver.get_next_version
        self.put = saver.aput
        self.put_writes = saver.aput_writes
        self.get_tuple = saver.aget_tuple
        self.delta_history = saver.aget_delta_channel_history
        self.delete_thread = saver.adelete_thread

    async def list(self, config: RunnableConfig, **how: Any) -> list[CheckpointTuple]:
        """All of them at once."""
        return [found async for found in self.saver.alist(config, **how)]


class BlockingFace:
    """A saver's blocking methods, as coroutines that never suspend."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self.saver = saver
        self.get_next_version = saver.get_next_version

    async def put(
        self, config: RunnableConfig, checkpoint: Any, metadata: Any, versions: Any
    ) -> RunnableConfig:
        """Store a checkpoint."""
        return self.saver.put(config, checkpoint, metadata, versions)

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str
    ) -> None:
        """Store a task's writes."""
        self.saver.put_writes(config, writes, task_id)

    async def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Fetch a checkpoint."""
        return self.saver.get_tuple(config)

    async def delta_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Any:
        """Fetch what the ancestors wrote to some channels."""
        return self.saver.get_delta_channel_history(config=config, channels=channels)

    async def delete_thread(self, thread_id: str) -> None:
        """Delete a thread."""
        self.saver.delete_thread(thread_id)

    async def list(self, config: RunnableConfig, **how: Any) -> list[CheckpointTuple]:
        """All of them at once."""
        return list(self.saver.list(config, **how))


Face = AsyncFace | BlockingFace
Connection: TypeAlias = Any
"""A context manager of the contender's face: ``with`` or ``async with``."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One saver in one set-up, not yet open.

    Attributes:
        name: Of its column in the tables; the same on both faces.
        role: What it is compared as; a reference is shown, but is no store.
        face: How it is called.
        speaks_valkey: Whether its store is a Valkey.
        store: Its data, seen from outside.
        connection: Yields the saver, or the floor's three calls.
    """

    name: str
    role: Role
    face: FaceName
    speaks_valkey: bool
    store: Store
    connection: Connection


class Opened:
    """An open contender; a context manager.

    Args:
        contender: What to open.
        runner: The one event loop of all async contenders: GLIDE's replies go
            through the first loop of a process, so there must be only one.
    """

    def __init__(self, contender: Contender, runner: asyncio.Runner) -> None:
        self.contender = contender
        self._runner = runner
        self.saver: Any = None

    def __enter__(self) -> Opened:
        connection = self.contender.connection
        if self.contender.face == "async":
            self.saver = self._runner.run(_enter(connection))
        else:
            self.saver = connection.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        connection = self.contender.connection
        if self.contender.face == "async":
            self._runner.run(_leave(connection))
        else:
            connection.__exit__(None, None, None)

    @property
    def steps(self) -> Steps:
        """Its calls, of a step alone."""
        calls: Steps = self.saver if self.contender.role == "floor" else self.calls
        return calls

    @property
    def calls(self) -> Any:
        """All its calls, as a `Face`."""
        return AsyncFace(self.saver) if self.contender.face == "async" else BlockingFace(self.saver)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that awaits nothing but this contender's calls."""
        if self.contender.face == "async":
            return self._runner.run(coroutine)
        return finish(coroutine)


async def _enter(connection: Connection) -> Any:
    return await connection.__aenter__()


async def _leave(connection: Connection) -> None:
    await connection.__aexit__(None, None, None)
