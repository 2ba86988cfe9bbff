"""The servers that tests share: real ones, on free ports of 127.0.0.1.

Tests keep to keys of their own (a key prefix drawn at random), so that one server
can serve all of them; what breaks a server starts its own.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator

import pytest

from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.monitor import monitor
from tests.durable_ground import lasting, lasting_on_many, store_keys, unkept  # noqa: F401
from tests.faces import FACES
from tests.failover_ground import FAST_MS, LAG_BOUND_S, mend, new_prefix
from tests.moving_ground import call_cli, places  # noqa: F401 - fixtures
from tests.primary_ground import (  # noqa: F401 - fixtures
    dynamo,
    ground,
    postgres,
    sql_ground,
    sql_store,
    sql_url,
    threads,
)
from tests.rag_ground import caches, call  # noqa: F401 - fixtures
from tests.search_ground import searching  # noqa: F401 - fixtures
from tests.searching_ground import buckets, link, search  # noqa: F401 - fixtures
from tests.store_ground import near, server_url, store, stores  # noqa: F401 - fixtures
from tests.store_replay_ground import world  # noqa: F401 - fixtures

LEAVING_S = 60
"""How long the process may take to end after its last test."""
STDERR = 2


def pytest_unconfigure() -> None:
    """See to it that the process ends: a thread that never does shows itself, and is a failure."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # It waits for the other workers, and is ended with them.
    faulthandler.dump_traceback_later(LEAVING_S, exit=True, file=STDERR)


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


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each face of a saver."""
    return str(request.param)


@pytest.fixture
def prefix() -> str:
    """A prefix of keys that no other test has."""
    return new_prefix()


@pytest.fixture(scope="module")
def durable_cluster() -> Iterator[LocalCluster]:
    """Three durable shards with a replica each, whose log may lag by a second."""
    with LocalCluster(
        durability="async", lag_bound_s=LAG_BOUND_S, node_timeout_ms=FAST_MS
    ) as cluster:
        yield cluster


@pytest.fixture
def durable(durable_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """With async durability; made whole after each test."""
    yield durable_cluster
    mend(durable_cluster)


@pytest.fixture
def plain(failover_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Without durability; made whole after each test."""
    for node in failover_cluster.nodes:
        node.command("CONFIG", "SET", "cluster-node-timeout", FAST_MS)
    yield failover_cluster
    mend(failover_cluster)


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No monitor: only calls can notice anything."""
    monkeypatch.setattr(monitor, "watch", lambda *_: None)
