"""What is to be said of a cluster: each finding with why it matters, and how to mend it.

Pure functions of what was seen (`glide.survey`) and of what is meant (`Settings`, a role).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from langgraph_valkey import limits
from langgraph_valkey.aws import NodeLag
from langgraph_valkey.glide.clients import SERVER_OLDEST
from langgraph_valkey.glide.survey import Node, Survey
from langgraph_valkey.keys import SLOTS
from langgraph_valkey.loss_window.report import Durability
from langgraph_valkey.settings import Settings

Level: TypeAlias = Literal["ok", "note", "warning", "problem"]
Role: TypeAlias = Literal["checkpoints", "locks", "cache"]

_HELD: dict[Role, str] = {
    "checkpoints": "all of its threads are",
    "locks": "all of its locks are",
    "cache": "all it has cached is",
}

DURABLE_FROM = (9, 0)
"""The first release with durability on ElastiCache."""

FULL, FILLING = 0.9, 0.75
"""Which part of the memory is a problem, and which a warning."""

CLOCK_S = 1.0
"""By how much clocks may differ: what expires, and what was committed, is told by them."""

LOOPBACK = re.compile(r"localhost|127\.|\[?::1\]?$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        level: How it is: "problem" is to be mended, a "note" only to be known.
        what: What was found.
        why: Why it matters; "" where all is well.
        fix: How to mend it.
    """

    check: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""


def of_glide(found: dict[str, str], needed: str) -> Finding:
    """The two client wheels."""
    what = ", ".join(f"{wheel} {version}" for wheel, version in found.items())
    if set(found.values()) == {needed}:
        return Finding("client", "ok", what)
    return Finding(
        "client",
        "problem",
        what,
        "the two wheels share files, so other versions break each other",
        f"pip install --force-reinstall valkey-glide=={needed} valkey-glide-sync=={needed}",
    )


def of_version(survey: Survey) -> Finding:
    """The server's release."""
    found = sorted({version for node in _nodes(survey) if (version := _version_of(node))})
    if not found:
        return _hidden("version", "which release runs is not told")
    what = f"Valkey {', '.join(found)}"
    oldest = min(_numbers(version) for version in found)
    if oldest < SERVER_OLDEST:
        need = ".".join(map(str, SERVER_OLDEST))
        why = "older ones lack commands that every call uses, and are refused"
        return Finding("version", "problem", what, why, f"upgrade it to {need} or newer")
    if oldest < DURABLE_FROM:
        why = "ElastiCache offers durability from 9.0 on; without it a crash may lose anything"
        return Finding("version", "note", what, why, "upgrade it if its durability matters")
    return Finding("version", "ok", what)


def of_mode(survey: Survey, *, meant_cluster: bool) -> Finding:
    """Cluster mode, on the server and in the settings."""
    told = survey.primaries[0].info
    says_cluster = "cluster" in (told.get("server_mode"), told.get("redis_mode"))
    if meant_cluster and survey.in_cluster:
        return Finding("mode", "ok", f"cluster mode, {len(survey.shards)} shards")
    if meant_cluster:
        why = "the settings say cluster mode and the server runs without: no call works"
        fix = "turn cluster mode on (ElastiCache's durability needs it), or add ?mode=standalone"
        return Finding("mode", "problem", "no cluster mode", why, fix)
    if says_cluster:
        why = "a client without cluster mode asks one node for what others have"
        fix = "leave mode=standalone out of the URL"
        return Finding("mode", "problem", "cluster mode, and the settings say standalone", why, fix)
    why = "clients don't follow its failovers, and ElastiCache's durability needs cluster mode"
    return Finding("mode", "warning", "no cluster mode", why, "use a server with cluster mode")


def of_tls(settings: Settings) -> Finding:
    """Whether the connection is encrypted."""
    if settings.tls and settings.tls_insecure:
        why = "anybody on the way can be the server"
        fix = "leave tls_insecure out, and name the authority by tls_ca_file"
        return Finding("tls", "problem", "TLS, with any certificate trusted", why, fix)
    if settings.tls:
        return Finding("tls", "ok", "TLS")
    if all(LOOPBACK.match(host) for host, _ in settings.addresses):
        return Finding("tls", "ok", "no TLS, on this machine alone")
    why = "state and passwords cross the network in clear; ElastiCache's durability needs TLS"
    return Finding("tls", "warning", "no TLS", why, "turn it on at the server; use valkeys://")


