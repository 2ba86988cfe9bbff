"""Listing namespaces, beside InMemoryStore; and what the index config makes of values."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import ListNamespacesOp, MatchCondition, PutOp
from langgraph.store.memory import InMemoryStore

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.items.batch import sort
from langgraph_valkey.items.embedding import Indexing
from langgraph_valkey.items.listing import FEW, NamesMirror
from langgraph_valkey.items.names import pack_namespace
from langgraph_valkey.items.namespaces import check, listed
from langgraph_valkey.items.telling import NOWHERE, Basis
from langgraph_valkey.link import finish
from tests.store_oracle import DIMENSION, Counting

LABELS = st.sampled_from(["a", "b", "*"])
ODD_LABELS = LABELS | st.sampled_from(["\0", "\x01", "é", "", "a\0"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=4).map(tuple)
PATHS = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
CONDITIONS = st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), PATHS)
LISTINGS = st.builds(
    ListNamespacesOp,
    match_conditions=st.none() | st.lists(CONDITIONS, max_size=2).map(tuple),
    max_depth=st.sampled_from([None, None, 0, 1, 2, 3, -1]),
    limit=st.sampled_from([100, 100, 100, 5, 1, 0, -2]),
    offset=st.sampled_from([0, 0, 0, 1, 4, -2]),
)


@settings(max_examples=300, deadline=None)
@given(namespaces=st.sets(NAMESPACES, min_size=5, max_size=30), wanted=LISTINGS)
def test_namespaces_are_listed_as_in_memory(
    namespaces: set[tuple[str, ...]], wanted: ListNamespacesOp
) -> None:
    oracle = InMemoryStore()
    for namespace in namespaces:
        oracle.batch([PutOp(namespace, "k", {})])
    check(wanted)
    assert [listed(sorted(namespaces), wanted)] == oracle.batch([wanted])


@given(namespaces=st.lists(st.lists(ODD_LABELS, max_size=4).map(tuple), max_size=9))
def test_names_sort_as_namespaces_do(namespaces: list[tuple[str, ...]]) -> None:
    assert sorted(namespaces) == sorted(namespaces, key=pack_namespace)


def test_a_match_by_something_else_is_refused() -> None:
    condition = MatchCondition("infix", ("a",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="can't be matched by 'infix': use prefix or suffix"):
        check(ListNamespacesOp((condition,)))


def at(watermark: int, identity: str = "one") -> Basis:
    return Basis(identity.encode(), bytes(16), b"%016d" % watermark)


def test_names_are_learned_as_far_as_they_follow() -> None:
    mirror = NamesMirror()
    assert mirror.learn("1.2", NOWHERE, at(5), {b"b\0": True, b"a\0": True})
    assert mirror.learn("0.2", NOWHERE, at(2), {b"c\0": True})
    assert mirror.namespaces == [("a",), ("b",), ("c",)]
    for since in (at(6), at(5, "two")):  # Not what is known here.
        assert not mirror.learn("1.2", since, at(9, since.identity.decode()), {b"z\0": True})
    assert mirror.learn("1.2", at(4), at(7), {b"b\0": False, b"d\0": True})
    assert mirror.learn("1.2", at(4), at(6), {b"b\0": True})  # Overtaken by what came before it.
    assert mirror.namespaces == [("a",), ("c",), ("d",)]
    assert mirror.reaches({"1.2": at(7), "0.2": at(1)})
    assert not mirror.reaches({"0.2": at(3)})
    assert mirror.learn("1.2", NOWHERE, at(3, "two"), {b"e\0": True})
    assert mirror.namespaces == [("c",), ("e",)]
    many = {f"{n:03}\0".encode(): True for n in range(2 * FEW)}
    assert mirror.learn("1.2", at(3, "two"), at(4, "two"), many)
    assert mirror.namespaces == sorted(mirror.namespaces)
    assert len(mirror.namespaces) == 2 * FEW + 2


# --- embedding -------------------------------------------------------------------------


def indexing(**given: Any) -> Indexing:
    config: Any = {"dims": DIMENSION, "embed": Counting(), **given}
    return Indexing(config)


def vector(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


VALUE = {"t": "red", "l": [{"w": "blue blue"}, {"w": "green"}], "n": None}


@pytest.mark.parametrize(
    ("fields", "index", "texts"),
    [
        (["t"], None, {"t": "red"}),
        (["t", "absent", "n"], None, {"t": "red"}),
        (["l[*].w"], None, {"l[*].w.0": "blue blue", "l[*].w.1": "green"}),
        (["l[0].w"], None, {"l[0].w": "blue blue"}),
        (["t"], False, {}),
        (["t"], ["l[1].w"], {"l[1].w": "green"}),
        (["t"], [], {}),
        (None, None, {"$": '{"l": [{"w": "blue blue"}, {"w": "green"}], "n": null, "t": "red"}'}),
        (["t"], ["$"], {"$": '{"l": [{"w": "blue blue"}, {"w": "green"}], "n": null, "t": "red"}'}),
    ],
)
def test_texts_are_taken_by_paths(fields: Any, index: Any, texts: dict[str, str]) -> None:
    assert indexing(fields=fields).texts(PutOp(("n",), "k", VALUE, index)) == texts


def test_deletions_have_no_texts() -> None:
    assert indexing().texts(PutOp(("n",), "k", None)) == {}


async def test_each_text_is_embedded_once_on_each_face() -> None:
    asked: list[list[str]] = []

    class Asked(Counting):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            asked.append(texts)
            return super().embed_documents(texts)

    made = indexing(embed=Asked(), fields=["a", "b"])
    puts = [
        PutOp(("n",), "1", {"a": "red", "b": "blue"}),
        PutOp(("n",), "2", {"a": "blue"}),
        PutOp(("n",), "3", {"c": "blue"}),
    ]
    red, blue = vector(1, 0, 0, 0), vector(0, 0, 1, 0)
    expected = [{"a": red, "b": blue}, {"a": blue}, {}]
    assert finish(made.of_puts(made.blocking, puts)) == expected
    assert await made.of_puts(made.looping, puts) == expected
    assert asked == [["red", "blue"]] * 2
    assert finish(made.of_puts(made.blocking, puts[2:])) == [{}]
    queries = await made.of_queries(made.looping, ["red", "blue", "red"])
    assert {text: found.tobytes() for text, found in queries.items()} == {"red": red, "blue": blue}


def test_queries_are_embedded_side_by_side() -> None:
    under_way = 0

    class Slow(Counting):
        async def aembed_query(self, text: str) -> list[float]:
            nonlocal under_way
            under_way += 1
            while under_way < 3:
                await asyncio.sleep(0)
            return self.embed_query(text)

    made = indexing(embed=Slow())
    found = asyncio.run(made.of_queries(made.looping, ["red", "green", "blue"]))
    assert list(found) == ["red", "green", "blue"]


async def test_an_embedder_that_fails_says_so_itself() -> None:
    class Failing(Counting):
        async def aembed_query(self, text: str) -> list[float]:
            raise OSError("no network")

    made = indexing(embed=Failing())
    for queries in (["red"], ["red", "green"]):
        with pytest.raises(OSError, match="no network"):
            await made.of_queries(made.looping, queries)


def test_functions_are_embedders_too() -> None:
    made = indexing(embed=lambda texts: [[float(len(text)), 0, 0, 0] for text in texts])
    [found] = finish(made.of_puts(made.blocking, [PutOp(("n",), "k", {"a": 1}, ["a"])]))
    assert found == {"a": vector(1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (
            {"embed": lambda texts: [[1.0, 2.0] for _ in texts]},
            "2 numbers where index= says dims=4",
        ),
        ({"embed": lambda texts: [[float("nan")] * 4 for _ in texts]}, "not finite"),
        ({"embed": lambda texts: [[1e300] * 4 for _ in texts]}, "not finite"),
        ({"embed": lambda _: []}, "gave 0 vectors for 1 texts"),
    ],
)
def test_vectors_are_checked(given_: dict[str, Any], words: str) -> None:
    made = indexing(**given_)
    with pytest.raises(ValueError, match=words):
        finish(made.of_puts(made.blocking, [PutOp(("n",), "k", {"a": 1})]))


@pytest.mark.parametrize("config", [{}, {"dims": 0}, {"dims": "4"}, {"dims": 4}])
def test_a_config_that_lacks_something_is_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="index= needs"):
        Indexing(config)


@pytest.mark.parametrize("match_type", ["prefix", "suffix"])
def test_a_text_alone_is_a_path_of_one_label(match_type: Any) -> None:
    """Some write it so, and mean the label; InMemoryStore takes it for a path of its letters."""
    namespaces = [("ab",), ("ab", "c", "ab"), ("b",)]
    wanted = ListNamespacesOp((MatchCondition(match_type, "ab"),))  # type: ignore[arg-type]
    check(wanted)
    assert listed(namespaces, wanted) == namespaces[:2]
    batch = sort([wanted], 16)
    assert batch.listings == {0: wanted}
