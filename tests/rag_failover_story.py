"""Failovers that lose invalidations, while readers, late writers and editors go on: is anything
stale served?

Threads tell a story (see `rag_story`) on three shards with a replica each. Meanwhile, again and
again, a shard's replica is held back, a document is changed and invalidated, and the primary is
killed: the replica that takes its place has the entries made from that document, and has never
heard of the change. Nobody may serve them, whether it has noticed the failover or not. A
failover has passed when the shard serves what is current again.

    python -m tests.rag_failover_story --failovers 50 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langgraph_valkey.local import LocalCluster
from rag_cache import Hit, InvalidationPending, Scope, SemanticCache
from rag_cache.marks import document_mark, packed_mark
from tests.failover_ground import FAST_MS, replace_killed
from tests.rag_story import SPREAD, WRONG, Judge, Story, marks_of, on_stage

SHARDS = 3
ACTORS = 4
HOLD_MS = 60_000
DRAFTS = 5
"""Answers that one writer has not stored yet: of many, most would be refused."""

AGAIN_S = 30.0
"""How long a shard may take to serve again."""

QUESTION, CURRENT = "what was said before the failover", "what is true whatever happens"


class Survivor(Story):
    """A story whose editors try again until their change is in force."""

    def end(self, cache: SemanticCache, mark: str, was: int, **given: Any) -> None:
        while True:
            try:
                return super().end(cache, mark, was, **given)
            except InvalidationPending:
                self.counts["pending"] += 1

    def _delete(self, cache: SemanticCache, scope: Scope) -> None:
        """Not here: a failover may bring back what was deleted."""

    def go_on(self, stop: threading.Event) -> None:
        """Tell it until it is to end, one chapter a second; each has documents of its own."""
        while not stop.is_set():
            self.name = f" of {int(time.monotonic())}"
            del self.drafts[:-DRAFTS]
            self.run(1)


class Failovers:
    """Failovers of a cluster, and what is served around them.

    Args:
        cluster: The cluster.
        caches: Each stands for a process.
        draw: Draws what fails when.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        caches: list[SemanticCache],
        draw: random.Random,
    ) -> None:
        self._cluster = cluster
        self._caches = caches
        self._draw = draw
        self.judge = Judge()
        self.counts: Counter[str] = Counter()
        self.scopes = [self._scope_in(shard) for shard in range(SHARDS)]

    def _scope_in(self, shard: int) -> Scope:
        """A scope of which the two questions are kept in a shard; others may be elsewhere."""
        scopes = (Scope(tenant=f"tenant {n}", corpus="handbook") for n in range(1000))

        def there(scope: Scope, question: str) -> bool:
            return self._cluster.shard_of(self._versions(scope, question)) == shard

        return next(s for s in scopes if there(s, QUESTION) and there(s, CURRENT))

    def _versions(self, scope: Scope, question: str) -> bytes:
        """Key of the versions of the partition in which a question is kept."""
        cache = self._caches[0]
        return cache._answers.asking(cache._blocking, question, scope, None).home.versions

    @contextmanager
    def with_a_crowd(self, seed: int) -> Iterator[None]:
        """Readers, writers and editors on threads of their own."""
        stop = threading.Event()
        crowd = [
            Survivor(
                *(self._caches, self.scopes, random.Random(f"{seed} {actor}"), Counter()),
                judge=self.judge,
            )
            for actor in range(ACTORS)
        ]
        threads = [threading.Thread(target=each.go_on, args=(stop,)) for each in crowd]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            stop.set()
            for each in threads:
                each.join()
            for story in crowd:
                self.counts.update(story.counts)

    def fail(self, number: int) -> None:
        """One failover that loses what was invalidated before it."""
        shard = self._draw.randrange(SHARDS)
        scope, document = self.scopes[shard], f"document {number}"
        self._store_both(scope, document)
        self._cluster.hold_replication(shard, HOLD_MS)
        was = self.judge.change(document)
        editor = Survivor([], [], self._draw, self.counts, self.judge)
        editor.end(
            *(self._draw.choice(self._caches), document, was),
            document=document,
            corpus=scope.corpus,
        )
        time.sleep(self._draw.uniform(0, 0.3))
        self._cluster.kill_primary(shard)
        self._look(scope)
        self._cluster.force_failover(shard)
        mark = b"m" + packed_mark(document_mark(document))
        there = self._cluster.primary(shard).command(
            *("HEXISTS", self._versions(scope, QUESTION), mark)
        )
        self.counts["lost"] += there == 0
        self.counts["failovers"] += 1
        self._await(scope)
        replace_killed(self._cluster)

    def _store_both(self, scope: Scope, document: str) -> None:
        """Store an answer made from a document, and one made from nothing that changes."""
        until_s = time.monotonic() + AGAIN_S
        for question, documents in ((QUESTION, [document]), (CURRENT, [])):
            made = self.judge.read([*documents, *marks_of(scope)])
            value = [self.judge.number(), made]
            evidence = dict.fromkeys(documents)
            cache = self._draw.choice(self._caches)
            while not cache.store(question, scope, value, evidence=evidence):
                assert time.monotonic() < until_s, "nothing could be stored"
                time.sleep(0.01)

    def _await(self, scope: Scope) -> None:
        """Look up until every process serves again."""
        until_s = time.monotonic() + AGAIN_S
        while not all(isinstance(cache.lookup(CURRENT, scope), Hit) for cache in self._caches):
            self._look(scope)
            assert time.monotonic() < until_s, "it never served again"
            time.sleep(0.005)
        self._look(scope)

    def _look(self, scope: Scope) -> None:
        for cache in self._caches:
            ended = self.judge.ended()
            found = cache.lookup(QUESTION, scope)
            self.counts["looks"] += 1
            if isinstance(found, Hit):
                number, made = found.value
                for verdict in self.judge.verdicts(ended, number, made):
                    self.counts[verdict] += 1


def tell(
    cluster: LocalCluster, prefix: str, folder: Path, failovers: int, seed: int
) -> Counter[str]:
    """Tell of so many failovers."""
    draw = random.Random(f"failovers {seed}")
    with on_stage(cluster.url, prefix, folder) as caches:
        # Late answers count as misses, and a busy machine must not turn all hits into these.
        party = [caches(lookup_deadline_ms=500, spread=SPREAD) for _ in range(2)]
        story = Failovers(cluster, party, draw)
        with story.with_a_crowd(seed):
            for number in range(failovers):
                story.fail(number)
    return story.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--failovers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started_s = time.monotonic()
    with (
        LocalCluster(shards=SHARDS, replicas=1, node_timeout_ms=FAST_MS) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        counts = tell(cluster, "failovers", Path(folder), given.failovers, given.seed)
    took_s = round(time.monotonic() - started_s, 1)
    wrong = {name: counts[name] for name in WRONG}
    print(json.dumps({"seed": given.seed, "took_s": took_s, **wrong, **counts}))
    if any(wrong.values()) or not counts["lost"] or not counts["hits"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
