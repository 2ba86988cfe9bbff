"""Storing a value with what it was made from, unless that has changed meanwhile."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph_valkey.link import Link
from rag_cache.entries import Card, Record
from rag_cache.freshness.standings import Standings
from rag_cache.freshness.verifying import KEPT_MS
from rag_cache.marks import document_mark, packed_mark, packed_version, tag_mark
from rag_cache.operations import calls
from rag_cache.partitions import Partition
from rag_cache.results import Fence, Stored
from rag_cache.server_index import ServerIndex
from rag_cache.shelves import Shelves
from rag_cache.values import TooLarge, digest, encode
from rag_cache.within import Within

if TYPE_CHECKING:
    import numpy as np

EVIDENCE_MOST = 256
"""Documents and tags of one entry: each lookup that may serve it compares them all."""

STANDING_WAIT_S = 1.0
"""How long a value waits for its partition's first standing."""

PAUSE_S = 0.005


class Order(NamedTuple):
    """What is to be stored, checked.

    Attributes:
        question: Under which question.
        within: In which scope.
        entry_id: Name of the entry.
        home: Its partition.
        record: What is served, packed.
        card: What it is judged by, packed.
        marks: What it was made from and has as tags, packed for scripts.
        ttl_s: How long it lives, before jitter.
        fence: What was current when its computation began.
    """

    question: str
    within: Within
    entry_id: str
    home: Partition
    record: bytes
    card: bytes
    marks: bytes
    ttl_s: float
    fence: Fence | None


@dataclass(frozen=True, slots=True)
class About:
    """What is told with a value.

    Attributes:
        evidence: Ids of the documents it was made from, best first, and their versions.
        tags: Names by which it can be invalidated.
        usage: What the model used for it.
        took_s: How long it took to compute.
    """

    evidence: Mapping[str, str | None]
    tags: Sequence[str]
    usage: Mapping[str, Any] | None
    took_s: float | None

    def checked(self) -> About:
        """It, refused if it can't be right.

        Raises:
            TypeError: An id, a version or a tag is not a string.
            TooLarge: There are more than `EVIDENCE_MOST`.
            ValueError: The time it took is no number of seconds.
        """
        if self.took_s is not None and not math.isfinite(self.took_s):
            raise ValueError("took_s must be a number of seconds, or None if it is not known")
        names = [*self.evidence, *self.tags, *(v for v in self.evidence.values() if v is not None)]
        if isinstance(self.tags, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(
                "evidence must map ids of documents to versions, and tags be a sequence: all of "
                "strings (a version may be None)"
            )
        if len(self.evidence) + len(self.tags) > EVIDENCE_MOST:
            raise TooLarge(
                f"an entry may have {EVIDENCE_MOST} documents and tags: name what matters, or "
                "tag the whole collection"
            )
        return self

    def marks(self) -> bytes:
        """What scripts compare."""
        documents = [
            packed_mark(document_mark(name)) + packed_version(version)
            for name, version in self.evidence.items()
        ]
        tags = [packed_mark(tag_mark(tag)) + packed_version(None) for tag in self.tags]
        return b"".join([*documents, *tags])

    def record(self, tenant: str, value: bytes) -> bytes:
        """What is served."""
        usage = {
            name: count
            for name, count in (self.usage or {}).items()
            if isinstance(count, int) and not isinstance(count, bool)
        }
        return Record(tenant, value, self.evidence, usage, time.time(), self.took_s).pack()


def ordered(
    question: str,
    within: Within,
    home: Partition,
    value: Any,
    about: About,
    ttl_s: float,
    fence: Fence | None,
) -> Order:
    """Make ready what is to be stored.

    Raises:
        TypeError: The value can't be serialized, or something is of a wrong type.
        ValueError: Something is too large, or the fence is of another question.
    """
    entry_id = within.entry_id(question)
    if fence is not None and fence.entry_id != entry_id:
        raise ValueError(
            "this fence is of another question or scope: give the one of this question's miss"
        )
    about.checked()
    encoded = encode(value)
    return Order(
        *(question, within, entry_id, home),
        record=about.record(within.scope.tenant, encoded),
        card=Card(question, digest(encoded), tuple(about.evidence)).pack(),
        marks=about.marks(),
        ttl_s=ttl_s,
        fence=fence,
    )


class Writer:
    """Stores values.

    Args:
        link: To the cache cluster.
        standings: Which primaries may be served from, and so stored to.
        shelves: What this process has at hand.
        index: The server's own, which is told how large scopes are.
        entries_most: Entries one scope may have.
        jitter: By which part a life is shortened at most.
        draw: Draws a number between two bounds.
    """

    def __init__(
        self,
        link: Link,
        standings: Standings,
        shelves: Shelves,
        index: ServerIndex,
        entries_most: int,
        jitter: float,
        draw: random.Random,
    ) -> None:
        self._link = link
        self._standings = standings
        self._shelves = shelves
        self._index = index
        self._entries_most = entries_most
        self._jitter = jitter
        self._draw = draw

    def life_ms(self, ttl_s: float) -> int:
        """How long something lives, with jitter."""
        return max(1, round(ttl_s * (1 - self._draw.uniform(0, self._jitter)) * 1000))

    async def keep(self, order: Order, vector: np.ndarray[Any, Any]) -> Stored:
        """Store it.

        Raises:
            LanggraphValkeyError: The server could not be asked, or refused.
        """
        home = order.home
        identity = await self._standing(home)
        if identity is None:
            return Stored(accepted=False, reason=self._standings.why(home.name))
        entry = calls.Entry(order.entry_id, order.marks, order.record, order.card, vector.tobytes())
        call = calls.store(
            *(home, order.within.key, order.within.marks, entry),
            b"" if order.fence is None else order.fence.mark,
            ttl_ms=self.life_ms(order.ttl_s),
            kept_ms=KEPT_MS,
            entries_most=self._entries_most,
        )
        [[status, answered, *rest]] = await self._link.send([call])
        if status == b"stale":
            return Stored(accepted=False, reason="stale")
        if status != b"ok" or answered.decode() != identity:
            self._standings.doubt(home.name)
            return Stored(accepted=False, reason="unverified")
        shelf = self._shelves.of(order.within.key, len(vector))
        shelf.put(order.entry_id, order.card, entry.vector)
        self._index.grown(order.within.key, rest[-1])
        return Stored(accepted=True)

    async def _standing(self, home: Partition) -> str | None:
        """The verified primary; waits for the first word of a new partition."""
        until_s = self._link.now() + STANDING_WAIT_S
        while True:
            now_s = self._link.now()
            identity = self._standings.identity(home.name, now_s)
            if identity is not None:
                return identity
            if now_s >= until_s or not self._standings.is_new(home.name, now_s):
                return None
            await self._link.sleep(PAUSE_S)
