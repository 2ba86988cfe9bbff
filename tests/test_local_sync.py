"""With sync durability no acknowledged write is lost, whenever the crash comes."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from langgraph_valkey.errors import LanggraphValkeyError, OutcomeUnknown
from langgraph_valkey.local import LocalCluster, ServerError
from langgraph_valkey.local.node import wait_until
from langgraph_valkey.local.resp import command
from tests.door_wire import Wire, keys_of, mend, surviving

BOUND_S = 0.6
LATE_S = 0.3


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalCluster]:
    with LocalCluster(durability="sync", lag_bound_s=BOUND_S, node_timeout_ms=500) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: LocalCluster) -> Iterator[LocalCluster]:
    """Made whole after each test."""
    yield shared
    mend(shared)


def test_sync_loses_no_acknowledged_write_when_killed_in_the_middle(
    cluster: LocalCluster,
) -> None:
    acknowledged, sent = hammer_and_kill(cluster, 0)
    assert len(acknowledged) > 100
    assert len(acknowledged) < len(sent), "the kill was not in the middle of anything"
    assert surviving(cluster.primary(0), acknowledged) == acknowledged


def hammer_and_kill(cluster: LocalCluster, shard: int) -> tuple[list[str], list[str]]:
    """Write from several threads, in pipelines too, while the primary is killed.

    Returns:
        The keys that were acknowledged, and all that were sent.
    """
    port = cluster.primary(shard).port
    fresh = iter(keys_of(cluster, shard, 20_000))
    lock = threading.Lock()
    acknowledged: list[str] = []
    sent: list[str] = []

    def write(burst: int) -> None:
        with contextlib.suppress(LanggraphValkeyError, OSError, EOFError), Wire(port) as wire:
            while True:
                with lock:
                    mine = list(itertools.islice(fresh, burst))
                    sent.extend(mine)
                wire.send(*(("SET", key, 1) for key in mine))
                for key in mine:
                    assert wire.receive() == b"OK"
                    acknowledged.append(key)

    threads = [threading.Thread(target=write, args=(burst,)) for burst in (1, 1, 5, 20)]
    for thread in threads:
        thread.start()
    time.sleep(0.25)
    cluster.kill_primary(shard)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    cluster.wait_healthy()
    return acknowledged, sent


def test_sync_acknowledges_nothing_while_the_log_stands_still(cluster: LocalCluster) -> None:
    node, keys = cluster.primary(0), keys_of(cluster, 0, 4)
    cluster.hold_log(0)
    with Wire(node.port) as wire, Wire(node.port) as reader:
        began_s = time.monotonic()
        wire.send(("SET", keys[0], 1), ("GET", keys[0]))
        assert reader("GET", keys[1]) is None
        with pytest.raises((EOFError, OSError)):
            wire.receive()
        assert BOUND_S <= time.monotonic() - began_s < BOUND_S + LATE_S
        assert wait_until(lambda: cluster.lag_s(0) > BOUND_S, LATE_S)
        with pytest.raises(ServerError, match="CLUSTERDOWN"):
            reader("SET", keys[1], 1)
    cluster.release_log(0)
    assert command(node.port, "SET", keys[2], 1) == b"OK"
    cluster.hold_log(0)
    late = threading.Timer(0.3, cluster.release_log, (0,))
    late.start()
    began_s = time.monotonic()
    assert command(node.port, "SET", keys[3], 1) == b"OK"
    assert time.monotonic() - began_s > 0.2
    late.join()


def test_sync_waits_for_transactions_and_scripts(cluster: LocalCluster) -> None:
    node, keys = cluster.primary(0), keys_of(cluster, 0, 2)
    script = "return server.call('SET', KEYS[1], 1)"
    calls: list[tuple] = [("MULTI",), ("SET", keys[0], 1), ("EXEC",), ("EVAL", script, 1, keys[1])]
    with Wire(node.port) as wire:
        assert wire.pipeline(*calls) == [b"OK", b"QUEUED", [b"OK"], b"OK"]
        cluster.hold_log(0)
        with Wire(node.port) as another:
            another.send(("SET", keys[0], 2), ("MULTI",))
            wire.send(("SET", keys[0], 2), *calls)
            for held_back in (wire, another):
                with pytest.raises((EOFError, OSError)):
                    held_back.receive()
    cluster.kill_primary(0)
    cluster.wait_healthy()
    assert cluster.primary(0).command("GET", keys[0]) == b"1"


def test_a_frozen_replica_holds_sync_writes_back(cluster: LocalCluster) -> None:
    [replica] = cluster.replicas(1)
    node, [key] = cluster.primary(1), keys_of(cluster, 1, 1)
    replica.freeze()
    with pytest.raises(OutcomeUnknown):
        command(node.port, "SET", key, 1)
    replica.thaw()
    cluster.wait_healthy()
    assert command(node.port, "SET", key, 1) == b"OK"


def test_nothing_is_acknowledged_on_the_wrong_side_of_a_split(cluster: LocalCluster) -> None:
    keys = keys_of(cluster, 2, 2)
    with Wire(cluster.primary(2).port) as wire:
        assert wire("SET", keys[0], 1) == b"OK"
        old = cluster.split_primary(2, unbounded=True)
        wire.send(("SET", keys[1], 1))
        with pytest.raises((EOFError, OSError)):
            wire.receive()
    assert surviving(old, keys) == keys
    cluster.heal(2)
    assert surviving(cluster.primary(2), keys) == keys[:1]
