"""Memories that outlive Valkey: items of a store that were put or deleted with ``durable=True``.

A store keeps its items in *buckets*: one hash slot of a Valkey cluster each. A failover may
lose what was written there last. So what must not be lost is put here first, and is written
to Valkey then; whoever finds that a bucket of Valkey lacks it writes it there again.

Puts into one bucket come one after the other, and each has a *change* number that is higher
than those before. A memory has the number of the put that it is from. It goes by these, and
by nothing else, which of two records of an item is the newer one. A deletion is a memory
without a record, and one that has expired comes as such: an older record of the item, that a
server may have come back with, must give way to either. They are kept until they are purged.

Which primary of Valkey has a copy that counts is known as for documents: see
`primary.versions`. Each bucket is the one partition (`bucket_key`) of a corpus of its own, so
that buckets are not in each other's way. What that module says of a change of versions holds
of a put. It is recorded, and then the bucket's primary is read: `put_memories` returns it. A
primary is entered, and then all memories are read to be copied. Of the two, at least one sees
the other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from langgraph_valkey.primary.records import Room, digest_of
from langgraph_valkey.primary.versions import PartitionKey

MEMORIES_MOST = 50
"""Memories of one put. It is one transaction, and each may be in another bucket: DynamoDB
takes 100 writes at once, which is one for each memory and one for its bucket."""

PAGE_BYTES = 1024 * 1024
"""A page of a walk ends when it holds this much: one page is in memory at a time."""

UNTIL_MS_MAX = 9_999_999_999_999
"""The last moment at which a memory may expire, in the year 2286: 13 digits."""

_CORPUS = "\0memories:"
"""Names of our corpora begin with this, which those of documents hardly do."""


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A memory to be put. Neither name nor contents are shown.

    Attributes:
        bucket: The bucket.
        name: Name of the item within the store; any bytes.
        record: Its contents; None if it is deleted.
        until_ms: When it expires, in milliseconds since 1970; None if never, and of one
            that is deleted.
    """

    bucket: str
    name: bytes = field(repr=False)
    record: bytes | None = field(repr=False)
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory as the store has it.

    Attributes:
        name: Name of the item within the store.
        record: Its contents; None if it was deleted, or has expired.
        until_ms: When it expires, or has expired; None if never, or if it was deleted.
        change: Number of the put within the bucket that it is from.
    """

    name: bytes = field(repr=False)
    record: bytes | None = field(repr=False)
    until_ms: int | None
    change: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What came of a put.

    Attributes:
        changes: The number of each memory, in the order in which they were given; 0 if
            another put of the item came after it already: `memory` tells what that is.
        identities: Of each bucket, the primary of Valkey whose copy counts; "" if there
            is none. It was read when the put was recorded, so one that is entered later
            is copied to with these memories.
    """

    changes: tuple[int, ...]
    identities: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BucketStanding:
    """How it stands with a bucket.

    Attributes:
        identity: The primary of Valkey whose copy counts; "" if there is none.
        change: Number of the last put; 0 if there was none.
    """

    identity: str
    change: int


class Memories(Protocol):
    """The part of a primary store's face that has to do with memories.

    A *space* is all that one store keeps. Like buckets, it may be of any characters.
    A primary of Valkey is entered by `Versions.enter`, for `bucket_key`.
    """

    async def put_memories(self, space: str, items: Sequence[NewMemory]) -> Recorded:
        """Put memories, or delete them, in one transaction; of two for one item the last.

        An answer that is lost does no harm: it is looked whether the put was recorded,
        and what others have put since stays.

        Args:
            space: Of which store.
            items: At most `MEMORIES_MOST`, and of no more bytes than the store's `Room`.

        Raises:
            ValueError: They are none, too many or too large. Nothing was put.
        """
        ...

    async def memory(self, space: str, bucket: str, names: Sequence[bytes]) -> list[Memory]:
        """What is known of some items of a bucket, in no order; nothing of unknown ones.

        Also told are those that were deleted or have expired, until they are purged.
        """
        ...

    async def memories(
        self, space: str, bucket: str, *, since: int = 0, after: Memory | None = None, limit: int
    ) -> list[Memory]:
        """A page of the memories of a bucket, those that are gone among them.

        All whose put had returned when a walk began come in it. One that is put again
        meanwhile may come twice; of two, the one with the higher number counts.

        Args:
            space: Of which store.
            bucket: Of which bucket.
            since: Only those from later puts than the one of this number.
            after: The last one of the page before.
            limit: How many at most. There may be fewer (`PAGE_BYTES`): a walk has come to
                its end with the page that is empty.
        """
        ...

    async def memory_standing(self, space: str, buckets: Sequence[str]) -> list[BucketStanding]:
        """How it stands with some buckets, in the same order.

        Whoever is told of a number, and reads then, finds all puts up to it that have
        returned; SQL shows those that have not either, DynamoDB maybe a moment later.
        """
        ...


