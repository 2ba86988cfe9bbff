"""Pytest fixtures: servers for the tests of an application.

In the ``conftest.py`` at the root of the tests::

    pytest_plugins = ["langgraph_valkey.local.fixtures"]

=================  ==============================================================
`local_valkey`     one running server for all tests; each may keep to keys of its own
`local_cluster`    starts clusters for one test, and stops them after it
=================  ==============================================================

    def test_my_agent_survives_a_crash(local_cluster):
        cluster = local_cluster(durability="async", lag_bound_s=1)
        saver = ValkeySaver.from_url(cluster.url)
        ...
        cluster.hold_log(0)
        ...
        cluster.kill_primary(0)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from langgraph_valkey.local.cluster import LocalCluster
from langgraph_valkey.local.single import LocalValkey


class StartCluster(Protocol):
    """What the fixture `local_cluster` is."""

    def __call__(self, shards: int = 3, replicas: int = 1, **settings: Any) -> LocalCluster:
        """Start a cluster; the arguments are those of `LocalCluster`."""
        ...


@pytest.fixture(scope="session")
def local_valkey() -> Iterator[LocalValkey]:
    """One server, in memory, for all tests of the session."""
    with LocalValkey() as valkey:
        yield valkey


@pytest.fixture
def local_cluster() -> Iterator[StartCluster]:
    """A function that starts a cluster; what it started is stopped after the test."""
    with ExitStack() as running:

        def start(shards: int = 3, replicas: int = 1, **settings: Any) -> LocalCluster:
            return running.enter_context(LocalCluster(shards, replicas, **settings))

        yield start
