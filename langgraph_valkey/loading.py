"""From what was read to what LangGraph takes; damage is told with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple

from langgraph_valkey.place import Place
from langgraph_valkey.stored import records, writes
from langgraph_valkey.stored.codec import Codec, Damaged


def parsed(codec: Codec, place: Place, checkpoint_id: str, raw: bytes) -> records.Record:
    """Take a record apart, or say where it is damaged."""
    try:
        return records.parse(codec, raw)
    except Damaged as damage:
        raise place.corrupt(str(damage), checkpoint_id, place.keys.state) from damage


def load(
    codec: Codec,
    place: Place,
    namespace: str,
    checkpoint_id: str,
    record: records.Record,
    chunks: Mapping[bytes, bytes | None],
    stored_writes: tuple[bytes, Sequence[bytes | None]],
) -> tuple[CheckpointTuple, list[records.Loaded]]:
    """A checkpoint as LangGraph takes it, and its values as they were read.

    Raises:
        CorruptState: Part of it is missing or damaged.
    """
    try:
        read = [records.load_value(codec, record, at, chunks) for at in record.manifest]
        checkpoint = records.load_checkpoint(codec, record)
        metadata = records.load_metadata(codec, record.metadata)
        pending = writes.load(codec, writes.merge(codec, *stored_writes))
    except Damaged as damage:
        raise place.corrupt(str(damage), checkpoint_id, place.keys.state) from damage
    try:
        checkpoint["channel_values"] = {
            entry[0]: codec.loads(kind, plain)
            for entry, (kind, plain, _, _) in zip(record.manifest, read, strict=True)
        }
    except ValueError as error:
        why = "one of its values can't be deserialized"
        raise place.corrupt(why, checkpoint_id, place.keys.state) from error
    found = CheckpointTuple(
        config=place.config(namespace, checkpoint_id),
        checkpoint=cast(Checkpoint, checkpoint),
        metadata=cast(CheckpointMetadata, metadata),
        parent_config=place.config(namespace, record.parent) if record.parent else None,
        pending_writes=pending,
    )
    return found, read
