"""What AWS tells, against botocore's model of its services and a server that plays them.

The model knows every field but answers what a test says; the server answers by
itself but knows nothing of durability. Both run here: no question leaves 127.0.0.1,
and the credentials are made up and given to each client.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from boto3.session import Session
from botocore.config import Config
from botocore.credentials import CredentialResolver
from botocore.session import Session as BotocoreSession
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer

from langgraph_valkey import aws
from langgraph_valkey.aws import ElastiCache, NodeLag
from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.node import free_ports

GROUP = "agents"
Queries = list[list[dict[str, Any]]]


def client(service: str, port: int, **arguments: Any) -> Any:
    """A boto3 client that can reach nothing but a port of this machine."""
    session = Session("made-up", "made-up", region_name="eu-west-1")
    config = Config(retries={"total_max_attempts": 1}, **arguments)
    return session.client(service, endpoint_url=f"http://127.0.0.1:{port}", config=config)


@pytest.fixture(scope="module")
def elasticache() -> Iterator[Any]:
    with closing(client("elasticache", 1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def cloudwatch() -> Iterator[Any]:
    with closing(client("cloudwatch", 1)) as opened:
        yield opened


@pytest.fixture
def described(elasticache: Any) -> Iterator[Stubber]:
    """Answers of ElastiCache; each must be fetched."""
    with Stubber(elasticache) as stub:
        yield stub
        stub.assert_no_pending_responses()


@pytest.fixture
def measured(cloudwatch: Any) -> Iterator[Stubber]:
    """Answers of CloudWatch; each must be fetched."""
    with Stubber(cloudwatch) as stub:
        yield stub
        stub.assert_no_pending_responses()


@pytest.fixture
def group(elasticache: Any, cloudwatch: Any, described: Stubber, measured: Stubber) -> ElastiCache:
    """The group, as the answers that a test writes have it."""
    return ElastiCache(GROUP, elasticache=elasticache, cloudwatch=cloudwatch)


def describe(stub: Stubber, **fields: Any) -> None:
    stub.add_response(
        "describe_replication_groups",
        {"ReplicationGroups": [{"ReplicationGroupId": GROUP, **fields}]},
        {"ReplicationGroupId": GROUP},
    )


def shards(count: int, nodes: int = 2) -> list[dict[str, Any]]:
    """Node groups as AWS describes them, with equal shares of the slots."""
    share = 16_384 // count
    return [
        {
            "NodeGroupId": f"{shard:04}",
            "Slots": f"{(shard - 1) * share}-{shard * share - 1}",
            "NodeGroupMembers": [
                {"CacheClusterId": f"{GROUP}-{shard:04}-{node:03}", "CacheNodeId": "0001"}
                for node in range(1, nodes + 1)
            ],
        }
        for shard in range(1, count + 1)
    ]


# --- durability ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_force", "asked_for", "durability"),
    [
        ("async", "async", "async"),
        ("sync", "sync", "sync"),
        ("disabled", "default", "disabled"),
        ("sync", "default", "sync"),
        ("async", "", "async"),
        # It is being changed: the weaker counts.
        ("sync", "async", "async"),
        ("async", "sync", "async"),
        ("async", "disabled", "disabled"),
        ("disabled", "sync", "disabled"),
        # AWS does not say, or a word that this release does not know.
        ("strong", "sync", "unknown"),
        ("", "sync", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_durability(
    group: ElastiCache, described: Stubber, in_force: str, asked_for: str, durability: str
) -> None:
    describe(described, EffectiveDurability="async")
    assert group.durability() == "async"
    # It is asked for each time.
    fields = {"EffectiveDurability": in_force, "Durability": asked_for}
    describe(described, **{name: value for name, value in fields.items() if value})
    assert group.durability() == durability


def test_botocore_knows_the_fields(elasticache: Any) -> None:
    """An older one drops them from each answer, and every cluster would be unknown."""
    fields = elasticache.meta.service_model.shape_for("ReplicationGroup").members
    assert fields["EffectiveDurability"].enum == ["async", "sync", "disabled"]
    assert fields["Durability"].enum == ["default", "async", "sync", "disabled"]


# --- lag -----------------------------------------------------------------------


def dimensions(cluster_id: str) -> list[dict[str, str]]:
    """By what CloudWatch knows a node."""
    named = {"CacheClusterId": cluster_id, "CacheNodeId": "0001"}
    return [{"Name": name, "Value": value} for name, value in named.items()]


def answer(*results: tuple[str, list[tuple[datetime, float]]], more: str = "") -> dict[str, Any]:
    """A page of CloudWatch's answer: samples by query."""
    found = [
        {"Id": name, "Timestamps": [at for at, _ in samples], "Values": [v for _, v in samples]}
        for name, samples in results
    ]
    return {"MetricDataResults": found} | ({"NextToken": more} if more else {})


