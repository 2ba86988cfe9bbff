"""Both faces of a saver behind one interface, and what the tests put through them.

A test is written once, against the ``a`` methods: `AsyncFace` passes them on,
`SyncFace` calls the blocking twin in a thread. `Twin` does the same to
InMemorySaver and compares every answer: where LangGraph's base class is silent,
that saver's behaviour is the definition.
"""

from __future__ import annotations

import asyncio
import copy
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_valkey import ValkeySaver

FACES = ("async", "sync")


class Face(BaseCheckpointSaver[str], ABC):
    """One face of a saver, as the ``a`` methods of the base class."""

    kind: ClassVar[str]

    def __init__(self, saver: BaseCheckpointSaver[str]) -> None:
        super().__init__(serde=saver.serde)
        self.saver = saver

    @abstractmethod
    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method by the name it has on the blocking face."""

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found: CheckpointTuple | None = await self.call("get_tuple", config)
        return found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        stored: RunnableConfig = await self.call("put", config, checkpoint, metadata, new_versions)
        return stored

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await self.call("put_writes", config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.call("delete_thread", thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await self.call("delete_for_runs", run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self.call("copy_thread", source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await self.call("prune", thread_ids, strategy=strategy)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        found: Mapping[str, DeltaChannelHistory] = await self.call(
            "get_delta_channel_history", config=config, channels=channels
        )
        return found

    async def listed(
        self, config: RunnableConfig | None, **criteria: Any
    ) -> Collection[CheckpointTuple]:
        return [found async for found in self.alist(config, **criteria)]

    @abstractmethod
    async def run(self, runnable: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of a compiled graph on this face: ``invoke`` or ``ainvoke``, and so on."""


