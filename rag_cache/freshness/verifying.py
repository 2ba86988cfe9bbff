"""Writing the versions of a corpus down on a primary that has not got them all.

After a failover a partition's copy of the versions may be old; after an eviction it is
gone. Whoever notices first writes it anew: it *enters* the primary in the primary store as
the verified one, waits until no process goes by another one any more, copies all versions,
and lets the primary serve. Several processes may do so at once.

The order is what makes it right. A change of a version that is committed before the copy
begins is copied; one that is committed later finds the new primary entered, and is written
to it by whoever made it (`changing`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

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


def packed_change(mark: str, version: str | None, change: int) -> bytes:
    """One changed version as scripts take it."""
    return packed_mark(mark) + b"%016d" % change + packed_version(version)


def packed_changes(versions: Mapping[str, str | None], change: int) -> list[bytes]:
    """Changed versions as scripts take them."""
    return [packed_change(mark, version, change) for mark, version in versions.items()]


async def verify(primary: Primary, link: Link, partition: Partition) -> bool:
    """See to it that the partition's primary knows all versions, and serves.

    Args:
        primary: The primary store.
        link: To the cache cluster.
        partition: Which one.

    Returns:
        Whether it does; False if another one became the primary meanwhile, or if the one
        that answers was replaced and does not know.

    Raises:
        LanggraphValkeyError: One of the two servers can't be used now.
    """
    token = os.urandom(16)
    [[_, identity, *_]] = await link.send([calls.change(partition, (), KEPT_MS, token)])
    name = identity.decode()
    if not name:
        return False
    entered = await primary.enter(partition.name, name)
    if not entered.accepted:
        return False
    # Whoever goes by the former one has to have stopped before this one serves.
    if entered.since_s is not None:
        await link.sleep(max(0.0, STANDING_S - entered.since_s))
    if not await _copy(primary, link, partition, identity, token):
        return False
    [[status, *_]] = await link.send([calls.verify(partition, name, token, os.urandom(16))])
    return bool(status == b"ok")


async def _copy(
    primary: Primary, link: Link, partition: Partition, identity: bytes, token: bytes
) -> bool:
    """Copy all versions; False if they did not all go to the same primary."""
    after: str | None = None
    while True:
        page = await primary.versions(partition.name.corpus, after=after, limit=PAGE)
        if page:
            call = calls.change(partition, map(_packed, page), KEPT_MS, token)
            [[_, answered, *_]] = await link.send([call])
            if answered != identity:
                return False
        if len(page) < PAGE:
            return True
        after = page[-1].mark


def _packed(version: Version) -> bytes:
    return packed_change(version.mark, version.version, version.change)
