"""Choosing a threshold and guards for a stated rate of wrong answers.

One half of the examples orders the choices; the other one tests them in that order, the
strictest first, until one can't be shown to keep the rate. The last one that could is taken.
Since the order was fixed before, and testing ends with the first failure, the confidence
holds for the choice as it would for a single test ("fixed sequence testing": Wiens, 2003;
for thresholds: Angelopoulos, Bates et al., "Learn then test", 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_core.embeddings import Embeddings

from rag_cache.calibration.bounds import served_needed
from rag_cache.calibration.examples import Logged, Pair
from rag_cache.calibration.trying import Outcome, Trial, halves
from rag_cache.errors import InsufficientData
from rag_cache.guards import DEFAULT_GUARDS, Guard, NeighbourAgreement
from rag_cache.judging import Judge

THRESHOLDS = (0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
AGREEING = (2, 3, 4, 6, 8)
SURES = (0.95, 0.98)

CHOICES: tuple[tuple[Guard, ...], ...] = (
    (),
    DEFAULT_GUARDS,
    *((NeighbourAgreement(count, sure),) for count in AGREEING for sure in SURES),
    *((*DEFAULT_GUARDS, NeighbourAgreement(count)) for count in AGREEING[:2]),
)
"""Guards to choose from: none, the default ones, agreement, and both."""

EXAMPLES_MOST = 16_000
"""Traffic takes the square of half its length in memory, twice: 512 MB for so many."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold with guards, and what came of it.

    Attributes:
        threshold: The least cosine of what is served.
        guards: What may refuse.
        fitted: On the examples that choose.
        held_out: On those that score; None if it did not come to that.
    """

    threshold: float
    guards: tuple[Guard, ...]
    fitted: Outcome
    held_out: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `calibrate` found; `SemanticCache` takes it.

    Attributes:
        threshold: The least cosine of what is served.
        guards: What may refuse.
        wrong_rate: What was asked for: wrong answers of those served.
        confidence: Of the bound.
        held_out: On examples that had no part in choosing.
        choices: All that were tried, by their hit rate where they were fitted.
    """

    threshold: float
    guards: tuple[Guard, ...]
    wrong_rate: float
    confidence: float
    held_out: Outcome
    choices: tuple[Choice, ...]

    @property
    def bound(self) -> float:
        """Upper bound of the wrong rate of what is served, by the held-out examples."""
        return self.held_out.bound(self.confidence)

    def table(self) -> str:
        """The choice and all that were tested, as Markdown."""
        from rag_cache.calibration.showing import table

        return table(self)

    def plot(self, path: str | Path) -> None:
        """Draw hit rate against wrong rate of all choices, as the file's ending says.

        Raises:
            ConfigurationError: matplotlib is missing.
        """
        from rag_cache.calibration.showing import plot

        plot(self, path)


def calibrate(
    examples: Sequence[Pair] | Sequence[Logged],
    *,
    embedder: Embeddings,
    wrong_rate: float = 0.01,
    confidence: float = 0.95,
    thresholds: Sequence[float] = THRESHOLDS,
    choices: Sequence[Sequence[Guard]] = CHOICES,
    seed: int = 0,
) -> Calibration:
    """Choose the threshold and guards that serve most, at a stated rate of wrong answers.

    Args:
        examples: Labelled `Pair`s, or `Logged` traffic of one scope in the order of time.
        embedder: The cache's.
        wrong_rate: How many of the answers that are served may be wrong.
        confidence: How sure to be of it; the bound takes hits for independent.
        thresholds: To choose from.
        choices: Guards to choose from.
        seed: Of the draw that parts pairs into halves.

    Raises:
        InsufficientData: The held-out half can't show that any choice keeps the rate.
        TypeError: An example is neither a pair nor logged traffic, or there are both.
        ValueError: There are too few or too many examples, nothing to choose from, or a rate
            is none.
    """
    if not (0 < wrong_rate < 1 and 0 < confidence < 1):
        raise ValueError("wrong_rate and confidence must be between 0 and 1")
    if not thresholds or not choices:
        raise ValueError("give thresholds and guards to choose from: at least one of each")
    if not 2 <= len(examples) <= EXAMPLES_MOST:
        raise ValueError(f"give 2 to {EXAMPLES_MOST} examples, not {len(examples)}")
    if not any(all(isinstance(each, sort) for each in examples) for sort in (Pair, Logged)):
        raise TypeError("examples must be all of class Pair, or all of class Logged")
    fit, test = halves(examples, embedder, seed)
    tried = [
        Choice(threshold, tuple(guards), fit.run(Judge(threshold, guards)))
        for guards in choices
        for threshold in thresholds
    ]
    tried.sort(key=lambda choice: choice.fitted.hit_rate)
    tested = _tested(_sequence(tried, confidence), test, wrong_rate, confidence)
    passed = [choice for choice in tested if _keeps(choice, wrong_rate, confidence)]
    if not passed:
        raise _insufficient(tested, wrong_rate, confidence)
    last = passed[-1]
    assert last.held_out is not None
    # By the outcome's identity: guards need not be hashable.
    scored = {id(choice.fitted): choice for choice in tested}
    return Calibration(
        *(last.threshold, last.guards, wrong_rate, confidence, last.held_out),
        tuple(scored.get(id(each.fitted), each) for each in tried),
    )


def _sequence(tried: Sequence[Choice], confidence: float) -> list[Choice]:
    """Those that none beats in both, from the surest one to the one that serves most."""
    kept: list[Choice] = []
    least = 2.0
    for choice in sorted(tried, key=lambda each: -each.fitted.hit_rate):
        bound = choice.fitted.bound(confidence)
        if bound < least:
            kept.append(choice)
            least = bound
    return kept[::-1]


def _tested(
    sequence: Sequence[Choice], test: Trial, wrong_rate: float, confidence: float
) -> list[Choice]:
    """Test one after the other, until one fails."""
    tested = []
    for choice in sequence:
        outcome = test.run(Judge(choice.threshold, choice.guards))
        tested.append(Choice(choice.threshold, choice.guards, choice.fitted, outcome))
        if not _keeps(tested[-1], wrong_rate, confidence):
            break
    return tested


def _keeps(choice: Choice, wrong_rate: float, confidence: float) -> bool:
    held_out = choice.held_out
    return held_out is not None and held_out.bound(confidence) <= wrong_rate


def _insufficient(
    tested: Sequence[Choice], wrong_rate: float, confidence: float
) -> InsufficientData:
    needed = served_needed(wrong_rate, confidence)
    served = max((choice.held_out.served for choice in tested if choice.held_out), default=0)
    why = (
        "too few of the held-out examples are served: give more of them"
        if served < needed
        else "the surest choice is wrong too often: give other guards or a higher threshold to "
        "choose from, or allow a higher rate"
    )
    return InsufficientData(
        f"no threshold and guards can be shown to keep the wrong rate at or below {wrong_rate:g} "
        f"with confidence {confidence:g}: {why} (served {served}, needed at least {needed})",
        served=served,
        needed=needed,
    )
