"""Readers, writers and editors of documents in a random order: is anything stale served?

A story is one seeded order of steps of some caches, which stand for processes, on a few
documents and questions that several tenants share. Editors change a document and invalidate
it, with or without its new version; others invalidate a tag, a tenant, a scope or a corpus, or
delete one entry. Readers look up; one that misses reads the documents as they are, and stores
its answer some steps later, when they may have changed (a late writer), for ever or for a
moment. The judge knows what was current when: an answer that is served must not have been made
from anything that an `invalidate` had ended before the lookup began.

The same party may act at once, each on a thread of its own, in an order that nobody draws.

    python -m tests.rag_story --stories 10000 --seed 1
    python -m tests.rag_story --at-once 30 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rag_cache import Fence, Hit, Miss, Scope, SemanticCache
from tests.rag_ground import Caches, caches_on

STEPS = 30
DOCUMENTS = ("d1", "d2", "d3")
UNTOLD = ("d3",)
"""Documents whose new versions are never told: they are edited by many at once."""

TAGS = ("t1", "t2")
QUESTIONS = ("alpha beta gamma delta one", "delta gamma beta alpha one", "other words entirely")
TENANTS = ("", "one", "two")
SPREAD = 3
"""Over how many partitions every other corpus is spread."""

CORPORA = 16
SWEPT = 4
"""Of so many corpora whole tenants and scopes are invalidated: without a fence nothing can be
stored there any more."""

MOMENT_S = 0.01
"""How long an entry lives that is not stored for ever."""

MEMORY = Path("/dev/shm")
"""Where the primary store's file is kept, if there is such a place: disks would take the time."""

SLACK_S = 0.002
"""The server's clock counts milliseconds, and is not ours."""


class Ended(NamedTuple):
    """What had ended at a time.

    Attributes:
        marks: Of each mark the newest state that an `invalidate` has ended.
        entries: Numbers of the entries that a `delete` has deleted.
        now_s: The time.
    """

    marks: dict[str, int]
    entries: frozenset[int]
    now_s: float


@dataclass
class Draft:
    """An answer that was computed and is not stored yet.

    Attributes:
        made: Of each of its marks in which state it was.
    """

    question: str
    scope: Scope
    fence: Fence | None
    documents: list[str]
    tags: list[str]
    made: dict[str, int]
    tells: bool


