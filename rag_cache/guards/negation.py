"""Whether two questions ask for opposite things."""

from __future__ import annotations

from functools import cache

from rag_cache.guards.guard import Asked, Candidate
from rag_cache.guards.lexicon import OPPOSITES, PREFIXES
from rag_cache.guards.words import Parsed, parsed, stem

_BEGINNINGS = {prefix[:2] for prefix in PREFIXES}


class Negation:
    """Refuses where one question is negative and the other is not, or asks for the opposite.

    What tells: a negator in one alone ("don't cancel"), a word and the same one with a
    prefix ("safe", "unsafe"), and words of opposite sides ("include", "exclude").
    """

    name = "negation"

    def __repr__(self) -> str:
        return "Negation()"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        """See `Guard.refusal`."""
        ours, theirs = parsed(asked.question), parsed(candidate.question)
        if ours.is_negative != theirs.is_negative:
            return "one of the two is negative"
        found = _turned(ours, theirs) or _turned(theirs, ours)
        found = found or _opposed(ours, theirs) or _opposed(theirs, ours)
        return f"opposites: {found[0]}, {found[1]}" if found else None


def _turned(one: Parsed, other: Parsed) -> tuple[str, str] | None:
    """A word of one, and the same with a prefix of the other."""
    plain = {each.replace("-", ""): each for each in other.words}
    if _BEGINNINGS.isdisjoint([each[:2] for each in plain]):
        return None
    # A stem begins as its word does, so most words need not be looked at.
    prefixed = {prefix: [each for each in plain if each[:2] == prefix[:2]] for prefix in PREFIXES}
    words = [word for word in set(one.words) - set(other.words) if len(word) > 2]
    for prefix, some in prefixed.items():
        turned = {stem(prefix + word): word for word in words} if some else {}
        for each in some:
            if stem(each) in turned:
                return turned[stem(each)], plain[each]
    return None


@cache
def _axes() -> list[tuple[frozenset[str], frozenset[str]]]:
    return [(frozenset(map(stem, one)), frozenset(map(stem, other))) for one, other in OPPOSITES]


@cache
def _sides() -> dict[str, list[tuple[int, int]]]:
    """Of each stem the axes that it is on, and on which side of them."""
    found: dict[str, list[tuple[int, int]]] = {}
    for axis, sides in enumerate(_axes()):
        for side, stems in enumerate(sides):
            for each in stems:
                found.setdefault(each, []).append((axis, side))
    return found


def _opposed(one: Parsed, other: Parsed) -> tuple[str, str] | None:
    """A word of one whose opposite, which it has not, is in the other."""
    sides, axes = _sides(), _axes()
    touched = {at for each in one.stems if each in sides for at in sides[each]}
    for axis, side in sorted(touched):
        here, there = axes[axis][side], axes[axis][1 - side]
        opposite = there.intersection(other.stems)
        if opposite and there.isdisjoint(one.stems) and here.isdisjoint(other.stems):
            return min(here.intersection(one.stems)), min(opposite)
    return None
