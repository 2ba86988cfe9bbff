"""Scopes and marks: what is told apart, and what is refused as neither."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_cache import Scope
from rag_cache.marks import (
    ANY_VERSION,
    CORPUS_MARK,
    changed,
    document_mark,
    packed_mark,
    packed_version,
    scope_mark,
    scope_marks,
    tag_mark,
    tenant_mark,
)
from rag_cache.scope import NAME_LENGTH_MAX, digest_of
from rag_cache.within import Within

FIELDS: dict[str, Any] = {
    "tenant": "x",
    "corpus": "x",
    "system_prompt": "x",
    "history": "x",
    "model": "x",
    "tools": ["x"],
    "extra": {"x": 1},
}

# --- every field counts ------------------------------------------------------------


def test_every_field_counts_and_none_stands_for_another() -> None:
    assert {each.name for each in dataclasses.fields(Scope)} == set(FIELDS)
    scopes = [Scope(), *(Scope(**{name: value}) for name, value in FIELDS.items())]
    assert len({scope.digest for scope in scopes}) == len(scopes)
    assert len(set(scopes)) == len(scopes)
    assert len({scope.key for scope in scopes}) == len(scopes)
    assert all(len(scope.digest) == 16 and scope.key == scope.digest.hex() for scope in scopes)


NAMES = st.text(max_size=6)
SCOPES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("tenant", "corpus", "system_prompt", "history", "model"), NAMES),
        "tools": st.lists(NAMES, max_size=3),
        "extra": st.dictionaries(NAMES, NAMES | st.integers() | st.booleans(), max_size=2),
    },
)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(SCOPES, SCOPES)
def test_scopes_are_equal_if_all_of_it_is(one: dict[str, Any], other: dict[str, Any]) -> None:
    def whole(fields: dict[str, Any]) -> Any:
        given = {"corpus": "default", "tools": [], "extra": {}, **fields}
        given["tools"] = sorted(given["tools"])
        extra = {name: (type(each), each) for name, each in given.pop("extra").items()}
        return {name: each for name, each in given.items() if each != ""}, extra

    first, second = Scope(**one), Scope(**other)
    assert (first == second) == (whole(one) == whole(other))
    assert (first.digest == second.digest) == (first == second)
    assert first != second or hash(first) == hash(second)
    assert first == Scope(**one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tools": ["a", "b"]}, {"tools": ("b", "a")}),
        ({"tools": ["a", "b"]}, {"tools": {"b", "a"}}),
        ({"tools": ["a", "b"]}, {"tools": (each for each in "ab")}),
        ({"extra": {"a": 1, "b": 2}}, {"extra": {"b": 2, "a": 1}}),
        ({"extra": {"a": {"b": 1, "c": 2}}}, {"extra": {"a": {"c": 2, "b": 1}}}),
        ({"extra": {"a": (1, 2)}}, {"extra": {"a": [1, 2]}}),
    ],
)
def test_the_order_of_tools_and_keys_does_not_count(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = Scope(**one), Scope(**other)
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tools": ["a"]}, {"tools": ["a", "a"]}),
        ({"tools": ["a", "b"]}, {"tools": ["ab"]}),
        ({"tools": ["a"]}, {"tools": []}),
        ({"tools": (each for each in ["a"])}, {"tools": []}),
        ({"model": "a", "tools": []}, {"model": "", "tools": ["a"]}),
        ({"tenant": "a", "corpus": "b"}, {"tenant": "b", "corpus": "a"}),
        ({"tenant": 'a","b'}, {"tenant": "a", "corpus": "b"}),
        ({"tenant": "a\0"}, {"tenant": "a"}),
        ({"tenant": "\ud800"}, {"tenant": "\ufffd"}),
        ({"tenant": "\u00e9"}, {"tenant": "e\u0301"}),
        ({"tenant": "acme"}, {"tenant": "Acme"}),
        ({"extra": {"a": 1}}, {"extra": {"a": "1"}}),
        ({"extra": {"a": 1}}, {"extra": {"a": True}}),
        ({"extra": {"a": 1}}, {"extra": {"a": 1.0}}),
        ({"extra": {"a": None}}, {"extra": {}}),
        ({"extra": {"a": [1, 2]}}, {"extra": {"a": [2, 1]}}),
        ({"extra": {"a": [1, [2]]}}, {"extra": {"a": [[1], 2]}}),
    ],
)
def test_what_is_not_the_same_is_not_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert Scope(**one) != Scope(**other)


ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = ENDLESS
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        *(({name: 7}, TypeError) for name in FIELDS),
        *(({name: None}, TypeError) for name in FIELDS),
        *(({name: b"x"}, TypeError) for name in FIELDS if name != "extra"),
        ({"tools": "search"}, TypeError),
        ({"tools": ["a", 1]}, TypeError),
        ({"extra": {"a": object()}}, TypeError),
        ({"extra": {"a": {1, 2}}}, TypeError),
        ({"extra": {"a": b"x"}}, TypeError),
        ({"extra": {"a": float("nan")}}, TypeError),
        ({"extra": {"a": float("inf")}}, TypeError),
        ({"extra": {1: "a", "b": 2}}, TypeError),
        ({"extra": {("a",): 2}}, TypeError),
        ({"extra": ENDLESS}, TypeError),
        ({"extra": {"a": DEEP}}, TypeError),
        ({"tenant": "x" * (NAME_LENGTH_MAX + 1)}, ValueError),
        ({"corpus": "x" * (NAME_LENGTH_MAX + 1)}, ValueError),
    ],
)
def test_what_is_no_scope_is_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Scope(**fields)
    long = Scope(tenant="x" * NAME_LENGTH_MAX, system_prompt="x" * 10 * NAME_LENGTH_MAX)
    assert len(long.tenant) == NAME_LENGTH_MAX


def test_a_scope_stays_what_it_was() -> None:
    tools, extra = ["a"], {"b": {"c": 1}}
    scope = Scope(tenant="acme", tools=tools, extra=extra)
    digest = scope.digest
    tools.append("z")
    extra["b"]["c"] = 2
    extra["d"] = {}
    assert scope.digest == digest == Scope(tenant="acme", tools=["a"], extra={"b": {"c": 1}}).digest
    with pytest.raises(dataclasses.FrozenInstanceError):
        scope.tenant = "other"  # type: ignore[misc]
    other = dataclasses.replace(scope, model="m")
    assert other.digest not in (digest, Scope(model="m").digest)
    for same in (copy.copy(scope), copy.deepcopy(scope), pickle.loads(pickle.dumps(scope))):
        assert same == scope
        assert same.digest == digest
    assert scope != "acme"


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_where_a_text_ends_counts(one: list[str], other: list[str]) -> None:
    assert (digest_of(*one) == digest_of(*other)) == (one == other)


def test_digests_never_change() -> None:
    """Entries in a server are found by them: another digest would lose them all."""
    assert digest_of("a", "\ud800", "日本").hex() == "b5b593f32ec1d093b1b9104dc69c8284"
    assert Scope().key == "6cb6bbda726718655cbb31ec4f007ab6"


def test_embedders_part_what_a_scope_holds_together() -> None:
    one, other = Within(Scope(), "a"), Within(Scope(), "b")
    assert one.key != other.key != Scope().key
    assert one.marks == other.marks == scope_marks(Scope())
    ids = [within.entry_id(q) for within in (one, other) for q in ("q", "Q", "q ", "")]
    assert len(set(ids)) == len(ids)
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in ids)


# --- marks -------------------------------------------------------------------------


def test_marks_of_different_sorts_are_never_the_same() -> None:
    name = "x"
    marks = [document_mark(name), tag_mark(name), tenant_mark(name), scope_mark(Scope())]
    marks += [CORPUS_MARK, document_mark(""), tag_mark(""), tenant_mark(""), document_mark("t:x")]
    packed = [packed_mark(mark) for mark in marks]
    versions = [packed_version(each) for each in (*marks, "", "0", None)]
    assert len(set(packed)) == len(packed)
    assert len(set(versions)) == len(versions)
    assert {len(each) for each in packed + versions} == {16}
    assert packed_version(None) == ANY_VERSION not in packed
    assert set(packed).isdisjoint(versions)
    one, other = scope_marks(Scope(tenant="a")), scope_marks(Scope(tenant="b"))
    assert len(one) == 3 * 32
    assert one[:32] == other[:32] == packed_mark(CORPUS_MARK) + ANY_VERSION
    assert one[32:] != other[32:]
    model = scope_marks(Scope(tenant="a", model="m"))
    assert model[:64] == one[:64]
    assert model[64:] == packed_mark(scope_mark(Scope(tenant="a", model="m"))) + ANY_VERSION
    assert model[64:] != one[64:]


SCOPE = Scope(tenant="acme", corpus="handbook")


@pytest.mark.parametrize(
    ("given", "corpus", "marks"),
    [
        ({"document": "d1"}, "default", {"d:d1": None}),
        ({"document": "d1", "version": "v2"}, "default", {"d:d1": "v2"}),
        ({"document": ""}, "default", {"d:": None}),
        ({"document": {"d1": "v1", "d2": None}}, "default", {"d:d1": "v1", "d:d2": None}),
        ({"tag": "t1", "corpus": "c"}, "c", {"t:t1": None}),
        ({"tag": ""}, "default", {"t:": None}),
        ({"tenant": "acme", "corpus": ""}, "", {"o:acme": None}),
        ({"tenant": ""}, "default", {"o:": None}),
        ({"scope": SCOPE}, "handbook", {f"s:{SCOPE.key}": None}),
        ({"scope": SCOPE, "corpus": "handbook"}, "handbook", {f"s:{SCOPE.key}": None}),
        ({"corpus": "c"}, "c", {"a:": None}),
        ({"document": "d1", "tag": "t"}, "default", {"d:d1": None, "t:t": None}),
        ({"document": {}, "tag": "t"}, "default", {"t:t": None}),
    ],
)
def test_what_an_invalidation_says(
    given: dict[str, Any], corpus: str, marks: dict[str, str | None]
) -> None:
    nothing = dict.fromkeys(("document", "version", "tag", "scope", "tenant", "corpus"))
    assert changed(**{**nothing, **given}) == (corpus, marks)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, ValueError),
        ({"version": "v1"}, ValueError),
        ({"version": "v1", "tag": "t"}, ValueError),
        ({"document": {"d1": "v1"}, "version": "v1"}, ValueError),
        ({"document": {}}, ValueError),
        ({"document": {}, "corpus": "c"}, ValueError),
        ({"scope": SCOPE, "corpus": "another"}, ValueError),
        ({"document": ["d1"]}, TypeError),
        ({"document": 7}, TypeError),
        ({"document": {"d1": 1}}, TypeError),
        ({"document": {1: "v1"}}, TypeError),
        ({"document": "d1", "version": 1}, TypeError),
        ({"tag": 1}, TypeError),
        ({"tag": ["t"]}, TypeError),
        ({"tenant": b"acme"}, TypeError),
        ({"corpus": 1}, TypeError),
        ({"scope": "acme"}, TypeError),
        ({"scope": {"tenant": "acme"}, "corpus": "c"}, TypeError),
    ],
)
def test_an_invalidation_that_says_nothing_is_refused(
    given: dict[str, Any], error: type[Exception]
) -> None:
    nothing = dict.fromkeys(("document", "version", "tag", "scope", "tenant", "corpus"))
    with pytest.raises(error):
        changed(**{**nothing, **given})
