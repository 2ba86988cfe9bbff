"""Replay: joining a thread's entries into what a primary has of it.

A join, not a repetition: the script looks at each entry and says what became of it,
so a replay may be done at any time, by several processes, twice, in any order, and
in the middle of live traffic. No marker is asked which writes survived, since a
marker that is read after new writes came in tells nothing.

A thread goes in pages, each one script call of a few milliseconds; `next` gives the
call of a page and `take` its answer, so that the pages of many threads can travel
side by side. An entry whose chunks are not there goes once more, with all of its
chunks that the journal holds anywhere: another process may have removed the
checkpoint that brought them.

What was deleted, or has expired, is kept like the rest until that is durable, too. The
primary that says so may be lost in its turn, with whoever else knows of it: then half a
thread would be there again, and this process would no longer have the other half. So a
deletion of the thread that it is told of goes along with the entries it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, Protocol

from langgraph_valkey import limits, operations
from langgraph_valkey.keys import ThreadKeys, namespace_of, to_text
from langgraph_valkey.link import Call
from langgraph_valkey.loss_window.entries import DELETE, PUT, REMOVE, WRITES, Entry, OfThread
from langgraph_valkey.loss_window.report import Fork
from langgraph_valkey.operations import Answer, Standing, Status, taken_apart, without_payload
from langgraph_valkey.stored import records

STORED, THERE, DELETED, REMOVED, EXPIRED, MISSING = b"stdrxm"
NEVER = Standing().gen


@dataclass(slots=True)
class Outcome:
    """What became of a thread's entries; counts are of entries.

    Attributes:
        replayed: Had been acknowledged, were lost, and are there again.
        already_there: Were not lost.
        deleted: Were deleted meanwhile.
        expired: Have expired.
        lost: Had been acknowledged, were lost, and can't be restored.
        uncovered: Could only be asked for.
        forks: The last of each namespace.
    """

    replayed: int = 0
    already_there: int = 0
    deleted: int = 0
    expired: int = 0
    lost: int = 0
    uncovered: int = 0
    forks: dict[str, Fork] = field(default_factory=dict)


@dataclass(slots=True)
class _Page:
    standing: Standing
    deadline_ms: int
    entries: list[Entry] = field(default_factory=list)
    items: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, entry: Entry, items: Sequence[bytes]) -> None:
        # Once for each verdict to come.
        self.entries += [entry for item in items if item[:1] != b"C"]
        self.items += items
        self.size += sum(map(len, items))

    @property
    def is_full(self) -> bool:
        return (
            self.size >= limits.REPLAY_PAGE_BYTES or len(self.entries) >= limits.REPLAY_PAGE_ENTRIES
        )


class Replay(Protocol):
    """One thread on its way, or whatever else is journaled and replayed as a whole.

    Attributes are those of `ThreadReplay`, which is the one of a saver.

    Attributes:
        is_shared: Whether others write it, too, also where this process has not read what
            they wrote.
    """

    is_shared: ClassVar[bool]
    thread: str
    keys: ThreadKeys
    primary: bytes
    outcome: Outcome
    settled: list[Entry]
    unwanted: list[Entry]
    missing: list[Entry]
    standing: Standing
    moved_to: bytes | None

    def __init__(
        self,
        thread: str,
        keys: ThreadKeys,
        held: OfThread,
        entries: Sequence[Entry],
        carried: Mapping[bytes, list[bytes]],
        primary: bytes,
    ) -> None: ...

    @staticmethod
    def bare(args: list[bytes]) -> list[bytes]:
        """The arguments of an entry without its payload: it can be asked for, and no more."""
        ...

    @staticmethod
    def reported(thread: str) -> str:
        """A thread as reports name it."""
        ...

    @staticmethod
    def told(thread: str) -> str:
        """A thread as it stands in an error's text."""
        ...

    def next(self) -> Call | None:
        """The call of the next page; None after the last."""
        ...

    def take(self, answer: Answer) -> None:
        """Take note of what became of the page."""
        ...