def test_lag_of_each_node_in_seconds(
    group: ElastiCache, described: Stubber, measured: Stubber
) -> None:
    now = datetime.now(UTC)
    ago = [now - timedelta(seconds=age_s) for age_s in (60, 120, 180)]
    describe(described, NodeGroups=shards(2))
    # The newest sample may come first or last, and on any page.
    first = answer(
        ("lag0", [(ago[2], 9_000), (ago[1], 1_500)]), ("refused0", [(ago[2], 4)]), more="page 2"
    )
    second = answer(("lag0", [(ago[0], 250.5)]), ("refused0", [(ago[1], 3)]), ("lag3", []))
    measured.add_response("get_metric_data", first)
    measured.add_response("get_metric_data", second)

    primary, *others = group.lag()
    assert (primary.cache_cluster_id, primary.cache_node_id) == ("agents-0001-001", "0001")
    assert (primary.shard, primary.slots) == ("0001", "0-8191")
    assert (primary.lag_s, primary.refused) == (0.2505, 7)
    assert primary.age_s == pytest.approx(60, abs=5)
    assert others == [
        NodeLag("agents-0001-002", "0001", "0001", "0-8191"),
        NodeLag("agents-0002-001", "0001", "0002", "8192-16383"),
        NodeLag("agents-0002-002", "0001", "0002", "8192-16383"),
    ]


@pytest.fixture
def asked(cloudwatch: Any) -> Iterator[Queries]:
    """The queries of each call that CloudWatch gets."""
    calls: Queries = []
    event = "provide-client-params.cloudwatch.GetMetricData"
    cloudwatch.meta.events.register(
        event, lambda params, **_: calls.append(params["MetricDataQueries"]), unique_id="asked"
    )
    yield calls
    cloudwatch.meta.events.unregister(event, unique_id="asked")


def test_what_cloudwatch_is_asked(
    group: ElastiCache, described: Stubber, measured: Stubber, asked: Queries
) -> None:
    describe(described, NodeGroups=shards(1, nodes=1))
    measured.add_response("get_metric_data", answer())
    assert [node.lag_s for node in group.lag()] == [None]

    ((lag, refused),) = ([query["MetricStat"] for query in queries] for queries in asked)
    assert lag["Metric"] == {
        "Namespace": "AWS/ElastiCache",
        "MetricName": "DurabilityLag",
        "Dimensions": dimensions("agents-0001-001"),
    }
    assert (lag["Stat"], lag["Period"]) == ("Maximum", 60)
    assert refused["Metric"] == lag["Metric"] | {"MetricName": "DurabilityBufferExceededErrorCount"}
    assert refused["Stat"] == "Sum"


def test_large_groups_take_several_calls(
    group: ElastiCache, described: Stubber, measured: Stubber, asked: Queries
) -> None:
    describe(described, NodeGroups=shards(90, nodes=3))
    now = datetime.now(UTC)
    measured.add_response("get_metric_data", answer(("lag249", [(now, 1_000)])))
    measured.add_response("get_metric_data", answer(("lag250", [(now, 2_000)])))

    nodes = group.lag()
    assert [len(queries) for queries in asked] == [500, 40]
    assert len({query["Id"] for queries in asked for query in queries}) == 2 * len(nodes) == 540
    assert [node.lag_s for node in nodes[249:251]] == [1, 2]


@pytest.mark.parametrize(
    ("slots", "held"),
    [("0-3", [0, 1, 2, 3]), ("5-6,8,10-11", [5, 6, 8, 10, 11]), ("", [])],
)
def test_slots_of_a_node(slots: str, held: list[int]) -> None:
    node = NodeLag("agents-0001-001", "0001", "0001", slots)
    assert [slot for slot in range(20) if node.holds(slot)] == held


# --- a server that plays AWS ---------------------------------------------------


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="module")
def served(port: int) -> Iterator[tuple[ElastiCache, Any]]:
    """A group of two nodes, and the client that tells its samples."""
    with (
        closing(client("elasticache", port)) as elasticache,
        closing(client("cloudwatch", port)) as cloudwatch,
    ):
        elasticache.create_replication_group(
            ReplicationGroupId=GROUP,
            ReplicationGroupDescription="of a test",
            Engine="valkey",
            ReplicasPerNodeGroup=1,
            NumNodeGroups=1,
            Durability="async",
        )
        yield ElastiCache(GROUP, elasticache=elasticache, cloudwatch=cloudwatch), cloudwatch


def sample(node: NodeLag, metric: str, value: float, age_s: float) -> dict[str, Any]:
    return {
        "MetricName": metric,
        "Dimensions": dimensions(node.cache_cluster_id),
        "Timestamp": datetime.now(UTC) - timedelta(seconds=age_s),
        "Value": value,
    }


