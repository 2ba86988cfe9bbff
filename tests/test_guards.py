"""Guards together: what holds for any text, how a judge asks them, and agreement."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import snowballstemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_cache.entries import Card
from rag_cache.guards import (
    DEFAULT_GUARDS,
    WORD_GUARDS,
    Asked,
    Candidate,
    EvidenceAgreement,
    Guard,
    Names,
    NeighbourAgreement,
)
from rag_cache.guards.lexicon import NEGATORS, OPPOSITES, PREFIXES, STOP, SYNONYMS
from rag_cache.guards.numbers import quantities
from rag_cache.guards.words import LONG_FROM, LONG_MOST, parsed, stem
from rag_cache.judging import Judge
from rag_cache.shelves import Filed

TURNED = {word for axis in OPPOSITES for side in axis for word in side}
SPOKEN = sorted({*NEGATORS, *SYNONYMS, *TURNED, *sorted(STOP)[::4]})
ODD = [
    *("London", "NHS", "iPhone", "O'Brien", "Zoë", "non-refundable", "7pm", "£5", "1,000", "BA117"),
    *("three", "million", "second", "Monday", "5gb", "½", "x²", "दिल्ली", "账户", "집"),
    *("e\u0301", "\u0301", "don\u2019t", "\u2019s"),
    *("a.m.", "--", "'", "?", ".", "\n", "\0", "🙂", "ß", "İ", "_"),
]
QUESTIONS = st.text() | st.lists(st.sampled_from(SPOKEN + ODD), max_size=14).map(" ".join)


def refusal(guard: Guard, asked: str, cached: str) -> str | None:
    return guard.refusal(Asked(asked), Candidate(cached, 0.9, "answer"))


# --- for any text ------------------------------------------------------------------


@settings(derandomize=True, max_examples=400, deadline=None)
@given(QUESTIONS, QUESTIONS)
def test_a_refusal_does_not_depend_on_who_asks(one: str, other: str) -> None:
    for guard in WORD_GUARDS:
        assert (refusal(guard, one, other) is None) == (refusal(guard, other, one) is None)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(QUESTIONS)
def test_a_question_is_never_refused_against_itself(question: str) -> None:
    for guard in WORD_GUARDS:
        assert refusal(guard, question, question) is None
        assert refusal(guard, question, f"{question} ") is None


@settings(derandomize=True, max_examples=200, deadline=None)
@given(QUESTIONS, QUESTIONS)
def test_apostrophes_may_be_written_either_way(one: str, other: str) -> None:
    plain = one.replace("\u2019", "'")
    for guard in WORD_GUARDS:
        assert refusal(guard, plain.replace("'", "\u2019"), other) == refusal(guard, plain, other)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(SPOKEN), max_size=12).map(" ".join), QUESTIONS)
def test_case_tells_names_and_nothing_else(one: str, other: str) -> None:
    for guard in WORD_GUARDS:
        if not isinstance(guard, Names):
            assert refusal(guard, one.upper(), other) == refusal(guard, one, other)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(QUESTIONS, QUESTIONS)
def test_a_reason_is_a_line_to_read(one: str, other: str) -> None:
    for guard in WORD_GUARDS:
        why = refusal(guard, one, other)
        assert why is None or (len(why) > 10 and "\n" not in why)


MANY = 20_000
LONG = {
    "words": " ".join(f"w{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}x{n}" for n in range(MANY // 4)),
    "capitals": "A b " * 150_000,
    "one word": "ing" * MANY,
    "codes": " ".join(f"a{n}" for n in range(MANY)),
    "digits": "9" * 10 * MANY,
    "digits and commas": "9," * 5 * MANY,
    "factors": "1 " + "million " * 12 * MANY,
    "hyphens": "a-" * 5 * MANY,
    "white space": "last" + " " * 10 * MANY,
    "spread out": (". " + " " * 50 + "A b ") * (MANY // 10),
    "marks": "e" + "\u0301" * 10 * MANY,
    "negators": "not un" * MANY,
    "Chinese": "账户" * 5 * MANY,
}


@pytest.mark.timeout(40)
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_very_long_question_is_read_in_time(text: str) -> None:
    """Time that grew with the square of the length would be minutes."""
    for guard in WORD_GUARDS:
        refusal(guard, text, "how do I cancel?")
        assert refusal(guard, text, text) is None


class Told(str):
    """A question that can be seen to be forgotten."""


def test_long_questions_are_not_all_remembered() -> None:
    def alive(length: int) -> int:
        told = [Told(f"{n} {'x' * length}") for n in range(3 * LONG_MOST)]
        refs = [weakref.ref(each) for each in told]
        for each in told:
            parsed(each)
            quantities(each)
        del told, each
        gc.collect()
        return sum(ref() is not None for ref in refs)

    assert alive(LONG_FROM) == LONG_MOST
    assert alive(10) == 3 * LONG_MOST


def test_threads_do_not_disturb_each_other() -> None:
    """A stemmer is at work on one word: shared, it gave one thread another one's stem."""
    snowball = snowballstemmer.stemmer("english")
    heads = ("cancel", "operat", "nation", "relat", "transport")
    tails = ("lations", "ingly", "edly", "iveness", "ments", "ies", "ization")
    right = {head + tail: snowball.stemWord(head + tail) for head in heads for tail in tails}

    def wrong(_: int) -> list[str]:
        fresh: Any = stem
        return [word for word in list(right) * 20 if fresh.__wrapped__(word) != right[word]]

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert [each for some in threads.map(wrong, range(8)) for each in some] == []
    finally:
        sys.setswitchinterval(interval_s)


