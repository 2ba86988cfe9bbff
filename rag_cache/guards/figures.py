"""How numbers, units and times are written: what the guard of numbers knows."""

from __future__ import annotations

from rag_cache.guards.lexicon import words_of

_ONES = words_of("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen
""")
_TENS = words_of("twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = words_of("""
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
""")
VALUES = {
    **{word: float(at) for at, word in enumerate(_ONES)},
    **{word: float(10 * at) for at, word in enumerate(_TENS, 2)},
    **{word: float(at) for at, word in enumerate(_ORDINALS, 1)},
    "double": 2.0,
    "triple": 3.0,
    "dozen": 12.0,
    "half": 0.5,
}
"""Numbers in words."""

FACTORS = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "k": 1e3, "bn": 1e9}

_PLAIN_UNITS = words_of("kb mb gb tb kg g mg ml l km m cm mm mph kwh mbps gbps ft lb")
UNITS = {
    **dict.fromkeys(("am", "a.m"), "am"),
    **dict.fromkeys(("pm", "p.m"), "pm"),
    **dict.fromkeys(("%", "percent"), "%"),
    **dict.fromkeys(("£", "pound", "pounds", "gbp", "quid"), "gbp"),
    **dict.fromkeys(("$", "dollar", "dollars", "usd"), "usd"),
    **dict.fromkeys(("€", "euro", "euros", "eur"), "eur"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "hour"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "minute"),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "second"),
    **dict.fromkeys(("day", "days"), "day"),
    **dict.fromkeys(("week", "weeks"), "week"),
    **dict.fromkeys(("month", "months"), "month"),
    **dict.fromkeys(("year", "years", "yr", "yrs"), "year"),
    **{unit: unit for unit in _PLAIN_UNITS},
    **dict.fromkeys(("mile", "miles"), "mile"),
}
"""Units, by how they are written."""

_DAYS = words_of("monday tuesday wednesday thursday friday saturday sunday")
_MONTHS = words_of("""
    january february march april june july august september october november december
""")
_OTHER_TIMES = words_of("""
    tomorrow yesterday tonight midnight noon midday christmas easter spring summer autumn winter
""")
TIMES = {
    **{form: day for day in _DAYS for form in (day, f"{day}s")},
    **{day[:3]: day for day in _DAYS if day[:3] not in ("sun", "sat")},
    **{month: month for month in _MONTHS},
    **{month[:3]: month for month in _MONTHS if month[:3] not in ("mar", "jan", "jun")},
    **{f"{word}{s}": word for word in ("weekday", "weekend") for s in ("", "s")},
    **{word: word for word in _OTHER_TIMES},
}
"""Words that name a time."""
