"""Looking after standings: what a keeper does again and again.

It asks the primary store for all partitions in use at once, verifies those whose primary
has changed, and finishes changes that another process has begun and left.
"""

from __future__ import annotations

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.link import Link
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.versions import PartitionKey
from rag_cache.freshness.changing import write_down
from rag_cache.freshness.standings import STANDING_S, Standings
from rag_cache.freshness.verifying import verify
from rag_cache.partitions import partition_of

PENDING_S = 1.0
"""How old a pending change is when it begins to matter: most are written in milliseconds,
by whoever made them."""

ROUND_S = STANDING_S / 4
"""How often standings are renewed."""

CHANGES_PAGE = 100


async def tend(primary: Primary, link: Link, prefix: str, standings: Standings) -> None:
    """One round.

    Args:
        primary: The primary store.
        link: To the cache cluster.
        prefix: What all keys begin with.
        standings: Those of this process.

    Raises:
        LanggraphValkeyError: The primary store can't be asked, or a partition not be
            verified now: what could not be renewed lapses.
    """
    active = standings.active(link.now())
    if not active:
        return
    doubtful = {key for key, in_doubt in active if in_doubt}
    pending, unknown = await _renew(primary, link, standings, [key for key, _ in active], doubtful)
    trouble: LanggraphValkeyError | None = None
    for key in (*doubtful, *unknown):
        partition = partition_of(prefix, key.corpus, key.tenant, key.number)
        try:
            if await verify(primary, link, partition):
                await _renew(primary, link, standings, [key], set())
        except LanggraphValkeyError as failure:
            trouble = failure  # The others come first.
    if pending:
        await _finish_changes(primary, link, prefix)
    if trouble is not None:
        raise trouble


async def _renew(
    primary: Primary,
    link: Link,
    standings: Standings,
    keys: list[PartitionKey],
    doubtful: set[PartitionKey],
) -> tuple[bool, list[PartitionKey]]:
    """Ask for standings; whether a change is pending, and which ones have no primary yet."""
    asked_s = link.now()
    is_pending = False
    unknown = []
    for key, found in zip(keys, await primary.standing(keys), strict=True):
        if found.pending_s is not None and found.pending_s >= PENDING_S:
            standings.withdraw(key)
            is_pending = True
        elif key in doubtful:
            continue
        elif found.identity:
            standings.confirm(key, found.identity, asked_s)
        else:
            unknown.append(key)
    return is_pending, unknown


async def _finish_changes(primary: Primary, link: Link, prefix: str) -> None:
    for change in await primary.pending_changes(older_than_s=PENDING_S, limit=CHANGES_PAGE):
        await write_down(primary, link, prefix, change, until_s=link.now())
