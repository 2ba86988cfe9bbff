"""How wrong it may be: an upper bound of a rate, from what was seen.

Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial" (Biometrika 26, 1934): the largest rate at which so few wrong ones, or fewer, are
still as likely as one minus the confidence. It is exact for independent trials, and never
too small.
"""

from __future__ import annotations

import math

STEPS = 60
"""Halvings of the interval: beyond what a float can tell apart."""


def upper_bound(wrong: int, served: int, confidence: float) -> float:
    """One-sided upper bound of the rate of wrong ones.

    Args:
        wrong: How many were wrong.
        served: Of how many.
        confidence: How sure to be, between 0 and 1.

    Returns:
        Between 0 and 1; 1.0 if nothing was served.
    """
    if served == 0 or wrong >= served:
        return 1.0
    low, high = wrong / served, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _at_most(wrong, served, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(wrong: int, served: int, rate: float) -> float:
    """How likely so few wrong ones, or fewer, are at a rate."""
    if rate >= 1:
        return 0.0
    log_odds, term = math.log(rate) - math.log1p(-rate), served * math.log1p(-rate)
    terms = [term]
    for count in range(1, wrong + 1):
        term += math.log(served - count + 1) - math.log(count) + log_odds
        terms.append(term)
    most = max(terms)
    return math.exp(most) * math.fsum(math.exp(each - most) for each in terms)


def served_needed(rate: float, confidence: float) -> int:
    """How many must be served, all of them right, for the bound to be at most a rate."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))
