"""The emulated log of one primary: what of its writes is persisted, and since when not.

ElastiCache's durability, as documented, has a log in several availability zones. A
write is *persisted* once it stands there, and a failover loses exactly what does
not. Here the replicas stand for the log: a write is persisted when its bytes have
left for every replica. Until then they are held in this process's memory, with the
time of their arrival (`Held`), and die with the primary.

`Log` puts together what is known of the age of the oldest unpersisted write:

- of a replica that follows, the oldest bytes that are held for it;
- while none follows, the first write that was answered meanwhile.

Writes are refused while that age is over the bound (`Rule`). The times are those of
the emulator's own clock, which may run faster or slower than the real one.
"""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from langgraph_valkey.errors import ConfigurationError

Mode: TypeAlias = Literal["async", "sync"]

NO_WRITES = frozenset(
    {
        b"*1\r\n$4\r\nping\r\n",
        b"*3\r\n$8\r\nreplconf\r\n$6\r\ngetack\r\n$1\r\n*\r\n",
    }
)
"""What a primary sends to its replicas that is no write, in small letters."""

_LONGEST = max(map(len, NO_WRITES))


def holds_writes(data: bytes) -> bool:
    """Whether a piece of the stream to the replicas is more than a sign of life."""
    return len(data) > _LONGEST or data.lower() not in NO_WRITES


@dataclass(frozen=True, slots=True)
class Rule:
    """How durable a cluster is.

    Attributes:
        mode: "async" answers writes at once, "sync" when they are persisted.
        lag_bound_s: Writes are refused while the oldest that is not persisted is
            older than this.
        sloppy_s: The bound is exceeded by up to this; by how much is drawn anew for
            each time of refusal.
        clock_rate: Seconds that pass on the emulator's clock in one real second.
        seed: Of what is drawn.

    Raises:
        ConfigurationError: A mode that is neither, or a time that makes no sense.
    """

    mode: Mode
    lag_bound_s: float = 10.0
    sloppy_s: float = 0.0
    clock_rate: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("async", "sync"):
            raise ConfigurationError(
                f"durability is 'async', 'sync' or None (plain replication), not {self.mode!r}"
            )
        if self.lag_bound_s <= 0 or self.sloppy_s < 0 or self.clock_rate <= 0:
            raise ConfigurationError(
                "lag_bound_s and clock_rate must be above 0, and sloppy_s must not be below"
            )

    def now_s(self) -> float:
        """Time on the emulator's clock."""
        return time.monotonic() * self.clock_rate


class Held:
    """Bytes on their way to one replica, in order."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, bytes, bool]] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def put(self, arrived_s: float, data: bytes, *, writes: bool) -> None:
        """Hold what arrived.

        Args:
            arrived_s: When.
            data: The bytes.
            writes: Whether they are of writes, rather than of a replica's set-up.
        """
        self._pieces.append((arrived_s, data, writes and holds_writes(data)))
        self.size += len(data)

    def take(self, until_s: float) -> bytes:
        """Take out what arrived until then."""
        taken = []
        while self._pieces and self._pieces[0][0] <= until_s:
            taken.append(self._pieces.popleft()[1])
        data = b"".join(taken)
        self.size -= len(data)
        return data

    def first_s(self) -> float:
        """When the first piece arrived; there must be one."""
        return self._pieces[0][0]

    def oldest_s(self) -> float | None:
        """When the oldest write that is held arrived; None if none is."""
        return next((at for at, _, writes in self._pieces if writes), None)

    def clear(self) -> None:
        """Lose everything."""
        self._pieces.clear()
        self.size = 0


class Follower(Protocol):
    """A replica's connection, as the log sees it."""

    held: Held
    follows: bool

    def deliver(self) -> None:
        """Send what the log lets through."""
        ...

    def cut(self) -> None:
        """Lose what is held, and end the connection."""
        ...


class Log:
    """The log of one node, in use while the node is a primary.

    It belongs to one thread, that of the event loop.

    Args:
        rule: How durable the cluster is.
        number: Of the node, so that each draws bounds of its own.

    Attributes:
        rule: As given.
        held: Whether nothing is let through.
        lag_s: How long after its arrival each write is let through.
        followers: The replicas' connections.
    """

    def __init__(self, rule: Rule, number: int) -> None:
        self.rule = rule
        self.held = False
        self.lag_s = 0.0
        self.followers: set[Follower] = set()
        self._random = random.Random(rule.seed * 1000 + number)  # noqa: S311
        self._bound_s = self._draw()
        self._refusing = False
        self._blind = False
        self._unfollowed_s: float | None = None

    def _draw(self) -> float:
        return self.rule.lag_bound_s + self._random.uniform(0.0, self.rule.sloppy_s)

    # --- the rule -----------------------------------------------------------------

    def age_s(self) -> float:
        """Age of the oldest write that is not persisted; 0.0 if all are."""
        times = [follower.held.oldest_s() for follower in self.followers]
        known = [at for at in (*times, self._unfollowed_s) if at is not None]
        return max(0.0, self.rule.now_s() - min(known)) if known else 0.0

    def refuses(self) -> bool:
        """Whether writes are refused now."""
        over = not self._blind and self.age_s() > self._bound_s
        if self._refusing and not over:
            self._bound_s = self._draw()
        self._refusing = over
        return over

    @property
    def followed(self) -> bool:
        """Whether any replica follows, so that writes get into its stream."""
        return any(follower.follows for follower in self.followers)

    def answered(self, sent_s: float) -> None:
        """A write that came at this time was executed."""
        if self._unfollowed_s is None and not self.followed:
            self._unfollowed_s = sent_s

    # --- replicas come and go -----------------------------------------------------

    def follows(self) -> None:
        """A replica has the primary's data, and follows from now on."""
        self._unfollowed_s = None

    def lost(self, follower: Follower) -> None:
        """A replica's connection has ended, with what was held for it."""
        self.followers.discard(follower)
        oldest_s = follower.held.oldest_s()
        if self._unfollowed_s is None and not self.followed:
            self._unfollowed_s = oldest_s

    # --- faults -------------------------------------------------------------------

    def hold(self) -> None:
        """Let nothing through."""
        self.held = True

    def release(self) -> None:
        """End `hold`: let everything through that is due."""
        self.held = False
        self._deliver()

    def set_lag(self, lag_s: float) -> None:
        """Let each write through so long after its arrival."""
        self.lag_s = lag_s
        self._deliver()

    def _deliver(self) -> None:
        for follower in self.followers:
            follower.deliver()

    def be_blind(self, blind: bool) -> None:
        """Refuse nothing, however old the oldest write gets; until `clear`."""
        self._blind = blind

    def crash(self) -> None:
        """Lose what is not persisted: the primary is going down."""
        self.held = True
        for follower in tuple(self.followers):
            follower.cut()

    def clear(self) -> None:
        """Forget everything: the node is no primary any more, or an empty one."""
        self.held = False
        self._blind = False
        self._unfollowed_s = None
        self._deliver()
