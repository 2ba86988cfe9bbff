"""A saver with a tier behind it: what was committed is never fallen back behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_valkey import listing
from langgraph_valkey.boundary.boundary import Boundary
from langgraph_valkey.boundary.carrying import Side
from langgraph_valkey.boundary.faces import FaceName, Saver, blocking_face, check_face, loop_face
from langgraph_valkey.link import Link, finish, finish_each
from langgraph_valkey.loss_window.report import Hooks
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.saver import ValkeySaver
from langgraph_valkey.settings import Settings


class TieredSaver(ValkeySaver):
    """A `ValkeySaver` that brings a thread's checkpoints to a tier after each commit.

    The tier is any checkpointer that loses nothing: PostgresSaver, SqliteSaver, a
    `ValkeySaver` on a cluster with sync durability. What the Valkey server turns out to
    lack of a thread is joined back from there before the thread is read: after a
    failover, and also when the thread has expired (``ttl_s``), since the tier keeps it.

    With a primary store deletes are durable.

    Without both it is a `ValkeySaver`. Its owner sets the tier up, and closes it.

    The tier gets a checkpoint, and what it takes to go on from it; not the history. So
    a thread that is put back from there has that one checkpoint, and what is read from
    the tier by other programs is as of the last commit.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tier: Saver | None = None,
        store: PrimaryStore | None = None,
        serde: SerializerProtocol | None = None,
        hooks: Hooks | None = None,
        link: Link | None = None,
    ) -> None:
        """Make a saver from settings.

        Args:
            settings: As of `ValkeySaver`.
            tier: Where checkpoints go after a commit.
            store: Where tombstones of durable deletes go.
            serde: The serializer on the Valkey server; the tier has its own.
            hooks: As of `ValkeySaver`.
            link: A link of your own, for tests.

        Raises:
            ConfigurationError: The settings, or the serializer, can't be used.
        """
        super().__init__(settings, serde=serde, hooks=hooks, link=link)
        ttl_s = self.settings.ttl_s
        self._boundary = Boundary(None if ttl_s is None else max(1, round(ttl_s * 1000)))
        self._tier, self._store = tier, store
        self._tiers = (blocking_face(tier), loop_face(tier)) if tier is not None else (None, None)

    @property
    def _here(self) -> Side:
        """The blocking face."""
        primary = self._store.blocking if self._store is not None else None
        return Side(self._core, self._blocking, self._tiers[0], primary)

    @property
    def _there(self) -> Side:
        """The async face."""
        primary = self._store.loops if self._store is not None else None
        return Side(self._core, self._loops, self._tiers[1], primary)

    @property
    def has_tier(self) -> bool:
        """Whether there is a tier."""
        return self._tier is not None

    def check_face(self, face: FaceName) -> None:
        """Whether the tier can be used from a face; call it where that face will be used.

        Raises:
            ConfigurationError: It can't: it has no such methods, or belongs to an event
                loop that a blocking call would wait for forever.
        """
        if self._tier is not None:
            check_face(self._tier, face)

    def crossed(self, thread_id: str, on: Mapping[str, str] | None = None) -> None:
        """Something was committed in a thread: its next checkpoint goes to the tier as well.

        That happens within the put of that checkpoint, so under durability="sync" it is
        there before the next step. If the tier does not take it, the put raises
        `Unreachable`, and the next one is due.

        Args:
            thread_id: The thread.
            on: In each namespace that the committing task is in, the id of the checkpoint
                it was made on: only one after that is due. If not given, any is.
        """
        if self._tier is not None:
            self._boundary.crossed(thread_id, on or {})

    # --- the blocking face -----------------------------------------------------

    def carry(self, thread_id: str, namespace: str = "") -> bool:
        """Bring a thread's present checkpoint to the tier now.

        Args:
            thread_id: The thread.
            namespace: The ``checkpoint_ns`` of the running task, so that the subgraphs it
                is in go along.

        Returns:
            Whether there is one, and a tier.
        """
        with self._calls:
            return finish(self._boundary.carry(self._here, thread_id, namespace))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.get_tuple`."""
        with self._calls:
            return finish(self._boundary.get_tuple(self._here, config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """See `BaseCheckpointSaver.list`. Without a config, the tier is not asked."""
        if config:
            with self._calls:
                finish(self._boundary.ready(self._here, config))
        yield from finish_each(
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
                self._boundary.put(self._here, config, checkpoint, metadata, new_versions)
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
            finish(self._boundary.put_writes(self._here, config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str, *, durable: bool | None = None) -> None:
        """See `BaseCheckpointSaver.delete_thread`; the tier deletes it, too.

        Args:
            thread_id: The thread.
            durable: Whether the delete survives that this process and the primary node
                are lost together: it is recorded in the primary store first, which also
                keeps the thread's runs from being executed again. If this raises, call
                again; whoever reads the thread meanwhile may complete it. If not given,
                it is durable where there is a primary store.

        Raises:
            ConfigurationError: `durable`, without a primary store.
        """
        with self._calls:
            finish(self._boundary.delete_thread(self._here, thread_id, durable=durable))

    def rebury(self, since_s: float) -> int:
        """Complete durable deletes that the Valkey server lost at a failover.

        The first read of a thread does it for that thread. A thread that was begun anew
        after its deletion stays.

        Args:
            since_s: Deletes of so many seconds back: longer than the loss window.

        Returns:
            How many deletions the server did not know of.
        """
        with self._calls:
            return finish(self._boundary.rebury(self._here, since_s))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `ValkeySaver.delete_for_runs`.

        A tier that can't do it gets the threads concerned anew, as they are then; if this
        process dies in between, such a thread is in the tier again after its next commit.
        """
        with self._calls:
            finish(self._boundary.delete_for_runs(self._here, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `ValkeySaver.copy_thread`. The copy's present checkpoint goes to the tier."""
        with self._calls:
            finish(self._boundary.copy_thread(self._here, source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `ValkeySaver.prune`. The tier is pruned as well, if it can be.

        With ``strategy="delete"`` threads are deleted as by `delete_thread`.
        """
        with self._calls:
            finish(self._boundary.prune(self._here, thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `BaseCheckpointSaver.get_delta_channel_history`."""
        with self._calls:
            finish(self._boundary.ready(self._here, config, is_sure=True))
            return finish(listing.delta_history(self._core, self._blocking, config, channels))

    # --- the async face --------------------------------------------------------

    async def acarry(self, thread_id: str, namespace: str = "") -> bool:
        """See `carry`."""
        with self._calls:
            return await self._boundary.carry(self._there, thread_id, namespace)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver.aget_tuple`."""
        with self._calls:
            return await self._boundary.get_tuple(self._there, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """See `list`."""
        if config:
            with self._calls:
                await self._boundary.ready(self._there, config)
        given = config, filter, before, limit
        async with aclosing(listing.list_checkpoints(self._core, self._loops, *given)) as found:
            async for each in found:
                yield each

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `BaseCheckpointSaver.aput`."""
        with self._calls:
            return await self._boundary.put(self._there, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """See `BaseCheckpointSaver.aput_writes`."""
        with self._calls:
            await self._boundary.put_writes(self._there, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str, *, durable: bool | None = None) -> None:
        """See `delete_thread`."""
        with self._calls:
            await self._boundary.delete_thread(self._there, thread_id, durable=durable)

    async def arebury(self, since_s: float) -> int:
        """See `rebury`."""
        with self._calls:
            return await self._boundary.rebury(self._there, since_s)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        with self._calls:
            await self._boundary.delete_for_runs(self._there, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `copy_thread`."""
        with self._calls:
            await self._boundary.copy_thread(self._there, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        with self._calls:
            await self._boundary.prune(self._there, thread_ids, strategy)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `get_delta_channel_history`."""
        with self._calls:
            await self._boundary.ready(self._there, config, is_sure=True)
            return await listing.delta_history(self._core, self._loops, config, channels)
