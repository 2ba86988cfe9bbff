"""Where a config points: thread, namespace, checkpoint."""

from __future__ import annotations

from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig

from langgraph_valkey.errors import CorruptState
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
