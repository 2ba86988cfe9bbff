"""Versions of documents, and which copies of them may be believed.

A cache keeps what was made from documents, and must not serve it once they have changed. It
has copies of their versions beside its entries, in *partitions*: one hash slot of a Valkey
cluster each. A failover may lose what was written to such a copy last. So the truth is
here, and with it the *identity* of the Valkey primary whose copy is whole.

What all this rests on is an order. A change of versions is recorded, and then the
partitions are read that have to be told. A primary is entered as the one whose copy counts,
and then all versions are read to be copied. Of the two, at least one sees the other: a
change that was recorded before is copied, and one that is recorded later finds the new
primary. Nothing falls between them.

A *mark* is what has a version: a document, or anything else that can change. Marks, like
names of corpora and tenants, may hold any characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MARKS_MOST = 50
"""Marks of one change: it is one item in DynamoDB, of 400 KB at most."""

MARK_LENGTH_MAX = 1024
"""Characters of a mark or a version: names, not contents."""

FORMER_MOST = 64
"""Identities of replaced primaries that are remembered for each partition: that many
failovers happen within seconds only where nothing works at all."""


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """Name of one partition.

    Attributes:
        corpus: Collection of documents.
        tenant: Whose entries.
        number: Which one of those over which they are spread, from 0.
    """

    corpus: str
    tenant: str
    number: int


@dataclass(frozen=True, slots=True)
class KeptPartition:
    """A partition, and the Valkey primary whose copy of the versions counts."""

    key: PartitionKey
    identity: str


@dataclass(frozen=True, slots=True)
class Version:
    """What is known of one mark.

    Attributes:
        mark: The mark.
        version: Its version; None if only that it changed is known.
        change: Number of the change, within the corpus, that set it.
    """

    mark: str
    version: str | None
    change: int


@dataclass(frozen=True, slots=True)
class Change:
    """A change of versions that partitions have to be told.

    Attributes:
        corpus: Of which corpus.
        number: Its number within the corpus: later changes have higher ones.
        versions: The marks and their new versions.
        partitions: Who has to be told, as of when it was read.
    """

    corpus: str
    number: int
    versions: Mapping[str, str | None]
    partitions: tuple[KeptPartition, ...]


@dataclass(frozen=True, slots=True)
class Entered:
    """Whether a primary counts now.

    Attributes:
        accepted: Whether it does; not if it was replaced before.
        since_s: For how long it has counted, if another one did before it; None if there
            never was another one.
    """

    accepted: bool
    since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with a partition.

    Attributes:
        identity: The primary that counts; "" if there is none.
        pending_s: Age of the oldest change of its corpus that somebody was not told yet.
    """

    identity: str
    pending_s: float | None


class Versions(Protocol):
    """The part of a primary store's face that has to do with versions."""

    async def change_versions(self, corpus: str, versions: Mapping[str, str | None]) -> Change:
        """Record new versions; the change is pending until it is settled.

        Args:
            corpus: Of which corpus.
            versions: Marks and their versions, `MARKS_MOST` at most; None: not known.

        Raises:
            ValueError: There are too many, or one is too long.
        """
        ...

    async def settle_change(self, change: Change) -> None:
        """All who have to know of it do. Idempotent."""
        ...

    async def pending_changes(
        self, corpus: str, *, older_than_s: float, limit: int
    ) -> list[Change]:
        """Changes of a corpus that are pending for longer than this, the oldest first.

        Args:
            corpus: Of which corpus: who tends one must not be held up by another one's.
            older_than_s: How old they are at least, in seconds.
            limit: How many at most.
        """
        ...

    async def versions(self, corpus: str, *, after: str | None, limit: int) -> list[Version]:
        """A page of all versions of a corpus.

        All that were recorded when a walk began come in it.

        Args:
            corpus: Of which corpus.
            after: Mark of the last one of the page before.
            limit: Size of a page; a smaller one is the last.
        """
        ...

    async def enter(self, key: PartitionKey, identity: str) -> Entered:
        """Have this primary's copy count from now on, unless it was replaced before."""
        ...

    async def standing(self, keys: Sequence[PartitionKey]) -> list[Standing]:
        """How it stands with some partitions, in the same order."""
        ...

    async def forget_partition(self, key: PartitionKey) -> None:
        """It is gone: nobody has to tell it anything."""
        ...


def check_versions(versions: Mapping[str, str | None]) -> None:
    """Refuse what no store takes.

    Raises:
        ValueError: There are too many marks, or one, or a version, is too long.
    """
    if not 0 < len(versions) <= MARKS_MOST:
        raise ValueError(f"a change must be of 1 to {MARKS_MOST} marks: make several")
    if any(len(text or "") > MARK_LENGTH_MAX for pair in versions.items() for text in pair):
        raise ValueError(f"marks and versions must have at most {MARK_LENGTH_MAX} characters")
