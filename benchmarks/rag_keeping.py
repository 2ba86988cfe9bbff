"""What a semantic cache serves to others, and how long an answer lives that is asked for.

One tenant's answers, asked for by another one, word by word; and an entry that was stored
for five seconds, of which it is known how long it lives once it has hit. An answer that is
asked for again and again must end with its time all the same, or it is never made anew.
"""

from __future__ import annotations

import time

from benchmarks import rag_faces, rag_peers
from benchmarks.faces import FACES, FaceName, Opened
from benchmarks.figures import Figure, Goal
from benchmarks.rag_questions import Prepared, Questions
from benchmarks.servers import ValkeyStore
from benchmarks.session import Session

QUESTIONS = 100
OWNER, OTHER = "acme", "umbrella"
LIFE_S, LATER_S = 5, 1.5

NONE, NOT_LONGER = Goal(0, "nothing"), Goal(LIFE_S - LATER_S, "nothing")


def measure(session: Session) -> list[Figure]:
    """Both, on both faces."""
    figure = Figure("rag-keeping", "What others are served, and how long an entry lives")
    figure.notes.append(
        f"{rag_peers.REDISVL} has a tag for tenants and filters by it, {rag_peers.LANGCHAIN_REDIS} "
        f"a cache for each, {rag_peers.BETTERDB} a category, which chooses a threshold and filters "
        "nothing. Entries live for an hour by default."
    )
    for face in FACES:
        questions = Questions(QUESTIONS, session.seed)
        embedder, store = Prepared(questions), session.servers.valkey(cluster=True)
        prefix = session.new_thread()
        lined_up = [
            rag_faces.ours(session.servers, face, store, prefix, embedder),
            *rag_peers.line_up(session.servers, face, embedder),
        ]
        with session.opened(lined_up, figure) as opened:
            for who in opened:
                session.progress(f"{figure.name}: {who.contender.name}, {face}")
                _one(figure, face, who, questions)
    return [figure]


def _one(figure: Figure, face: FaceName, who: Opened, questions: Questions) -> None:
    name = f"another tenant's entries served, of {QUESTIONS}, {face}"
    served = who.run(_asked_by_another(who, questions))
    figure.case(name, "", NONE).add(who.contender.name, served)
    name = f"life left {LATER_S} s after storing for {LIFE_S} s, having hit, {face}"
    figure.case(name, "s", NOT_LONGER).add(who.contender.name, _life_left_s(who))


async def _asked_by_another(who: Opened, questions: Questions) -> int:
    for number, question in enumerate(questions.stored):
        await who.saver.keep(question, questions.answer(number), OWNER)
    for number, question in enumerate(questions.stored):
        if await who.saver.ask(question, OWNER) != questions.answer(number):
            raise AssertionError(f"{who.contender.name} does not serve its owner")
    found = [await who.saver.ask(question, OTHER) for question in questions.stored]
    return sum(each is not None for each in found)


def _life_left_s(who: Opened) -> float:
    store, question = who.contender.store, "How long does this one live?"
    assert isinstance(store, ValkeyStore)
    before = set(store.keys())
    who.run(who.saver.keep(question, "For five seconds.", "soon", life_s=LIFE_S))
    [key] = [key for key in set(store.keys()) - before if 0 < _left_ms(store, key) <= LIFE_S * 1000]
    time.sleep(LATER_S)
    if who.run(who.saver.ask(question, "soon")) is None:
        raise AssertionError(f"{who.contender.name} does not serve what it has")
    return _left_ms(store, key) / 1000


def _left_ms(store: ValkeyStore, key: bytes) -> int:
    return int(store.command("PTTL", key))
