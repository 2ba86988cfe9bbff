"""Putting items through the primary store: there at first, and to Valkey then.

What is recorded is there to stay, whatever becomes of the call then: if Valkey does not take
it now, it is brought later (`items.durable`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from langgraph_valkey import limits, operations
from langgraph_valkey.errors import LanggraphValkeyError, Unreachable
from langgraph_valkey.items import calls
from langgraph_valkey.items.batch import Put
from langgraph_valkey.items.durable import COMPLETE_S, Durables
from langgraph_valkey.items.memories import Step, kept, operation
from langgraph_valkey.items.names import told
from langgraph_valkey.items.telling import Name
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Link
from langgraph_valkey.loss_window.entries import ITEMS, Entry
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Answer
from langgraph_valkey.primary.memories import MEMORIES_MOST, Memory, NewMemory, Recorded

_RECORDED = (
    " The durable items of this call are recorded in the primary store, so they will be there "
    "without another call, once Valkey takes them."
)


class _Change(NamedTuple):
    """A change of a bucket that is recorded, and has to get there.

    Attributes:
        bucket: Which one.
        number: Its number.
        changes: Its operations.
        identity: The primary of Valkey that counted when it was recorded; "" if none did.
    """

    bucket: str
    number: int
    changes: list[bytes]
    identity: str


class Committer:
    """Puts items through the primary store, over a link given with each call.

    Args:
        window: The loss window.
        keys: The keys of each bucket.
        durables: What has the primary store.
    """

    def __init__(
        self, window: LossWindow, keys: Mapping[str, ThreadKeys], durables: Durables
    ) -> None:
        self._window = window
        self._keys = keys
        self._durables = durables

    async def commit(
        self,
        link: Link,
        puts: Mapping[str, Sequence[Put]],
        bodies: Mapping[Name, bytes],
        first_born: int,
    ) -> None:
        """Record what is put or deleted, and bring it to Valkey.

        Args:
            link: Over which.
            puts: What is put or deleted, by bucket.
            bodies: What is stored, by the items' names; none of those that are deleted.
            first_born: The place in results of the first put of the batch.

        Raises:
            ValueError: An item is larger than the primary store takes.
            LanggraphValkeyError: One of the two servers does not take it now.
        """
        items = [
            kept(
                *(bucket, put.namespace, put.key, bodies.get((put.namespace, put.key))),
                born=first_born + put.rank,
                ttl_ms=put.ttl_ms,
            )
            for bucket, some in puts.items()
            for put in some
        ]
        recorded = await self._record(link, items)
        try:
            await self._bring(link, recorded)
        except LanggraphValkeyError as error:
            error.args = (f"{error}.{_RECORDED}", *error.args[1:])
            raise

    async def _record(self, link: Link, items: Sequence[NewMemory]) -> list[_Change]:
        primary = await self._durables.ready(link)
        room = primary.room
        most = min(room.memories_bytes_max, limits.TURN_BYTES)
        found: list[_Change] = []
        for some in _portions(items, most):
            found += _changes(some, await primary.put_memories(self._durables.space, some))
        return found

    async def _bring(self, link: Link, recorded: Sequence[_Change]) -> None:
        """Bring all of it to Valkey, side by side; what is not taken at once, by itself."""
        durables = self._durables
        asked = [
            durables.build(each.bucket, each.changes, Step(number=each.number), anyway=False)
            for each in recorded
        ]
        replies = await link.send(asked) if asked else []
        for each, reply in zip(recorded, replies, strict=True):
            answer = operations.read(reply)
            until_s = link.now() + COMPLETE_S
            while not await durables.is_taken(link, each.bucket, answer):
                answer = await self._again(link, each, until_s)
            await self._settle(link, each, answer, until_s)

    async def _again(self, link: Link, change: _Change, until_s: float) -> Answer:
        if link.now() >= until_s:
            raise Unreachable(f"{told(change.bucket)} kept changing under this write: call again")
        step = Step(number=change.number)
        [reply] = await link.send(
            [self._durables.build(change.bucket, change.changes, step, anyway=False)]
        )
        return operations.read(reply)

    async def _settle(self, link: Link, change: _Change, answer: Answer, until_s: float) -> None:
        """See to it that the primary that counts has it, and journal that.

        Another one than took it may have been entered: then it is brought to that, too.
        """
        self._journal(link, change, answer)
        if change.identity in ("", answer.identity.decode()) or answer.may_hide_loss:
            return
        bucket, durables = change.bucket, self._durables
        durables.doubt(bucket)
        while link.now() < until_s:
            sent_s = link.now()
            [reply] = await link.send([calls.read(self._keys[bucket], ())])
            answer = operations.read(reply)
            about = bucket, answer, sent_s, until_s - COMPLETE_S
            if not await durables.is_taken(link, bucket, answer):
                continue
            if await durables.lacks(link, *about):
                continue
            if durables.counts(link, bucket, answer.identity):
                return
            await link.sleep(limits.FORMER_PAUSE_S)
        raise Unreachable(
            f"{told(bucket)} is answered by a primary that others have seen replaced: call again"
        )

    def _journal(self, link: Link, change: _Change, answer: Answer) -> None:
        """Journal what was stored as what was read: its stamp is known, and so its place."""
        if not self._window.rule.journals:
            return
        stored = calls.settled(change.changes, answer)
        if stored:
            size, slot = sum(map(len, stored)), self._keys[change.bucket].slot
            entry = Entry(
                *(os.urandom(16), ITEMS, change.bucket, slot, stored, size, answer.standing)
            )
            self._window.read([entry], answer.identity, link.now())


def _changes(items: Sequence[NewMemory], recorded: Recorded) -> list[_Change]:
    """What was recorded, by bucket; without items that others have put again since."""
    found: dict[str, _Change] = {}
    for item, number in zip(items, recorded.changes, strict=True):
        if number:
            identity = recorded.identities[item.bucket]
            change = found.setdefault(item.bucket, _Change(item.bucket, number, [], identity))
            memory = Memory(item.name, item.record, item.until_ms, number)
            change.changes.append(operation(memory))
    return list(found.values())


def _portions(items: Sequence[NewMemory], bytes_most: int) -> Iterator[list[NewMemory]]:
    """Items, as many as are recorded at once: then a bucket gets each portion in one call."""
    some: list[NewMemory] = []
    size = 0
    for item in items:
        its = len(item.name) + len(item.record or b"")
        if some and (len(some) >= MEMORIES_MOST or size + its > bytes_most):
            yield some
            some, size = [], 0
        some.append(item)
        size += its
    if some:
        yield some
