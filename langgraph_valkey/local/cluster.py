"""`LocalCluster`: a real cluster of server processes, with its faults as methods.

Without `durability` it replicates as Valkey does: asynchronously, with no bound on
what a crash loses. With it, it behaves as ElastiCache is documented to, by doors that
stand before each real server (see `gate` and `log`):

===================  ============================================================
durability="async"   a write is acknowledged at once. While the oldest write that is
                     not persisted yet is older than `lag_bound_s`, the shard refuses
                     every write with ``CLUSTERDOWN The cluster is down``; reads go
                     on. A crash loses exactly what is not persisted.
durability="sync"    a write is acknowledged when it is persisted. A crash loses
                     nothing that was acknowledged. Where the log stands still,
                     writes wait for up to `lag_bound_s`, then their connection
                     breaks, and later ones are refused.
===================  ============================================================

*Persisted* means that every replica that follows has it. So a shard without a
replica that runs persists nothing: `restart_node` what you killed within the bound.
`wait_healthy` says when it has caught up.

Faults of its own (those of any cluster are in `faults`):

=====================  ==========================================================
`hold_log`             nothing is persisted from now on, until `release_log`
`set_lag`              everything is persisted so much later
`kill_primary`         loses exactly what is not persisted
`split_primary`        as in any cluster; the old primary refuses writes when its
                       oldest one is too old, unless told to go on even so
sloppy_s               the bound is exceeded by up to this (an argument)
clock_rate             the cluster's clock runs at another speed (an argument)
=====================  ==========================================================

What is not emulated: a log apart from the replicas; reads with sync durability
waiting for a write that they would see (another connection may read a value that
is not acknowledged yet); the latency of a real log, unless by `set_lag`; TLS.
Commands sent by `Node.command` go past the doors: they are never refused or held
back, and what they write is lost and counted like any other write.
"""

from __future__ import annotations

from collections.abc import Mapping

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.local.faults import Faults
from langgraph_valkey.local.front import Front
from langgraph_valkey.local.log import Log, Mode, Rule
from langgraph_valkey.local.node import Node, wait_until

FOLLOWED_DEADLINE_S = 10.0
"""How long `kill_primary` waits for a replica to have the primary's data."""


