"""Keeping items: what a batch changes, and how its reads go along.

In the steady state a batch is one round trip. Each bucket that it changes gets one call, which
first reads what the batch wants of it; each that it only reads, one too; all side by side. It
takes another one where that would not show what was there before the batch, or while it is
not known yet what a failover has cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from langgraph_valkey import limits, storing
from langgraph_valkey.drafts import Writer
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.items import calls
from langgraph_valkey.items.batch import Batch, Get, Put
from langgraph_valkey.items.buckets import Bucket, Buckets
from langgraph_valkey.items.committing import Committer
from langgraph_valkey.items.reading import Found, Reader
from langgraph_valkey.items.telling import Name
from langgraph_valkey.link import Call, Link, Reply
from langgraph_valkey.loss_window.entries import ITEMS
from langgraph_valkey.operations import ANYONE, Answer, Standing, Status
from langgraph_valkey.storing import Sent, Write


class _Turn(NamedTuple):
    """A call that changes a bucket, what it reads before, and from whom."""

    bucket: str
    gets: Sequence[Get]
    sent: Sent[Bucket]
    primary: bytes


class Keeper:
    """Changes items over a link given with each call.

    Args:
        buckets: The store's.
        reader: Reads items.
        writer: Numbers the writes.
    """

    def __init__(self, buckets: Buckets, reader: Reader, writer: Writer) -> None:
        self._buckets = buckets
        self._reader = reader
        self._writer = writer
        self._last_born = 0
        self._committer: Committer | None = None
        if buckets.durables is not None:
            self._committer = Committer(buckets.window, buckets.keys, buckets.durables)

    async def run(self, link: Link, batch: Batch, bodies: Mapping[Name, bytes]) -> Found:
        """Read what a batch reads, and then change what it changes.

        Args:
            link: Over which.
            batch: The batch; its searches and listings are others' business.
            bodies: What is stored, by the items' names; none of those that are deleted.

        Returns:
            The items read.

        Raises:
            CorruptState: An item can't be read back.
        """
        reader = self._reader
        if batch.lasting:
            return await self._run_lasting(link, batch, bodies)
        if not batch.puts:
            return await reader.get(link, batch.gets)
        rides = self._may_ride(link, batch)
        found = {} if rides else await reader.get(link, batch.gets)
        first_born = self._next_born(len(batch.changes))
        turns = self._turns(batch, bodies, first_born, rides=rides)
        wanted = {b: gets for b, gets in batch.gets.items() if rides and b not in batch.puts}
        reading = reader.calls_of(wanted, slides=reader.slides)
        for each in reading:
            each.call.rides = True
            each.call.patient = True  # The batch's writes would wait, too.
        sent_s = link.now()
        answers, replies = await self._store(link, turns, [each.call for each in reading])
        found.update(await self._gone_along(link, turns, answers))
        found.update(await reader.told(link, reading, replies, sent_s))
        return found

    async def _run_lasting(self, link: Link, batch: Batch, bodies: Mapping[Name, bytes]) -> Found:
        """The same, where some of it goes through the primary store: there at first."""
        assert self._committer is not None
        found = await self._reader.get(link, batch.gets)
        first_born = self._next_born(len(batch.changes))
        await self._committer.commit(link, batch.lasting, bodies, first_born)
        await self._store(link, self._turns(batch, bodies, first_born, rides=False), ())
        return found

    def _may_ride(self, link: Link, batch: Batch) -> bool:
        """Whether what is read may be read by the calls that change things.

        Not where that would show the changes, when a call is sent again; nor where a read
        would have to wait after a failover, which a change does not.
        """
        window = self._buckets.window
        if batch.reads_what_it_changes or window.is_recovering:
            return False
        for bucket, gets in batch.gets.items():
            if bucket not in batch.puts:
                continue
            primary = window.primary_of(self._buckets.keys[bucket])
            if primary == ANYONE or len(gets) > limits.TURN_ITEMS:
                return False
            if link.now() <= window.readable_s(bucket, primary):
                return False
        return True

    def _turns(
        self, batch: Batch, bodies: Mapping[Name, bytes], first_born: int, *, rides: bool
    ) -> list[_Turn]:
        """The calls that change what a batch changes; where it `rides`, they read, too."""
        turns = []
        for bucket, puts in batch.puts.items():
            gets: Sequence[Get] = batch.gets.get(bucket, ()) if rides else ()
            for some in _pages(puts, bodies):
                turns.append(self._turn(bucket, gets, some, bodies, first_born))
                gets = ()
        return turns

    def _turn(
        self,
        bucket: str,
        gets: Sequence[Get],
        puts: Sequence[Put],
        bodies: Mapping[Name, bytes],
        first_born: int,
    ) -> _Turn:
        number = self._writer.entry()
        changes = []
        for put in puts:
            body = bodies.get((put.namespace, put.key))
            about = number, put.namespace, put.key
            if body is None:
                changes.append(calls.deletion(*about))
            else:
                born = first_born + put.rank
                changes.append(calls.put(*about, body, born=born, ttl_ms=put.ttl_ms))
        asked = [(get.name, self._reader.slides and get.slides) for get in gets]
        keys = self._buckets.keys[bucket]
        build = partial(calls.turn, keys, number, asked, changes)
        write = Write(number, ITEMS, build, _readmit, settled=calls.settled)
        sent = Sent(Bucket(bucket, keys), write, self._buckets.known.standing(bucket))
        return _Turn(bucket, gets, sent, self._buckets.window.primary_of(keys))

    async def _store(
        self, link: Link, turns: Sequence[_Turn], beside: Sequence[Call]
    ) -> tuple[list[Answer], list[Reply]]:
        try:
            answers, replies = await storing.store_together(
                self._buckets, link, [turn.sent for turn in turns], beside
            )
        except LanggraphValkeyError as error:
            self._buckets.raise_foreign(error)
            raise
        for turn, answer in zip(turns, answers, strict=True):
            self._buckets.known.learn(turn.bucket, answer.standing)
        return answers, replies

    async def _gone_along(
        self, link: Link, turns: Sequence[_Turn], answers: Sequence[Answer]
    ) -> Found:
        """What turns have read; anew where another primary answered than was expected."""
        found: Found = {}
        again: dict[str, Sequence[Get]] = {}
        for turn, answer in zip(turns, answers, strict=True):
            if not turn.gets:
                continue
            durables = self._buckets.durables
            lacks = durables is not None and not durables.is_whole(turn.bucket, answer)
            if lacks or answer.identity != turn.primary:
                again[turn.bucket] = turn.gets
            else:
                about = turn.bucket, turn.gets, answer
                found.update(await self._reader.take(link, *about, slid=self._reader.slides))
        found.update(await self._reader.get(link, again))
        return found

    def _next_born(self, count: int) -> int:
        """The first of so many places in results, above all that this process has given."""
        now_us = time.time_ns() // 1000
        last = self._last_born
        first = now_us if now_us > last else last + 1
        self._last_born = first + count - 1
        return first


async def _readmit(answer: Answer, standing: Standing) -> Standing:
    """With what standing to ask again after a refusal."""
    if answer.status is not Status.RESEND:
        raise LanggraphValkeyError(f"unexpected answer {answer.status.name} of the store")
    # The bucket was emptied, or made anew by another process.
    return answer.standing if answer.standing.exists else Standing(stamp=standing.stamp)


def _pages(puts: Sequence[Put], bodies: Mapping[Name, bytes]) -> Iterator[list[Put]]:
    """Puts in pages, each for one call."""
    page: list[Put] = []
    size = 0
    for put in puts:
        body = len(bodies.get((put.namespace, put.key), b""))
        if page and (len(page) >= limits.TURN_ITEMS or size + body > limits.TURN_BYTES):
            yield page
            page, size = [], 0
        page.append(put)
        size += body
    if page:
        yield page
