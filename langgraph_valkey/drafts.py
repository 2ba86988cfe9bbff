"""Building a put: what a checkpoint's record says, and which chunks must be sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from langgraph_valkey import limits
from langgraph_valkey.errors import ReplayIncomplete
from langgraph_valkey.known import Base
from langgraph_valkey.operations import Stored
from langgraph_valkey.stored import pieces, records
from langgraph_valkey.stored.codec import Codec


class Writer:
    """Numbers the writes of one process, so that a late one is known as such."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._name = os.urandom(8)
        self._last = 0

    @property
    def name(self) -> bytes:
        """This process, as its entries name it: 8 bytes."""
        if os.getpid() != self._pid:
            self._begin()  # A forked child is another writer.
        return self._name

    def entry(self) -> bytes:
        """Writer and the next sequence number, 16 bytes."""
        if os.getpid() != self._pid:
            self._begin()
        self._last = number = self._last + 1
        return self._name + number.to_bytes(8, "big")


@dataclass(slots=True)
class Draft:
    """A put on its way.

    Attributes:
        stored: What is sent.
        base: What will be known of the thread once it is taken.
        sources: The values that were serialized for it.
    """

    stored: Stored
    base: Base
    sources: list[pieces.Encoded]

    def add(self, codec: Codec, missing: Iterable[bytes]) -> bool:
        """Send these chunks as well; False if one of them was not serialized."""
        at_hand = dict(chunk for source in self.sources for chunk in pieces.chunks(source))
        wanted = set(missing)
        _send(codec, self.stored.chunks, [(d, at_hand[d]) for d in wanted if d in at_hand])
        return wanted <= at_hand.keys()


def build(
    codec: Codec,
    entry: bytes,
    thread: str,
    parent: str,
    checkpoint: Checkpoint,
    metadata: Mapping[str, Any],
    new_versions: ChannelVersions,
    is_root: bool,
    base: Base | None,
    lost: Base | None = None,
) -> Draft:
    """Build a put.

    A channel is serialized if it changed or the parent is not known here; else it is
    taken over, also when it is not in `channel_values` (a delta channel's snapshot).

    Args:
        codec: The saver's.
        entry: Writer and sequence number.
        thread: Its name, for errors.
        parent: The parent's id, or ''.
        checkpoint: As LangGraph gave it.
        metadata: Complete metadata.
        new_versions: Which channels changed since the parent.
        is_root: Whether it begins its thread.
        base: A checkpoint the server is known to have, or None to send everything.
        lost: What it was known to have until it said otherwise.

    Raises:
        ReplayIncomplete: The server lost a value that is not in the checkpoint.
    """
    body: dict[str, Any] = dict(checkpoint)
    given: Mapping[str, Any] = body.pop("channel_values")
    versions = checkpoint["channel_versions"]
    heir = base if base is not None and base.checkpoint_id == parent else None
    values: dict[str, pieces.Value] = {}
    sources: list[pieces.Encoded] = []
    chunks: list[bytes] = []
    for name, version in versions.items():
        if heir is not None and name not in new_versions and heir.versions.get(name) == version:
            if name in heir.values:
                values[name] = heir.values[name]
        elif name in given:
            last = base.values.get(name) if base is not None else None
            source = pieces.encode(codec, given[name], last)
            values[name] = source.value
            sources.append(source)
            _send(codec, chunks, source.named)
        elif lost is not None and name not in new_versions and name in lost.values:
            values[name] = _inline_only(thread, name, lost.values[name])
    stored = Stored(
        record=records.build(codec, entry, parent, body, metadata, values),
        chunks=chunks,
        trusted=heir.entry if heir is not None else bytes(16),
        complete=base is None,
        root=is_root,
        leans=_leans(metadata, versions, values),
    )
    return Draft(stored, Base(checkpoint["id"], entry, dict(versions), values), sources)


def _leans(
    metadata: Mapping[str, Any], versions: Mapping[str, Any], values: Mapping[str, Any]
) -> bool:
    """Whether a delta channel has to be rebuilt from the ancestors."""
    deltas = metadata.get("counters_since_delta_snapshot") or ()
    return any(name in versions and name not in values for name in deltas)


def _send(codec: Codec, chunks: list[bytes], named: Iterable[tuple[bytes, bytes]]) -> None:
    """Add chunks to what is sent."""
    for digest, body in named:
        chunks.append(digest + codec.seal(body, compress_from=limits.COMPRESS_CHUNK_BYTES))


def needs_parent(
    parent: str, checkpoint: Checkpoint, new_versions: ChannelVersions, base: Base | None
) -> bool:
    """Whether a put leaves out values that its parent, not known here, may have."""
    if not parent or (base is not None and base.checkpoint_id == parent):
        return False
    given = checkpoint["channel_values"]
    return any(n not in given and n not in new_versions for n in checkpoint["channel_versions"])


def _inline_only(thread: str, name: str, value: pieces.Value) -> pieces.Value:
    """A value that is not in `channel_values`, though the parent had it."""
    if not value.pieces:
        return value
    raise ReplayIncomplete(
        f"thread {thread!r} was lost by the server, and with it the last stored value of "
        f"channel {name!r}, which this checkpoint builds upon: run the thread again from its "
        "input",
        thread_ids=[thread],
    )
