"""Reading items: by their names, or found by others.

What was read is journaled (`reads`), and the end of what expires is put off, before anybody
gets to see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.drafts import Writer
from langgraph_valkey.errors import WriteRejected
from langgraph_valkey.items import calls, names, reads
from langgraph_valkey.items.batch import Get
from langgraph_valkey.items.buckets import Buckets
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import Unreadable, record_of
from langgraph_valkey.keys import to_bytes
from langgraph_valkey.link import Call, Link, Reply
from langgraph_valkey.operations import Answer

Found = dict[int, Record | None]
"""Items by their places in a batch; None where there is none."""


class Reading(NamedTuple):
    """A call that reads items.

    Attributes:
        bucket: Of which bucket.
        gets: Which items.
        call: The call.
        slides: Whether it puts off their ends.
    """

    bucket: str
    gets: Sequence[Get]
    call: Call
    slides: bool


class Reader:
    """Reads items over a link given with each call.

    Args:
        buckets: The store's.
        writer: This process, as its entries name it.
        slides: Whether items are expected to expire, so that a call which reads them puts
            that off at once. Else it takes another one, for those that do.

    Attributes:
        slides: As given.
    """

    def __init__(self, buckets: Buckets, writer: Writer, *, slides: bool) -> None:
        self.slides = slides
        self._buckets = buckets
        self._writer = writer

    async def get(self, link: Link, wanted: Mapping[str, Sequence[Get]]) -> Found:
        """Read items.

        Args:
            link: Over which.
            wanted: Which ones, by bucket.

        Raises:
            CorruptState: One of them can't be read back.
        """
        if not wanted:
            return {}
        try:
            return await self.told(link, self.calls_of(wanted, slides=self.slides))
        except WriteRejected:
            if not self.slides:
                raise
            return await self.told(link, self.calls_of(wanted, slides=False))  # Reads go on.

    def calls_of(self, wanted: Mapping[str, Sequence[Get]], *, slides: bool) -> list[Reading]:
        """The calls that read items.

        Args:
            wanted: The items, by bucket.
            slides: Whether they also put off the ends that are to be put off.
        """
        found = []
        for bucket, gets in wanted.items():
            keys = self._buckets.keys[bucket]
            for does in (False, True):
                some = [get for get in gets if (slides and get.slides) is does]
                for at in range(0, len(some), limits.TURN_ITEMS):
                    page = some[at : at + limits.TURN_ITEMS]
                    asked = [get.name for get in page]
                    call = calls.slide(keys, asked, told=True) if does else calls.read(keys, asked)
                    found.append(Reading(bucket, page, call, does))
        return found

    async def told(
        self,
        link: Link,
        reading: Sequence[Reading],
        replies: Sequence[Reply] | None = None,
        sent_s: float = 0.0,
    ) -> Found:
        """What calls have read, once it may be relied on; see `Buckets.until_good`."""
        asked = [(each.bucket, each.call) for each in reading]
        answers = await self._buckets.until_good(link, asked, replies, sent_s)
        found: Found = {}
        for each, answer in zip(reading, answers, strict=True):
            found.update(await self.take(link, each.bucket, each.gets, answer, slid=each.slides))
        return found

    async def take(
        self, link: Link, bucket: str, gets: Sequence[Get], answer: Answer, *, slid: bool
    ) -> Found:
        """Take the items that a good answer brings.

        Args:
            link: Over which it came.
            bucket: Of which bucket.
            gets: What was asked for.
            answer: The answer.
            slid: Whether the call has put off the ends that are to be put off.

        Raises:
            CorruptState: One of them can't be read back.
        """
        buckets = self._buckets
        found: Found = {}
        try:
            for get, raw in zip(gets, calls.read_items(answer), strict=True):
                name = get.namespace, get.key
                found[get.at] = None if raw is None else record_of(buckets.codec, name, raw)
        except Unreadable as damage:
            raise buckets.corrupt(damage.name, damage) from damage
        there = [(get, record) for get in gets if (record := found[get.at]) is not None]
        told = [(r, r.deadline_ms if slid and get.slides else None) for get, r in there]
        self._note(link, bucket, answer, told)
        await self.put_off(link, (r for get, r in there if get.slides and not slid))
        return found

    async def put_off(self, link: Link, found: Iterable[Record]) -> None:
        """Put off the end of items that were read, where they have one.

        A server that takes no writes now is read from all the same.
        """
        pages = [
            (bucket, some[at : at + limits.TURN_ITEMS])
            for bucket, some in self._by_bucket(r for r in found if r.ttl_ms).items()
            for at in range(0, len(some), limits.TURN_ITEMS)
        ]
        if not pages:
            return
        keys = self._buckets.keys
        asked = [
            (bucket, calls.slide(keys[bucket], list(map(_name_of, some)), told=False))
            for bucket, some in pages
        ]
        with suppress(WriteRejected):
            answers = await self._buckets.read(link, asked)
            for (bucket, some), answer in zip(pages, answers, strict=True):
                told = list(zip(some, calls.read_deadlines(answer), strict=True))
                self._note(link, bucket, answer, told)

    def _note(
        self, link: Link, bucket: str, answer: Answer, told: Sequence[tuple[Record, int | None]]
    ) -> None:
        keys = self._buckets.keys[bucket]
        source = reads.Source(bucket, keys, answer.identity, answer.standing)
        reads.note(self._buckets.window, self._writer.name, source, told, link.now())

    def note(self, link: Link, found: Iterable[Record], heard: Mapping[str, Answer]) -> None:
        """Journal what was found by a search.

        Args:
            link: Over which it was asked.
            found: The items.
            heard: The last answer of each bucket.
        """
        for bucket, some in self._by_bucket(found).items():
            self._note(link, bucket, heard[bucket], [(record, None) for record in some])

    def _by_bucket(self, found: Iterable[Record]) -> dict[str, list[Record]]:
        sorted_out: dict[str, list[Record]] = {}
        for record in found:
            bucket = self._buckets.of(names.pack_namespace(record.namespace))
            sorted_out.setdefault(bucket, []).append(record)
        return sorted_out


def _name_of(record: Record) -> bytes:
    return names.item_name(names.pack_namespace(record.namespace), to_bytes(record.key))


class Gets:
    """Items that are read along with what others ask; as of `asking.Asking`.

    Args:
        reader: Reads them.
        wanted: Which ones, by bucket.
    """

    def __init__(self, reader: Reader, wanted: Mapping[str, Sequence[Get]]) -> None:
        self._reader = reader
        self._left = reader.calls_of(wanted, slides=False)
        self._answers: list[tuple[Reading, Answer]] = []

    def next(self) -> list[tuple[str, Call]]:
        """What to ask next, of which buckets; nothing at the end."""
        return [(reading.bucket, reading.call) for reading in self._left]

    def take(self, bucket: str, answer: Answer) -> None:
        """Take what a bucket answered."""
        reading = next(each for each in self._left if each.bucket == bucket)
        self._left.remove(reading)
        self._answers.append((reading, answer))

    async def found(self, link: Link) -> Found:
        """The items.

        Raises:
            CorruptState: One of them can't be read back.
        """
        found: Found = {}
        for reading, answer in self._answers:
            its = await self._reader.take(link, reading.bucket, reading.gets, answer, slid=False)
            found.update(its)
        return found