def of_slots(survey: Survey) -> Finding | None:
    """Whether every slot has somebody who serves it."""
    if not survey.in_cluster:
        return None
    spans = [span for shard in survey.shards for span in shard.slots]
    covered = sum(last - first + 1 for first, last in spans)
    views = {node.address: node.view for node in _nodes(survey) if node.view}
    served = {at: int(view.get("cluster_slots_ok") or SLOTS) for at, view in views.items()}
    failing = [at for at, view in views.items() if view.get("cluster_state", "ok") != "ok"]
    least = min([covered, *served.values()])
    if least == SLOTS and not failing:
        return Finding("slots", "ok", f"all {SLOTS} slots are served")
    who = ", ".join([*failing, *(at for at, many in served.items() if many < SLOTS)])
    return Finding(
        "slots",
        "problem",
        f"{least} of {SLOTS} slots are served" + (f", as {who} sees it" if who else ""),
        "threads in the others can't be read or written",
        "wait for the failover; bring the lost nodes back, or deal the slots to others",
    )


def of_replicas(survey: Survey, role: Role) -> Iterator[Finding]:
    """Whether each primary has somebody to follow it."""
    without, behind, silent = [], [], []
    for node in survey.primaries:
        count = node.number("connected_slaves")
        if count is None:
            silent.append(node.address)
        elif not count:
            without.append(node.address)
        elif any(_is_behind(node.info.get(f"slave{n}", "")) for n in range(count)):
            behind.append(node.address)
    if silent:
        yield _hidden("replicas", f"{', '.join(silent)} does not tell of its replicas")
    if without:
        why = f"if it is lost, {_HELD[role]}, or until it comes back with its data"
        fix = "add a replica to each shard, in another zone (ElastiCache: Multi-AZ)"
        yield Finding("replicas", "warning", f"{', '.join(without)} has none", why, fix)
    if behind:
        why = "what it has not got is lost if the primary is"
        fix = "look at the replica's log, its network and its disk"
        what = f"a replica of {', '.join(behind)} is not up to date"
        yield Finding("replicas", "warning", what, why, fix)
    if not (without or behind or silent):
        yield Finding("replicas", "ok", "each primary has one that follows")


def _is_behind(told: str) -> bool:
    """Whether a replica, as INFO has it, is not in step; ``lag`` is in seconds."""
    fields = dict(part.partition("=")[::2] for part in told.split(","))
    lag = fields.get("lag", "0")
    return fields.get("state", "online") != "online" or (
        lag.isdigit() and float(lag) > limits.LAG_BOUND_S
    )


def of_eviction(survey: Survey, settings: Settings, role: Role) -> Finding:
    """What the server drops when its memory is full."""
    found = sorted({node.info.get("maxmemory_policy", "") for node in survey.primaries} - {""})
    if not found:
        return _hidden("eviction", "maxmemory-policy is not told")
    what = f"maxmemory-policy {', '.join(found)}"
    drops_all = any(each.startswith("allkeys") for each in found)
    drops_some = any(each.startswith("volatile") for each in found)
    if role == "cache":
        if drops_all:
            return Finding("eviction", "ok", what)
        why = "a full cache refuses what is new, instead of dropping what is old"
        return Finding("eviction", "warning", what, why, "set it to allkeys-lru")
    if not (drops_all or drops_some):
        return Finding("eviction", "ok", what)
    fix = "set it to noeviction (on ElastiCache: in a parameter group of its own)"
    if role == "locks":
        if not drops_all:
            return Finding("eviction", "ok", what)
        return Finding("eviction", "problem", what, "a lock's tokens would begin at 1 again", fix)
    if drops_all or settings.ttl_s is not None:
        why = "threads, or parts of them, vanish when the memory is full, with no failover"
        return Finding("eviction", "problem", what, why, fix)
    why = "notes on deletions may be dropped, and a late replay bring a deleted thread back"
    return Finding("eviction", "warning", what, why, fix)


def of_memory(survey: Survey) -> Finding:
    """How much room is left."""
    shares = []
    unbounded = False
    for node in survey.primaries:
        used, most = node.number("used_memory"), node.number("maxmemory")
        unbounded |= most == 0
        most = most or node.number("total_system_memory")
        if used and most:
            shares.append((used / most, used, most, node.address))
    if not shares:
        return _hidden("memory", "how full it is, is not told")
    share, used, most, address = max(shares)
    of = "the machine's memory" if unbounded else "maxmemory"
    what = f"{share:.0%} of {of} at {address} ({_mib(used)} of {_mib(most)})"
    fix = "prune or delete threads, set ttl_s, raise maxmemory or add shards"
    if share >= FULL:
        why = "when it is full, no step can be stored (StoreFull); reading and deleting go on"
        return Finding("memory", "problem", what, why, fix)
    if share >= FILLING:
        return Finding("memory", "warning", what, "it fills up", fix)
    if unbounded and survey.in_cluster:
        why = "without maxmemory the operating system ends the server when memory runs out"
        return Finding("memory", "note", what, why, "set maxmemory, with room for replication")
    return Finding("memory", "ok", what)


