"""Whether two questions are about the same numbers, dates and quantities."""

from __future__ import annotations

import re
from collections import Counter
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

from rag_cache.guards.figures import FACTORS, TIMES, UNITS, VALUES
from rag_cache.guards.guard import Asked, Candidate
from rag_cache.guards.words import remembered

_RELATIVE = re.compile(
    r"\b(last|next|this|previous|same|every)[\s-]+(day|week|month|year|quarter|morning|evening)\b"
)
_PER = {
    **dict.fromkeys(("daily", "nightly"), "a day"),
    **dict.fromkeys(("weekly",), "a week"),
    **dict.fromkeys(("monthly",), "a month"),
    **dict.fromkeys(("annual", "annually", "yearly"), "a year"),
    "hourly": "an hour",
}
_TOKEN = re.compile(r"[£$€]|\d[\d,]*(?:\.\d+)?|[^\W\d_]+(?:\.[^\W\d_]\b)?|%")
_CODE = re.compile(r"\b(?=\w*\d)(?=\w*[^\W\d_])\w+\b")
_MEASURE = re.compile(r"\d[\d,.]*(?:[^\W\d_]+)")
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_FACTORS = {word: Decimal(factor).normalize() for word, factor in FACTORS.items()}


class Numbers:
    """Refuses where numbers, units, dates, times or codes differ.

    "7pm" and "7am", "order 48213" and "order 48231", "in March" and "in May" differ, and so
    do a question with a number and one without. "14 days" and "two weeks" don't.
    """

    name = "numbers"

    def __repr__(self) -> str:
        return "Numbers()"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        """See `Guard.refusal`."""
        ours, theirs = quantities(asked.question), quantities(candidate.question)
        if ours == theirs:
            return None
        apart = sorted((ours - theirs) + (theirs - ours))
        return f"different numbers or dates: {', '.join(apart)}"


@remembered
def quantities(question: str) -> Counter[str]:
    """The numbers, dates, times and codes of a question, each in one way of writing."""
    text = question.casefold()
    found: Counter[str] = Counter()

    def without_code(match: re.Match[str]) -> str:
        code = match[0]
        if _MEASURE.fullmatch(code) and _unit_of(code) is not None:
            return code
        found[code] += 1
        return " "

    text = _CODE.sub(without_code, text)
    found.update(f"{m[1]} {m[2]}" for m in _RELATIVE.finditer(text))
    words = _TOKEN.findall(text)
    at = 0
    while at < len(words):
        at = _read(words, at, found)
    return found


def _unit_of(code: str) -> str | None:
    letters = code.lstrip("0123456789,.")
    return letters if letters in UNITS or letters in ("st", "nd", "rd", "th", *FACTORS) else None


def _read(words: list[str], at: int, found: Counter[str]) -> int:
    """Read what begins at a word; the place after it."""
    word = words[at]
    if word in TIMES or word in _PER:
        found[TIMES.get(word) or _PER[word]] += 1
        return at + 1
    value, end = _number(words, at)
    if value is None:
        return at + 1
    unit = ""
    if end < len(words) and words[end] in ("st", "nd", "rd", "th"):
        end += 1
    if end < len(words) and words[end] in UNITS:
        unit = UNITS[words[end]]
        end += 1
    elif at and words[at - 1] in UNITS and len(words[at - 1]) == 1:
        unit = UNITS[words[at - 1]]
    if unit == "week":
        value, unit = _EXACT.multiply(value, 7), "day"
    if word == "one" and not unit:
        return end
    found[f"{_written(value)} {unit}".strip()] += 1
    return end


def _written(value: Decimal) -> str:
    """A number with all its digits: the last ones of an order's number count as well."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _number(words: list[str], at: int) -> tuple[Decimal | None, int]:
    """The number that begins at a word, and the place after it."""
    word, end = words[at], at + 1
    if word[0].isdecimal():
        value = Decimal(word.replace(",", ""))
    elif word in VALUES:
        value = Decimal(VALUES[word])
        if word == "second" and at and words[at - 1] in ("a", "per"):
            return None, end
        if 20 <= value < 100 and end < len(words) and 0 < VALUES.get(words[end], 0) < 10:
            value, end = value + Decimal(VALUES[words[end]]), end + 1
    else:
        return None, end
    while end < len(words) and words[end] in _FACTORS:
        value, end = _EXACT.multiply(value, _FACTORS[words[end]]), end + 1
    return value, end
