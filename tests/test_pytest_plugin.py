"""The fixtures that are offered to users, in a test run of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CONFTEST = 'pytest_plugins = ["langgraph_valkey.local.fixtures"]\n'

TESTS = """
import json, pathlib
import pytest

pids = {}

def note(cluster):
    pids["cluster"] = [node.pid for node in cluster.nodes]
    pathlib.Path("pids.json").write_text(json.dumps(pids))

def test_one_server(local_valkey):
    assert local_valkey.command("SET", "k", "v") == b"OK"

def test_the_same_server(local_valkey):
    assert local_valkey.command("GET", "k") == b"v"
    pids["server"] = [local_valkey.pid]

def test_a_cluster(local_cluster):
    cluster = local_cluster(durability="async", lag_bound_s=1)
    note(cluster)
    assert len(cluster.nodes) == 6
    cluster.hold_log(0)
    other = local_cluster(1, 0)
    assert len(other.nodes) == 1
    assert other.url != cluster.url

def test_a_cluster_of_a_test_that_fails(local_cluster):
    note(local_cluster(1, 1, durability="sync"))
    pytest.fail("on purpose")
"""


def test_the_fixtures_start_and_stop_what_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_agent.py").write_text(TESTS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=tmp_path,
        env=dict(os.environ, PYTEST_ADDOPTS="", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 failed, 3 passed" in run.stdout, run.stdout + run.stderr
    pids = json.loads((tmp_path / "pids.json").read_text())
    assert len(pids["cluster"]) == 2
    assert len(pids["server"]) == 1
    assert not any(runs(pid) for pid in (*pids["cluster"], *pids["server"]))


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
