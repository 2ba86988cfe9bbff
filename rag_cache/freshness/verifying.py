"""Writing the versions of a corpus down on a primary that has not got them all.

After a failover a partition's copy of the versions may be old; after an eviction it is
gone. Whoever notices first writes it anew: it *enters* the primary in the primary store as
the verified one, waits until no process goes by another one any more, copies all versions,
and lets the primary serve. Several processes may do so at once.

The order is what makes it right. A change of a version that is committed before the copy
begins is copied; one that is committed later finds the new primary entered, and is written
to it by whoever made it (`changing`).

A failover takes all partitions of a shard with it. So entering and completing are apart:
who has many to verify enters all of them, and waits for all of them at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from langgraph_valkey.link import Link
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.versions import Version
from rag_cache.freshness.standings import STANDING_S
from rag_cache.marks import packed_mark, packed_version
from rag_cache.operations import calls
from rag_cache.partitions import Partition

PAGE = 500
"""Versions copied by one call: the script runs for well under a millisecond."""

KEPT_MS = 40 * 24 * 3600 * 1000
"""For how long a partition that nobody uses keeps its copy. It is longer than any entry may
live; what expires is copied again when it is needed."""


@dataclass(frozen=True, slots=True)
class Successor:
    """A primary that was entered as the verified one.

    Attributes:
        partition: Of which partition.
        identity: The primary.
        serves: Whether it serves already: another process has completed it.
        due_s: When nobody goes by another primary any more, by the link's clock.
    """

    partition: Partition
    identity: bytes
    serves: bool
    due_s: float


def packed_change(mark: str, version: str | None, change: int) -> bytes:
    """One changed version as scripts take it."""
    return packed_mark(mark) + b"%016d" % change + packed_version(version)


def packed_changes(versions: Mapping[str, str | None], change: int) -> list[bytes]:
    """Changed versions as scripts take them."""
    return [packed_change(mark, version, change) for mark, version in versions.items()]


async def enter(primary: Primary, link: Link, partition: Partition) -> Successor | None:
    """Have the primary that answers count as the verified one from now on.

    Args:
        primary: The primary store.
        link: To the cache cluster.
        partition: Which partition.

    Returns:
        What `complete` takes; None if that primary was replaced and does not know, or
        does not tell which one it is, or is one of another cluster than counts by now.

    Raises:
        LanggraphValkeyError: One of the two servers can't be used now.
    """
    [[status, identity, *_]] = await link.send([calls.change(partition, (), KEPT_MS)])
    if not identity:
        return None
    entered = await primary.enter(partition.name, identity.decode())
    if not entered.accepted:
        return None
    due_s = link.now()
    if entered.since_s is not None:
        # Whoever goes by the former one has to have stopped before this one serves.
        due_s += max(0.0, STANDING_S - entered.since_s)
    return Successor(partition, identity, status == b"ok", due_s)


async def complete(primary: Primary, link: Link, successor: Successor) -> bool:
    """Let a primary serve that was entered; waits until that may be.

    Returns:
        Whether it does; False if another one became the primary meanwhile.

    Raises:
        LanggraphValkeyError: One of the two servers can't be used now.
    """
    if successor.serves:
        return True
    await link.sleep(max(0.0, successor.due_s - link.now()))
    token = os.urandom(16)
    if not await _copy(primary, link, successor, token):
        return False
    name = successor.identity.decode()
    call = calls.verify(successor.partition, name, token, os.urandom(16))
    [[status, *_]] = await link.send([call])
    return bool(status == b"ok")


async def _copy(primary: Primary, link: Link, successor: Successor, token: bytes) -> bool:
    """Copy all versions; False if they did not all go to the same primary.

    Args:
        primary: The primary store.
        link: To the cache cluster.
        successor: Where they are copied to.
        token: Is left there first. If it is gone in the end, so may be what was copied.
    """
    partition = successor.partition
    after: str | None = None
    # Pages leave no token: one that is evicted with what was copied must stay gone.
    call = calls.change(partition, (), KEPT_MS, token)
    while True:
        [[_, answered, *_]] = await link.send([call])
        if answered != successor.identity:
            return False
        page = await primary.versions(partition.name.corpus, after=after, limit=PAGE)
        if not page:
            return True
        call = calls.change(partition, map(_packed, page), KEPT_MS)
        after = page[-1].mark


def _packed(version: Version) -> bytes:
    return packed_change(version.mark, version.version, version.change)
