"""The checkpointer: LangGraph's interface on both native faces.

There is no logic here. Each method hands its arguments to the one implementation
in `checkpoints`, `listing` and `upkeep`; what differs is the link it runs over:
the blocking methods finish the coroutine on the spot, their ``a`` twins await it.
"""

from __future__ import annotations

import time
from collections.abc import (
    AsyncIterator,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Self, TypeVar

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
from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_valkey import listing, upkeep
from langgraph_valkey.checkpoints import Checkpoints
from langgraph_valkey.closing import Closing
from langgraph_valkey.drafts import Writer
from langgraph_valkey.known import Known
from langgraph_valkey.link import Link, finish, finish_each
from langgraph_valkey.loss_window import recovering, tending
from langgraph_valkey.loss_window.report import Health, Hooks, RecoveryReport
from langgraph_valkey.place import thread_in
from langgraph_valkey.session import Session
from langgraph_valkey.settings import Settings
from langgraph_valkey.stored.codec import Codec

T = TypeVar("T")


class ValkeySaver(BaseCheckpointSaver[str], Closing):
    """A LangGraph checkpointer on Valkey.

    One object serves blocking and async callers, any number of threads and event
    loops, and forked children. It connects at first use, so making one never
    fails for want of a server.

    Example:
        ```python
        with ValkeySaver.from_url("valkey://127.0.0.1:6379") as saver:
            graph = builder.compile(checkpointer=saver)
            graph.invoke(inputs, {"configurable": {"thread_id": "1"}})
        ```

    In a long-lived process no context manager is needed: make one and, at the
    end, `close` or `aclose` it.

    All methods raise `Unreachable`, `WriteRejected` or `OutcomeUnknown` when the
    server can't be asked, and `CorruptState` for what can't be read back whole;
    None and empty lists mean that the server said so.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        serde: SerializerProtocol | None = None,
        hooks: Hooks | None = None,
        link: Link | None = None,
    ) -> None:
        """Make a saver from settings.

        Args:
            settings: Where the server is, and how threads are kept; read from
                the environment (`Settings.from_env`) if not given.
            serde: The serializer; LangGraph's `JsonPlusSerializer` if not given.
            hooks: Functions that are told of failovers, forks and a full journal.
            link: A link of your own that never suspends, for both faces; for
                tests (`testing.MemoryLink`).

        Raises:
            ConfigurationError: The settings, or the serializer, can't be used.
        """
        self.settings = settings or Settings.from_env()
        self._session = session = Session(self.settings, hooks, link)
        self._blocking: Link = session.blocking
        self._loops: Link = session.loops
        self._calls = session.calls
        self._window = session.window
        key = self.settings.digest_key
        self._digest_key = key.get_secret_value() if key is not None else None
        self._known = Known()
        self._writer = Writer()
        super().__init__(serde=serde or BaseCheckpointSaver.serde)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        serde: SerializerProtocol | None = None,
        hooks: Hooks | None = None,
        **options: Any,
    ) -> Self:
        """Make a saver from a URL.

        Args:
            url: ``valkey://`` or, with TLS, ``valkeys://`` (``redis://`` and
                ``rediss://`` mean the same); see `Settings.from_url`.
            serde: The serializer.
            hooks: Functions that are told of failovers, forks and a full journal.
            **options: Fields of `Settings`, such as ``ttl_s``,
                ``refresh_ttl_on_read``, ``key_prefix`` and ``digest_key``.

        Raises:
            ConfigurationError: The URL, an option or the serializer can't be used.
        """
        return cls(Settings.from_url(url, **options), serde=serde, hooks=hooks)

    @classmethod
    def over(
        cls,
        link: Link,
        *,
        serde: SerializerProtocol | None = None,
        hooks: Hooks | None = None,
        **options: Any,
    ) -> Self:
        """Make a saver over a link of your own, for both faces; for tests.

        Args:
            link: A link whose methods do not suspend (`testing.MemoryLink`).
            serde: The serializer.
            hooks: Functions that are told of failovers, forks and a full journal.
            **options: Fields of `Settings`.
        """
        return cls(Settings(**options), serde=serde, hooks=hooks, link=link)

    @property
    def serde(self) -> SerializerProtocol:
        """The serializer. Setting another one makes the saver use it."""
        return self._core.codec.serde

    @serde.setter
    def serde(self, serde: SerializerProtocol) -> None:
        settings = self.settings
        self._core = Checkpoints(
            Codec(serde, self._digest_key),
            self._known,
            self._writer,
            self._window,
            prefix=settings.key_prefix,
            ttl_ms=None if settings.ttl_s is None else max(1, round(settings.ttl_s * 1000)),
            slide_ttl_on_read=settings.refresh_ttl_on_read,
        )

    # --- the blocking face -----------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.get_tuple`."""
        with self._calls:
            return finish(self._core.get_tuple(self._blocking, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """See `BaseCheckpointSaver.list`. Reads page by page as it is iterated."""
        return finish_each(
            listing.list_checkpoints(self._core, self._blocking, config, filter, before, limit)
        )

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `BaseCheckpointSaver.put`."""
        with self._calls:
            return finish(
                self._core.put(self._blocking, config, checkpoint, metadata, new_versions)
            )

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """See `BaseCheckpointSaver.put_writes`."""
        with self._calls:
            finish(self._core.put_writes(self._blocking, config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """See `BaseCheckpointSaver.delete_thread`."""
        with self._calls:
            finish(self._core.delete_thread(self._blocking, thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `BaseCheckpointSaver.delete_for_runs`.

        Looks at every thread. A checkpoint that a kept one's `DeltaChannel` is
        rebuilt from stays.
        """
        with self._calls:
            finish(upkeep.delete_for_runs(self._core, self._blocking, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `BaseCheckpointSaver.copy_thread`. What the target has stays."""
        with self._calls:
            finish(
                upkeep.copy_thread(self._core, self._blocking, source_thread_id, target_thread_id)
            )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `BaseCheckpointSaver.prune`.

        Keeps what a kept checkpoint's `DeltaChannel` is rebuilt from.
        """
        with self._calls:
            finish(upkeep.prune(self._core, self._blocking, thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `BaseCheckpointSaver.get_delta_channel_history`."""
        with self._calls:
            return finish(listing.delta_history(self._core, self._blocking, config, channels))

    def setup(self) -> None:
        """Connect now, rather than at first use. Nothing else needs setting up."""
        with self._calls:
            finish(self._core.get_tuple(self._blocking, _NO_THREAD))

    # --- the async face --------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.aget_tuple`."""
        with self._calls:
            return await self._core.get_tuple(self._loops, config)

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """See `BaseCheckpointSaver.alist`. Reads page by page as it is iterated."""
        return listing.list_checkpoints(self._core, self._loops, config, filter, before, limit)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `BaseCheckpointSaver.aput`."""
        with self._calls:
            return await self._core.put(self._loops, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """See `BaseCheckpointSaver.aput_writes`."""
        with self._calls:
            await self._core.put_writes(self._loops, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """See `BaseCheckpointSaver.adelete_thread`."""
        with self._calls:
            await self._core.delete_thread(self._loops, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        with self._calls:
            await upkeep.delete_for_runs(self._core, self._loops, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `copy_thread`."""
        with self._calls:
            await upkeep.copy_thread(self._core, self._loops, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        with self._calls:
            await upkeep.prune(self._core, self._loops, thread_ids, strategy)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `get_delta_channel_history`."""
        with self._calls:
            return await listing.delta_history(self._core, self._loops, config, channels)

    async def asetup(self) -> None:
        """See `setup`."""
        with self._calls:
            await self._core.get_tuple(self._loops, _NO_THREAD)

    # --- both ------------------------------------------------------------------

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`; the text form of LangGraph's own savers.

        So threads can be moved between this saver and those.
        """
        return InMemorySaver.get_next_version(_VERSIONS, current, channel)

    def health(self) -> Health:
        """What is not durable yet, how far behind shards are, and what failovers did."""
        return self._window.vitals.health(time.monotonic())

    def recover(self) -> RecoveryReport | None:
        """Replay all that is journaled now. Never needed; safe at any time.

        The monitor does it by itself after a failover.

        Returns:
            What came of it, over all shards; None if nothing is journaled.
        """
        with self._calls:
            return finish(recovering.recover(self._window, self._blocking, everything=True))

    async def arecover(self) -> RecoveryReport | None:
        """See `recover`."""
        with self._calls:
            return await recovering.recover(self._window, self._loops, everything=True)

    def wait_durable(self, config: RunnableConfig, timeout_s: float) -> bool:
        """Wait until what this process wrote to a thread can't be lost any more.

        Args:
            config: Names the thread.
            timeout_s: For how long at most. With async durability it takes two lag
                bounds, about 22 s, by the three conditions of the watermark.

        Returns:
            Whether it is durable; False after the timeout.
        """
        return finish(
            tending.wait_durable(self._window, self._blocking, thread_in(config), timeout_s)
        )

    async def await_durable(self, config: RunnableConfig, timeout_s: float) -> bool:
        """See `wait_durable`."""
        return await tending.wait_durable(self._window, self._loops, thread_in(config), timeout_s)

    def close(self, drain_s: float | None = None) -> None:
        """Close the connections, once what was written is durable. May be called again.

        Args:
            drain_s: How long to wait for calls under way in other threads, and for the
                server to make durable what was written; 2.4 lag bounds if not given.
                With a `spool_dir` give 0 to leave at once: the spool keeps it.
        """
        self._session.close(drain_s)

    async def aclose(self, drain_s: float | None = None) -> None:
        """Close the connections; see `close`. Other tasks run meanwhile."""
        await self._session.aclose(drain_s)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.settings.addresses}, prefix={self.settings.key_prefix!r})"
        )


AsyncValkeySaver = ValkeySaver
"""The same class, under the name by which many look for the async face."""

_NO_THREAD: RunnableConfig = {"configurable": {"thread_id": ""}}
_VERSIONS = InMemorySaver()
