"""What a thread takes in the server, beside what it would take stored whole.

A saver that stores the whole state writes, for each checkpoint, all that the
checkpoint holds, and beside it its metadata and the writes of its tasks. What
that would be is counted here over the same checkpoints with the same serializer,
as bare bytes: no key, no base64, no overhead of a server. Ours is what the server
itself says its keys take, all overhead included. So the comparison leans towards
the other one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from langgraph.checkpoint.base import CheckpointTuple

from langgraph_valkey import ValkeySaver
from langgraph_valkey.local import LocalValkey


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one thread takes.

    Attributes:
        thread: Its id.
        checkpoints: How many it has.
        stored_bytes: What the server says its keys take.
        whole_bytes: What its checkpoints would take, each stored whole.
    """

    thread: str
    checkpoints: int
    stored_bytes: int
    whole_bytes: int


def sizes(valkey: LocalValkey, saver: ValkeySaver, threads: Iterable[str]) -> list[Sizes]:
    """The sizes of threads, in their order; their ids without characters of a glob."""
    return [_sizes(valkey, saver, thread) for thread in threads]


def _sizes(valkey: LocalValkey, saver: ValkeySaver, thread: str) -> Sizes:
    stored = 0
    # A thread's keys share a hash tag: its id. Walking all keys is for small data only.
    keys = valkey.command("KEYS", f"{saver.settings.key_prefix}:{{{thread}}}:*")
    for key in keys if isinstance(keys, list) else []:
        assert isinstance(key, bytes)
        used = valkey.command("MEMORY", "USAGE", key, "SAMPLES", "0")
        stored += used if isinstance(used, int) else 0
    found = list(saver.list({"configurable": {"thread_id": thread}}))
    return Sizes(thread, len(found), stored, sum(_whole(saver, each) for each in found))


def _whole(saver: ValkeySaver, found: CheckpointTuple) -> int:
    values = [found.checkpoint, found.metadata]
    values += [value for _, _, value in found.pending_writes or []]
    return sum(len(saver.serde.dumps_typed(value)[1]) for value in values)
