"""Graph, saver and primary store behind one port, on both faces.

What `Runs` decides is written once, as `async` code over a `Face`. The blocking one
calls ``graph.invoke`` and its like directly and never suspends, so `link.finish` runs
that code with no event loop; the async one awaits ``graph.ainvoke``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from typing import Any, Literal, Protocol, TypeVar

import anyio
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.checkpoints import Checkpoints
from langgraph_valkey.link import Link, finish
from langgraph_valkey.primary.contract import Primary, PrimaryStore
from langgraph_valkey.runs.home_loop import HomeLoop
from langgraph_valkey.saver import ValkeySaver

T = TypeVar("T")

LEAVING_S = 5.0
"""How long a cancelled run has to tell the registry so, in seconds."""


class Face(Protocol):
    """One face of all that a run needs.

    Attributes:
        kind: Which one.
        primary: That face of the primary store.
        link: That link of the saver.
    """

    kind: Literal["sync", "async"]
    primary: Primary
    link: Link

    @property
    def core(self) -> Checkpoints:
        """The saver's logic."""
        ...

    @property
    def ttl_s(self) -> float | None:
        """How long a thread lives after its last write; None for ever."""
        ...

    async def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.get_tuple`."""
        ...

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str
    ) -> None:
        """See `BaseCheckpointSaver.put_writes`."""
        ...

    @property
    def has_tier(self) -> bool:
        """Whether there is a tier behind the saver."""
        ...

    def crossed(self, thread_id: str) -> None:
        """See `TieredSaver.crossed`."""
        ...

    async def carry(self, thread_id: str) -> None:
        """See `TieredSaver.carry`."""
        ...

    async def state(self, graph: Any, config: RunnableConfig) -> Any:
        """The graph's `StateSnapshot` of a thread."""
        ...

    async def invoke(
        self, graph: Any, given: Any, config: RunnableConfig, options: Mapping[str, Any], kind: str
    ) -> Any:
        """Execute a graph; `kind` is the face by which its run was started."""
        ...

    def stream(
        self, graph: Any, given: Any, config: RunnableConfig, options: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Execute a graph, and yield what it streams."""
        ...

    async def undisturbed(self, step: Coroutine[Any, Any, Any]) -> bool:
        """Await something though this is being cancelled; False if it takes too long."""
        ...

    async def side_by_side(
        self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], most: int
    ) -> list[T]:
        """Do several things, at most so many at once; what came of each, in order."""
        ...


class BlockingFace:
    """The blocking face; see `Face`."""

    kind: Literal["sync", "async"] = "sync"

    def __init__(self, saver: ValkeySaver, store: PrimaryStore, home: HomeLoop) -> None:
        self._saver = saver
        self._home = home
        self.primary = store.blocking
        self.link: Link = saver._blocking  # noqa: SLF001

    @property
    def core(self) -> Checkpoints:
        """See `Face`."""
        return self._saver._core  # noqa: SLF001

    @property
    def ttl_s(self) -> float | None:
        """See `Face`."""
        return self._saver.settings.ttl_s

    async def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `Face`."""
        return self._saver.get_tuple(config)

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str
    ) -> None:
        """See `Face`."""
        self._saver.put_writes(config, writes, task_id)

    @property
    def has_tier(self) -> bool:
        """See `Face`."""
        return _has_tier(self._saver)

    def crossed(self, thread_id: str) -> None:
        """See `Face`."""
        _crossed(self._saver, thread_id)

    async def carry(self, thread_id: str) -> None:
        """See `Face`."""
        if isinstance(self._saver, TieredSaver):
            self._saver.carry(thread_id)

    async def state(self, graph: Any, config: RunnableConfig) -> Any:
        """See `Face`."""
        return graph.get_state(config)

    async def invoke(
        self, graph: Any, given: Any, config: RunnableConfig, options: Mapping[str, Any], kind: str
    ) -> Any:
        """See `Face`; a run that was started by the async face is executed in a loop."""
        if kind == "sync":
            return graph.invoke(given, config, **options)
        thread_id = config["configurable"]["thread_id"]
        return self._home.run(thread_id, lambda: graph.ainvoke(given, config, **options))

    async def stream(
        self, graph: Any, given: Any, config: RunnableConfig, options: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """See `Face`."""
        with closing(graph.stream(given, config, **options)) as chunks:
            for chunk in chunks:
                yield chunk

    async def undisturbed(self, step: Coroutine[Any, Any, Any]) -> bool:
        """See `Face`."""
        await step
        return True

    async def side_by_side(
        self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], most: int
    ) -> list[T]:
        """See `Face`: in threads, if there is more than one thing to do."""
        if len(jobs) < 2:
            return [finish(job()) for job in jobs]
        with ThreadPoolExecutor(most, "langgraph-valkey-runs") as pool:
            return list(pool.map(lambda job: finish(job()), jobs))


class LoopFace:
    """The async face; see `Face`."""

    kind: Literal["sync", "async"] = "async"

    def __init__(self, saver: ValkeySaver, store: PrimaryStore) -> None:
        self._saver = saver
        self.primary = store.loops
        self.link: Link = saver._loops  # noqa: SLF001

    @property
    def core(self) -> Checkpoints:
        """See `Face`."""
        return self._saver._core  # noqa: SLF001

    @property
    def ttl_s(self) -> float | None:
        """See `Face`."""
        return self._saver.settings.ttl_s

    async def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `Face`."""
        return await self._saver.aget_tuple(config)

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str
    ) -> None:
        """See `Face`."""
        await self._saver.aput_writes(config, writes, task_id)

    @property
    def has_tier(self) -> bool:
        """See `Face`."""
        return _has_tier(self._saver)

    def crossed(self, thread_id: str) -> None:
        """See `Face`."""
        _crossed(self._saver, thread_id)

    async def carry(self, thread_id: str) -> None:
        """See `Face`."""
        if isinstance(self._saver, TieredSaver):
            await self._saver.acarry(thread_id)

    async def state(self, graph: Any, config: RunnableConfig) -> Any:
        """See `Face`."""
        return await graph.aget_state(config)

    async def invoke(
        self, graph: Any, given: Any, config: RunnableConfig, options: Mapping[str, Any], kind: str
    ) -> Any:
        """See `Face`; graphs of blocking nodes run on this face, too."""
        del kind
        return await graph.ainvoke(given, config, **options)

    async def stream(
        self, graph: Any, given: Any, config: RunnableConfig, options: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """See `Face`."""
        async with aclosing(graph.astream(given, config, **options)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def undisturbed(self, step: Coroutine[Any, Any, Any]) -> bool:
        """See `Face`."""
        with anyio.move_on_after(LEAVING_S, shield=True):
            await step
            return True
        return False

    async def side_by_side(
        self, jobs: Sequence[Callable[[], Coroutine[Any, Any, T]]], most: int
    ) -> list[T]:
        """See `Face`: in tasks."""
        done: dict[int, T] = {}
        room = anyio.Semaphore(most)

        async def work(at: int) -> None:
            async with room:
                done[at] = await jobs[at]()

        async with anyio.create_task_group() as tasks:
            for at in range(len(jobs)):
                tasks.start_soon(work, at)
        return [done[at] for at in range(len(jobs))]


def _has_tier(saver: ValkeySaver) -> bool:
    return isinstance(saver, TieredSaver) and saver.has_tier


def _crossed(saver: ValkeySaver, thread_id: str) -> None:
    if isinstance(saver, TieredSaver):
        saver.crossed(thread_id)
