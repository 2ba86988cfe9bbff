"""Whether two questions are the same but for a few words that matter.

Two questions of one meaning mostly share their words, or hardly any. Where they share most
and a few are other ones, those few are what the question is about: "in England" and "in
Wales". So each word that one has and the other has not must be explained: as a synonym, as a
misspelling, or as one that a question can do without.
"""

from __future__ import annotations

import re
from functools import cache

from rag_cache.guards.guard import Asked, Candidate
from rag_cache.guards.lexicon import SYNONYMS
from rag_cache.guards.words import Parsed, parsed, stem

MISSPELT_FROM = 5
"""A word with fewer letters is another word rather than misspelt."""

VOWELS_FROM = 8
"""In a word of so many letters even a wrong vowel is a misspelling: "message" is no "massage"."""


class Substitution:
    """Refuses where words of one question are not explained by the other.

    Args:
        most: Up to how many such words of a question are a substitution rather than
            another way to say it.
        additions: Whether words that one question has beyond the other count.
    """

    name = "substitution"

    def __init__(self, most: int = 2, *, additions: bool = True) -> None:
        self._most = most
        self._additions = additions

    def __repr__(self) -> str:
        return f"Substitution({self._most}, additions={self._additions})"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        """See `Guard.refusal`."""
        ours, theirs = parsed(asked.question), parsed(candidate.question)
        mine, other = _unexplained(ours, theirs), _unexplained(theirs, ours)
        least, most = sorted((len(mine), len(other)))
        if not most or least > self._most:
            return None
        if not least and not self._additions:
            return None
        return f"different words: {', '.join(sorted(mine | other))}"


def _unexplained(one: Parsed, other: Parsed) -> set[str]:
    """Words of one that the other explains in no way."""
    left = one.content.keys() - other.mentioned
    rest = [other.content[each] for each in other.content.keys() - one.mentioned]
    return {
        word
        for word in left
        if not any(_stands_for(word, each) for each in other.mentioned)
        and not any(_is_misspelt(one.content[word], each) for each in rest)
    }


def _is_misspelt(one: str, other: str) -> bool:
    """Whether letters were dropped, doubled or exchanged, or vowels taken for others."""
    short, long = sorted((one, other), key=len)
    if len(short) < MISSPELT_FROM or one[0] != other[0] or _skeleton(one) != _skeleton(other):
        return False
    letters = iter(long)
    return (
        len(short) >= VOWELS_FROM
        or sorted(one) == sorted(other)
        or all(letter in letters for letter in short)
    )


def _skeleton(word: str) -> str:
    """A word's consonants, doubled ones once."""
    return re.sub(r"(.)\1+", r"\1", re.sub(r"[aeiou]", "", word))


@cache
def _groups() -> dict[str, frozenset[int]]:
    of: dict[str, frozenset[int]] = {}
    for word, numbers in SYNONYMS.items():
        of[stem(word)] = of.get(stem(word), frozenset()) | numbers
    return of


def _stands_for(one: str, other: str) -> bool:
    groups = _groups()
    return not groups.get(one, frozenset()).isdisjoint(groups.get(other, frozenset()))
