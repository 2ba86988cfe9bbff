"""Which items of a mirror answer a search, and in which order: as InMemoryStore has it.

**Without a query** results come in their order: a page of those that match the filter.

**With a query** they come by likeness: an item's score is the best cosine of its vectors, of
equal scores the order decides. After the last one come items without vectors, in their order
and without a score, as far as there is room on the page.

Cosines are found twice: by the matrix in float32, all at once and off by a little, and then,
of those that may be on the page, by the vectors as they were given, in double precision.
So what is equal counts as equal, wherever it stands in the matrix.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from langgraph_valkey.items.filters import Filter
from langgraph_valkey.items.mirror import Mirror, Row
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import Name
from langgraph_valkey.vectors.matrix import Found

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, Any]

MARGIN = 1e-4
"""More than a cosine in float32 is ever off by: 2e-6 where all of 4,096 numbers are equal,
since then each addition is off in the same direction; with a BLAS that adds in fewer lanes
about 2e-5."""

SPARE = 16
"""Vectors to look at beyond those that are wanted: some items have several."""

FEW_TIMES = 16
"""Before a filter looks at all items, it looks at so many times what is wanted: of the best."""

AT_ONCE = 1_024
"""Vectors of which exact cosines are found at once: a few MiB."""


_Scored = tuple[float, Row]


class Page(NamedTuple):
    """Which results are wanted.

    Attributes:
        limit: How many.
        offset: How many to leave out before.
    """

    limit: int
    offset: int

    @property
    def end(self) -> int:
        """How many results it takes at most to know the page."""
        return max(0, self.limit + self.offset)

    def of(self, results: Iterable[Any]) -> list[Any]:
        """The page of some results. Negative numbers count from the end, as in a slice."""
        if min(self) < 0:
            return list(results)[self.offset : self.offset + self.limit]
        return list(islice(results, self.offset, self.offset + self.limit))


class Wanted(NamedTuple):
    """A search, read and checked.

    Attributes:
        prefix: The name of the prefix.
        filter: Which items; None for all.
        page: Which results.
        query: What they shall be like, embedded as the items are; None without a query.
    """

    prefix: bytes
    filter: Filter | None
    page: Page
    query: Vector | None = None


class Hit(NamedTuple):
    """A result.

    Attributes:
        record: The item.
        score: Its likeness to the query; None without one, or where it has no vectors.
    """

    record: Record
    score: float | None = None


class Ranked(Protocol):
    """What has a place in results: `Row`."""

    @property
    def record(self) -> Record:
        """The item."""
        ...

    @property
    def order(self) -> tuple[int, bytes, int, bytes]:
        """Its place in results without a query."""
        ...


def ranked(mirror: Mirror, wanted: Wanted) -> list[Hit]:
    """The results of a search in a mirror; to be called under its lock.

    Raises:
        Unreadable: A value that the filter looks at can't be read.
    """
    page, query = wanted.page, wanted.query
    if query is None:
        return [Hit(row.record) for row in page.of(mirror.matching(wanted.filter))]
    chosen = None
    if wanted.filter is not None:
        if min(page) >= 0:
            # Most let some of the best pass, and then the others need not be looked at.
            best = _best_of_few(mirror, wanted.filter, query, page.end)
            if len(best) >= page.end:
                return paged(best, (), page)
        chosen = set(mirror.matching(wanted.filter))
    bare = (row for row in mirror.rows if not row.paths and (chosen is None or row in chosen))
    return paged(_best(mirror, chosen, query, page.end), bare, page)


def paged(scored: Iterable[tuple[float, Ranked]], bare: Iterable[Ranked], page: Page) -> list[Hit]:
    """The page of results by likeness.

    Args:
        scored: Scores and items that have vectors, the best first.
        bare: Items without vectors, in their order.
        page: Which results.
    """
    best = enumerate(islice(scored, page.end))
    hits = [Hit(row.record, score) for at, (score, row) in best if at >= page.offset]
    left = page.limit - len(hits)
    if left > 0:
        hits += [Hit(row.record) for row in islice(bare, left)]
    return hits


def _best_of_few(mirror: Mirror, wanted: Filter, query: Vector, count: int) -> list[_Scored]:
    """Rows that match among the best of all, with their scores."""
    few = FEW_TIMES * count + SPARE
    if mirror.matrix is None or few >= len(mirror.matrix) or not query.any():
        return []
    mirror.read_values()
    found = mirror.matrix.search(query, few)
    flat = [row for row in mirror.flat.values() if wanted.matches(row.value)]
    matching = [each for each in found if wanted.matches(each.payload.value)]
    return _scored(query, matching, flat, found[-1].score)


def _best(mirror: Mirror, chosen: set[Row] | None, query: Vector, count: int) -> list[_Scored]:
    """The best rows with vectors, at least so many if there are, with their scores.

    Args:
        mirror: Of the prefix.
        chosen: Rows to look at; None for all.
        query: What they shall be like.
        count: How many are wanted.
    """
    if mirror.matrix is None or not query.any():  # It is like everything, and like nothing.
        every = [row for row in mirror.rows if row.paths and (chosen is None or row in chosen)]
        return [(0.0, row) for row in every]
    flat = [row for row in mirror.flat.values() if chosen is None or row in chosen]
    where = None if chosen is None else chosen.__contains__
    asked = count + SPARE
    while True:
        found = mirror.matrix.search(query, asked, where)
        is_all = len(found) < asked
        best = _scored(query, found, flat, float("-inf") if is_all else found[-1].score)
        if is_all or len(best) >= count:
            return best
        asked *= 4


def _scored(
    query: Vector, found: Sequence[Found[Row]], flat: Sequence[Row], least: float
) -> list[_Scored]:
    """Rows at their best scores, exactly, as far as what was not found can't be better.

    Args:
        query: What they shall be like.
        found: By the matrix.
        flat: Rows with a vector that has no direction.
        least: What was not found is not above this, by the matrix.
    """
    scores = cosines(query, [each.payload.record.vectors[_path(each.id)] for each in found])
    best: dict[Row, float] = dict.fromkeys(flat, 0.0) if least + MARGIN < 0 else {}
    for score, each in zip(scores, found, strict=True):
        row = each.payload
        if score > least + MARGIN and score > best.get(row, float("-inf")):
            best[row] = score
    return sorted(((score, row) for row, score in best.items()), key=_rank)


def _path(name: Hashable) -> str:
    """The path of a vector, by its name in the matrix."""
    _, path = cast("tuple[Name, str]", name)
    return path


def _rank(scored: _Scored) -> tuple[float, tuple[int, bytes, int, bytes]]:
    return -scored[0], scored[1].order


def cosines(query: Vector, raws: Sequence[bytes]) -> list[float]:
    """Cosines of a vector and some others, each found by itself; 0 for one of zeros.

    Args:
        query: Not all zeros.
        raws: Vectors of as many numbers, in float32.
    """
    import numpy as np

    wide = query.astype("<f8")
    length = np.linalg.norm(wide)
    found: list[float] = []
    for at in range(0, len(raws), AT_ONCE):
        some = raws[at : at + AT_ONCE]
        rows = np.frombuffer(b"".join(some), "<f4").astype("<f8").reshape(len(some), -1)
        # Not as a product of matrices, which sums up differently from row to row.
        products = (rows * wide).sum(axis=1)
        lengths = np.sqrt((rows * rows).sum(axis=1))
        scores = products / np.where(lengths > 0, lengths * length, 1.0)
        found += scores.tolist()
    return found
