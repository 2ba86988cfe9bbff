"""Mirrors: what they hold after any news, and how searches are answered from them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraph_valkey.items import filters
from langgraph_valkey.items.mirror import EMPTY_BYTES, FEW, Changes, Mirror
from langgraph_valkey.items.mirrors import Mirrors
from langgraph_valkey.items.ranking import Page, Wanted, ranked
from langgraph_valkey.items.records import Record
from langgraph_valkey.items.telling import NOWHERE, Basis, Name
from tests.mirror_ground import BUCKET, at, item, keys, told, vectors
from tests.store_oracle import DIMENSION


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
    rows_bytes = sum(row.size for row in mirror.rows)
    assert mirror.nbytes == EMPTY_BYTES + rows_bytes + mirror.matrix.nbytes


def test_a_namespace_that_moves_takes_all_its_items_along() -> None:
    mirror = Mirror()
    wanted = Wanted(b"", filters.compiled({"n": 1}), Page(10, 0))

    def check(*expected: str) -> None:
        assert keys(mirror) == [*expected, "last"]
        assert [hit.record.key for hit in ranked(mirror, wanted)] == list(expected)

    value = {"n": 1}
    mine = item(("a",), "one", value, born=1, home_born=1)
    other = item(("b",), "two", value, born=2, home_born=2)
    last = item(("c",), "last", {"n": 2}, home_born=9)
    mirror.learn(BUCKET, told(at(1), NOWHERE, mine, other, last))
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
        mirrors.make_room([prefix])
    assert len(mirrors.of(b"a")) == 2
    assert [len(mirrors.of(prefix)) for prefix in (b"b", b"c")] == [0, 0]
    small = Mirrors(None, rows_most=10, bytes_most=15_000)
    for prefix in (b"a", b"b"):
        small.of(prefix).learn(BUCKET, told(at(1), NOWHERE, item(key="1"), item(key="2")))
    small.make_room([b"a", b"b"])
    assert len(small.of(b"a")) == 0


def test_rooms_are_counted_as_they_are_used() -> None:
    """Also empty mirrors take some: of prefixes that are asked for, and hold nothing."""
    mirrors = Mirrors(None, rows_most=50, bytes_most=20 * EMPTY_BYTES + 50_000)
    draw = np.random.default_rng(14)
    stamps = iter(range(1, 1000))
    for _ in range(300):
        prefix = b"%d" % draw.integers(30)
        mirror, stamp = mirrors.of(prefix), next(stamps)
        some = [item(key=f"{n}", born=n) for n in range(draw.integers(8))]
        mirror.learn(BUCKET, told(at(stamp), NOWHERE, *some))
        mirrors.make_room([prefix])
        if draw.integers(10) == 0:
            mirrors.too_large(prefix, 0.0)
        held = list(mirrors._of.values())
        assert mirrors._rows == sum(map(len, held)) <= 50
        assert mirrors._bytes == sum(each.nbytes for each in held)
        assert len(held) <= 25


def test_a_prefix_without_room_is_remembered_for_a_while() -> None:
    mirrors = Mirrors(None, rows_most=3, bytes_most=10**9)
    mirrors.of(b"a").learn(BUCKET, told(at(1), NOWHERE, item()))
    mirrors.too_large(b"a", 100.0)
    assert mirrors.is_large(b"a", 101.0)
    assert not mirrors.is_large(b"b", 101.0)
    assert not mirrors.is_large(b"a", 1e6)
    assert len(mirrors.of(b"a")) == 0
