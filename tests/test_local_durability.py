"""The emulated durability keeps what it promises, and loses what it says.

Writes go through the doors that clients find (`Wire`), so they are refused and held
back as a client's would be; what is there is asked of the servers themselves.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from glide_sync import (
    ClusterBatch,
    GlideClusterClient,
    GlideClusterClientConfiguration,
    NodeAddress,
)

from langgraph_valkey.errors import ConfigurationError, LanggraphValkeyError
from langgraph_valkey.local import LocalCluster, RejectingProxy, ServerError
from langgraph_valkey.local import replication as replication_module
from langgraph_valkey.local.front import THREAD_NAME, Front, LoopThread
from langgraph_valkey.local.log import Log, Rule
from langgraph_valkey.local.node import wait_until
from langgraph_valkey.local.proxy import ANNOUNCE
from langgraph_valkey.local.resp import CLUSTERDOWN, command
from tests.door_wire import Wire, keys_of, mend, refused_after_s, surviving

BOUND_S = 0.6
FAST_MS = 500
"""Node timeout: a replica is promoted after about 1 s."""

LATE_S = 0.3
"""How much later than due something may happen on a busy machine."""

SHARDS = range(3)


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    with LocalCluster(durability="async", lag_bound_s=BOUND_S, node_timeout_ms=FAST_MS) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: LocalCluster) -> Iterator[LocalCluster]:
    """With async durability; made whole after each test."""
    yield shared
    mend(shared)


# --- async --------------------------------------------------------------------------


@pytest.mark.parametrize(("replicas", "crashes"), [(1, (70, 0)), (2, (55,))])
def test_a_crash_loses_exactly_what_was_not_persisted(
    replicas: int, crashes: tuple[int, ...]
) -> None:
    """In crash after crash, and what comes back follows through the new primary's door."""
    with LocalCluster(3, replicas, durability="async", node_timeout_ms=FAST_MS) as cluster:
        for survivors in crashes:
            old = cluster.primary(1)
            keys = keys_of(cluster, 1, 100)
            with Wire(old.port) as wire:
                for key in keys[:survivors]:
                    assert wire("SET", key, 1) == b"OK"
                cluster.hold_log(1)
                for key in keys[survivors:]:
                    assert wire("SET", key, 1) == b"OK"
                assert wait_until(lambda: cluster.lag_s(1) > 0, LATE_S)
            assert cluster.kill_primary(1) is old
            cluster.wait_healthy()
            new = cluster.primary(1)
            assert new is not old
            assert surviving(new, keys) == keys[:survivors]
            cluster.restart_node(old)
            cluster.wait_healthy()
            cluster.wait_replicated(1)
            assert cluster.lag_s(1) == 0.0


def test_writes_are_refused_beyond_the_bound_and_reads_go_on(cluster: LocalCluster) -> None:
    node, [key] = cluster.primary(0), keys_of(cluster, 0, 1)
    other, [elsewhere] = cluster.primary(1), keys_of(cluster, 1, 1)
    cluster.hold_log(0)
    taken_s = refused_after_s(node, key, BOUND_S + LATE_S)
    assert taken_s >= BOUND_S
    assert BOUND_S <= cluster.lag_s(0) < BOUND_S + LATE_S
    with Wire(node.port) as wire:
        script = "return server.call('GET', KEYS[1])"
        assert wire("GET", key) == wire("EVAL_RO", script, 1, key) == b"late"
        for write in (("DEL", key), ("EVAL", script, 1, key)):
            with pytest.raises(ServerError, match="CLUSTERDOWN"):
                wire(*write)
        # Several under way: each gets its own answer, in its turn.
        assert wire.pipeline(("GET", key), ("SET", key, 2), ("PING",)) == [
            b"late",
            CLUSTERDOWN,
            b"PONG",
        ]
        with Wire(other.port) as another:
            assert another("SET", elsewhere, 1) == b"OK"
        cluster.release_log(0)
        assert cluster.lag_s(0) == 0.0
        assert wire("SET", key, 3) == b"OK"
    cluster.wait_replicated(0)
    cluster.kill_primary(0)
    cluster.wait_healthy()
    assert cluster.primary(0).command("GET", key) == b"3"


def test_a_transaction_is_refused_as_a_whole(cluster: LocalCluster) -> None:
    node, [key] = cluster.primary(0), keys_of(cluster, 0, 1)
    with Wire(node.port) as wire:
        cluster.hold_log(0)
        refused_after_s(node, key, BOUND_S + LATE_S)
        answers = wire.pipeline(("MULTI",), ("SET", key, "x"), ("GET", key), ("EXEC",))
        assert answers == [b"OK", b"QUEUED", b"QUEUED", CLUSTERDOWN]
        assert wire("GET", key) == b"late"
        assert wire.pipeline(("MULTI",), ("GET", key), ("EXEC",))[-1] == [b"late"]
        cluster.release_log(0)
        assert wire.pipeline(("MULTI",), ("SET", key, "x"), ("EXEC",))[-1] == [b"OK"]


