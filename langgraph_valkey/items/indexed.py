"""Searching by a query beneath a prefix that is too large to be held: by the server's search.

If the server has a search module, vectors are also put where it sees them (``vectors.lua``),
each with a tag for every prefix of its namespace. It then names the nearest ones beneath a
prefix, of which the items are read and compared anew. More are asked for until there are
enough that match; where that takes too many, or there is anything that the search may not
see, this way leads nowhere, and the caller walks over all (`walking`).

What the search names is of the primaries that answer it, and it names none of them. So all
buckets are asked before and after: only if they have the same primaries, which after a
failover have been given back what was lost, it has seen everything.

What is encrypted is not put where the search sees it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from hashlib import sha1

from langgraph_valkey.errors import LanggraphValkeyError, OutcomeUnknown, Unreachable
from langgraph_valkey.items import calls
from langgraph_valkey.items.asking import Buckets
from langgraph_valkey.items.mirror import comparable, order_of
from langgraph_valkey.items.names import split_item_name
from langgraph_valkey.items.ranking import Hit, Wanted, cosines, paged
from langgraph_valkey.items.telling import Name, record_of
from langgraph_valkey.items.walking import Candidate, matches
from langgraph_valkey.link import Link
from langgraph_valkey.operations import Answer
from langgraph_valkey.vectors.index import Index, IndexingLink, indexing_of
from langgraph_valkey.vectors.server_index import ServerIndexes

_log = logging.getLogger("langgraph_valkey")

SPARE = 16
"""Vectors to ask for beyond the results that are wanted: some items have several."""

NEAREST_MOST = 1_000
"""Vectors to ask for at most: beyond that a filter lets so few pass that a walk is due."""

MARGIN = 1e-4
"""More than a cosine of the server's is ever off by: it computes in float32."""

DIGITS = 16
"""Of a tag: a hash of the prefix's name."""


class Indexes(ServerIndexes):
    """The index of a store's vectors.

    Args:
        prefix: What all keys of the store begin with.
        dimension: Numbers in each vector.
    """

    def __init__(self, prefix: str, dimension: int) -> None:
        super().__init__(_log)
        self.dimension = dimension
        self._prefix = prefix
        self._sees: bool | None = None

    def _shared(self) -> Index:
        return Index(f"{self._prefix}-{self.dimension}", f"{self._prefix}:w:", self.dimension)

    async def sees(self, link: Link) -> bool:
        """Whether vectors are to be put where the search sees them; asked once.

        Args:
            link: Over which something is about to be stored.

        Raises:
            Unreachable, OutcomeUnknown: The server could not be asked.
        """
        if self._sees is None:
            indexing = indexing_of(link)
            self._sees = indexing is not None and await _has_module(indexing)
            if indexing is not None and self._sees:
                await self.tend(indexing)
        return self._sees


async def _has_module(link: IndexingLink) -> bool:
    try:
        return await link.indexes() is not None
    except (Unreachable, OutcomeUnknown):
        raise
    except LanggraphValkeyError as failure:  # It is not allowed, or not what we know.
        _log.warning("the server's search can't be used, and is done without: %s", failure)
        return False


def tag_of(prefix: bytes) -> str | None:
    """The tag of what is beneath a prefix, by its name; None of everything."""
    return sha1(prefix, usedforsecurity=False).hexdigest()[:DIGITS] if prefix else None


async def search(
    buckets: Buckets, link: Link, indexes: Indexes, wanted: Wanted
) -> tuple[list[Hit], Mapping[str, Answer]] | None:
    """Answer a search by the server's.

    Args:
        buckets: What asks buckets.
        link: Over which.
        indexes: The store's.
        wanted: The search.

    Returns:
        The results, and the last answer of each bucket. None if this way leads nowhere.

    Raises:
        Unreadable: An item is not what was stored.
    """
    indexing = indexing_of(link)
    query, count = wanted.query, wanted.page.end + SPARE
    if indexing is None or query is None or not query.any() or min(wanted.page) < 0:
        return None
    await indexes.tend(indexing)
    if not indexes.is_ready:
        return None
    before = await _sought(buckets, link, {})
    while count <= NEAREST_MOST and all(calls.read_sought(each)[0] for each in before.values()):
        named = await indexes.nearest(indexing, query.tobytes(), count, tag_of(wanted.prefix))
        if named is None:
            return None
        names = _by_bucket([key for key, _ in named])
        after = await _sought(buckets, link, names)
        if any(_life(before[bucket]) != _life(answer) for bucket, answer in after.items()):
            return None
        found = _candidates(buckets, wanted, indexes.dimension, names, after)
        is_all = len(named) < count
        least = float("-inf") if is_all else named[-1][1] + MARGIN  # Others are below this.
        best = sorted((-each.score, each.order, each) for each in found if each.score > least)
        if len(best) >= wanted.page.end:
            return paged(((each.score, each) for _, _, each in best), (), wanted.page), after
        if is_all:
            return None  # What has no vectors is to follow.
        before, count = after, 4 * count
    return None


async def _sought(
    buckets: Buckets, link: Link, names: Mapping[str, list[bytes]]
) -> dict[str, Answer]:
    """Ask all buckets, and read some items."""
    asked = [(each, calls.seek(keys, names.get(each, ()))) for each, keys in buckets.keys.items()]
    return dict(zip(buckets.keys, await buckets.read(link, asked), strict=True))


def _life(answer: Answer) -> tuple[bytes, bytes]:
    return answer.identity, answer.standing.nonce


def _by_bucket(keys: list[bytes]) -> dict[str, list[bytes]]:
    """The items of vectors by the keys of those, each once."""
    found: dict[str, dict[bytes, None]] = {}
    for key in keys:
        bucket, _, name = key.partition(b"{")[2].partition(b"}:")
        found.setdefault(bucket.decode(errors="replace"), {})[name[4:]] = None
    return {bucket: list(names) for bucket, names in found.items()}


def _candidates(
    buckets: Buckets,
    wanted: Wanted,
    dimension: int,
    names: Mapping[str, list[bytes]],
    answers: Mapping[str, Answer],
) -> list[Candidate]:
    """The items that are there and match, with their scores."""
    assert wanted.query is not None
    found = []
    for bucket, some in names.items():
        for raw_name, raw in zip(some, calls.read_sought(answers[bucket])[1], strict=True):
            if raw is None:
                continue
            name: Name = split_item_name(raw_name)
            record = record_of(buckets.codec, name, raw)
            paths = comparable(record, dimension)
            if paths and matches(wanted.filter, name, record):
                scores = cosines(wanted.query, [record.vectors[path] for path in paths])
                found.append(Candidate(order_of(name, record), record, max(scores)))
    return found