def test_a_stem_begins_as_its_word() -> None:
    """Negation looks only at words that begin with a prefix, since their stems do."""
    for word in [*SPOKEN, *STOP, "ing", "ion", "ies", "eed"]:
        for prefix in PREFIXES:
            assert len(word) < 3 or stem(prefix + word)[:2] == prefix[:2]


# --- each can be switched off ------------------------------------------------------

ONLY_BY = {
    "numbers": ("Where is order 48213?", "Where is order 48231?", "48213, 48231"),
    "negation": ("How do I turn on alerts?", "How do I turn off alerts?", "on, off"),
    "names": ("How do I fly from York to Bath?", "How do I fly from Bath to York?", "exchanged"),
    "substitution": ("How do I cook rice?", "How do I cook pasta?", "pasta, rice"),
    "evidence": ("Is it open today?", "is it open today?", "another one"),
}


def filed(question: str, answer: str = "a", documents: tuple[str, ...] = ("d1",)) -> Filed:
    return Filed(question, Card(question, answer, documents))


@pytest.mark.parametrize("name", ONLY_BY)
def test_each_guard_can_be_switched_off(name: str) -> None:
    asked, cached, why = ONLY_BY[name]
    found = [(0.9, filed(cached))]
    judged = Judge(0.8, DEFAULT_GUARDS).judge(asked, found, ("d2",) if name == "evidence" else None)
    assert not judged.admitted
    [refused] = judged.refusals
    assert (refused.guard, refused.question, refused.score) == (name, cached, 0.9)
    assert why in refused.why
    others = [guard for guard in DEFAULT_GUARDS if guard.name != name]
    assert len(others) == len(DEFAULT_GUARDS) - 1
    judged = Judge(0.8, others).judge(asked, found, ("d2",) if name == "evidence" else None)
    assert [each.entry_id for _, each in judged.admitted] == [cached]
    assert judged.refusals == ()


def test_guards_show_what_they_are_set_to() -> None:
    assert repr(DEFAULT_GUARDS) == (
        "(Numbers(), Negation(), Names(), Substitution(2, additions=True), "
        "EvidenceAgreement(depth=1))"
    )
    shown = [NeighbourAgreement(), NeighbourAgreement(2, 0.9, "document")]
    assert repr(shown) == (
        "[NeighbourAgreement(4, sure=0.95), NeighbourAgreement(2, sure=0.9, by='document')]"
    )
    names = [guard.name for guard in (*DEFAULT_GUARDS, NeighbourAgreement())]
    assert len(names) == len(set(names))


# --- the judge ---------------------------------------------------------------------


class Says:
    """A guard that refuses certain entries, and notes what it saw."""

    def __init__(self, name: str, *refused: str) -> None:
        self.name = name
        self.refused = refused
        self.saw: list[tuple[Asked, Candidate]] = []

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        self.saw.append((asked, candidate))
        if "broken" in self.refused:
            raise RuntimeError
        return "no" if candidate.question in self.refused else None


