"""Replay: joining what is journaled of a bucket into what a primary has of it.

As of a thread's (`loss_window.replay`): a join, so it may be done at any time, twice and in any
order. What an entry did is settled when it is acknowledged: each operation then carries its
stamp, and the server keeps of two the one with the higher stamp. A deletion is remembered by
its stamp, and so is what has expired, so that nothing older comes back.

An entry is one call, so it may hold many operations; they count one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from langgraph_valkey import limits
from langgraph_valkey.items import calls, names
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call
from langgraph_valkey.loss_window.entries import Entry, OfThread
from langgraph_valkey.loss_window.replay import (
    DELETED,
    EXPIRED,
    MISSING,
    STORED,
    THERE,
    Outcome,
)
from langgraph_valkey.operations import Answer, Standing, Status


class _Fate:
    """What became of one entry's operations."""

    __slots__ = ("entry", "lacks", "left")

    def __init__(self, entry: Entry, left: int) -> None:
        self.entry = entry
        self.left = left
        self.lacks = False


class BucketReplay:
    """One bucket on its way; args and attributes are those of `loss_window.replay.ThreadReplay`."""

    is_shared: ClassVar[bool] = True

    def __init__(
        self,
        thread: str,
        keys: ThreadKeys,
        held: OfThread,
        entries: Sequence[Entry],
        carried: Mapping[bytes, list[bytes]],
        primary: bytes,
    ) -> None:
        self.thread = thread
        self.keys = keys
        self.primary = primary
        self.outcome = Outcome()
        self.settled: list[Entry] = []
        self.unwanted: list[Entry] = []
        self.missing: list[Entry] = []
        self.standing = Standing()
        self.moved_to: bytes | None = None
        self._lacking: list[Entry] = []
        self._newest = max(
            (entry.standing for entry in held.entries.values()),
            key=lambda standing: standing.stamp,
            default=Standing(),
        )
        self._pages: list[list[tuple[_Fate, bytes]]] = []
        for entry in entries:
            if entry.number in carried:
                self._add(entry, carried[entry.number])
        self._pages.reverse()

    @staticmethod
    def bare(args: list[bytes]) -> list[bytes]:
        """The operations of an entry without what they store."""
        return [calls.without_body(change) for change in args]

    @staticmethod
    def reported(thread: str) -> str:
        """A bucket as reports name it."""
        return names.told(thread)

    @staticmethod
    def told(thread: str) -> str:
        """A bucket as it stands in an error's text."""
        return names.told(thread)

    def _add(self, entry: Entry, changes: Sequence[bytes]) -> None:
        stamp, sent_ms = int(entry.standing.stamp), round(entry.sent_wall_s * 1000)
        if not entry.sure:
            # It came after all that its writer knew of. A deletion that nobody was told of
            # is its caller's to repeat.
            changes = [each for each in changes if each[:1] != calls.DELETION]
            stamp += 1
        fate = _Fate(entry, len(changes))
        if not changes:
            self.settled.append(entry)
        for change in changes:
            page = self._pages[-1] if self._pages else None
            if page is None or _is_full(page):
                page = []
                self._pages.append(page)
            page.append((fate, calls.unsettled(change, stamp, sent_ms)))

    def next(self) -> Call | None:
        """The call of the next page; None after the last."""
        if self.moved_to is not None or not self._pages:
            return None
        changes = [change for _, change in self._pages[-1]]
        return calls.join(self.keys, self.primary, self._newest, changes)

    def take(self, answer: Answer) -> None:
        """Take note of what became of the page."""
        if answer.status is Status.MOVED:
            self.moved_to = answer.identity
            return
        self.standing = answer.standing
        [verdicts] = answer.rest
        for (fate, _), verdict in zip(self._pages.pop(), verdicts, strict=True):
            self._judge(fate, verdict)
        if not self._pages:
            self.missing = self._lacking

    def _judge(self, fate: _Fate, verdict: int) -> None:
        entry, outcome = fate.entry, self.outcome
        # One whose outcome was never known is no loss of the server's.
        outcome.replayed += verdict == STORED and entry.sure
        outcome.already_there += verdict == THERE
        outcome.deleted += verdict == DELETED
        outcome.expired += verdict == EXPIRED
        outcome.uncovered += entry.bare and verdict != MISSING
        fate.lacks = fate.lacks or verdict == MISSING
        fate.left -= 1
        if not fate.left:
            # Also what was deleted, or has expired, is kept until that is durable: its grave
            # may be lost, with whoever knows of it, and what it replaced must not come back.
            (self._lacking if fate.lacks else self.settled).append(entry)


def _is_full(page: Sequence[tuple[_Fate, bytes]]) -> bool:
    size = sum(len(change) for _, change in page)
    return size >= limits.REPLAY_PAGE_BYTES or len(page) >= limits.REPLAY_PAGE_ENTRIES
