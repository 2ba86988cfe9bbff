"""What guards read out of a question: its words, stems, negators and names.

Stems are Snowball's, so that "cancelled" and "cancel" are one word.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

from rag_cache.guards.figures import UNITS, VALUES
from rag_cache.guards.lexicon import FILLERS, IMPLIED, NEGATORS, STOP

PARSED_MOST = 20_000
"""Questions whose words are remembered: about 1 KB each."""

LONG_FROM = 1_000
"""Characters of a question that is long: many of those would fill the memory."""

LONG_MOST = 32
"""Long questions that are remembered: enough for one and all that it is compared with."""

TITLED_SHARE = 0.6
"""If more words than this begin with a capital, capitals don't tell names."""

APOSTROPHE = "\u2019"
"""As typographers write it."""

# What stands on a letter or after it: accents, and vowels of Indic scripts and of Thai.
_MARKS = "".join(
    each for each in map(chr, range(0x300, 0x10000)) if unicodedata.category(each) in ("Mn", "Mc")
)
_LETTERS = rf"[^\W_]+(?:[{_MARKS}]+[^\W_]*)*"
_WORD = re.compile(rf"{_LETTERS}(?:[-'\u2019.&]{_LETTERS})*")
_JOINED = re.compile(r"'(?:s|d|m|ll|re|ve)$")
_ENDS = (".", "?", "!", ":")
_NO_NAMES = frozenset({"i", "ok"})

T = TypeVar("T")


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


def remembered(read: Callable[[str], T]) -> Callable[[str], T]:
    """A function of questions that remembers what it found, within bounds."""
    short, long = lru_cache(PARSED_MOST)(read), lru_cache(LONG_MOST)(read)
    return lambda question: (short if len(question) < LONG_FROM else long)(question)


@remembered
def parsed(question: str) -> Parsed:
    """Read a question."""
    found = list(_words_of(question))
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
            for (begins, word), plain, each in zip(found, words, stems, strict=True)
            if _is_name(word, begins=begins) and plain not in _NO_NAMES
        )
    is_negative = not NEGATORS.isdisjoint(words)
    return Parsed(words, stems, content, frozenset(stems) | implied, names, is_negative)


def _words_of(question: str) -> Iterator[tuple[bool, str]]:
    """Words as they are written, each with whether a sentence begins with it."""
    end = 0
    for match in _WORD.finditer(question):
        begins = match.start() == 0 or question[end : match.start()].rstrip().endswith(_ENDS)
        yield begins, match[0]
        end = match.end()


def _plain(word: str) -> str:
    """A word without case, possessive, and a verb that is joined to it."""
    word = word.casefold().replace(APOSTROPHE, "'")
    return word if word in NEGATORS else _JOINED.sub("", word)


def _counts(word: str) -> bool:
    """Whether a word is left to the guard of numbers, or says nothing."""
    # A single letter says nothing in English only: in Korean or Chinese it is a word.
    says_nothing = len(word) < 2 and word.isascii()
    # "x²" has no number that the guard of numbers reads.
    return says_nothing or word in VALUES or word in UNITS or any(c.isdecimal() for c in word)


def _is_name(word: str, *, begins: bool) -> bool:
    if not word[:1].isupper():
        return False
    return not begins or (word.isupper() and len(word) > 1) or any(c.isupper() for c in word[1:])


class _PerThread(threading.local):
    """A stemmer keeps the word it works on: one must not be shared between threads."""

    def __init__(self) -> None:
        import snowballstemmer

        self.stem: Callable[[str], str] = snowballstemmer.stemmer("english").stemWord


_snowball = _PerThread()


@lru_cache(maxsize=PARSED_MOST)
def stem(word: str) -> str:
    """The stem of a word."""
    return _snowball.stem(word)


@cache
def _stemmed_fillers() -> frozenset[str]:
    return frozenset(map(stem, FILLERS))
