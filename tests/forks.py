"""Asking a forked child whether something holds there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

CHILD_LIFE_S = 20
"""After how long a child that hangs is ended: nobody else would."""


def holds_in_a_child(check: Callable[[], object]) -> bool:
    """Whether something is true in a child of this process."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_LIFE_S)
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
