"""What a cache counts, in this process."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langgraph_valkey.fork import renew_after_fork

Tier: TypeAlias = Literal["exact", "process", "server", "flight"]
"""Where hits come from: the very question; this process' matrix; the server's index; or
another caller's computation that was waited for."""

MissReason: TypeAlias = Literal[
    "absent",
    "below_threshold",
    "refused",
    "stale",
    "unverified",
    "pending",
    "warming",
    "slow",
    "unreachable",
    "rejected",
    "corrupt",
    "misconfigured",
    "breaker_open",
    "embedder_failed",
]
"""Why a lookup misses: there is nothing in the scope; nothing is near enough; guards refused
what is; what fits is stale; the versions are not verified on this primary; a change of them
is pending; this process does not know the whole scope yet, and there is no index that does;
the server took too long, was away, refused, or answered what can't be read; it forbids what
is needed, or the settings don't fit it; it is left alone for having failed; the question could
not be embedded."""

BUCKETS_A_DECADE = 20
SHORTEST_S = 1e-6
"""The histogram of lookups: by logarithm, to 12 %, from a microsecond on."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens cost.

    Attributes:
        input_per_million: A million tokens of input.
        output_per_million: A million tokens of output.
        currency: In what.
    """

    input_per_million: float
    output_per_million: float
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Stats:
    """What was counted.

    Attributes:
        hits: By tier.
        misses: By reason.
        refused: Entries that were near enough and refused, by guard.
        stored: Values that were stored.
        not_stored: Values that were not, by reason.
        stale_refused: Lookups that would have served something stale.
        invalidated: Marks that were invalidated.
        pending: Invalidations that were left pending.
        saved_s: Time that computing the hits had taken, where it is known.
        tokens_in: Tokens of input that hits spared.
        tokens_out: Tokens of output that hits spared.
        cost_saved: What these cost; None without prices.
        currency: In what.
        p50_s: Median time of a lookup, embedding apart; None if there was none.
        p95_s: What 95 % of lookups take at most.
        p99_s: What 99 % of lookups take at most.
    """

    hits: Mapping[str, int]
    misses: Mapping[str, int]
    refused: Mapping[str, int]
    stored: int
    not_stored: Mapping[str, int]
    stale_refused: int
    invalidated: int
    pending: int
    saved_s: float
    tokens_in: int
    tokens_out: int
    cost_saved: float | None
    currency: str
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None

    @property
    def lookups(self) -> int:
        """All lookups."""
        return sum(self.hits.values()) + sum(self.misses.values())

    @property
    def hit_rate(self) -> float:
        """The part of lookups that hit; 0 if there was none."""
        return sum(self.hits.values()) / self.lookups if self.lookups else 0.0

    def __str__(self) -> str:
        def row(name: str, value: str) -> str:
            return f"{name:<18}{value}"

        def each(counts: Mapping[str, int]) -> str:
            return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"

        def ms(seconds: float | None) -> str:
            return "-" if seconds is None else f"{seconds * 1000:.2f} ms"

        lines = [
            row("lookups", f"{self.lookups:,}, {self.hit_rate:.1%} hits"),
            row("hits", each(self.hits)),
            row("misses", each(self.misses)),
            row("refused by", each(self.refused)),
            row("stored", f"{self.stored:,}; not: {each(self.not_stored)}"),
            row("stale refused", f"{self.stale_refused:,}"),
            row("lookup p50/95/99", " / ".join(map(ms, (self.p50_s, self.p95_s, self.p99_s)))),
            row("saved", f"{self.saved_s:,.1f} s, {self.tokens_in + self.tokens_out:,} tokens"),
        ]
        if self.cost_saved is not None:
            lines.append(row("", f"{self.cost_saved:,.4f} {self.currency}"))
        return "\n".join(lines)


@dataclass(slots=True)
class _Counts:
    hits: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    not_stored: Counter[str] = field(default_factory=Counter)
    took: Counter[int] = field(default_factory=Counter)
    stored: int = 0
    stale: int = 0
    invalidated: int = 0
    pending: int = 0
    saved_s: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0


class Meter:
    """Counts; safe to use from many threads.

    Args:
        prices: What tokens cost.
    """

    def __init__(self, prices: Prices | None = None) -> None:
        self._prices = prices
        self._listeners: tuple[Callable[[float], None], ...] = ()
        self._counts = _Counts()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: what the parent counted is the parent's."""
        self._counts = _Counts()
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[float], None]) -> None:
        """Have someone told of each lookup how long it took, in seconds, embedding apart.

        Args:
            listener: Is called by whoever looks up, so it takes no time and raises nothing.
        """
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def hit(self, tier: Tier, saved_s: float | None, usage: Mapping[str, Any]) -> None:
        """A hit, how long computing it had taken, and the tokens that took."""
        with self._lock:
            counts = self._counts
            counts.hits[tier] += 1
            counts.saved_s += saved_s or 0.0
            counts.tokens_in += _count_of(usage, "input_tokens")
            counts.tokens_out += _count_of(usage, "output_tokens")

    def miss(self, reason: MissReason) -> None:
        """A miss."""
        with self._lock:
            self._counts.misses[reason] += 1
            self._counts.stale += reason == "stale"

    def refused(self, guard: str) -> None:
        """An entry that was near enough was refused."""
        with self._lock:
            self._counts.refused[guard] += 1

    def stored(self) -> None:
        """A value was stored."""
        with self._lock:
            self._counts.stored += 1

    def not_stored(self, reason: str) -> None:
        """A value was not."""
        with self._lock:
            self._counts.not_stored[reason] += 1

    def invalidated(self, marks: int) -> None:
        """So many marks were invalidated."""
        with self._lock:
            self._counts.invalidated += marks

    def pending(self) -> None:
        """An invalidation was left pending."""
        with self._lock:
            self._counts.pending += 1

    def lookup_took(self, seconds: float) -> None:
        """A lookup took so long, embedding apart."""
        bucket = math.ceil(BUCKETS_A_DECADE * math.log10(max(seconds, SHORTEST_S) / SHORTEST_S))
        with self._lock:
            self._counts.took[bucket] += 1
        for listener in self._listeners:
            listener(seconds)

    def snapshot(self) -> Stats:
        """What was counted so far."""
        with self._lock:
            counts = self._counts
            took = sorted(counts.took.items())
            return Stats(
                *(dict(counts.hits), dict(counts.misses), dict(counts.refused)),
                *(counts.stored, dict(counts.not_stored), counts.stale),
                *(counts.invalidated, counts.pending, counts.saved_s),
                *(counts.tokens_in, counts.tokens_out, self._cost(counts)),
                "" if self._prices is None else self._prices.currency,
                *(_quantile(took, part) for part in (0.5, 0.95, 0.99)),
            )

    def _cost(self, counts: _Counts) -> float | None:
        prices = self._prices
        if prices is None:
            return None
        cost_in = counts.tokens_in * prices.input_per_million
        return (cost_in + counts.tokens_out * prices.output_per_million) / 1e6


def _count_of(usage: Mapping[str, Any], name: str) -> int:
    count = usage.get(name, 0)
    return count if isinstance(count, int) else 0


def _quantile(took: list[tuple[int, int]], part: float) -> float | None:
    """Upper bound of the bucket in which this part of all is reached."""
    left = part * sum(count for _, count in took)
    for bucket, count in took:
        left -= count
        if left <= 0:
            return float(SHORTEST_S * 10 ** (bucket / BUCKETS_A_DECADE))
    return None