def of_clocks(survey: Survey) -> Finding:
    """Whether the servers' clocks agree with this machine's."""
    known = [node for node in _nodes(survey) if node.offset_s is not None]
    if not known:
        return _hidden("clocks", "the servers' clocks are not told")
    worst = max(known, key=lambda node: abs(node.offset_s or 0.0))
    offset_s = worst.offset_s or 0.0
    if abs(offset_s) <= CLOCK_S:
        return Finding("clocks", "ok", f"within {max(0.01, abs(offset_s)):.2f} s of this machine's")
    side = "ahead of" if offset_s > 0 else "behind"
    what = f"{worst.address} is {abs(offset_s):.1f} s {side} this machine"
    why = "when threads expire, and whether a run went on, is told by clocks"
    return Finding("clocks", "warning", what, why, "have both set by the same time service (NTP)")


def of_search(survey: Survey) -> Finding:
    """Whether there is a search module."""
    if survey.has_search is None:
        return _hidden("search", "whether there is a search module is not told")
    if survey.has_search:
        return Finding("search", "ok", "a search module is there")
    why = "semantic caches and stores then search in each process's own memory: they work without"
    fix = "on ElastiCache it is there from Valkey 8.2 on; else load valkey-search"
    return Finding("search", "note", "no search module", why, fix)


def of_nodes(survey: Survey) -> Iterator[Finding]:
    """Nodes that did not answer."""
    for node in _nodes(survey):
        if node.trouble:
            kind = "primary" if node.leads else "replica"
            why = "its shard can't be used" if node.leads else "its shard has nobody to take over"
            fix = "look at the node, and whether this machine may reach it"
            yield Finding("nodes", "problem", f"{kind} {node.address}: {node.trouble}", why, fix)


def of_durability(
    settings: Settings, role: Role, durability: Durability, trouble: str, lags: Sequence[NodeLag]
) -> Iterator[Finding]:
    """What becomes of acknowledged writes when a primary is lost.

    Args:
        settings: What they say of it.
        role: What the cluster holds.
        durability: What is in force, by whoever knows best.
        trouble: Why AWS could not be asked; "" if it was, or need not be.
        lags: How far logs lag, by AWS.
    """
    asked = settings.aws_replication_group is not None
    if trouble:
        why = "whether acknowledged writes can be lost is then not known"
        yield Finding("durability", "warning", "AWS does not tell it", why, trouble)
        return
    if asked and settings.durability not in ("unknown", durability):
        why = "the journal is kept by what AWS says; who believes the settings is wrong"
        what = f"AWS says {durability}, the settings say {settings.durability}"
        yield Finding("durability", "problem", what, why, "leave durability out of the settings")
    what = f"{durability}, {'as AWS says' if asked else 'by the settings'}"
    if role == "locks" and durability != "sync":
        why = "a failover could give one lock to two holders"
        yield Finding("durability", "problem", what, why, "use a cluster with sync durability")
    elif role == "cache" or durability in ("sync", "async"):
        yield Finding("durability", "ok", what)
    elif durability == "unknown":
        why = "it is taken for async, which is safe: processes keep what they wrote for 20 s"
        fix = "say it (?durability=sync), or name aws_replication_group, and AWS is asked"
        yield Finding("durability", "note", "not known", why, fix)
    else:
        why = "a crash may lose whatever had not been replicated; living processes replay theirs"
        fix = "choose sync where losing a step is costly, async where speed matters"
        yield Finding("durability", "warning", what, why, fix)
    yield from _of_lags(lags)


def _of_lags(lags: Sequence[NodeLag]) -> Iterator[Finding]:
    known = [node for node in lags if node.lag_s is not None]
    if not known:
        return
    worst = max(known, key=lambda node: node.lag_s or 0.0)
    lag_s, refused = worst.lag_s or 0.0, sum(node.refused or 0 for node in lags)
    what = f"at most {lag_s:.1f} s (shard {worst.shard}); {refused} writes refused in 5 minutes"
    if refused or lag_s > limits.LAG_BOUND_S / 2:
        why = f"over {limits.LAG_BOUND_S:.0f} s a shard refuses writes until its log has caught up"
        fix = "write less at once, spread threads over more shards, or use larger nodes"
        yield Finding("lag", "warning", what, why, fix)
    else:
        yield Finding("lag", "ok", what)


def verdict(findings: Iterable[Finding]) -> Level:
    """The worst of all."""
    levels: tuple[Level, ...] = ("problem", "warning", "note")
    found = {each.level for each in findings}
    return next((level for level in levels if level in found), "ok")


def _hidden(check: str, what: str) -> Finding:
    why = "it could not be looked at"
    return Finding(check, "note", what, why, "allow this user INFO, TIME and COMMAND, to know")


def _nodes(survey: Survey) -> Iterator[Node]:
    for shard in survey.shards:
        yield from shard.nodes


def _version_of(node: Node) -> str:
    return node.info.get("valkey_version") or node.info.get("redis_version") or ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MiB"
