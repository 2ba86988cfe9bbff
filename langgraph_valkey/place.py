"""Where a config points: thread, namespace, checkpoint."""

from __future__ import annotations

from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from langgraph_valkey.errors import CorruptState, ReplayIncomplete
from langgraph_valkey.keys import ThreadKeys, thread_keys, thread_name


class Place(NamedTuple):
    """Where a config points.

    Attributes:
        thread_id: The thread as the caller named it.
        thread: Its name.
        keys: Its keys.
        namespace: The namespace, or None where the config has none.
        checkpoint_id: The checkpoint, or '' for the head.
    """

    thread_id: Any
    thread: str
    keys: ThreadKeys
    namespace: str | None
    checkpoint_id: str

    def config(self, namespace: str, checkpoint_id: str) -> RunnableConfig:
        """The config of a checkpoint of this thread."""
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": namespace,
                "checkpoint_id": checkpoint_id,
            }
        }

    def corrupt(self, why: str, checkpoint_id: str | None, key: bytes) -> CorruptState:
        """The error for damage found in this thread."""
        name = key.decode("utf-8", "backslashreplace")
        what = f"checkpoint {checkpoint_id!r} of thread" if checkpoint_id else "thread"
        return CorruptState(
            f"{what} {self.thread!r} can't be read from key {name!r}: {why}. "
            "It is not loaded in part; restore it or delete the thread",
            thread_id=self.thread,
            checkpoint_id=checkpoint_id or None,
            key=name,
        )


HEAD_EXPECTED = "__lgv_head"
"""Where a config says what the head of a thread has to be when it is read: the thread, a
run, and the id of a checkpoint: that one, or one that this run has made."""


def raise_if_unexpected(
    config: RunnableConfig, place: Place, found: CheckpointTuple | None
) -> None:
    """Raise if a thread's head is not what the reader was told that it is.

    A graph that is to go on from a checkpoint reads its thread by itself, some time
    after that was judged. What a failover changed in between it would take for granted.

    Raises:
        ReplayIncomplete: It is another one.
    """
    expected = (config.get("configurable") or {}).get(HEAD_EXPECTED)
    if expected is None or place.checkpoint_id or place.namespace:
        return
    thread_id, run_id, head = expected
    at = found.config["configurable"]["checkpoint_id"] if found is not None else ""
    if thread_id != place.thread_id or at == head:
        return
    if found is None or found.metadata.get("run_id") != run_id:
        raise ReplayIncomplete(
            f"thread {place.thread!r} was rewound by a failover just when run {run_id!r} was about "
            "to go on from its head, so it was not executed",
            thread_ids=[place.thread],
        )


def thread_in(config: RunnableConfig) -> str:
    """The name of the thread that a config points to.

    Raises:
        ValueError: It names no thread, or not by a string.
    """
    return place_of("", config).thread


def place_of(prefix: str, config: RunnableConfig) -> Place:
    """Where a config points.

    Raises:
        ValueError: It names no thread, or not by a string.
    """
    configurable = config.get("configurable") or {}
    if "thread_id" not in configurable:
        raise ValueError(
            "the config names no thread: pass config={'configurable': {'thread_id': '...'}}"
        )
    return place_of_thread(
        prefix,
        configurable["thread_id"],
        configurable.get("checkpoint_ns"),
        configurable.get("checkpoint_id") or "",
    )


def place_of_thread(
    prefix: str, thread_id: Any, namespace: str | None = None, checkpoint_id: str = ""
) -> Place:
    """The place of a thread named directly."""
    thread = thread_name(thread_id)
    return Place(thread_id, thread, thread_keys(prefix, thread), namespace, checkpoint_id)
