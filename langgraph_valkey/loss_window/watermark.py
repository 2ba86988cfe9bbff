"""Up to when acknowledged writes are known to be durable.

**Async durability.** A cluster with async durability refuses writes while the
oldest write it has not yet persisted is older than `lag_bound_s` (10 s). So when it
accepts a write that was sent at time b, all that it acknowledged up to
b - lag_bound_s is persisted. One monotonic clock, this process's, is enough: that
b is the time of sending, not of acceptance, only makes the claim weaker.

Three conditions make it hold, and each has been broken by an experiment without it:

- A margin of half the bound is taken off: the bound is not kept to the
  millisecond, and clocks do not run at one speed.
- A primary that was frozen while another was promoted accepts writes for a moment
  when it thaws, and all of them are lost. So what was accepted at b counts only
  once a write sent half a bound later was acknowledged by the same primary.
- The claim is about one primary. Each has a watermark of its own, and an entry is
  measured by that of the primary that acknowledged it (or replayed it) last.

"Keep the last 10 s" is not enough instead: after a stall of the log of 60 s what is
lost is 50 to 60 s old.

**Plain replication.** Nothing bounds the lag, but the primary tells how far each
replica is in its stream of writes. When all replicas have reached the point where
the primary was at time b, all that it acknowledged up to b is on all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

NOTHING_YET = float("-inf")
SAMPLES_A_BOUND = 40
"""Accepted writes that are remembered in one bound's time: more would only make the
watermark smoother."""


class AsyncWatermark:
    """The rule of async durability, for one primary.

    Args:
        lag_bound_s: By how much the log may lag before writes are refused.

    Attributes:
        durable_s: Acknowledgements up to this time are durable.
    """

    def __init__(self, lag_bound_s: float) -> None:
        self.durable_s = NOTHING_YET
        self._behind_s = lag_bound_s * 1.5
        self._confirm_s = lag_bound_s / 2
        self._spacing_s = lag_bound_s / SAMPLES_A_BOUND
        self._accepted: deque[float] = deque()

    def accepted(self, sent_s: float) -> None:
        """A write that was sent at this time was accepted by the primary."""
        waiting = self._accepted
        while waiting and waiting[0] <= sent_s - self._confirm_s:
            self.durable_s = max(self.durable_s, waiting.popleft() - self._behind_s)
        if not waiting or sent_s - waiting[-1] >= self._spacing_s:
            waiting.append(sent_s)

    def reset(self) -> None:
        """Take nothing for granted that was accepted so far and not yet confirmed."""
        self._accepted.clear()


class ReplicatedWatermark:
    """The rule of plain replication, for one primary.

    Args:
        forget_s: After how long a replica that is gone is no longer waited for.

    Attributes:
        durable_s: Acknowledgements up to this time are on all replicas.
        lag_s: How long ago, at the last look, the slowest replica was where the
            primary was; None before the first.
    """

    def __init__(self, forget_s: float) -> None:
        self.durable_s = NOTHING_YET
        self.lag_s: float | None = None
        self._forget_s = forget_s
        self._looks: deque[tuple[float, int]] = deque()
        self._most, self._most_seen_s = 0, NOTHING_YET

    def looked(self, asked_s: float, written: int, replicas: Sequence[int]) -> None:
        """Take note of what the primary told.

        Args:
            asked_s: When it was asked.
            written: How far it was in its stream of writes, in bytes.
            replicas: How far each replica was that is connected.
        """
        if len(replicas) >= self._most or asked_s - self._most_seen_s > self._forget_s:
            self._most, self._most_seen_s = len(replicas), asked_s
        self._looks.append((asked_s, written))
        if len(replicas) < self._most or not replicas:
            self.lag_s = None
            return
        reached = min(replicas)
        while self._looks and self._looks[0][1] <= reached:
            self.durable_s = max(self.durable_s, self._looks.popleft()[0])
        self.lag_s = max(0.0, asked_s - self.durable_s)

    def reset(self) -> None:
        """Forget the looks that no replica has reached yet."""
        self._looks.clear()
