"""The cluster and what breaks it. Everything here blocks: it is called in threads.

The cluster is as ElastiCache is documented with async durability: it acknowledges at once,
and persists to a log that lags. The log of this one always lags a bit, as a real one does,
so that a crash at any time loses what was written last.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass

from examples.agent_app.shards import LAG_BOUND_S, ShardView, primary_of, view_shard
from langgraph_valkey.local import LocalCluster, LocalValkey, Node

SHARDS = 3
LOG_LAG_S = 1.0
"""How long after a write it is persisted, usually."""

PROMOTED_DEADLINE_S = 20.0
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Strike:
    """A primary that was killed, or frozen.

    Attributes:
        shard: Of which shard.
        node: Which one.
        pid: Its process id.
        offset: How far its stream of writes was, in bytes, right before.
        held: Whether its log was held.
        at_s: When, on the monotonic clock.
    """

    shard: int
    node: Node
    pid: int
    offset: int
    held: bool
    at_s: float


@dataclass(frozen=True, slots=True)
class Promotion:
    """What came after.

    Attributes:
        node: The new primary.
        took_s: How long the shard had none.
        lost_bytes: By how much the stream of writes had gone on without the new primary:
            accepted by the old one, and lost.
    """

    node: Node
    took_s: float
    lost_bytes: int


class Lab:
    """The servers.

    Attributes:
        cluster: For checkpoints: three shards with a replica each.
        cache: For the semantic cache, which wants eviction.
    """

    def __init__(self) -> None:
        self.cluster = LocalCluster(SHARDS, 1, durability="async", lag_bound_s=LAG_BOUND_S)
        self.cache = LocalValkey(options={"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"})
        self._stack = ExitStack()
        self._held: set[int] = set()
        self._refusing: set[int] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all servers."""
        self._stack.enter_context(self.cache)
        self._stack.enter_context(self.cluster)
        for shard in range(SHARDS):
            self.cluster.set_lag(shard, LOG_LAG_S)

    def stop(self) -> None:
        """End them."""
        self._stack.close()

    def shard_of(self, thread: str) -> int:
        """The shard that a conversation lives in."""
        return self.cluster.shard_of(f"{{{thread}}}")

    def is_held(self, shard: int) -> bool:
        """Whether a shard's log is held."""
        with self._lock:
            return shard in self._held

    def is_frozen(self, shard: int) -> bool:
        """Whether a node of a shard is frozen."""
        return any(node.frozen for node in self.cluster.nodes if node.shard == shard)

    def look(self) -> list[ShardView]:
        """How the shards are now."""
        with self._lock:
            held, refusing = set(self._held), set(self._refusing)
        return [
            view_shard(self.cluster, shard, held=shard in held, told_to_refuse=shard in refusing)
            for shard in range(SHARDS)
        ]

    # --- faults -----------------------------------------------------------------------

    def hold_log(self, shard: int) -> None:
        """Persist nothing from now on."""
        self.cluster.hold_log(shard)
        with self._lock:
            self._held.add(shard)

    def release_log(self, shard: int) -> None:
        """Let the log catch up."""
        with self._lock:
            self._held.discard(shard)
        self.cluster.release_log(shard)

    def kill_primary(self, shard: int) -> Strike:
        """Kill the primary (SIGKILL)."""
        return self._strike(shard, kills=True)

    def freeze_primary(self, shard: int) -> Strike:
        """Halt the primary (SIGSTOP), its connections open."""
        return self._strike(shard, kills=False)

    def resume(self, shard: int) -> None:
        """Let frozen nodes go on, and wait until they follow."""
        self.cluster.resume(shard)
        self.cluster.wait_healthy()

    def reject_writes(self, shard: int) -> None:
        """Let the primary refuse writes."""
        self.cluster.reject_writes(shard)
        with self._lock:
            self._refusing.add(shard)

    def accept_writes(self, shard: int) -> None:
        """End that."""
        self.cluster.accept_writes(shard)
        with self._lock:
            self._refusing.discard(shard)

    def _strike(self, shard: int, *, kills: bool) -> Strike:
        node = self.cluster.primary(shard)
        pid = node.pid or 0
        offset = _offset(node)
        if kills:
            self.cluster.kill_primary(shard)
        else:
            self.cluster.freeze_primary(shard)
        with self._lock:
            held = shard in self._held
            self._refusing.discard(shard)
        return Strike(shard, node, pid, offset, held, time.monotonic())

    def promoted(self, strike: Strike) -> Promotion:
        """Wait until a replica was promoted.

        Raises:
            TimeoutError: None was.
        """
        until_s = time.monotonic() + PROMOTED_DEADLINE_S
        while time.monotonic() < until_s:
            found = primary_of(self.cluster, strike.shard)
            if found is not None and found is not strike.node:
                took_s = time.monotonic() - strike.at_s
                return Promotion(found, took_s, _lost(strike, found))
            time.sleep(POLL_S)
        raise TimeoutError(f"no replica of shard {strike.shard} was promoted in time")

    def mend(self, strike: Strike) -> None:
        """Start what was killed again, as a replica, and wait until all is whole."""
        self.cluster.wait_healthy()
        with self._lock:
            self._held.discard(strike.shard)
        if strike.node.frozen:
            return
        self.cluster.restart_node(strike.node)
        self.cluster.wait_healthy()


def _offset(node: Node) -> int:
    return int(node.info("INFO", "replication")["master_repl_offset"])


def _lost(strike: Strike, promoted: Node) -> int:
    """What the old primary had accepted beyond what the new one began with, in bytes."""
    # A new primary says where in the stream of the old one it took over.
    began = int(promoted.info("INFO", "replication")["second_repl_offset"]) - 1
    return max(0, strike.offset - began) if began >= 0 else 0