class Judge:
    """Knows what is current, and what has ended; safe to use from many threads."""

    def __init__(self) -> None:
        self._now: Counter[str] = Counter()
        self._gone: dict[str, int] = {}
        self._dead: set[int] = set()
        self._numbers = 0
        self._stored: dict[tuple[Scope, str], set[int]] = {}
        self._expires_s: dict[int, float] = {}
        self._lock = threading.Lock()
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def read(self, marks: Iterable[str]) -> dict[str, int]:
        """In which state these marks are: each begins with 1."""
        with self._lock:
            return {mark: self._now[mark] + 1 for mark in marks}

    def turn(self, mark: str) -> threading.Lock:
        """Is held by who changes a mark and tells its new version.

        Which one of two versions is the newer one nobody knows but who has made them. So
        editors who tell versions of a document do so in the order of their changes.
        """
        with self._lock:
            return self._turns[mark]

    def change(self, mark: str) -> int:
        """Change one; in which state it was."""
        with self._lock:
            self._now[mark] += 1
            return self._now[mark]

    def end(self, mark: str, was: int) -> None:
        """An `invalidate` has ended this state, and all before it."""
        with self._lock:
            self._gone[mark] = max(was, self._gone.get(mark, 0))

    def ended(self) -> Ended:
        """What has ended by now."""
        with self._lock:
            return Ended(dict(self._gone), frozenset(self._dead), time.monotonic())

    def number(self) -> int:
        """A number for an entry that is about to be stored."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def stored(self, draft: Draft, number: int, ttl_s: float | None) -> None:
        """It was stored."""
        with self._lock:
            self._stored.setdefault((draft.scope, draft.question), set()).add(number)
            if ttl_s is not None:
                self._expires_s[number] = time.monotonic() + ttl_s

    def there(self) -> list[tuple[Scope, str]]:
        """Of what something was stored."""
        with self._lock:
            return list(self._stored)

    def doomed(self, scope: Scope, question: str) -> set[int]:
        """The entries that a `delete` which begins now deletes."""
        with self._lock:
            return set(self._stored.get((scope, question), ()))

    def delete(self, numbers: set[int]) -> None:
        """A `delete` has deleted them."""
        with self._lock:
            self._dead |= numbers

    def verdicts(self, ended: Ended, number: int, made: dict[str, int]) -> list[str]:
        """What is wrong with a hit, by what had ended when the lookup began."""
        with self._lock:
            expires_s = self._expires_s.get(number, float("inf"))
        return [
            *(["stale"] if is_stale(made, ended) else []),
            *(["undead"] if number in ended.entries else []),
            *(["expired"] if ended.now_s > expires_s + SLACK_S else []),
        ]


def is_stale(made: dict[str, int], ended: Ended) -> bool:
    return any(state <= ended.marks.get(mark, 0) for mark, state in made.items())


def marks_of(scope: Scope) -> tuple[str, str, str]:
    """The marks that all entries of a scope have."""
    return f"tenant {scope.tenant}", f"scope {scope.key}", "corpus"


@dataclass
class Story:
    """One order of steps.

    Attributes:
        caches: Who takes them.
        scopes: In which scopes.
        sweeps: Whether whole scopes are invalidated.
        name: What its documents' and tags' names end with.
    """

    caches: list[SemanticCache]
    scopes: list[Scope]
    draw: random.Random
    counts: Counter[str]
    judge: Judge = field(default_factory=Judge)
    sweeps: bool = False
    name: str = ""
    drafts: list[Draft] = field(default_factory=list)

    def run(self, steps: int = STEPS) -> None:
        for _ in range(steps):
            cache, scope = self.draw.choice(self.caches), self.draw.choice(self.scopes)
            taken = (self._look, self._store, self._edit, self._untag, self._delete, self._sweep)
            weights = (5, 3, 1.2, 0.3, 0.3, 0.2 * self.sweeps)
            self.draw.choices(taken, weights)[0](cache, scope)

    def _look(self, cache: SemanticCache, scope: Scope) -> None:
        question = self.draw.choice(QUESTIONS)
        ended = self.judge.ended()
        found = cache.lookup(question, scope)
        if isinstance(found, Hit):
            self.counts["hits"] += 1
            number, made = found.value
            for verdict in self.judge.verdicts(ended, number, made):
                self.counts[verdict] += 1
            self.counts["another's"] += f"tenant {scope.tenant}" not in made
            return
        self._draft(question, scope, found)

    def _draft(self, question: str, scope: Scope, found: Miss) -> None:
        self.counts[f"miss {found.reason}"] += 1
        documents = [
            f"{each}{self.name}" for each in self.draw.sample(DOCUMENTS, self.draw.randint(1, 2))
        ]
        tags = [f"{each}{self.name}" for each in TAGS if self.draw.random() < 0.2]
        made = self.judge.read([*documents, *tags, *marks_of(scope)])
        fence = found.fence if self.draw.random() < 0.8 else None
        tells = self.draw.random() < 0.6
        self.drafts.append(Draft(question, scope, fence, documents, tags, made, tells))

    def _store(self, cache: SemanticCache, _: Scope) -> None:
        if not self.drafts:
            return
        draft = self.drafts.pop(self.draw.randrange(len(self.drafts)))
        number, ended = self.judge.number(), self.judge.ended()
        ttl_s = MOMENT_S if self.draw.random() < 0.2 else None
        stored = cache.store(
            *(draft.question, draft.scope, [number, draft.made]),
            evidence={
                name: str(draft.made[name]) if draft.tells else None for name in draft.documents
            },
            tags=draft.tags,
            fence=draft.fence,
            ttl_s=ttl_s,
        )
        late = " late" if is_stale(draft.made, ended) else ""
        self.counts[f"stored{late}" if stored else f"refused {stored.reason}"] += 1
        if stored:
            self.judge.stored(draft, number, ttl_s)

    def _edit(self, cache: SemanticCache, scope: Scope) -> None:
        document = self.draw.choice(DOCUMENTS)
        name = f"{document}{self.name}"
        in_turn: AbstractContextManager[object] = nullcontext()
        if document not in UNTOLD:
            in_turn = self.judge.turn(name)
        tells = document not in UNTOLD and self.draw.random() < 0.6
        with in_turn:
            was = self.judge.change(name)
            version = str(was + 1) if tells else None
            self.end(cache, name, was, document=name, version=version, corpus=scope.corpus)
        self.counts["edits"] += 1

    def _untag(self, cache: SemanticCache, scope: Scope) -> None:
        tag = f"{self.draw.choice(TAGS)}{self.name}"
        self.end(cache, tag, self.judge.change(tag), tag=tag, corpus=scope.corpus)
        self.counts["tags"] += 1

    def _sweep(self, cache: SemanticCache, scope: Scope) -> None:
        mark = self.draw.choice(marks_of(scope))
        given: dict[str, Any] = {"corpus": scope.corpus}
        if mark.startswith("tenant"):
            given["tenant"] = scope.tenant
        elif mark.startswith("scope"):
            given["scope"] = scope
        self.end(cache, mark, self.judge.change(mark), **given)
        self.counts["sweeps"] += 1

    def end(self, cache: SemanticCache, mark: str, was: int, **given: Any) -> None:
        """End what was made from a mark in this state, or before."""
        cache.invalidate(**given)
        self.judge.end(mark, was)

    def _delete(self, cache: SemanticCache, scope: Scope) -> None:
        there = self.judge.there()
        question = self.draw.choice(QUESTIONS)
        if there and self.draw.random() < 0.8:
            scope, question = self.draw.choice(there)
        doomed = self.judge.doomed(scope, question)
        cache.delete(question, scope)
        self.judge.delete(doomed)
        self.counts["deletes"] += 1


def scopes(corpus: str, model: str) -> list[Scope]:
    """What one story is about: a corpus that tenants share."""
    return [Scope(tenant=tenant, corpus=corpus, model=model) for tenant in TENANTS]


@contextmanager
def on_stage(url: str, prefix: str, folder: Path) -> Iterator[Caches]:
    """Caches whose primary store is in memory, if there is a place for it, else in a folder."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else folder) as place,
        caches_on(url, prefix, Path(place)) as caches,
    ):
        yield caches


