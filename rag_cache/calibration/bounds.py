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

NOTHING = 1e-17
"""A part that changes no float."""


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
    """How likely so few wrong ones, or fewer, are at a rate that is above theirs."""
    if rate >= 1:
        return 0.0
    ways = math.lgamma(served + 1) - math.lgamma(wrong + 1) - math.lgamma(served - wrong + 1)
    likely = math.exp(ways + wrong * math.log(rate) + (served - wrong) * math.log1p(-rate))
    term = total = 1.0
    # Fewer are less likely, since more are to be expected at this rate.
    for count in range(wrong, 0, -1):
        term *= count / (served - count + 1) * (1 - rate) / rate
        total += term
        if term < NOTHING * total:
            break
    return likely * total


def served_needed(rate: float, confidence: float) -> int:
    """How many must be served, all of them right, for the bound to be at most a rate."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))
