"""What AWS tells, against botocore's own model of its services.

The model checks each question, and each answer that a test writes, and knows every
field; `test_aws_service` asks a server instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from langgraph_valkey.aws import ElastiCache, NodeLag
from langgraph_valkey.errors import ConfigurationError, Unreachable
from tests.aws_ground import GROUP, client, dimensions

Queries = list[list[dict[str, Any]]]


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
    fields = {"EffectiveDurability": in_force, "Durability": asked_for}
    describe(described, **{name: value for name, value in fields.items() if value})
    assert group.durability() == durability


def test_durability_is_asked_for_each_time(group: ElastiCache, described: Stubber) -> None:
    describe(described, EffectiveDurability="async")
    describe(described, EffectiveDurability="sync")
    assert [group.durability(), group.durability()] == ["async", "sync"]


def test_botocore_knows_the_fields(elasticache: Any) -> None:
    """An older one drops them from each answer, and every cluster would be unknown."""
    fields = elasticache.meta.service_model.shape_for("ReplicationGroup").members
    assert fields["EffectiveDurability"].enum == ["async", "sync", "disabled"]
    assert fields["Durability"].enum == ["default", "async", "sync", "disabled"]


# --- lag -----------------------------------------------------------------------


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


def test_a_group_without_nodes_has_no_lag(group: ElastiCache, described: Stubber) -> None:
    describe(described, Status="creating")
    assert group.lag() == ()


@pytest.mark.parametrize(
    ("slots", "held"),
    [("0-3", [0, 1, 2, 3]), ("5-6,8,10-11", [5, 6, 8, 10, 11]), ("", [])],
)
def test_slots_of_a_node(slots: str, held: list[int]) -> None:
    node = NodeLag("agents-0001-001", "0001", "0001", slots)
    assert [slot for slot in range(20) if node.holds(slot)] == held


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
