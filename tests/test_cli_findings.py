"""What `doctor` says of clusters that can't be set up here: of what a survey told."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest
from glide_shared.exceptions import TimeoutError as GlideTimeoutError

from langgraph_valkey.aws import NodeLag
from langgraph_valkey.cli import findings
from langgraph_valkey.cli.findings import Finding
from langgraph_valkey.glide import survey as surveys
from langgraph_valkey.glide.clients import make_blocking
from langgraph_valkey.glide.survey import Node, Shard, Survey, survey
from langgraph_valkey.local import LocalCluster
from langgraph_valkey.settings import Settings
from tests.moving_ground import Call

NODE = Node("h", 1, 0, True, {"valkey_version": "9.0.1", "connected_slaves": "1"}, {}, 0.0)


def seen(*nodes: Node, **fields: Any) -> Survey:
    """A cluster of one shard."""
    given: dict[str, Any] = {"has_search": False, **fields}
    return Survey(True, (Shard(((0, 16383),), nodes),), **given)


@pytest.mark.parametrize(
    ("version", "level"), [("9.0.1", "ok"), ("8.1.0", "note"), ("7.0.4", "problem"), ("", "note")]
)
def test_versions(version: str, level: str) -> None:
    assert findings.of_version(seen(replace(NODE, info={"redis_version": version}))).level == level


@pytest.mark.parametrize(
    ("told", "level"),
    [("state=online,lag=1", "ok"), ("state=wait_bgsave,lag=0", "warning"), ("lag=60", "warning")],
)
def test_replicas_that_are_behind(told: str, level: str) -> None:
    node = replace(NODE, info={"connected_slaves": "1", "slave0": f"ip=h,port=2,{told}"})
    assert [each.level for each in findings.of_replicas(seen(node), "checkpoints")] == [level]


@pytest.mark.parametrize(("offset_s", "level"), [(0.3, "ok"), (-2.0, "warning"), (None, "note")])
def test_clocks(offset_s: float | None, level: str) -> None:
    assert findings.of_clocks(seen(replace(NODE, offset_s=offset_s))).level == level


def test_nodes_that_do_not_answer() -> None:
    away = replace(NODE, leads=False, trouble="no answer came in time")
    [found] = findings.of_nodes(seen(NODE, away))
    assert (found.level, found.what) == ("problem", "replica h:1: no answer came in time")


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("valkeys://db.example.com", "ok"),
        ("valkeys://db.example.com?tls_insecure=true", "problem"),
        ("valkey://db.example.com", "warning"),
        ("valkey://127.0.0.1,localhost", "ok"),
    ],
)
def test_tls(url: str, level: str) -> None:
    assert findings.of_tls(Settings.from_url(url)).level == level


@pytest.mark.parametrize(
    ("lag_s", "refused", "level"), [(0.4, 0, "ok"), (7.0, 0, "warning"), (1.0, 3, "warning")]
)
def test_lag_by_aws(lag_s: float, refused: int, level: str) -> None:
    lags = [NodeLag("a", "1", "0001", "", lag_s, 60.0, refused), NodeLag("b", "1", "0001", "")]
    settings = Settings.from_url("valkey://h")
    found = {f.check: f for f in findings.of_durability(settings, "cache", "async", "", lags)}
    assert found["lag"].level == level


def test_wheels_of_different_versions(
    three_shards: LocalCluster, call_cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(wheel: str) -> str:
        if wheel == "valkey-glide-sync":
            raise metadata.PackageNotFoundError
        return "2.5.0"

    monkeypatch.setattr(metadata, "version", version)
    done = call_cli("doctor", three_shards.url, "--json")
    assert done.status == 1
    [found] = json.loads(done.out)["findings"]
    assert (found["check"], found["level"]) == ("client", "problem")
    assert "valkey-glide-sync missing" in done.out


def test_the_worst_of_all() -> None:
    found = [Finding("a", "ok", "x"), Finding("b", "warning", "x"), Finding("c", "note", "x")]
    assert findings.verdict(found) == "warning"
    assert findings.verdict([]) == "ok"


class Late:
    """A client of which every other question is answered too late.

    Args:
        client: The real one.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._asked = 0

    def custom_command(self, *args: Any, **given: Any) -> Any:
        self._asked += 1
        if self._asked % 2:
            raise GlideTimeoutError("timed out")
        return self._client.custom_command(*args, **given)

    def close(self) -> None:
        self._client.close()


def test_one_late_answer_says_nothing_of_a_node(
    three_shards: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveys, "make_blocking", lambda settings: Late(make_blocking(settings)))
    found = survey(Settings.from_url(three_shards.url))
    nodes = [node for shard in found.shards for node in shard.nodes]
    assert [node.trouble for node in nodes] == [""] * 3
    assert None not in [node.offset_s for node in nodes]
