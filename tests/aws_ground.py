"""What tests of AWS share: clients that can't leave this machine, and one group's name."""

from __future__ import annotations

from typing import Any

from boto3.session import Session
from botocore.config import Config

GROUP = "agents"


def client(service: str, port: int, **arguments: Any) -> Any:
    """A boto3 client that can reach nothing but a port of this machine."""
    session = Session("made-up", "made-up", region_name="eu-west-1")
    config = Config(retries={"total_max_attempts": 1}, **arguments)
    return session.client(service, endpoint_url=f"http://127.0.0.1:{port}", config=config)


def dimensions(cluster_id: str) -> list[dict[str, str]]:
    """By what CloudWatch knows a node."""
    named = {"CacheClusterId": cluster_id, "CacheNodeId": "0001"}
    return [{"Name": name, "Value": value} for name, value in named.items()]
