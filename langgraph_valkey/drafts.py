"""Building a put: what a checkpoint's record says, and which chunks must be sent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from langgraph_valkey import limits, pieces, records
from langgraph_valkey.codec import Codec
from langgraph_valkey.errors import ReplayIncomplete
from langgraph_valkey.known import Base
from langgraph_valkey.operations import Stored


class Writer:
    """Numbers the writes of one process, so that a late one is known as such."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._name = os.urandom(8)
        self._last = 0

    def entry(self) -> bytes:
        """Writer and the next sequence number, 16 bytes."""
        if os.getpid() != self._pid:
            self._begin()  # A forked child is another writer.
        self._last = number = self._last + 1
        return self._name + number.to_bytes(8, "big")


@dataclass(slots=True)
class Draft:
    """A put on its way.

    Attributes:
        stored: What is sent.
        base: What will be known of the thread once it is taken.
        sources: Values that were serialized for it, with their bytes.
    """

    stored: Stored
    base: Base
    sources: list[tuple[pieces.Value, bytes]]

    def add(self, codec: Codec, missing: Iterable[bytes]) -> bool:
        """Send these chunks as well; False if one of them was not serialized."""
        wanted = set(missing)
        chunks = _sealed(codec, self.sources, wanted)
        self.stored.chunks.extend(chunks)
        return len(chunks) == 2 * len(wanted)


def build(
    codec: Codec,
    entry: bytes,
    thread: str,
    parent: str,
    checkpoint: Checkpoint,
    metadata: Mapping[str, Any],
    new_versions: ChannelVersions,
    base: Base | None,
    lost: Base | None = None,
) -> Draft:
    """Build a put.

    A channel is serialized if it changed; else it is taken over from the parent,
    also when it is not in `channel_values` (so it is with a delta channel's last
    snapshot). Without a parent known here all that is given is serialized.

    Args:
        codec: The saver's.
        entry: Writer and sequence number.
        thread: The thread's name, for errors.
        parent: The parent's id, or ''.
        checkpoint: As LangGraph gave it.
        metadata: Complete metadata.
        new_versions: Which channels changed since the parent.
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
    sources: list[tuple[pieces.Value, bytes]] = []
    for name, version in versions.items():
        if heir is not None and name not in new_versions and heir.versions.get(name) == version:
            if name in heir.values:
                values[name] = heir.values[name]
        elif name in given:
            last = base.values.get(name) if base is not None else None
            source = pieces.encode(codec, given[name], last)
            values[name] = source[0]
            sources.append(source)
        elif lost is not None and name not in new_versions and name in lost.values:
            values[name] = _inline_only(thread, name, lost.values[name])
    digests = frozenset(p.digest for value in values.values() for p in value.pieces)
    fresh = digests - base.digests if base is not None else digests
    stored = Stored(
        parent=parent,
        record=records.build(codec, entry, parent, body, metadata, values),
        chunks=_sealed(codec, sources, fresh) if fresh else [],
        trusted=heir is not None,
        complete=len(fresh) == len(digests),
    )
    return Draft(stored, Base(checkpoint["id"], dict(versions), values, digests), sources)


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


def _sealed(
    codec: Codec, sources: Iterable[tuple[pieces.Value, bytes]], wanted: Iterable[bytes]
) -> list[bytes]:
    """Digest and stored chunk, in turn, of those wanted and at hand."""
    left = set(wanted)
    out: list[bytes] = []
    for value, plain in sources:
        if left and any(piece.digest in left for piece in value.pieces):
            for digest, body in pieces.chunks(value, plain, left):
                out += (digest, codec.seal(body, compress_from=limits.COMPRESS_CHUNK_BYTES))
                left.discard(digest)
    return out
