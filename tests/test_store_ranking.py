"""How a mirror answers searches: as LangGraph's InMemoryStore does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import PutOp, SearchOp

from langgraph_valkey.items import filters
from langgraph_valkey.items.embedding import Indexing
from langgraph_valkey.items.mirror import FEW, Changes, Mirror
from langgraph_valkey.items.ranking import Page, Wanted, ranked
from langgraph_valkey.items.telling import NOWHERE, Name, Unreadable
from langgraph_valkey.link import finish
from langgraph_valkey.vectors.matrix import Matrix
from tests.mirror_ground import BUCKET, INDEX, at, item, keys, told
from tests.store_oracle import DIMENSION, Oracle, seen


class Both:
    """A mirror and InMemoryStore, given the same puts."""

    def __init__(self, *, index: bool = True) -> None:
        self.oracle = Oracle(index=INDEX if index else None)
        self.indexing = Indexing(INDEX) if index else None
        self.mirror = Mirror(DIMENSION if index else None)
        self._born: dict[tuple[str, ...], int] = {}
        self._places: dict[Name, int] = {}
        self._now = 0

    def put(self, put: PutOp) -> None:
        self.oracle.batch([put])
        self._now += 1
        home_born = self._born.get(put.namespace, self._now)
        if put.value is not None:
            self._born[put.namespace] = home_born
        made: dict[str, bytes] = {}
        if self.indexing is not None:
            [made] = finish(self.indexing.of_puts(self.indexing.blocking, [put]))
        name, record = item(
            put.namespace, put.key, put.value, born=self._now, home_born=home_born,
            stamp=self._now, vectors=made,
        )  # fmt: skip
        change = None if put.value is None else record
        if change is None:
            self._places.pop(name, None)
        else:
            record.born = self._places.setdefault(name, self._now)
        since = self.mirror.basis(BUCKET)
        assert self.mirror.learn(BUCKET, Changes(at(self._now), since, {name: change}, 0))

    def search(self, search: SearchOp) -> list[Any]:
        query = None
        if self.indexing is not None and search.query:
            made = finish(self.indexing.of_queries(self.indexing.blocking, [search.query]))
            query = made[search.query]
        page = Page(search.limit, search.offset)
        hits = ranked(self.mirror, Wanted(b"", filters.compiled(search.filter), page, query))
        found = [
            (hit.record.namespace, hit.record.key, hit.record.value, hit.score) for hit in hits
        ]
        assert found == seen(self.oracle.batch([search]))[0]
        return found


TEXTS = st.lists(st.sampled_from(["red", "green", "blue", "and"]), max_size=3).map(" ".join)
VALUES = st.fixed_dictionaries(
    {"n": st.integers(0, 3)},
    optional={"a": TEXTS, "b": st.lists(TEXTS, max_size=2)},
)
PUTS = st.builds(
    PutOp,
    namespace=st.sampled_from([("x",), ("x", "y"), ("z",)]),
    key=st.sampled_from([f"k{n}" for n in range(6)]),
    value=VALUES | st.none(),
    index=st.sampled_from([None, None, False, ["b[0]", "a"]]),
)
SEARCHES = st.builds(
    SearchOp,
    namespace_prefix=st.just(()),
    filter=st.sampled_from([None, {"n": 1}, {"n": {"$gte": 1}, "a": {"$ne": "red"}}]),
    limit=st.integers(-2, 12),
    offset=st.integers(-2, 5),
    query=st.sampled_from([None, "", "red", "red green", "blue and", "and green green"]),
)


@settings(max_examples=150, deadline=None)
@given(
    index=st.booleans(),
    puts=st.lists(PUTS, max_size=25),
    searches=st.lists(SEARCHES, min_size=1, max_size=6),
)
def test_searches_are_answered_as_in_memory(
    index: bool, puts: list[PutOp], searches: list[SearchOp]
) -> None:
    both = Both(index=index)
    for put in puts:
        both.put(put)
    for search in searches:
        both.search(search)


def test_many_that_are_alike_come_in_their_order() -> None:
    """Ties by the hundred, over what is looked at first, and more vectors than items."""
    both = Both()
    draw = np.random.default_rng(11)
    for n in range(400):
        texts = [str(draw.choice(["red", "red green", "blue", "and"])) for _ in range(3)]
        both.put(PutOp(("x", str(n % 7)), f"k{n}", {"n": n % 40, "b": texts}))
    for filter_ in (None, {"n": 7}, {"n": {"$lt": 30}}):
        for limit, offset in ((10, 0), (1, 0), (5, 300), (1000, 0)):
            assert both.search(SearchOp((), filter_, limit, offset, "red"))[:1] or offset


def test_some_that_match_among_many_that_do_not() -> None:
    """More are liked better than the page has; and some have no direction, or no vector."""
    both = Both()
    draw = np.random.default_rng(12)

    def text() -> str:
        counts = draw.integers(0, 9, 4)
        return " ".join(["red"] * counts[0] + ["green"] * counts[1] + ["and"] * counts[2])

    for n in range(500):
        value: dict[str, Any] = {"n": n % 50, "m": n % 2}
        if n % 9:
            value["a"] = text() if n % 5 else ""
        if n % 4 == 0:
            value["b"] = [text() for _ in range(6)]
        both.put(PutOp(("x",), f"k{n}", value))
    some: list[tuple[dict[str, Any], int]] = [({"n": 8}, 10), ({"n": 40}, 10), ({"m": 1}, 250)]
    for filter_, count in (*some, ({"n": {"$gt": 40}}, 90)):
        for limit, offset in ((3, 0), (10, 5), (25, 0), (300, 0)):
            found = both.search(SearchOp(("x",), filter_, limit, offset, "red red green"))
            assert len(found) == min(limit, max(0, count - offset)) or offset


def test_what_has_no_direction_stands_above_what_is_unlike() -> None:
    mirror = Mirror(DIMENSION)
    rows = [
        item(key=f"k{n}", value={"a": n % 2}, born=n, vectors={"x": np.array(v, "<f4").tobytes()})
        for n, v in enumerate([[-1, 0, 0, n] for n in range(60)] + [[0, 0, 0, 0]] * 3)
    ]
    mirror.learn(BUCKET, told(at(1), NOWHERE, *rows))
    query = np.array([1, 0, 0, 0], "<f4")
    for filter_, expected in ((None, ["k60", "k61", "k62", "k59"]), ({"a": 1}, ["k61", "k59"])):
        wanted = Wanted(b"", filters.compiled(filter_), Page(len(expected), 0), query)
        hits = ranked(mirror, wanted)
        assert [hit.record.key for hit in hits] == expected
        assert [hit.score == 0.0 for hit in hits] == [key != "k59" for key in expected]


def test_filters_follow_what_changes() -> None:
    """What was looked up by a field's value is so as the item is now; in its order, too."""
    both = Both(index=False)
    searches = [
        SearchOp((), {"a": value, **more}, 100)
        for value in ("red", "blue", 1, None)
        for more in ({}, {"n": 1}, {"n": {"$eq": 2}})
    ]
    draw = np.random.default_rng(13)
    for step in range(60):
        for _ in range(1 if step % 20 else FEW + 10):
            namespace, key = ("x", str(draw.integers(3))), f"k{draw.integers(12)}"
            texts: list[Any] = ["red", "blue", 1, True, None, ["red"], {"red": 1}]
            value = {"a": texts[draw.integers(len(texts))], "n": int(draw.integers(3))}
            both.put(PutOp(namespace, key, None if draw.integers(5) == 0 else value))
        for search in searches:
            both.search(search)


