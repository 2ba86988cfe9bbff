"""Where async graphs are executed by threads: in the program's own event loop.

Pools, clients and locks that async nodes use are bound to the loop they were first used
in. So a run that was started by the async face is executed again in the loop that such
runs were executed in before, as long as that one runs. Without one it gets a loop of
its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from langgraph_valkey.errors import ReplayIncomplete
from langgraph_valkey.fork import renew_after_fork

T = TypeVar("T")

LOOK_S = 0.5
"""How often it is looked whether the loop still runs, in seconds."""

BEGIN_S = 10.0
"""How long the loop has to begin: it may wait for whoever waits for it."""


class HomeLoop:
    """The event loop of a program that executes runs in one; the last one of several."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the loop is the parent's."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def remember(self) -> None:
        """Runs are executed in the loop that runs here."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def run(self, thread_id: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine there, and wait for it; in a loop of its own, if none runs.

        Args:
            thread_id: Of what is executed, for the error.
            begin: Makes the coroutine.

        Raises:
            ReplayIncomplete: The loop did not begin it, or ended before it had.
            Exception: What the coroutine raised.
        """
        loop = self._loop
        if loop is None or not loop.is_running() or loop is _here():
            return _in_its_own(begin)
        began = threading.Event()

        async def whole() -> T:
            began.set()
            return await begin()

        future = asyncio.run_coroutine_threadsafe(whole(), loop)
        try:
            if _wait(future, loop, began):
                return future.result()
        except CancelledError:
            pass  # The loop was shut down.
        finally:
            future.cancel()
        raise ReplayIncomplete(
            "the event loop in which async runs are executed has ended, or does not answer: "
            "recover() tries it again",
            thread_ids=[thread_id],
        )


def _wait(future: Future[Any], loop: asyncio.AbstractEventLoop, began: threading.Event) -> bool:
    """Wait for what is executed in another thread's loop; False if that comes to nothing."""
    since_s = time.monotonic()
    while not wait([future], LOOK_S).done:
        is_late = not began.is_set() and time.monotonic() - since_s > BEGIN_S
        if is_late or not loop.is_running():
            return False
    return True


def _here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _in_its_own(begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in an event loop of its own, in another thread if one runs here."""

    async def whole() -> T:
        return await begin()

    if _here() is None:
        return asyncio.run(whole())
    with ThreadPoolExecutor(1, "langgraph-valkey-runs") as pool:
        return pool.submit(asyncio.run, whole()).result()