def test_a_server_that_does_not_tell_durability(served: tuple[ElastiCache, Any]) -> None:
    group, _ = served
    assert group.durability() == "unknown"


def test_lag_from_a_server(served: tuple[ElastiCache, Any]) -> None:
    group, cloudwatch = served
    primary, replica = group.lag()
    assert (primary.lag_s, primary.age_s, primary.refused) == (None, None, None)

    cloudwatch.put_metric_data(
        Namespace="AWS/ElastiCache",
        MetricData=[
            sample(primary, "DurabilityLag", 9_900, age_s=200),
            sample(primary, "DurabilityLag", 750, age_s=20),
            sample(primary, "DurabilityBufferExceededErrorCount", 3, age_s=200),
            sample(primary, "DurabilityBufferExceededErrorCount", 1, age_s=20),
            sample(replica, "DurabilityLag", 4_000, age_s=1_000),
        ],
    )
    measured, stale = group.lag()
    assert (measured.lag_s, measured.refused) == (0.75, 4)
    assert measured.age_s == pytest.approx(aws.PERIOD_S, abs=45)
    assert stale == replica, "a sample of a quarter of an hour ago was taken for news"


def test_a_group_that_is_not_there(port: int, cloudwatch: Any) -> None:
    with closing(client("elasticache", port)) as elasticache:
        group = ElastiCache("nobody", elasticache=elasticache, cloudwatch=cloudwatch)
        with pytest.raises(ConfigurationError, match="replication group's id, and at the region"):
            group.durability()


# --- failures ------------------------------------------------------------------


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken", "InvalidClientTokenId"])
def test_refusals_name_the_action(
    group: ElastiCache, described: Stubber, measured: Stubber, code: str
) -> None:
    described.add_client_error("describe_replication_groups", code, "of 12345", 403)
    with pytest.raises(ConfigurationError, match=f"DescribeReplicationGroups.*{code}") as caught:
        group.durability()
    assert "12345" not in str(caught.value)

    describe(described, NodeGroups=shards(1))
    measured.add_client_error("get_metric_data", code, "of 12345", 403)
    with pytest.raises(ConfigurationError, match=f"cloudwatch:GetMetricData.*{code}"):
        group.lag()


@pytest.mark.parametrize(
    ("code", "status"),
    [("Throttling", 400), ("RequestLimitExceeded", 400), ("InternalFailure", 500)],
)
def test_a_busy_aws_may_be_asked_again(
    group: ElastiCache, described: Stubber, code: str, status: int
) -> None:
    described.add_client_error("describe_replication_groups", code, "", status)
    with pytest.raises(Unreachable, match=f"elasticache:DescribeReplicationGroups.*{code}"):
        group.durability()


@pytest.mark.parametrize(
    ("listens", "failure"), [(True, "ReadTimeoutError"), (False, "EndpointConnectionError")]
)
def test_nobody_answers(cloudwatch: Any, listens: bool, failure: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if listens else free_ports(1)[0]
        with closing(client("elasticache", port, read_timeout=0.2)) as elasticache:
            group = ElastiCache(GROUP, elasticache=elasticache, cloudwatch=cloudwatch)
            with pytest.raises(Unreachable, match=failure):
                group.durability()


def test_no_credentials(cloudwatch: Any) -> None:
    nobody = BotocoreSession()
    nobody.register_component("credential_provider", CredentialResolver([]))
    session = Session(botocore_session=nobody, region_name="eu-west-1")
    with closing(session.client("elasticache")) as elasticache:
        group = ElastiCache(GROUP, elasticache=elasticache, cloudwatch=cloudwatch)
        with pytest.raises(ConfigurationError, match=r"DescribeReplicationGroups.*NoCred"):
            group.durability()


# --- clients of its own --------------------------------------------------------


@pytest.fixture
def made_up_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS as set up by a program's environment, for one test, without a region."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")


@pytest.mark.usefixtures("made_up_account")
def test_calls_are_bounded() -> None:
    group = ElastiCache(GROUP, region="eu-west-1")
    for opened in (group._elasticache, group._cloudwatch):
        with closing(opened):
            config = opened.meta.config
            assert (config.connect_timeout, config.read_timeout) == (2, 5)
            assert config.retries["total_max_attempts"] == 2
            assert opened.meta.region_name == "eu-west-1"


@pytest.mark.usefixtures("made_up_account")
def test_no_region() -> None:
    with pytest.raises(ConfigurationError, match=r"NoRegionError.*give this process a region"):
        ElastiCache(GROUP)


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'langgraph-valkey\[aws\]'"):
        ElastiCache(GROUP)


def test_boto3_is_imported_only_when_used() -> None:
    program = "import sys, langgraph_valkey.aws; sys.exit('boto3' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
