"""How the shards are: what a monitor has to do for them, and what people are told."""

from __future__ import annotations

import threading
from collections.abc import Callable

from langgraph_valkey import limits
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.loss_window.durability import Rule
from langgraph_valkey.loss_window.journal import Journal
from langgraph_valkey.loss_window.pulse import Pulse
from langgraph_valkey.loss_window.recovery import Recoveries
from langgraph_valkey.loss_window.report import Durability, Health, ShardHealth
from langgraph_valkey.loss_window.shards import Shard, Shards
from langgraph_valkey.loss_window.watermark import NOTHING_YET


class Vitals:
    """A view of a loss window's parts, under its lock.

    Args:
        lock: That of the window.
        rule: By which writes become durable.
        pulse: When each primary last answered.
        journal: What is not durable yet.
        shards: Who answers for which slot.
        recoveries: What failovers did.
    """

    def __init__(
        self,
        lock: threading.Lock,
        rule: Rule,
        pulse: Pulse,
        journal: Journal,
        shards: Shards,
        recoveries: Recoveries,
    ) -> None:
        self._lock = lock
        self._rule = rule
        self._pulse = pulse
        self._journal = journal
        self._shards = shards
        self._recoveries = recoveries
        self._wanted_until_s: dict[bytes, float] = {}

    def shards(self) -> list[Shard]:
        """The primaries this process knows, and how each is reached."""
        with self._lock:
            return list(self._shards)

    def to_verify(self) -> dict[bytes, list[ThreadKeys]]:
        """Slots that may have been taken over together with another one, by primary."""
        with self._lock:
            return self._shards.to_verify()

    def verified(self, identity: bytes, now_s: float) -> None:
        """A primary was asked for all of its slots."""
        with self._lock:
            self._shards.verified(identity, now_s)

    def want(self, identity: bytes, until_s: float) -> None:
        """Somebody waits for its watermark, up to then, with or without a journal."""
        with self._lock:
            self._wanted_until_s = {
                who: s for who, s in self._wanted_until_s.items() if s >= until_s - limits.PROBE_S
            } | {identity: until_s}

    def has_passed(self, keys: ThreadKeys, identity: bytes, seen_s: float, now_s: float) -> bool:
        """Whether what this primary had of a thread at a time can't be lost any more."""
        with self._lock:
            is_current = self._shards.primary_of(keys.slot) == identity
            return is_current and self._rule.durable_s(identity, now_s) >= seen_s

    def _is_watched_for(self, identity: bytes, now_s: float) -> bool:
        """Whether anybody wants to know what of its is durable."""
        if self._journal.of_primary(identity).entries:
            return True
        return self._wanted_until_s.get(identity, NOTHING_YET) >= now_s

    def needs_beat(self, identity: bytes, now_s: float) -> bool:
        """Whether its watermark stands still for want of writes, or it refused the last one."""
        if self._pulse.rejecting_s(identity, now_s) is not None:
            return True
        if self._rule.asks_replicas or not self._is_watched_for(identity, now_s):
            return False
        return self._pulse.idle_s(identity, now_s) >= self._rule.beat_s

    def needs_look(self, identity: bytes, now_s: float, *, in_trouble: bool) -> bool:
        """Whether it has been silent for long, or has to tell how far its replicas are."""
        if self._rule.is_open or in_trouble:
            return True
        if self._rule.asks_replicas and self._is_watched_for(identity, now_s):
            return True
        return self._pulse.silent_s(identity, now_s) >= limits.PROBE_S

    def beaten(self, identity: bytes, sent_s: float, now_s: float) -> None:
        """A heartbeat was accepted."""
        with self._lock:
            self._rule.accepted(identity, sent_s, now_s)
            self._pulse.accepted(identity, now_s)

    def looked(self, identity: bytes, asked_s: float, info: str, system: str) -> None:
        """A primary told about itself."""
        with self._lock:
            self._rule.looked(identity, asked_s, info, system)
            self._pulse.heard(identity, asked_s)

    def told(self, durability: Durability, asked_s: float) -> None:
        """AWS said which durability is in force."""
        with self._lock:
            self._rule.told(durability, "aws", asked_s)

    def told_lags(self, lag_s_of: Callable[[int], float | None]) -> None:
        """AWS said how far logs lag; `lag_s_of` a slot's, if known."""
        with self._lock:
            lags_s = {shard.identity: lag_s_of(shard.keys.slot) for shard in self._shards}
            self._rule.told_lags({who: lag_s for who, lag_s in lags_s.items() if lag_s is not None})

    def health(self, now_s: float) -> Health:
        """All of it, for people."""
        with self._lock:
            journal, rule = self._journal, self._rule
            shards = []
            for identity, _ in self._shards:
                durable_s = rule.durable_s(identity, now_s)
                shards.append(
                    ShardHealth(
                        identity=identity.decode(),
                        watermark_age_s=None if durable_s == NOTHING_YET else now_s - durable_s,
                        journal_entries=journal.of_primary(identity).entries,
                        journal_bytes=journal.of_primary(identity).bytes,
                        rejecting_s=self._pulse.rejecting_s(identity, now_s),
                        lag_s=rule.lag_s(identity),
                        last_recovery=self._recoveries.last(identity),
                    )
                )
            return Health(
                durability=rule.durability,
                durability_from=rule.source,
                shards=tuple(shards),
                journal_entries=len(journal),
                journal_bytes=journal.bytes,
                uncovered=journal.uncovered,
                recoveries=self._recoveries.count,
            )
