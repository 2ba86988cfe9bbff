"""What a process has at hand of scopes, and how much of it."""

from __future__ import annotations

import numpy as np
import pytest

from rag_cache import shelves as shelves_module
from rag_cache.entries import Card
from rag_cache.shelves import NOWHERE, Shelf, Shelves
from tests.forks import holds_in_a_child

DIMENSION = 8
CARD = Card("a question", "digest", ("d1",)).pack()


def vector(n: int) -> bytes:
    return bytes(np.eye(DIMENSION, dtype="<f4")[n % DIMENSION].tobytes())


def news(*numbers: int) -> list[list[bytes]]:
    return [[b"%016d" % n, b"entry %d" % n, CARD, vector(n)] for n in numbers]


def test_what_a_partition_tells_is_learned_until_it_is_whole() -> None:
    shelf = Shelf(DIMENSION)
    assert shelf.known(0) == NOWHERE
    assert shelf.learn(0, b"life", news(1, 2, 3), most=3, now_s=1.0)
    assert not shelf.is_whole([0])
    assert shelf.known(0) == (b"life", b"%016d" % 3)
    assert not shelf.learn(0, b"life", [], most=3, now_s=2.0)
    assert shelf.is_whole([0])
    assert not shelf.is_whole([0, 1])
    assert len(shelf) == 3
    assert not shelf.wants_news(0, 2.5, 1.0)
    assert shelf.wants_news(0, 3.0, 1.0)
    assert shelf.wants_news(1, 3.0, 1.0)


def test_a_new_life_has_to_be_learned_from_the_beginning() -> None:
    shelf = Shelf(DIMENSION)
    shelf.learn(0, b"life", news(1), most=3, now_s=1.0)
    shelf.learn(0, b"another", news(1, 2, 3), most=3, now_s=2.0)
    assert not shelf.is_whole([0])
    assert shelf.known(0) == (b"another", b"%016d" % 3)


def test_what_is_not_whole_is_not_put_on_it() -> None:
    shelf = Shelf(DIMENSION)
    assert not shelf.put("short", CARD, b"1234")
    assert not shelf.put("none", CARD, b"")
    assert not shelf.put("no card", b"\xff", vector(1))
    assert not shelf.put("no direction", CARD, bytes(4 * DIMENSION))
    assert len(shelf) == 0
    assert shelf.put("fine", CARD, vector(1))
    assert "fine" in shelf
    shelf.drop("fine")
    assert "fine" not in shelf


def test_a_child_asks_for_all_of_it_again() -> None:
    """Its matrix may have begun anew: who believed to know all would miss, for good."""
    shelf = Shelf(DIMENSION)
    shelf.learn(0, b"life", news(1), most=3, now_s=1.0)
    assert shelf.is_whole([0])
    shelf._matrix._lock.acquire()
    try:
        assert holds_in_a_child(
            lambda: (
                not shelf.is_whole([0])
                and shelf.known(0) == NOWHERE
                and shelf.wants_news(0, 1.0, 1.0)
                and shelf.learn(0, b"life", news(1), most=3, now_s=1.0)
                and shelf.is_whole([0])
                and len(shelf) == 1
            )
        )
    finally:
        shelf._matrix._lock.release()
    assert shelf.is_whole([0])


def test_empty_shelves_are_bounded_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each conversation may be a scope of its own, and most find nothing."""
    monkeypatch.setattr(shelves_module, "SHELVES_MOST", 50)
    shelves = Shelves(rows_most=100)
    first = shelves.of("0", DIMENSION)
    for n in range(200):
        assert shelves.of(str(n), DIMENSION).rows == 0
        assert shelves.of("0", DIMENSION) is first  # The one in use stays.
    assert len(shelves) == 50


def test_the_ones_used_longest_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves_module, "LOOK_EVERY", 1)
    shelves = Shelves(rows_most=100)
    for n in range(20):
        shelves.of(str(n), DIMENSION).learn(0, b"life", news(1), most=3, now_s=1.0)
        shelves.make_room()
    # A single row takes the memory of sixteen.
    assert len(shelves) == 6
    assert shelves.of("19", DIMENSION).is_whole([0])
    assert not shelves.of("0", DIMENSION).is_whole([0])
    large = shelves.of("large", DIMENSION)
    large.learn(0, b"life", news(*range(300)), most=301, now_s=1.0)
    assert not shelves.has_room(large)
    shelves.make_room()
    assert shelves.of("large", DIMENSION) is large  # Never the last one used.
    assert len(shelves) == 1


def test_shelves_are_by_scope_and_dimension() -> None:
    shelves = Shelves(rows_most=100)
    assert shelves.of("a", 8) is shelves.of("a", 8)
    assert shelves.of("a", 8) is not shelves.of("a", 16)
    assert shelves.of("a", 8) is not shelves.of("b", 8)
