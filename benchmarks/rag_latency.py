"""What a hit of the semantic cache takes, what of that is ours, and what it asks of a server.

All caches have the same entries, are asked the same questions, and have their embeddings
from a table, so what a model would take is left out; what a cache makes of the list of
numbers it is handed is not. For the floor see `rag_floor`.

An embedder that takes longer than a call makes our cache ask for the very question first,
so a hit by meaning takes it two calls. That is a row of its own: the embedder is busy for
two milliseconds, which are subtracted.
"""

from __future__ import annotations

import contextlib
import gc
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import rag_faces, rag_peers, rag_search
from benchmarks.contenders import FLOOR, OURS, tell
from benchmarks.faces import FACES, Contender, FaceName, Opened
from benchmarks.figures import Figure, Goal, take_turns
from benchmarks.rag_floor import BARE_CALL, rulers
from benchmarks.rag_questions import Prepared, Questions
from benchmarks.servers import ValkeyStore
from benchmarks.session import Session

SMALL, LARGE = 1_000, 10_000
HITS, HITS_QUICK = 300, 60
WARM_UP = 20
ROUNDS, ROUNDS_QUICK = 11, 2
BUSY_S = 0.002
DEADLINE_MS = 2_000
"""Of a lookup here: when the machine stalls, that is a slow hit and no miss."""

LOOKS_MOST, LOOK_S = 60, 0.1
AT_HAND = 100
"""Entries that a process keeps at hand which has to ask the server's index."""

EXACT, MEANING = Goal(0.3, "nothing"), Goal(0.4, "nothing")
OVERHEAD, WITH_SEARCH = Goal(0.15, "nothing"), Goal(0.25, "nothing")
"""Beyond the floor; a search may take 0.1 ms of it."""

ONE = Goal(1, "nothing")


def measure(session: Session) -> list[Figure]:
    """The search alone, whole hits, and what they ask of the server."""
    hits = Figure("rag-hit", "A whole hit of the semantic cache, embedding excluded, p50, ms")
    hits.notes += [
        f"The floor is a GET of as many bytes as a hit brings; '{BARE_CALL}' is its own command, "
        "sent by GLIDE and not looked at. Less is spent in the server and on the way for both.",
        f"Entries have answers of 550 characters and two documents each; {SMALL:,} of them if "
        "nothing else is said. The peers have a server with a search module, out of cluster mode.",
    ]
    trips = Figure("rag-trips", "What a hit of the semantic cache asks of the server")
    trips.notes.append("Counted at the server: what its clients sent, and its read events.")
    for face in FACES:
        _one_face(session, hits, trips, face)
    return [rag_search.measure(session), hits, trips]


@dataclass(frozen=True, slots=True)
class _Row:
    """Hits of one kind.

    Attributes:
        name: Of the row.
        tier: Where our hits have to come from.
        who: Those who take part, ours first.
        questions: Those that have answers.
        embedder: Of ours.
        goal: Of a hit.
        overhead: Of what it takes beyond the floor.
        calls: How often it may ask the server.
    """

    name: str
    tier: str
    who: Sequence[Opened]
    questions: Questions
    embedder: Prepared
    goal: Goal | None = None
    overhead: Goal | None = None
    calls: Goal | None = None

    def texts(self, count: int) -> list[str]:
        """What to ask: the very questions, or others that nobody has asked before."""
        if self.tier != "exact":
            return self.questions.reworded(count)
        stored = self.questions.stored
        return [stored[7 * at % len(stored)] for at in range(count)]


def _one_face(session: Session, hits: Figure, trips: Figure, face: FaceName) -> None:
    store = session.servers.valkey(cluster=True)
    sizes = (SMALL, SMALL if session.quick else LARGE, SMALL, SMALL)
    questions = [Questions(size, session.seed) for size in sizes]
    busy_s = (0.0, 0.0, BUSY_S, 0.0)
    embedders = [Prepared(each, s) for each, s in zip(questions, busy_s, strict=True)]

    def ours(number: int, where: ValkeyStore, **settings: Any) -> Contender:
        prefix, embedder = session.new_thread(), embedders[number]
        settings["lookup_deadline_ms"] = DEADLINE_MS
        return rag_faces.ours(session.servers, face, where, prefix, embedder, **settings)

    lined_up = [ours(number, store) for number in range(3)]
    try:
        searching = session.servers.searching(cluster=True)
    except ImportError as error:
        tell(f"the server's index is left out, as there is no search module: {error}")
    else:
        lined_up.append(ours(3, searching, rows_most=AT_HAND, protocol=2))
    with contextlib.ExitStack() as stack:
        mine = stack.enter_context(session.opened(lined_up, hits))
        for who, each in zip(mine, questions, strict=False):
            session.progress(f"{hits.name}: {face}, storing")
            who.run(rag_faces.fill(who.saver, each))
        ruled = rulers(face, store, mine[0].saver, questions[0].stored[0])
        ruling = stack.enter_context(session.opened(ruled, hits))
        lined_up = rag_peers.line_up(session.servers, face, embedders[0])
        peers = stack.enter_context(session.opened(lined_up, hits))
        for who in peers:
            session.progress(f"{hits.name}: {face}, storing, {who.contender.name}")
            who.run(_fill(who, questions[0]))
        for row in _rows(face, questions, mine, ruling, peers, embedders):
            _one_row(session, hits, row)
            _count(session, trips, row)