class LocalCluster(Faults):
    """A cluster of real Valkey servers on this machine, for tests and demos.

    Everything is in memory and gone at `stop`. Use it as a context manager, plain or
    async, or call `start` and `stop`; it ends with this Python process at the latest.

    Args:
        shards: How many primaries; slots are dealt evenly.
        replicas: Replicas of each. A failover needs at least one, and three shards:
            primaries elect by majority.
        node_timeout_ms: After how long of silence a node is taken for dead.
        options: Further server options, written as in ``valkey.conf``.
        durability: "async", "sync", or None for plain replication.
        lag_bound_s: With durability: how old the oldest write that is not persisted
            may be before writes are refused.
        sloppy_s: With durability: by how much the bound may be exceeded; drawn anew
            each time.
        clock_rate: With durability: seconds on the cluster's clock in a real one.
        seed: With durability: of what is drawn.

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
        durability: Mode | None = None,
        lag_bound_s: float = 10.0,
        sloppy_s: float = 0.0,
        clock_rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        rule = None
        if durability is not None:
            rule = Rule(durability, lag_bound_s, sloppy_s, clock_rate, seed)
        super().__init__(
            shards, replicas, node_timeout_ms=node_timeout_ms, options=options, rule=rule
        )

    def hold_log(self, shard: int) -> None:
        """Persist nothing from now on; what was written before is persisted.

        It ends by `release_log`, or when `wait_healthy`, `promote` or `force_failover`
        has seen a new primary, whose log is another one. A replica that comes back
        meanwhile has to wait, and a planned failover can't succeed.

        Raises:
            ConfigurationError: The cluster has no durability.
            TimeoutError: What was written before did not get persisted.
        """
        front = self._front(self.primary(shard))
        if not front.call(lambda log: log.lag_s):
            self.wait_replicated(shard)
        self._held[shard] = self.primary(shard)
        front.call(Log.hold)

    def release_log(self, shard: int) -> None:
        """End `hold_log`: the log catches up at once."""
        self._held.pop(shard, None)
        for front in self._fronts(shard):
            front.call(Log.release)

    def set_lag(self, shard: int, lag_s: float) -> None:
        """Persist each write so long after it was executed; also after failovers.

        Raises:
            ConfigurationError: The cluster has no durability, or the lag is negative.
        """
        if lag_s < 0:
            raise ConfigurationError(f"a log can't lag by {lag_s} s: give 0.0 or more")
        for front in self._fronts(shard):
            front.call(lambda log: log.set_lag(lag_s))

    def lag_s(self, shard: int) -> float:
        """Age of the shard's oldest write that is not persisted; 0.0 if all are.

        Raises:
            ConfigurationError: The cluster has no durability.
        """
        return self._front(self.primary(shard)).call(Log.age_s)

    def hold_replication(self, shard: int, hold_ms: int) -> None:
        """Let the shard's replicas apply nothing; with durability this is `hold_log`.

        What is written from now on is lost if the primary is then killed; what was
        written before has arrived. The hold ends early by `release_replication`, or
        when `wait_healthy`, `promote` or `force_failover` has seen a new primary.

        Args:
            shard: The shard.
            hold_ms: When it ends at the latest; with durability it does not.
        """
        if self._doors is None:
            super().hold_replication(shard, hold_ms)
        else:
            self.hold_log(shard)

    def release_replication(self, shard: int) -> None:
        """End `hold_replication`."""
        if self._doors is None:
            super().release_replication(shard)
        else:
            self.release_log(shard)

    def kill_primary(self, shard: int) -> Node:
        """End the shard's primary at once (SIGKILL); return it.

        With durability exactly what is not persisted is lost. For that a replica must
        have the primary's data, so one that is only being set up is waited for.

        Raises:
            TimeoutError: No replica got the data in time.
        """
        if self._doors is None:
            return super().kill_primary(shard)
        node = self.primary(shard)
        front = self._front(node)
        if self.replicas(shard) and not wait_until(
            lambda: front.call(lambda log: log.followed), FOLLOWED_DEADLINE_S
        ):
            raise TimeoutError(
                f"no replica of shard {shard} has its data yet: a crash would lose all of it; "
                "release_log() lets them have it"
            )
        front.call(Log.crash)
        node.kill()
        self._forget(node)
        return node

    def split_primary(self, shard: int, *, unbounded: bool = False) -> Node:
        """Cut the primary off from all nodes, but not from clients; return it.

        Returns once a replica was promoted. Until `heal` the old one takes itself for
        the primary and acknowledges writes, which are lost. `primary`, `replicas` and
        `wait_healthy` do not count it meanwhile.

        Args:
            shard: The shard.
            unbounded: With durability: it does not notice that nothing is persisted any
                more, and goes on for as long as you like. Otherwise it refuses writes
                when the first one after the promotion is older than the bound.

        Raises:
            ConfigurationError: The shard has no running replica.
            TimeoutError: None was promoted in time.
        """
        old = super().split_primary(shard)
        if self._doors is not None:
            self._doors.of(old).call(lambda log: log.be_blind(unbounded))
        return old

    def _front(self, node: Node) -> Front:
        if self._doors is None:
            raise ConfigurationError(
                "a cluster without durability has no log: make it with durability='async' or 'sync'"
            )
        return self._doors.of(node)

    def _fronts(self, shard: int) -> list[Front]:
        return [self._front(node) for node in self._nodes if node.shard == shard]

    def _forget(self, node: Node) -> None:
        super()._forget(node)
        if self._doors is not None:
            self._doors.of(node).call(Log.clear)

    def _settled(self) -> None:
        super()._settled()
        if self._doors is None:
            return
        for shard in range(self._shards):
            try:
                followers = self.replicas(shard)
            except Unreachable:
                continue  # it has just been broken again
            for node in followers:
                self._doors.of(node).call(Log.clear)
