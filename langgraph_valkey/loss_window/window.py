"""The loss window of one saver: journal, watermarks, shards and replay put together.

Whoever talks to the server hands each answer to `heard` and each write to `sending`
and `taken`; in return they learn whether they must do something first. What has to
be done beside the calls, by the monitor or by whoever has the time, is `tend`.

Order is what keeps it simple: a call names the primary it expects, and another one
refuses it. So after a failover this process stores nothing before it has replayed
the thread concerned, and returns nothing it has read before that either. Replay
does not need this order (it is a join); users do, since a truthful "no such thread"
from a new primary must not begin a conversation anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Sequence

from langgraph_valkey import limits
from langgraph_valkey.errors import WriteRejected
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.keys import ThreadKeys, thread_keys
from langgraph_valkey.loss_window.durability import Rule
from langgraph_valkey.loss_window.entries import DELETE, Entry
from langgraph_valkey.loss_window.journal import Journal
from langgraph_valkey.loss_window.pulse import Pulse
from langgraph_valkey.loss_window.recovery import Recoveries
from langgraph_valkey.loss_window.replay import Replay, ThreadReplay
from langgraph_valkey.loss_window.report import Hooks
from langgraph_valkey.loss_window.shards import Heard, Shards
from langgraph_valkey.loss_window.spool import Spool
from langgraph_valkey.loss_window.vitals import Vitals
from langgraph_valkey.loss_window.watermark import NOTHING_YET
from langgraph_valkey.operations import ANYONE, Answer, Standing

_log = logging.getLogger("langgraph_valkey")

ADOPTED = b"adopted"
"""In place of a primary: entries that are taken over have to be replayed first."""


class LossWindow:
    """What this process must not forget yet; safe to use from many threads.

    Args:
        prefix: What all keys begin with.
        rule: By which writes become durable.
        bytes_max: Bytes the journal may hold in memory.
        grace_s: For how long after a promotion reads wait for other processes.
        raises_forks: Whether the next call on a thread that forked raises it.
        hooks: Who is told.
        spool: Where the journal is kept on disk as well, if anywhere.
        replays: How what is journaled is replayed, and how it is named.

    Attributes:
        wake: Called when a monitor should look after it, soon.
        vitals: How the shards are, for a monitor and for people.
        recoveries: What failovers did.
        in_trouble: A shard did not answer when it was last asked.
        is_recovering: A primary was replaced, and not all is replayed yet.
        is_blind: Primaries can't be told apart, so nobody knows what is durable.
    """

    def __init__(
        self,
        prefix: str,
        rule: Rule,
        *,
        bytes_max: int = limits.JOURNAL_BYTES_MAX,
        grace_s: float = limits.REPLAY_GRACE_S,
        raises_forks: bool = False,
        hooks: Hooks | None = None,
        spool: Spool | None = None,
        replays: type[Replay] = ThreadReplay,
    ) -> None:
        self.rule = rule
        self.replays = replays
        self.spool = spool
        self._hooks = hooks or Hooks()
        self.wake: Callable[[], None] = lambda: None
        self._prefix = prefix
        self._grace_s = grace_s
        self._raises_forks = raises_forks
        self._journal = Journal(bytes_max, spool, replays.bare)
        self.bytes_max = bytes_max
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._shards = Shards()
        self.recoveries = Recoveries(self._hooks, raises_forks=self._raises_forks)
        self._pulse = Pulse()
        self._heirs: dict[bytes, set[bytes]] = {}
        self._is_full, self._told_uncovered = False, 0
        self.vitals = Vitals(
            self._lock, self.rule, self._pulse, self._journal, self._shards, self.recoveries
        )
        self.in_trouble = self.is_blind = self.is_recovering = False
        self.is_watched = False
        self.adopted_s = NOTHING_YET

    def after_fork(self) -> None:
        """Begin anew: what the parent wrote is the parent's to keep."""
        self._begin()
        self._journal.clear()

    # --- around each call --------------------------------------------------------

    def primary_of(self, keys: ThreadKeys) -> bytes:
        """Which primary a call on these keys is meant for."""
        return self._shards.primary_of(keys.slot)

    def is_stranger(self, identity: bytes) -> bool:
        """Whether it may have replaced a primary that is known, which was not asked since."""
        return bool(identity) and self._shards.is_stranger(identity)

    def acquainted(self, identity: bytes) -> None:
        """The others were asked: it replaced none of them, or that is known now."""
        with self._lock:
            self._shards.acquainted(identity)

    def heard(self, keys: ThreadKeys, identity: bytes, now_s: float) -> Heard:
        """Take note of which primary answered."""
        if not identity or self._shards.primary_of(keys.slot) == identity:
            return Heard.CURRENT
        with self._lock:
            before = self.primary_of(keys)
            heard = self._shards.heard(keys, identity, now_s)
            if heard is Heard.CHANGED and self.rule.journals:
                self.is_recovering = True
                self.rule.replaced(before)
                self._pulse.replaced(before)
                if identity not in self._heirs.setdefault(before, set()):
                    # A slot that is found out later belongs to the same failover.
                    self._heirs[before].add(identity)
                    self.recoveries.begin(identity, now_s)
        if heard is Heard.CHANGED:
            self.wake()
        return heard

    def sending(
        self, number: bytes, kind: bytes, thread: str, keys: ThreadKeys,
        args: list[bytes], size: int, standing: Standing,
    ) -> Entry | None:  # fmt: skip
        """Write ahead: a write is about to be sent. None if nothing is journaled."""
        if not self.rule.journals:
            return None
        entry = Entry(number, kind, thread, keys.slot, args, size, standing)
        with self._lock:
            entry = self._journal.sent(entry)
        self._be_watched()
        return entry

    def _be_watched(self) -> None:
        if not self.is_watched:
            self.is_watched = True
            self.wake()

    def taken(
        self, entry: Entry | None, answer: Answer, sent_s: float, now_s: float,
        *, deadline_ms: int = 0, head: tuple[bytes, bytes] | None = None,
    ) -> None:  # fmt: skip
        """The write was acknowledged.

        Args:
            entry: As `sending` gave it.
            answer: The acknowledgement.
            sent_s: When it was sent first.
            now_s: When the acknowledgement came.
            deadline_ms: When the thread now expires, on the server's clock; 0 for never.
            head: A namespace, as it is stored, and what was its head before.
        """
        if entry is None:
            return
        identity = answer.identity or ANYONE
        self.is_blind = identity == ANYONE
        with self._lock:
            if not self.is_blind and self._pulse.is_news(identity, now_s):
                self.rule.accepted(identity, sent_s, now_s)
                self._pulse.accepted(identity, now_s)
            if deadline_ms:
                entry.deadline_ms = deadline_ms
            journal = self._journal
            standing = answer.standing
            if entry.kind == DELETE:
                dead = int(standing.stamp) - 1  # The answer is what comes after it.
                journal.forget_thread(entry.thread, dead)
                standing = standing._replace(stamp=b"%016d" % dead)
            journal.acked(entry, identity, standing, now_s)
            if head is not None and head[1] and entry.thread in journal.threads:
                journal.threads[entry.thread].saw(*head)
            full = journal.is_full
        if full:
            self._make_room()

    def refused(self, entry: Entry | None) -> None:
        """The write was not applied, and will not be."""
        if entry is not None and entry.acked_s is None:
            with self._lock:
                self._journal.drop(entry)

    def unknown(self, entry: Entry | None, primary: bytes, now_s: float) -> None:
        """The write was given up; the primary that it was meant for may have applied it."""
        if entry is not None and entry.acked_s is None:
            with self._lock:
                if primary == ANYONE:  # None was ever heard of, so nothing builds upon it.
                    self._journal.doubt(entry)
                    self._journal.drop(entry)
                else:
                    self._journal.acked(entry, primary, entry.standing, now_s, sure=False)

    @property
    def doubtful(self) -> Container[bytes]:
        """Numbers of own writes whose outcome is not known."""
        return self._journal.doubtful

    def read(self, entries: Sequence[Entry], identity: bytes, now_s: float) -> None:
        """What other writers stored was read, as the writes that would store it."""
        with self._lock:
            for entry in entries:
                self._journal.read(entry, identity or ANYONE, now_s)
            full = self._journal.is_full
        if full:
            self._make_room()

    def saw_head(self, thread: str, namespace: bytes, checkpoint_id: bytes) -> None:
        """A head was read, so a replay may move on from it."""
        held = self._journal.threads.get(thread)
        if held is not None:
            with self._lock:
                held.saw(namespace, checkpoint_id)

    def failed(self, slot: int, error: Exception, now_s: float) -> None:
        """A try failed: a hint to look at the shard, and no more."""
        if isinstance(error, WriteRejected):
            with self._lock:
                self._pulse.rejected(self._shards.primary_of(slot), now_s)
        if not self.in_trouble:
            self.in_trouble = True
            self.wake()

    def _make_room(self) -> None:
        with self._lock:
            self._journal.make_room()
            uncovered, was_full = self._journal.uncovered, self._is_full
            self._is_full = uncovered > self._told_uncovered
        if self._is_full and not was_full:
            _log.warning(
                "the journal is full (%d bytes): what does not fit can't be replayed after a "
                "failover. Raise journal_bytes_max, or set spool_dir.", self.bytes_max
            )  # fmt: skip
            self.recoveries.tell_uncovered(uncovered)

    def trim(self, now_s: float) -> None:
        """Drop what is durable by now."""
        primary_of, durable_s = self._shards.primary_of, self.rule.durable_s

        def durable(entry: Entry) -> float:
            # After a slot has moved, what its former owner kept says nothing of it.
            if primary_of(entry.slot) != entry.identity:
                return NOTHING_YET
            return durable_s(entry.identity, now_s)

        with self._lock:
            self._journal.trim(durable)
            if not self.is_recovering:
                self._shards.absolve(now_s)
            if self._is_full and not self._journal.is_full:
                self._is_full, self._told_uncovered = False, self._journal.uncovered

    def purge(self) -> None:
        """Wipe deleted threads from the spool; it may take a second."""
        with self._lock:
            to_purge, self._journal.to_purge = self._journal.to_purge, []
        for thread, up_to_serial in to_purge:
            if self.spool is not None:
                self.spool.forget(thread, up_to_serial)

    # --- what a replay needs -------------------------------------------------------

    def readable_s(self, thread: str, identity: bytes) -> float:
        """From when on what is read of a thread holds all that was replayed.

        That is since this process has replayed it; and if others write it, too, from
        when they had time to.
        """
        held = self._journal.threads.get(thread)
        own_s = held.replayed_s if held is not None else NOTHING_YET
        taken_over_s = self._shards.taken_over_s(identity)
        if taken_over_s == NOTHING_YET or not self.rule.journals:
            return own_s
        if held is not None and held.is_own and not self.replays.is_shared:
            return own_s
        return max(own_s, taken_over_s + self._grace_s)

    def others_done_s(self, keys: ThreadKeys) -> float:
        """When other processes have had time to replay what they have in this slot."""
        return self._shards.taken_over_s(self.primary_of(keys)) + self._grace_s

    def replay_of(self, thread: str, *, force: bool = False) -> Replay | None:
        """The replay of a thread, if there is anything to be replayed.

        Args:
            thread: The thread's name.
            force: Also what the present primary itself has acknowledged.
        """
        keys = thread_keys(self._prefix, thread)
        with self._lock:
            primary = self._shards.primary_of(keys.slot)
            entries = self._journal.of_thread(thread, but=None if force else primary)
            if not entries:
                return None
            held = self._journal.threads[thread]
            carried = self._journal.carried(list(held.entries.values()))
            return self.replays(thread, keys, held, entries, carried, primary)

    def behind(self, *, everything: bool = False) -> list[str]:
        """Threads with entries that their present primary has not confirmed; newest first.

        Args:
            everything: Each thread of which something is journaled instead.
        """
        with self._lock:
            return list(self._journal.threads) if everything else self._behind()

    def _behind(self) -> list[str]:
        return self._journal.behind(self._shards.primary_of, self._shards.never_replaced())

    def confirmed(self, done: Replay, identity: bytes, now_s: float) -> None:
        """A page of a thread was replayed, to this primary."""
        settled, done.settled = done.settled, []
        with self._lock:
            for entry in done.missing:
                entry.missing_since_s = entry.missing_since_s or now_s
                if now_s - entry.missing_since_s >= limits.MISSING_S:
                    # Nobody brought it: there is nothing more to be done for it.
                    done.outcome.lost += entry.sure
                    done.outcome.uncovered += entry.bare
                    settled.append(entry)
            for entry in settled:
                self._journal.confirmed(entry, identity, done.standing.gen, now_s)

    def set_aside(self, done: Replay, now_s: float) -> None:
        """A thread that can't be replayed, since its keys hold something else."""
        with self._lock:
            primary = self._shards.primary_of(done.keys.slot)
            for entry in self._journal.of_thread(done.thread, but=primary):
                done.outcome.lost += entry.sure
                self._journal.confirmed(entry, primary, entry.standing.gen, now_s)

    def replayed(self, done: Replay, now_s: float) -> None:
        """A thread was replayed as far as it could be."""
        with self._lock:
            identity = self._shards.primary_of(done.keys.slot)
            if self.is_recovering:
                name = self.replays.reported(done.thread)
                self.recoveries.add(identity, name, done.outcome, now_s)
            for entry in done.settled:
                self._journal.confirmed(entry, identity, done.standing.gen, now_s)
            held = self._journal.threads.get(done.thread)
            if held is not None:
                held.replayed_s = now_s
        self.recoveries.tell_forks(done.outcome.forks.values())

    def incomplete(self, thread: str, identity: bytes, now_s: float) -> None:
        """Something of the thread is lost that this process does not have."""
        with self._lock:
            self.recoveries.begin(identity, now_s).give_up(self.replays.reported(thread))

    def recovered(self, now_s: float) -> None:
        """If all that had to be replayed has been, tell what came of it."""
        with self._lock:
            if self._behind():
                return
            self.is_recovering = False
            reports = self.recoveries.end(now_s)
        self.recoveries.tell(reports)

    def is_durable(self, thread: str | None = None) -> bool:
        """Whether nothing is journaled any more, of a thread or of all."""
        held = self._journal.threads
        return thread not in held if thread is not None else not held

    def is_hopeless(self) -> bool:
        """Whether what is journaled will never be durable, by the kind of server."""
        with self._lock:
            there = self._journal.primaries()
            return bool(there) and all(self.rule.is_alone(identity) for identity in there)

    def adopt(self, entry: Entry, now_s: float) -> None:
        """Take over an entry of a process that is gone."""
        with self._lock:
            if self._journal.sent(entry) is entry:
                self.is_recovering = True
                self._journal.acked(entry, ADOPTED, entry.standing, now_s, sure=entry.sure)
