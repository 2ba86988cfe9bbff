"""Whether each cluster is as durable as what it holds needs, and keeps what it must.

============  ===========================  ==========================================
role          durability                   may evict (``maxmemory-policy``)
============  ===========================  ==========================================
transient     any: losses are replayed     nothing; see below
coordination  sync                         at most what has an end (``volatile-...``):
                                           a counter of tokens has none
cache         any                          anything (``allkeys-...``), else it fills up
a tier that   sync                         nothing (its saver looks at that by itself)
is on Valkey
============  ===========================  ==========================================

Which durability is in force only AWS knows: it is asked where a replication group is
named, else the settings are believed. MemoryDB counts as sync. What nobody says counts as
not durable: the error tells what to say.

**Eviction in the transient cluster.** ElastiCache's default, ``volatile-lru``, evicts
keys that have an end. With ``ttl_s`` those are all threads: state would vanish that was
acknowledged and has not expired, with no failover and nothing to replay it by. That is
refused. Without ``ttl_s`` only notes on deletions have an end. Losing one can bring a
deleted thread back by a late replay, unless it was deleted with ``durable=True``: a
warning. With ``allkeys-...`` any part of any thread may go: refused. A server that
hides its policy (``INFO`` forbidden) is taken to be set up right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from langgraph.checkpoint.base import BaseCheckpointSaver

from langgraph_valkey.aws import ElastiCache
from langgraph_valkey.errors import (
    ConfigurationError,
    LanggraphValkeyError,
    OutcomeUnknown,
    Unreachable,
)
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.link import Link, finish
from langgraph_valkey.loss_window.report import Durability
from langgraph_valkey.operations.leases import policy
from langgraph_valkey.saver import ValkeySaver
from langgraph_valkey.settings import Settings
from langgraph_valkey.tiers.settings import TierSettings

_log = logging.getLogger("langgraph_valkey")

_MEMORYDB = ".memorydb."
"""Part of the host name of each MemoryDB endpoint."""


class Finding(NamedTuple):
    """What is wrong with a cluster in its role.

    Attributes:
        text: What, why, and what to do.
        is_harmless: Only to be said, not to be refused.
    """

    text: str
    is_harmless: bool = False


def check(
    settings: TierSettings,
    tier: BaseCheckpointSaver[Any] | None,
    transient: Link,
    coordination: Link | None,
    *,
    must_answer: bool,
) -> None:
    """Look at all clusters; blocks, for seconds at worst.

    Args:
        settings: Where they are.
        tier: Where boundary checkpoints go, if anywhere.
        transient: Blocking link to the cluster for checkpoints.
        coordination: Likewise for locks, if there is such a cluster.
        must_answer: Whether one that does not answer is an error: an outage of one
            cluster must not stop what does not need it.

    Raises:
        ConfigurationError: One is not fit for its role.
        Unreachable: AWS did not tell, or a cluster does not answer that must.
    """
    unsafe = settings.allow_unsafe
    judge(durability_findings(settings.coordination, tier, settings.transient), allow_unsafe=unsafe)
    findings: list[Finding] = []

    def look(link: Link, at: Settings, judged: Callable[[str], list[Finding]]) -> None:
        try:
            findings.extend(judged(finish(policy_of(link, at))))
        except (Unreachable, OutcomeUnknown) as error:
            if must_answer:
                raise
            text = f"what {at.addresses[0][0]} may evict is not known ({type(error).__name__})"
            findings.append(Finding(text, is_harmless=True))

    look(transient, settings.transient, lambda found: transient_findings(settings.transient, found))
    if coordination is not None and settings.coordination is not None:
        look(coordination, settings.coordination, coordination_findings)
    if settings.cache is not None:
        findings += _cache_findings(settings.cache)
    judge(findings, allow_unsafe=unsafe)


def judge(findings: list[Finding], *, allow_unsafe: bool) -> None:
    """Say what was found, or refuse it.

    Args:
        findings: What was found.
        allow_unsafe: Only say it, whatever it is.

    Raises:
        ConfigurationError: Something was found that can't go on so.
    """
    refused = [each.text for each in findings if not (each.is_harmless or allow_unsafe)]
    if refused:
        raise ConfigurationError("; ".join(refused) + " (with allow_unsafe this is only a warning)")
    for each in findings:
        _log.warning("%s", each.text)


# --- durability ------------------------------------------------------------------------


def durability_of(settings: Settings) -> Durability:
    """What a cluster promises, by whoever knows it best. Asking AWS blocks.

    Raises:
        ConfigurationError, Unreachable: AWS did not tell.
    """
    if settings.aws_replication_group is not None:
        group = ElastiCache(settings.aws_replication_group, region=settings.aws_region)
        return group.durability()
    if settings.durability == "unknown" and _is_memorydb(settings):
        return "sync"
    return settings.durability


def _is_memorydb(settings: Settings) -> bool:
    if settings.iam_cluster_name is not None and settings.iam_service == "memorydb":
        return True
    return any(_MEMORYDB in host for host, _ in settings.addresses)


def durability_findings(
    coordination: Settings | None,
    tier: BaseCheckpointSaver[Any] | None,
    transient: Settings,
) -> list[Finding]:
    """What is wrong with the clusters whose acknowledged writes must not be lost. May block.

    Args:
        coordination: The cluster for locks, if there is one.
        tier: Where boundary checkpoints go, if anywhere.
        transient: The cluster for checkpoints.

    Raises:
        ConfigurationError, Unreachable: AWS did not tell.
    """
    findings = []
    if coordination is not None:
        why = "a failover could give one lock to two holders, and a token twice"
        findings += _unless_sync(coordination, "the coordination cluster", why)
    if isinstance(tier, ValkeySaver):
        why = "it could lose the checkpoints that stand for commits together with them"
        findings += _unless_sync(tier.settings, "the tier", why)
        if _overlap(tier.settings, transient):
            raise ConfigurationError(
                "the tier keeps its threads where the transient ones are, so it saves nothing: "
                "give it another cluster, or another kind of saver"
            )
    return findings


def _unless_sync(settings: Settings, what: str, why: str) -> list[Finding]:
    durability = durability_of(settings)
    if durability == "sync":
        return []
    if durability == "unknown":
        return [
            Finding(
                f"how durable {what} is nobody says, and it must be sync, since else {why}: set "
                "durability='sync' in its settings if it is (or 'durability=sync' in its URL), or "
                "name its aws_replication_group, and AWS is asked"
            )
        ]
    return [
        Finding(
            f"{what} has durability {durability!r} and must have sync, since else {why}: use a "
            "cluster with sync durability or MemoryDB, or leave it out"
        )
    ]


def _overlap(one: Settings, other: Settings) -> bool:
    return one.key_prefix == other.key_prefix and bool({*one.addresses} & {*other.addresses})


# --- eviction --------------------------------------------------------------------------


async def policy_of(link: Link, settings: Settings) -> str:
    """A cluster's maxmemory-policy; "" where it is hidden.

    Raises:
        Unreachable: It does not answer.
    """
    [found] = await link.send([policy(settings.key_prefix)])
    return bytes(found).decode(errors="replace")


def transient_findings(settings: Settings, evicts: str) -> list[Finding]:
    """What is wrong with the transient cluster, given its policy."""
    advice = "set maxmemory-policy to noeviction (on ElastiCache: in its parameter group)"
    if evicts.startswith("allkeys"):
        return [
            Finding(f"the transient cluster may evict any part of any thread ({evicts}): {advice}")
        ]
    if not evicts.startswith("volatile"):
        return []
    if settings.ttl_s is not None:
        return [
            Finding(
                f"the transient cluster may evict keys that have an end ({evicts}), and with ttl_s "
                f"those are all threads: {advice}"
            )
        ]
    text = (
        f"the transient cluster may evict its notes on deletions ({evicts}), and a replay could "
        f"bring a deleted thread back: {advice}, or delete with durable=True"
    )
    return [Finding(text, is_harmless=True)]


def coordination_findings(evicts: str) -> list[Finding]:
    """What is wrong with the coordination cluster, given its policy."""
    if not evicts.startswith("allkeys"):
        return []
    return [
        Finding(
            f"the coordination cluster may evict a lock with its tokens ({evicts}), which would "
            "then begin at 1 again: set maxmemory-policy to noeviction"
        )
    ]


def cache_findings(evicts: str) -> list[Finding]:
    """What is wrong with the cache cluster, given its policy."""
    if not evicts or evicts.startswith("allkeys"):
        return []
    text = (
        f"the cache cluster refuses writes once it is full ({evicts}): set maxmemory-policy to "
        "allkeys-lru"
    )
    return [Finding(text, is_harmless=True)]


def _cache_findings(settings: Settings) -> list[Finding]:
    """What is wrong with the cache cluster, if it answers: it may be away."""
    link = BlockingLink(settings)
    try:
        return cache_findings(finish(policy_of(link, settings)))
    except LanggraphValkeyError as error:
        text = f"the cache cluster could not be looked at ({type(error).__name__})"
        return [Finding(text, is_harmless=True)]
    finally:
        link.close()
