"""Looking after standings: what a keeper does again and again.

It asks the primary store for all partitions in use at once, verifies those whose primary
has changed, and finishes changes that another process has begun and left.

Renewing comes first, and nothing holds it up for long: a standing lapses if it is not
renewed in time, and one shard's trouble must not make the others' lookups miss. So
verifying never waits, but goes on in a later round, and a round ends when it has taken its
time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from langgraph_valkey.errors import ConfigurationError, LanggraphValkeyError
from langgraph_valkey.link import Link
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.versions import PartitionKey
from rag_cache.freshness.changing import NOT_THE_ONE, write_down
from rag_cache.freshness.standings import STANDING_S, Standings
from rag_cache.freshness.verifying import complete, enter
from rag_cache.partitions import partition_named

PENDING_S = 1.0
"""How old a pending change is when it begins to matter: most are written in milliseconds,
by whoever made them."""

ROUND_S = STANDING_S / 4
"""How often standings are renewed, and for how long a round goes on verifying. A server that
does not answer adds a second to that, and leaves time to renew the others."""

CHANGES_PAGE = 100

REPLACED_S = 30.0
"""For how long a primary that was replaced may go on answering before that is a complaint:
one that was frozen, or cut off, learns within a few timeouts of its cluster that it is none
any more. One of another cluster never does."""


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
    trouble = await _verify(primary, link, prefix, standings, [*doubtful, *unknown])
    if pending:
        trouble = await _finish_changes(primary, link, prefix, pending) or trouble
    if trouble is not None:
        raise trouble


async def _renew(
    primary: Primary,
    link: Link,
    standings: Standings,
    keys: list[PartitionKey],
    doubtful: Iterable[PartitionKey] = (),
) -> tuple[set[str], list[PartitionKey]]:
    """Ask for standings; corpora with a pending change, and which ones have no primary yet."""
    withdrawals, asked_s = standings.withdrawals(), link.now()
    pending, unknown = set(), []
    for key, found in zip(keys, await primary.standing(keys), strict=True):
        age_s = found.pending_s
        # A young change is still being written, unless it is known to have been given up.
        if age_s is not None and (
            age_s >= PENDING_S or standings.waits_for(key, begun_s=asked_s - age_s)
        ):
            standings.withdraw(key, asked_s)
            pending.add(key.corpus)
        elif key in doubtful:
            continue
        elif found.identity:
            standings.confirm(key, found.identity, asked_s, withdrawals)
        else:
            unknown.append(key)
    return pending, unknown


async def _verify(
    primary: Primary, link: Link, prefix: str, standings: Standings, keys: list[PartitionKey]
) -> LanggraphValkeyError | None:
    """Verify as many partitions as there is time for; what went wrong last.

    They come in any order, so that those of a shard that is away don't always come first.
    """
    until_s = link.now() + ROUND_S
    trouble: LanggraphValkeyError | None = None
    for key in random.sample(keys, len(keys)):
        if link.now() >= until_s:
            break
        try:
            if await _is_verified(primary, link, prefix, standings, key):
                await _renew(primary, link, standings, [key])
        except LanggraphValkeyError as failure:
            trouble = failure
    return trouble


async def _is_verified(
    primary: Primary, link: Link, prefix: str, standings: Standings, key: PartitionKey
) -> bool:
    """Take the steps that can be taken now; whether a partition's primary serves."""
    successor = standings.successor(key)
    if successor is None:
        successor = await enter(primary, link, partition_named(prefix, key))
        standings.note_successor(key, successor)
        if successor is None and standings.unconfirmed_s(key, link.now()) >= REPLACED_S:
            raise ConfigurationError(NOT_THE_ONE)
    if successor is None or link.now() < successor.due_s:
        return False
    standings.note_successor(key, None)
    return await complete(primary, link, successor)


async def _finish_changes(
    primary: Primary, link: Link, prefix: str, corpora: Iterable[str]
) -> LanggraphValkeyError | None:
    """Try to finish what is pending; what went wrong last, which holds up no other one."""
    trouble: LanggraphValkeyError | None = None
    for corpus in corpora:
        for change in await primary.pending_changes(
            corpus, older_than_s=PENDING_S, limit=CHANGES_PAGE
        ):
            trouble = await write_down(primary, link, prefix, change, until_s=link.now()) or trouble
    return trouble