def tell(url: str, prefix: str, folder: Path, stories: int, seed: int) -> Counter[str]:
    """Tell so many stories, with three caches that stand for processes."""
    counts: Counter[str] = Counter()
    with on_stage(url, prefix, folder) as caches:
        parties = [_party(caches, spread) for spread in (1, SPREAD)]
        for number in range(stories):
            of = number % CORPORA
            story = Story(
                parties[of % 2],
                scopes(f"story {seed} {of}", str(number)),
                random.Random(f"{seed} {number}"),
                counts,
                sweeps=of < SWEPT,
                name=f" of {number}",
            )
            story.run()
    return counts


def tell_at_once(
    url: str, prefix: str, folder: Path, lasts_s: float, seed: int, actors: int = 6
) -> Counter[str]:
    """Tell one story after the other for a time, each by many threads at once."""
    total: Counter[str] = Counter()
    until_s = time.monotonic() + lasts_s
    with on_stage(url, prefix, folder) as caches:
        parties = [_party(caches, spread) for spread in (1, SPREAD)]
        number = 0
        while time.monotonic() < until_s:
            judge, about = Judge(), scopes(f"at once {seed} {number % 4}", str(number))
            told = [
                Story(
                    parties[number % 2],
                    about,
                    random.Random(f"{seed} {number} {actor}"),
                    Counter(),
                    judge,
                    sweeps=number % 4 < 2,
                    name=f" of {number}",
                )
                for actor in range(actors)
            ]
            threads = [threading.Thread(target=each.run, args=(3 * STEPS,)) for each in told]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for each in told:
                total.update(each.counts)
            total["stories"] += 1
            number += 1
    return total


def _party(caches: Caches, spread: int) -> list[SemanticCache]:
    # A busy machine must not turn hits into misses.
    return [caches(spread=spread, lookup_deadline_ms=5000, rows_most=2000) for _ in range(3)]


WRONG = ("stale", "undead", "expired", "another's")
"""What must never be served."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stories", type=int, default=10_000)
    parser.add_argument("--at-once", type=float, help="tell stories on threads for so many seconds")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    from langgraph_valkey.local import LocalValkey

    started_s = time.monotonic()
    with LocalValkey() as valkey, tempfile.TemporaryDirectory() as folder:
        where = (valkey.url, "story", Path(folder))
        if given.at_once is None:
            counts = tell(*where, given.stories, given.seed)
            counts["stories"] = given.stories
        else:
            counts = tell_at_once(*where, given.at_once, given.seed)
    took_s = round(time.monotonic() - started_s, 1)
    wrong = {name: counts[name] for name in WRONG}
    print(json.dumps({"seed": given.seed, "took_s": took_s, **wrong, **counts}))
    if any(wrong.values()) or not counts["hits"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
