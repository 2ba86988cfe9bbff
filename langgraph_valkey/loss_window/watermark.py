"""Up to when acknowledged writes are known to be durable.

**Async durability.** A cluster with async durability refuses writes while the
oldest write it has not yet persisted is older than `lag_bound_s` (10 s). So when it
accepts a write that was sent at time b, all that it acknowledged up to
b - lag_bound_s is persisted. One monotonic clock, this process's, is enough: that
b is the time of sending, not of acceptance, only makes the claim weaker.

Three conditions make it hold, and each has been broken by a simulation without it:

- A margin of 0.6 of the bound is taken off: the bound is not kept to the
  millisecond, and clocks do not run at one speed. Writes may be accepted up to 14 s
  on a clock that is a tenth too slow, which makes 15.6 s on ours.
- A primary that was frozen while another was promoted accepts writes for a moment
  when it thaws, and all of them are lost. So what was accepted at b counts only
  once the same primary acknowledged a write that was sent half a bound after b was
  *acknowledged*. After it was sent is not enough: while the primary is frozen
  requests wait in its sockets, and in retries, so that two of them may be sent long
  apart and accepted in the same moment.
- The claim is about one primary. Each has a watermark of its own, and an entry is
  measured by that of the primary that acknowledged it (or replayed it) last.

So an entry is kept for about 21 s (16 and 5), and the time between two writes.
"Keep the last 10 s" is not enough instead: after a stall of the log of 60 s what is
lost is 50 to 60 s old.

**Plain replication.** Nothing bounds the lag, but the primary tells how far each
replica is in its stream of writes. When all replicas have reached the point where
the primary was at time b, all that it acknowledged up to b is on all of them. A
replica that is gone is waited for as well, where it was last seen: it may come back,
and be promoted. Replicas are known by name, since counting them would take one that
came for one that left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice

NOTHING_YET = float("-inf")
MARGIN = 0.6
"""Taken off the claim, in bounds: 14 / 0.9 - 10 = 5.6 s of 10 s, rounded up."""
CONFIRMED_AFTER = 0.5
"""How long after an acknowledgement the write is sent that confirms it, in bounds; a
thawed primary goes on for less."""
SAMPLES_A_BOUND = 40
"""Accepted writes that are remembered in one bound's time: more would only make the
watermark smoother."""
LOOKS_MOST = 1000
"""Looks at the replicas that are remembered; beyond, every second one is dropped."""


class AsyncWatermark:
    """The rule of async durability, for one primary.

    Args:
        lag_bound_s: By how much the log may lag before writes are refused.

    Attributes:
        durable_s: Acknowledgements up to this time are durable.
    """

    def __init__(self, lag_bound_s: float) -> None:
        self.durable_s = NOTHING_YET
        self._behind_s = lag_bound_s * (1 + MARGIN)
        self._confirm_s = lag_bound_s * CONFIRMED_AFTER
        self._spacing_s = lag_bound_s / SAMPLES_A_BOUND
        self._accepted: deque[tuple[float, float]] = deque()

    def accepted(self, sent_s: float, acked_s: float) -> None:
        """A write was accepted by the primary; told in the order of acknowledgements.

        Args:
            sent_s: When it was sent; the first time, if it was tried again.
            acked_s: When its acknowledgement was received.
        """
        waiting = self._accepted
        while waiting and waiting[0][1] <= sent_s - self._confirm_s:
            self.durable_s = max(self.durable_s, waiting.popleft()[0] - self._behind_s)
        if not waiting or sent_s - waiting[-1][0] >= self._spacing_s:
            waiting.append((sent_s, acked_s))

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
            primary was; None if that is not known, or there is no replica.
    """

    def __init__(self, forget_s: float) -> None:
        self.durable_s = NOTHING_YET
        self.lag_s: float | None = None
        self._forget_s = forget_s
        self._looks: deque[tuple[float, int]] = deque()
        self._known: dict[str, tuple[float, int]] = {}

    def looked(self, asked_s: float, written: int, replicas: Mapping[str, int]) -> None:
        """Take note of what the primary told.

        Args:
            asked_s: When it was asked.
            written: How far it was in its stream of writes, in bytes.
            replicas: How far each replica was that is connected, by its name.
        """
        self._known.update((name, (asked_s, offset)) for name, offset in replicas.items())
        oldest_s = asked_s - self._forget_s
        self._known = {name: seen for name, seen in self._known.items() if seen[0] >= oldest_s}
        self._looks.append((asked_s, written))
        if len(self._looks) > LOOKS_MOST:
            self._looks = deque(islice(self._looks, 0, None, 2))
        reached = min((offset for _, offset in self._known.values()), default=-1)
        while self._looks and self._looks[0][1] <= reached:
            self.durable_s = max(self.durable_s, self._looks.popleft()[0])
        known = self._known and self.durable_s > NOTHING_YET
        self.lag_s = asked_s - self.durable_s if known else None

    @property
    def is_alone(self) -> bool:
        """Whether no replica has been seen for a while, or ever."""
        return not self._known

    def reset(self) -> None:
        """Forget the looks that no replica has reached yet."""
        self._looks.clear()
