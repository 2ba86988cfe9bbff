"""Many tenants with the same questions on shared servers: is one ever served another's entry?

Each step draws a tenant, a question and one of several caches that stand for processes.
Tenants have names that are easily taken for each other: braces, NUL, look-alikes, what keys
are made of, one that is a part of another. Questions are the same for all, so that both tiers
find what they may find. Now and then something goes wrong on purpose: an entry is moved to
where another tenant's belongs, with the digests of its new place, as after a bug or a
collision. A value says whose it is, in which scope and about what; the judge compares that
with who asks.

    python -m tests.rag_tenants --lookups 100000 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from langgraph_valkey.local import LocalValkey
from rag_cache import Fence, Miss, Scope, SemanticCache
from tests.rag_ground import caches_on

NAMES = (
    *("", " ", "  ", "\0", "\0\0", "a", "a ", " a", "A", "\u0430", "\uff41", "a\u200b", "a\u0301"),
    *("\u00e1", "{}", "{a}", "{a}{b}", "}{", "a}b", "a:b", "a::b", "a:b:0", "a\0b", "a,b", '","'),
    *('a","b', "a|b", "a/b", "a%3Ab", "*", "?", "[a]", "\\", "'", '"', "None", "null", "0", "1"),
    *(
        "True",
        "default",
        "handbook",
        "tenant",
        "\ud800",
        "\udfff",
        "\U0001f600",
        "a" * 512,
        "a" * 511,
    ),
)
"""Names of tenants; more are drawn at random."""

QUESTIONS = (
    *("how do i reset my password", "my password how do i reset", "reset my password"),
    *("what is the price of a seat", "the price of a seat is what", "who may see my files"),
)
CORPORA = ("handbook", "tenant", "{handbook}")
MORE = 40
"""Tenants beside those of `NAMES`."""


class Tenants:
    """Tenants and what they do.

    Args:
        caches: Each stands for a process.
        valkey: Their server.
        draw: Draws everything.
    """

    def __init__(
        self, caches: list[SemanticCache], valkey: LocalValkey, draw: random.Random
    ) -> None:
        self._caches = caches
        self._valkey = valkey
        self._draw = draw
        self.counts: Counter[str] = Counter()
        alphabet = [*"ab{}:\0*?%", "\u0430", "\ud800", "\u0301"]
        self.names = [*NAMES]
        while len(self.names) < len(NAMES) + MORE:
            name = "".join(draw.choices(alphabet, k=draw.randint(1, 6)))
            self.names += [] if name in self.names else [name]
        self._stored: list[tuple[str, Scope]] = []
        self._moved: set[tuple[str, Scope]] = set()

    def run(self, lookups: int) -> None:
        """Take steps until so many lookups were made."""
        while self.counts["lookups"] < lookups:
            steps = (self._look, self._store, self._move, self._invalidate)
            self._draw.choices(steps, (8, 2, 0.4, 0.05))[0](self._scope())

    def _scope(self) -> Scope:
        # A few tenants at a time, so that they meet in the same questions.
        tenant = self._draw.choice(self.names[: self._draw.choice((8, 8, 8, len(self.names)))])
        model = self._draw.choice(("", "", "large"))
        return Scope(tenant=tenant, corpus=self._draw.choice(CORPORA), model=model)

    def _look(self, scope: Scope) -> None:
        self._find(self._draw.choice(QUESTIONS), scope)

    def _find(self, question: str, scope: Scope) -> Fence | None:
        """Look up and judge; the fence of a miss."""
        found = self._draw.choice(self._caches).lookup(question, scope)
        self.counts["lookups"] += 1
        if isinstance(found, Miss):
            self.counts[f"miss {found.reason}"] += 1
            return found.fence
        self.counts[f"hit {found.tier}"] += 1
        whose = json.loads(found.value)
        self.counts["leaked"] += whose[0] != scope.tenant
        self.counts["misplaced"] += whose[1:3] != [scope.corpus, scope.model]
        self.counts["mistaken"] += whose[3] != found.question
        return None

    def _store(self, scope: Scope) -> None:
        question = self._draw.choice(QUESTIONS)
        fence = self._find(question, scope)
        value = json.dumps([scope.tenant, scope.corpus, scope.model, question])
        cache = self._draw.choice(self._caches)
        stored = cache.store(question, scope, value, ttl_s=60, tags=[scope.tenant], fence=fence)
        self.counts["stored" if stored else f"refused {stored.reason}"] += 1
        if stored:
            self._stored = [*self._stored[-20:], (question, scope)]
            self._moved.discard((question, scope))

    def _move(self, scope: Scope) -> None:
        """Put an entry of one tenant where one of another belongs, digests and all."""
        if not self._stored:
            return
        question, other = self._draw.choice(self._stored)
        asked = self._draw.choice(QUESTIONS)
        if other.tenant == scope.tenant or (question, other) in self._moved:
            return  # Moved twice, it might be at home again.
        cache = self._draw.choice(self._caches)
        mine, theirs = (
            cache._answers.asking(cache._blocking, *each, None)
            for each in ((asked, scope), (question, other))
        )
        source = theirs.home.entries(theirs.within.key) + theirs.entry_id.encode()
        target = mine.home.entries(mine.within.key) + mine.entry_id.encode()
        dumped = self._valkey.command("DUMP", source)
        if not isinstance(dumped, bytes):
            return
        self._valkey.command("RESTORE", target, 50_000, dumped, "REPLACE")
        self._valkey.command("HSET", target, "s", mine.within.key)
        if self._draw.random() < 0.5:
            self._valkey.command("HSET", target, "t", mine.home.tenant)
        score = self._valkey.command("ZCARD", mine.home.scopes + mine.within.key.encode())
        assert isinstance(score, int)
        self._valkey.command(
            *("ZADD", mine.home.scopes + mine.within.key.encode(), 2**52 + score, mine.entry_id)
        )
        self.counts["moved"] += 1
        self._moved.add((asked, scope))

    def _invalidate(self, scope: Scope) -> None:
        self._draw.choice(self._caches).invalidate(tenant=scope.tenant, corpus=scope.corpus)
        self.counts["invalidated"] += 1


def fuzz(valkey: LocalValkey, prefix: str, folder: Path, lookups: int, seed: int) -> Counter[str]:
    """Make so many lookups, with three caches that stand for processes."""
    with caches_on(valkey.url, prefix, folder) as caches:
        # A busy machine must not turn hits into misses.
        party = [caches(lookup_deadline_ms=5000, threshold=0.99) for _ in range(3)]
        tenants = Tenants(party, valkey, random.Random(f"tenants {seed}"))
        tenants.run(lookups)
    return tenants.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lookups", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started_s = time.monotonic()
    with LocalValkey() as valkey, tempfile.TemporaryDirectory() as folder:
        counts = fuzz(valkey, "tenants", Path(folder), given.lookups, given.seed)
    took_s = round(time.monotonic() - started_s, 1)
    print(json.dumps({"seed": given.seed, "took_s": took_s, "leaked": 0, **counts}))
    hits = sum(count for name, count in counts.items() if name.startswith("hit "))
    if counts["leaked"] or counts["misplaced"] or not hits:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
