"""The servers that tests share: real ones, on free ports of 127.0.0.1.

Tests keep to keys of their own (a key prefix drawn at random), so that one server
can serve all of them; what breaks a server starts its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from langgraph_valkey.local import LocalCluster, LocalValkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[LocalValkey]:
    """One shard, in memory."""
    with LocalValkey() as server:
        yield server


@pytest.fixture(scope="session")
def three_shards() -> Iterator[LocalCluster]:
    """Three shards without replicas."""
    with LocalCluster(shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def failover_cluster() -> Iterator[LocalCluster]:
    """Three shards with a replica each: tests may break it, and wait till it is whole."""
    with LocalCluster(shards=3, replicas=1) as cluster:
        yield cluster