def test_what_is_near_enough_is_judged_and_nothing_else() -> None:
    one, other = Says("one", "b"), Says("other", "b", "c")
    found = [(0.9, filed("a")), (0.85, filed("b")), (0.8, filed("c")), (0.79, filed("d"))]
    judged = Judge(0.8, [one, other]).judge("q", found, ("d7",))
    assert judged.admitted == ((0.9, found[0][1]),)
    assert [(each.question, each.guard) for each in judged.refusals] == [
        ("b", "one"),
        ("c", "other"),
    ]
    assert judged.nearest == found
    asked, candidate = one.saw[0]
    assert (asked.question, asked.documents) == ("q", ("d7",))
    assert [each.question for each in asked.neighbours] == ["a", "b", "c", "d"]
    assert candidate == Candidate("a", 0.9, "a", ("d1",))
    assert [each.question for _, each in one.saw] == ["a", "b", "c"]


def test_a_guard_that_breaks_has_refused(caplog: pytest.LogCaptureFixture) -> None:
    judged = Judge(0.8, [Says("bad", "broken")]).judge("q", [(0.9, filed("a"))], None)
    assert not judged.admitted
    assert [(each.guard, each.why) for each in judged.refusals] == [("bad", "the guard failed")]
    assert "bad" in caplog.text
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("score", [float("nan"), 0.7999, -1.0])
def test_what_is_not_near_enough_is_never_served(score: float) -> None:
    assert not Judge(0.8, ()).judge("q", [(score, filed("a"))], None).admitted
    assert Judge(0.8, ()).judge("q", [(0.8, filed("a"))], None).admitted
    assert Judge(0.8, ()).judge("q", [], None).nearest == []


# --- neighbours --------------------------------------------------------------------


def near(answers: Iterable[str], documents: Sequence[tuple[str, ...]] = ()) -> Asked:
    made = [
        Candidate(f"q{at}", 0.9, answer, documents[at] if documents else ())
        for at, answer in enumerate(answers)
    ]
    return Asked("q", tuple(made))


@pytest.mark.parametrize(
    ("answers", "agree"),
    [
        *(("aaa", True), ("aaab", True), ("aaaa", True), ("aab", False), ("aba", False)),
        *(("baa", False), ("aaba", False), ("aa", False), ("", False)),
    ],
)
def test_the_nearest_must_agree(answers: str, agree: bool) -> None:
    asked = near(answers)
    why = NeighbourAgreement(3).refusal(asked, Candidate("q0", 0.9, "a"))
    assert (why is None) is agree
    if why is not None:
        assert why == f"{answers[:3].count('a')} of the 3 nearest entries agree"


def test_what_is_all_but_the_same_needs_no_agreement() -> None:
    asked, guard = near("abc"), NeighbourAgreement(3, 0.95)
    assert guard.refusal(asked, Candidate("q0", 0.95, "a")) is None
    assert guard.refusal(asked, Candidate("q0", 0.9499, "a")) is not None
    assert NeighbourAgreement(1).refusal(near("a"), Candidate("q0", 0.9, "a")) is None


def test_neighbours_may_agree_by_their_best_document() -> None:
    documents: list[tuple[str, ...]] = [("d1", "d2"), ("d1",), ("d2", "d1"), ()]
    asked, candidate = near("abcd", documents), Candidate("q0", 0.9, "a", ("d1", "d9"))
    assert NeighbourAgreement(2, by="document").refusal(asked, candidate) is None
    assert NeighbourAgreement(2).refusal(asked, candidate) is not None
    why = NeighbourAgreement(4, by="document").refusal(asked, candidate)
    assert why == "2 of the 4 nearest entries agree"
    nothing = Candidate("q3", 0.9, "d", ())
    assert NeighbourAgreement(1, by="document").refusal(near("d", [()]), nothing) is not None


@pytest.mark.parametrize("given", [{"agreeing": 0}, {"agreeing": -1}, {"by": "question"}])
def test_agreement_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="agreeing must be at least 1"):
        NeighbourAgreement(**given)


# --- evidence ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "then", "depth", "passes"),
    [
        (("d1",), ("d1",), 1, True),
        (("d1", "d9"), ("d1", "d2"), 1, True),
        (("d2", "d1"), ("d1", "d2"), 1, False),
        (("d2", "d1"), ("d1", "d2"), 2, True),
        (("d3",), ("d1", "d2", "d3"), 2, False),
        (None, ("d1",), 1, True),
        ((), ("d1",), 1, True),
        (("d1",), (), 1, True),
    ],
)
def test_todays_best_document_must_be_the_answers(
    now: tuple[str, ...] | None, then: tuple[str, ...], depth: int, passes: bool
) -> None:
    asked = Asked("q", (), now)
    why = EvidenceAgreement(depth).refusal(asked, Candidate("q", 0.9, "a", then))
    assert why == (None if passes else "the best document now is another one")


def test_no_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1"):
        EvidenceAgreement(0)
