"""How a shard is, as its nodes say: for the page, several times a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langgraph_valkey import LanggraphValkeyError, Unreachable
from langgraph_valkey.local import LocalCluster, Node, ServerError

Role: TypeAlias = Literal["primary", "replica", "frozen", "down"]

LAG_BOUND_S = 10.0
"""As ElastiCache: beyond it a primary refuses writes."""


@dataclass(frozen=True, slots=True)
class ShardView:
    """A shard.

    Attributes:
        shard: Its index.
        nodes: Its nodes: port, process id and role.
        identity: Replication id of its primary; "" while it has none.
        lag_s: Age of its oldest write that is not persisted.
        held: Whether its log is held.
        rejecting: Why it refuses writes; "" if it does not.
    """

    shard: int
    nodes: tuple[tuple[int, int | None, Role], ...]
    identity: str
    lag_s: float
    held: bool
    rejecting: str

    @property
    def is_whole(self) -> bool:
        """Whether it has a primary, and all its nodes run."""
        return bool(self.identity) and all(
            role in ("primary", "replica") for *_, role in self.nodes
        )

    def told(self) -> dict[str, Any]:
        """The same, as JSON has it."""
        return {
            "shard": self.shard,
            "nodes": [{"port": port, "pid": pid, "role": role} for port, pid, role in self.nodes],
            "identity": self.identity,
            "lag_s": round(self.lag_s, 3),
            "held": self.held,
            "rejecting": self.rejecting,
            "whole": self.is_whole,
        }


def view_shard(cluster: LocalCluster, shard: int, *, held: bool, told_to_refuse: bool) -> ShardView:
    """Look at a shard.

    Args:
        cluster: Its cluster.
        shard: Its index.
        held: Whether its log is held.
        told_to_refuse: Whether its primary was told to refuse writes.
    """
    primary, identity, lag_s = None, "", 0.0
    try:
        primary = cluster.primary(shard)
        identity = primary.info("INFO", "replication").get("master_replid", "")
        lag_s = cluster.lag_s(shard)
    except (LanggraphValkeyError, ServerError):
        primary, identity = None, ""  # It has just gone; a replica is about to follow it.
    nodes = tuple(
        (node.port, node.pid, _role(node, primary)) for node in cluster.nodes if node.shard == shard
    )
    rejecting = "NOREPLICAS" if told_to_refuse else ""
    if primary is not None and lag_s > LAG_BOUND_S:
        rejecting = "CLUSTERDOWN"
    return ShardView(shard, nodes, identity, lag_s, held, rejecting)


def _role(node: Node, primary: Node | None) -> Role:
    if node.frozen:
        return "frozen"
    if not node.running:
        return "down"
    return "primary" if node is primary else "replica"


def primary_of(cluster: LocalCluster, shard: int) -> Node | None:
    """A shard's primary; None while it has none."""
    try:
        return cluster.primary(shard)
    except Unreachable:
        return None
