"""What one item was told, and what may be read of it: a register that several write.

Each change has a time at which its call began, and one at which it returned; it took place
in between. One that raised may take place at any time since, or never. A change is *past*
once another one was acknowledged that began after it had returned: then it must not be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SLACK_S = 0.05
"""Between the clocks of the servers and of this process, which are one."""


@dataclass(slots=True, eq=False)
class Change:
    """A put, or a deletion.

    Attributes:
        value: What was put, unlike any other; None for a deletion.
        began_s: When the call began, on the monotonic clock.
        ttl_s: For how long the item lives; None for ever.
        ended_s: When the call returned; never, if it has not, or raised.
    """

    value: int | None
    began_s: float
    ttl_s: float | None = None
    ended_s: float = math.inf

    @property
    def is_acked(self) -> bool:
        """Whether it took place."""
        return self.ended_s < math.inf

    def may_be_over(self, now_s: float) -> bool:
        """Whether the item may have expired."""
        return self.ttl_s is not None and now_s >= self.began_s + self.ttl_s - SLACK_S

    def must_be_over(self, now_s: float) -> bool:
        """Whether the item must have expired."""
        return self.ttl_s is not None and now_s > self.ended_s + self.ttl_s + SLACK_S


@dataclass(slots=True)
class History:
    """What one item was told.

    Attributes:
        changes: Those that may still matter.
        touched_s: When one was last acknowledged.
    """

    changes: list[Change] = field(default_factory=list)
    touched_s: float = -math.inf

    def begin(self, change: Change) -> None:
        """A call has begun."""
        self.changes.append(change)

    def end(self, change: Change, now_s: float) -> None:
        """It was acknowledged."""
        change.ended_s = self.touched_s = now_s

    def forget(self, before_s: float) -> None:
        """Forget what was past at this time: nobody reads at an earlier one any more."""
        self.changes = self._seen_from(before_s)

    def _seen_from(self, since_s: float) -> list[Change]:
        """Changes of which a read that began then may tell."""
        latest_s = max((c.began_s for c in self.changes if c.ended_s <= since_s), default=-math.inf)
        return [each for each in self.changes if each.ended_s >= latest_s]

    def wrong(self, seen: int | None, began_s: float, ended_s: float) -> str | None:
        """What is wrong with what was read in a time; None if nothing is.

        Returns:
            "missing" if something else, or nothing, was read in place of what was acknowledged;
            "resurrected" if what was read had been deleted; "outlived" if it had expired.
        """
        possible = [each for each in self._seen_from(began_s) if each.began_s <= ended_s]
        if seen is None:
            gone = any(each.value is None or each.may_be_over(ended_s) for each in possible)
            untold = not any(each.ended_s <= began_s for each in self.changes)
            return None if gone or untold else "missing"
        for each in possible:
            if each.value == seen:
                return "outlived" if each.must_be_over(began_s) else None
        acked = [each for each in possible if each.is_acked]
        gone = bool(acked) and all(each.value is None for each in acked)
        return "resurrected" if gone else "missing"