class ThreadReplay:
    """One thread on its way.

    Args:
        thread: The thread's name.
        keys: Its keys.
        held: What the journal holds of it.
        entries: Those to be replayed, in the order in which they were sent.
        carried: The arguments of all its entries, by their numbers.
        primary: Which primary is to take them; `operations.ANYONE` for any.

    Attributes:
        primary: As given.
        outcome: What became of the entries so far.
        settled: Entries that are there, by the primary that said so.
        unwanted: Entries that were deleted or have expired.
        missing: Entries of which something is not there, for now.
        standing: The thread as the server has it now.
        moved_to: The primary that answered instead of the expected one, if one did.
    """

    is_shared: ClassVar[bool] = False

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
        self.outcome = Outcome()
        self.settled: list[Entry] = []
        self.unwanted: list[Entry] = []
        self.missing: list[Entry] = []
        self.standing = Standing()
        self.moved_to: bytes | None = None
        self.primary = primary
        # A thread that expired and was gone on with has the same gen, and another nonce.
        self._deadlines_ms: dict[tuple[bytes, bytes], int] = {}
        for entry in held.entries.values():
            life = entry.standing.gen, entry.standing.nonce
            self._deadlines_ms[life] = max(entry.deadline_ms, self._deadlines_ms.get(life, 0))
        self._seen = [
            b"S" + operations.named(namespace, checkpoint_id)
            for namespace, heads in held.heads.items()
            for checkpoint_id in heads
        ]
        self._carried = carried
        self._puts = [entry for entry in held.entries.values() if entry.kind == PUT]
        self._pages = self._pages_of([entry for entry in entries if entry.number in carried])
        self._page: _Page | None = None
        self._again: list[Entry] = []
        self._gone: list[Entry] = []
        self._last_try = False

    @staticmethod
    def bare(args: list[bytes]) -> list[bytes]:
        """The arguments of an entry without its payload: it can be asked for, and no more."""
        return [without_payload(args[0])]

    @staticmethod
    def reported(thread: str) -> str:
        """A thread as reports name it."""
        return thread

    @staticmethod
    def told(thread: str) -> str:
        """A thread as it stands in an error's text."""
        return f"thread {thread!r}"

    def next(self) -> Call | None:
        """The call of the next page; None after the last."""
        if self.moved_to is not None:
            return None
        self._page = next(self._pages, None)
        if self._page is None and self._again and not self._last_try:
            self._last_try = True
            self._pages = self._whole_pages(self._again)
            self._page = next(self._pages, None)
        page = self._page
        if page is None:
            # Last of all, so that they are not let go of before what needs their chunks.
            self.settled, self._gone = self._gone, []
            return None
        return operations.replay(
            self.keys,
            self.primary,
            page.standing,
            page.deadline_ms,
            self._seen + page.items,
        )

    def take(self, answer: Answer) -> None:
        """Take note of what became of the page."""
        page = self._page
        assert page is not None
        if answer.status is Status.MOVED:
            self.moved_to = answer.identity
            return
        self.standing = answer.standing
        verdicts, forks, dead = answer.rest
        for entry, verdict in zip(page.entries, verdicts, strict=True):
            self._judge(entry, verdict)
            if verdict == DELETED:
                entry.standing = _buried(entry.standing, dead)
        for at in range(0, len(forks), 3):
            namespace, head, branch = (forks[at], *map(to_text, forks[at + 1 : at + 3]))
            name = namespace_of(namespace)
            self.outcome.forks[name] = Fork(self.thread, name, head, branch)

    def _judge(self, entry: Entry, verdict: int) -> None:
        outcome = self.outcome
        outcome.uncovered += entry.bare and verdict != MISSING
        entry.is_over = verdict in (DELETED, EXPIRED)
        if entry.is_over:
            self.unwanted.append(entry)
            self._gone.append(entry)
            outcome.deleted += verdict == DELETED
            outcome.expired += verdict == EXPIRED
        elif verdict == REMOVED:
            self._gone.append(entry)
            outcome.deleted += 1
        elif verdict == MISSING:
            if self._last_try or entry.bare:
                self.missing.append(entry)
            else:
                self._again.append(entry)
        else:
            self.settled.append(entry)
            # One whose outcome was never known is no loss of the server's.
            outcome.replayed += verdict == STORED and entry.sure
            outcome.already_there += verdict == THERE

    # --- pages -----------------------------------------------------------------

    def _pages_of(self, entries: Sequence[Entry]) -> Iterator[_Page]:
        for _, alike in groupby(entries, _kinship):
            page: _Page | None = None
            for entry in alike:
                if page is not None and page.is_full:
                    yield page
                    page = None
                page = page or self._page_for(entry)
                page.standing = _newest(page.standing, entry.standing)
                page.add(entry, self._items(entry))
            if page is not None:
                yield page

    def _whole_pages(self, entries: Sequence[Entry]) -> Iterator[_Page]:
        """A page for each, with all its chunks that are held anywhere."""
        chunks = {
            chunk[: limits.DIGEST_BYTES]: chunk
            for entry in self._puts
            for chunk in self._carried.get(entry.number, ())[1:]
        }
        for entry in entries:
            record = taken_apart(self._carried[entry.number][0]).payload
            needed = [chunks[d] for d in records.digests_of(record) if d in chunks]
            page = self._page_for(entry)
            page.add(entry, [*(b"C" + chunk for chunk in needed), self._items(entry)[-1]])
            yield page

    def _page_for(self, entry: Entry) -> _Page:
        deadline_ms = self._deadlines_ms.get((entry.standing.gen, entry.standing.nonce), 0)
        if not deadline_ms and not entry.sure and entry.kind in (PUT, WRITES):
            ttl_ms = taken_apart(self._carried[entry.number][0]).ttl_ms
            deadline_ms = ttl_ms and round(entry.sent_wall_s * 1000) + ttl_ms
        return _Page(entry.standing, deadline_ms)

    def _items(self, entry: Entry) -> list[bytes]:
        """An entry as ``replay.lua`` takes it."""
        args, stamp = self._carried[entry.number], entry.standing.stamp
        if entry.kind == DELETE:
            return [b"D" + stamp]
        if entry.kind == REMOVE:
            namespace, *ids = args
            return [b"R" + stamp + operations.named(namespace, each) for each in ids]
        head, *chunks = args
        taken = taken_apart(head)
        if entry.kind == WRITES:
            return [b"".join((b"W", stamp, taken.entry, taken.name, taken.payload))]
        put = b"".join((b"P", stamp, taken.name, taken.payload))
        return [*(b"C" + chunk for chunk in chunks), put]


def _kinship(entry: Entry) -> tuple[bytes, ...]:
    """Entries for which this is equal may go in one call."""
    standing = entry.standing
    if entry.kind == DELETE:
        return (entry.number,)
    if standing.gen == NEVER:
        return (NEVER, standing.stamp)
    return (standing.gen, standing.dead, standing.nonce)


def _buried(standing: Standing, dead: bytes) -> Standing:
    """An entry's standing, once it is known when its thread was deleted last."""
    gen = standing.gen
    if gen == NEVER and standing.stamp <= dead:
        gen = dead  # Else it would pass for one of a thread that was begun since.
    return standing._replace(gen=gen, dead=max(standing.dead, dead))


def _newest(one: Standing, other: Standing) -> Standing:
    return other if other.stamp > one.stamp else one
