"""The nodes of a local cluster: their life, who leads whom, and whether all is well.

Nodes are addressed by the shard they belong to; who leads a shard is asked of the
nodes themselves, never remembered.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.durable import SERVER_OPTIONS, Doors
from langgraph_valkey.local.health import applied_offset, faults_of, view_of
from langgraph_valkey.local.lifecycle import Lifecycle
from langgraph_valkey.local.log import Rule
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
PORT_TRIES = 3

_OPTIONS = {"enable-debug-command": "local"}
"""For `split_primary`: a node is told to be deaf to the others."""


class Nodes(Lifecycle):
    """A running cluster, without its faults; see `LocalCluster` for the arguments."""

    def __init__(
        self,
        shards: int,
        replicas: int,
        *,
        node_timeout_ms: int,
        options: Mapping[str, str] | None,
        rule: Rule | None,
    ) -> None:
        if not 1 <= shards <= 64 or not 0 <= replicas <= 5:
            raise ConfigurationError("a local cluster has 1-64 shards of 0-5 replicas each")
        self._shards = shards
        self._size = replicas + 1
        timeout = {"cluster-node-timeout": str(node_timeout_ms)}
        self._doors = None if rule is None else Doors(rule)
        durable = {} if rule is None else SERVER_OPTIONS
        self._options = {**_OPTIONS, **timeout, **durable, **checked_options(options)}
        self._nodes: tuple[Node, ...] = ()
        self._apart: set[Node] = set()
        self._directory: Path | None = None
        self._owner = os.getpid()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shards} shards, {list(self._nodes)})"

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
        self._apart.clear()
        if self._doors is not None:
            self._doors.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            watchdog.forget_directory(self._directory)
            self._directory = None

    def _launch(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="langgraph-valkey-"))
        watchdog.note_directory(self._directory)
        count = self._shards * self._size
        ports = free_ports(2 * count)
        doors = [(port, port) for port in ports[:count]]
        if self._doors is not None:
            doors = self._doors.open(ports[:count])
        members = [
            Member(
                os.urandom(20).hex(),
                shard=i // self._size,
                leads=i % self._size == 0,
                port=doors[i][1],
                bus_port=ports[count + i],
                client_port=doors[i][0],
            )
            for i in range(count)
        ]
        self._nodes = tuple(
            self._born(i, member, members, ports[i]) for i, member in enumerate(members)
        )
        # A replica asks for its data when it starts, so its primary comes first.
        for node, member in zip(self._nodes, members, strict=True):
            if member.leads:
                node.start()
                node.take_over(ghost_id(member.shard))
        for node, member in zip(self._nodes, members, strict=True):
            if not member.leads:
                node.start()
        if self._doors is not None:
            self._doors.guard(self._nodes)

    def _born(self, index: int, member: Member, members: list[Member], port: int) -> Node:
        assert self._directory is not None
        directory = self._directory / f"node-{index}"
        directory.mkdir()
        birth = birth_file(member, members, self._shards)
        (directory / "nodes.conf").write_text(birth, encoding="utf-8")
        return Node(
            directory,
            self._options,
            node_id=member.node_id,
            ports=(port, member.bus_port),
            shard=member.shard,
            doors=(member.client_port, member.port),
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
        return [node for node in self._connected() if node.shard == shard and node.running]

    def _connected(self) -> list[Node]:
        """All nodes but those that are split off."""
        return [node for node in self._nodes if node not in self._apart]

    # --- health -------------------------------------------------------------------

    def wait_healthy(self, timeout_s: float = HEALTHY_DEADLINE_S) -> None:
        """Wait until all running nodes agree on who leads, and every replica follows.

        Nodes that were killed, frozen or split off don't count, but each shard needs
        a running primary.

        Raises:
            TimeoutError: It did not come to that; the text says what was wrong last.
        """
        faults: list[str] = []

        def healthy() -> bool:
            faults[:] = faults_of(self._connected(), self._shards)
            return not faults

        if not wait_until(healthy, timeout_s, poll_s=POLL_S):
            raise TimeoutError(f"not healthy after {timeout_s:.1f} s: {'; '.join(faults)}")
        self._settled()

    def _settled(self) -> None:
        """Called when the cluster is found whole."""

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
