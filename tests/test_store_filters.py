"""Filters of a search, beside what InMemoryStore makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.store.memory import _compare_values

from langgraph_valkey.items.filters import compiled

PLAIN = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, "a", "1", ""])
NAMES = st.sampled_from(["a", "b", "$c"])
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.integers(-2, 2) | st.sampled_from([0.5, "1"])
OPERATIONS = st.dictionaries(st.sampled_from(["$eq", "$ne"]), VALUES, min_size=1) | st.dictionaries(
    st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS, min_size=1
)
FIELDS = st.sampled_from(["a", "b"])
WANTED = st.recursive(
    PLAIN | OPERATIONS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(FIELDS, inner, max_size=2)
    ),
    max_leaves=6,
)
FILTERS = st.dictionaries(NAMES, WANTED, max_size=3)


def oracle(value: dict[str, Any], filter_: dict[str, Any]) -> bool | None:
    """What InMemoryStore says; None where it raises, since it compares what is no number."""
    try:
        return all(_compare_values(value.get(name), each) for name, each in filter_.items())
    except (TypeError, ValueError):
        return None


@given(value=st.dictionaries(NAMES, VALUES, max_size=3), filter_=FILTERS)
def test_a_filter_matches_as_in_memory(value: dict[str, Any], filter_: dict[str, Any]) -> None:
    test = compiled(filter_)
    found = True if test is None else test.matches(value)
    # Where it raises, no condition before had failed, and the one that raised can't hold.
    assert found is (oracle(value, filter_) or False)


@pytest.mark.parametrize("operation", ["$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize("value", [{}, {"n": None}, {"n": "text"}, {"n": [1]}, {"n": 10**400}])
def test_what_is_no_number_matches_no_comparison(operation: str, value: dict[str, Any]) -> None:
    test = compiled({"n": {operation: 0}})
    assert test is not None
    assert not test.matches(value)
    assert test.matches({"n": {"$gt": 1, "$gte": 0, "$lt": -1, "$lte": 0}[operation]})


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"a": {"$in": [1]}}, r"unknown operator '\$in': use one of \$eq, \$ne, \$gt"),
        ({"a": {"b": [{"$gt": 1, "c": 2}]}}, "unknown operator 'c'"),
        ({"a": {"$gt": "soon"}}, r"\$gt in a filter compares numbers, and was given str"),
        ({"a": {"$lte": None}}, "given NoneType"),
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
        compiled({"a": {"$gt": "a secret of someone's"}})
    assert "secret" not in str(caught.value)
