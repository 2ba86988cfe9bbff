"""What sees to it that the buckets have what the primary store has, before they are believed.

A primary of Valkey that is new to this process may have lost changes, or never have got them.
So at the first answer of each, it is entered in the primary store as the one that counts
(`primary.versions` says why), the number of the last change is asked for, and what is missing
is brought. From then on its answers tell by themselves whether it still has that
(`items.memories`): nothing else is asked.

One change may still be missing then: one whose process died before it got to Valkey. Nobody
was told that it was made; a round of `tending`, in any process, brings it.

While the primary store is away, reads go on with what Valkey has.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from langgraph_valkey import limits, operations
from langgraph_valkey.errors import LanggraphValkeyError, Unreachable, WriteRejected
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.items.memories import Step, apply, operation, reach
from langgraph_valkey.items.names import told
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.known import Known
from langgraph_valkey.link import Call, Link
from langgraph_valkey.loss_window.recovering import replay_thread
from langgraph_valkey.loss_window.shards import Heard
from langgraph_valkey.loss_window.watermark import NOTHING_YET
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Answer, Status
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.memories import BucketStanding, Memory, bucket_key

_log = logging.getLogger("langgraph_valkey")

PrimaryOf = Callable[[Link], Primary]
"""Gives the face of the primary store that goes with a link."""

PAGE = 200
"""Changes that are read at once; `primary.memories` bounds their bytes."""

COMPLETE_S = 10.0
"""For how long a read waits while what is missing is brought: 10,000 changes, or more."""

AWAY_S = 5.0
"""For how long no read asks a primary store that was away: it would wait in vain."""

MOVED_BACK_S = 60.0
"""For how long a put is not acknowledged by a primary that others have seen replaced, and that
still answers. One that was cut off refuses writes long before that; so the slot was moved back
to it. Reads go by `limits.FORMER_S`, as all others."""

BUSY_S = 0.02
"""How often a read looks whether another call of its process has brought what is missing."""

T = TypeVar("T")


class PrimaryAway(Exception):
    """The primary store could not be asked.

    Attributes:
        failure: Why.
    """

    def __init__(self, failure: LanggraphValkeyError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Durables:
    """What this process knows of the buckets' copies; safe to use from many threads.

    Args:
        window: The loss window.
        known: What is known of the buckets.
        keys: The keys of each bucket.
        space: What the primary store calls the store.
        primary_of: The primary store, by link.

    Attributes:
        space: As given.
    """

    def __init__(
        self,
        window: LossWindow,
        known: Known,
        keys: Mapping[str, ThreadKeys],
        space: str,
        primary_of: PrimaryOf,
    ) -> None:
        self.space = space
        self._window = window
        self._known = known
        self._keys = keys
        self._primary_of = primary_of
        self._needed: dict[str, int] = {}
        self._verified: dict[str, bytes] = {}
        self._standings: dict[str, BucketStanding] = {}
        self._is_prepared = False
        self._is_closing = False
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: nobody of the parent's brings anything here."""
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._refused_s: dict[tuple[str, bytes], float] = {}
        self._asked_s = self._away_until_s = NOTHING_YET
        self._is_away = False

    def close(self) -> None:
        """Bring nothing more."""
        self._is_closing = True

    # --- whether an answer holds ------------------------------------------------------

    def is_whole(self, bucket: str, answer: Answer) -> bool:
        """Whether an answer is known to come from a copy that lacks nothing."""
        number = reach(answer).number
        needed = self._needed.get(bucket, 0)
        if number > needed:
            self._need(bucket, number)
        return number >= needed and self._verified.get(bucket) == answer.identity

    def _need(self, bucket: str, number: int) -> None:
        with self._lock:
            self._needed[bucket] = max(number, self._needed.get(bucket, 0))

    async def lacks(
        self, link: Link, bucket: str, answer: Answer, sent_s: float, began_s: float
    ) -> bool:
        """Whether a bucket has to be asked again, since it lacked something, or may have.

        Args:
            link: Over which it was asked.
            bucket: Which one.
            answer: What it answered.
            sent_s: When it was asked.
            began_s: When it was asked first.

        Raises:
            Unreachable: It takes too long to bring what is missing.
        """
        if self.is_whole(bucket, answer) or link.now() < self._away_until_s:
            return False
        until_s = began_s + COMPLETE_S
        if link.now() >= until_s:
            raise self._too_long(bucket)
        try:
            return await self._complete(link, bucket, answer, sent_s, until_s)
        except PrimaryAway as away:
            self._away_until_s = link.now() + AWAY_S
            if not self._is_away:
                self._is_away = True
                _log.warning(
                    "the store's primary store can't be asked now, so reads go on with what "
                    "Valkey has of its durable items: some may be missing, or deleted ones be "
                    "there, if it has lost anything. It is asked again: %s",
                    away.failure,
                )
            return False

    def _too_long(
        self, bucket: str, why: str = "that takes longer than a read waits"
    ) -> Unreachable:
        return Unreachable(
            f"Valkey lacks durable items of {told(bucket)}, and they are not yet brought from "
            f"the primary store: {why}. Call again"
        )

    async def _complete(
        self, link: Link, bucket: str, answer: Answer, sent_s: float, until_s: float
    ) -> bool:
        """Bring a bucket what it lacks; whether it has to be asked again."""
        number = await self._number(link, bucket, answer, sent_s)
        if number is None:
            await link.sleep(limits.FORMER_PAUSE_S)
            return True
        self._need(bucket, number)
        if reach(answer).number < self._needed[bucket]:
            await self.bring(link, bucket, self._needed[bucket], until_s)
            return True
        self._verified[bucket] = answer.identity
        return False

    async def _number(self, link: Link, bucket: str, answer: Answer, sent_s: float) -> int | None:
        """The number of the last change that an answer must hold.

        None if it comes from a primary that was replaced. Such a one is not asked for long:
        it may also be that the slot was moved back to it.
        """
        if self._asked_s < sent_s:
            await self.ask_standings(link)
        standing = self._standings[bucket]
        identity = answer.identity
        if not identity or answer.may_hide_loss or standing.identity == identity.decode():
            return standing.change
        refused_s = self._refused_s.get((bucket, identity))
        if refused_s is not None and link.now() > refused_s + limits.FORMER_S:
            return standing.change
        primary = await self.primary(link)
        key = bucket_key(self.space, bucket)
        entered = await self._told(primary.enter(key, identity.decode()))
        if not entered.accepted:
            self._refused_s.setdefault((bucket, identity), link.now())
            return None
        # Only now: whoever puts something from here on finds this primary entered.
        [standing] = await self._told(primary.memory_standing(self.space, [bucket]))
        self._standings[bucket] = standing
        return standing.change

    def doubt(self, bucket: str) -> None:
        """Find out anew which primary counts: another one has acknowledged something."""
        self._verified.pop(bucket, None)
        self._asked_s = NOTHING_YET

    def counts(self, link: Link, bucket: str, identity: bytes) -> bool:
        """Whether what a primary has is what counts, as the primary store was asked last."""
        standing = self._standings.get(bucket)
        if standing is not None and standing.identity == identity.decode():
            return True
        refused_s = self._refused_s.get((bucket, identity))
        return refused_s is not None and link.now() > refused_s + MOVED_BACK_S

    # --- asking the primary store -------------------------------------------------------

    async def ready(self, link: Link) -> Primary:
        """The same, for who can't go on without it.

        Raises:
            LanggraphValkeyError: It can't be asked, or refuses.
        """
        try:
            return await self.primary(link)
        except PrimaryAway as away:
            raise away.failure from None

    async def primary(self, link: Link) -> Primary:
        """The primary store's face that goes with a link, set up.

        Raises:
            PrimaryAway: It can't be asked.
        """
        primary = self._primary_of(link)
        if not self._is_prepared:
            await self._told(primary.setup())
            self._is_prepared = True
        return primary

    async def ask_standings(self, link: Link) -> Mapping[str, BucketStanding]:
        """How it stands with all buckets.

        Raises:
            PrimaryAway: The primary store can't be asked.
        """
        asked_s = link.now()
        buckets = list(self._keys)
        primary = await self.primary(link)
        told = await self._told(primary.memory_standing(self.space, buckets))
        found = dict(zip(buckets, told, strict=True))
        self._standings, self._asked_s = found, asked_s
        return found

    async def _told(self, asking: Awaitable[T]) -> T:
        try:
            found = await asking
        except LanggraphValkeyError as failure:
            raise PrimaryAway(failure) from failure
        self._is_away, self._away_until_s = False, NOTHING_YET
        return found

    # --- bringing changes ---------------------------------------------------------------

    async def bring(self, link: Link, bucket: str, number: int, until_s: float) -> None:
        """Bring a bucket what it lacks, unless another call does that.

        Args:
            link: Over which.
            bucket: Which one.
            number: Up to which change.
            until_s: When to give up.

        Raises:
            PrimaryAway: The primary store can't be asked.
            Unreachable: The bucket does not take it now, or it takes too long.
        """
        with self._lock:
            is_first = bucket not in self._busy
            self._busy.add(bucket)
        if not is_first:
            await link.sleep(BUSY_S)
            return
        try:
            while not await self._bring(link, bucket, number, until_s):
                self._look_at_the_clock(link, bucket, until_s)
        finally:
            with self._lock:
                self._busy.discard(bucket)

    def _look_at_the_clock(self, link: Link, bucket: str, until_s: float) -> None:
        if self._is_closing or link.now() >= until_s:
            raise self._too_long(bucket)

    async def _bring(self, link: Link, bucket: str, number: int, until_s: float) -> bool:
        """One try; whether nothing that was brought was lost meanwhile."""
        primary = await self.primary(link)
        answer = await self._send(link, bucket, (), Step(), until_s)
        here, identity = reach(answer), answer.identity
        last: Memory | None = None
        while here.number < number:
            page = await self._told(
                primary.memories(self.space, bucket, since=here.number, after=last, limit=PAGE)
            )
            step = Step(here.epoch, answer.standing.stamp, 0 if page else number)
            for some in _portions([operation(memory) for memory in page]) if page else [[]]:
                self._look_at_the_clock(link, bucket, until_s)
                answer = await self._send(link, bucket, some, step, until_s)
                if answer.status is not Status.OK or answer.identity != identity:
                    return False
                step = step._replace(stamp=answer.standing.stamp)
            if not page or reach(answer).number >= number:
                break  # Done, or another process was faster.
            last = page[-1]
        return True

    async def _send(
        self, link: Link, bucket: str, changes: Sequence[bytes], step: Step, until_s: float
    ) -> Answer:
        began_s = link.now()
        while True:
            try:
                call = self.build(bucket, changes, step)
                call.patient = False
                [reply] = await link.send([call])
                answer = operations.read(reply)
                if await self.is_taken(link, bucket, answer, patient=False):
                    return answer
            except WriteRejected as refusal:
                if link.now() >= min(until_s, began_s + limits.READ_DEADLINE_S):
                    raise self._too_long(bucket, "its shard refuses writes") from refusal
                await link.sleep(limits.REFUSED_PAUSE_S)
            self._look_at_the_clock(link, bucket, until_s)

    def build(
        self, bucket: str, changes: Sequence[bytes], step: Step, *, anyway: bool = True
    ) -> Call:
        """The call that brings a bucket some changes, to the primary that is known."""
        keys = self._keys[bucket]
        about = self._window.primary_of(keys), self._known.standing(bucket)
        return apply(keys, *about, changes, step, anyway=anyway)

    async def is_taken(
        self, link: Link, bucket: str, answer: Answer, *, patient: bool = True
    ) -> bool:
        """Whether the primary that is known took what was brought; else it is to be sent again.

        What the change of a primary may have cost is then replayed; a refusal of that is
        waited out if it is `patient`, as a write is.
        """
        window = self._window
        if window.heard(self._keys[bucket], answer.identity, link.now()) is Heard.FORMER:
            await link.sleep(limits.FORMER_PAUSE_S)
            return False
        if answer.status is Status.MOVED:
            await replay_thread(window, link, bucket, patient=patient)
            return False
        if answer.status is Status.OK:
            self._known.learn(bucket, answer.standing)
        return True


def _portions(changes: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Changes, as many as a call may bring."""
    some: list[bytes] = []
    size = 0
    for change in changes:
        if some and (len(some) >= limits.TURN_ITEMS or size + len(change) > limits.TURN_BYTES):
            yield some
            some, size = [], 0
        some.append(change)
        size += len(change)
    if some:
        yield some
