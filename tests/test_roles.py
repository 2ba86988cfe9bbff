"""Whether each cluster is fit for its role: refused, warned of, or let pass."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_valkey import ConfigurationError, Unreachable, ValkeySaver
from langgraph_valkey.aws import ElastiCache
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.settings import Settings
from langgraph_valkey.testing import MemoryLink
from langgraph_valkey.tiers import roles
from langgraph_valkey.tiers.roles import Finding, durability_findings, durability_of
from langgraph_valkey.tiers.settings import TierSettings
from tests.failover_ground import new_prefix

MEMORYDB = "clustercfg.locks.abc123.memorydb.eu-central-1.amazonaws.com"
NOWHERE = Settings.from_url("valkey://127.0.0.1:1", read_deadline_s=0)
TRANSIENT = Settings.from_url("valkey://transient")
IAM: dict[str, Any] = {
    "tls": True,
    "username": "u",
    "iam_cluster_name": "locks",
    "iam_region": "eu-central-1",
}


@pytest.mark.parametrize(
    ("settings", "durability"),
    [
        (Settings(), "unknown"),
        (Settings(durability="async"), "async"),
        (Settings(durability="sync"), "sync"),
        (Settings(addresses=((MEMORYDB, 6379),)), "sync"),
        (Settings(addresses=((MEMORYDB, 6379),), durability="none"), "none"),
        (Settings(**IAM, iam_service="memorydb"), "sync"),
        (Settings(**IAM, iam_service="elasticache"), "unknown"),
    ],
)
def test_durability_is_what_settings_or_the_service_say(
    settings: Settings, durability: str
) -> None:
    assert durability_of(settings) == durability


def test_aws_is_believed_over_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ElastiCache, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(ElastiCache, "durability", lambda _: "async")
    settings = Settings(durability="sync", aws_replication_group="locks")
    assert durability_of(settings) == "async"
    [finding] = durability_findings(settings, None, TRANSIENT)
    assert "'async'" in finding.text
    assert not finding.is_harmless


def test_that_aws_does_not_answer_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: ElastiCache) -> str:
        raise Unreachable("AWS gave no answer")

    monkeypatch.setattr(ElastiCache, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(ElastiCache, "durability", away)
    settings = Settings(durability="sync", aws_replication_group="locks")
    with pytest.raises(Unreachable):
        durability_findings(settings, None, TRANSIENT)


@pytest.mark.parametrize("durability", ["async", "disabled", "none", "unknown"])
def test_locks_are_refused_on_what_is_not_sync(durability: Any) -> None:
    [finding] = durability_findings(Settings(durability=durability), None, TRANSIENT)
    with pytest.raises(ConfigurationError, match="coordination cluster"):
        roles.judge([finding], allow_unsafe=False)
    if durability == "unknown":
        assert "durability='sync'" in finding.text


def test_what_is_sync_passes() -> None:
    assert durability_findings(Settings(durability="sync"), None, TRANSIENT) == []
    assert durability_findings(None, InMemorySaver(), TRANSIENT) == []


@pytest.mark.parametrize("durability", ["async", "unknown"])
def test_a_tier_on_valkey_must_be_sync(durability: Any) -> None:
    tier = ValkeySaver.over(MemoryLink(), durability=durability)
    [finding] = durability_findings(None, tier, TRANSIENT)
    assert "the tier" in finding.text
    assert not durability_findings(
        None, ValkeySaver.over(MemoryLink(), durability="sync"), TRANSIENT
    )


def test_a_tier_where_the_transient_threads_are_is_refused() -> None:
    tier = ValkeySaver.over(MemoryLink(), durability="sync", addresses=TRANSIENT.addresses)
    with pytest.raises(ConfigurationError, match="saves nothing"):
        durability_findings(None, tier, TRANSIENT)
    apart = TRANSIENT.model_copy(update={"key_prefix": "apart"})
    assert durability_findings(None, tier, apart) == []


@pytest.mark.parametrize(
    ("evicts", "ttl_s", "verdict"),
    [
        ("noeviction", 60, "fit"),
        ("", 60, "fit"),
        ("volatile-lru", None, "warned"),
        ("volatile-lru", 60, "refused"),
        ("volatile-ttl", 60, "refused"),
        ("allkeys-lru", None, "refused"),
        ("allkeys-random", 60, "refused"),
    ],
)
def test_what_a_transient_cluster_may_evict(evicts: str, ttl_s: float | None, verdict: str) -> None:
    found = roles.transient_findings(Settings(ttl_s=ttl_s), evicts)
    verdicts = ["warned" if each.is_harmless else "refused" for each in found]
    assert verdicts == ([] if verdict == "fit" else [verdict])


@pytest.mark.parametrize(
    ("evicts", "fit"),
    [("noeviction", True), ("volatile-lru", True), ("", True), ("allkeys-lru", False)],
)
def test_what_a_coordination_cluster_may_evict(evicts: str, fit: bool) -> None:
    assert (roles.coordination_findings(evicts) == []) is fit


@pytest.mark.parametrize(
    ("evicts", "fit"),
    [("noeviction", False), ("volatile-lru", False), ("", True), ("allkeys-lfu", True)],
)
def test_a_cache_that_does_not_evict_is_warned_of(evicts: str, fit: bool) -> None:
    found = roles.cache_findings(evicts)
    assert (found == []) is fit
    assert all(each.is_harmless for each in found)


def test_unsafe_is_said_and_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "langgraph_valkey"):
        roles.judge([Finding("not fit"), Finding("odd", is_harmless=True)], allow_unsafe=True)
    assert [each.message for each in caplog.records] == ["not fit", "odd"]


def test_all_that_is_unfit_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"one; two .*allow_unsafe"):
        roles.judge([Finding("one"), Finding("odd", True), Finding("two")], allow_unsafe=False)


def test_the_policy_is_asked_of_a_real_server(valkey: LocalValkey) -> None:
    settings = Settings.from_url(valkey.url, key_prefix=new_prefix())
    link = BlockingLink(settings)
    try:
        assert finish(roles.policy_of(link, settings)) == "noeviction"
        valkey.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        assert finish(roles.policy_of(link, settings)) == "volatile-lru"
    finally:
        valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        link.close()


def test_a_server_that_hides_its_policy_passes() -> None:
    """As one does whose user may not use INFO; the server in memory knows no INFO memory."""
    assert finish(roles.policy_of(MemoryLink(), Settings())) == ""


def checked(valkey: LocalValkey, *, must_answer: bool = True, **options: Any) -> None:
    """Look at clusters whose transient one is the server."""
    transient = Settings.from_url(valkey.url, key_prefix=new_prefix())
    link = BlockingLink(options.pop("at", transient))
    try:
        given = TierSettings(transient=transient, **options)
        roles.check(given, None, link, None, must_answer=must_answer)
    finally:
        link.close()


def test_a_cache_is_looked_at_and_may_be_away(
    valkey: LocalValkey, caplog: pytest.LogCaptureFixture
) -> None:
    checked(valkey, cache=Settings.from_url(valkey.url))
    assert "set maxmemory-policy to allkeys-lru" in caplog.text
    checked(valkey, cache=NOWHERE)
    assert "the cache cluster could not be looked at (Unreachable)" in caplog.text


def test_a_cluster_that_does_not_answer_is_an_error_where_it_must(
    valkey: LocalValkey, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Unreachable):
        checked(valkey, at=NOWHERE)
    checked(valkey, at=NOWHERE, must_answer=False)
    assert "is not known (Unreachable)" in caplog.text
