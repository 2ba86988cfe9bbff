"""Checkpoints: reading and writing them, over any link.

This is the logic of the saver, written once. It decides what to send, reads what
came back and decides what to do next. It knows neither GLIDE nor event loops.

In the steady state each operation is one call. A second one follows only when
the server says that it lacks something the writer relied on: see `Status`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)

from langgraph_valkey import limits, operations, pieces, records
from langgraph_valkey.codec import Codec, Damaged
from langgraph_valkey.errors import (
    CorruptState,
    LanggraphValkeyError,
    ReplayIncomplete,
    ThreadDeleted,
    Unreachable,
)
from langgraph_valkey.keys import ThreadKeys, thread_keys, thread_name, to_text
from langgraph_valkey.known import Base, Known
from langgraph_valkey.link import Call, Link
from langgraph_valkey.operations import Answer, Standing, Status

_ATTEMPTS = 4
"""How often a put is built anew. Each refusal rules itself out for the next try,
so more than this means that others keep deleting the thread."""

_FOREIGN = ("WRONGTYPE", "WrongType", "CORRUPT")
"""Words in a script's error that say: these keys hold something else."""


@dataclass(frozen=True, slots=True)
class Place:
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
class _Draft:
    """A put on its way: what it says, and what of it has to be sent."""

    record: bytes
    base: Base
    plains: dict[bytes, bytes]
    send: list[bytes]
    trusted: bool
    complete: bool


