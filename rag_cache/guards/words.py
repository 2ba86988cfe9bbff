"""What guards read out of a question: its words, stems, negators and names.

Stems are Snowball's, so that "cancelled" and "cancel" are one word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from rag_cache.guards.figures import UNITS, VALUES
from rag_cache.guards.lexicon import FILLERS, IMPLIED, NEGATORS, STOP

PARSED_MOST = 20_000
"""Questions whose words are remembered: about 1 KB each."""

TITLED_SHARE = 0.6
"""If more words than this begin with a capital, capitals don't tell names."""

APOSTROPHE = "\u2019"
"""As typographers write it."""

_WORD = re.compile(r"[^\W_]+(?:[-'\u2019.&][^\W_]+)*")
_JOINED = re.compile(r"'(?:s|d|m|ll|re|ve)$")
_ENDS = re.compile(r"[.?!:]\s*$")
_NO_NAMES = frozenset({"i", "ok"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """A question's words.

    Attributes:
        words: All of them, casefolded, in order.
        stems: Their stems, in order.
        content: The words that say what it is about, by their stems.
        mentioned: All stems, and what question words imply: "when" asks for a time.
        names: Stems of words that are written as names.
        is_negative: Whether anything turns it round.
    """

    words: tuple[str, ...]
    stems: tuple[str, ...]
    content: Mapping[str, str]
    mentioned: frozenset[str]
    names: frozenset[str]
    is_negative: bool


@lru_cache(maxsize=PARSED_MOST)
def parsed(question: str) -> Parsed:
    """Read a question."""
    found = [(match.start(), match[0]) for match in _WORD.finditer(question)]
    words = tuple(_plain(word) for _, word in found)
    stems = tuple(stem(word) for word in words)
    implied = frozenset(word for said, word in IMPLIED.items() if said in " ".join(words))
    content = {
        each: word
        for word, each in zip(words, stems, strict=True)
        if not (word in STOP or word in NEGATORS or each in _stemmed_fillers() or _counts(word))
    }
    titled = sum(word[:1].isupper() for _, word in found)
    names: frozenset[str] = frozenset()
    if titled <= 1 or titled < TITLED_SHARE * len(found):
        names = frozenset(
            each
            for (at, word), plain, each in zip(found, words, stems, strict=True)
            if _is_name(question, at, word) and plain not in _NO_NAMES
        )
    is_negative = not NEGATORS.isdisjoint(words)
    return Parsed(words, stems, content, frozenset(stems) | implied, names, is_negative)


def _plain(word: str) -> str:
    """A word without case, possessive, and a verb that is joined to it."""
    word = word.casefold().replace(APOSTROPHE, "'")
    return word if word in NEGATORS else _JOINED.sub("", word)


def _counts(word: str) -> bool:
    """Whether a word is left to the guard of numbers, or says nothing."""
    return len(word) < 2 or word in VALUES or word in UNITS or any(c.isdigit() for c in word)


def _is_name(question: str, at: int, word: str) -> bool:
    if not word[:1].isupper():
        return False
    begins = at == 0 or _ENDS.search(question[:at]) is not None
    return not begins or (word.isupper() and len(word) > 1) or any(c.isupper() for c in word[1:])


@cache
def _stemmer():  # type: ignore[no-untyped-def]
    import snowballstemmer

    return snowballstemmer.stemmer("english")


@lru_cache(maxsize=PARSED_MOST)
def stem(word: str) -> str:
    """The stem of a word."""
    found: str = _stemmer().stemWord(word)
    return found


@cache
def _stemmed_fillers() -> frozenset[str]:
    return frozenset(map(stem, FILLERS))
