"""The tier behind one interface: any checkpointer, on either face of ours.

What talks to the tier is async code, as all of this package. On the blocking face
its calls go to the tier's blocking methods, and never suspend. On the async face they
go to its ``a`` methods; where it has none (SqliteSaver's raise NotImplementedError),
or where it lives on another event loop, to the blocking ones in a thread.

The async savers of LangGraph keep the loop they were made on, and their blocking
methods wait for it. Called on that loop's own thread they would wait forever, so
such a call is refused.

An error of the tier is never taken for "nothing there": whatever it raises becomes
`Unreachable`, which names the tier, with the tier's own error as its cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import anyio.to_thread
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.link import finish

Saver: TypeAlias = BaseCheckpointSaver[Any]
FaceName: TypeAlias = Literal["sync", "async"]


class TierFace:
    """A tier, as one face of ours calls it; make one by `blocking_face` or `loop_face`.

    All methods raise `Unreachable` for whatever the tier raises, but for
    NotImplementedError and `ConfigurationError`.

    Attributes:
        name: Its class, for errors.
    """

    def __init__(self, saver: Saver, call: Callable[..., Awaitable[Any]]) -> None:
        self.name = type(saver).__name__
        self._saver = saver
        self._call = call

    async def _ask(self, what: str, method: str, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._call(self._saver, method, *args, **kwargs)
        except (NotImplementedError, ConfigurationError):
            raise
        except Exception as error:
            raise Unreachable(
                f"the tier ({self.name}) could not {what}: its {method}() raised "
                f"{type(error).__name__}. Call again once the tier is well"
            ) from error

    async def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.get_tuple`."""
        found: CheckpointTuple | None = await self._ask("be read", "get_tuple", config)
        return found

    async def listed(
        self, config: RunnableConfig | None, criteria: dict[str, Any] | None = None
    ) -> list[CheckpointTuple]:
        """See `BaseCheckpointSaver.list`."""
        found: list[CheckpointTuple] = await self._ask("be read", "list", config, filter=criteria)
        return found

    async def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> None:
        """See `BaseCheckpointSaver.put`.

        The versions of all channels with a value are given as new: PostgresSaver stores no
        other values, and nobody knows which ones it has. Those of channels without one are
        not: InMemorySaver takes them for emptied, also where an ancestor has the value.
        """
        values = checkpoint["channel_values"]
        versions = {k: v for k, v in checkpoint["channel_versions"].items() if k in values}
        what = "take a checkpoint, which the Valkey server has"
        await self._ask(what, "put", config, checkpoint, metadata, versions)

    async def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, path: str
    ) -> None:
        """See `BaseCheckpointSaver.put_writes`."""
        what = "take pending writes, which the Valkey server has"
        await self._ask(what, "put_writes", config, writes, task_id, path)

    async def delete_thread(self, thread_id: str) -> None:
        """See `BaseCheckpointSaver.delete_thread`."""
        await self._ask("delete a thread", "delete_thread", thread_id)

    async def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `BaseCheckpointSaver.delete_for_runs`."""
        await self._ask("delete runs", "delete_for_runs", run_ids)

    async def prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        """See `BaseCheckpointSaver.prune`."""
        await self._ask("be pruned", "prune", thread_ids, strategy=strategy)

    async def history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `BaseCheckpointSaver.get_delta_channel_history`."""
        method = "get_delta_channel_history"
        found: Mapping[str, DeltaChannelHistory] = await self._ask(
            "be read", method, config=config, channels=channels
        )
        return found


def blocking_face(saver: Saver) -> TierFace:
    """A tier for the blocking face: its coroutines never suspend."""
    return TierFace(saver, _call_blocking)


def loop_face(saver: Saver) -> TierFace:
    """A tier for the async face, on any event loop."""
    return TierFace(saver, _call_on_loop)


def check_face(saver: Saver, face: FaceName) -> None:
    """Whether a tier can be used from a face.

    Args:
        saver: The tier.
        face: Which face of ours is going to be used.

    Raises:
        ConfigurationError: It can't.
    """
    if face == "sync":
        _require_blocking(saver)
    elif face == "async":
        if not _implements(saver, "aput") and not _implements(saver, "put"):
            raise ConfigurationError(
                f"the tier ({type(saver).__name__}) implements neither put() nor aput(), so it can "
                "store nothing: give a complete checkpointer"
            )
    else:
        raise ValueError(f"face must be 'sync' or 'async', not {face!r}")


def _implements(saver: Saver, method: str) -> bool:
    return getattr(type(saver), method) is not getattr(BaseCheckpointSaver, method)


def _own_loop(saver: Saver) -> asyncio.AbstractEventLoop | None:
    """The event loop that an async saver was made on."""
    loop = getattr(saver, "loop", None)
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _require_blocking(saver: Saver) -> None:
    """Raise unless its blocking methods can be called from here."""
    name = type(saver).__name__
    if not _implements(saver, "put"):
        raise ConfigurationError(
            f"the tier ({name}) has no blocking methods: call the saver's async methods "
            "(ainvoke, astream), or give a tier that has them"
        )
    loop = _own_loop(saver)
    if loop is None:
        return
    if loop is _running_loop():
        raise ConfigurationError(
            f"the tier ({name}) belongs to the event loop of this very thread, so a blocking call "
            "would wait for it forever: call the saver's async methods (ainvoke, astream), or "
            "give a blocking tier (PostgresSaver, SqliteSaver)"
        )
    if not loop.is_running():
        raise ConfigurationError(
            f"the tier ({name}) belongs to an event loop that does not run, so a call would wait "
            "for it forever: make the tier on the loop that is used, or give a blocking tier "
            "(PostgresSaver, SqliteSaver)"
        )


async def _call_blocking(saver: Saver, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a blocking method; never suspends."""
    _require_blocking(saver)
    result = getattr(saver, method)(*args, **kwargs)
    return [*result] if method == "list" else result


async def _call_on_loop(saver: Saver, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call an async method, or the blocking one in a thread."""
    home = _own_loop(saver)
    if home is None or home is _running_loop():
        try:
            if method == "list":
                return [found async for found in saver.alist(*args, **kwargs)]
            return await getattr(saver, f"a{method}")(*args, **kwargs)
        except NotImplementedError:
            if home is not None:
                raise
    blocking = partial(_call_blocking, saver, method, *args, **kwargs)
    return await anyio.to_thread.run_sync(lambda: finish(blocking()))
