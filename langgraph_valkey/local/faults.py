"""What can go wrong in a cluster of servers, whatever its durability.

=====================  ==========================================================
`hold_replication`     replicas stop applying: what is written from now on is lost
                       when the primary is lost
`kill_primary`         the primary crashes; a replica is promoted after about 1.5 s
`freeze_primary`       the primary hangs, or is cut off; after `resume` it still answers
                       as primary for a moment, and what it then acknowledges is
                       lost
`split_primary`        the primary is cut off from the other nodes, and does not
                       notice: it goes on as primary while a replica is promoted,
                       and what it then acknowledges is lost
`promote`              a planned failover: nothing is lost
`force_failover`       a replica takes over without asking the primary: what it had
                       not applied is lost, and no client sees an error
`reject_writes`        the primary refuses writes (NOREPLICAS); reads go on
=====================  ==========================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.health import view_of
from langgraph_valkey.local.log import Rule
from langgraph_valkey.local.node import Node, wait_until
from langgraph_valkey.local.nodes import HEALTHY_DEADLINE_S, POLL_S, Nodes

FORCE_AGAIN_S = 2.5
"""After how long a forced failover is asked for again: an election that finds no
majority is not repeated by the server."""

MANY_REPLICAS = 99
"""More replicas than any shard has: a primary that wants as many refuses writes."""


DEAF, HEARING = -2, -1
"""Which messages of other nodes a node ignores: all, or none."""

NEVER_MS = 1_000_000_000
"""A node timeout after which nobody is ever taken for dead."""


class Faults(Nodes):
    """A cluster that can be broken; see `LocalCluster` for the arguments."""

    def __init__(
        self,
        shards: int,
        replicas: int,
        *,
        node_timeout_ms: int,
        options: Mapping[str, str] | None,
        rule: Rule | None,
    ) -> None:
        super().__init__(
            shards, replicas, node_timeout_ms=node_timeout_ms, options=options, rule=rule
        )
        self._held: dict[int, Node] = {}

    def stop(self) -> None:
        """End all nodes and remove their files."""
        super().stop()
        self._held.clear()

    def hold_replication(self, shard: int, hold_ms: int) -> None:
        """Let the shard's replicas apply nothing for a time.

        What is written from now on is lost if the primary is then killed; what was
        written before has arrived. The hold ends early by `release_replication`, or
        when `wait_healthy`, `promote` or `force_failover` has seen a new primary.
        """
        self.wait_replicated(shard)
        self._held[shard] = self.primary(shard)
        for node in self.replicas(shard):
            node.command("CLIENT", "PAUSE", hold_ms, "WRITE")

    def release_replication(self, shard: int) -> None:
        """End `hold_replication`."""
        self._held.pop(shard, None)
        for node in self._running(shard):
            node.command("CLIENT", "UNPAUSE")

    def kill_primary(self, shard: int) -> Node:
        """End the shard's primary at once (SIGKILL); return it."""
        node = self.primary(shard)
        node.kill()
        return node

    def freeze_primary(self, shard: int) -> Node:
        """Halt the shard's primary (SIGSTOP) with its connections open; return it."""
        node = self.primary(shard)
        node.freeze()
        return node

    def resume(self, shard: int) -> None:
        """Let every frozen node of the shard go on (SIGCONT)."""
        for node in self._nodes:
            if node.shard == shard and node.frozen:
                node.thaw()

    def split_primary(self, shard: int) -> Node:
        """Cut the primary off from all nodes, but not from clients; return it.

        Returns once a replica was promoted. Until `heal` the old one takes itself for
        the primary and acknowledges writes, which are lost. `primary`, `replicas` and
        `wait_healthy` do not count it meanwhile.

        Raises:
            ConfigurationError: The shard has no running replica.
            TimeoutError: None was promoted in time.
        """
        old = self.primary(shard)
        self._replica_of(shard, old)
        # It must not miss the others: it would refuse writes as part of a minority.
        old.command("CONFIG", "SET", "cluster-node-timeout", NEVER_MS)
        old.command("DEBUG", "DROP-CLUSTER-PACKET-FILTER", DEAF)
        self._apart.add(old)
        self.wait_healthy()
        return old

    def heal(self, shard: int) -> None:
        """End `split_primary`: the old primary hears of the new one, and follows it.

        Raises:
            TimeoutError: It did not in time.
        """
        for node in [each for each in self._apart if each.shard == shard]:
            self._apart.discard(node)
            if node.running:
                self._let_hear(node)
        self.wait_healthy()

    def _let_hear(self, node: Node) -> None:
        node.command("DEBUG", "DROP-CLUSTER-PACKET-FILTER", HEARING)
        wait_until(lambda: not self._leads(node), HEALTHY_DEADLINE_S, poll_s=POLL_S)
        timeout = self._options["cluster-node-timeout"]
        node.command("CONFIG", "SET", "cluster-node-timeout", timeout)

    def promote(self, shard: int) -> Node:
        """Make a replica the primary as planned, losing nothing; return it.

        Raises:
            ConfigurationError: The shard has no running replica.
            TimeoutError: It was not done in time.
        """
        return self._failover(shard)

    def force_failover(self, shard: int, *, takeover: bool = False) -> Node:
        """Make a replica the primary without asking the old one; return it.

        What the replica had not applied is lost. The old primary, where it runs, turns
        into a replica and takes over the new one's data.

        Args:
            shard: The shard.
            takeover: Do not ask the other primaries for their votes either.

        Raises:
            ConfigurationError: The shard has no running replica.
            TimeoutError: It was not done in time.
        """
        return self._failover(shard, "TAKEOVER" if takeover else "FORCE")

    def _failover(self, shard: int, *how: str) -> Node:
        try:
            old = self.primary(shard)
        except Unreachable:
            old = None
        target = self._replica_of(shard, old)
        deadline = time.monotonic() + HEALTHY_DEADLINE_S
        while time.monotonic() < deadline:
            target.command("CLUSTER", "FAILOVER", *how)
            if wait_until(lambda: self._leads(target), FORCE_AGAIN_S, poll_s=POLL_S):
                self.wait_healthy(max(0.1, deadline - time.monotonic()))
                return target
        raise TimeoutError(f"{target} was not promoted within {HEALTHY_DEADLINE_S:.0f} s")

    def _replica_of(self, shard: int, old: Node | None) -> Node:
        target = next((node for node in self._running(shard) if node is not old), None)
        if target is None:
            raise ConfigurationError(
                f"shard {shard} has no running replica to promote: start the cluster with "
                "replicas=1 or more, or restart_node() one"
            )
        return target

    def _leads(self, node: Node) -> bool:
        seen = view_of(node).get(node.node_id)
        return seen is not None and seen.owns_slots

    def restart_node(self, node: Node) -> None:
        """Start a stopped node again, or stop and start a running one, on its port.

        It keeps its identity, not its data: it gets that from the shard's primary. A
        node that comes back as primary before a replica was promoted comes back
        empty, and empties its replicas too: call `wait_healthy` in between.
        """
        if node.frozen:
            node.kill()
        node.stop()
        self._forget(node)
        node.start()

    def reject_writes(self, shard: int) -> None:
        """Let the shard's primary refuse every write with NOREPLICAS; reads go on."""
        self.primary(shard).command("CONFIG", "SET", "min-replicas-to-write", MANY_REPLICAS)

    def accept_writes(self, shard: int) -> None:
        """End `reject_writes`."""
        for node in self._running(shard):
            node.command("CONFIG", "SET", "min-replicas-to-write", 0)

    def _forget(self, node: Node) -> None:
        """Called when a node has ended: it comes back as a new one, by the same name."""
        self._apart.discard(node)

    def _settled(self) -> None:
        for shard, old in list(self._held.items()):
            # The new primary would hold back its clients' writes as well.
            if self.primary(shard) is not old:
                self.release_replication(shard)
