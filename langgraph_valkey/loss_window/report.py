"""What a program is told about the loss window: its health, and what a recovery did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Durability: TypeAlias = Literal["async", "sync", "disabled", "none", "unknown"]
"""What a cluster promises about acknowledged writes; "none" is a server that does
not offer durability, and replicates as Valkey does."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Two branches of a thread: both are kept, and both can be addressed by their ids.

    Attributes:
        thread_id: The thread.
        namespace: In which namespace.
        head: Id of the checkpoint that is the head.
        branch: Id of the last checkpoint of the other branch.
    """

    thread_id: str
    namespace: str
    head: str
    branch: str


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What came of a replay.

    An *entry* is a checkpoint, a task's pending writes, or a deletion; or an item of the
    store, which is told of by buckets, as in "store bucket 3 of 16", in place of threads.

    Attributes:
        shard: Identity of the primary that was replayed to; "" for all shards.
        replayed: Entries that the server had lost, and has again.
        already_there: Entries that it had not lost.
        deleted: Entries that were not wanted any more: their thread, or their
            checkpoint, was deleted.
        expired: Entries whose thread has expired.
        forks: Branches that came to stand beside a head, and were kept.
        rewound: Threads that had lost something, restored or not.
        incomplete: Threads of which something was lost and can't be restored from
            here: run them again from their input.
        uncovered: Entries that the journal had had no room for: those could be asked
            for, and not be restored.
        duration_s: From the first word of the new primary to the last replay.
    """

    shard: str
    replayed: int
    already_there: int
    deleted: int
    expired: int
    forks: tuple[Fork, ...]
    rewound: tuple[str, ...]
    incomplete: tuple[str, ...]
    uncovered: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """One shard, as this process sees it.

    Attributes:
        identity: Replication id of its primary, or its node id where that is hidden.
        watermark_age_s: How long ago the last write was acknowledged that is known to
            be durable; None if none is yet.
        journal_entries: Entries that are not known to be durable.
        journal_bytes: Bytes of those.
        rejecting_s: For how long it has been refusing writes; None if it is not.
        lag_s: How far replicas are behind, or DurabilityLag where AWS is configured;
            None if not known.
        last_recovery: What came of the last failover.
    """

    identity: str
    watermark_age_s: float | None
    journal_entries: int
    journal_bytes: int
    rejecting_s: float | None
    lag_s: float | None
    last_recovery: RecoveryReport | None


@dataclass(frozen=True, slots=True)
class Health:
    """The loss window of a saver.

    Attributes:
        durability: What the cluster promises, and by which the journal is kept.
        durability_from: Who said so: "settings", "server" or "aws".
        shards: Those this process has talked to.
        journal_entries: Entries that are not known to be durable, in all.
        journal_bytes: Bytes of those.
        uncovered: Entries so far that could not be kept until they were durable.
        recoveries: Failovers that were noticed so far.
    """

    durability: Durability
    durability_from: Literal["settings", "server", "aws"]
    shards: tuple[ShardHealth, ...]
    journal_entries: int
    journal_bytes: int
    uncovered: int
    recoveries: int


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions that are told what happened. They should return soon.

    Attributes:
        on_rewind: A failover was recovered from; also when nothing was lost.
        on_fork: A branch came to stand beside a head.
        on_uncovered: The journal was full; how many entries are not covered by now.
            Called once until there is room again.
    """

    on_rewind: Callable[[RecoveryReport], None] | None = None
    on_fork: Callable[[Fork], None] | None = None
    on_uncovered: Callable[[int], None] | None = None
