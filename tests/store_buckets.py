"""Buckets on a real server without a store around them: no journal, no loss window.

For the tests of what asks buckets: which calls it sends, and what it makes of the answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey import operations
from langgraph_valkey.errors import CorruptState
from langgraph_valkey.items import calls, records
from langgraph_valkey.items.names import bucket_keys, bucket_names, bucket_of, pack_namespace
from langgraph_valkey.items.telling import Name
from langgraph_valkey.link import Call, Link, finish
from langgraph_valkey.operations import ANYONE, Answer, Standing
from langgraph_valkey.stored.codec import Codec, Damaged

BUCKETS = 16


class PlainBuckets:
    """All buckets beneath a prefix of keys.

    Attributes:
        rounds: Which scripts were sent, round trip by round trip.
        before: Called before each round trip, with its number.
    """

    def __init__(self, prefix: str, buckets: int = BUCKETS) -> None:
        self.codec = Codec(JsonPlusSerializer())
        self.keys = {name: bucket_keys(prefix, name) for name in bucket_names(buckets)}
        self.rounds: list[list[str]] = []
        self.before: Callable[[int], None] = lambda _: None
        self._buckets = buckets
        self._writer = os.urandom(8)
        self._numbers = count(1)

    async def read(self, link: Link, asked: Sequence[tuple[str, Call]]) -> list[Answer]:
        self.before(len(self.rounds))
        self.rounds.append([call.script.name for _, call in asked])
        replies = await link.send([call for _, call in asked])
        return [self.answer(operations.read(reply)) for reply in replies]

    def answer(self, answer: Answer) -> Answer:
        """What was answered; to be replaced."""
        return answer

    def corrupt(self, name: Name, damage: Damaged) -> CorruptState:
        return CorruptState(str(damage), thread_id="", key=repr(name))

    def put(
        self,
        link: Link,
        items: Mapping[tuple[tuple[str, ...], str], Any],
        *,
        ttl_ms: int = 0,
        vectors: Mapping[str, bytes] | None = None,
    ) -> None:
        """Store items, or delete those of which the value is None."""
        changes: dict[str, list[bytes]] = {}
        for (namespace, key), value in items.items():
            number = next(self._numbers)
            entry = self._writer + number.to_bytes(8, "big")
            packed = pack_namespace(namespace)
            if value is None:
                change = calls.deletion(entry, packed, key.encode())
            else:
                body = records.pack(self.codec, value, vectors or {})
                change = calls.put(entry, packed, key.encode(), body, born=number, ttl_ms=ttl_ms)
            changes.setdefault(bucket_of(packed, self._buckets), []).append(change)
        for bucket, some in changes.items():
            for at in range(0, len(some), 100):
                entry = self._writer + next(self._numbers).to_bytes(8, "big")
                part = some[at : at + 100]
                call = calls.turn(self.keys[bucket], entry, [], part, Standing(), ANYONE)
                [reply] = finish(link.send([call]))
                assert operations.read(reply).status is operations.Status.OK
