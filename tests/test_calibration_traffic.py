"""Calibrating on logged traffic, and showing what came of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from langgraph_valkey.errors import ConfigurationError
from rag_cache.calibration import Calibration, Logged, Outcome, calibrate
from rag_cache.calibration.trying import NEIGHBOURS, TrafficTrial, halves
from rag_cache.errors import InsufficientData
from rag_cache.guards import Asked, Candidate, EvidenceAgreement, NeighbourAgreement
from rag_cache.judging import Judge

# --- played back -------------------------------------------------------------------


class Notes:
    """A guard that notes what it saw, and refuses what is cached under certain questions."""

    name = "notes"

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.saw: list[tuple[Asked, Candidate]] = []

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        self.saw.append((asked, candidate))
        return "no" if candidate.question in self.refused else None


def trial(
    *logged: tuple[str, float, Any] | tuple[str, float, Any, tuple[str, ...]],
) -> TrafficTrial:
    """Traffic whose questions stand at angles, in degrees."""
    turned = np.radians([each[1] for each in logged])
    vectors = np.stack([np.cos(turned), np.sin(turned)], axis=1).astype("<f4")
    return TrafficTrial([Logged(each[0], *each[2:]) for each in logged], vectors)


def test_each_question_is_looked_up_among_those_that_missed() -> None:
    # 10 degrees are a cosine of 0.985, 20 are 0.94.
    found = trial(
        ("a", 0, "A"),  # misses
        ("b", 10, "A"),  # hits a, and is not stored
        ("c", 19, "A"),  # misses: only b would have been near
        ("d", 25, "B"),  # hits c, wrongly
        ("e", 1, "B"),  # hits a, wrongly
        ("f", 90, "B"),  # misses
    )
    assert found.run(Judge(0.98, ())) == Outcome(6, 3, 2)
    assert found.run(Judge(-1.0, ())) == Outcome(6, 5, 3)
    assert found.run(Judge(1.1, ())) == Outcome(6, 0, 0)
    # Each run begins with nothing cached.
    assert found.run(Judge(0.98, ())) == Outcome(6, 3, 2)


def test_the_best_that_guards_admit_is_served() -> None:
    found = trial(("a", 0, "A"), ("b", 20, "B"), ("c", 9, "B"))
    assert found.run(Judge(0.97, ())) == Outcome(3, 1, 1)
    assert found.run(Judge(0.97, [Notes("a")])) == Outcome(3, 1, 0)
    assert found.run(Judge(0.97, [Notes("a", "b")])) == Outcome(3, 0, 0)


def test_guards_see_as_many_neighbours_as_in_a_cache() -> None:
    notes = Notes(*(f"q{n}" for n in range(30)))
    found = trial(*((f"q{n}", 3 * n, "A") for n in range(20)))
    found.run(Judge(0.0, [notes]))
    last = [asked for asked, _ in notes.saw if asked.question == "q19"]
    assert {len(asked.neighbours) for asked in last} == {NEIGHBOURS}
    assert [each.question for each in last[0].neighbours] == [f"q{n}" for n in range(18, 10, -1)]
    scores = [each.score for each in last[0].neighbours]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(np.cos(np.radians(3)), abs=1e-6)


def test_neighbours_agree_by_answers_however_they_are_written() -> None:
    @dataclass(frozen=True, repr=False)
    class Answer:
        text: str

    agree = [NeighbourAgreement(2, 1.01)]
    same = [("a", 0, Answer("x")), ("b", 40, Answer("x")), ("c", 20, Answer("x"))]
    assert trial(*same).run(Judge(0.9, agree)) == Outcome(3, 1, 0)
    assert trial(*same[:2], ("c", 20, Answer("y"))).run(Judge(0.9, agree)) == Outcome(3, 1, 1)
    apart = [same[0], ("b", 40, Answer("y")), same[2]]
    assert trial(*apart).run(Judge(0.9, agree)) == Outcome(3, 0, 0)
    mixed = [("a", 0, 1), ("b", 40, 1.0), ("c", 20, True)]
    assert trial(*mixed).run(Judge(0.9, agree)) == Outcome(3, 1, 0)


def test_todays_documents_are_those_that_were_logged() -> None:
    found = trial(("a", 0, "A", ("d1",)), ("b", 5, "A", ("d1", "d2")), ("c", 5, "B", ("d2",)))
    assert found.run(Judge(0.9, ())) == Outcome(3, 2, 1)
    assert found.run(Judge(0.9, [EvidenceAgreement()])) == Outcome(3, 1, 0)


# --- calibrated --------------------------------------------------------------------

INTENTS, OTHERS = 12, 200
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.999999)


class Corners(Embeddings):
    """Embeds "3 7" near the third corner, and "3? 7" between that and the next one."""

    def embed_query(self, text: str) -> list[float]:
        corner, number = text.split()
        found = np.zeros(INTENTS + OTHERS)
        own = np.random.default_rng(int(number)).standard_normal(OTHERS)
        own /= np.linalg.norm(own)
        at = int(corner.rstrip("?"))
        found[at] = 1.0
        if corner.endswith("?"):
            found[(at + 1) % INTENTS] = 1.0
            found[INTENTS:] = 0.9 * own
        else:
            found[INTENTS:] = 0.1 * own
        return list(map(float, found))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def traffic(count: int, unsure: float, seed: int = 0) -> list[Logged]:
    """Questions of 12 intents; a part of them stands between two, and may mean either.

    What is sure has a cosine of 0.98 and more to its like; what is not, of about 0.6 to what
    is, and of 0.7 to its like.
    """
    draw, logged = np.random.default_rng(seed), []
    for number in range(count):
        corner, between = int(draw.integers(INTENTS)), draw.random() < unsure
        intent = (corner + int(draw.integers(2))) % INTENTS if between else corner
        logged.append(Logged(f"{corner}{'?' * between} {number}", intent))
    return logged


def test_traffic_is_parted_in_time() -> None:
    logged = traffic(101, 0.1)
    fit, test = halves(logged, Corners(), seed=1)
    assert isinstance(fit, TrafficTrial)
    assert isinstance(test, TrafficTrial)
    assert (fit._logged, test._logged) == (logged[:50], logged[50:])
    other, _ = halves(logged, Corners(), seed=2)
    assert isinstance(other, TrafficTrial)
    assert other._logged == fit._logged


def test_a_threshold_is_found_for_traffic() -> None:
    logged = traffic(1_200, 0.2)
    given: dict[str, Any] = {"embedder": Corners(), "wrong_rate": 0.02, "choices": [()]}
    found = calibrate(logged, thresholds=LEVELS, **given)
    assert found.threshold == 0.8
    assert found.bound <= 0.02
    assert found.held_out.asked == 600
    assert found.held_out.hit_rate > 0.7
    unit = np.array(Corners().embed_documents([each.question for each in logged[600:]]))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    again = TrafficTrial(logged[600:], unit.astype("<f4"))
    assert again.run(Judge(found.threshold, found.guards)) == found.held_out


def test_agreement_is_chosen_where_it_pays() -> None:
    """Questions between two intents have neighbours of both."""
    agree = (NeighbourAgreement(6, 1.01),)
    logged = traffic(2_000, 0.2)
    given: dict[str, Any] = {"embedder": Corners(), "wrong_rate": 0.06, "thresholds": [0.5]}
    found = calibrate(logged, choices=[(), agree], **given)
    assert (found.threshold, found.guards) == (0.5, agree)
    assert found.held_out.served > 500
    with pytest.raises(InsufficientData, match="wrong too often"):
        calibrate(logged, choices=[()], **given)


def test_the_choices_offered_are_tried_on_traffic() -> None:
    found = calibrate(traffic(600, 0.02), embedder=Corners(), wrong_rate=0.1)
    assert len(found.choices) > 50
    assert found.bound <= 0.1
    rates = [each.fitted.hit_rate for each in found.choices]
    assert rates == sorted(rates)


# --- shown -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown() -> Calibration:
    return calibrate(
        traffic(1_200, 0.2),
        embedder=Corners(),
        wrong_rate=0.03,
        thresholds=LEVELS,
        choices=[(), (NeighbourAgreement(4, 1.01),)],
    )


def test_the_table_shows_what_was_tested_and_chosen(shown: Calibration) -> None:
    title, held_out, empty, head, rule, *rows = shown.table().splitlines()
    assert title == f"threshold {shown.threshold:.2f}, guards: none"
    outcome = shown.held_out
    assert f"{outcome.asked} asked, {outcome.served} served ({outcome.hit_rate:.1%})" in held_out
    assert f"at most {shown.bound:.2%} with confidence 95%" in held_out
    assert (empty, head.count("|"), rule.count("---")) == ("", 7, 6)
    tested = [each for each in shown.choices if each.held_out is not None]
    assert len(rows) == len(tested) >= 2
    verdicts = [row.split("|")[6].strip() for row in rows]
    assert verdicts.count("chosen") == 1
    [at] = [at for at, verdict in enumerate(verdicts) if verdict == "chosen"]
    assert rows[at].startswith(f"| {shown.threshold:.2f} | none | {outcome.hit_rate:.1%} |")
    assert set(verdicts[:at]) <= {"kept"}
    assert verdicts[at + 1 :] in ([], ["failed"])
    for row, choice in zip(rows, tested, strict=True):
        assert choice.held_out is not None
        assert f"| {choice.held_out.wrong_rate:.2%} | {choice.held_out.bound(0.95):.2%} |" in row


def test_the_plot_shows_every_sort_of_guards_and_the_choice(
    shown: Calibration, tmp_path: Path
) -> None:
    for ending, head in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        path = tmp_path / f"calibration.{ending}"
        shown.plot(path)
        assert path.read_bytes().startswith(head)
    drawn = (tmp_path / "calibration.svg").read_text()
    for text in (
        "none",
        "NeighbourAgreement(4, sure=1.01)",
        "chosen, on held-out examples",
        "served, % of questions",
        "wrong, % of what is served",
    ):
        assert f"<!-- {text} -->" in drawn
    shown.plot(str(tmp_path / "as a text.png"))
    assert (tmp_path / "as a text.png").stat().st_size > 1_000


def test_without_matplotlib_it_says_what_to_install(
    shown: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"langgraph-valkey\[plot\]"):
        shown.plot(tmp_path / "plot.png")
