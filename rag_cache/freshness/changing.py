"""Changing versions: first in the primary store, then in each partition.

Once the primary store has a change it is never lost. It counts as made, though, only when
every partition has it: until then entries that it makes stale might be served. A partition
has it when the primary of Valkey answered which the primary store had for the verified one
when the change was committed, and which says itself that it may serve. Any other answer is
of a primary that is not used yet, or no more: then the partition is verified anew, which
copies the change as well.

A change that some partition refuses stays pending. Processes learn that from the primary
store and serve nothing of that corpus until it is written everywhere, which any of them
may do.
"""

from __future__ import annotations

from langgraph_valkey.errors import LanggraphValkeyError, Unreachable
from langgraph_valkey.link import Link
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.versions import Change, KeptPartition
from rag_cache.freshness.verifying import KEPT_MS, Successor, complete, enter, packed_changes
from rag_cache.operations import calls
from rag_cache.partitions import partition_named

TOGETHER = 256
"""Partitions that are written to at once."""

NOT_THE_ONE = (
    "the primary that answers was replaced, by what the primary store says. After a failover "
    "that is over in a moment. If it stays, another cluster is used with the same primary store "
    "and the same key_prefix: give each cluster's caches a key_prefix of their own"
)
"""Said of a primary that has not the standing to be told anything."""

PAUSE_FIRST_S, PAUSE_MOST_S = 0.02, 0.5
"""Pauses, doubling, between two tries."""


async def write_down(
    primary: Primary, link: Link, prefix: str, change: Change, until_s: float
) -> LanggraphValkeyError | None:
    """Write a change to all partitions of its corpus, and settle it.

    Args:
        primary: The primary store, which has it.
        link: To the cache cluster.
        prefix: What all keys begin with.
        change: The change.
        until_s: When to give up, by the link's clock; it is tried once at least.

    Returns:
        None if all have it; else why one has not, or why that could not be noted, whatever
        it is: the change is recorded, and pending.
    """
    left = list(change.partitions)
    pause_s = PAUSE_FIRST_S
    while True:
        left, why = await _write(primary, link, prefix, change, left)
        if not left:
            try:
                await primary.settle_change(change)
            except LanggraphValkeyError as failure:
                return failure
            return None
        if link.now() + pause_s > until_s:
            return why
        await link.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MOST_S)


async def _write(
    primary: Primary, link: Link, prefix: str, change: Change, targets: list[KeptPartition]
) -> tuple[list[KeptPartition], LanggraphValkeyError | None]:
    """Try each of them once; which have not got it, and why."""
    packed = packed_changes(change.versions, change.number)
    left: list[KeptPartition] = []
    others: list[KeptPartition] = []
    why: LanggraphValkeyError | None = None
    for at in range(0, len(targets), TOGETHER):
        some = targets[at : at + TOGETHER]
        places = [partition_named(prefix, one.key) for one in some]
        try:
            replies = await link.send([calls.change(each, packed, KEPT_MS) for each in places])
        except LanggraphValkeyError as failure:
            left += some
            why = failure
            continue
        others += [
            one
            for one, (status, identity, *_) in zip(some, replies, strict=True)
            if status != b"ok" or identity.decode() != one.identity
        ]
    unverified, because = await _verify(primary, link, prefix, others)
    return left + unverified, because or why


async def _verify(
    primary: Primary, link: Link, prefix: str, targets: list[KeptPartition]
) -> tuple[list[KeptPartition], LanggraphValkeyError | None]:
    """Verify those whose primary is another one now; which could not be, and why.

    All are entered before the first one is waited for: a failover has replaced the primary
    of many partitions at once.
    """
    entered: list[tuple[KeptPartition, Successor]] = []
    left: list[KeptPartition] = []
    why: LanggraphValkeyError | None = None
    for one in targets:
        try:
            successor = await enter(primary, link, partition_named(prefix, one.key))
        except LanggraphValkeyError as failure:
            successor, why = None, failure
        if successor is None:
            left.append(one)
        else:
            entered.append((one, successor))
    for one, successor in entered:
        try:
            if not await complete(primary, link, successor):
                left.append(one)
        except LanggraphValkeyError as failure:
            left.append(one)
            why = failure
    if left and why is None:
        why = Unreachable(NOT_THE_ONE)
    return left, why
