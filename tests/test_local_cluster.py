"""The local cluster's faults do what they say, no more and no less."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator

import pytest

from langgraph_valkey.errors import ConfigurationError, OutcomeUnknown, Unreachable
from langgraph_valkey.local import LocalCluster, Node, ServerError
from langgraph_valkey.local.topology import SLOTS, shard_of_slot, slot_range

HOLD_MS = 60_000
SHARDS = range(3)


@pytest.fixture
def cluster(failover_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The shared one, made whole after each test."""
    yield failover_cluster
    for shard in SHARDS:
        failover_cluster.resume(shard)
    for node in failover_cluster.nodes:
        if not node.running:
            failover_cluster.restart_node(node)
    failover_cluster.wait_healthy()
    for shard in SHARDS:
        failover_cluster.release_replication(shard)
        failover_cluster.accept_writes(shard)


def new_key(cluster: LocalCluster, shard: int) -> str:
    """A key that no one else uses and that lives in the shard."""
    while True:
        key = os.urandom(8).hex()
        if cluster.shard_of(key) == shard:
            return key


def replid(node: Node) -> str:
    return node.info("INFO", "replication")["master_replid"]


# --- shape --------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 64])
def test_slots_are_dealt_out_evenly_and_whole(shards: int) -> None:
    ranges = [slot_range(shard, shards) for shard in range(shards)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == SLOTS - 1
    assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(ranges))
    for shard, (first, last) in enumerate(ranges):
        assert shard_of_slot(first, shards) == shard_of_slot(last, shards) == shard
        assert abs((last - first + 1) - SLOTS / shards) < 1


def test_each_key_is_where_it_is_said_to_be(three_shards: LocalCluster) -> None:
    for _ in range(30):
        key = os.urandom(8).hex()
        # Any other node would answer MOVED.
        assert three_shards.primary(three_shards.shard_of(key)).command("SET", key, 1) == b"OK"
    assert len(three_shards.nodes) == 3
    assert three_shards.url == "valkey://" + ",".join(node.address for node in three_shards.nodes)


def test_every_shard_has_a_primary_and_a_replica(cluster: LocalCluster) -> None:
    for shard in SHARDS:
        both = {cluster.primary(shard), *cluster.replicas(shard)}
        assert both == {node for node in cluster.nodes if node.shard == shard}
        assert len(both) == 2


async def test_it_is_an_async_context_manager_too() -> None:
    cluster = LocalCluster(shards=1, replicas=2)
    async with cluster:
        pids = [node.pid for node in cluster.nodes]
        assert all(pids)
        assert len(cluster.replicas(0)) == 2
        directories = [node.directory for node in cluster.nodes]
        await asyncio.to_thread(cluster.promote, 0)
    assert cluster.nodes == ()
    assert not any(directory.exists() for directory in directories)
    with pytest.raises(Unreachable, match="not started"):
        _ = cluster.url


def test_senseless_sizes_are_refused() -> None:
    for shards, replicas in ((0, 1), (65, 0), (1, -1), (1, 6)):
        with pytest.raises(ConfigurationError):
            LocalCluster(shards, replicas)


def test_options_reach_every_node_and_a_wrong_one_leaves_nothing() -> None:
    with LocalCluster(1, 1, node_timeout_ms=1234, options={"maxmemory": "32mb"}) as cluster:
        for node in cluster.nodes:
            assert node.command("CONFIG", "GET", "maxmemory")[1] == b"33554432"  # type: ignore[index]
            assert node.command("CONFIG", "GET", "cluster-node-timeout")[1] == b"1234"  # type: ignore[index]
    broken = LocalCluster(2, 0, options={"no-such-option": "1"})
    with pytest.raises(ConfigurationError, match="no-such-option"):
        broken.start()
    assert broken.nodes == ()


# --- faults -------------------------------------------------------------------------


def test_what_is_written_under_a_hold_dies_with_the_primary(cluster: LocalCluster) -> None:
    shard = 0
    old = cluster.primary(shard)
    before = [new_key(cluster, shard) for _ in range(50)]
    lost = [new_key(cluster, shard) for _ in range(50)]
    for key in before:
        old.command("SET", key, 1)
    cluster.hold_replication(shard, HOLD_MS)
    for key in lost:
        assert old.command("SET", key, 1) == b"OK"
    with pytest.raises(TimeoutError, match="lag"):
        cluster.wait_replicated(shard, 0.05)
    identity = replid(old)
    assert cluster.kill_primary(shard) is old
    cluster.wait_healthy()
    new = cluster.primary(shard)
    assert new is not old
    assert replid(new) != identity
    assert (having(new, before), having(new, lost)) == (50, 0)
    # The hold is over: the new primary takes writes.
    assert new.command("SET", lost[0], 1) == b"OK"


