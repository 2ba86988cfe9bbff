"""What AWS tells by a server that plays it, by none, and by somebody else.

The server (moto) knows the services, but nothing of durability. No question leaves
127.0.0.1, and the credentials are made up.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from boto3.session import Session
from botocore.awsrequest import AWSResponse
from botocore.credentials import CredentialResolver
from botocore.session import Session as BotocoreSession
from moto.server import ThreadedMotoServer

from langgraph_valkey import aws
from langgraph_valkey.aws import ElastiCache, NodeLag
from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.node import free_ports
from tests.aws_ground import GROUP, client, dimensions


@pytest.fixture(scope="module")
def cloudwatch() -> Iterator[Any]:
    """A client for tests that don't get as far as asking it."""
    with closing(client("cloudwatch", 1)) as opened:
        yield opened


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


# --- no answer, or a wrong one -------------------------------------------------


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


def test_somebody_else_answers(cloudwatch: Any) -> None:
    """Such as a network that wants its users to log in first."""
    page = SimpleNamespace(stream=lambda **_: [b"<html>Please log in"])
    with closing(client("elasticache", 1)) as elasticache:
        elasticache.meta.events.register(
            "before-send", lambda request, **_: AWSResponse(request.url, 200, {}, page)
        )
        group = ElastiCache(GROUP, elasticache=elasticache, cloudwatch=cloudwatch)
        with pytest.raises(Unreachable, match="ResponseParserError"):
            group.durability()


def test_no_credentials(cloudwatch: Any) -> None:
    nobody = BotocoreSession()
    nobody.register_component("credential_provider", CredentialResolver([]))
    session = Session(botocore_session=nobody, region_name="eu-west-1")
    address = "http://127.0.0.1:1"
    with closing(session.client("elasticache", endpoint_url=address)) as elasticache:
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
