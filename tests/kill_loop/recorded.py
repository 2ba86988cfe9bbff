"""`Recorded`: the saver under test, with a ledger of what it has acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from langgraph_valkey import ValkeySaver
from langgraph_valkey.loss_window.report import Fork, Hooks, RecoveryReport
from langgraph_valkey.settings import Settings
from tests.kill_loop.ledger import Ledger


class Recorded(ValkeySaver):
    """A saver that notes in a ledger what it was asked for and has acknowledged.

    Args:
        settings: The saver's.
        ledger: Where.
        told: Called with each report, as soon as it comes.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger, told: Callable[[RecoveryReport], None]
    ) -> None:
        def on_fork(fork: Fork) -> None:
            ledger.forked(fork.thread_id)

        self._ledger = ledger
        super().__init__(settings, hooks=Hooks(on_rewind=told, on_fork=on_fork))

    def is_past(self, former: str) -> bool:
        """Whether it has replayed all that a primary which was replaced may have lost."""
        window = self._window
        if former in {shard.identity for shard in self.health().shards}:
            return False
        return not window.is_recovering and not window.behind()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        with self._ledger.putting(self, self.settings.ttl_s, config, checkpoint):
            return super().put(config, checkpoint, metadata, new_versions)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        with self._ledger.putting(self, self.settings.ttl_s, config, checkpoint):
            return await super().aput(config, checkpoint, metadata, new_versions)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        with self._ledger.writing(self.settings.ttl_s, config, writes, task_id):
            super().put_writes(config, writes, task_id, task_path)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        with self._ledger.writing(self.settings.ttl_s, config, writes, task_id):
            await super().aput_writes(config, writes, task_id, task_path)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        where = _head_of(config)
        if where is None:
            return super().get_tuple(config)
        before = self._ledger.before_read(*where)
        found = super().get_tuple(config)
        self._ledger.after_read(self, *where, before, found)
        return found

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        where = _head_of(config)
        if where is None:
            return await super().aget_tuple(config)
        before = self._ledger.before_read(*where)
        found = await super().aget_tuple(config)
        self._ledger.after_read(self, *where, before, found)
        return found

    def delete_thread(self, thread_id: str) -> None:
        with self._ledger.deleting(thread_id):
            super().delete_thread(thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        with self._ledger.deleting(thread_id):
            await super().adelete_thread(thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        with ExitStack() as stack:
            for thread in thread_ids:
                stack.enter_context(self._ledger.pruning(thread))
            super().prune(thread_ids, strategy=strategy)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        with ExitStack() as stack:
            for thread in thread_ids:
                stack.enter_context(self._ledger.pruning(thread))
            await super().aprune(thread_ids, strategy=strategy)


def _head_of(config: RunnableConfig) -> tuple[str, str] | None:
    """Thread and namespace, if the head is asked for."""
    where = config["configurable"]
    if where.get("checkpoint_id"):
        return None
    return where["thread_id"], where.get("checkpoint_ns") or ""
