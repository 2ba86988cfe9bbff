"""The journal: what was sent and read, until it is known to be durable.

An *entry* is one write as it was sent (the arguments of its call, already
serialized), or one read as the write that would store what was read: what a
process builds upon must come back with what it built. Entries are written ahead:
they stand here before they are sent, so that an acknowledgement is never without
its entry. Each has two stamps. `sent_wall_s` never changes, and tells how old the
entry is; `acked_s` says since when the primary named by `identity` has had it,
and is set again by a replay. The watermark of that primary trims by it.

Bounded in bytes and entries. When it is full the oldest go: onto disk where there
is a spool, else they are *uncovered*, which is counted and told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Set

from langgraph_valkey import limits
from langgraph_valkey.loss_window.entries import (
    DELETE,
    ITEMS,
    PUT,
    REMOVE,
    WRITES,
    Entry,
    OfThread,
    packed,
    unpacked,
)
from langgraph_valkey.loss_window.spool import Spool
from langgraph_valkey.loss_window.spool_file import Row
from langgraph_valkey.operations import Standing


class OfPrimary:
    """What one primary has acknowledged, or replays have given it.

    Attributes:
        entries: How many entries.
        bytes: How many bytes of them are in memory.
        by_age: When each was acknowledged, the oldest first; what is no longer so
            does not agree with the entry.
    """

    __slots__ = ("by_age", "bytes", "entries")

    def __init__(self) -> None:
        self.entries = self.bytes = 0
        self.by_age: deque[tuple[float, Entry]] = deque()


class Journal:
    """The entries of one process; whoever calls it holds the lock of its owner.

    Args:
        bytes_max: Bytes it may hold in memory.
        spool: Where entries are kept on disk as well, if anywhere.
        bare: The arguments of an entry without what takes room: it can be asked for by
            them, and no more.

    Attributes:
        bytes: Bytes held in memory.
        uncovered: How many entries could not be kept until they were durable.
        to_purge: Threads whose state has to be wiped from the spool, and up to which
            serial number: it takes long, so it is left to the monitor.
    """

    def __init__(
        self, bytes_max: int, spool: Spool | None, bare: Callable[[list[bytes]], list[bytes]]
    ) -> None:
        self.spool = spool
        self._bare = bare
        self._bytes_max = bytes_max
        self.clear()

    def clear(self) -> None:
        """Forget everything: a forked child's journal begins empty."""
        self.threads: dict[str, OfThread] = {}
        self.bytes = 0
        self.uncovered = 0
        self.doubtful: dict[bytes, None] = {}
        self._of_primary: dict[bytes, OfPrimary] = {}
        self._count = 0
        self._in_memory: deque[Entry] = deque()
        self._reads: deque[Entry] = deque()
        self._read_bytes = 0
        self._serial = 0
        self.to_purge: list[tuple[str, int]] = []
        self._to_discard: list[int] = []

    @property
    def is_full(self) -> bool:
        """Whether something has to leave memory."""
        return (
            self.bytes > self._bytes_max
            or self._count > limits.JOURNAL_ENTRIES_MAX
            or self._read_bytes > self._bytes_max // limits.READS_SHARE
        )

    def of_primary(self, identity: bytes) -> OfPrimary:
        """What this primary has."""
        return self._of_primary.get(identity) or OfPrimary()

    def primaries(self) -> list[bytes]:
        """Those that have any of it."""
        return [identity for identity, held in self._of_primary.items() if held.entries]

    def __len__(self) -> int:
        return self._count

    # --- what happens to an entry ------------------------------------------------

    def sent(self, entry: Entry) -> Entry:
        """An entry is about to be sent; when it is sent again, the one that is here."""
        of_thread = self.threads.get(entry.thread)
        if of_thread is None:
            of_thread = self.threads[entry.thread] = OfThread()
        here = of_thread.entries.setdefault(entry.number, entry)
        if here is not entry and here.acked_s is None:
            here.args, here.size, here.standing = entry.args, entry.size, entry.standing
        return here

    def acked(
        self, entry: Entry, identity: bytes, standing: Standing, now_s: float, *, sure: bool = True
    ) -> None:
        """The primary has it, or (not `sure`) may have it."""
        entry.sure = sure
        if not sure:
            self.doubt(entry)
        entry.standing = standing
        had = entry.acked_s
        if had is not None:
            self._uncount(entry)
        entry.acked_s, entry.identity = now_s, identity
        held = self._of_primary.get(identity)
        if held is None:
            held = self._of_primary[identity] = OfPrimary()
        held.entries += 1
        if entry.in_memory:
            held.bytes += entry.size
        held.by_age.append((now_s, entry))
        if had is None:
            self._begin_to_hold(entry)

    def _begin_to_hold(self, entry: Entry) -> None:
        self._count += 1
        self.bytes += entry.size
        if entry.is_read:
            self._reads.append(entry)
            self._read_bytes += entry.size
            return
        if self.spool is not None:
            self._put_in_spool(entry, self.spool)
        if entry.kind in (PUT, WRITES, ITEMS):  # The others are small.
            self._in_memory.append(entry)

    def _uncount(self, entry: Entry) -> None:
        held = self._of_primary[entry.identity]
        held.entries -= 1
        if entry.in_memory:
            held.bytes -= entry.size

    def confirmed(self, entry: Entry, identity: bytes, gen: bytes, now_s: float) -> None:
        """A replay found it with a primary, or gave it to it; in a thread of this gen."""
        if entry.acked_s is not None:
            standing = entry.standing
            if standing.gen == Standing().gen:
                standing = standing._replace(gen=gen)
            self.acked(entry, identity, standing, now_s)

    def doubt(self, entry: Entry) -> None:
        """It may turn up later, also when it was forgotten here."""
        self.doubtful[entry.number] = None
        if len(self.doubtful) > limits.DOUBTFUL_MOST:
            del self.doubtful[next(iter(self.doubtful))]

    def read(self, entry: Entry, identity: bytes, now_s: float) -> None:
        """Something was read, as the write that would store it.

        It is another writer's, or this one's own and turns out to have been applied.
        """
        of_thread = self.threads.get(entry.thread)
        here = of_thread.entries.get(entry.number) if of_thread is not None else None
        if here is None:
            entry.is_read = True
            self.sent(entry)
            self.acked(entry, identity, entry.standing, now_s)
        elif not here.sure:
            here.deadline_ms = max(here.deadline_ms, entry.deadline_ms)
            self.acked(here, identity, entry.standing, now_s)

    def drop(self, entry: Entry) -> None:
        """It is durable, or not wanted any more."""
        of_thread = self.threads.get(entry.thread)
        if of_thread is None or of_thread.entries.pop(entry.number, None) is None:
            return
        if not of_thread.entries:
            del self.threads[entry.thread]
        if entry.acked_s is not None:
            self._count -= 1
            self._uncount(entry)
            if entry.in_memory:
                self.bytes -= entry.size
                if entry.is_read:
                    self._read_bytes -= entry.size
        if entry.serial:
            self._to_discard.append(entry.serial)
        entry.acked_s = entry.args = None

    def forget_thread(self, thread: str, dead: int) -> None:
        """The thread was deleted by this process at this stamp: keep nothing of it.

        What is still on its way, or was begun since, is another matter.
        """
        of_thread = self.threads.get(thread)
        if of_thread is None:
            return
        for entry in list(of_thread.entries.values()):
            is_of_it = entry.acked_s is not None and int(entry.standing.gen) <= dead
            if is_of_it and entry.kind != DELETE:
                self.drop(entry)
        if self.spool is not None:
            self.to_purge.append((thread, self._serial))

    # --- what has to be replayed -----------------------------------------------------

    def of_thread(self, thread: str, *, but: bytes | None) -> list[Entry]:
        """A thread's entries that have to be replayed.

        Whose outcome is not known is replayed only if something later of its thread
        was acknowledged, and so may build upon it; else its caller has been told to
        call again, and must not meet it later. It is forgotten then.

        Args:
            thread: The thread's name.
            but: Leave out those of this primary.
        """
        held = self.threads.get(thread)
        if held is None:
            return []
        entries = [entry for entry in held.entries.values() if entry.acked_s is not None]
        while entries and not entries[-1].sure:
            self.drop(entries.pop())
        for entry in entries:
            if not entry.sure and entry.kind in (REMOVE, DELETE):
                self.drop(entry)  # What was acknowledged after it says that it came to nothing.
        return [entry for entry in entries if entry.acked_s is not None and entry.identity != but]

    def behind(self, primary_of: Callable[[int], bytes], trusted: Set[bytes]) -> list[str]:
        """Threads with entries of another primary than their slot has; newest first.

        Args:
            primary_of: Tells who has a slot.
            trusted: Primaries whose entries need not be looked at.
        """
        if not any(self.of_primary(each).entries for each in self._of_primary.keys() - trusted):
            return []
        found: dict[str, float] = {}
        for thread, held in self.threads.items():
            for entry in held.entries.values():
                acked_s = entry.acked_s
                if acked_s is not None and entry.identity != primary_of(entry.slot):
                    found[thread] = max(acked_s, found.get(thread, acked_s))
        return sorted(found, key=found.__getitem__, reverse=True)

    # --- bounds --------------------------------------------------------------------

    def trim(self, durable_s: Callable[[Entry], float]) -> None:
        """Drop what is durable.

        Args:
            durable_s: Up to when acknowledgements like this entry's are durable.
        """
        gone: list[Entry] = []
        for by_age in [held.by_age for held in self._of_primary.values()]:
            while by_age:
                acked_s, entry = by_age[0]
                if entry.acked_s == acked_s:  # Else dropped, or replayed since.
                    if acked_s > durable_s(entry):
                        break
                    gone.append(entry)
                by_age.popleft()
        for entry in gone:
            self.drop(entry)
        for line in (self._reads, self._in_memory):
            if len(line) > 2 * self._count + limits.LINE_SLACK:
                alive = [entry for entry in line if entry.acked_s is not None]
                line.clear()
                line.extend(alive)
        if self.spool is not None:
            self.spool.discard(self._to_discard)
        self._to_discard.clear()

    def make_room(self) -> int:
        """Bring it back within its bounds; how many entries are uncovered by that."""
        before = self.uncovered
        while self._reads and self._read_bytes > self._bytes_max // limits.READS_SHARE:
            self._give_up(self._reads.popleft())
        while self.bytes > self._bytes_max or self._count > limits.JOURNAL_ENTRIES_MAX:
            if not self._in_memory:
                break
            self._give_up(self._in_memory.popleft())
        return self.uncovered - before

    def _give_up(self, entry: Entry) -> None:
        """Let go of what it carries: the spool has it, or else it is uncovered."""
        if entry.acked_s is None or not entry.in_memory:
            return
        self._of_primary[entry.identity].bytes -= entry.size
        self.bytes -= entry.size
        if entry.is_read:
            self._read_bytes -= entry.size
        if not entry.serial or self._count > limits.JOURNAL_ENTRIES_MAX:
            self.uncovered += 1
        if entry.serial:
            entry.args = None
        else:
            assert entry.args is not None
            entry.args, entry.bare = self._bare(entry.args), True
        if self._count > limits.JOURNAL_ENTRIES_MAX:
            self.drop(entry)

    # --- the spool -----------------------------------------------------------------

    def _put_in_spool(self, entry: Entry, spool: Spool) -> None:
        self._serial += 1
        row = Row(self._serial, entry.thread, entry.sent_wall_s, packed(entry))
        entry.serial = self._serial if spool.add(row) else 0

    def carried(self, entries: Iterable[Entry]) -> dict[bytes, list[bytes]]:
        """The arguments of entries, by their numbers, also of those in the spool alone.

        What the spool does not give is left out: it is uncovered.
        """
        found = {entry.number: entry.args for entry in entries if entry.args is not None}
        absent = {entry.serial: entry for entry in entries if entry.args is None and entry.serial}
        if absent and self.spool is not None:
            for row in self.spool.rows(list(absent)):
                found[absent.pop(row.serial).number] = unpacked(row).args or []
        for entry in absent.values():
            self.uncovered += 1
            self.drop(entry)
        return found
