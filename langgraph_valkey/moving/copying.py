"""Copying threads from one home to another, in walks, while they may go on being written.

A *walk* looks at every thread of the source and brings the target up to date: what is new
or has changed is copied, what was deleted is deleted. Walks follow one another until there
is nothing left to copy. Then a last one *verifies*: it compares what both sides give back,
thread by thread, and copies anew what differs. A thread counts as verified only if its mark
was the same before and after, so that nobody wrote to it meanwhile.

What is at the target and was not put there by this migration is never touched.

Everything is noted in a `Ledger` as it goes, so that it may be killed and begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from langgraph_valkey.errors import (
    ConfigurationError,
    LanggraphValkeyError,
    OutcomeUnknown,
    StoreFull,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.moving.cargo import Address
from langgraph_valkey.moving.homes import Home
from langgraph_valkey.moving.ledger import Ledger
from langgraph_valkey.moving.opaque import NotCarried

_ENDING = (ConfigurationError, OutcomeUnknown, StoreFull, Unreachable, WriteRejected)
"""What is wrong with a side as a whole, not with one thread."""

_NEWEST = 2
"""Of how many checkpoints of a namespace the writes may have grown: the last one's, and
those of the one before, which arrive beside the put of the last."""


@dataclass(slots=True)
class Walk:
    """What one walk came to; threads by name.

    Attributes:
        seen: How many threads the source has.
        copied: Were copied, in whole or in part.
        deleted: Were gone at the source, and are at the target.
        verified: Give the same back on both sides.
        changing: Were written to meanwhile: the next walk looks at them again.
        taken: Are at the target, and not by this migration: not touched.
        failed: Can't be carried, and why.
    """

    seen: int = 0
    copied: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    changing: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def is_quiet(self) -> bool:
        """Whether it found nothing that is still being written."""
        return not (self.copied or self.deleted or self.changing)


class Copying:
    """A migration on its way.

    Args:
        source: Where threads are copied from; it is only read.
        target: Where they are copied to.
        ledger: How far it has come.
        only: These threads alone; all of the source's if not given.
        overwrite: Whether to replace what is at the target and was not put there by this
            migration.
        tell: Is told how many threads of how many a walk has done.
    """

    def __init__(
        self,
        source: Home,
        target: Home,
        ledger: Ledger,
        *,
        only: Collection[str] | None = None,
        overwrite: bool = False,
        tell: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> None:
        self._source = source
        self._target = target
        self._ledger = ledger
        self._only = only
        self._overwrite = overwrite
        self._tell = tell

    def catch_up(self) -> Walk:
        """Copy what is new or has changed since the last walk.

        Raises:
            Unreachable, WriteRejected, OutcomeUnknown, StoreFull, ConfigurationError: One
                side can't be used now; begin again later, and it goes on from here.
        """
        return self._walk(self._bring)

    def verify(self) -> Walk:
        """Compare both sides, thread by thread, and copy anew what differs.

        Raises:
            Unreachable, WriteRejected, OutcomeUnknown, StoreFull, ConfigurationError: As of
                `catch_up`.
        """
        return self._walk(self._prove)

    def _walk(self, look: Callable[[str, Walk], None]) -> Walk:
        walk = Walk()
        names = self._names()
        gone = [thread for thread in self._ledger.threads() if thread not in names]
        if self._only is not None:
            gone = [thread for thread in gone if thread in self._only]
        walk.seen = len(names)
        whole = len(names) + len(gone)
        steps = [(thread, look) for thread in names] + [(thread, self._drop) for thread in gone]
        for done, (thread, step) in enumerate(steps):
            self._tell(done, whole)
            try:
                step(thread, walk)
            except _ENDING:
                raise
            except LanggraphValkeyError as error:
                walk.failed[thread] = str(error)
            except (TypeError, ValueError, NotImplementedError) as error:
                # A serializer's or a database's, and its text may quote state.
                walk.failed[thread] = f"it can't be stored there as it is ({type(error).__name__})"
        self._tell(whole, whole)
        return walk

    def _names(self) -> dict[str, None]:
        if self._only is None:
            return dict.fromkeys(self._source.threads())
        return {thread: None for thread in self._only if self._source.mark(thread)}

    def _bring(self, thread: str, walk: Walk) -> None:
        """Copy a thread, unless it is as it was."""
        before = self._source.mark(thread)
        entry = self._ledger.get(thread)
        if entry is not None and entry.state != "begun" and entry.mark == before:
            return
        if not before or not self._may_write(thread, walk):
            return
        self._copy(thread, before, anew=False)
        walk.copied.append(thread)

    def _prove(self, thread: str, walk: Walk) -> None:
        """Compare a thread; copy it anew if it differs, and compare again."""
        before = self._source.mark(thread)
        entry = self._ledger.get(thread)
        if entry == ("verified", before, self._target.mark(thread)):
            walk.verified.append(thread)
            return
        if entry is None or entry.state == "begun" or entry.mark != before:
            self._bring(thread, walk)
        if thread in walk.taken or not before:
            return
        differs = self._difference(thread)
        if differs and self._source.mark(thread) == before:
            if not self._may_write(thread, walk):
                return
            self._copy(thread, before, anew=True)
            differs = self._difference(thread)
        if self._source.mark(thread) != before:
            walk.changing.append(thread)
        elif differs:
            raise NotCarried(differs)
        else:
            self._ledger.note(thread, "verified", before, self._target.mark(thread))
            walk.verified.append(thread)

    def _may_write(self, thread: str, walk: Walk) -> bool:
        """Whether what is at the target is this migration's own, or may be replaced."""
        entry, there = self._ledger.get(thread), self._target.mark(thread)
        if entry is not None and (entry.state == "begun" or entry.goal == there):
            return True
        if not there:
            return True
        before = self._source.mark(thread)
        if not self._difference(thread):  # Copied before, and its ledger is gone.
            self._ledger.note(thread, "copied", before, there)
            return False
        if not self._overwrite:
            walk.taken.append(thread)
            return False
        self._ledger.note(thread, "begun")
        self._target.delete(thread)
        return True

    def _copy(self, thread: str, mark: str, *, anew: bool) -> None:
        """Copy what the target has not; all of it if anew, or if it has more than that."""
        self._ledger.note(thread, "begun")
        there = set(self._target.addresses(thread))
        here = self._source.addresses(thread)
        if there and (anew or there - set(here)):
            self._target.delete(thread)
            there = set()
        wanted = None if not there else {*_newest(here), *(at for at in here if at not in there)}
        heads = self._source.heads(thread)
        self._target.put(thread, self._source.cargoes(thread, wanted), heads)
        self._ledger.note(thread, "copied", mark, self._target.mark(thread))

    def _drop(self, thread: str, walk: Walk) -> None:
        """Delete what was deleted at the source since it was copied."""
        if self._source.mark(thread):
            walk.changing.append(thread)
            return
        entry, there = self._ledger.get(thread), self._target.mark(thread)
        assert entry is not None
        if there and entry.state != "begun" and entry.goal != there:
            walk.taken.append(thread)
            return
        if there:
            self._target.delete(thread)
        self._ledger.forget(thread)
        walk.deleted.append(thread)

    def _difference(self, thread: str) -> str:
        """In what the two sides differ; '' if they give the same back."""
        here, there = self._source.prints(thread), self._target.prints(thread)
        for at in _of_either(here, there):
            if here.get(at) != there.get(at):
                return f"checkpoint {at[1]!r} of thread {thread!r} is not the same on both sides"
        heads, goal = self._source.heads(thread), self._target.heads(thread)
        for namespace in _of_either(heads, goal):
            if heads.get(namespace) != goal.get(namespace):
                return (
                    f"thread {thread!r} would go on from {goal.get(namespace)!r}, and goes on from "
                    f"{heads.get(namespace)!r}"
                )
        if self._source.histories(thread, heads) != self._target.histories(thread, goal):
            return f"a DeltaChannel of thread {thread!r} is rebuilt to something else at the target"
        return ""


def _of_either(one: Iterable[Any], other: Iterable[Any]) -> Iterator[Any]:
    yield from dict.fromkeys([*one, *other])


def _newest(addresses: list[Address]) -> list[Address]:
    """The last checkpoints of each namespace."""
    by_namespace: dict[str, list[Address]] = {}
    for at in addresses:
        by_namespace.setdefault(at[0], []).append(at)
    return [at for found in by_namespace.values() for at in found[-_NEWEST:]]
