"""Listing namespaces, as LangGraph's InMemoryStore does: what matches, cut, sorted, a page of it.

Namespaces are held sorted, so a page ends the walk early, what begins with a prefix stands
together, and cutting them at a depth leaves equal ones side by side.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from langgraph.store.base import ListNamespacesOp, MatchCondition

Namespace = tuple[str, ...]

ANY = "*"
"""In a path: any label."""


def path_of(condition: MatchCondition) -> Namespace:
    """A condition's path; a text that stands there alone is the path of that one label."""
    path: Any = condition.path
    return (path,) if isinstance(path, str) else path


def check(wanted: ListNamespacesOp) -> None:
    """Refuse what can't be meant, before anything is asked.

    Raises:
        ValueError: A condition matches by something else than a prefix or a suffix.
    """
    for condition in wanted.match_conditions or ():
        if condition.match_type not in ("prefix", "suffix"):
            raise ValueError(
                f"namespaces can't be matched by {condition.match_type!r}: use prefix or suffix"
            )


def listed(namespaces: Sequence[Namespace], wanted: ListNamespacesOp) -> list[Namespace]:
    """The page that is wanted.

    Args:
        namespaces: All there are, sorted.
        wanted: Which ones, how deep, and which page of them.
    """
    conditions = wanted.match_conditions or ()
    found: Iterable[Namespace] = _beneath(namespaces, _head(conditions))
    for condition in conditions:
        found = filter(_matcher(condition), found)
    depth, limit, offset = wanted.max_depth, wanted.limit, wanted.offset
    if depth is not None:
        found = _cut(found, depth)
    if min(limit, offset) < 0:  # As a slice has it.
        return list(found)[offset : offset + limit]
    return list(islice(found, offset, offset + limit))


def _head(conditions: Iterable[MatchCondition]) -> Namespace:
    """The longest prefix without a wildcard that all matches have."""
    longest: Namespace = ()
    for condition in conditions:
        if condition.match_type == "prefix":
            path = tuple(path_of(condition))
            head = path[: path.index(ANY)] if ANY in path else path
            longest = max(longest, head, key=len)
    return longest


def _beneath(namespaces: Sequence[Namespace], head: Namespace) -> Iterator[Namespace]:
    count = len(head)
    for namespace in islice(namespaces, bisect_left(namespaces, head), None):
        if namespace[:count] != head:
            return
        yield namespace


def _cut(namespaces: Iterable[Namespace], depth: int) -> Iterable[Namespace]:
    """The namespaces down to a depth, each once."""
    if depth < 0:  # From the end: what is cut is not in order any more.
        return sorted({namespace[:depth] for namespace in namespaces})
    return _each_once(namespace[:depth] for namespace in namespaces)


def _each_once(sorted_ones: Iterable[Namespace]) -> Iterator[Namespace]:
    last = None
    for namespace in sorted_ones:
        if namespace != last:
            yield namespace
        last = namespace


def _matcher(condition: MatchCondition) -> Callable[[Namespace], bool]:
    path = tuple(path_of(condition))
    length = len(path)
    # From the front, or from the back; what is any label is not looked at.
    back = 0 if condition.match_type == "prefix" else length
    wanted = [(at - back, label) for at, label in enumerate(path) if label != ANY]

    def matches(namespace: Namespace) -> bool:
        if len(namespace) < length:
            return False
        for at, label in wanted:  # noqa: SIM110 - a generator for `all` takes twice as long
            if namespace[at] != label:
                return False
        return True

    return matches
