"""Threads of ours, on a Valkey cluster: by their values, or as they are stored.

From one cluster to another they are carried as they are stored: records, chunks and
writes, each under the number that its writer gave it. That needs neither their classes
nor, where they are encrypted, the keys; and what is sent twice is stored once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple, cast

from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_valkey import drafts, limits, listing, operations
from langgraph_valkey.boundary.carrying import Cargo, Side, look
from langgraph_valkey.checkpoints import Checkpoints
from langgraph_valkey.keys import namespace_field, namespace_of, to_bytes, to_text
from langgraph_valkey.link import Call, Link, finish, finish_each
from langgraph_valkey.moving.cargo import Address, address_of
from langgraph_valkey.moving.homes import SaverHome
from langgraph_valkey.operations import ANYONE, Answer, Standing, Status
from langgraph_valkey.place import Place, place_of_thread
from langgraph_valkey.saver import ValkeySaver
from langgraph_valkey.settings import Settings
from langgraph_valkey.stored import records, writes
from langgraph_valkey.stored.codec import Damaged
from langgraph_valkey.storing import Write


class _Open(ValkeySaver):
    """A saver, with its parts at hand."""

    @property
    def core(self) -> Checkpoints:
        """The logic."""
        return self._core

    @property
    def link(self) -> Link:
        """The blocking link."""
        return self._blocking


class RawCargo(NamedTuple):
    """A checkpoint as it is stored.

    Attributes:
        at: Where it is within the thread.
        record: The record.
        chunks: Digest and stored chunk of all that the record refers to.
        writes: Number and stored form of each call that wrote on it, in the order in
            which they count.
    """

    at: Address
    record: bytes
    chunks: Mapping[bytes, bytes]
    writes: tuple[tuple[bytes, bytes], ...]


class OurHome(SaverHome):
    """Threads on a cluster, by their values.

    Args:
        settings: Where it is.
        serde: By what values are stored.
        writes: Whether threads are going to be written: then what is written is kept
            until it is durable.
    """

    def __init__(self, settings: Settings, serde: SerializerProtocol, *, writes: bool) -> None:
        if not writes:
            alone = {"replay": False, "spool_dir": None, "aws_replication_group": None}
            settings = settings.model_copy(update=alone)
        hosts = ",".join(f"{host}:{port}" for host, port in settings.addresses)
        scheme = "valkeys" if settings.tls else "valkey"
        at = f"{hosts}/{settings.database}" if settings.database else hosts
        name = f"{scheme}://{at} ({settings.key_prefix})"
        self._open = _Open(settings, serde=serde)
        super().__init__(self._open, name, f"valkey {sorted(settings.addresses)} {name}")
        self.settings = settings
        self.closing.callback(self._open.close)

    def unsettled(self) -> int:
        """See `Home.unsettled`."""
        return self._open.health().journal_entries

    def place(self, thread: str, namespace: str | None = None, checkpoint_id: str = "") -> Place:
        """Where something of a thread is."""
        return place_of_thread(self._open.core.prefix, thread, namespace, checkpoint_id)

    def threads(self) -> Iterator[str]:
        """See `Home.threads`."""
        walk = listing.threads(self._open.core, self._open.link)
        for place in finish_each(cast(AsyncGenerator[Place, None], walk)):
            yield place.thread

    def addresses(self, thread: str) -> list[Address]:
        """See `Home.addresses`."""
        pages = self._pages(self.place(thread), "ids", limits.WALK_PAGE)
        return [
            (namespace_of(namespace), to_text(checkpoint_id))
            for items, _ in pages
            for namespace, checkpoint_id in listing.grouped(items, 2)
        ]

    def _pages(
        self, place: Place, what: str, limit: int
    ) -> Iterator[tuple[list[Any], dict[bytes, bytes]]]:
        pages = self._open.core.pages(self._open.link, place, what, limit=limit, ascending=True)
        return finish_each(cast(AsyncGenerator[Any, None], pages))

    def cargo(self, thread: str, at: Address) -> Cargo | None:
        """See `SaverHome.cargo`."""
        side = Side(self._open.core, self._open.link, None, None)
        return finish(look(side, self.place(thread, *at)))

    def metadata(self, thread: str, at: Address) -> Mapping[str, Any] | None:
        """A checkpoint's metadata; nothing else of it is read."""
        walk = listing.metadata_of(self._open.core, self._open.link, self.place(thread, *at))
        found = finish_each(cast(AsyncGenerator[Any, None], walk))
        return next((metadata for _, _, metadata in found), None)

    def heads(self, thread: str) -> dict[str, str]:
        """See `Home.heads`."""
        heads = {}
        for namespace in dict.fromkeys(namespace for namespace, _ in self.addresses(thread)):
            place = self.place(thread, namespace)
            answer = self._ask(place, operations.get(place.keys, namespace, ""))
            if answer.status is not Status.NONE:
                self._open.core.require(place, answer)
                heads[namespace] = to_text(answer.rest[0])
        return heads

    def mark(self, thread: str) -> str:
        """See `Home.mark`: whose thread it is, and its newest stamp."""
        standing = self._standing(thread)
        return f"{standing.nonce.hex()} {standing.stamp.decode()}" if standing.exists else ""

    def _standing(self, thread: str) -> Standing:
        place = self.place(thread)
        return self._ask(
            place, operations.page(place.keys, "ids", namespace=None, limit=1)
        ).standing

    def _ask(self, place: Place, call: Call) -> Answer:
        return finish(self._open.core.read(self._open.link, place, call))

    def put(self, thread: str, cargoes: Iterable[Cargo], heads: Mapping[str, str]) -> None:
        """See `Home.put`."""
        self._store(thread, self._packed(thread, cargoes), heads)

    def _packed(self, thread: str, cargoes: Iterable[Cargo]) -> Iterator[RawCargo]:
        """Cargoes as they are going to be stored, with the chunks that are new."""
        core = self._open.core
        base = None
        for cargo in cargoes:
            given, number = cargo.found.checkpoint, core.writer.entry()
            about = thread, cargo.parent_id, given, cargo.found.metadata, given["channel_versions"]
            draft = drafts.build(core.codec, number, *about, True, base)
            base = draft.base
            size = limits.DIGEST_BYTES
            yield RawCargo(
                address_of(cargo),
                draft.stored.record,
                {chunk[:size]: chunk[size:] for chunk in draft.stored.chunks},
                tuple(
                    (core.writer.entry(), writes.build(core.codec, some, task.task_id, task.path))
                    for task in cargo.tasks
                    for some in (task.special, task.ordinary)
                    if some
                ),
            )

    def _store(self, thread: str, cargoes: Iterable[RawCargo], heads: Mapping[str, str]) -> None:
        """Send cargoes, a page at a time; they arrive in their order."""
        core, link, place = self._open.core, self._open.link, self.place(thread)
        page: list[Write] = []
        branches: list[RawCargo] = []
        size = 0
        sent: set[bytes] = set()
        for cargo in cargoes:
            namespace, checkpoint_id = cargo.at
            if checkpoint_id > heads.get(namespace, checkpoint_id):
                branches.append(cargo)
                continue
            at = self.place(thread, *cargo.at)
            fresh = [d + chunk for d, chunk in cargo.chunks.items() if d not in sent]
            sent.update(cargo.chunks)
            number = records.entry_of(cargo.record)
            page.append(core.record_write(at, cargo.record, fresh, number))
            page += [core.task_write(at, stored, entry) for entry, stored in cargo.writes]
            size += len(cargo.record) + sum(map(len, fresh)) + sum(len(w) for _, w in cargo.writes)
            if size >= limits.PAGE_BYTES or len(page) >= limits.LIST_PAGE:
                finish(core.store_all(link, place, page))
                page, size = [], 0
        finish(core.store_all(link, place, page))
        for cargo in branches:
            self._keep_beside(thread, cargo)

    def _keep_beside(self, thread: str, cargo: RawCargo) -> None:
        """Store what a failover left beside the head, though its id is higher.

        A put would make it the head, and the thread would go on from another branch.
        """
        place = self.place(thread)
        standing = self._standing(thread)
        at = operations.named(namespace_field(cargo.at[0]), to_bytes(cargo.at[1]))
        items = [b"C" + digest + chunk for digest, chunk in cargo.chunks.items()]
        items.append(b"".join((b"P", standing.stamp, at, cargo.record)))
        items += [
            b"".join((b"W", standing.stamp, entry, at, stored)) for entry, stored in cargo.writes
        ]
        call = operations.replay(place.keys, ANYONE, standing, 0, items)
        answer = finish(self._open.core.ask(self._open.link, place, call))
        self._open.core.known.learn(place.thread, answer.standing)


