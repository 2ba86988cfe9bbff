"""Searching beneath a prefix that is too large to be held: by walking over all of it.

Each page is looked at as it comes, and only what may still be among the results is kept. That
takes as long as reading everything does, and next to no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph_valkey.items.filters import Filter
from langgraph_valkey.items.mirror import comparable, order_of
from langgraph_valkey.items.ranking import Hit, Wanted, cosines, paged
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import Name, Unreadable, news_of, read
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call
from langgraph_valkey.operations import Answer
from langgraph_valkey.stored.codec import Codec, Damaged

if TYPE_CHECKING:
    from langgraph_valkey.items.ranking import Vector

SLACK = 256
"""Items kept beyond twice what may be wanted, before all but the best are dropped."""


class Candidate(NamedTuple):
    """An item that may be among the results."""

    order: tuple[int, bytes, int, bytes]
    record: Record
    score: float = 0.0


def matches(wanted: Filter | None, name: Name, record: Record) -> bool:
    """Whether an item matches a filter.

    Raises:
        Unreadable: Its value can't be read.
    """
    if wanted is None:
        return True
    try:
        return wanted.matches(record.read_value())
    except Damaged as damage:
        raise Unreadable(name, damage) from damage


class _Best:
    """The first of some candidates, by what comes first.

    Args:
        count: How many to keep; None for all.
        first: What comes first: the lowest.
    """

    def __init__(self, count: int | None, first: Callable[[Candidate], Any]) -> None:
        self._count = count
        self._first = first
        self.kept: dict[Name, Candidate] = {}

    def put(self, name: Name, candidate: Candidate) -> None:
        self.kept[name] = candidate
        if self._count is not None and len(self.kept) > 2 * self._count + SLACK:
            self.kept = dict(self._sorted()[: self._count])

    def _sorted(self) -> list[tuple[Name, Candidate]]:
        return sorted(self.kept.items(), key=lambda each: self._first(each[1]))


def _by_order(candidate: Candidate) -> Any:
    return candidate.order


def _by_score(candidate: Candidate) -> Any:
    return -candidate.score, candidate.order


class _Found:
    """What a walk over one bucket has found."""

    def __init__(self, wanted: Wanted) -> None:
        limit, offset = wanted.page
        end: int | None = wanted.page.end
        if wanted.query is None:
            end = None if min(limit, offset) < 0 else end
            self.bare = _Best(end, _by_order)
        else:
            self.bare = _Best(max(0, limit), _by_order)
        self.scored = _Best(wanted.page.end, _by_score)


class Walk:
    """A walk over all items beneath a prefix; as an update, it is sent by who has a link.

    Args:
        codec: The store's.
        keys: Of all buckets.
        wanted: The search.
        dimension: Numbers in each vector; None where nothing is embedded.

    Attributes:
        heard: The last answer of each bucket.
    """

    def __init__(
        self,
        codec: Codec,
        keys: Mapping[str, ThreadKeys],
        wanted: Wanted,
        dimension: int | None,
    ) -> None:
        self._codec = codec
        self._wanted = wanted
        self._dimension = dimension
        self._open = {bucket: news_of(each, wanted.prefix) for bucket, each in keys.items()}
        self._found = {bucket: _Found(wanted) for bucket in keys}
        self.heard: dict[str, Answer] = {}

    def next(self) -> list[tuple[str, Call]]:
        """What to ask next, of which buckets; nothing at the end."""
        return [(bucket, telling.call()) for bucket, telling in self._open.items()]

    def take(self, bucket: str, answer: Answer) -> None:
        """Take what a bucket answered.

        Raises:
            Unreadable: An item is not what was stored.
        """
        telling = self._open[bucket]
        news = telling.take(answer)
        if news is None or news.anew:
            self._found[bucket] = _Found(self._wanted)
        if news is not None:
            self._look_at(self._found[bucket], read(self._codec, news))
        if telling.is_done:
            self.heard[bucket] = answer
            del self._open[bucket]

    def _look_at(self, found: _Found, page: Mapping[Name, Record | None]) -> None:
        embedded: dict[Name, Record] = {}
        for name, record in page.items():
            # Told once more, it may have become another one.
            found.bare.kept.pop(name, None)
            found.scored.kept.pop(name, None)
            if record is None or not matches(self._wanted.filter, name, record):
                continue
            if self._wanted.query is not None and comparable(record, self._dimension):
                embedded[name] = record
            else:
                found.bare.put(name, Candidate(order_of(name, record), record))
        for name, score in self._scores(embedded).items():
            record = embedded[name]
            found.scored.put(name, Candidate(order_of(name, record), record, score))

    def _scores(self, embedded: Mapping[Name, Record]) -> dict[Name, float]:
        """The best cosine of each item's vectors."""
        vectors = [
            (name, record.vectors[path])
            for name, record in embedded.items()
            for path in comparable(record, self._dimension)
        ]
        best: dict[Name, float] = {}
        query: Vector | None = self._wanted.query
        if query is not None and vectors:
            found = cosines(query, [raw for _, raw in vectors])
            for (name, _), score in zip(vectors, found, strict=True):
                best[name] = max(score, best.get(name, score))
        return best

    def hits(self) -> list[Hit]:
        """The results, once the walk has ended."""
        every = self._found.values()
        bare = sorted((one for found in every for one in found.bare.kept.values()), key=_by_order)
        if self._wanted.query is None:
            return [Hit(one.record) for one in self._wanted.page.of(bare)]
        scored = [one for found in every for one in found.scored.kept.values()]
        ranked = ((one.score, one) for one in sorted(scored, key=_by_score))
        return paged(ranked, bare, self._wanted.page)
