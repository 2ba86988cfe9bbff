"""Waiting for a thread, but not for longer than the call is worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from langgraph_valkey.link import NotSent

T = TypeVar("T")


def in_time(run: Callable[[], T], until_s: float) -> Callable[[], T]:
    """A call that is not made if it begins later.

    The thread finds that out, not a timer a call: those that come too late end as soon as
    one thread is free, which takes no longer than one call may.

    Args:
        run: The call.
        until_s: When it has to begin, by the monotonic clock.
    """

    def begin() -> T:
        if time.monotonic() > until_s:
            raise NotSent(
                "no thread was free in time, so nothing was sent: there are too many calls at "
                "once on loops beside the one that reads replies. Make them on that loop, or "
                "fewer at once"
            )
        return run()

    return begin
