"""The bound of a wrong rate, beside values that are known, and which pairs hang together."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_cache.calibration import Outcome
from rag_cache.calibration.bounds import served_needed, upper_bound
from rag_cache.calibration.examples import connected

KNOWN = [
    # Upper ends of two-sided 95 % intervals, as tables of Clopper and Pearson have them.
    *((0, 10, 0.975, 0.3085), (1, 10, 0.975, 0.4450), (2, 10, 0.975, 0.5561)),
    *((5, 10, 0.975, 0.8129), (9, 10, 0.975, 0.9975), (3, 20, 0.975, 0.3789)),
    *((10, 100, 0.975, 0.1762), (50, 100, 0.975, 0.6017)),
    # One-sided ones.
    *((0, 10, 0.95, 0.2589), (1, 10, 0.95, 0.3942), (2, 10, 0.95, 0.5069)),
    *((0, 299, 0.95, 0.00997), (0, 59, 0.95, 0.0495), (0, 1, 0.95, 0.95)),
]


@pytest.mark.parametrize(("wrong", "served", "confidence", "bound"), KNOWN)
def test_it_is_what_tables_have(wrong: int, served: int, confidence: float, bound: float) -> None:
    assert upper_bound(wrong, served, confidence) == pytest.approx(bound, abs=6e-5)


def at_most(wrong: int, served: int, rate: Fraction) -> Fraction:
    """How likely so few wrong ones are, exactly."""
    part, whole = rate.numerator, rate.denominator
    ways = (comb(served, n) * part**n * (whole - part) ** (served - n) for n in range(wrong + 1))
    return Fraction(sum(ways), whole**served)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 120), st.data(), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_at_the_bound_so_few_are_just_likely_enough(
    served: int, data: st.DataObject, confidence: float
) -> None:
    wrong = data.draw(st.integers(0, served - 1))
    bound = upper_bound(wrong, served, confidence)
    assert wrong / served <= bound < 1
    assert float(at_most(wrong, served, Fraction(bound))) == pytest.approx(1 - confidence, rel=1e-6)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(2, 500), st.data())
def test_more_wrong_ones_raise_it_and_more_right_ones_lower_it(
    served: int, data: st.DataObject
) -> None:
    wrong = data.draw(st.integers(0, served - 2))
    bound = upper_bound(wrong, served, 0.95)
    assert bound < upper_bound(wrong + 1, served, 0.95)
    assert bound > upper_bound(wrong, served + 1, 0.95)
    assert bound < upper_bound(wrong, served, 0.99)


@pytest.mark.parametrize(("rate", "served"), [(0.01, 400), (0.05, 100), (0.3, 30), (0.01, 90)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_it_is_below_the_truth_as_rarely_as_it_says(
    rate: float, served: int, confidence: float
) -> None:
    true = Fraction(str(rate))
    missed = [n for n in range(served + 1) if upper_bound(n, served, confidence) < rate]
    likely = at_most(missed[-1], served, true) if missed else Fraction(0)
    assert missed == list(range(len(missed)))
    assert float(likely) <= 1 - confidence


def test_in_a_simulation_it_holds_as_often_as_it_says() -> None:
    draw, rounds = random.Random(11), 3_000
    bounds = {n: upper_bound(n, 200, 0.95) for n in range(60)}
    held = sum(bounds[sum(draw.random() < 0.04 for _ in range(200))] >= 0.04 for _ in range(rounds))
    assert 0.95 <= held / rounds < 1


def test_where_nothing_is_known_it_is_one() -> None:
    assert upper_bound(0, 0, 0.95) == upper_bound(3, 3, 0.95) == upper_bound(5, 3, 0.95) == 1.0


def test_large_numbers_are_no_trouble() -> None:
    assert upper_bound(10_000, 1_000_000, 0.95) == pytest.approx(0.010165, abs=2e-6)
    assert upper_bound(0, 10**9, 0.95) == pytest.approx(2.9957e-9, rel=1e-4)
    assert upper_bound(999_999, 1_000_000, 0.95) < 1


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.02, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("confidence", [0.5, 0.75, 0.95, 0.999])
def test_how_many_are_needed_is_enough_and_one_less_is_not(rate: float, confidence: float) -> None:
    needed = served_needed(rate, confidence)
    assert needed >= 1
    assert upper_bound(0, needed, confidence) <= rate * (1 + 1e-9)
    assert upper_bound(0, needed - 1, confidence) > rate


def test_known_numbers_that_are_needed() -> None:
    assert served_needed(0.01, 0.95) == 299
    assert served_needed(0.05, 0.95) == 59


def test_an_outcome_tells_its_rates() -> None:
    outcome = Outcome(asked=200, served=50, wrong=5)
    assert (outcome.hit_rate, outcome.wrong_rate) == (0.25, 0.1)
    assert outcome.bound(0.95) == upper_bound(5, 50, 0.95)
    nothing = Outcome(0, 0, 0)
    assert (nothing.hit_rate, nothing.wrong_rate, nothing.bound(0.95)) == (0.0, 0.0, 1.0)


# --- which pairs hang together -----------------------------------------------------


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("abcdefghij"))))
def test_pairs_hang_together_over_any_others(pairs: list[tuple[str, str]]) -> None:
    groups: list[set[str]] = []
    for pair in pairs:
        touched = [group for group in groups if not group.isdisjoint(pair)]
        groups = [group for group in groups if group not in touched]
        groups.append(set(pair).union(*touched))
    firsts = [
        next(at for at, pair in enumerate(pairs) if not group.isdisjoint(pair))
        for one, _ in pairs
        for group in groups
        if one in group
    ]
    assert connected(pairs) == firsts


@pytest.mark.timeout(30)
def test_a_long_chain_is_followed_in_time() -> None:
    """Time that grew with the square of its length would be minutes."""
    chain = [(f"q{n}", f"q{n + 1}") for n in range(60_000)]
    assert set(connected(chain)) == {0}
    assert set(connected(chain[::-1])) == {0}
