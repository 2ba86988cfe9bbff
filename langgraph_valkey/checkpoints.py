"""Checkpoints: reading and writing them, over any link.

This is the logic of the saver, written once. It decides what to send, reads what
came back and decides what to do next. It knows neither GLIDE nor event loops.

In the steady state each operation is one call. A second one follows only when
the server says that it lacks something the writer relied on: see `Status`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)

from langgraph_valkey import drafts, limits, loading, operations
from langgraph_valkey.errors import (
    LanggraphValkeyError,
    ReplayIncomplete,
    ThreadDeleted,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.keys import to_text
from langgraph_valkey.known import Base, Known
from langgraph_valkey.link import Call, Link
from langgraph_valkey.operations import Answer, Standing, Status
from langgraph_valkey.place import Place, place_of, place_of_thread
from langgraph_valkey.stored import records, writes
from langgraph_valkey.stored.codec import Codec

_ATTEMPTS = 4
"""How often a write is built anew. Each refusal rules itself out for the next try,
so more than this means that others keep deleting the thread."""

_FOREIGN = ("WRONGTYPE", "WrongType", "CORRUPT")
"""Words in a script's error that say: these keys hold something else."""


class Checkpoints:
    """Reads and writes checkpoints over a link given with each call."""

    def __init__(
        self,
        codec: Codec,
        known: Known,
        writer: drafts.Writer,
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

    async def _ask_patiently(
        self, link: Link, place: Place, call: Call, standing: Standing
    ) -> Answer:
        """Ask for a write that may be ahead of its thread's root.

        LangGraph stores writes, and a subgraph's checkpoints, beside the put of the
        root. Where the thread was deleted before, only the root may begin it anew.
        """
        pause_s = limits.ROOT_PAUSE_FIRST_S
        while True:
            answer = await self.ask(link, place, call)
            if answer.status is not Status.DELETED or standing.gen != Standing().gen:
                return answer
            if pause_s > limits.ROOT_PAUSE_MOST_S:
                return answer
            await link.sleep(pause_s)
            pause_s *= 2

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
        place = place_of(self.prefix, config)
        namespace = place.namespace or ""
        at = place._replace(checkpoint_id=checkpoint["id"])
        base = self.known.base(place.thread, namespace)
        if drafts.needs_parent(place.checkpoint_id, checkpoint, new_versions, base):
            # What is not in the checkpoint is the parent's: ask what that has.
            await self.get_tuple(link, place.config(namespace, place.checkpoint_id))
            base = self.known.base(place.thread, namespace)
        standing = self.known.standing(place.thread)
        is_root = not namespace and not place.checkpoint_id
        if is_root:
            # A root begins the thread, and may begin it anew after a deletion.
            standing = standing._replace(gen=Standing().gen)
        entry = self._writer.entry()
        draft_of = partial(
            drafts.build,
            self.codec,
            entry,
            place.thread,
            place.checkpoint_id,
            checkpoint,
            get_checkpoint_metadata(config, metadata),
            new_versions,
            is_root,
        )
        draft = draft_of(base)
        for _ in range(_ATTEMPTS):
            call = self._put_call(at, entry, draft.stored, standing)
            answer = await self._ask_patiently(link, place, call, standing)
            if answer.status is Status.OK:
                self.known.learn(place.thread, answer.standing, namespace, draft.base)
                return place.config(namespace, checkpoint["id"])
            if answer.status is Status.MISSING and draft.add(self.codec, answer.rest[0]):
                continue
            if answer.status is Status.MISSING or (
                answer.status is Status.RESEND and (not namespace or answer.standing.exists)
            ):
                self.known.forget(place.thread)
                standing = standing._replace(nonce=Standing().nonce)
                draft = draft_of(None, base)
            else:
                standing = self._readmitted(place, answer, standing)
        raise self._contended(place)

    def _put_call(
        self, place: Place, entry: bytes, stored: operations.Stored, standing: Standing
    ) -> Call:
        where = place.keys, entry, self._ttl_ms, place.namespace or "", place.checkpoint_id
        return operations.put(*where, stored, standing)

    def record_builder(
        self, place: Place, record: bytes, chunks: list[bytes]
    ) -> Callable[[Standing], Call]:
        """How to store a record as it is, under a number of this writer's.

        Args:
            place: Where it goes.
            record: A record.
            chunks: Digest and stored chunk, joined, of those not there yet.
        """
        entry = self._writer.entry()
        stored = operations.Stored(
            records.reentered(record, entry),
            chunks,
            trusted=bytes(16),
            complete=True,
            root=True,
            leans=False,
        )
        return partial(self._put_call, place, entry, stored)

    def writes_builder(self, place: Place, stored: bytes) -> Callable[[Standing], Call]:
        """How to store a task's writes in the form of `writes.build`."""
        entry = self._writer.entry()
        where = place.keys, entry, self._ttl_ms, place.namespace or "", place.checkpoint_id
        return partial(operations.put_writes, *where, stored)

    async def store(self, link: Link, place: Place, build: Callable[[Standing], Call]) -> None:
        """Send a write that is complete in itself, until it is taken.

        Raises:
            ThreadDeleted: The thread was deleted meanwhile.
        """
        standing = self.known.standing(place.thread)
        for _ in range(_ATTEMPTS):
            answer = await self._ask_patiently(link, place, build(standing), standing)
            if answer.status is Status.OK:
                self.known.learn(place.thread, answer.standing)
                return
            standing = self._readmitted(place, answer, standing)
        raise self._contended(place)

    async def store_all(
        self, link: Link, place: Place, builds: Sequence[Callable[[Standing], Call]]
    ) -> None:
        """Send such writes in one go, the first of them ahead; they arrive in order."""
        if not builds:
            return
        await self.store(link, place, builds[0])
        standing = self.known.standing(place.thread)
        calls = [build(standing) for build in builds[1:]]
        largest = max((call.size for call in calls), default=0)
        for call in calls:
            call.size = largest  # One connection: others would overtake each other.
        for reply in await link.send(calls) if calls else ():
            answer = operations.read(reply)
            if answer.status is not Status.OK:
                self._readmitted(place, answer, standing)
                raise self._contended(place)

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
        if answer.status is Status.RESEND and answer.standing.exists:
            return answer.standing  # Made anew by another writer, whole.
        if answer.status is Status.STALE:
            return standing._replace(stamp=answer.standing.stamp)
        if answer.status in (Status.RESEND, Status.ORPHAN):
            self.known.forget(place.thread)
            raise ReplayIncomplete(
                f"thread {place.thread!r}, or the part of it that this run builds upon, is gone "
                "from the server (expired, evicted or lost at a failover), so its write was not "
                "stored: run the thread again from its input",
                thread_ids=[place.thread],
            )
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
        pending: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Store a task's writes; see `BaseCheckpointSaver.put_writes`."""
        place = place_of(self.prefix, config)
        if not place.checkpoint_id:
            raise ValueError("the config names no checkpoint_id, so there is nothing to write on")
        if pending:
            stored = writes.build(self.codec, pending, task_id, task_path)
            await self.store(link, place, self.writes_builder(place, stored))

    async def delete_thread(self, link: Link, thread_id: str) -> None:
        """Delete a thread; see `BaseCheckpointSaver.delete_thread`."""
        place = place_of_thread(self.prefix, thread_id)
        standing = self.known.standing(place.thread)
        for _ in range(_ATTEMPTS):
            answer = await self.ask(link, place, operations.delete(place.keys, standing))
            if answer.status is Status.OK:
                self.known.forget(place.thread)
                self.known.learn(place.thread, answer.standing)
                return
            standing = answer.standing
        raise self._contended(place)

    # --- reading ---------------------------------------------------------------

    async def get_tuple(self, link: Link, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint; see `BaseCheckpointSaver.get_tuple`."""
        place = place_of(self.prefix, config)
        namespace = place.namespace or ""
        base = self.known.base(place.thread, namespace)
        call = partial(
            operations.get,
            place.keys,
            namespace,
            place.checkpoint_id,
            believed=base.checkpoint_id if base is not None else "",
            size=base.size if base is not None else 0,
        )
        try:
            answer = await self.ask(link, place, call(slide_ttl_ms=self._slide_ms))
        except WriteRejected:
            if not self._slide_ms:
                raise
            answer = await self.ask(link, place, call())  # Reads go on.
        if answer.status is Status.NONE:
            self.known.learn(place.thread, answer.standing)
            return None
        self.require(place, answer)
        raw_id, record, entries, values = answer.rest
        checkpoint_id = to_text(raw_id)
        parsed = loading.parsed(self.codec, place, checkpoint_id, record)
        digests = parsed.digests
        chunks = dict(zip(digests, values, strict=False))
        pending = entries, values[len(digests) :]
        found, loaded = loading.load(
            self.codec, place, namespace, checkpoint_id, parsed, chunks, pending
        )
        entry = records.entry_of(record)
        if base is None or base.checkpoint_id != checkpoint_id or base.entry != entry:
            stored = {
                about[0]: records.as_stored(parsed, about, value)
                for about, value in zip(parsed.manifest, loaded, strict=True)
            }
            # A copy of the versions: the caller may change the checkpoint it gets.
            base = Base(checkpoint_id, entry, dict(found.checkpoint["channel_versions"]), stored)
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
            ordinal, after, digests, chunks, items = answer.rest
            yield items, dict(zip(digests, chunks, strict=True))
            if not ordinal:
                return
            cursor = (to_text(ordinal), to_text(after))
