"""The proxy's faults, as cluster clients meet them, GLIDE's above all."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator

import glide_sync as glide
import pytest

from langgraph_valkey.errors import OutcomeUnknown, Unreachable
from langgraph_valkey.local import LocalCluster, LocalValkey, Node, RejectingProxy, ServerError
from langgraph_valkey.local.node import wait_until
from langgraph_valkey.local.proxy import THREAD_NAME
from langgraph_valkey.local.resp import command

SET = "return server.call('SET', KEYS[1], ARGV[1])"


@pytest.fixture(scope="module")
def target() -> Iterator[LocalValkey]:
    with LocalValkey() as server:
        yield server


@pytest.fixture
def proxy(target: LocalValkey) -> Iterator[RejectingProxy]:
    target.command("FLUSHALL")
    with RejectingProxy(target) as started:
        yield started


@pytest.fixture
def client(target: LocalValkey, proxy: RejectingProxy) -> Iterator[glide.GlideClusterClient]:
    """A cluster client that was told the server's own address only."""
    opened = open_client(target.port)
    yield opened
    opened.close()


def open_client(port: int, timeout_ms: int = 500) -> glide.GlideClusterClient:
    return glide.GlideClusterClient.create(
        glide.GlideClusterClientConfiguration(
            [glide.NodeAddress("127.0.0.1", port)], request_timeout=timeout_ms
        )
    )


def write(client: glide.GlideClusterClient, key: str) -> object:
    """One script call in a non-atomic batch, as our link sends it."""
    batch = glide.ClusterBatch(is_atomic=False).custom_command(["EVAL", SET, "1", key, "value"])
    replies = client.exec(batch, raise_on_error=True)
    return None if replies is None else replies[0]


def test_a_cluster_client_finds_its_way_to_the_proxy(
    proxy: RejectingProxy, client: glide.GlideClusterClient
) -> None:
    before = proxy.passed
    assert write(client, "key") == "OK"
    assert client.get("key") == b"value"
    assert proxy.passed >= before + 2


def test_refused_writes_come_back_at_once_and_reads_go_on(
    proxy: RejectingProxy, client: glide.GlideClusterClient, target: LocalValkey
) -> None:
    write(client, "key")
    proxy.reject()
    times_s = []
    for _ in range(20):
        started = time.perf_counter()
        with pytest.raises(glide.RequestError, match=r"(?i)cluster ?down"):
            write(client, "refused")
        times_s.append(time.perf_counter() - started)
        assert client.get("key") == b"value"
    # A quarter of GLIDE's own first retry step: it did not retry by itself.
    assert statistics.median(times_s) < 0.1
    assert proxy.rejected == 20
    assert target.command("EXISTS", "refused") == 0
    proxy.accept()
    assert write(client, "refused") == "OK"


def test_refusals_keep_their_place_among_pipelined_requests(proxy: RejectingProxy) -> None:
    proxy.reject("READONLY You can't write now")
    replies = command(proxy.port, "EVAL_RO", "return {1, 2}", 0)
    assert replies == [1, 2]
    with pytest.raises(ServerError, match="READONLY You can't write now"):
        command(proxy.port, "set", "key", 1)
    for name in ("EVALSHA", "FCALL", "HSET", "DEL", "EXPIRE"):
        assert proxy.is_write([name.encode()])
    for name in ("EVALSHA_RO", "GET", "HGETALL", "INFO", "PING", "CLUSTER"):
        assert not proxy.is_write([name.encode()])
    proxy.reject("BUSY now", matching=lambda request: request[0] == b"GET")
    assert command(proxy.port, "SET", "key", b"\r\n*1\r\n") == b"OK"
    with pytest.raises(ServerError, match="BUSY now"):
        command(proxy.port, "GET", "key")


def test_a_cut_after_execution_hides_that_it_was_executed(
    proxy: RejectingProxy, target: LocalValkey
) -> None:
    proxy.cut_next(executed=True, count=2)
    for key in ("a", "b"):
        with pytest.raises(OutcomeUnknown):
            command(proxy.port, "SET", key, 1)
        assert target.command("EXISTS", key) == 1
    assert command(proxy.port, "SET", "c", 1) == b"OK"


def test_a_cut_before_execution_loses_the_request(
    proxy: RejectingProxy, target: LocalValkey
) -> None:
    proxy.cut_next(executed=False)
    assert command(proxy.port, "GET", "a") is None
    with pytest.raises(OutcomeUnknown):
        command(proxy.port, "SET", "a", 1)
    assert target.command("EXISTS", "a") == 0
    assert command(proxy.port, "SET", "a", 1) == b"OK"


def test_a_cut_reaches_glide_as_a_lost_connection(
    proxy: RejectingProxy, client: glide.GlideClusterClient, target: LocalValkey
) -> None:
    write(client, "key")
    proxy.cut_next(executed=True)
    # GLIDE says so in two ways, of two classes.
    lost = r"(?i)broken ?pipe|receive"
    with pytest.raises((glide.ConnectionError, glide.RequestError), match=lost):
        write(client, "unknown")
    assert target.command("GET", "unknown") == b"value"
    assert wait_until(lambda: _answers(client), 5, poll_s=0.05)
    proxy.cut()
    assert wait_until(lambda: _answers(client), 5, poll_s=0.05)


def _answers(client: glide.GlideClusterClient) -> bool:
    try:
        return client.get("key") == b"value"
    except glide.GlideError:
        return False


@pytest.mark.parametrize("executed", [True, False])
def test_a_stall_delivers_late(proxy: RejectingProxy, target: LocalValkey, executed: bool) -> None:
    proxy.stall(requests=not executed)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(command(proxy.port, "SET", "late", 1)))
    asking.start()
    if executed:
        assert wait_until(lambda: target.command("EXISTS", "late") == 1, 5)
    asking.join(0.1)
    assert answers == []
    assert target.command("EXISTS", "late") == executed
    proxy.flow()
    asking.join(5)
    assert answers == [b"OK"]
    assert target.command("EXISTS", "late") == 1


def test_after_it_the_node_announces_itself_again(target: LocalValkey) -> None:
    with RejectingProxy(target) as proxy:
        assert proxy.url == f"valkey://127.0.0.1:{proxy.port}"
        assert seen_ports(target) == [proxy.port]
        assert command(proxy.port, "PING") == b"PONG"
        port = proxy.port
    assert seen_ports(target) == [target.port]
    assert wait_until(lambda: THREAD_NAME not in [t.name for t in threading.enumerate()], 5)
    with pytest.raises(Unreachable):
        command(port, "PING")
    with pytest.raises(Unreachable, match="not started"):
        _ = proxy.port


def test_one_shard_of_a_cluster_can_be_refused() -> None:
    with LocalCluster(shards=2, replicas=0) as cluster, RejectingProxy(cluster.primary(1)) as proxy:
        assert wait_until(lambda: proxy.port in seen_ports(cluster.nodes[0]), 5)
        client = open_client(cluster.nodes[0].port)
        keys = {cluster.shard_of(key): key for key in ("a", "b", "c", "d", "e")}
        proxy.reject()
        assert write(client, keys[0]) == "OK"
        with pytest.raises(glide.RequestError, match=r"(?i)cluster ?down"):
            write(client, keys[1])
        client.close()


def seen_ports(node: LocalValkey | Node) -> list[object]:
    """The ports of all primaries, as the node announces them."""
    slots = node.command("CLUSTER", "SLOTS")
    assert isinstance(slots, list)
    return [row[2][1] for row in slots]  # type: ignore[index]
