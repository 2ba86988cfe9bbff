"""Mirrors: what they hold after any news, and how searches are answered from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import PutOp, SearchOp

from langgraph_valkey.items import filters, records
from langgraph_valkey.items.embedding import Indexing
from langgraph_valkey.items.mirror import FEW, Changes, Mirror, Mirrors
from langgraph_valkey.items.names import pack_namespace
from langgraph_valkey.items.ranking import Page, Wanted, ranked
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import NOWHERE, Basis, Name, Unreadable
from langgraph_valkey.link import finish
from langgraph_valkey.stored.codec import Codec
from langgraph_valkey.vectors.matrix import Matrix
from tests.store_oracle import DIMENSION, Counting, Oracle, seen

CODEC = Codec(JsonPlusSerializer())
INDEX: Any = {"dims": DIMENSION, "embed": Counting(), "fields": ["a", "b[*]"]}
BUCKET = "3.16"


def item(
    namespace: tuple[str, ...] = ("n",),
    key: str = "k",
    value: Mapping[str, Any] | None = None,
    *,
    born: int = 1,
    home_born: int = 1,
    stamp: int = 1,
    deadline_ms: int = 0,
    vectors: Mapping[str, bytes] | None = None,
) -> tuple[Name, Record]:
    """An item as a script would tell it."""
    name = pack_namespace(namespace), key.encode()
    body = records.pack(CODEC, value or {}, vectors or {})
    numbers = deadline_ms, home_born, stamp, born, stamp, 0
    raw = b"".join(b"%016d" % each for each in numbers) + b"\x01" + bytes(16) + body
    return name, records.unpack(CODEC, *name, raw)


def at(watermark: int, identity: str = "one", nonce: str = "life") -> Basis:
    return Basis(identity.encode(), nonce.encode(), b"%016d" % watermark)


def told(
    basis: Basis, since: Basis, *items: tuple[Name, Record | None], server_ms: int = 0
) -> Changes:
    return Changes(basis, since, dict(items), server_ms)


def keys(mirror: Mirror) -> list[str]:
    return [row.record.key for row in mirror.rows]


# --- what it holds -----------------------------------------------------------------


def test_news_are_put_in_their_places() -> None:
    mirror = Mirror()
    first = [item(key=key, born=born) for key, born in (("c", 3), ("a", 1))]
    assert mirror.learn(BUCKET, told(at(5), NOWHERE, *first))
    assert keys(mirror) == ["a", "c"]
    more = [item(key="b", born=2), (first[1][0], None), item(key="c", born=3, stamp=2)]
    assert mirror.learn(BUCKET, told(at(6), at(5), *more))
    assert keys(mirror) == ["b", "c"]
    assert mirror.rows[1].record.stamp == b"%016d" % 2
    assert mirror.reaches({BUCKET: at(6)})
    assert not mirror.reaches({BUCKET: at(7)})
    assert not mirror.reaches({BUCKET: at(6, "two")})


def test_what_is_known_already_changes_nothing() -> None:
    """An answer that was overtaken by a newer one, of another search."""
    mirror = Mirror()
    mirror.learn(BUCKET, told(at(5), NOWHERE, item(key="a", stamp=5)))
    mirror.learn(BUCKET, told(at(9), at(5), item(key="a", stamp=9)))
    assert mirror.learn(BUCKET, told(at(7), at(5), item(key="a", stamp=7), item(key="b")))
    assert mirror.learn(BUCKET, told(at(5), NOWHERE))
    assert keys(mirror) == ["a"]
    assert mirror.rows[0].record.stamp == b"%016d" % 9


def test_what_does_not_follow_is_asked_anew() -> None:
    mirror = Mirror()
    mirror.learn(BUCKET, told(at(5), NOWHERE, item(key="a")))
    for since in (at(6), at(4, "two"), at(4, nonce="other life")):
        assert not mirror.learn(BUCKET, told(at(9, since.identity.decode()), since, item(key="b")))
    assert keys(mirror) == ["a"]
    # What overlaps with what is known does follow.
    assert mirror.learn(BUCKET, told(at(9), at(4), item(key="b", born=2)))
    assert keys(mirror) == ["a", "b"]


@pytest.mark.parametrize("basis", [at(5, "two"), at(5, nonce="other life")])
def test_another_primary_or_life_drops_what_was_known_of_the_bucket(basis: Basis) -> None:
    mirror = Mirror()
    mirror.learn(BUCKET, told(at(9), NOWHERE, item(key="a"), item(key="b"), server_ms=900))
    mirror.learn("4.16", told(at(9), NOWHERE, item(("o",), "other")))
    late = item(key="c", born=2, deadline_ms=500)
    assert mirror.learn(BUCKET, told(basis, NOWHERE, late, server_ms=400))
    assert keys(mirror) == ["c", "other"]
    assert not mirror.overdue()  # By the clock of the one that is asked now.


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_are_those_of_the_last_news_and_in_order(data: st.DataObject) -> None:
    """Few changes or many, in one bucket or several: one by one is as all at once."""
    mirror, mirrored = Mirror(DIMENSION), dict[Name, Record]()
    born = iter(range(1, 10_000))
    for stamp in range(1, data.draw(st.integers(2, 7))):
        bucket = data.draw(st.sampled_from(["0.2", "1.2"]))
        since = mirror.basis(bucket)
        changes: dict[Name, Record | None] = {}
        for _ in range(data.draw(st.sampled_from([1, 3, 2 * FEW]))):
            number = data.draw(st.integers(0, FEW))
            name, record = item(
                (bucket, str(number % 3)), f"k{number}", {}, born=next(born), stamp=stamp,
                home_born=number % 3, vectors=vectors(number),
            )  # fmt: skip
            is_gone = data.draw(st.booleans())
            changes[name] = None if is_gone else record
        assert mirror.learn(bucket, Changes(at(stamp), since, changes, 0))
        mirrored.update(changes)  # type: ignore[arg-type]
    left = [record for record in mirrored.values() if record is not None]
    left.sort(key=lambda record: (record.namespace_born, record.namespace, record.born))
    assert [row.record for row in mirror.rows] == left
    assert mirror.matrix is not None
    assert len(mirror.matrix) == sum(any(b"".join(record.vectors.values())) for record in left)
    assert len(mirror.flat) == len(left) - len(mirror.matrix)
    assert mirror.nbytes == sum(row.size for row in mirror.rows) + mirror.matrix.nbytes


def vectors(number: int) -> dict[str, bytes]:
    return {"a": np.array([number, 0, 0, 0], "<f4").tobytes()}


def test_a_namespace_that_moves_takes_all_its_items_along() -> None:
    mirror = Mirror()
    wanted = Wanted(b"", filters.compiled({"n": 1}), Page(10, 0))

    def check(*expected: str) -> None:
        assert keys(mirror) == [hit.record.key for hit in ranked(mirror, wanted)] == list(expected)

    value = {"n": 1}
    mine = item(("a",), "one", value, born=1, home_born=1)
    other = item(("b",), "two", value, born=2, home_born=2)
    mirror.learn(BUCKET, told(at(1), NOWHERE, mine, other))
    check("one", "two")
    mirror.learn(BUCKET, told(at(2), at(1), item(("a",), "three", value, born=3, home_born=3)))
    check("two", "one", "three")
    mirror.learn(BUCKET, told(at(3), at(2), (mine[0], None)))
    check("two", "three")


def test_what_looks_expired_is_asked_for() -> None:
    mirror = Mirror()
    soon, later = item(key="a", deadline_ms=100), item(key="b", born=2, deadline_ms=200)
    mirror.learn(BUCKET, told(at(1), NOWHERE, soon, later, server_ms=99))
    assert not mirror.overdue()
    mirror.learn(BUCKET, told(at(1), at(1), server_ms=150))
    [[row]] = mirror.overdue().values()
    assert row.record is soon[1]
    assert list(mirror.overdue()) == [BUCKET]  # Until it is settled.
    _, put_off = item(key="a", deadline_ms=300, home_born=0)
    mirror.settle(BUCKET, row, put_off)
    assert not mirror.overdue()
    assert mirror.rows[0].record.namespace_born == 1
    mirror.learn(BUCKET, told(at(1), at(1), server_ms=301))
    for row in mirror.overdue()[BUCKET]:
        mirror.settle(BUCKET, row, None)
    assert keys(mirror) == []
    assert not mirror.overdue()


def test_what_was_told_since_it_looked_expired_stays() -> None:
    mirror = Mirror()
    mirror.learn(BUCKET, told(at(1), NOWHERE, item(deadline_ms=100), server_ms=150))
    [[row]] = mirror.overdue().values()
    mirror.learn(BUCKET, told(at(2), at(1), item(stamp=2), server_ms=160))
    mirror.settle(BUCKET, row, None)
    assert [row.record.stamp for row in mirror.rows] == [b"%016d" % 2]


def test_a_child_process_begins_anew() -> None:
    mirror = Mirror(DIMENSION)
    mirror.learn(BUCKET, told(at(1), NOWHERE, item(vectors=vectors(1))))
    with mirror.lock:
        child = os.fork()
        if not child:
            free = mirror.lock.acquire(blocking=False)
            os._exit(0 if free and not mirror.rows and mirror.basis(BUCKET) == NOWHERE else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_mirror_used_longest_ago_makes_room() -> None:
    mirrors = Mirrors(None, rows_most=3, bytes_most=10**9)
    for prefix in (b"a", b"b", b"c"):
        mirrors.of(prefix).learn(BUCKET, told(at(1), NOWHERE, item(key="1"), item(key="2")))
        mirrors.of(b"a")
        mirrors.make_room()
    assert len(mirrors.of(b"a")) == 2
    assert [len(mirrors.of(prefix)) for prefix in (b"b", b"c")] == [0, 0]
    small = Mirrors(None, rows_most=10, bytes_most=3_000)
    for prefix in (b"a", b"b"):
        small.of(prefix).learn(BUCKET, told(at(1), NOWHERE, item(key="1"), item(key="2")))
    small.make_room()
    assert len(small.of(b"a")) == 0


def test_a_prefix_without_room_is_remembered_for_a_while() -> None:
    mirrors = Mirrors(None, rows_most=3, bytes_most=10**9)
    mirrors.of(b"a").learn(BUCKET, told(at(1), NOWHERE, item()))
    mirrors.too_large(b"a", 100.0)
    assert mirrors.is_large(b"a", 101.0)
    assert not mirrors.is_large(b"b", 101.0)
    assert not mirrors.is_large(b"a", 1e6)
    assert len(mirrors.of(b"a")) == 0


# --- how it answers ----------------------------------------------------------------


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


# --- the matrix, for some rows only ------------------------------------------------


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