def test_a_constant_lag_below_the_bound_only_loses_its_own_time(cluster: LocalCluster) -> None:
    lag_s = BOUND_S / 2
    cluster.set_lag(0, lag_s)
    node, keys = cluster.primary(0), keys_of(cluster, 0, 120)
    at_s = []
    with Wire(node.port) as wire:
        for key in keys:
            assert wire("SET", key, 1) == b"OK"
            at_s.append(time.monotonic())
            time.sleep(0.01)
    assert lag_s - 0.1 < cluster.lag_s(0) < lag_s + LATE_S
    killed_s = time.monotonic()
    cluster.kill_primary(0)
    cluster.wait_healthy()
    there = surviving(cluster.primary(0), keys)
    assert there == keys[: len(there)]
    lost_s = killed_s - at_s[len(there)]
    assert lag_s - 0.1 < lost_s < lag_s + LATE_S


def test_a_constant_lag_above_the_bound_refuses_until_it_has_caught_up(
    cluster: LocalCluster,
) -> None:
    cluster.set_lag(0, BOUND_S * 1.5)
    node, [key] = cluster.primary(0), keys_of(cluster, 0, 1)
    assert refused_after_s(node, key, BOUND_S + LATE_S) >= BOUND_S
    refused_s = time.monotonic()
    with Wire(node.port) as wire:
        while True:
            with contextlib.suppress(ServerError):
                wire("SET", key, "again")
                break
            time.sleep(0.01)
    # The last write before the refusal has to be persisted first, and that takes the lag.
    assert BOUND_S * 0.3 < time.monotonic() - refused_s < BOUND_S * 1.5 + LATE_S


def test_a_replication_ping_is_no_write(cluster: LocalCluster) -> None:
    node = cluster.primary(0)
    node.command("CONFIG", "SET", "repl-ping-replica-period", 1)
    cluster.hold_log(0)
    before = node.info("INFO", "replication")["master_repl_offset"]
    time.sleep(1.5)
    assert node.info("INFO", "replication")["master_repl_offset"] != before
    assert cluster.lag_s(0) == 0.0
    node.command("CONFIG", "SET", "repl-ping-replica-period", 3600)


def test_without_a_replica_nothing_is_persisted(cluster: LocalCluster) -> None:
    old = cluster.kill_primary(2)
    cluster.wait_healthy()
    node, [key] = cluster.primary(2), keys_of(cluster, 2, 1)
    assert refused_after_s(node, key, BOUND_S + LATE_S) >= BOUND_S
    cluster.restart_node(old)
    cluster.wait_healthy()
    assert cluster.lag_s(2) == 0.0
    assert command(node.port, "SET", key, 1) == b"OK"


def test_a_crash_waits_for_a_replica_that_is_being_set_up(cluster: LocalCluster) -> None:
    keys = keys_of(cluster, 0, 50)
    node = cluster.primary(0)
    for key in keys:
        node.command("SET", key, 1)
    cluster.restart_node(cluster.replicas(0)[0])
    cluster.kill_primary(0)
    cluster.wait_healthy()
    assert surviving(cluster.primary(0), keys) == keys


def test_planned_and_forced_failovers_go_on_working(cluster: LocalCluster) -> None:
    keys = iter(keys_of(cluster, 1, 12))
    for failover in (cluster.promote, cluster.force_failover) * 3:
        old, kept, lost = cluster.primary(1), next(keys), next(keys)
        assert command(old.port, "SET", kept, 1) == b"OK"
        if failover == cluster.force_failover:
            cluster.hold_log(1)
            assert command(old.port, "SET", lost, 1) == b"OK"
        new = failover(1)
        assert new is not old
        assert surviving(new, [kept, lost]) == [kept]
        assert command(new.port, "SET", lost, 1) == b"OK"
        cluster.wait_replicated(1)
        assert cluster.lag_s(1) == 0.0


def test_what_is_held_is_bounded(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication_module, "HELD_BYTES_MOST", 100_000)
    node, keys = cluster.primary(0), keys_of(cluster, 0, 100)
    cluster.hold_log(0)
    with Wire(node.port) as wire:
        for key in keys:
            assert wire("SET", key, b"x" * 100_000) == b"OK"
    [follower] = cluster._doors.of(node).log.followers  # type: ignore[union-attr]
    assert follower.held.size < 1_000_000
    cluster.release_log(0)
    cluster.wait_replicated(0)
    with Wire(cluster.replicas(0)[0].port) as wire:
        assert wire("READONLY") == b"OK"
        assert wire("EXISTS", *keys) == len(keys)


