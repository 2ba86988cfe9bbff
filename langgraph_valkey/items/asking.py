"""Asking buckets: whatever wants to be told something is asked for by one loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from langgraph_valkey.errors import CorruptState
from langgraph_valkey.items.telling import Name
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call, Link
from langgraph_valkey.operations import Answer
from langgraph_valkey.stored.codec import Codec, Damaged

TRIES = 5
"""How often something is begun anew because a bucket changed its primary under it."""


class Buckets(Protocol):
    """What asks buckets: the store's core."""

    @property
    def codec(self) -> Codec:
        """How items are stored."""
        ...

    @property
    def keys(self) -> Mapping[str, ThreadKeys]:
        """The keys of all buckets."""
        ...

    async def read(self, link: Link, asked: Sequence[tuple[str, Call]]) -> list[Answer]:
        """Send calls to buckets side by side; answers that may be relied on.

        After a failover they come only when what this process knows was replayed.
        """
        ...

    def corrupt(self, name: Name, damage: Damaged) -> CorruptState:
        """The error for an item that can't be read."""
        ...


class Asking(Protocol):
    """What wants to be told something by some buckets."""

    def next(self) -> list[tuple[str, Call]]:
        """What to ask next, of which buckets; nothing at the end."""
        ...

    def take(self, bucket: str, answer: Answer) -> None:
        """Take what a bucket answered."""
        ...


async def ask_all(buckets: Buckets, link: Link, asking: Collection[Asking]) -> None:
    """Ask for several things at once, all buckets side by side, until they are told."""
    while True:
        asked = [(each, bucket, call) for each in asking for bucket, call in each.next()]
        if not asked:
            return
        answers = await buckets.read(link, [(bucket, call) for _, bucket, call in asked])
        for (each, bucket, _), answer in zip(asked, answers, strict=True):
            each.take(bucket, answer)
