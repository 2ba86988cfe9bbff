"""By which rule writes become durable, and what is known by it.

=============  ==================================================================
durability     acknowledged writes are durable
=============  ==================================================================
``sync``       at once: nothing is journaled
``async``      by the watermark of async durability (see `watermark`)
``unknown``    by the same, unless the server says of itself that it is a plain one
``disabled``   when all replicas have them
``none``       when all replicas have them
=============  ==================================================================

Which one is in force can change while the cluster runs, so it is read again where
there is someone to ask, and "sync" is believed up to when it was last asked for: what
was acknowledged since is kept until the next time. What was acknowledged before it was
first told is not made durable by the word. It was acknowledged with less, and the log
may stand still. So it stays until the watermark of async durability has passed that
moment, which holds for both: a log that acknowledges a write has persisted, or is about
to, all that went before. (To be told twice would not prove as much: 30 s later the log
may still not have moved.)

A plain server without a replica has nobody to fail over to. It can come back empty,
all the same, so the newest of what it was sent is kept for a while, and then let go:
there it is never durable.

A server that hides both INFO and its node id from its user can't be told from another
one. Then nothing can be known to be durable, and there is no shard to tell of: what was
written stays in the journal until that is full. Losses are still noticed, by calls that
find a thread behind what this process knows of it, but never by an idle process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from langgraph_valkey import limits
from langgraph_valkey.loss_window.report import Durability
from langgraph_valkey.loss_window.watermark import (
    NOTHING_YET,
    AsyncWatermark,
    ReplicatedWatermark,
)

Source: TypeAlias = Literal["settings", "server", "aws"]

MANAGED = "ElastiCache"
"""What a managed server calls its operating system, in part."""

_REPLICA = re.compile(r"^slave\d+:ip=(.*?),state=online,offset=(\d+)", re.M)
_WRITTEN = re.compile(r"^master_repl_offset:(\d+)", re.M)


class Rule:
    """The rule in force, and a watermark for each primary; its owner locks.

    Args:
        told: What the settings say.
        lag_bound_s: By how much the log may lag before writes are refused.
        keeps: Whether anything is to be journaled at all.

    Attributes:
        durability: Which durability is in force.
        source: Who said so.
        journals: Whether there is anything to journal for; may be read without the lock.
    """

    def __init__(self, told: Durability, lag_bound_s: float, *, keeps: bool = True) -> None:
        self._keeps = keeps
        self._lag_bound_s = lag_bound_s
        self._sync_since_s = self._sync_until_s = NOTHING_YET
        self._watermarks: dict[bytes, AsyncWatermark] = {}
        self._replicas: dict[bytes, ReplicatedWatermark] = {}
        self._lags_s: Mapping[bytes, float] = {}
        self._set(told, "settings")

    def _set(self, durability: Durability, source: Source) -> None:
        self.durability: Durability = durability
        self.source: Source = source
        self.journals = self._keeps and (durability != "sync" or source == "aws")

    @property
    def is_open(self) -> bool:
        """Whether the server may still tell what kind it is."""
        return self.durability == "unknown" and self.source == "settings"

    @property
    def asks_replicas(self) -> bool:
        """Whether writes are durable once all replicas have them."""
        return self.durability in ("disabled", "none")

    @property
    def beat_s(self) -> float:
        """How often an idle shard is written to, in seconds."""
        return self._lag_bound_s * limits.BEAT_BOUNDS

    def told(self, durability: Durability, source: Source, asked_s: float) -> None:
        """Someone said which durability is in force, when asked at this time."""
        if durability == "sync":
            if (self.durability, self.source) != (durability, source):
                self._sync_since_s = asked_s
            self._sync_until_s = asked_s
        self._set(durability, source)

    def told_lags(self, lags_s: Mapping[bytes, float]) -> None:
        """Someone said how far the logs of primaries lag; of the others nothing is known."""
        self._lags_s = lags_s

    def accepted(self, identity: bytes, sent_s: float, acked_s: float) -> None:
        """A primary acknowledged a write, then; it was first sent at `sent_s`."""
        watermark = self._watermarks.get(identity)
        if watermark is None:
            watermark = self._watermarks[identity] = AsyncWatermark(self._lag_bound_s)
        watermark.accepted(sent_s, acked_s)

    def looked(self, identity: bytes, asked_s: float, info: str, system: str) -> None:
        """A primary told about itself.

        Args:
            identity: Which one.
            asked_s: When it was asked.
            info: Its INFO replication; '' where hidden.
            system: The operating system it says it runs on; '' where hidden.
        """
        if self.is_open and system:
            self.told("unknown" if MANAGED in system else "none", "server", asked_s)
        written = _WRITTEN.search(info)
        if written is None:
            return
        replicas = {name: int(offset) for name, offset in _REPLICA.findall(info)}
        watermark = self._replicas.get(identity)
        if watermark is None:
            watermark = ReplicatedWatermark(limits.REPLICA_FORGOTTEN_S)
            self._replicas[identity] = watermark
        watermark.looked(asked_s, int(written[1]), replicas)

    def replaced(self, identity: bytes) -> None:
        """Another primary answers in place of this one: take nothing more for granted."""
        if identity in self._watermarks:
            self._watermarks[identity].reset()
        if identity in self._replicas:
            self._replicas[identity].reset()

    def durable_s(self, identity: bytes, now_s: float) -> float:
        """Up to when what this primary acknowledged is durable, or let go."""
        if self.durability == "sync" and self.source == "settings":
            return now_s
        if self.asks_replicas:
            replicated = self._replicas.get(identity)
            if replicated is None:
                return NOTHING_YET
            kept_s = 2 * self._lag_bound_s
            return now_s - kept_s if replicated.is_alone else replicated.durable_s
        watermark = self._watermarks.get(identity)
        durable_s = watermark.durable_s if watermark is not None else NOTHING_YET
        if self.durability == "sync" and durable_s >= self._sync_since_s:
            return self._sync_until_s
        return durable_s

    def is_alone(self, identity: bytes) -> bool:
        """Whether nothing that this primary acknowledges will ever be durable."""
        replicated = self._replicas.get(identity)
        return self.asks_replicas and replicated is not None and replicated.is_alone

    def lag_s(self, identity: bytes) -> float | None:
        """How far its log lags if that was told, else its replicas; None if not known."""
        replicated = self._replicas.get(identity)
        known_s = replicated.lag_s if replicated is not None else None
        return self._lags_s.get(identity, known_s)