def having(node: Node, keys: list[str]) -> int:
    """How many of the keys the node has; asked one by one, as they are of many slots."""
    return sum(node.command("EXISTS", key) == 1 for key in keys)


def test_a_killed_node_comes_back_as_replica_with_the_data(cluster: LocalCluster) -> None:
    shard = 1
    key = new_key(cluster, shard)
    old = cluster.kill_primary(shard)
    with pytest.raises(TimeoutError, match="not healthy"):
        cluster.wait_healthy(0.1)
    cluster.wait_healthy()
    new = cluster.primary(shard)
    new.command("SET", key, 1)
    port = old.port
    cluster.restart_node(old)
    cluster.wait_healthy()
    assert cluster.primary(shard) is new
    assert cluster.replicas(shard) == (old,)
    assert old.port == port
    cluster.wait_replicated(shard)
    assert cluster.promote(shard) is old
    assert old.command("GET", key) == b"1"


def test_a_frozen_primary_is_replaced_and_comes_back_as_replica(cluster: LocalCluster) -> None:
    shard = 2
    old = cluster.freeze_primary(shard)
    with pytest.raises(OutcomeUnknown):
        old.command("PING", timeout_s=0.1)
    with pytest.raises(Unreachable, match="leads shard 2"):
        cluster.primary(shard)
    cluster.wait_healthy()
    new = cluster.primary(shard)
    assert new is not old
    cluster.resume(shard)
    cluster.wait_healthy()
    assert cluster.replicas(shard) == (old,)


def test_a_planned_failover_loses_nothing(cluster: LocalCluster) -> None:
    shard = 0
    old = cluster.primary(shard)
    identity = replid(old)
    key = new_key(cluster, shard)
    old.command("SET", key, "kept")
    new = cluster.promote(shard)
    assert new is cluster.primary(shard) is not old
    assert new.command("GET", key) == b"kept"
    assert replid(new) != identity
    assert cluster.replicas(shard) == (old,)


@pytest.mark.parametrize("takeover", [False, True])
def test_a_forced_failover_loses_what_was_held(cluster: LocalCluster, takeover: bool) -> None:
    shard = 1
    old = cluster.primary(shard)
    key = new_key(cluster, shard)
    cluster.hold_replication(shard, HOLD_MS)
    assert old.command("SET", key, "lost") == b"OK"
    new = cluster.force_failover(shard, takeover=takeover)
    assert new is not old
    assert new.command("GET", key) is None
    assert new.command("SET", key, "new") == b"OK"
    assert cluster.replicas(shard) == (old,)


def test_a_hold_alone_loses_nothing(cluster: LocalCluster) -> None:
    shard = 2
    key = new_key(cluster, shard)
    cluster.hold_replication(shard, HOLD_MS)
    cluster.primary(shard).command("SET", key, "kept")
    cluster.release_replication(shard)
    cluster.wait_replicated(shard)
    cluster.kill_primary(shard)
    cluster.wait_healthy()
    assert cluster.primary(shard).command("GET", key) == b"kept"


def test_rejected_writes_leave_reads_alone(cluster: LocalCluster) -> None:
    shard = 0
    key, other = new_key(cluster, shard), new_key(cluster, 1)
    primary = cluster.primary(shard)
    primary.command("SET", key, "value")
    cluster.reject_writes(shard)
    for write in (("SET", key, "x"), ("EVAL", "return server.call('DEL', KEYS[1])", 1, key)):
        with pytest.raises(ServerError, match="Not enough good replicas") as caught:
            primary.command(*write)
        assert caught.value.code == "NOREPLICAS"
    read = "return server.call('GET', KEYS[1])"
    assert primary.command("GET", key) == primary.command("EVAL", read, 1, key) == b"value"
    assert cluster.primary(1).command("SET", other, 1) == b"OK"
    cluster.accept_writes(shard)
    assert primary.command("SET", key, "x") == b"OK"


def test_a_shard_without_replica_cannot_fail_over(three_shards: LocalCluster) -> None:
    for failover in (three_shards.promote, three_shards.force_failover):
        with pytest.raises(ConfigurationError, match="no running replica"):
            failover(0)
    assert three_shards.replicas(0) == ()