async def _fill(who: Opened, questions: Questions) -> None:
    for number, question in enumerate(questions.stored):
        await who.saver.keep(question, questions.answer(number))


def _rows(
    face: FaceName,
    questions: Sequence[Questions],
    mine: Sequence[Opened],
    ruling: Sequence[Opened],
    peers: Sequence[Opened],
    embedders: Sequence[Prepared],
) -> Iterator[_Row]:
    everyone = (mine[0], *ruling, *peers)
    first = (questions[0], embedders[0])
    near = f"the same meaning, {face}"
    yield _Row(f"the very question, {face}", "exact", everyone, *first, EXACT, OVERHEAD, ONE)
    yield _Row(near, "process", everyone, *first, MEANING, WITH_SEARCH, ONE)
    for number, tier, name in (
        (1, "process", f"{len(questions[1]):,} entries"),
        (2, "process", "slow embedder"),
        (3, "server", "by the server's index"),
    ):
        if number < len(mine):
            who = (mine[number], *ruling)
            yield _Row(f"{near}, {name}", tier, who, questions[number], embedders[number])


# --- what it takes ---------------------------------------------------------------------


def _one_row(session: Session, figure: Figure, row: _Row) -> None:
    rounds = ROUNDS_QUICK if session.quick else ROUNDS
    count = HITS_QUICK if session.quick else HITS
    case = figure.case(row.name, "ms", row.goal)
    _check(row)
    texts = [row.texts(WARM_UP + count) for _ in range(rounds)]

    def one(who: Opened, turn: int) -> None:
        session.progress(f"{figure.name}: {row.name}, round {turn + 1}/{rounds}")
        with _no_gc():
            spent_ms = who.run(_timed(who.saver, texts[turn], row.embedder))
        case.add(who.contender.name, statistics.median(spent_ms[WARM_UP:]))

    take_turns(row.who, rounds, one)
    beyond = figure.case(f"{row.name}: over the floor", "ms", row.overhead)
    for ours_ms, floor_ms in zip(case.samples[OURS], case.samples[FLOOR], strict=True):
        beyond.add(OURS, ours_ms - floor_ms)


def _check(row: _Row) -> None:
    """Wait until our hits come from where they are said to come: an index takes its time."""
    ours = row.who[0]
    for _ in range(LOOKS_MOST):
        texts = row.texts(WARM_UP)
        before = ours.saver.cache.stats().hits.get(row.tier, 0)
        ours.run(_timed(ours.saver, texts, row.embedder))
        hits = ours.saver.cache.stats().hits.get(row.tier, 0) - before
        if hits == len(texts):
            return
        time.sleep(LOOK_S)
    raise AssertionError(f"{row.name}: only {hits} hits of {len(texts)} came from {row.tier!r}")


async def _timed(cache: Any, texts: Sequence[str], embedder: Prepared) -> list[float]:
    """Milliseconds of each hit; what the embedder was busy is left out."""
    spent_ms = []
    for text in texts:
        busy_s = embedder.spent_s
        started = time.perf_counter()
        found = await cache.ask(text)
        spent_s = time.perf_counter() - started - (embedder.spent_s - busy_s)
        if found is None:
            raise AssertionError(f"no answer to {text!r}")
        spent_ms.append(spent_s * 1e3)
    return spent_ms


@contextlib.contextmanager
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# --- what it asks ----------------------------------------------------------------------


def _count(session: Session, figure: Figure, row: _Row) -> None:
    count = HITS_QUICK if session.quick else HITS
    for who in row.who:
        if who.contender.role not in ("ours", "peer"):
            continue
        figure.take_part(who)
        store, name = who.contender.store, who.contender.name
        assert isinstance(store, ValkeyStore)
        texts = row.texts(count)
        before = _seen(store)
        who.run(_timed(who.saver, texts, row.embedder))
        # The second look is itself a read.
        sent, inside, reads = _seen(store) - before - _LOOK
        figure.case(f"{row.name}: round trips", "", row.calls).add(name, reads / count)
        figure.case(f"{row.name}: commands sent", "", row.calls).add(name, sent / count)
        if row.calls is not None:
            figure.case(f"{row.name}: commands run by scripts", "").add(name, inside / count)


_LOOK = np.array([0, 0, 1])


def _seen(store: ValkeyStore) -> np.ndarray[Any, Any]:
    """Commands that the server was sent, those that scripts ran, and its read events.

    A server counts both sorts alike. Ours sends scripts and searches alone, and the peers no
    scripts.
    """
    text = store.command("INFO", "stats", "commandstats").decode()
    reads = int(re.findall(r"^total_reads_processed:(\d+)", text, re.M)[0])
    found = re.findall(r"^cmdstat_(\S+?):calls=(\d+)", text, re.M)
    counts = {name.lower(): int(count) for name, count in found}
    counts.pop("info", None)
    sent, every = _sum(counts, ("eval", "ft.")), _sum(counts, ("",))
    if not _sum(counts, ("eval",)):
        return np.array([every, 0, reads])
    return np.array([sent, every - sent, reads])


def _sum(counts: dict[str, int], beginnings: tuple[str, ...]) -> int:
    return sum(count for name, count in counts.items() if name.startswith(beginnings))
