"""Choosing a threshold and guards, on pairs whose truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fow_cache.data import load_questions
from langchain_core.embeddings import Embeddings

from benchmarks.rag_pairs import is_sealed
from rag_cache.calibration import Calibration, Logged, Outcome, Pair, calibrate
from rag_cache.calibration.bounds import served_needed
from rag_cache.calibration.examples import connected
from rag_cache.calibration.trying import PairTrial, halves
from rag_cache.embedders import WordLlama
from rag_cache.errors import InsufficientData
from rag_cache.guards import WORD_GUARDS, Asked, Candidate
from rag_cache.judging import Judge

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)


class Known(Embeddings):
    """Embeds a text so that its cosine with any cached one is what is told."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        scores = [self.scores.get(text, 1.0) for text in texts]
        return [[7 * score, 7 * math.sqrt(1 - score * score)] for score in scores]


@dataclass
class World:
    """Pairs, and the score of each by the question that is asked."""

    pairs: list[Pair]
    scores: dict[str, float]

    def calibrated(self, **given: Any) -> Calibration:
        """With thresholds alone, if nothing else is said."""
        settings = {"embedder": Known(self.scores), "thresholds": LEVELS, "choices": [()], **given}
        return calibrate(self.pairs, **settings)

    def counted(self, pairs: Iterable[Pair], threshold: float) -> Outcome:
        """What comes of pairs, counted one by one."""
        some = list(pairs)
        served = [each for each in some if self.scores[each.asked] >= threshold]
        return Outcome(len(some), len(served), sum(not each.same for each in served))


def drawn(
    count: int, wrong_at: Callable[[float], float], seed: int = 0, word: str = "asked"
) -> World:
    """Pairs of any score from 0.5 on, wrong as often as their score says."""
    draw, made = random.Random(seed), World([], {})
    for number in range(count):
        score = draw.uniform(0.5, 1)
        made.pairs.append(
            Pair(f"cached {number}", f"{word} {number}", draw.random() >= wrong_at(score))
        )
        made.scores[f"{word} {number}"] = score
    return made


def wrong_below(level: float) -> Callable[[float], float]:
    return lambda score: 0.0 if score >= level else 0.5


@dataclass
class Refuses:
    """A guard that refuses what holds a word. It can't be hashed, as some can't."""

    word: str
    name: str = "refuses"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        return "it is there" if self.word in asked.question else None


