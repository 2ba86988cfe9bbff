"""What a process knows of threads and their tier: a bounded memory.

Two things are told apart. A *crossing* must not be forgotten: a commit was made in the
thread, and its next checkpoint has to be in the tier. What the tier is known to have
may be forgotten at any time: then the tier is asked.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from langgraph_valkey import limits
from langgraph_valkey.fork import renew_after_fork

CROSSINGS_MOST = 100_000
"""Threads with a commit behind which no checkpoint came yet. Runs that stopped behind
their commit, and were not gone on with here, leave one each (about 300 bytes)."""

_log = logging.getLogger("langgraph_valkey")


@dataclass(slots=True)
class _Crossed:
    made_on: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    """Up to which commit, counted from 1, and on which checkpoints these were made."""
    done: dict[str, int] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    def note(self, on: Mapping[str, str]) -> None:
        number = self.made_on[-1][0] + 1 if self.made_on else 1
        if self.made_on and self.made_on[-1][1] == on:
            self.made_on.pop()
        self.made_on.append((number, on))


class Crossings:
    """Threads in which something was committed; safe to use from many threads.

    After a commit the next checkpoint of each namespace is due, since it can't be told
    from outside in which of them the commit was made; that of the graph itself, which
    comes after all those of its subgraphs, ends it. Next is one that was made after the
    commit: under ``durability="async"`` those of earlier steps may be stored later.
    """

    def __init__(self) -> None:
        self._threads: OrderedDict[str, _Crossed] = OrderedDict()
        self._has_told = False
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget whoever held the lock in the parent."""
        self._lock = threading.Lock()

    def note(self, thread: str, on: Mapping[str, str]) -> None:
        """Something was committed.

        Args:
            thread: The thread.
            on: In each namespace that its task is in, the checkpoint it was made on.
        """
        with self._lock:
            crossed = self._threads.setdefault(thread, _Crossed())
            crossed.note(on)
            is_full = len(self._threads) > CROSSINGS_MOST
            if is_full:
                self._threads.popitem(last=False)
        if is_full and not self._has_told:
            self._has_told = True
            _log.warning(
                "more than %d threads have a commit and no checkpoint after it: the oldest is "
                "not waited for any more", CROSSINGS_MOST
            )  # fmt: skip

    def due(self, thread: str, namespace: str, checkpoint_id: str, parent_id: str) -> int:
        """Up to which commit a checkpoint of this namespace is due; 0 if it is not."""
        crossed = self._threads.get(thread)
        if crossed is None:
            return 0
        with self._lock:
            made_on, done = list(crossed.made_on), crossed.done.get(namespace, 0)
        for commits, on in reversed(made_on):
            if commits <= done:
                break
            made = on.get(namespace, "")
            # Its child is after it whatever their clocks say, of which ids are made.
            if checkpoint_id > made or parent_id == made:
                return commits
        return 0

    def is_stopped(self, thread: str, checkpoint_id: str, *, now: bool) -> bool:
        """Whether a run stopped at a checkpoint while the one behind a commit was due.

        Args:
            thread: The thread.
            checkpoint_id: The checkpoint.
            now: Whether it stops there now. What its other tasks write comes afterwards.
        """
        crossed = self._threads.get(thread)
        if crossed is None:
            return False
        if now:
            crossed.stopped.add(checkpoint_id)
        return checkpoint_id in crossed.stopped

    def done(self, thread: str, namespace: str, commits: int) -> None:
        """The tier has what was due up to this commit."""
        with self._lock:
            crossed = self._threads.get(thread)
            if crossed is None:
                return
            crossed.done[namespace] = commits
            if not namespace:
                crossed.made_on = [made for made in crossed.made_on if made[0] > commits]
            if not crossed.made_on:
                del self._threads[thread]

    def forget(self, thread: str) -> None:
        """The thread was deleted."""
        with self._lock:
            self._threads.pop(thread, None)


@dataclass(slots=True)
class Acquainted:
    """What is known of one thread.

    Attributes:
        primary: Under which primary it was compared with the tier.
        nonce: The thread's mark then; zeros if it was not there.
        sent: In each namespace, the id of the checkpoint that went to the tier last.
        wrote: In each namespace, the checkpoint on which this process stores tasks' writes,
            and the thread's mark when it stored the first.
    """

    primary: bytes = b""
    nonce: bytes = bytes(16)
    sent: dict[str, str] = field(default_factory=dict)
    wrote: dict[str, tuple[str, bytes]] = field(default_factory=dict)


class Acquaintances:
    """A bounded memory of threads; safe to use from many threads."""

    def __init__(self, threads_most: int = limits.KNOWN_THREADS_MOST) -> None:
        self._threads: OrderedDict[str, Acquainted] = OrderedDict()
        self._threads_most = threads_most
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget whoever held the lock in the parent."""
        self._lock = threading.Lock()

    def get(self, thread: str) -> Acquainted | None:
        """What is known of a thread."""
        return self._threads.get(thread)

    def of(self, thread: str) -> Acquainted:
        """What is known of a thread, to be added to."""
        with self._lock:
            known = self._threads.setdefault(thread, Acquainted())
            self._threads.move_to_end(thread)
            if len(self._threads) > self._threads_most:
                self._threads.popitem(last=False)
        return known

    def forget(self, thread: str) -> None:
        """Ask the tier next time."""
        with self._lock:
            self._threads.pop(thread, None)
