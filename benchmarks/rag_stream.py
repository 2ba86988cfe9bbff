"""A stream of questions to a bank: how many are served at how many wrong ones.

The questions are banking77's (Casanueva et al., "Efficient intent detection with dual sentence
encoders", 2020; CC BY 4.0), in an order drawn at random. Each is looked up among those before
it that missed; right is the answer of the same one of 77 intents. What we serve by was chosen
on questions of the training part: what serves most there, among what can be shown by those to
be wrong rarely enough. The threshold alone is given the best level that the scored part itself
shows. With documents, each intent has an article of some training questions, and
today's best document is the article of the nearest of them.

The data is not part of the package: ``BANKING77`` names the folder of its two CSV files.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import OURS, tell
from benchmarks.figures import Column, Figure, Goal
from benchmarks.session import Session
from rag_cache.calibration import Logged, Outcome, calibrate
from rag_cache.calibration.bounds import upper_bound
from rag_cache.calibration.trying import TrafficTrial
from rag_cache.embedders import MiniLM
from rag_cache.errors import InsufficientData
from rag_cache.guards import EvidenceAgreement, Guard, NeighbourAgreement
from rag_cache.judging import Judge

QUESTIONS, QUESTIONS_QUICK = 3_080, 600
"""Of each stream: the size of the test part."""

WRONG_MOST = 0.01
"""Of the questions asked."""

CONFIDENCE = 0.95

LEVELS = [round(0.80 + 0.005 * step, 3) for step in range(39)]
THRESHOLDS = (0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90)
AGREEING = (2, 3, 4, 6)
SURES = (0.90, 0.95, 0.98)
PASSAGES = 10
"""Training questions in an article."""

STREAMS = 3
STATIC, EVIDENCE = "best threshold alone", f"{OURS}, with documents"
PLAIN = "threshold alone"
FOLDER = os.environ.get("BANKING77", "")

Row = dict[str, str]


def measure(session: Session) -> list[Figure]:
    """The streams, what they show at other thresholds, and a calibration."""
    if not FOLDER:
        tell("rag-stream is left out: BANKING77 names no folder with the CSV files of banking77")
        return []
    session.progress("rag-stream: embedding, about two minutes")
    train, test = (_read(name) for name in ("train", "test"))
    shuffled = random.Random(session.seed).sample(train, len(train))
    if session.quick:
        size, draw = QUESTIONS_QUICK, random.Random(session.seed)
        shuffled, test = shuffled[: 3 * size], draw.sample(test, size)
        return _streams(session, shuffled, test, _embedded(shuffled + test))
    vectors = _embedded(train + test)
    return [
        *_streams(session, shuffled, test, vectors),
        _calibrated(session, train + test, vectors),
    ]


def _read(name: str) -> list[Row]:
    with (Path(FOLDER) / f"{name}.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def _embedded(rows: Sequence[Row]) -> dict[str, Any]:
    texts = list(dict.fromkeys(row["text"] for row in rows))
    return dict(zip(texts, MiniLM(threads=2).embed_array(texts), strict=True))


# --- streams -----------------------------------------------------------------------


def _streams(
    session: Session, train: Sequence[Row], test: Sequence[Row], vectors: dict[str, Any]
) -> list[Figure]:
    figure = Figure("rag-stream", f"banking77 as a stream of {len(test):,} questions, MiniLM")
    figure.columns += [
        Column(OURS, "ours", speaks_valkey=True),
        Column(EVIDENCE, "reference", speaks_valkey=True),
        Column(STATIC, "reference", speaks_valkey=False),
    ]
    articles = _articles(train[len(test) :], vectors)
    tuning = _trial(train[: len(test)], articles, vectors)
    agreement = [(NeighbourAgreement(n, sure),) for n in AGREEING for sure in SURES]
    evidence = [(*guards, EvidenceAgreement()) for guards in agreement]
    ours = _chosen(tuning, [(t, guards) for guards in agreement for t in THRESHOLDS])
    documented = _chosen(tuning, [(t, guards) for guards in evidence for t in THRESHOLDS])
    for number in range(1 if session.quick else STREAMS):
        session.progress(f"rag-stream: stream {number + 1}")
        order = random.Random(session.seed + number).sample(list(test), len(test))
        stream = _trial(order, articles, vectors)
        static = max(
            (stream.run(Judge(level, ())) for level in LEVELS),
            key=lambda found: found.served if _is_right(found) else -1,
        )
        found = {OURS: stream.run(ours), EVIDENCE: stream.run(documented), STATIC: static}
        for name, outcome in found.items():
            _score(figure, name, outcome, static)
    figure.notes.append(
        f"Chosen on training questions: {ours.threshold}, {ours.guards}; with documents: "
        f"{documented.threshold}, {documented.guards}."
    )
    first = random.Random(session.seed).sample(list(test), len(test))
    return [figure, _curves(session, _trial(first, articles, vectors), (ours, documented))]


def _curves(session: Session, stream: TrafficTrial, chosen: tuple[Judge, Judge]) -> Figure:
    """The first stream at other thresholds: what a plot shows."""
    figure = Figure("rag-curve", "The first stream at every threshold: % of questions")
    figure.columns += [
        Column(OURS, "ours", speaks_valkey=True),
        Column(EVIDENCE, "reference", speaks_valkey=True),
        Column(PLAIN, "reference", speaks_valkey=False),
    ]
    ours, documented = (judge.guards for judge in chosen)
    ways = ((OURS, ours, THRESHOLDS), (EVIDENCE, documented, THRESHOLDS), (PLAIN, (), LEVELS[::4]))
    for threshold in sorted({*THRESHOLDS, *LEVELS[::4]}):
        session.progress(f"{figure.name}: {threshold:.2f}")
        for name, guards, thresholds in ways:
            if threshold in thresholds:
                found = stream.run(Judge(threshold, guards))
                wrong = 100 * found.wrong / found.asked
                figure.case(f"{threshold:.2f}: served", "%").add(name, 100 * found.hit_rate)
                figure.case(f"{threshold:.2f}: wrong", "%").add(name, wrong)
    figure.notes.append("Guards as they were chosen on training questions; the threshold varies.")
    return figure


def _score(figure: Figure, name: str, outcome: Outcome, static: Outcome) -> None:
    least = Goal(1.4, "nothing", at_least=True)
    figure.case("served, % of questions", "%").add(name, 100 * outcome.hit_rate)
    figure.case("wrong, % of questions", "%", Goal(100 * WRONG_MOST, "nothing")).add(
        name, 100 * outcome.wrong / outcome.asked
    )
    figure.case("served, x of the threshold alone", "x", least).add(
        name, outcome.served / static.served
    )


def _is_right(outcome: Outcome) -> bool:
    return outcome.wrong <= WRONG_MOST * outcome.asked


def _chosen(tuning: TrafficTrial, choices: Sequence[tuple[float, tuple[Guard, ...]]]) -> Judge:
    """What serves most, among what is right often enough with some confidence."""
    found = {Judge(threshold, guards): Outcome(0, 0, 0) for threshold, guards in choices}
    for judge in found:
        found[judge] = tuning.run(judge)
    fit = [
        judge
        for judge, outcome in found.items()
        if upper_bound(outcome.wrong, outcome.asked, CONFIDENCE) <= WRONG_MOST
    ]
    if not fit:
        raise AssertionError("too few training questions to choose by")
    return max(fit, key=lambda judge: found[judge].served)


def _articles(rows: Sequence[Row], vectors: dict[str, Any]) -> tuple[list[str], Any]:
    """Names of articles and their passages' vectors, one a row."""
    by_intent: dict[str, list[str]] = {}
    for row in rows:
        by_intent.setdefault(row["category"], []).append(row["text"])
    names, passages = [], []
    for intent, texts in sorted(by_intent.items()):
        for text in texts[:PASSAGES]:
            names.append(intent)
            passages.append(vectors[text])
    return names, np.array(passages)


