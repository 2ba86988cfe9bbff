"""Indexed fields of a mirror give what looking at all rows gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langgraph_valkey.items.fields import FIELDS_MOST, RANGE_FEW, Fields
from langgraph_valkey.items.filters import compiled


class Row:
    """A row, as far as fields look at it."""

    def __init__(self, order: int, number: Any) -> None:
        self.order = order
        self.value: Any = {"n": number, "m": order % 3}


NUMBERS: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, 1.0, -2, 2.5, True, "1", "x", None, float("nan"), 10**400, []]
)
SIGNS = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])
BOUNDS: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, "1", 2.5, -3, float("inf"), float("nan"), "x"]
)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), NUMBERS), max_size=40),
    wanted=st.dictionaries(SIGNS, BOUNDS, min_size=1),
    also=st.sampled_from([{}, {"m": 1}, {"m": {"$gte": 2}}]),
)
@example(steps=[(3, 1), (1, 1), (3, 1)], wanted={"$gte": 1}, also={})
def test_a_range_is_found_as_rows_come_and_go(
    steps: list[tuple[int, Any]], wanted: dict[str, Any], also: dict[str, Any]
) -> None:
    read = compiled({"n": wanted, **also})
    assert read is not None
    fields, rows = Fields(), dict[int, Row]()
    for order, number in steps:
        if order in rows:
            fields.leave(rows.pop(order))
        else:
            rows[order] = Row(order, number)
            fields.enter(rows[order])
        in_order = [rows[at] for at in sorted(rows)]
        some = fields.fewest(in_order, read)
        expected = [row for row in in_order if read.matches(row.value)]
        assert [row for row in some if read.matches(row.value)] == expected


@pytest.mark.parametrize(("most", "looked_at"), [(9, 10), (RANGE_FEW, 1_000)])
def test_only_a_few_rows_of_a_narrow_range_are_looked_at(most: int, looked_at: int) -> None:
    rows = [Row(at, -at) for at in range(1_000)]
    narrow = compiled({"n": {"$gte": -most}})
    assert narrow is not None
    found = Fields().fewest(rows, narrow)
    assert len(found) == looked_at
    assert [row.order for row in found] == list(range(looked_at))


def test_what_has_no_order_stands_in_no_range() -> None:
    numbers = [5, float("nan"), 1, float("nan"), 3, float("nan"), 0, 4, float("nan"), 2]
    rows = [Row(at, number) for at, number in enumerate(numbers)]
    wanted = compiled({"n": {"$gte": 3}})
    assert wanted is not None
    assert [row.order for row in Fields().fewest(rows, wanted)] == [0, 4, 7]


def test_no_more_fields_are_indexed_than_there_is_room_for() -> None:
    fields, rows = Fields(), [Row(at, at) for at in range(9)]
    for number in range(FIELDS_MOST):
        other = compiled({f"f{number}": 1})
        assert other is not None
        fields.fewest(rows, other)
    wanted = compiled({"n": {"$gte": 8}})
    assert wanted is not None
    assert fields.fewest(rows, wanted) is rows
