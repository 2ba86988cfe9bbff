"""Which primary of Valkey a process may serve from, and until when.

A process asks the primary store, and may go by the answer for `STANDING_S`. Who makes
another primary the verified one waits for as long before it lets that one serve. So no two
processes ever serve from different primaries of a partition, although a primary that was
frozen and replaced goes on answering as if nothing had happened.

A standing that can't be renewed lapses: then the partition is not served from, which is no
error, only a miss.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.primary.versions import PartitionKey

if TYPE_CHECKING:
    from rag_cache.freshness.verifying import Successor

STANDING_S = 2.0
"""For how long a process goes by what the primary store said. Longer spares questions to
it; shorter makes the cache serve again sooner after a failover."""

NEW_S = 1.0
"""For how long after its first use it is worth a lookup's while to wait for a standing."""

ACTIVE_S = 60.0
"""For how long after its last use a partition is looked after."""

WAKE_S = 0.05
"""How often lookups of partitions that have no standing ask for one to be looked after: a
busy process must not ask the primary store as often as it is asked itself."""


@dataclass(slots=True)
class _Standing:
    """What is known of one partition.

    Attributes:
        identity: The verified primary.
        asked_s: When the primary store was asked.
        confirmed_s: When it was asked and gave a standing; else when the first use was.
        used_s: When it was used last.
        first_s: When it was used first.
        in_doubt: An answer did not fit: it has to be looked into.
        is_pending: A change of a version waits to be written.
        pending_s: When that was learned from the primary store, at the latest.
        withdrawal: Number of the last withdrawal.
        successor: The primary that was entered for it, and does not serve yet.
    """

    identity: str = ""
    asked_s: float = float("-inf")
    confirmed_s: float = float("inf")
    used_s: float = float("-inf")
    first_s: float = float("inf")
    in_doubt: bool = False
    is_pending: bool = False
    pending_s: float = float("inf")
    withdrawal: int = 0
    successor: Successor | None = None


class Standings:
    """The standings of one process; safe to use from many threads.

    Args:
        wake: Is called when one has to be looked after now.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._of: dict[PartitionKey, _Standing] = {}
        self._withdrawals = 0
        self._woken_s = float("-inf")
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: nothing looks after those of the parent here."""
        self._of = {}
        self._lock = threading.Lock()

    def identity(self, key: PartitionKey, now_s: float) -> str | None:
        """The primary that may be served from now; None if there is none."""
        standing = self._of.get(key)
        if standing is not None and now_s - standing.asked_s < STANDING_S:
            standing.used_s = now_s
            return standing.identity
        with self._lock:
            is_first = key not in self._of
            standing = self._of.setdefault(key, _Standing())
            standing.used_s = now_s
            standing.first_s = min(standing.first_s, now_s)
            standing.confirmed_s = min(standing.confirmed_s, now_s)
            if not is_first and now_s - self._woken_s < WAKE_S:
                return None
            self._woken_s = now_s
        self._wake()
        return None

    def last_identity(self, key: PartitionKey) -> str:
        """The primary that could be served from last, if not now; "" if none is known."""
        standing = self._of.get(key)
        return "" if standing is None else standing.identity

    def is_new(self, key: PartitionKey, now_s: float) -> bool:
        """Whether it has just come into use, so that its standing may come any moment."""
        standing = self._of.get(key)
        if standing is None or standing.is_pending:
            return False
        # Also if it has come by now: whoever asks has not seen it yet.
        return now_s - standing.first_s < NEW_S

    def why(self, key: PartitionKey) -> Literal["pending", "unverified"]:
        """Why it has no standing."""
        standing = self._of.get(key)
        return "pending" if standing is not None and standing.is_pending else "unverified"

    def doubt(self, key: PartitionKey) -> None:
        """An answer did not come from the verified primary: look into it."""
        with self._lock:
            standing = self._of.setdefault(key, _Standing())
            is_known, standing.in_doubt = standing.in_doubt, True
        if not is_known:
            self._wake()

    def withdraw(self, key: PartitionKey, pending_s: float | None = None) -> None:
        """A change is pending: serve no more from it until that is over.

        Args:
            key: Which partition.
            pending_s: When the primary store was asked and said so; None from who has made
                the change, and so knows better than any answer before.
        """
        with self._lock:
            standing = self._of.get(key)
            if standing is None:
                return
            self._withdrawals += 1
            standing.withdrawal = self._withdrawals
            standing.asked_s = float("-inf")
            if pending_s is None:
                standing.pending_s = float("inf")
            elif standing.is_pending:
                standing.pending_s = min(standing.pending_s, pending_s)
            else:
                standing.pending_s = pending_s
            standing.is_pending = True

    def waits_for(self, key: PartitionKey, begun_s: float) -> bool:
        """Whether a change that began then may be what it was withdrawn for."""
        standing = self._of.get(key)
        return standing is not None and standing.is_pending and begun_s <= standing.pending_s

    def withdrawals(self) -> int:
        """How many there were so far: `confirm` takes it back."""
        return self._withdrawals

    def confirm(self, key: PartitionKey, identity: str, asked_s: float, withdrawals: int) -> None:
        """The primary store has said so.

        Args:
            key: Of which partition.
            identity: Its verified primary.
            asked_s: When the primary store was asked.
            withdrawals: How many there were then: one that came since is stronger.
        """
        with self._lock:
            standing = self._of.setdefault(key, _Standing())
            if standing.withdrawal > withdrawals:
                return
            standing.identity = identity
            standing.asked_s = standing.confirmed_s = asked_s
            standing.in_doubt = standing.is_pending = False
            standing.successor = None

    def successor(self, key: PartitionKey) -> Successor | None:
        """The primary that was entered for it, and does not serve yet."""
        standing = self._of.get(key)
        return None if standing is None else standing.successor

    def note_successor(self, key: PartitionKey, successor: Successor | None) -> None:
        """One was entered, or the one that was is none any more."""
        with self._lock:
            self._of.setdefault(key, _Standing()).successor = successor

    def unconfirmed_s(self, key: PartitionKey, now_s: float) -> float:
        """For how long it has had no standing, in seconds, or since it is in use."""
        standing = self._of.get(key)
        return 0.0 if standing is None else now_s - standing.confirmed_s

    def active(self, now_s: float) -> list[tuple[PartitionKey, bool]]:
        """Those to be looked after, and whether they are in doubt; forgets the others."""
        with self._lock:
            for key in [k for k, s in self._of.items() if now_s - s.used_s >= ACTIVE_S]:
                del self._of[key]
            return [(key, standing.in_doubt) for key, standing in self._of.items()]
