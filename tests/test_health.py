"""What `health()` tells under each durability, and what AWS has to say in it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import create_autospec

import pytest

from langgraph_valkey import ValkeySaver, limits, session
from langgraph_valkey.aws import ElastiCache, NodeLag
from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local import LocalCluster, LocalValkey
from tests.faces import FACES
from tests.failover_ground import join, mend, threads_in, until


@pytest.fixture
def plain(failover_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Without durability; made whole after each test."""
    yield failover_cluster
    mend(failover_cluster)


# --- by durability --------------------------------------------------------------------


@pytest.mark.parametrize("told", ["disabled", "unknown"])
async def test_replicas_tell_how_far_they_are(told: str, plain: LocalCluster, prefix: str) -> None:
    """Without durability, or where it is not known and the server is a plain one."""
    kind = FACES[len(told) % 2]
    async with join(kind, plain.url, key_prefix=prefix, durability=told) as party:
        [thread] = threads_in(plain, prefix, 0, 1)
        await party.step(thread)
        await until(party.is_durable)
        await asyncio.to_thread(plain.hold_replication, 0, 60_000)
        await party.step(thread)
        await until(lambda: (party.saver.health().shards[0].lag_s or 0) > 0.3)
        health = party.saver.health()
        if told == "unknown":
            assert (health.durability, health.durability_from) == ("none", "server")
        else:
            assert (health.durability, health.durability_from) == (told, "settings")
        [shard] = health.shards
        assert shard.identity == plain.primary(0).info("INFO", "replication")["master_replid"]
        assert (shard.journal_entries, health.journal_entries) == (2, 2)
        assert shard.journal_bytes == health.journal_bytes > 0
        assert shard.watermark_age_s is not None
        assert shard.watermark_age_s > 0.3
        plain.release_replication(0)
        await until(party.is_durable)
        [shard] = party.saver.health().shards
        assert (shard.journal_entries, shard.journal_bytes) == (0, 0)
        assert shard.lag_s is not None
        assert shard.lag_s < 0.3
        assert shard.watermark_age_s is not None
        assert shard.watermark_age_s < 1


async def test_with_async_durability_the_watermark_tells(
    kind: str, valkey: LocalValkey, prefix: str
) -> None:
    """What was written leaves the journal 1.6 to 2.4 bounds later, and not before."""
    async with join(kind, valkey.url, key_prefix=prefix, lag_bound_s=0.5) as party:
        await party.step("t")
        [shard] = party.saver.health().shards
        assert (shard.journal_entries, shard.watermark_age_s) == (2, None)
        assert shard.journal_bytes > 0
        took_s = await until(party.is_durable)
        assert 1.6 * 0.5 <= took_s < 2.4 * 0.5 + 0.3
        health = party.saver.health()
        assert (health.durability, health.durability_from) == ("async", "settings")
        assert (health.journal_bytes, health.uncovered, health.recoveries) == (0, 0, 0)
        [shard] = health.shards
        assert shard.watermark_age_s is not None
        assert took_s - 0.3 < shard.watermark_age_s < 2.4 * 0.5 + 0.3
        assert shard.rejecting_s is None
        assert shard.last_recovery is None


@pytest.mark.parametrize("settings", [{"durability": "sync"}, {"replay": False}])
async def test_what_needs_no_journal_has_none(
    kind: str, settings: dict[str, Any], valkey: LocalValkey, prefix: str
) -> None:
    async with join(kind, valkey.url, key_prefix=prefix, **settings) as party:
        await party.step("t", "u", "t")
        health = party.saver.health()
        assert (health.journal_entries, health.journal_bytes) == (0, 0)
        await party.twin.check()


async def test_a_failover_shows(kind: str, prefix: str) -> None:
    with LocalValkey() as server:
        async with join(kind, server.url, key_prefix=prefix) as party:
            await party.step("t")
            server.kill()
            server.restart()
            await until(lambda: party.reports)
            health = party.saver.health()
            assert health.recoveries == 1
            assert [each.last_recovery for each in health.shards] == party.reports


# --- by AWS ---------------------------------------------------------------------------