Place: TypeAlias = tuple[str, bytes]
"""Bucket and name of an item."""


class Putting:
    """One call of `put_memories`, over all the times that it is tried.

    A try whose answer was lost may have been recorded, and others may have put the same
    item since. If it were simply put again, it would come back over what is newer. So
    each memory is kept with the name of the call that put it. Who finds one of his own
    knows that his put was recorded. If there is none, either nothing was recorded, or
    others have replaced all of it; then what was put since the first try stays, as if
    others had come just after this one.

    Args:
        items: As of `put_memories`.
        room: What the store takes.

    Raises:
        ValueError: See `put_memories`.

    Attributes:
        token: The name of this call, drawn at random: 32 hex digits.
        left: What is to be put now.
    """

    def __init__(self, items: Sequence[NewMemory], room: Room) -> None:
        _check(items, room)
        self.token = os.urandom(16).hex()
        self._items = list(items)
        self._newest = {(item.bucket, item.name): item for item in items}
        self._first: dict[str, int] = {}
        self._changes: dict[Place, int] = {}
        self.left = dict(self._newest)

    @property
    def buckets(self) -> list[str]:
        """All buckets, each once."""
        return list(dict.fromkeys(bucket for bucket, _ in self._newest))

    @property
    def places(self) -> list[Place]:
        """Bucket and name of all items, each once."""
        return list(self._newest)

    def buckets_left(self) -> list[str]:
        """Those into which something is to be put now."""
        return list(dict.fromkeys(bucket for bucket, _ in self.left))

    @property
    def is_begun(self) -> bool:
        """Whether it was tried before."""
        return bool(self._first)

    def begin(self, numbers: Mapping[str, int]) -> None:
        """A try begins to put what is left.

        Args:
            numbers: What the change is to be, by the bucket.
        """
        for bucket, number in numbers.items():
            self._first.setdefault(bucket, number)
        self._changes |= {place: numbers[place[0]] for place in self.left}

    def compare(self, there: Mapping[Place, tuple[int, str]]) -> None:
        """See what became of tries before, one of which may have been recorded.

        Args:
            there: Of each item that the store has: the number, and by which call it is.
        """
        own = {place: change for place, (change, token) in there.items() if token == self.token}
        self._changes = own
        self.left = {
            place: item
            for place, item in self._newest.items()
            if not own and there.get(place, (0, ""))[0] < self._first[place[0]]
        }

    def recorded(self, identities: Mapping[str, str]) -> Recorded:
        """What came of it.

        Args:
            identities: As of `Recorded`.
        """
        last = {(item.bucket, item.name): at for at, item in enumerate(self._items)}
        changes = [0] * len(self._items)
        for place, change in self._changes.items():
            changes[last[place]] = change
        return Recorded(tuple(changes), {each: identities.get(each, "") for each in self.buckets})


def _check(items: Sequence[NewMemory], room: Room) -> None:
    """Refuse what the store does not take; no text repeats what is in it."""
    if not 0 < len(items) <= MEMORIES_MOST:
        raise ValueError(f"a put must be of 1 to {MEMORIES_MOST} memories: make several")
    total = 0
    for number, item in enumerate(items, 1):
        size = len(item.name) + len(item.record or b"")
        if size > room.memory_bytes_max:
            raise ValueError(
                f"memory {number} of {len(items)} takes {size} bytes with its name, and at most "
                f"{room.memory_bytes_max} are kept of one that is durable: store its contents "
                "elsewhere, and remember where"
            )
        if item.until_ms is not None and item.record is None:
            raise ValueError(f"memory {number} of {len(items)} is deleted: it can't expire as well")
        if item.until_ms is not None and not 0 <= item.until_ms <= UNTIL_MS_MAX:
            raise ValueError(
                f"memory {number} of {len(items)} must expire between 1970 and 2286, in "
                "milliseconds since 1970: give None for one that never does"
            )
        total += size
    if total > room.memories_bytes_max:
        raise ValueError(
            f"{len(items)} memories take {total} bytes, and one put must be of at most "
            f"{room.memories_bytes_max}: make several"
        )


def corpus_of(space: str, bucket: str) -> str:
    """The corpus whose row numbers a bucket's puts."""
    return f"{_CORPUS}{digest_of(space, bucket)}"


def bucket_key(space: str, bucket: str) -> PartitionKey:
    """The name under which a bucket's primary of Valkey is entered."""
    return PartitionKey(corpus_of(space, bucket), "", 0)
