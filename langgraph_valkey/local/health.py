"""What is wrong with a cluster, by what its nodes say.

A cluster is whole when every running node knows every other one, all name the same
owners of the slots, each shard has one that runs, and every other node follows its
primary. Nodes that were stopped or frozen on purpose are not asked and not missed.
"""

from __future__ import annotations

from collections.abc import Sequence

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.local.node import Node
from langgraph_valkey.local.topology import SLOTS, Seen, parse_nodes

ASK_TIMEOUT_S = 1.0
"""How long a node may take to say how it sees the cluster."""


def view_of(node: Node) -> dict[str, Seen]:
    """How a node sees the cluster, by node id; empty if it does not answer."""
    try:
        reply = node.command("CLUSTER", "NODES", timeout_s=ASK_TIMEOUT_S)
    except LanggraphValkeyError:
        return {}
    return parse_nodes(reply) if isinstance(reply, bytes) else {}


def applied_offset(node: Node) -> int:
    """How far a node is in its shard's stream of writes, in bytes."""
    info = node.info("INFO", "replication")
    return int(info.get("slave_repl_offset", info["master_repl_offset"]))


def faults_of(nodes: Sequence[Node], shards: int) -> list[str]:
    """What keeps the cluster from being whole, in words; empty when it is."""
    running = {node.node_id: node for node in nodes if node.running}
    owners: set[tuple[str, ...]] = set()
    for node in running.values():
        view = view_of(node)
        missing = [other.address for i, other in running.items() if not _well(view.get(i))]
        if missing:
            return [f"{node.address} does not see {', '.join(missing)}"]
        owners.add(tuple(sorted(i for i, seen in view.items() if seen.owns_slots)))
    if len(owners) != 1:
        return ["the nodes disagree on who leads"]
    leading = owners.pop()
    if not set(leading) <= set(running) or len(leading) != shards:
        return [f"{len(set(leading) & set(running))} of {shards} shards are led"]
    faults = (_fault_of(node, leads=node.node_id in leading) for node in running.values())
    return [fault for fault in faults if fault is not None]


def _fault_of(node: Node, *, leads: bool) -> str | None:
    try:
        info = node.info("CLUSTER", "INFO")
        replication = node.info("INFO", "replication")
    except LanggraphValkeyError as error:
        return str(error)
    if info.get("cluster_state") != "ok" or info.get("cluster_slots_ok") != str(SLOTS):
        return f"{node.address} is not ready"
    if leads or replication.get("master_link_status") == "up":
        return None
    return f"{node.address} does not follow its primary yet"


def _well(seen: Seen | None) -> bool:
    return seen is not None and seen.linked and not seen.flags & {"fail", "fail?", "handshake"}
