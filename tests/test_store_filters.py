"""Filters of a search, beside what InMemoryStore makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.memory import _compare_values

from langgraph_valkey.items.filters import compiled

PLAIN = st.sampled_from([1, 1, 2, 2, None, True, 1.5, "a", "2"])
NAMES = st.sampled_from(["a", "b"])
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=5,
)
OPERATIONS = st.dictionaries(st.sampled_from(["$eq", "$ne"]), VALUES, min_size=1) | st.dictionaries(
    st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.sampled_from([1, 2, 1.5, "2"]), min_size=1
)
WANTED = st.recursive(
    PLAIN | OPERATIONS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(NAMES, inner, max_size=2)
    ),
    max_leaves=4,
)
FILTERS = st.dictionaries(NAMES | st.just("$c"), WANTED, max_size=2)


def oracle(value: dict[str, Any], filter_: dict[str, Any]) -> bool | None:
    """What InMemoryStore says; None where it raises, since it compares what is no number."""
    try:
        return all(_compare_values(value.get(name), each) for name, each in filter_.items())
    except (TypeError, ValueError):
        return None


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.dictionaries(NAMES, VALUES, max_size=2), min_size=5, max_size=15),
    filter_=FILTERS,
)
def test_a_filter_matches_as_in_memory(
    values: list[dict[str, Any]], filter_: dict[str, Any]
) -> None:
    test = compiled(filter_)
    for value in [*values, plainly(filter_)]:
        check(value, filter_, True if test is None else test.matches(value))


def plainly(wanted: Any) -> Any:
    """A value that is much like what a filter wants."""
    if isinstance(wanted, dict):
        made = {name: plainly(each) for name, each in wanted.items()}
        signs = [name for name in made if name.startswith("$") and name != "$c"]
        return made[signs[0]] if signs else made
    return [plainly(each) for each in wanted] if isinstance(wanted, list | tuple) else wanted


def check(value: dict[str, Any], filter_: dict[str, Any], found: bool) -> None:
    # Where that raises, no condition before had failed, and the one that raised can't hold.
    assert found is (oracle(value, filter_) or False)


@pytest.mark.parametrize("operation", ["$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize("value", [{}, {"n": None}, {"n": "text"}, {"n": [1]}, {"n": 10**400}])
def test_what_is_no_number_matches_no_comparison(operation: str, value: dict[str, Any]) -> None:
    test = compiled({"n": {operation: 0}})
    assert test is not None
    assert not test.matches(value)
    assert test.matches({"n": {"$gt": 1, "$gte": 0, "$lt": -1, "$lte": 0}[operation]})


@pytest.mark.parametrize(
    ("operation", "matching"),
    [
        ("$gt", ["2026-10", "2026-9", "b"]),
        ("$gte", ["2026-09-30", "2026-10", "2026-9", "b"]),
        ("$lt", ["10", "2025-12-31"]),
        ("$lte", ["10", "2025-12-31", "2026-09-30"]),
    ],
)
def test_texts_are_compared_with_a_text(operation: str, matching: list[str]) -> None:
    """As of LangGraph's stores on SQL; dates as they are written are in their order."""
    test = compiled({"t": {operation: "2026-09-30"}})
    assert test is not None
    values = ["10", "2025-12-31", "2026-09-30", "2026-10", "2026-9", "b", 3000.0, None, ["b"], True]
    assert [each for each in values if test.matches({"t": each})] == matching
    assert not test.matches({})


def test_a_text_that_reads_as_a_number_is_compared_as_one() -> None:
    """As of InMemoryStore."""
    test = compiled({"n": {"$gt": "9"}})
    assert test is not None
    assert [each for each in (10, "10", 9, "9", "b") if test.matches({"n": each})] == [10, "10"]


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"a": {"$in": [1]}}, r"unknown operator '\$in': use one of \$eq, \$ne, \$gt"),
        ({"a": {"b": [{"$gt": 1, "c": 2}]}}, "unknown operator 'c'"),
        ({"a": {"$gt": [1]}}, r"\$gt in a filter compares numbers, or texts, .* neither \(list\)"),
        ({"a": {"$lte": None}}, r"neither \(NoneType\)"),
    ],
)
def test_what_can_not_be_meant_is_refused_at_once(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compiled(given_)


def test_a_filter_that_is_no_dict_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a dict"):
        compiled([("a", 1)])  # type: ignore[arg-type]


def test_an_error_tells_no_texts() -> None:
    with pytest.raises(ValueError) as caught:
        compiled({"a": {"$gt": ["a secret of someone's"]}})
    assert "secret" not in str(caught.value)