# --- clients, and life --------------------------------------------------------------


@pytest.mark.parametrize(("mode", "replicas"), [("async", 1), ("sync", 2)])
def test_a_glide_client_finds_the_doors_and_survives_failovers(mode: str, replicas: int) -> None:
    with ExitStack() as stack:
        cluster = LocalCluster(3, replicas, durability=mode, lag_bound_s=5)  # type: ignore[arg-type]
        stack.enter_context(cluster)
        # It is told one address only, and learns the others from the servers.
        addresses = [NodeAddress("127.0.0.1", cluster.nodes[0].port)]
        settings = GlideClusterClientConfiguration(addresses, request_timeout=500)
        client = GlideClusterClient.create(settings)
        stack.callback(client.close)
        keys = iter(keys_of(cluster, 0, 5000))
        acknowledged = [acknowledged_key(client, keys)]
        for failover in (cluster.promote, cluster.force_failover, cluster.kill_primary):
            cluster.wait_replicated(0)
            failover(0)
            cluster.wait_healthy()
            acknowledged.append(acknowledged_key(client, keys))
        assert surviving(cluster.primary(0), acknowledged) == acknowledged


def acknowledged_key(client: GlideClusterClient, keys: Iterator[str]) -> str:
    """The first key that could be written; it may take until a failover is noticed."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        key = next(keys)
        batch = ClusterBatch(is_atomic=False)
        batch.set(key, "1")
        with contextlib.suppress(Exception):
            assert client.exec(batch, raise_on_error=True) == ["OK"]
            return key
        time.sleep(0.02)
    raise AssertionError("no write was accepted within 10 s")


def test_nothing_is_left_behind() -> None:
    before = {thread for thread in threading.enumerate() if thread.name == THREAD_NAME}
    with LocalCluster(1, 1, durability="async") as cluster:
        [own] = {t for t in threading.enumerate() if t.name == THREAD_NAME} - before
        ports = [node.port for node in cluster.nodes]
        wire = Wire(ports[0])
        assert wire("PING") == b"PONG"
    assert not own.is_alive()
    with pytest.raises((EOFError, OSError)), wire:
        wire("PING")
    for port in ports:
        with pytest.raises(LanggraphValkeyError):
            command(port, "PING")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_keeps_no_connection_alive(cluster: LocalCluster) -> None:
    reading, writing = os.pipe()
    with Wire(cluster.primary(2).port, timeout_s=2) as wire:
        assert wire("PING") == b"PONG"
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        try:
            cluster.kill_primary(2)
            with pytest.raises((EOFError, ConnectionError)):
                wire("PING")
            cluster.wait_healthy()
        finally:
            os.close(writing)
            os.close(reading)
            os.waitpid(child, 0)


def test_another_proxy_may_stand_before_a_door(cluster: LocalCluster) -> None:
    node, [key] = cluster.primary(1), keys_of(cluster, 1, 1)
    announced = node.command("CONFIG", "GET", ANNOUNCE)
    with RejectingProxy(node) as proxy, Wire(proxy.port) as wire:
        cluster.hold_log(1)
        refused_after_s(node, key, BOUND_S + LATE_S)
        assert wire.pipeline(("SET", key, 1)) == [CLUSTERDOWN]
        assert node.command("CONFIG", "GET", ANNOUNCE) != announced
    assert node.command("CONFIG", "GET", ANNOUNCE) == announced


def test_nobody_is_left_standing_in_a_door_that_closes() -> None:
    """What leaks shows as a warning, as soon as it is collected."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as leaving:
        for number in range(30):
            thread = LoopThread()
            front = Front(thread, server.getsockname()[1], Log(Rule("async"), number))
            front.open()
            for _ in range(3):
                coming = socket.create_connection(("127.0.0.1", front.client_port))
                leaving.enter_context(coming)
            front.close()
            thread.stop()
    gc.collect()


def test_a_cluster_without_durability_has_no_log() -> None:
    plain = LocalCluster(1, 0)
    with plain, pytest.raises(ConfigurationError, match="durability='async'"):
        plain.hold_log(0)


@pytest.mark.parametrize(
    "settings",
    [
        {"durability": "eventual"},
        {"durability": "async", "lag_bound_s": 0},
        {"durability": "async", "sloppy_s": -1},
        {"durability": "sync", "clock_rate": 0},
    ],
)
def test_senseless_rules_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigurationError):
        LocalCluster(**settings)