class RawHome(OurHome):
    """Threads on a cluster, as they are stored."""

    def cargoes(self, thread: str, wanted: Collection[Address] | None = None) -> Iterator[Any]:
        """See `Home.cargoes`; gives `RawCargo`."""
        if wanted is None:
            yield from self._walked(self.place(thread))
            return
        for at in self.addresses(thread):
            if at in wanted:
                yield from self._walked(self.place(thread, *at))

    def _walked(self, place: Place) -> Iterator[RawCargo]:
        for items, chunks in self._pages(place, "all", limits.LIST_PAGE):
            for raw_namespace, raw_id, record, entries, stored in listing.grouped(items, 5):
                at = namespace_of(raw_namespace), to_text(raw_id)
                try:
                    records.require_whole(record)
                except Damaged as damage:
                    raise place.corrupt(str(damage), at[1], place.keys.state) from damage
                digests = dict.fromkeys(records.digests_of(record))
                gone = [digest.hex() for digest in digests if chunks.get(digest) is None]
                if gone or None in stored:
                    why = f"its chunk {gone[0]} is gone" if gone else "writes on it are gone"
                    raise place.corrupt(why, at[1], place.keys.state)
                numbers = [entries[n : n + 16] for n in range(0, len(entries), 16)]
                # A replay restores the stamps by which writes count, not their order.
                came = sorted(
                    zip(numbers, stored, strict=True), key=lambda each: writes.stamp_of(each[1])
                )
                written = tuple((number, writes.unstamped(each)) for number, each in came)
                yield RawCargo(at, record, {d: chunks[d] for d in digests}, written)

    def prints(self, thread: str) -> dict[Address, bytes]:
        """See `Home.prints`. All of it is carried, so lines break only where they had."""
        return {cargo.at: _print_of(cargo) for cargo in self._walked(self.place(thread))}

    def histories(self, thread: str, heads: Mapping[str, str]) -> str:
        """See `Home.histories`: what is stored alike is rebuilt alike from the same heads."""
        return f"{thread} {sorted(heads.items())}"

    def put(self, thread: str, cargoes: Iterable[Any], heads: Mapping[str, str]) -> None:
        """See `Home.put`."""
        self._store(thread, cargoes, heads)


def _print_of(cargo: RawCargo) -> bytes:
    told = blake2b(cargo.record, digest_size=16)
    for digest in sorted(cargo.chunks):
        told.update(digest + cargo.chunks[digest])
    for number, stored in cargo.writes:
        told.update(number + blake2b(stored, digest_size=16).digest())
    return told.digest()
