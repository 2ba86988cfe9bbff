"""Checkpoints: reading and writing them, over any link.

This is the logic of the saver, written once. It decides what to send, reads what
came back and decides what to do next. It knows neither GLIDE nor event loops.

In the steady state each operation is one call. A second one follows only when
the server says that it lacks something the writer relied on: see `Status`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
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

from langgraph_valkey import drafts, limits, loading, operations, reads, storing
from langgraph_valkey.errors import (
    LanggraphValkeyError,
    ReplayIncomplete,
    ThreadDeleted,
    WriteRejected,
)
from langgraph_valkey.keys import namespace_field, to_text
from langgraph_valkey.known import Base, Known
from langgraph_valkey.link import Call, Link
from langgraph_valkey.loss_window.entries import DELETE, PUT, WRITES
from langgraph_valkey.loss_window.recovering import not_yet
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Answer, Standing, Status
from langgraph_valkey.place import Place, place_of, place_of_thread, raise_if_unexpected
from langgraph_valkey.stored import records, writes
from langgraph_valkey.stored.codec import Codec
from langgraph_valkey.storing import Write

_FOREIGN = ("WRONGTYPE", "WrongType", "CORRUPT")
"""Words in a script's error that say: these keys hold something else."""


class Checkpoints:
    """Reads and writes checkpoints over a link given with each call."""

    def __init__(
        self,
        codec: Codec,
        known: Known,
        writer: drafts.Writer,
        window: LossWindow,
        *,
        prefix: str,
        ttl_ms: int | None,
        slide_ttl_on_read: bool,
    ) -> None:
        """Args are as `ValkeySaver` takes them, in this module's units."""
        self.codec = codec
        self.known = known
        self.prefix = prefix
        self.writer = writer
        self.window = window
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

    async def read(self, link: Link, place: Place, call: Call) -> Answer:
        """Ask for something, until the answer holds all that this process knows of.

        After a failover that is once what was lost has been replayed.
        """
        self.window.recoveries.raise_fork(place.thread)
        known = self.known.standing(place.thread)
        tries = 0
        while True:
            sent_s = link.now()
            answer = await self.ask(link, place, call)
            where = place.thread, place.keys
            if not await not_yet(self.window, link, *where, answer, known, tries, sent_s):
                return answer
            tries += 1

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
        is_root = not namespace and not place.checkpoint_id
        number = self.writer.entry()
        draft_of = partial(
            drafts.build,
            self.codec,
            number,
            place.thread,
            place.checkpoint_id,
            checkpoint,
            get_checkpoint_metadata(config, metadata),
            new_versions,
            is_root,
        )
        draft = draft_of(base)

        def build(standing: Standing, primary: bytes) -> Call:
            return self._put_call(at, number, draft.stored, standing, primary)

        async def readmit(answer: Answer, standing: Standing) -> Standing:
            nonlocal draft
            if answer.status is Status.MISSING and draft.add(self.codec, answer.rest[0]):
                return standing
            if answer.status is Status.RESEND and draft.stored.leans:
                # The ancestors may be there, without what this run wrote on them.
                answer = answer._replace(standing=Standing())
            elif answer.status is Status.MISSING or (
                answer.status is Status.RESEND and (not namespace or answer.standing.exists)
            ):
                self.known.forget(place.thread)
                draft = draft_of(None, base)
                return standing._replace(nonce=Standing().nonce)
            return await self.readmit(place, answer, standing)

        write = Write(number, PUT, build, readmit, namespace_field(namespace))
        standing = self.known.standing(place.thread)
        if is_root:
            # A root begins the thread, and may begin it anew after a deletion.
            standing = standing._replace(gen=Standing().gen)
        answer = await storing.store(self, link, place, write, standing)
        self.known.learn(place.thread, answer.standing, namespace, draft.base)
        return place.config(namespace, checkpoint["id"])

    def _put_call(
        self,
        place: Place,
        number: bytes,
        stored: operations.Stored,
        standing: Standing,
        primary: bytes,
    ) -> Call:
        where = place.keys, number, self._ttl_ms, place.namespace or "", place.checkpoint_id
        return operations.put(*where, stored, standing, primary)

    def record_write(
        self, place: Place, record: bytes, chunks: list[bytes], number: bytes = b""
    ) -> Write:
        """How to store a record as it is.

        Args:
            place: Where it goes.
            record: A record.
            chunks: Digest and stored chunk, joined, of those not there yet.
            number: Under which number; under the next of this writer's if not given.
        """
        number = number or self.writer.entry()
        stored = operations.Stored(
            records.reentered(record, number),
            chunks,
            trusted=bytes(16),
            complete=True,
            root=True,
            leans=False,
        )
        build = partial(self._put_call, place, number, stored)
        namespace = namespace_field(place.namespace or "")
        return Write(number, PUT, build, partial(self.readmit, place), namespace)

    def task_write(self, place: Place, stored: bytes, number: bytes = b"") -> Write:
        """How to store a task's writes in the form of `writes.build`; see `record_write`."""
        number = number or self.writer.entry()
        where = place.keys, number, self._ttl_ms, place.namespace or "", place.checkpoint_id
        build = partial(operations.put_writes, *where, stored)
        return Write(number, WRITES, build, partial(self.readmit, place))

    async def store(self, link: Link, place: Place, write: Write) -> None:
        """Send a write that is complete in itself, until it is taken.

        Raises:
            ThreadDeleted: The thread was deleted meanwhile.
        """
        standing = self.known.standing(place.thread)
        answer = await storing.store(self, link, place, write, standing)
        self.known.learn(place.thread, answer.standing)

    async def store_all(self, link: Link, place: Place, writes: Sequence[Write]) -> None:
        """Send such writes in one go, the first of them ahead; they arrive in order."""
        if writes:
            await self.store(link, place, writes[0])
            standing = self.known.standing(place.thread)
            rest = [storing.Sent(place, write, standing) for write in writes[1:]]
            await storing.store_together(self, link, rest)

    async def readmit(self, place: Place, answer: Answer, standing: Standing) -> Standing:
        """With what standing to ask again after a refusal, if at all.

        Raises:
            ThreadDeleted, ReplayIncomplete, CorruptState: There is no point in it.
        """
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
            await self.store(link, place, self.task_write(place, stored))

    async def delete_thread(self, link: Link, thread_id: str) -> bytes:
        """Delete a thread; see `BaseCheckpointSaver.delete_thread`.

        Returns:
            The stamp of the deletion, 16 digits: of what was begun before, nothing is left.
        """
        place = place_of_thread(self.prefix, thread_id)

        async def readmit(answer: Answer, _: Standing) -> Standing:
            return answer.standing

        build = partial(operations.delete, place.keys)
        write = Write(self.writer.entry(), DELETE, build, readmit)
        answer = await storing.store(self, link, place, write, self.known.standing(place.thread))
        self.known.forget(place.thread)
        self.known.learn(place.thread, answer.standing)
        return b"%016d" % (int(answer.standing.stamp) - 1)  # The answer is what comes after it.

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
            answer = await self.read(link, place, call(slide_ttl_ms=self._slide_ms))
        except WriteRejected:
            if not self._slide_ms:
                raise
            answer = await self.read(link, place, call())  # Reads go on.
        if answer.status is Status.NONE:
            self.known.learn(place.thread, answer.standing)
            raise_if_unexpected(config, place, None)
            return None
        self.require(place, answer)
        raw_id, record, entries, values, deadline_ms = answer.rest
        checkpoint_id = to_text(raw_id)
        parsed = loading.parsed(self.codec, place, checkpoint_id, record)
        digests = parsed.digests
        chunks = dict(zip(digests, values, strict=False))
        pending = entries, values[len(digests) :]
        found, loaded = loading.load(
            self.codec, place, namespace, checkpoint_id, parsed, chunks, pending
        )
        entry = records.entry_of(record)
        seen = [reads.Found(raw_id, record, chunks, *pending, base)]
        about = self.window, self.writer.name, place, answer, deadline_ms, namespace
        reads.note(*about, seen, link.now())
        if base is None or base.checkpoint_id != checkpoint_id or base.entry != entry:
            stored = {
                about[0]: records.as_stored(parsed, about, value)
                for about, value in zip(parsed.manifest, loaded, strict=True)
            }
            # A copy of the versions: the caller may change the checkpoint it gets.
            base = Base(checkpoint_id, entry, dict(found.checkpoint["channel_versions"]), stored)
        self.known.learn(place.thread, answer.standing, namespace, base)
        raise_if_unexpected(config, place, found)
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
            answer = await self.read(link, place, call)
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
