"""Storing: sending a write until the server has taken it, and keeping it until it is durable.

A write is journaled before it is sent. It names the primary it is meant for, so
another one refuses it; what this process knows of the thread is then replayed
first, and the write sent again under the same number. It counts as acknowledged
only if the primary that took it is still the one that is known: one that was
replaced and does not know it yet acknowledges, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from langgraph_valkey import limits, operations
from langgraph_valkey.errors import (
    ConfigurationError,
    CorruptState,
    StoreFull,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.known import Known
from langgraph_valkey.link import Call, Link, Reply
from langgraph_valkey.loss_window.entries import DELETE, ITEMS, PUT, REMOVE, WRITES, Entry
from langgraph_valkey.loss_window.recovering import replay_thread
from langgraph_valkey.loss_window.shards import Heard
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import ANYONE, Answer, Standing, Status

_ATTEMPTS = 4
"""How often a write is built anew. Each refusal rules itself out for the next try,
so more than this means that others keep deleting the thread."""

_KEPT_FROM = {PUT: 0, WRITES: 0, REMOVE: 2, DELETE: 3, ITEMS: 2}
"""From which argument on a call is journaled."""

_NOT_APPLIED = (ConfigurationError, CorruptState, StoreFull, Unreachable, WriteRejected)
_LOST = (Status.RESEND, Status.ORPHAN)
"""Statuses by which a thread may have lost something."""


class Write(NamedTuple):
    """A write that can be sent again.

    Attributes:
        number: Writer and sequence number.
        kind: Its kind in the journal.
        build: Makes its call, given a standing and the primary it is meant for.
        readmit: Gives the standing with which to ask again after a refusal, or raises.
        namespace: Of a checkpoint: its namespace, as it is stored.
        settled: What is journaled of it once it is acknowledged, if that says more than
            the arguments that were sent; given those, and the acknowledgement.
    """

    number: bytes
    kind: bytes
    build: Callable[[Standing, bytes], Call]
    readmit: Callable[[Answer, Standing], Awaitable[Standing]]
    namespace: bytes = b""
    settled: Callable[[list[bytes], Answer], list[bytes]] | None = None


class Where(Protocol):
    """Where a write goes: a thread's `Place`, or a bucket of the store."""

    @property
    def thread(self) -> str:
        """Its name in the journal."""
        ...

    @property
    def keys(self) -> ThreadKeys:
        """Its keys."""
        ...


P = TypeVar("P", bound=Where)
W = TypeVar("W", bound=Where, contravariant=True)


class Asker(Protocol[W]):
    """What sends calls: `Checkpoints`, or the store's `Items`."""

    known: Known
    window: LossWindow

    async def ask(self, link: Link, place: W, call: Call) -> Answer:
        """Send one call and read its answer."""
        ...


class Sent(NamedTuple, Generic[P]):
    """A write, where it goes, and what is known of that."""

    place: P
    write: Write
    standing: Standing


async def store(core: Asker[P], link: Link, place: P, write: Write, standing: Standing) -> Answer:
    """Send a write until it is taken.

    Args:
        core: The saver's, or the store's.
        link: Over which.
        place: The thread, or the bucket.
        write: The write.
        standing: What is known of that.

    Returns:
        The acknowledgement, or the answer that there is no such thread.
    """
    core.window.recoveries.raise_fork(place.thread)
    sending = _Sending(core, link, place, write)
    try:
        return await sending.until_taken(standing)
    finally:
        sending.leave()


class _Sending(Generic[P]):
    """One write on its way; whatever ends it, its entry does not stay behind."""

    def __init__(self, core: Asker[P], link: Link, place: P, write: Write) -> None:
        self._core = core
        self._window = core.window
        self._link = link
        self._place = place
        self._write = write
        self._entry: Entry | None = None
        self._primary = ANYONE
        self._may_be_applied = False

    def leave(self) -> None:
        """Settle with the journal what was not acknowledged."""
        if self._may_be_applied:
            self._window.unknown(self._entry, self._primary, self._link.now())
        else:
            self._window.refused(self._entry)

    async def until_taken(self, standing: Standing) -> Answer:
        """Send it until it is taken; see `store`."""
        core, window, link, place = self._core, self._window, self._link, self._place
        is_replayed = False
        attempts = 0
        while attempts < _ATTEMPTS:
            if window.is_recovering:
                await replay_thread(window, link, place.thread)
            sent_s = link.now()
            answer = await self._ask(standing)
            now_s = link.now()
            heard = window.heard(place.keys, answer.identity, now_s)
            if heard is Heard.FORMER:
                await link.sleep(limits.FORMER_PAUSE_S)
                continue
            self._may_be_applied = False
            if answer.status is Status.OK:
                _taken(window, self._entry, self._write, answer, sent_s, now_s)
                return answer
            if answer.status is Status.MOVED:
                await replay_thread(window, link, place.thread)
            elif _may_heal(window, place, answer) and not is_replayed:
                is_replayed = True
                await replay_thread(window, link, place.thread, force=True)
            elif answer.status is Status.REWOUND:
                # What was lost is not this process's to restore; a put brings its own state.
                window.incomplete(place.thread, answer.identity, now_s)
                core.known.forget(place.thread)
                standing = answer.standing
            elif answer.status is Status.NONE:
                return answer
            else:
                attempts += 1
                standing = await self._write.readmit(answer, standing)
        raise Unreachable(
            f"{window.replays.told(place.thread)} kept changing under this write, which was not "
            "stored: call again"
        )

    async def _ask(self, standing: Standing) -> Answer:
        self._primary = self._window.primary_of(self._place.keys)
        call = self._write.build(standing, self._primary)
        self._entry = _journaled(self._window, self._place, self._write, call, standing)
        was_doubtful, self._may_be_applied = self._may_be_applied, True
        try:
            return await _ask_patiently(self._core, self._link, self._place, call, standing)
        except _NOT_APPLIED:
            self._may_be_applied = was_doubtful
            raise


