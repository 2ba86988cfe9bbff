"""Looks at the cluster and the books, several times a second, and tells what it sees."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from examples.agent_app.books import Books
from examples.agent_app.hub import Hub
from examples.agent_app.lab import SHARDS, Lab
from examples.agent_app.shards import ShardView

LOOK_S = 0.25
CHART_S = 60.0


class Watch:
    """What was seen last.

    Args:
        lab: The cluster.
        books: The shop's database.
        hub: The pages that are told.

    Attributes:
        shards: How the cluster was when it was last looked at.
        lags: DurabilityLag of each shard for the last minute, oldest first.
        ledger: The books.
        health: What the agent last told of its loss window.
        mending: Shards that were broken, and are being mended.
        on_shards: Called with the shards each time.
        on_ledger: Called with the books when they have changed.
    """

    def __init__(self, lab: Lab, books: Books, hub: Hub) -> None:
        self._lab = lab
        self._books = books
        self._hub = hub
        self.shards: list[ShardView] = []
        self.lags = [deque[float](maxlen=round(CHART_S / LOOK_S)) for _ in range(SHARDS)]
        self.ledger: dict[str, Any] = {}
        self.health: dict[str, Any] = {}
        self.mending: set[int] = set()
        self.on_shards: Callable[[list[ShardView]], None] = lambda _: None
        self.on_ledger: Callable[[dict[str, Any]], None] = lambda _: None

    async def look_on(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(OSError, SQLAlchemyError):  # It is looked again soon.
                await self.look()

    async def look(self) -> None:
        """Look once."""
        self.shards = await asyncio.to_thread(self._lab.look)
        for lags, shard in zip(self.lags, self.shards, strict=True):
            lags.append(round(shard.lag_s, 3))
        self.on_shards(self.shards)
        self._hub.tell("cluster", self.cluster())
        ledger = await asyncio.to_thread(self._books.ledger)
        if ledger != self.ledger:
            self.ledger = ledger
            self.on_ledger(ledger)
            self._hub.tell("ledger", ledger)

    def shard(self, number: int) -> ShardView | None:
        """A shard as it was seen last."""
        return next((each for each in self.shards if each.shard == number), None)

    def health_of(self, number: int) -> dict[str, Any]:
        """What the agent knows of a shard; nothing if it has not talked to its primary."""
        seen = self.shard(number)
        told: dict[str, Any] = self.health.get("shards", {}).get(seen.identity if seen else "", {})
        return told

    def cluster(self) -> dict[str, Any]:
        """The cluster, as the page shows it."""
        shards = [{**each.told(), **self.health_of(each.shard)} for each in self.shards]
        return {
            "shards": shards,
            "journal_bytes": self.health.get("journal_bytes"),
            "journal_entries": self.health.get("journal_entries"),
            "recoveries": self.health.get("recoveries"),
            "mending": sorted(self.mending),
        }
