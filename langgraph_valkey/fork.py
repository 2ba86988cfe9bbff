"""What must be made anew in a forked child.

A child inherits its parent's memory and none of its threads: locks may be held
by nobody, and counts are of calls that will never end there.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Something that has to be told that it is in a child now."""

    def after_fork(self) -> None:
        """Become usable in the child."""
        ...


_alive: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Call its `after_fork` in each child forked while it is alive."""
    _alive.add(thing)


def _renew_all() -> None:
    for thing in tuple(_alive):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