class AsyncFace(Face):
    """The native async face."""

    kind = "async"

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self.saver, f"a{method}")(*args, **kwargs)

    async def alist(
        self, config: RunnableConfig | None, **criteria: Any
    ) -> AsyncIterator[CheckpointTuple]:
        async for found in self.saver.alist(config, **criteria):
            yield found

    async def run(self, runnable: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(runnable, f"a{method}")(*args, **kwargs)
        return [item async for item in result] if hasattr(result, "__aiter__") else await result


class SyncFace(Face):
    """The native blocking face, called in threads."""

    kind = "sync"

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self.saver, method), *args, **kwargs)

    async def alist(
        self, config: RunnableConfig | None, **criteria: Any
    ) -> AsyncIterator[CheckpointTuple]:
        iterator = self.saver.list(config, **criteria)
        while (found := await asyncio.to_thread(next, iterator, None)) is not None:
            yield found

    async def run(self, runnable: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        def blocking() -> Any:
            result = getattr(runnable, method)(*args, **kwargs)
            return list(result) if hasattr(result, "__next__") else result

        return await asyncio.to_thread(blocking)


@asynccontextmanager
async def open_face(kind: str, url: str, **options: Any) -> AsyncIterator[Face]:
    """One face of a saver with keys of its own, so that tests share a server unseen."""
    options.setdefault("key_prefix", f"t{os.urandom(6).hex()}")
    saver = ValkeySaver.from_url(url, **options)
    if kind == "async":
        async with saver:
            yield AsyncFace(saver)
    else:
        with saver:
            yield SyncFace(saver)


def config(thread_id: str, ns: str = "", checkpoint_id: str | None = None) -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def numbered_id(number: int) -> str:
    """An id as LangGraph makes them; a higher number gives a higher id."""
    return f"1f0{number:05x}-0000-6000-8000-{number:012x}"


def metadata(step: int = 0, **extra: Any) -> CheckpointMetadata:
    made: dict[str, Any] = {"source": "loop", "step": step, "parents": {}, **extra}
    return made  # type: ignore[return-value]


def checkpoint(
    checkpoint_id: str,
    updates: Mapping[str, Any] | None = None,
    *,
    parent: Checkpoint | None = None,
) -> tuple[Checkpoint, ChannelVersions]:
    """A checkpoint that changes some channels of its parent, and its new versions."""
    values = dict(parent["channel_values"]) if parent else {}
    versions = dict(parent["channel_versions"]) if parent else {}
    new_versions: ChannelVersions = {}
    for channel, value in (updates or {}).items():
        values[channel] = value
        count = int(str(versions.get(channel, "0")).split(".")[0]) + 1
        new_versions[channel] = versions[channel] = f"{count:032}.{checkpoint_id}"
    made = Checkpoint(
        v=2,
        id=checkpoint_id,
        ts="2026-01-01T00:00:00+00:00",
        channel_values=values,
        channel_versions=versions,
        versions_seen={"node": dict(versions)},
        updated_channels=sorted(new_versions),
    )
    return made, new_versions


def typed(value: Any) -> Any:
    """A value with its types spelled out: ``1 == True`` and ``b'' == bytearray()`` differ."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [typed(inner) for inner in value]
    return type(value), value


class Oracle(InMemorySaver):
    """InMemorySaver and the upkeep that it lacks, for threads without delta channels."""

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        for ns, stored in list(self.storage.get(source_thread_id, {}).items()):
            self.storage[target_thread_id][ns].update(stored)
        for at in [at for at in self.writes if at[0] == source_thread_id]:
            self.writes[(target_thread_id, *at[1:])] = dict(self.writes[at])
        for key in [key for key in self.blobs if key[0] == source_thread_id]:
            self.blobs[(target_thread_id, *key[1:])] = self.blobs[key]

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for thread_id in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread_id)
                continue
            for ns, stored in list(self.storage.get(thread_id, {}).items()):
                for checkpoint_id in sorted(stored)[:-1]:
                    self._remove(thread_id, ns, checkpoint_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        for found in list(self.list(None)):
            if found.metadata.get("run_id") in run_ids:
                where = found.config["configurable"]
                self._remove(where["thread_id"], where["checkpoint_ns"], where["checkpoint_id"])

    def _remove(self, thread_id: str, ns: str, checkpoint_id: str) -> None:
        del self.storage[thread_id][ns][checkpoint_id]
        self.writes.pop((thread_id, ns, checkpoint_id), None)


class Twin:
    """A face and InMemorySaver, doing the same and compared at each answer."""

    def __init__(self, face: Face) -> None:
        self.face = face
        self.oracle = Oracle()
        self.last: dict[tuple[str, str], Checkpoint] = {}

    async def put(
        self,
        where: RunnableConfig,
        made: Checkpoint,
        about: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        expected = self.oracle.put(where, copy.deepcopy(made), about, new_versions)
        stored = await self.face.aput(where, made, about, new_versions)
        assert stored == expected
        return stored

    async def step(
        self, thread_id: str, number: int, ns: str = "", about: Any = None, **updates: Any
    ) -> RunnableConfig:
        """Put a child of this thread's last checkpoint (none: a first one)."""
        parent = self.last.get((thread_id, ns))
        made, new_versions = checkpoint(numbered_id(number), updates, parent=parent)
        where = config(thread_id, ns, parent["id"] if parent else None)
        stored = await self.put(where, made, about or metadata(number), new_versions)
        self.last[thread_id, ns] = made
        return stored

    async def write(
        self,
        where: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self.oracle.put_writes(where, copy.deepcopy(writes), task_id, task_path)
        await self.face.aput_writes(where, writes, task_id, task_path)

    async def delete(self, thread_id: str) -> None:
        self.oracle.delete_thread(thread_id)
        await self.face.adelete_thread(thread_id)

    async def copy(self, source_thread_id: str, target_thread_id: str) -> None:
        self.oracle.copy_thread(source_thread_id, target_thread_id)
        await self.face.acopy_thread(source_thread_id, target_thread_id)

    async def prune(self, *thread_ids: str) -> None:
        self.oracle.prune(thread_ids)
        await self.face.aprune(thread_ids)

    async def delete_runs(self, *run_ids: str) -> None:
        self.oracle.delete_for_runs(run_ids)
        await self.face.adelete_for_runs(run_ids)

    async def get(self, where: RunnableConfig) -> CheckpointTuple | None:
        found, expected = await self.face.aget_tuple(where), self.oracle.get_tuple(where)
        assert_equal(found, expected)
        return found

    async def list(
        self, where: RunnableConfig | None, **criteria: Any
    ) -> Sequence[CheckpointTuple]:
        """List on both; threads and namespaces may come in any order."""
        found = list(await self.face.listed(where, **criteria))
        expected = list(self.oracle.list(where, **criteria))
        assert_equal(by_namespace(found), by_namespace(expected))
        return found

    async def check(self, *thread_ids: str) -> None:
        """Compare these threads (none: all) whole: each checkpoint, head and list."""
        for thread_id in thread_ids or list(self.oracle.storage):
            for ns in list(self.oracle.storage[thread_id]) or [""]:
                await self.get(config(thread_id, ns))
                for found in await self.list(config(thread_id, ns)):
                    await self.get(found.config)


def by_namespace(found: Sequence[CheckpointTuple]) -> dict[tuple[str, str], Any]:
    """The checkpoints listed for each thread and namespace, in the order listed."""
    groups: dict[tuple[str, str], list[CheckpointTuple]] = {}
    for one in found:
        where = one.config["configurable"]
        groups.setdefault((where["thread_id"], where["checkpoint_ns"]), []).append(one)
    return groups


def assert_equal(found: Any, expected: Any) -> None:
    assert found == expected
    assert typed(found) == typed(expected)
