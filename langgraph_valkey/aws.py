"""What AWS tells of an ElastiCache cluster: its durability, and how far its log lags.

Only AWS can say which durability is in force: the server does not tell its clients.
And since a live cluster can be switched from one mode to another, it is asked again
and again, and no answer is kept for good.

How far a node's log lags is a CloudWatch metric, *DurabilityLag*. It has one sample
a minute: good for dashboards and alarms, too coarse to watch a window of 10 s with.
CloudWatch bills every metric asked for, two a node: ask once a minute, not more.

Calls block, for 15 s a question at worst, and may come from any thread. The process needs
leave for two actions: ``elasticache:DescribeReplicationGroups`` and, for the lag,
``cloudwatch:GetMetricData``. Install ``langgraph-valkey[aws]``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.loss_window.report import Durability

DESCRIBE = "elasticache:DescribeReplicationGroups"
GET_METRICS = "cloudwatch:GetMetricData"
"""The actions that IAM must allow."""

CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 5
TRIES_MOST = 2
"""Bounds of one call. AWS answers within a second; who asks every minute need not
wait longer for an answer than until the next time."""

WINDOW_S = 300
"""How old a sample may be: they come every minute, some of them minutes late."""

PERIOD_S = 60
"""How much time one sample stands for."""

QUERIES_MOST = 500
"""How many metrics CloudWatch takes in one call."""

_WEAKEST_FIRST: Final[tuple[Durability, ...]] = ("disabled", "async", "sync")
_METRICS = {
    "lag": ("DurabilityLag", "Maximum"),
    "refused": ("DurabilityBufferExceededErrorCount", "Sum"),
}
_ADVICE = {
    "ReplicationGroupNotFoundFault": "look at the replication group's id, and at the region",
}

_Samples: TypeAlias = Mapping[str, list[tuple[datetime, float]]]


@dataclass(frozen=True, slots=True)
class NodeLag:
    """How far the log of one node lags, as CloudWatch knows it.

    What CloudWatch has no sample of is None: replicas, for one, need not have any.

    Attributes:
        cache_cluster_id: The node's cluster id, which its host name begins with.
        cache_node_id: Its node id.
        shard: Id of its shard (AWS: node group).
        slots: Hash slots of its shard, such as "0-5461"; empty if AWS does not say.
        lag_s: Age of the oldest write that was acknowledged and is not yet persisted:
            the most within the last minute that there is a sample of.
        age_s: How long ago that minute began.
        refused: Writes refused within the last 5 minutes since the log lagged by 10 s.
    """

    cache_cluster_id: str
    cache_node_id: str
    shard: str
    slots: str
    lag_s: float | None = None
    age_s: float | None = None
    refused: int | None = None

    def holds(self, slot: int) -> bool:
        """Whether a hash slot is its shard's."""
        spans = (span.partition("-") for span in self.slots.split(",") if span)
        return any(int(first) <= slot <= int(last or first) for first, _, last in spans)


class ElastiCache:
    """What AWS tells of one replication group.

    Args:
        replication_group_id: Its id, as in ``aws elasticache describe-replication-groups``.
        region: Where it is; by default as set up for AWS in general (environment,
            profile, machine).
        elasticache: A boto3 client to use instead of a new one.
        cloudwatch: Likewise.

    Raises:
        ConfigurationError: boto3 is not installed, or no region is set up.
    """

    def __init__(
        self,
        replication_group_id: str,
        *,
        region: str | None = None,
        elasticache: Any = None,
        cloudwatch: Any = None,
    ) -> None:
        self.replication_group_id = replication_group_id
        self._elasticache = elasticache or _client("elasticache", DESCRIBE, region)
        self._cloudwatch = cloudwatch or _client("cloudwatch", GET_METRICS, region)

    def __repr__(self) -> str:
        return f"ElastiCache({self.replication_group_id!r})"

    def durability(self) -> Durability:
        """The durability in force now.

        While it is being changed, that is the weaker of what was in force and what
        was asked for: nobody knows which of the shards have been switched already.

        Returns:
            "async", "sync" or "disabled"; "unknown" if AWS does not say, or says
            something that came up after this release.

        Raises:
            ConfigurationError: Wrong credentials or id, or a permission is missing.
            Unreachable: AWS does not answer, or is busy.
        """
        group = self._group()
        in_force, asked_for = group.get("EffectiveDurability"), group.get("Durability")
        if in_force not in _WEAKEST_FIRST:
            return "unknown"
        return next(each for each in _WEAKEST_FIRST if each in (in_force, asked_for))

    def lag(self) -> tuple[NodeLag, ...]:
        """How far the log of each node lags, as of a minute ago or more.

        Raises:
            ConfigurationError: Wrong credentials or id, or a permission is missing.
            Unreachable: AWS does not answer, or is busy.
        """
        now = datetime.now(UTC)
        nodes = list(_nodes(self._group()))
        queries = [query for place, node in enumerate(nodes) for query in _queries(place, node)]
        samples: dict[str, list[tuple[datetime, float]]] = {}
        for first in range(0, len(queries), QUERIES_MOST):
            samples |= self._samples(queries[first : first + QUERIES_MOST], now)
        return tuple(_measured(place, node, samples, now) for place, node in enumerate(nodes))

    def _group(self) -> Mapping[str, Any]:
        with _asking(DESCRIBE):
            answer = self._elasticache.describe_replication_groups(
                ReplicationGroupId=self.replication_group_id
            )
        group: Mapping[str, Any] = answer["ReplicationGroups"][0]
        return group

    def _samples(self, queries: list[dict[str, Any]], now: datetime) -> _Samples:
        """Samples by the id of their query."""
        samples = defaultdict[str, list[tuple[datetime, float]]](list)
        with _asking(GET_METRICS):
            pages = self._cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries,
                StartTime=now - timedelta(seconds=WINDOW_S),
                EndTime=now,
            )
            for page in pages:
                for result in page.get("MetricDataResults", ()):
                    samples[result["Id"]] += zip(
                        result["Timestamps"], result["Values"], strict=True
                    )
        return samples


