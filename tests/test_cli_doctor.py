"""`doctor`: what it finds on real clusters that are set up right, and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from langgraph_valkey import aws
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.local.node import free_ports
from tests.aws_ground import GROUP, client
from tests.link_ground import standalone
from tests.moving_ground import Call, ended, started

SECRET = "4711-secret"

Levels = dict[str, str]


@pytest.fixture(scope="module")
def mine() -> Iterator[LocalCluster]:
    """A cluster that is set up right, but for the bound of its memory."""
    with LocalCluster(shards=3, replicas=1, options={"maxmemory": "256mb"}) as cluster:
        yield cluster


def levels_of(out: str) -> Levels:
    """The worst level of each check, by a report in JSON."""
    order = ("ok", "note", "warning", "problem")
    levels: Levels = {}
    for each in json.loads(out)["findings"]:
        assert each["what"]
        assert each["level"] == "ok" or (each["why"] and each["fix"])
        levels[each["check"]] = max(levels.get(each["check"], "ok"), each["level"], key=order.index)
    return levels


def examined(call: Call, url: str, *options: str, status: int) -> Levels:
    """What the command finds, which must come to this exit status."""
    done = call("doctor", url, "--json", *options)
    assert done.status == status, done.out + done.err
    return levels_of(done.out)


@contextmanager
def configured(cluster: LocalCluster, **options: str) -> Iterator[None]:
    """Options of all primaries, for a while."""
    with ExitStack() as undo:
        for shard in range(3):
            node = cluster.primary(shard)
            for name, value in options.items():
                name = name.replace("_", "-")
                found: Any = node.command("CONFIG", "GET", name)
                undo.callback(node.command, "CONFIG", "SET", name, found[1])
                node.command("CONFIG", "SET", name, value)
        yield


# --- all is well -----------------------------------------------------------------------------


def test_a_cluster_that_is_set_up_right(mine: LocalCluster, call_cli: Call) -> None:
    mine.wait_healthy()
    levels = examined(call_cli, mine.url + "?durability=async", status=0)
    assert levels == {
        **dict.fromkeys(
            ("client", "version", "mode", "tls", "slots", "replicas", "durability"), "ok"
        ),
        **dict.fromkeys(("eviction", "memory", "writes", "failovers", "scan", "clocks"), "ok"),
        "search": "note",
    }


def test_for_people(mine: LocalCluster, call_cli: Call) -> None:
    done = call_cli("doctor", LANGGRAPH_VALKEY_URL=mine.url + "?durability=sync")
    assert done.status == 0, done.out
    assert "ok       version     Valkey 9." in done.out
    assert "why: semantic caches" in done.out
    assert "fix: on ElastiCache" in done.out
    assert done.out.splitlines()[-1] == "1 note"


def test_in_a_process_of_its_own(mine: LocalCluster, tmp_path: Path) -> None:
    with configured(mine, maxmemory_policy="allkeys-lru"):
        process = started("doctor", "env:CLUSTER", entry=True, folder=tmp_path, CLUSTER=mine.url)
        done = ended(process)
    assert done.status == 1
    assert "problem  eviction    maxmemory-policy allkeys-lru" in done.out
    assert "evict" not in done.err  # What the link warns of is told once, as a finding.


# --- servers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "options", "url", "level"),
    [
        ("allkeys-lru", [], "", "problem"),
        ("volatile-lru", [], "", "warning"),
        ("volatile-lru", [], "&ttl_s=60", "problem"),
        ("allkeys-lru", ["--role", "cache"], "", "ok"),
        ("noeviction", ["--role", "cache"], "", "warning"),
        ("volatile-lru", ["--role", "locks"], "", "ok"),
        ("allkeys-lru", ["--role", "locks"], "", "problem"),
    ],
)
def test_eviction(
    mine: LocalCluster, call_cli: Call, policy: str, options: list[str], url: str, level: str
) -> None:
    with configured(mine, maxmemory_policy=policy):
        place = f"{mine.url}?durability=sync{url}"
        status = 0 if level == "ok" else 1
        assert examined(call_cli, place, *options, status=status)["eviction"] == level


def test_memory_that_is_nearly_full(mine: LocalCluster, call_cli: Call) -> None:
    used: Any = mine.primary(0).command("INFO", "memory")
    size = int(used.split(b"used_memory:")[1].split()[0])
    with configured(mine, maxmemory=str(round(size * 1.02))):
        assert examined(call_cli, mine.url, status=1)["memory"] == "problem"


def test_a_shard_that_refuses_writes(mine: LocalCluster, call_cli: Call) -> None:
    with configured(mine, min_replicas_to_write="5"):
        done = call_cli("doctor", mine.url, "--json")
    assert done.status == 1
    assert levels_of(done.out)["writes"] == "problem"
    assert "NOREPLICAS" in done.out


def test_one_server_alone(valkey: LocalValkey, call_cli: Call) -> None:
    levels = examined(call_cli, valkey.url, status=1)
    assert (levels["replicas"], levels["durability"]) == ("warning", "note")


def test_a_search_module(searching: LocalValkey, call_cli: Call) -> None:
    assert examined(call_cli, searching.url, status=1)["search"] == "ok"


def test_cluster_mode_is_not_what_the_settings_say(
    valkey: LocalValkey, call_cli: Call, tmp_path: Path
) -> None:
    levels = examined(call_cli, valkey.url + "?mode=standalone", status=1)
    assert levels["mode"] == "problem"
    [port] = free_ports(1)
    with standalone(tmp_path, port):
        quick = "connection_timeout_ms=100&request_timeout_ms=200"
        levels = examined(call_cli, f"valkey://127.0.0.1:{port}?{quick}", status=1)
        assert levels["mode"] == "problem"
        levels = examined(call_cli, f"valkey://127.0.0.1:{port}?mode=standalone", status=1)
        assert (levels["mode"], levels["writes"]) == ("warning", "ok")


def test_slots_that_nobody_has(call_cli: Call) -> None:
    with LocalCluster(shards=3, replicas=0) as cluster:
        cluster.primary(0).command("CLUSTER", "DELSLOTSRANGE", "0", "99")
        done = call_cli("doctor", cluster.url, "--json")
    assert done.status == 1
    [slots] = [each for each in json.loads(done.out)["findings"] if each["check"] == "slots"]
    assert slots["level"] == "problem"
    assert slots["what"].startswith("16284 of 16384 slots")


# --- users -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["+@all", "~lgv:*"], {"writes": "ok", "failovers": "ok", "scan": "ok", "search": "note"}),
        (["+@all", "~other:*"], {"scripts": "problem"}),
        (["+@all", "-scan", "~lgv:*"], {"scan": "problem", "writes": "ok"}),
        (["+@all", "-evalsha", "-eval", "~lgv:*"], {"scripts": "problem"}),
        (["+@all", "-info", "~lgv:*"], {"failovers": "note", "version": "note", "memory": "note"}),
        (["+@all", "-info", "-cluster|myid", "~lgv:*"], {"failovers": "warning"}),
        (["+@all", "-command", "-time", "~lgv:*"], {"search": "note", "clocks": "note"}),
    ],
)
def test_what_a_user_may_do(
    valkey: LocalValkey, call_cli: Call, rules: list[str], expected: Levels
) -> None:
    valkey.command("ACL", "SETUSER", "app", "reset", "on", f">{SECRET}", *rules)
    try:
        url = valkey.url.replace("valkey://", f"valkey://app:{SECRET}@")
        done = call_cli("doctor", url, "--json")
    finally:
        valkey.command("ACL", "DELUSER", "app")
    assert done.status == 1
    levels = levels_of(done.out)
    assert levels | expected == levels
    assert SECRET not in done.out + done.err


def test_who_is_not_let_in(valkey: LocalValkey, call_cli: Call) -> None:
    url = valkey.url.replace("valkey://", f"valkey://nobody:{SECRET}@")
    done = call_cli("doctor", url, "--json")
    assert done.status == 2
    assert levels_of(done.out)["connection"] == "problem"
    assert SECRET not in done.out + done.err


def test_nobody_there(call_cli: Call) -> None:
    done = call_cli("doctor", f"valkey://127.0.0.1:{free_ports(1)[0]}")
    assert done.status == 2
    assert "problem  connection  no server could be reached" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--role", "no-such"], "role must be"),
        (["env:NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        ([f"valkey://u:{SECRET}@h?no_such=1"], "unknown parameter"),
    ],
)
def test_what_can_t_be_examined(call_cli: Call, arguments: list[str], said: str) -> None:
    done = call_cli("doctor", *arguments)
    assert done.status == 2
    assert said in done.err
    assert SECRET not in done.err


# --- AWS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, Any]]:
    """Clients of AWS that leave this machine for nothing."""
    with ExitStack() as stack:
        names = ("elasticache", "cloudwatch")
        yield {name: stack.enter_context(closing(client(name, 1))) for name in names}


Told = Callable[[Sequence[Any]], None]


@pytest.fixture
def told_by_aws(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """Has AWS describe the group so, or refuse; CloudWatch may not be asked."""
    stubs = {name: Stubber(service) for name, service in services.items()}
    yield lambda described: answer(services, stubs, monkeypatch, described)
    for stub in stubs.values():
        stub.deactivate()


def answer(
    services: dict[str, Any],
    stubs: dict[str, Stubber],
    monkeypatch: pytest.MonkeyPatch,
    described: Sequence[Any],
) -> None:
    for answer in described:
        if isinstance(answer, str):
            stubs["elasticache"].add_client_error("describe_replication_groups", answer, "", 403)
        else:
            group = {"ReplicationGroupId": GROUP, **answer}
            stubs["elasticache"].add_response(
                "describe_replication_groups", {"ReplicationGroups": [group]}
            )
    stubs["cloudwatch"].add_client_error("get_metric_data", "AccessDenied", "", 403)
    for stub in stubs.values():
        stub.activate()
    monkeypatch.setattr(aws, "_client", lambda service, *_: services[service])


NODES = {"NodeGroups": [{"NodeGroupId": "0001", "NodeGroupMembers": [
    {"CacheClusterId": "agents-0001-001", "CacheNodeId": "0001"}]}]}  # fmt: skip


@pytest.mark.parametrize(
    ("in_force", "url", "role", "level"),
    [
        ("sync", "", "checkpoints", "ok"),
        ("async", "", "checkpoints", "ok"),
        ("async", "&durability=sync", "checkpoints", "problem"),
        ("disabled", "", "checkpoints", "warning"),
        ("async", "", "locks", "problem"),
        ("sync", "", "locks", "ok"),
    ],
)
def test_durability_by_aws(
    mine: LocalCluster,
    call_cli: Call,
    told_by_aws: Told,
    in_force: str,
    url: str,
    role: str,
    level: str,
) -> None:
    told_by_aws([{"EffectiveDurability": in_force}, NODES])
    place = f"{mine.url}?aws_replication_group={GROUP}&aws_region=eu-west-1{url}"
    levels = examined(call_cli, place, "--role", role, status=0 if level == "ok" else 1)
    assert (levels["durability"], levels["lag"]) == (level, "note")


def test_aws_does_not_tell(mine: LocalCluster, call_cli: Call, told_by_aws: Told) -> None:
    told_by_aws(["AccessDenied"])
    done = call_cli("doctor", f"{mine.url}?aws_replication_group={GROUP}&aws_region=eu-west-1")
    assert done.status == 1
    assert "AWS refused elasticache:DescribeReplicationGroups" in done.out
