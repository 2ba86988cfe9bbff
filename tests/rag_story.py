"""Readers, writers and editors of documents in a random order: is anything stale served?

A story is one seeded order of steps on a few documents and questions. Editors change a
document and invalidate it, with or without its new version. Readers look up; one that
misses reads the documents as they are, and stores its answer some steps later, when they
may have changed (a late writer). The judge knows every version: an answer that is served
must have been made from versions that were current at some time after the lookup began, or
rather: from none that an `invalidate` had ended by then.

    python -m tests.rag_story --stories 10000 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rag_cache import Fence, Hit, Scope, SemanticCache
from tests.rag_ground import caches_on

STEPS = 30
DOCUMENTS = ("d1", "d2", "d3")
QUESTIONS = ("alpha beta gamma delta one", "delta gamma beta alpha one", "other words entirely")


@dataclass
class Draft:
    """An answer that was computed and is not stored yet."""

    question: str
    fence: Fence | None
    read: dict[str, int]
    tells: bool


@dataclass
class Story:
    """One order of steps.

    Attributes:
        now: The version of each document.
        gone: The newest version of each document that an `invalidate` has ended.
    """

    caches: list[SemanticCache]
    scope: Scope
    draw: random.Random
    counts: Counter[str]
    now: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DOCUMENTS, 1))
    gone: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DOCUMENTS, 0))
    drafts: list[Draft] = field(default_factory=list)

    def run(self) -> None:
        for _ in range(STEPS):
            cache = self.draw.choice(self.caches)
            self.draw.choices((self._look, self._store, self._edit), (5, 3, 1.2))[0](cache)

    def _look(self, cache: SemanticCache) -> None:
        question = self.draw.choice(QUESTIONS)
        found = cache.lookup(question, self.scope)
        if isinstance(found, Hit):
            self.counts["hits"] += 1
            stale = [name for name, made in found.value.items() if made <= self.gone[name]]
            self.counts["stale"] += bool(stale)
            return
        self.counts[f"miss {found.reason}"] += 1
        names = self.draw.sample(DOCUMENTS, self.draw.randint(1, 2))
        read = {name: self.now[name] for name in names}
        fence = found.fence if self.draw.random() < 0.8 else None
        self.drafts.append(Draft(question, fence, read, tells=self.draw.random() < 0.6))

    def _store(self, cache: SemanticCache) -> None:
        if not self.drafts:
            return
        draft = self.drafts.pop(self.draw.randrange(len(self.drafts)))
        evidence = {name: str(made) if draft.tells else None for name, made in draft.read.items()}
        stored = cache.store(
            draft.question, self.scope, draft.read, evidence=evidence, fence=draft.fence
        )
        late = any(made <= self.gone[name] for name, made in draft.read.items())
        self.counts[f"stored{' late' * late}" if stored else f"refused {stored.reason}"] += 1

    def _edit(self, cache: SemanticCache) -> None:
        name = self.draw.choice(DOCUMENTS)
        was = self.now[name]
        self.now[name] += 1
        version = str(self.now[name]) if self.draw.random() < 0.5 else None
        cache.invalidate(name, version=version, corpus=self.scope.corpus)
        self.gone[name] = was
        self.counts["edits"] += 1


def tell(url: str, prefix: str, folder: Path, stories: int, seed: int) -> Counter[str]:
    """Tell so many stories, with three caches that stand for processes."""
    counts: Counter[str] = Counter()
    with caches_on(url, prefix, folder) as caches:
        party = [caches() for _ in range(3)]
        for number in range(stories):
            scope = Scope(tenant="t", corpus=f"story {seed} {number % 50}", model=str(number))
            Story(party, scope, random.Random(f"{seed} {number}"), counts).run()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stories", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    from langgraph_valkey.local import LocalValkey

    started_s = time.monotonic()
    with LocalValkey() as valkey, tempfile.TemporaryDirectory() as folder:
        counts = tell(valkey.url, "story", Path(folder), given.stories, given.seed)
    took_s = round(time.monotonic() - started_s, 1)
    print(json.dumps({"stories": given.stories, "seed": given.seed, "took_s": took_s, **counts}))
    if counts["stale"] or not counts["hits"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
