"""A shard with async durability, its failovers, and a client: simulated, in virtual time.

The primary acknowledges at once and persists in order, later: by milliseconds, or
by more than a minute while the log is stalled. It refuses writes while the oldest
one not persisted is older than the bound, but keeps it by a clock of another speed,
and not exactly. A crash, or the promotion of another while it is frozen, loses what
it had not persisted. When a frozen one thaws after that, it acknowledges for some
seconds more, and all of that is lost too; so may be what waited in its sockets.

The client keeps what was acknowledged in rings. The first decides what is replayed.
The others stand beside it: they hear the same, keep by a rule of their own, and are
asked at each failover whether they still had what was lost.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from langgraph_valkey.loss_window.watermark import AsyncWatermark

BOUND_S = 10.0
SLOPPY_S = 14.0
"""Where the bound is kept badly, writes are refused only beyond this."""
CLOCK_RATES = (0.9, 1.1)
ZOMBIE_MOST_S = 4.5
"""For how long a thawed primary goes on acknowledging, at most."""
QUIET_S = 45.0
"""How long a run goes on after the last fault: all must be replayed by then."""
HEARTBEAT_S = 1.0
REPLAY_PAUSE_S = 0.5
GIVE_UP_S = 30.0


# --- what keeps -----------------------------------------------------------------


class Ring:
    """Acknowledged writes, kept until the watermark of their primary says durable.

    Args:
        watermark: Makes one.
        one_for_all: The watermark does not know primaries apart.
        restamps: What was replayed counts as acknowledged when the replay was.
    """

    def __init__(
        self,
        watermark: Callable[[], AsyncWatermark] = lambda: AsyncWatermark(BOUND_S),
        *,
        one_for_all: bool = False,
        restamps: bool = True,
    ) -> None:
        self.entries: dict[int, tuple[float, int]] = {}
        self.unreplayable: set[int] = set()
        self._make, self._one_for_all, self._restamps = watermark, one_for_all, restamps
        self._watermarks: dict[int, AsyncWatermark] = {}

    def heard(self, primary: int, sent_s: float, acked_s: float) -> None:
        self._of(primary).accepted(sent_s, acked_s)

    def keep(self, write: int, primary: int, acked_s: float) -> None:
        if not self._restamps and write in self.entries:
            acked_s = self.entries[write][0]
        self.entries[write] = acked_s, primary

    def holds(self, write: int, now_s: float) -> bool:
        """Whether it is kept; since watermarks only rise, it need not be trimmed yet."""
        if write not in self.entries:
            return False
        acked_s, primary = self.entries[write]
        return acked_s > self._of(primary).durable_s

    def trim(self, now_s: float) -> None:
        self.entries = {w: e for w, e in self.entries.items() if self.holds(w, now_s)}

    def _of(self, primary: int) -> AsyncWatermark:
        key = 0 if self._one_for_all else primary
        if key not in self._watermarks:
            self._watermarks[key] = self._make()
        return self._watermarks[key]


class AgeRing(Ring):
    """Keeps what was acknowledged in the last `keep_s` seconds."""

    def __init__(self, keep_s: float) -> None:
        super().__init__()
        self._keep_s = keep_s

    def heard(self, primary: int, sent_s: float, acked_s: float) -> None:
        pass

    def holds(self, write: int, now_s: float) -> bool:
        return write in self.entries and self.entries[write][0] > now_s - self._keep_s


# --- what happens ---------------------------------------------------------------


@dataclass(frozen=True)
class Failover:
    """The end of one primary and the promotion of the next; all in seconds.

    Attributes:
        at_s: It crashes, or freezes.
        promoted_s: From then on there is another.
        thaws_s: From here on it acknowledges again; never, if it crashed.
        gone_s: Up to here it does.
        handed_s: From here on the client talks to the next one alone.
        mixed: From `promoted_s` on the client talks to both.
    """

    at_s: float
    promoted_s: float
    thaws_s: float
    gone_s: float
    handed_s: float
    mixed: bool


@dataclass(frozen=True)
class Story:
    """What happens in a run, but for the delays of the network and of a healthy log.

    Attributes:
        rate: Seconds on the server's clock in one of the client's.
        bounds_s: How far the log of each primary may lag, on the server's clock.
        stalls: From when to when the log is stalled, in order.
        failovers: In order.
        writes_s: When the client begins a write.
        timeout_s: How long it waits for a reply.
        first_sent: Retries keep the time of the first try, as that of sending.
    """

    rate: float
    bounds_s: list[float]
    stalls: list[tuple[float, float]]
    failovers: list[Failover]
    writes_s: list[float]
    timeout_s: float
    first_sent: bool

    @property
    def ends_s(self) -> float:
        last = max([0.0, *(f.handed_s for f in self.failovers), *(s[1] for s in self.stalls)])
        return last + QUIET_S


def drawn(rng: random.Random) -> Story:
    """A story with one or two failovers, more often than by chance at bad moments."""
    rate = rng.choice([*CLOCK_RATES, 1.0, rng.uniform(*CLOCK_RATES)])
    bounds_s = [rng.choice([SLOPPY_S, BOUND_S, rng.uniform(BOUND_S, SLOPPY_S)]) for _ in range(3)]
    began = rng.uniform(2, 15)
    long = rng.uniform(0.5, 70)
    stalls = [(began, began + long)]
    if rng.random() < 0.3:  # Just before writes would be refused.
        first = began + bounds_s[0] / rate - rng.uniform(0, 0.7)
        stalls[0] = began, first + rng.uniform(0, 40)
    else:
        first = began + rng.uniform(0.1, 1.2) * long
    failovers = [failover(rng, first)]
    promoted = failovers[0].promoted_s
    if rng.random() < 0.7:
        failovers.append(failover(rng, promoted + rng.uniform(0, 20)))
    again = max(stalls[0][1], promoted) + rng.uniform(0, 6)
    stalls.append((again, again + rng.choice([rng.uniform(0.5, 20), rng.uniform(0.5, 70)])))
    timeout_s = rng.choice([0.25, 0.5, 1.0, 8.0])
    story = Story(rate, bounds_s, stalls, failovers, [], timeout_s, rng.random() < 0.5)
    story.writes_s.extend(traffic(rng, story.ends_s - QUIET_S / 2))
    return story


def failover(rng: random.Random, at_s: float) -> Failover:
    promoted = at_s + rng.uniform(0.3, 3)
    late = rng.choice([rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(4, 8)])
    if rng.random() < 0.5:
        return Failover(at_s, promoted, math.inf, math.inf, promoted + late, mixed=False)
    thaws = promoted + rng.choice([rng.uniform(0, 3), rng.uniform(3, 30)])
    gone = thaws + rng.choice([ZOMBIE_MOST_S, rng.uniform(0.2, ZOMBIE_MOST_S)])
    return Failover(at_s, promoted, thaws, gone, gone + late, mixed=rng.random() < 0.3)


def traffic(rng: random.Random, until_s: float) -> Iterable[float]:
    """Busy and idle stretches of some seconds each."""
    now = 0.0
    while now < until_s:
        until, per_s = now + rng.uniform(2, 12), rng.choice([0.0, 0.3, 3.0, 8.0])
        while per_s and (now := now + rng.expovariate(per_s)) < until:
            yield now
        now = until


@dataclass
class Primary:
    """A primary; `tail` is what it has not persisted: (accepted, persisted at, write)."""

    number: int
    bound_s: float
    born_s: float
    ends: Failover | None
    tail: deque[tuple[float, float, int]] = field(default_factory=deque)
    persists_s: float = 0.0


@dataclass
class Request:
    """A write on its way; write 0 is a heartbeat."""

    write: int
    to: Primary
    first_s: float
    sent_s: float
    tries: int
    replay: bool


# --- the run --------------------------------------------------------------------


class World:
    """One run; the first ring is the client's, all are judged.

    Attributes:
        lost: Acknowledged writes that were lost at least once.
        missing: After the run: acknowledged writes that are not there.
        oldest_s: How old the oldest entry of the client's ring was, at each second.
    """

    def __init__(self, story: Story, rng: random.Random, rings: list[Ring]) -> None:
        self.story, self.rings, self._rng = story, rings, rng
        self.lost: set[int] = set()
        self.oldest_s: list[tuple[float, float]] = []
        self._acked: set[int] = set()
        self._durable: set[int] = set()
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._last_sent_s = 0.0
        self._current, self._replaying, self._replays_s = 0, set[int](), -REPLAY_PAUSE_S
        born = [0.0, *(f.promoted_s for f in story.failovers)]
        ends = [*story.failovers, None]
        self._primaries = [
            Primary(n, story.bounds_s[n], at, end)
            for n, (at, end) in enumerate(zip(born, ends, strict=True))
        ]

    def run(self) -> World:
        for write, at in enumerate(self.story.writes_s, start=1):
            self._at(at, lambda w=write: self._send(w))  # type: ignore[misc]
        self._at(0.0, self._second)
        ends_s = self.story.ends_s
        while self._events[0][0] < ends_s:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
        self._judge()
        return self

    @property
    def missing(self) -> set[int]:
        """Acknowledged writes that the newest primary does not have."""
        newest = [p for p in self._primaries if p.born_s <= self._now][-1]
        for primary in self._primaries:
            self._persist(primary)
        alive = newest.ends is None or self._now < newest.ends.at_s
        return self._acked - self._durable - {t[2] for t in newest.tail if alive}

    def _at(self, at_s: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (max(at_s, self._now), self._count, happen))

    def _judge(self) -> None:
        missing = self.missing
        self.lost |= missing
        for ring in self.rings:
            ring.unreplayable |= {w for w in missing if not ring.holds(w, self._now)}

    # --- the client -------------------------------------------------------------

    def _second(self) -> None:
        if self._now - self._last_sent_s >= HEARTBEAT_S * 0.99:
            self._send(0)
        for ring in self.rings:
            ring.trim(self._now)
        stamps = [acked_s for acked_s, _ in self.rings[0].entries.values()]
        self.oldest_s.append((self._now, self._now - min(stamps, default=self._now)))
        self._at(self._now + HEARTBEAT_S, self._second)

    def _send(self, write: int, before: Request | None = None, *, replay: bool = False) -> None:
        self._last_sent_s = now = self._now
        first_s, tries = (before.first_s, before.tries + 1) if before else (now, 0)
        request = Request(write, self._route(), first_s, now, tries, replay)
        self._at(now + self._delay(), lambda: self._arrives(request))

    def _route(self) -> Primary:
        to = 0
        for n, f in enumerate(self.story.failovers):
            both = f.mixed and self._now >= f.promoted_s and self._rng.random() < 0.5
            if self._now >= f.handed_s or both:
                to = n + 1
        return self._primaries[to]

    def _delay(self) -> float:
        rare = self._rng.random() < 0.01
        return self._rng.uniform(0.05, 0.6) if rare else self._rng.expovariate(1000)

    def _acknowledged(self, request: Request) -> None:
        number, write = request.to.number, request.write
        sent_s = request.first_s if self.story.first_sent else request.sent_s
        for ring in self.rings:
            ring.heard(number, sent_s, self._now)
        if number != self._current:
            self._judge()
            self._current = number
            self._replay_soon()
        self._replaying.discard(write)
        if write:
            self._acked.add(write)
            for ring in self.rings:
                ring.keep(write, number, self._now)

    def _replay_soon(self) -> None:
        """At once, but not more often than twice a second: two may answer in turns."""
        if self._replays_s <= self._now:
            self._replays_s = max(self._now, self._replays_s + REPLAY_PAUSE_S)
            self._at(self._replays_s, self._replay)

    def _replay(self) -> None:
        """Send all again that another primary acknowledged."""
        mine = self.rings[0]
        for write, (_, primary) in list(mine.entries.items()):
            due = primary != self._current and write not in self._replaying
            if due and mine.holds(write, self._now):
                self._replaying.add(write)
                self._send(write, replay=True)

    def _again(self, request: Request) -> None:
        """It was refused, or nothing was heard."""
        waited = self._now - request.first_s
        if request.write and (request.replay or waited < GIVE_UP_S):
            wait_s = self._rng.uniform(0, min(2.0, 0.05 * 2**request.tries))
            self._at(
                self._now + wait_s,
                lambda: self._send(request.write, request, replay=request.replay),
            )

    # --- the server -------------------------------------------------------------

    def _arrives(self, request: Request) -> None:
        now, ends, deadline = self._now, request.to.ends, request.sent_s + self.story.timeout_s
        if ends is not None and ends.at_s <= now < ends.thaws_s < math.inf:
            self._at(ends.thaws_s, lambda: self._arrives(request))
            return
        back = now + self._delay()
        gone = ends is not None and now >= ends.at_s and not ends.thaws_s <= now < ends.gone_s
        if gone or back > deadline:
            if not gone:
                self._takes(request)
            self._at(deadline, lambda: self._again(request))
        elif self._takes(request):
            self._at(back, lambda: self._acknowledged(request))
        else:
            self._at(back, lambda: self._again(request))

    def _takes(self, request: Request) -> bool:
        primary, now = request.to, self._now
        if primary.ends is not None and now >= primary.ends.at_s:
            return True  # Thawed: it acknowledges anything, and keeps nothing.
        self._persist(primary)
        lag_s = now - primary.tail[0][0] if primary.tail else 0.0
        if lag_s * self.story.rate > primary.bound_s:
            return False
        at = now + self._rng.expovariate(200)
        for began, ended in self.story.stalls:
            if began <= at < ended:
                at = ended + self._rng.expovariate(200)
        primary.persists_s = max(primary.persists_s, at)
        primary.tail.append((now, primary.persists_s, request.write))
        return True

    def _persist(self, primary: Primary) -> None:
        until = self._now if primary.ends is None else min(self._now, primary.ends.at_s)
        while primary.tail and primary.tail[0][1] <= until:
            self._durable.add(primary.tail.popleft()[2])


def ran(seed: int, rings: list[Ring]) -> World:
    """The run of this seed, with these rings."""
    rng = random.Random(seed)
    return World(drawn(rng), rng, rings).run()