def test_news_of_many_items_are_looked_up_too() -> None:
    mirror = Mirror()
    some = [item(key=f"k{n:03}", value={"a": n % 2}, born=n) for n in range(20)]
    mirror.learn(BUCKET, told(at(1), NOWHERE, *some))
    wanted = Wanted(b"", filters.compiled({"a": 1}), Page(1000, 0))
    assert len(ranked(mirror, wanted)) == 10
    many = [item(key=f"k{n:03}", value={"a": 1}, born=200 - n) for n in range(2 * FEW)]
    mirror.learn(BUCKET, told(at(2), at(1), *many))
    assert [hit.record.key for hit in ranked(mirror, wanted)] == keys(mirror)
    assert len(mirror) == 2 * FEW


def test_a_query_without_direction_is_like_everything() -> None:
    both = Both()
    for n in range(3):
        both.put(PutOp(("x",), f"k{n}", {"a": "red"} if n else {}))
    zeros = np.zeros(DIMENSION, "<f4")
    hits = ranked(both.mirror, Wanted(b"", None, Page(10, 0), zeros))
    assert [(hit.record.key, hit.score) for hit in hits] == [("k1", 0.0), ("k2", 0.0), ("k0", None)]


def test_vectors_of_another_dimension_count_as_none() -> None:
    mirror = Mirror(DIMENSION)
    short = np.ones(2, "<f4").tobytes()
    mirror.learn(BUCKET, told(at(1), NOWHERE, item(vectors={"a": short})))
    query = np.ones(DIMENSION, "<f4")
    [hit] = ranked(mirror, Wanted(b"", None, Page(10, 0), query))
    assert hit.score is None


def test_a_value_that_cannot_be_read_is_named_where_a_filter_needs_it() -> None:
    mirror = Mirror()
    name, record = item(value={"a": 1})
    record.body = record.body[:-3] + b"\xc1\xc1\xc1"
    mirror.learn(BUCKET, told(at(1), NOWHERE, (name, record)))
    assert len(ranked(mirror, Wanted(b"", None, Page(10, 0)))) == 1
    with pytest.raises(Unreadable) as caught:
        ranked(mirror, Wanted(b"", filters.compiled({"a": 1}), Page(10, 0)))
    assert caught.value.name == name


def test_what_a_search_returns_is_nobody_elses() -> None:
    _, record = item(value={"a": [1]})
    assert record.read_value() is not record.read_value()


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(-2, 2), max_size=40), count=st.integers(1, 12))
def test_the_nearest_of_some_rows_are_those_of_a_matrix_of_these(
    rows: list[int], count: int
) -> None:
    whole, some = Matrix[int](2), Matrix[int](2)
    for n, row in enumerate(rows):
        whole.put(n, [1.0, row], n)
        if n % 3:
            some.put(n, [1.0, row], n)
    found = whole.search([1.0, 1.0], count, lambda n: bool(n % 3))
    assert [each.payload for each in found] == [
        each.payload for each in some.search([1.0, 1.0], count)
    ]