class Aws:
    """What AWS says, behind the real class's signatures.

    Attributes:
        group: What the saver asks.
        made: The class it is made of.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = create_autospec(ElastiCache)
        self.group = self.made.return_value
        self.group.durability.return_value = "sync"
        self.group.lag.return_value = ()
        monkeypatch.setattr(session, "ElastiCache", self.made)
        monkeypatch.setattr(limits, "REREAD_S", 0.05)
        monkeypatch.setattr(limits, "REREAD_LAG_S", 0.05)

    async def asked_again(self, what: str = "durability") -> None:
        """Wait until the answer of two more questions is known."""
        question = getattr(self.group, what)
        count = question.call_count
        await until(lambda: question.call_count >= count + 2)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Aws:
    return Aws(monkeypatch)


AWS: dict[str, Any] = {
    "aws_replication_group": "agents",
    "aws_region": "eu-west-1",
}


async def test_a_live_switch_of_durability(told: Aws, valkey: LocalValkey, prefix: str) -> None:
    """Sync is believed up to the last question; async leaves all to the watermark; and back."""
    async with join("async", valkey.url, key_prefix=prefix, durability="unknown", **AWS) as party:
        await party.step("t")
        await until(party.is_durable)
        health = party.saver.health()
        assert (health.durability, health.durability_from) == ("sync", "aws")
        # Once the moment of the first "sync" is behind the watermark, its word is enough.
        await party.step("t")
        assert await until(party.is_durable) < 0.5

        told.group.durability.return_value = "async"
        await told.asked_again()
        await party.step("t")
        assert party.saver.health().durability == "async"
        told.group.durability.return_value = "sync"
        await told.asked_again()
        assert party.saver.health().durability == "sync"
        await told.asked_again()
        # It was acknowledged with async: told twice, it still waits.
        assert party.saver.health().journal_entries == 2
        assert await until(party.is_durable) > 0.3
        told.made.assert_called_once_with("agents", region="eu-west-1")


async def test_aws_tells_how_far_logs_lag(
    told: Aws, three_shards: LocalCluster, prefix: str
) -> None:
    """The most of the shard's nodes; nothing for whom it has no sample, or gives no answer."""
    told.group.durability.return_value = "async"
    told.group.lag.return_value = (
        NodeLag("agents-1", "0001", "0001", "0-5460", lag_s=2.5, age_s=60.0),
        NodeLag("agents-2", "0001", "0001", "0-5460", lag_s=1.5, age_s=60.0),
        NodeLag("agents-3", "0001", "0001", "0-5460"),
        NodeLag("agents-4", "0001", "0002", "5461-10922"),
    )
    async with join("sync", three_shards.url, key_prefix=prefix, **AWS) as party:
        threads = [threads_in(three_shards, prefix, shard, 1)[0] for shard in range(3)]
        await party.step(*threads)
        await told.asked_again("lag")
        lags_s = {each.identity: each.lag_s for each in party.saver.health().shards}
        identities = [
            three_shards.primary(shard).info("INFO", "replication")["master_replid"]
            for shard in range(3)
        ]
        assert [lags_s[each] for each in identities] == [2.5, None, None]
        told.group.lag.side_effect = Unreachable("AWS is busy")
        await until(lambda: not any(each.lag_s for each in party.saver.health().shards))


async def test_that_aws_does_not_answer_is_said_once(
    told: Aws, valkey: LocalValkey, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    told.group.durability.side_effect = told.group.lag.side_effect = Unreachable("AWS is busy")
    async with join("sync", valkey.url, key_prefix=prefix, **AWS) as party:
        await party.step("t")
        await told.asked_again()
        health = party.saver.health()
        assert (health.durability, health.durability_from) == ("async", "settings")
    said = [each for each in caplog.records if "AWS is busy" in each.getMessage()]
    assert [each.levelno for each in said] == [logging.WARNING] * 2


def test_a_missing_library_is_said_when_the_saver_is_made(
    valkey: LocalValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(ConfigurationError, match="aws"):
        ValkeySaver.from_url(valkey.url, aws_replication_group="agents")
