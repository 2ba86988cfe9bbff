"""What tests of failovers share: savers with their threads, and clusters that break."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Any

from langgraph_valkey import ValkeySaver
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.local import LocalCluster
from langgraph_valkey.loss_window.report import Fork, Hooks, RecoveryReport
from tests.faces import AsyncFace, Face, SyncFace, Twin

LAG_BOUND_S = 1.0
FAST_MS = 500
"""Node timeout: a replica is promoted after about 1 s."""


class Party:
    """A saver that stands for a process, the threads it wrote, and what it was told.

    Attributes:
        saver: The saver.
        face: One face of it.
        twin: The same face, and InMemorySaver beside it.
        reports: What came of recoveries.
        forks: Which threads forked.
        uncovered: How many entries were not covered, each time it was told.
    """

    def __init__(self, kind: str, url: str, **settings: Any) -> None:
        self.reports: list[RecoveryReport] = []
        self.forks: list[Fork] = []
        self.uncovered: list[int] = []
        hooks = Hooks(self.reports.append, self.forks.append, self.uncovered.append)
        self.saver = ValkeySaver.from_url(url, hooks=hooks, **settings)
        self.face = face_of(kind, self.saver)
        self.twin = Twin(self.face)
        self._number = 0

    def beside(self, kind: str) -> Party:
        """The same saver, with threads of its own, for another event loop."""
        other = copy(self)
        other.face = face_of(kind, self.saver)
        other.twin = Twin(other.face)
        return other

    def is_durable(self) -> bool:
        """Whether nothing is journaled any more."""
        return self.saver.health().journal_entries == 0

    async def step(self, *threads: str, size: int = 20) -> None:
        """Put a checkpoint, and a write on it, to each thread."""
        for thread in threads:
            self._number += 1
            items = [f"{thread} {n} " + "word " * size for n in range(self._number)]
            where = await self.twin.step(thread, self._number, items=items, short=self._number)
            await self.twin.write(where, [("items", [self._number])], f"task {self._number}")


def face_of(kind: str, saver: ValkeySaver) -> Face:
    """One face of a saver."""
    return AsyncFace(saver) if kind == "async" else SyncFace(saver)


@asynccontextmanager
async def join(
    kind: str, url: str, *, key_prefix: str, drain_s: float = 0.0, **settings: Any
) -> AsyncIterator[Party]:
    """A process that uses the cluster; it leaves without waiting if not told otherwise."""
    settings = {"durability": "async", "lag_bound_s": LAG_BOUND_S, **settings}
    party = Party(kind, url, key_prefix=key_prefix, **settings)
    try:
        yield party
    finally:
        await party.saver.aclose(drain_s)


def new_prefix() -> str:
    """A prefix of keys that no other test has."""
    return f"t{os.urandom(6).hex()}"


def threads_in(cluster: LocalCluster, prefix: str, shard: int, count: int) -> list[str]:
    """Names of threads that live in a shard, in slots of their own."""
    found: list[str] = []
    while len(found) < count:
        name = f"thread {os.urandom(6).hex()}"
        if cluster.shard_of(thread_keys(prefix, name).state) == shard:
            found.append(name)
    return found


async def until(done: Callable[[], Any], bound_s: float = 10.0) -> float:
    """Wait for something; how long it took, in seconds."""
    began_s = time.monotonic()
    while not done():
        assert time.monotonic() - began_s < bound_s, "it never came"
        await asyncio.sleep(0.005)
    return time.monotonic() - began_s


def mend(cluster: LocalCluster) -> None:
    """Make a cluster whole again, and end its faults."""
    for shard in range(3):
        cluster.resume(shard)
        cluster.accept_writes(shard)
        cluster.release_replication(shard)
    replace_killed(cluster)


def replace_killed(cluster: LocalCluster) -> None:
    """Let what was killed come back, as replicas: a log that nobody follows stands still."""
    cluster.wait_healthy()
    for node in cluster.nodes:
        if not node.running:
            cluster.restart_node(node)
    cluster.wait_healthy()


def total(reports: Sequence[RecoveryReport], what: str) -> int:
    """A count of the reports, added up."""
    return sum(getattr(report, what) for report in reports)
