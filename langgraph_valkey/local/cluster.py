"""`LocalCluster`: a real cluster of server processes, with its faults as methods.

Faults and what they stand for:

=====================  ==========================================================
`hold_replication`     replicas stop applying: what is written from now on is lost
                       when the primary is lost
`kill_primary`         the primary crashes; a replica is promoted after about 1.5 s
`freeze_primary`       the primary hangs, or is cut off; after `resume` it still answers
                       as primary for a moment, and what it then acknowledges is
                       lost
`promote`              a planned failover: nothing is lost
`force_failover`       a replica takes over without asking the primary: what it had
                       not applied is lost, and no client sees an error
`reject_writes`        the primary refuses writes (NOREPLICAS); reads go on
=====================  ==========================================================

Nodes are addressed by the shard they belong to; who leads a shard is asked of the
nodes themselves, never remembered.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.health import applied_offset, faults_of, view_of
from langgraph_valkey.local.lifecycle import Lifecycle
from langgraph_valkey.local.node import (
    Node,
    PortTakenError,
    checked_options,
    free_ports,
    wait_until,
)
from langgraph_valkey.local.topology import (
    Member,
    birth_file,
    ghost_id,
    shard_of_slot,
    slot_of,
)
from langgraph_valkey.local.watchdog import watchdog

HEALTHY_DEADLINE_S = 20.0
"""How long `wait_healthy` waits unless told otherwise: a crash failover takes about
1.5 s, and a lost election is repeated after two node timeouts more."""

POLL_S = 0.02
FORCE_AGAIN_S = 2.5
"""After how long a forced failover is asked for again: an election that finds no
majority is not repeated by the server."""

PORT_TRIES = 3
MANY_REPLICAS = 99
"""More replicas than any shard has: a primary that wants as many refuses writes."""


class LocalCluster(Lifecycle):
    """A cluster of real Valkey servers on this machine, for tests and demos.

    Everything is in memory and gone at `stop`. Use it as a context manager, plain or
    async, or call `start` and `stop`; it ends with this Python process at the latest.

    Args:
        shards: How many primaries; slots are dealt evenly.
        replicas: Replicas of each. A failover needs at least one, and three shards:
            primaries elect by majority.
        node_timeout_ms: After how long of silence a node is taken for dead.
        options: Further server options, written as in ``valkey.conf``.

    Raises:
        ConfigurationError: An option that can't be given here, or no shards.
    """

    def __init__(
        self,
        shards: int = 3,
        replicas: int = 1,
        *,
        node_timeout_ms: int = 1000,
        options: Mapping[str, str] | None = None,
    ) -> None:
        if not 1 <= shards <= 64 or not 0 <= replicas <= 5:
            raise ConfigurationError("a local cluster has 1-64 shards of 0-5 replicas each")
        self._shards = shards
        self._size = replicas + 1
        timeout = {"cluster-node-timeout": str(node_timeout_ms)}
        self._options = {**timeout, **checked_options(options)}
        self._nodes: tuple[Node, ...] = ()
        self._directory: Path | None = None
        self._held: dict[int, Node] = {}
        self._owner = os.getpid()

    def __repr__(self) -> str:
        return f"LocalCluster({self._shards} shards, {list(self._nodes)})"

    # --- life ---------------------------------------------------------------------

    def start(self) -> Self:
        """Start all nodes and wait until the cluster is whole.

        Raises:
            ConfigurationError: The `local` extra is missing, or a server refused an
                option.
            TimeoutError: The cluster did not get whole.
        """
        if self._nodes:
            return self
        try:
            for tries_left in reversed(range(PORT_TRIES)):
                try:
                    self._launch()
                    break
                except PortTakenError:
                    self.stop()
                    if not tries_left:
                        raise
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all nodes and remove their files."""
        if self._owner != os.getpid():
            return  # a forked copy: the servers are the parent's
        for node in self._nodes:
            node.kill()
        self._nodes = ()
        self._held.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            watchdog.forget_directory(self._directory)
            self._directory = None

    def _launch(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="langgraph-valkey-"))
        watchdog.note_directory(self._directory)
        count = self._shards * self._size
        ports = free_ports(2 * count)
        members = [
            Member(
                os.urandom(20).hex(),
                shard=i // self._size,
                leads=i % self._size == 0,
                port=ports[i],
                bus_port=ports[count + i],
            )
            for i in range(count)
        ]
        self._nodes = tuple(self._born(i, member, members) for i, member in enumerate(members))
        # A replica asks for its data when it starts, so its primary comes first.
        for node, member in zip(self._nodes, members, strict=True):
            if member.leads:
                node.start()
                node.take_over(ghost_id(member.shard))
        for node, member in zip(self._nodes, members, strict=True):
            if not member.leads:
                node.start()

    def _born(self, index: int, member: Member, members: list[Member]) -> Node:
        assert self._directory is not None
        directory = self._directory / f"node-{index}"
        directory.mkdir()
        birth = birth_file(member, members, self._shards)
        (directory / "nodes.conf").write_text(birth, encoding="utf-8")
        return Node(
            directory,
            self._options,
            node_id=member.node_id,
            ports=(member.port, member.bus_port),
            shard=member.shard,
        )

    # --- who is who ---------------------------------------------------------------

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, shard by shard, stopped ones included."""
        return self._nodes

    @property
    def url(self) -> str:
        """``valkey://127.0.0.1:PORT,127.0.0.1:PORT,...``: every node."""
        if not self._nodes:
            raise Unreachable("the local cluster is not started: use `with`, or call start()")
        return "valkey://" + ",".join(node.address for node in self._nodes)

    def shard_of(self, key: bytes | str) -> int:
        """Index of the shard that holds the key."""
        return shard_of_slot(slot_of(key), self._shards)

    def primary(self, shard: int) -> Node:
        """The running node that leads the shard now.

        Raises:
            Unreachable: None does, for now: `wait_healthy` waits for one.
        """
        best: tuple[int, Node] | None = None
        for node in self._running(shard):
            seen = view_of(node).get(node.node_id)
            if seen and seen.owns_slots and (best is None or seen.epoch > best[0]):
                best = (seen.epoch, node)
        if best is None:
            raise Unreachable(f"no running node leads shard {shard}: wait_healthy() waits for one")
        return best[1]

    def replicas(self, shard: int) -> tuple[Node, ...]:
        """The running nodes of the shard that do not lead it."""
        leading = self.primary(shard)
        return tuple(node for node in self._running(shard) if node is not leading)

    def _running(self, shard: int) -> list[Node]:
        return [node for node in self._nodes if node.shard == shard and node.running]

    # --- faults -------------------------------------------------------------------

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
        target = next((node for node in self._running(shard) if node is not old), None)
        if target is None:
            raise ConfigurationError(
                f"shard {shard} has no running replica to promote: start the cluster with "
                "replicas=1 or more, or restart_node() one"
            )
        deadline = time.monotonic() + HEALTHY_DEADLINE_S
        while time.monotonic() < deadline:
            target.command("CLUSTER", "FAILOVER", *how)
            if wait_until(lambda: self._leads(target), FORCE_AGAIN_S, poll_s=POLL_S):
                self.wait_healthy(max(0.1, deadline - time.monotonic()))
                return target
        raise TimeoutError(f"{target} was not promoted within {HEALTHY_DEADLINE_S:.0f} s")

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
        node.start()

    def reject_writes(self, shard: int) -> None:
        """Let the shard's primary refuse every write with NOREPLICAS; reads go on."""
        self.primary(shard).command("CONFIG", "SET", "min-replicas-to-write", MANY_REPLICAS)

    def accept_writes(self, shard: int) -> None:
        """End `reject_writes`."""
        for node in self._running(shard):
            node.command("CONFIG", "SET", "min-replicas-to-write", 0)

    # --- health -------------------------------------------------------------------

    def wait_healthy(self, timeout_s: float = HEALTHY_DEADLINE_S) -> None:
        """Wait until all running nodes agree on who leads, and every replica follows.

        Nodes that were killed or frozen don't count, but each shard needs a running
        primary.

        Raises:
            TimeoutError: It did not come to that; the text says what was wrong last.
        """
        faults: list[str] = []

        def healthy() -> bool:
            faults[:] = faults_of(self._nodes, self._shards)
            return not faults

        if not wait_until(healthy, timeout_s, poll_s=POLL_S):
            raise TimeoutError(f"not healthy after {timeout_s:.1f} s: {'; '.join(faults)}")
        for shard, old in list(self._held.items()):
            # The new primary would hold back its clients' writes as well.
            if self.primary(shard) is not old:
                self.release_replication(shard)

    def wait_replicated(self, shard: int, timeout_s: float = HEALTHY_DEADLINE_S) -> None:
        """Wait until the shard's replicas have applied all that was written so far.

        Raises:
            TimeoutError: They did not, for instance under `hold_replication`.
        """
        written = applied_offset(self.primary(shard))

        def applied() -> bool:
            return all(applied_offset(node) >= written for node in self.replicas(shard))

        if not wait_until(applied, timeout_s):
            raise TimeoutError(f"replicas of shard {shard} lag after {timeout_s:.1f} s")