def _nodes(group: Mapping[str, Any]) -> Iterator[NodeLag]:
    for shard in group.get("NodeGroups", ()):
        for member in shard.get("NodeGroupMembers", ()):
            yield NodeLag(
                member["CacheClusterId"],
                member["CacheNodeId"],
                shard["NodeGroupId"],
                shard.get("Slots", ""),
            )


def _queries(place: int, node: NodeLag) -> Iterator[dict[str, Any]]:
    """What to ask CloudWatch about the node at this place among all."""
    dimensions = [
        {"Name": "CacheClusterId", "Value": node.cache_cluster_id},
        {"Name": "CacheNodeId", "Value": node.cache_node_id},
    ]
    for kind, (name, statistic) in _METRICS.items():
        metric = {"Namespace": "AWS/ElastiCache", "MetricName": name, "Dimensions": dimensions}
        yield {
            "Id": f"{kind}{place}",
            "MetricStat": {"Metric": metric, "Period": PERIOD_S, "Stat": statistic},
        }


def _measured(place: int, node: NodeLag, samples: _Samples, now: datetime) -> NodeLag:
    lags, refused = samples.get(f"lag{place}"), samples.get(f"refused{place}")
    newest, lag_ms = max(lags) if lags else (None, None)
    return replace(
        node,
        lag_s=None if lag_ms is None else lag_ms / 1000,
        age_s=None if newest is None else max(0.0, (now - newest).total_seconds()),
        refused=int(sum(count for _, count in refused)) if refused else None,
    )


def _client(service: str, action: str, region: str | None) -> Any:
    try:
        from boto3.session import Session
        from botocore.config import Config
    except ImportError as error:
        raise ConfigurationError(
            "asking AWS needs the `aws` extra: pip install 'langgraph-valkey[aws]'"
        ) from error
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": TRIES_MOST, "mode": "standard"},
    )
    with _asking(action):
        return Session(region_name=region).client(service, config=config)


@contextmanager
def _asking(action: str) -> Iterator[None]:
    """Turn whatever botocore raises into our errors."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(action, error.response) from error
    except (exceptions.ConnectionError, exceptions.HTTPClientError, ResponseParserError) as error:
        raise Unreachable(
            f"AWS gave no answer to {action} ({type(error).__name__}): ask again in a minute, "
            "and look whether this machine reaches AWS"
        ) from error
    except exceptions.BotoCoreError as error:
        raise ConfigurationError(
            f"{action} could not be asked ({type(error).__name__}): give this process a region "
            "and AWS credentials that allow it"
        ) from error


def _refusal(action: str, response: Mapping[str, Any]) -> Exception:
    code = str(response.get("Error", {}).get("Code", "?"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or "Throttl" in code or code == "RequestLimitExceeded":
        return Unreachable(f"AWS is too busy for {action} ({code}): ask again in a minute")
    advice = _ADVICE.get(code, "allow it in IAM, and look at this process's credentials")
    return ConfigurationError(f"AWS refused {action} ({code}): {advice}")