def _may_heal(window: LossWindow, place: Where, answer: Answer) -> bool:
    """Whether the thread lost something that may stand in the journal.

    Where each loss shows by another identity, what is gone without one was evicted,
    or removed by someone.
    """
    rewound = answer.status is Status.REWOUND
    lost = rewound or (answer.status in _LOST and answer.may_hide_loss)
    return lost and not window.is_durable(place.thread)


def _journaled(
    window: LossWindow, place: Where, write: Write, call: Call, standing: Standing
) -> Entry | None:
    args = call.args[_KEPT_FROM[write.kind] :]
    where = place.thread, place.keys
    return window.sending(write.number, write.kind, *where, args, call.size, standing)


def _taken(
    window: LossWindow,
    entry: Entry | None,
    write: Write,
    answer: Answer,
    sent_s: float,
    now_s: float,
) -> None:
    if write.settled is not None and entry is not None and entry.args is not None:
        entry.args = write.settled(entry.args, answer)
    if write.kind in (PUT, WRITES):
        head = (write.namespace, answer.rest[1]) if write.kind == PUT else None
        deadline_ms = max(0, int(answer.rest[0]))
        window.taken(entry, answer, sent_s, now_s, deadline_ms=deadline_ms, head=head)
    else:
        window.taken(entry, answer, sent_s, now_s)


async def _ask_patiently(
    core: Asker[P], link: Link, place: P, call: Call, standing: Standing
) -> Answer:
    """Ask for a write that may be ahead of its thread's root.

    LangGraph stores writes, and a subgraph's checkpoints, beside the put of the
    root. Where the thread was deleted before, only the root may begin it anew.
    """
    pause_s = limits.ROOT_PAUSE_FIRST_S
    while True:
        answer = await core.ask(link, place, call)
        if answer.status is not Status.DELETED or standing.gen != Standing().gen:
            return answer
        if pause_s > limits.ROOT_PAUSE_MOST_S:
            return answer
        await link.sleep(pause_s)
        pause_s *= 2


async def store_together(
    core: Asker[P], link: Link, writes: Sequence[Sent[P]], beside: Sequence[Call] = ()
) -> tuple[list[Answer], list[Reply]]:
    """Send writes in one go; what is not taken at once goes by itself.

    Those of one place arrive in their order.

    Args:
        core: The saver's, or the store's.
        link: Over which.
        writes: The writes, of one place or of several.
        beside: What is read in the same go.

    Returns:
        The acknowledgement of each, and the replies to what is read.
    """
    if len(writes) < 2 and not beside:
        return [await store(core, link, *each) for each in writes], []
    window = core.window
    if window.is_recovering:
        for thread in dict.fromkeys(place.thread for place, _, _ in writes):
            await replay_thread(window, link, thread)
    primaries = [window.primary_of(place.keys) for place, _, _ in writes]
    calls = [
        write.build(standing, primary)
        for (_, write, standing), primary in zip(writes, primaries, strict=True)
    ]
    entries = [
        _journaled(window, place, write, call, standing)
        for (place, write, standing), call in zip(writes, calls, strict=True)
    ]
    largest = max(call.size for call in calls)
    for call in calls:
        call.size = largest  # One connection: others would overtake each other.
    sent_s = link.now()
    doubtful = True
    try:
        replies = await link.send([*calls, *beside])
        doubtful = False
        taken: list[Answer | None] = []
        for (place, write, _), entry, reply in zip(writes, entries, replies, strict=False):
            answer, now_s = operations.read(reply), link.now()
            heard = window.heard(place.keys, answer.identity, now_s)
            if answer.status is Status.OK and heard is not Heard.FORMER:
                _taken(window, entry, write, answer, sent_s, now_s)
                taken.append(answer)
            else:
                taken.append(None)
        acknowledged = [
            answer or await store(core, link, *each)
            for answer, each in zip(taken, writes, strict=True)
        ]
        return acknowledged, replies[len(calls) :]
    finally:
        for entry, primary in zip(entries, primaries, strict=True):
            # Those that were taken are not touched by this.
            if doubtful:
                window.unknown(entry, primary, link.now())
            else:
                window.refused(entry)
