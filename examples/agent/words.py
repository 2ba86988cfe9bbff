"""Words, sentences and stems: all the language processing the agent has.

A stem is what is left of a word without its ending, crudely: it only has to send
*refuse*, *refused* and *refuses* to one place, not to a word of English.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENDING = re.compile(r"(ings?|ed|es|s|e)$")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*\"(])")
_SHORTEST_STEM = 3

_NO_PROSE = (
    *("==", "```", "#", "|", "- ", "* ", ">>>"),
    *("Args:", "Raises:", "Attributes:", "Returns:"),
)
"""Paragraphs with a line that begins so are tables, code, lists or definitions."""

_SAYING_NOTHING = """
a about after all also an and any are as at back be because been before but by can come comes
coming could did do does each for from get gets give had happen happens has have how i if in
into is it its kind kinds make makes may me mean means more most much my no not note of on once
one only or other our out over own please save say says should so some still such tell than that
the their them then there these they this those to too up us use used was we were what when
where which while who why will with without would you your
"""
_COMMON = frozenset(_SAYING_NOTHING.split())
"""Words that do not tell what a question is about."""


def words(text: str) -> list[str]:
    """The words of a text, lower case; names are taken apart at capitals and ``_``."""
    return [word.lower() for word in _WORD.findall(text)]


def stem(word: str) -> str:
    """A word without its ending."""
    short = _ENDING.sub("", word)
    return short if len(short) >= _SHORTEST_STEM else word


def stems(text: str) -> list[str]:
    """The stems of a text's words, common ones left out."""
    return [stem(word) for word in words(text) if word not in _COMMON]


def topic(question: str) -> list[str]:
    """The words that say what a question is about, each once, in order."""
    return list(dict.fromkeys(word for word in words(question) if word not in _COMMON))


def sentences(text: str) -> list[str]:
    """The sentences of a text's prose: no headings, tables, code or definitions.

    Args:
        text: Paragraphs parted by empty lines.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.splitlines()]
        if paragraph.startswith("    ") or any(line.startswith(_NO_PROSE) for line in lines):
            continue
        found += _SENTENCE.split(" ".join(lines))
    return [sentence for sentence in found if sentence.endswith((".", "!", "?"))]