class Checkpoints:
    """Reads and writes checkpoints over a link given with each call."""

    def __init__(
        self,
        codec: Codec,
        known: Known,
        writer: Writer,
        *,
        prefix: str,
        ttl_ms: int | None,
        slide_ttl_on_read: bool,
    ) -> None:
        """Args are as `ValkeySaver` takes them, in this module's units."""
        self.codec = codec
        self.known = known
        self.prefix = prefix
        self._writer = writer
        self._ttl_ms = ttl_ms
        self._slide_ms = ttl_ms if slide_ttl_on_read else None

    def with_codec(self, codec: Codec) -> Checkpoints:
        """The same with another codec."""
        return Checkpoints(
            codec,
            self.known,
            self._writer,
            prefix=self.prefix,
            ttl_ms=self._ttl_ms,
            slide_ttl_on_read=self._slide_ms is not None,
        )

    def place(self, config: RunnableConfig) -> Place:
        """Where a config points.

        Raises:
            ValueError: It names no thread, or not by a string.
        """
        configurable = config.get("configurable") or {}
        if "thread_id" not in configurable:
            raise ValueError(
                "the config names no thread: pass config={'configurable': {'thread_id': '...'}}"
            )
        thread_id = configurable["thread_id"]
        return self.thread_place(
            thread_id, configurable.get("checkpoint_ns"), configurable.get("checkpoint_id") or ""
        )

    def thread_place(
        self, thread_id: Any, namespace: str | None = None, checkpoint_id: str = ""
    ) -> Place:
        """The place of a thread named directly."""
        thread = thread_name(thread_id)
        keys = thread_keys(self.prefix, thread)
        return Place(thread_id, thread, keys, namespace, checkpoint_id)

    async def ask(self, link: Link, place: Place, call: Call) -> Answer:
        """Send one call and read its answer.

        Raises:
            CorruptState: The thread's keys hold something else.
        """
        try:
            return operations.read((await link.send((call,)))[0])
        except LanggraphValkeyError as error:
            said = f"{error} {error.__cause__}"
            if type(error) is LanggraphValkeyError and any(word in said for word in _FOREIGN):
                raise place.corrupt("it holds something else", None, place.keys.state) from error
            raise

    # --- writing ---------------------------------------------------------------

    async def put(
        self,
        link: Link,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; see `BaseCheckpointSaver.put`."""
        place = self.place(config)
        namespace = place.namespace or ""
        entry = self._writer.entry()
        meta = get_checkpoint_metadata(config, metadata)
        standing = self.known.standing(place.thread)
        if not namespace and not place.checkpoint_id:
            # A root begins the thread, and may begin it anew after a deletion.
            standing = Standing(standing.nonce, 0, standing.stamp)
        base = self.known.base(place.thread, namespace)
        draft = self._draft(entry, place, base, checkpoint, meta, new_versions)
        for _ in range(_ATTEMPTS):
            call = operations.put(
                place.keys,
                entry=entry,
                standing=standing,
                ttl_ms=self._ttl_ms,
                namespace=namespace,
                checkpoint_id=checkpoint["id"],
                parent=place.checkpoint_id,
                record=draft.record,
                trusted=draft.trusted,
                complete=draft.complete,
                chunks=draft.send,
            )
            answer = await self.ask(link, place, call)
            if answer.status is Status.OK:
                self.known.learn(place.thread, answer.standing, namespace, draft.base)
                return place.config(namespace, checkpoint["id"])
            if answer.status is Status.MISSING and draft.plains.keys() >= set(answer.rest[0]):
                draft.send += self._sealed(answer.rest[0], draft.plains)
            elif answer.status in (Status.MISSING, Status.RESEND):
                self.known.forget(place.thread)
                standing = Standing(b"", standing.gen, standing.stamp)
                draft = self._draft(entry, place, None, checkpoint, meta, new_versions, base)
            else:
                standing = self._readmitted(place, answer, standing)
        raise self._contended(place)

    def _draft(
        self,
        entry: bytes,
        place: Place,
        base: Base | None,
        checkpoint: Checkpoint,
        metadata: Mapping[str, Any],
        new_versions: ChannelVersions,
        lost: Base | None = None,
    ) -> _Draft:
        """Build a put.

        Args:
            entry: Its writer and sequence number.
            place: Where it goes.
            base: What the server is known to have, or None to send everything.
            checkpoint: As LangGraph gave it.
            metadata: Complete metadata.
            new_versions: Which channels changed since the parent.
            lost: What the server was known to have until it said otherwise.
        """
        body: dict[str, Any] = dict(checkpoint)
        given: Mapping[str, Any] = body.pop("channel_values")
        versions = checkpoint["channel_versions"]
        is_parent = base is not None and base.checkpoint_id == place.checkpoint_id
        values: dict[str, pieces.Value] = {}
        plains: dict[bytes, bytes] = {}
        for name, version in versions.items():
            last = base.values.get(name) if base is not None else None
            if name not in new_versions and is_parent and base is not None:
                if base.versions.get(name) == version:
                    if last is not None:
                        values[name] = last
                    continue
            if name in given:
                values[name], plain = pieces.encode(self.codec, given[name], last)
                plains.update(pieces.chunks(values[name], plain))
            elif lost is not None and name not in new_versions and name in lost.values:
                values[name] = self._at_hand(place, lost, name)
        record = records.build(self.codec, entry, place.checkpoint_id, body, metadata, values)
        at_server = (
            {piece.digest for value in base.values.values() for piece in value.pieces}
            if base is not None
            else set()
        )
        fresh = [digest for digest in plains if digest not in at_server]
        size = sum(piece.size for value in values.values() for piece in value.pieces)
        all_sent = all(
            piece.digest not in at_server for value in values.values() for piece in value.pieces
        )
        return _Draft(
            record,
            Base(checkpoint["id"], dict(versions), values, size),
            plains,
            self._sealed(fresh, plains),
            trusted=is_parent,
            complete=all_sent,
        )

    def _at_hand(self, place: Place, lost: Base, name: str) -> pieces.Value:
        """A value that is not in `channel_values`, though the parent has it.

        So it is with a channel that stores its value now and then
        (`DeltaChannel`). Without it the checkpoint could not be loaded.
        """
        held = lost.values[name]
        if not held.pieces:
            return held
        raise ReplayIncomplete(
            f"thread {place.thread!r} was lost by the server, and with it the last stored "
            f"value of channel {name!r}, which this checkpoint builds upon: run the thread "
            "again from its input",
            thread_ids=[place.thread],
        )

    def _sealed(self, digests: Sequence[bytes], plains: Mapping[bytes, bytes]) -> list[bytes]:
        out: list[bytes] = []
        for digest in digests:
            out += (digest, self.codec.seal(plains[digest], compress_from=limits.COMPRESS_CHUNK_BYTES))
        return out

    def _readmitted(self, place: Place, answer: Answer, standing: Standing) -> Standing:
        """With what standing to ask again after a refusal, if at all."""
        if answer.status is Status.DELETED:
            self.known.forget(place.thread)
            self.known.learn(place.thread, answer.standing)
            raise ThreadDeleted(
                f"thread {place.thread!r} was deleted while this run was in the middle of it, so "
                "its write was not stored: start the thread anew",
                thread_id=place.thread,
            )
        if answer.status is Status.STALE:
            return Standing(standing.nonce, standing.gen, answer.standing.stamp)
        raise place.corrupt(f"unexpected answer {answer.status.name}", None, place.keys.state)

    def _contended(self, place: Place) -> Unreachable:
        return Unreachable(
            f"thread {place.thread!r} kept changing under this write, which was not stored: "
            "call again"
        )

    async def put_writes(
        self,
        link: Link,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Store a task's writes; see `BaseCheckpointSaver.put_writes`."""
        place = self.place(config)
        if not place.checkpoint_id:
            raise ValueError("the config names no checkpoint_id, so there is nothing to write on")
        if not writes:
            return
        entry = self._writer.entry()
        stored = records.build_writes(self.codec, writes, task_id, task_path)
        standing = self.known.standing(place.thread)
        for _ in range(_ATTEMPTS):
            call = operations.put_writes(
                place.keys,
                entry=entry,
                standing=standing,
                ttl_ms=self._ttl_ms,
                namespace=place.namespace or "",
                checkpoint_id=place.checkpoint_id,
                writes=stored,
            )
            answer = await self.ask(link, place, call)
            if answer.status is Status.OK:
                self.known.learn(place.thread, answer.standing)
                return
            standing = self._readmitted(place, answer, standing)
        raise self._contended(place)

    async def delete_thread(self, link: Link, thread_id: str) -> None:
        """Delete a thread; see `BaseCheckpointSaver.delete_thread`."""
        place = self.thread_place(thread_id)
        answer = await self.ask(link, place, operations.delete(place.keys))
        self.known.forget(place.thread)
        self.known.learn(place.thread, answer.standing)

    # --- reading ---------------------------------------------------------------

    async def get_tuple(self, link: Link, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint; see `BaseCheckpointSaver.get_tuple`."""
        place = self.place(config)
        namespace = place.namespace or ""
        base = self.known.base(place.thread, namespace)
        call = operations.get(
            place.keys,
            namespace,
            place.checkpoint_id,
            slide_ttl_ms=self._slide_ms,
            size=base.size if base is not None else 0,
        )
        answer = await self.ask(link, place, call)
        if answer.status is Status.NONE:
            self.known.learn(place.thread, answer.standing)
            return None
        self.require(place, answer)
        raw_id, record, chunks, writes = answer.rest
        parsed = self.parsed(place, to_text(raw_id), record)
        stored = dict(zip(parsed.digests, chunks, strict=False))
        found, base = self.load(place, namespace, to_text(raw_id), parsed, stored, writes)
        self.known.learn(place.thread, answer.standing, namespace, base)
        return found._replace(config=config) if place.checkpoint_id else found

    def require(self, place: Place, answer: Answer) -> None:
        """Raise unless the answer holds what was asked for."""
        if answer.status is Status.TORN:
            raise place.corrupt(
                "a part of it is gone, evicted or lost by the server", None, place.keys.state
            )
        if answer.status is not Status.OK:
            raise place.corrupt(f"unexpected answer {answer.status.name}", None, place.keys.state)

    def parsed(self, place: Place, checkpoint_id: str, raw: bytes) -> records.Record:
        """Take a record apart, or say where it is damaged."""
        try:
            return records.parse(self.codec, raw)
        except Damaged as damage:
            raise place.corrupt(str(damage), checkpoint_id, place.keys.state) from damage

    def load(
        self,
        place: Place,
        namespace: str,
        checkpoint_id: str,
        record: records.Record,
        chunks: Mapping[bytes, bytes | None],
        writes: list[bytes],
    ) -> tuple[CheckpointTuple, Base]:
        """A checkpoint as LangGraph takes it, and what is now known of it.

        Raises:
            CorruptState: Part of it is missing or damaged.
        """
        codec = self.codec
        values: dict[str, Any] = {}
        kept: dict[str, pieces.Value] = {}
        try:
            for entry in record.manifest:
                name = entry[0]
                values[name], kept[name] = records.load_value(codec, record, entry, chunks)
            checkpoint = records.load_checkpoint(codec, record)
            metadata = codec.open_typed(record.metadata)
            pending = records.load_writes(codec, records.merge_writes(codec, writes))
        except Damaged as damage:
            raise place.corrupt(str(damage), checkpoint_id, place.keys.state) from damage
        checkpoint["channel_values"] = values
        found = CheckpointTuple(
            config=place.config(namespace, checkpoint_id),
            checkpoint=cast(Checkpoint, checkpoint),
            metadata=metadata,
            parent_config=place.config(namespace, record.parent) if record.parent else None,
            pending_writes=pending,
        )
        size = sum(piece.size for value in kept.values() for piece in value.pieces)
        # A copy: the caller may change the checkpoint it gets.
        versions = dict(checkpoint["channel_versions"])
        return found, Base(checkpoint_id, versions, kept, size)

    async def pages(
        self,
        link: Link,
        place: Place,
        what: str,
        *,
        before: str = "",
        limit: int = limits.WALK_PAGE,
        ascending: bool = False,
    ) -> AsyncIterator[tuple[list[Any], dict[bytes, bytes]]]:
        """Walk over a thread's checkpoints; `what` and the order are as of ``page.lua``.

        Yields:
            The items of a page (namespace, id, and what was asked for, in turn),
            and its chunks by digest.
        """
        cursor = ("", "")
        while True:
            call = operations.page(
                place.keys,
                what,
                namespace=place.namespace,
                after=cursor,
                before=before,
                only=place.checkpoint_id,
                limit=limit,
                ascending=ascending,
            )
            answer = await self.ask(link, place, call)
            if answer.status is Status.NONE:
                return
            if answer.status is Status.UNORDERED:
                await self.ask(link, place, operations.mend(place.keys))
                continue
            self.require(place, answer)
            ordinal, after, items, (digests, chunks) = answer.rest
            yield items, dict(zip(digests, chunks, strict=True))
            if not ordinal:
                return
            cursor = (to_text(ordinal), to_text(after))