def parted(pairs: Sequence[Pair], seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """The half that chooses, and the one that scores."""
    fit, test = halves(pairs, Known({}), seed)
    assert isinstance(fit, PairTrial)
    assert isinstance(test, PairTrial)
    return list(fit._pairs), list(test._pairs)


# --- what is chosen ----------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_it_serves_as_much_as_can_be_shown_to_be_right(level: float) -> None:
    found = drawn(2_000, wrong_below(level)).calibrated(wrong_rate=0.03)
    assert (found.threshold, found.guards) == (level, ())
    assert (found.wrong_rate, found.confidence) == (0.03, 0.95)
    assert found.held_out.wrong == 0
    assert found.bound == found.held_out.bound(0.95) <= 0.03
    assert found.held_out.served == pytest.approx(2_000 * (1 - level), rel=0.2)
    assert len(found.choices) == len(LEVELS)


def test_guards_that_help_are_chosen() -> None:
    world, traps = drawn(800, lambda _: 0.0), drawn(800, lambda _: 1.0, seed=1, word="trap")
    world = World([*world.pairs, *traps.pairs], {**world.scores, **traps.scores})
    choices = [(), (Refuses("asked"),), (Refuses("trap"),), (Refuses("trap"), Refuses("asked 1"))]
    found = world.calibrated(wrong_rate=0.02, choices=choices)
    assert (found.threshold, found.guards) == (0.5, (Refuses("trap"),))
    assert found.held_out.wrong == 0
    assert len(found.choices) == len(choices) * len(LEVELS)


def test_what_scores_has_no_part_in_choosing() -> None:
    world = drawn(2_000, wrong_below(0.7))
    fit, test = map(set, parted(world.pairs))
    assert fit | test == set(world.pairs)
    assert not fit & test
    found = world.calibrated(wrong_rate=0.03)
    for choice in found.choices:
        assert choice.fitted == world.counted(fit, choice.threshold)
        assert choice.held_out in (None, world.counted(test, choice.threshold))
    assert found.held_out == world.counted(test, found.threshold)
    # Whatever the labels of what scores are, what is tried comes in the same order.
    turned = [replace(each, same=each.same or each in test) for each in world.pairs]
    other = World(turned, world.scores).calibrated(wrong_rate=0.03)
    assert [each.fitted for each in other.choices] == [each.fitted for each in found.choices]
    assert (found.threshold, other.threshold) == (0.7, 0.5)


def test_testing_ends_with_the_first_that_fails() -> None:
    """One behind it that would pass is no choice: among many, one passes by chance."""
    pairs = [Pair(f"cached {number}", f"asked {number}", same=True) for number in range(2_000)]
    world = World([], {})
    # Of each half: how many have which score, and how many of those are wrong.
    fit = [(0.95, 200, 0), (0.85, 200, 4), (0.75, 600, 30)]
    test = [(0.95, 200, 0), (0.85, 200, 40), (0.75, 600, 0)]
    for half, plan in zip(parted(pairs), (fit, test), strict=True):
        rest = iter(half)
        for score, count, wrong in plan:
            some = [next(rest) for _ in range(count)]
            world.pairs += [replace(each, same=at >= wrong) for at, each in enumerate(some)]
            world.scores |= {each.asked: score for each in some}
    world.pairs.sort(key=lambda each: pairs.index(replace(each, same=True)))
    found = world.calibrated(thresholds=(0.7, 0.8, 0.9), wrong_rate=0.06)
    tested = {each.threshold: each.held_out for each in found.choices}
    assert found.threshold == 0.9
    assert tested[0.9] == Outcome(1_000, 200, 0)
    assert tested[0.8] == Outcome(1_000, 400, 40)
    assert tested[0.7] is None
    assert Outcome(1_000, 1_000, 40).bound(0.95) < 0.06


def test_what_is_beaten_in_both_is_not_tested() -> None:
    """A test that is not needed could end the testing."""
    world = drawn(2_000, wrong_below(0.6))
    choices = [(), (Refuses("asked 1"),)]
    found = world.calibrated(wrong_rate=0.05, choices=choices)
    assert (found.threshold, found.guards) == (0.6, ())
    tested = [each for each in found.choices if each.held_out is not None]
    assert [(each.threshold, each.guards) for each in tested] == [(0.6, ()), (0.5, ())]


def test_pairs_that_share_a_question_are_never_parted() -> None:
    draw = random.Random(4)
    pairs = [
        Pair(f"q{draw.randrange(500)}", f"q{draw.randrange(500)}", draw.random() < 0.9)
        for _ in range(200)
    ]
    for seed in range(5):
        fit, test = parted(pairs, seed)
        assert len(fit) + len(test) == len(pairs)
        assert min(len(fit), len(test)) > 20
        texts = [
            {text for each in half for text in (each.cached, each.asked)} for half in (fit, test)
        ]
        assert texts[0].isdisjoint(texts[1])


def test_the_seed_decides() -> None:
    world = drawn(1_000, wrong_below(0.7))
    found = [world.calibrated(wrong_rate=0.05, seed=seed) for seed in (3, 3, 4)]
    assert found[0] == found[1]
    assert found[0].choices != found[2].choices
    assert parted(world.pairs, 3) == parted(world.pairs, 3)
    assert parted(world.pairs, 3) != parted(world.pairs, 4)


def test_the_bound_holds_as_often_as_it_says() -> None:
    """All of it is wrong a little too often, so whatever is chosen is a mistake."""
    rounds, chosen = 300, 0
    for seed in range(rounds):
        world = drawn(300, lambda _: 0.11, seed)
        try:
            found = world.calibrated(wrong_rate=0.1, thresholds=(0.5, 0.7, 0.9), seed=seed)
        except InsufficientData:
            continue
        assert found.bound <= 0.1
        chosen += 1
    assert chosen / rounds <= 0.05


def test_what_is_right_is_found_to_be() -> None:
    rounds = 40
    for seed in range(rounds):
        found = drawn(400, lambda _: 0.01, seed).calibrated(wrong_rate=0.1, seed=seed)
        assert found.threshold <= 0.6


# --- real text ---------------------------------------------------------------------


def test_questions_as_people_ask_them() -> None:
    """On pairs of the package that rules were made from; the sealed ones stay sealed."""
    rows = load_questions()
    groups = connected([(row["a"].casefold(), row["b"].casefold()) for row in rows])
    least: dict[int, str] = {}
    for row, group in zip(rows, groups, strict=True):
        least[group] = min(row["id"], least.get(group, row["id"]))
    pairs = [
        Pair(row["a"], row["b"], row["same_answer"])
        for row, group in zip(rows, groups, strict=True)
        if not is_sealed(least[group])
    ]
    assert 300 < len(pairs) < len(rows)
    with pytest.raises(InsufficientData):
        calibrate(pairs, embedder=WordLlama(), wrong_rate=0.25, choices=[()])
    found = calibrate(pairs, embedder=WordLlama(), wrong_rate=0.25, choices=[(), WORD_GUARDS])
    assert found.guards == WORD_GUARDS
    assert found.bound <= 0.25
    assert found.held_out.served >= served_needed(0.25, 0.95)


# --- too little, or nonsense -------------------------------------------------------


def test_too_few_examples_are_refused_with_numbers() -> None:
    with pytest.raises(InsufficientData, match="give more of them") as refused:
        drawn(100, lambda _: 0.0).calibrated(wrong_rate=0.01)
    assert refused.value.needed == 299
    assert 30 < refused.value.served < 70
    assert f"served {refused.value.served}, needed at least 299" in str(refused.value)
    assert "0.01 with confidence 0.95" in str(refused.value)


def test_examples_that_are_wrong_too_often_are_refused_as_such() -> None:
    with pytest.raises(InsufficientData, match="surest choice is wrong too often") as refused:
        drawn(2_000, lambda _: 0.2).calibrated(wrong_rate=0.1)
    assert refused.value.served >= refused.value.needed == served_needed(0.1, 0.95)


def test_examples_of_which_none_is_served_are_refused() -> None:
    world = drawn(100, lambda _: 0.0)
    with pytest.raises(InsufficientData, match="served 0, needed") as refused:
        world.calibrated(choices=[(Refuses("asked"),)])
    assert refused.value.served == 0
    # All hang together, so one half is empty.
    linked = World([Pair("one", each.asked, same=True) for each in world.pairs], world.scores)
    with pytest.raises(InsufficientData):
        linked.calibrated()


@pytest.mark.parametrize("vector", [[0.0, 0.0], [float("nan"), 1.0]])
def test_what_has_no_vector_is_not_served(vector: list[float]) -> None:
    class Broken(Known):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [vector for _ in texts]

    with pytest.raises(InsufficientData) as refused:
        drawn(200, lambda _: 0.0).calibrated(embedder=Broken({}))
    assert refused.value.served == 0


PAIRS = [Pair("a", "b", same=True), Pair("c", "d", same=True)]


@pytest.mark.parametrize(
    ("examples", "given", "error", "match"),
    [
        ([], {}, ValueError, "2 to 16000 examples, not 0"),
        (PAIRS[:1], {}, ValueError, "not 1"),
        (PAIRS * 8_001, {}, ValueError, "not 16002"),
        ([*PAIRS, Logged("q", 1)], {}, TypeError, "all of class Pair"),
        ([("a", "b", True), ("c", "d", True)], {}, TypeError, "all of class Pair"),
        (["a", "b"], {}, TypeError, "all of class Pair"),
        ([None, None], {}, TypeError, "all of class Pair"),
        *((PAIRS, {"wrong_rate": rate}, ValueError, "between 0 and 1") for rate in (0, 1, -0.1, 2)),
        *((PAIRS, {"confidence": rate}, ValueError, "between 0 and 1") for rate in (0, 1, 95)),
        (PAIRS, {"wrong_rate": float("nan")}, ValueError, "between 0 and 1"),
        (PAIRS, {"thresholds": ()}, ValueError, "at least one of each"),
        (PAIRS, {"choices": ()}, ValueError, "at least one of each"),
    ],
)
def test_what_makes_no_sense_is_refused(
    examples: Any, given: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        calibrate(examples, embedder=Known({}), **given)


def test_a_trial_of_pairs_serves_what_a_judge_admits() -> None:
    pairs = [Pair("a", "b", same=True), Pair("c", "trap d", same=False), Pair("e", "f", same=False)]
    trial = PairTrial(pairs, [0.9, 0.9, 0.7])
    assert trial.run(Judge(0.8, ())) == Outcome(3, 2, 1)
    assert trial.run(Judge(0.8, [Refuses("trap")])) == Outcome(3, 1, 0)
    assert trial.run(Judge(0.6, [Refuses("trap")])) == Outcome(3, 2, 1)
    assert trial.run(Judge(0.95, ())) == Outcome(3, 0, 0)
