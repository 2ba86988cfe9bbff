"""Filters of a search: read once, then asked for each item.

A filter names fields of an item's value and says what they have to be: a plain value, an
object or a list of such (compared part by part), or operators:

=====================  ================================================================
``$eq``, ``$ne``       equal or not, as Python compares
``$gt``, ``$gte``      greater, or not less
``$lt``, ``$lte``      less, or not greater
=====================  ================================================================

All conditions must hold. A field that is not there counts as None, as in LangGraph's
InMemoryStore; so ``{"a": None}`` matches what has no ``a``, and ``$ne`` does. What the four
comparisons are given says how they compare. A number, or a text that reads as one, is compared
with numbers, and with texts that read as such; any other text with texts, by code points. What
is missing, or of another kind, matches none of them, as in SQL (InMemoryStore raises there, and
for all texts that are no number). A filter that can't be meant is refused before anything is
asked.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

Test = Callable[[Any], bool]
"""Whether a value is as wanted."""


class Filter(NamedTuple):
    """A filter that was read.

    Attributes:
        matches: Whether an item's value, a dict, matches.
        equal: Fields that have to be equal to a plain value, and that.
        between: Fields that have to be numbers, the least and the most that each may be; it
            may have to be above the one or below the other.
    """

    matches: Test
    equal: tuple[tuple[str, Hashable], ...]
    between: tuple[tuple[str, float, float], ...] = ()


_PLAIN = (str, int, float, bool, bytes, type(None))

_SIGN = "$"
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_NO_NUMBER = (TypeError, ValueError, OverflowError)
_OPERATORS = ("$eq", "$ne", *_COMPARISONS)


def compiled(given: Mapping[str, Any] | None) -> Filter | None:
    """Read a filter.

    Args:
        given: As of `BaseStore.search`.

    Returns:
        The filter; None if everything matches.

    Raises:
        ValueError: It has an operator that is not known, or compares with what is neither a
            number nor a text.
        TypeError: It is no dict.
    """
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(
            f"a filter must be a dict of fields and what they must be, not {type(given).__name__}"
        )
    equal = tuple(
        (name, plain)
        for name, wanted in given.items()
        for plain in [wanted.get("$eq", ...) if isinstance(wanted, dict) else wanted]
        if isinstance(plain, _PLAIN)
    )
    fields = [(name, _test(wanted)) for name, wanted in given.items()]
    if len(fields) == 1:
        return Filter(_of_one_field(*fields[0], given), equal, _ranges(given))

    def matches(value: Any) -> bool:
        get = value.get
        for name, test in fields:  # noqa: SIM110 - a generator for `all` takes twice as long
            if not test(get(name)):
                return False
        return True

    return Filter(matches, equal, _ranges(given))


def _ranges(given: Mapping[str, Any]) -> tuple[tuple[str, float, float], ...]:
    """Between what a filter's fields have to be, as far as they are compared with numbers."""
    found = []
    for name, wanted in given.items():
        if isinstance(wanted, dict):
            least = [bound for sign in ("$gt", "$gte") for bound in _bound(wanted, sign)]
            most = [bound for sign in ("$lt", "$lte") for bound in _bound(wanted, sign)]
            if least or most:
                found.append((name, max(least, default=-math.inf), min(most, default=math.inf)))
    return tuple(found)


def _bound(wanted: dict[Any, Any], sign: str) -> list[float]:
    number = number_of(wanted[sign]) if sign in wanted else None
    return [] if number is None else [number]


def number_of(value: Any) -> float | None:
    """A value as comparisons take it; None for what is not a number, or not like any other."""
    try:
        number = float(value)
    except _NO_NUMBER:
        return None
    return None if math.isnan(number) else number


def _of_one_field(name: Any, test: Test, given: Mapping[str, Any]) -> Test:
    wanted = given[name]
    if isinstance(wanted, dict | list | tuple):
        return lambda value: test(value.get(name))
    return lambda value: value.get(name) == wanted  # The filter that is used most.


def _test(wanted: Any) -> Test:
    if isinstance(wanted, dict):
        return _object(wanted)
    if isinstance(wanted, list | tuple):
        return _list([_test(each) for each in wanted])
    return lambda value: value == wanted


def _object(wanted: dict[Any, Any]) -> Test:
    """Of an object: operators, if one of its names begins like one; else field by field."""
    if any(isinstance(name, str) and name.startswith(_SIGN) for name in wanted):
        tests = [_operation(name, operand) for name, operand in wanted.items()]
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)
    fields = [(name, _test(each)) for name, each in wanted.items()]
    return lambda value: (
        isinstance(value, dict) and all(test(value.get(name)) for name, test in fields)
    )


def _list(tests: list[Test]) -> Test:
    return lambda value: (
        isinstance(value, list | tuple)
        and len(value) == len(tests)
        and all(test(each) for test, each in zip(tests, value, strict=True))
    )


def _operation(name: Any, operand: Any) -> Test:
    if name == "$eq":
        return lambda value: value == operand
    if name == "$ne":
        return lambda value: value != operand
    compare = _COMPARISONS.get(name)
    if compare is None:
        raise ValueError(
            f"a filter has the unknown operator {name!r}: use one of {', '.join(_OPERATORS)}"
        )
    try:
        bound = float(operand)
    except _NO_NUMBER:
        if isinstance(operand, str):
            return lambda value: isinstance(value, str) and compare(value, operand)
        raise ValueError(
            f"{name} in a filter compares numbers, or texts, and was given what is neither "
            f"({type(operand).__name__}): pass a number or a text, or filter by $eq and $ne"
        ) from None

    def holds(value: Any) -> bool:
        try:
            return compare(float(value), bound)
        except _NO_NUMBER:
            return False

    return holds