def _trial(
    rows: Sequence[Row], articles: tuple[list[str], Any], vectors: dict[str, Any]
) -> TrafficTrial:
    names, passages = articles
    stacked = np.array([vectors[row["text"]] for row in rows])
    best = (stacked @ passages.T).argmax(axis=1)
    logged = [
        Logged(row["text"], row["category"], (names[at],))
        for row, at in zip(rows, best, strict=True)
    ]
    return TrafficTrial(logged, stacked)


# --- calibration -------------------------------------------------------------------


class _Known:
    """Embeddings that were made before."""

    def __init__(self, vectors: dict[str, Any]) -> None:
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[Any]:
        """Look them up."""
        return [self._vectors[text] for text in texts]


def _calibrated(session: Session, rows: Sequence[Row], vectors: dict[str, Any]) -> Figure:
    figure = Figure("rag-calibration", "calibrate(wrong_rate=0.02) on banking77, held out")
    figure.columns.append(Column(OURS, "ours", speaks_valkey=True))
    session.progress("rag-calibration: about a minute")
    order = random.Random(session.seed).sample(list(rows), len(rows))
    logged = [Logged(row["text"], row["category"]) for row in order]
    embedder: Any = _Known(vectors)
    found = calibrate(logged, embedder=embedder, wrong_rate=0.02)
    least = Goal(1_000, "nothing", at_least=True)
    for name, value, goal in (
        ("wrong of served, at most, %", 100 * found.bound, Goal(2, "nothing")),
        ("wrong of served, %", 100 * found.held_out.wrong_rate, None),
        ("served", found.held_out.served, least),
        ("served, % of questions", 100 * found.held_out.hit_rate, None),
    ):
        figure.case(name, "", goal).add(OURS, value)
    try:
        calibrate(logged[:200], embedder=embedder, wrong_rate=0.02)
    except InsufficientData as refused:
        figure.notes.append(f"From 200 questions: InsufficientData ({refused}).")
    figure.notes.append(f"Chosen: {found.threshold}, {found.guards}.")
    return figure
