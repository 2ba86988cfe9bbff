"""What is kept in the stores that are compared, and what is asked of them: made from a seed.

An item is what an agent remembers of someone: a sentence and some fields, about 300 bytes.
Namespaces have one label where nothing else is said: RedisStore finds nothing in deeper ones
with the search module that is at hand.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from benchmarks.store_faces import Namespace, Stored

KINDS = ("preference", "fact", "event", "plan", "person", "place", "habit", "goal")
_WORDS = (
    *("likes", "to", "walk", "along", "the", "river", "before", "work", "and", "reads", "old"),
    *("maps", "asks", "for", "short", "answers", "with", "sources", "lives", "near", "a", "park"),
)
_TEXT_WORDS = 30
FILLED_AT_ONCE = 100

GETS, UPDATES, PASSING = 20, 10, 10
"""Of a batch: items read, items written anew, and new ones; those, the next batch deletes."""
SEARCHES, LISTINGS = 2, 1
"""In place of as many reads, in batches that find things."""
SIZE = GETS + UPDATES + 2 * PASSING
FOUND, LISTED = 10, 100
"""Results of a search and of a listing, at most."""


def value(number: int, draw: random.Random) -> dict[str, Any]:
    """What is remembered."""
    return {
        "kind": KINDS[number % len(KINDS)],
        "text": " ".join(draw.choice(_WORDS) for _ in range(_TEXT_WORDS)),
        "importance": round(draw.random(), 4),
        "turn": number,
        "said_by": "user" if number % 3 else "agent",
        "pinned": number % 50 == 0,
    }


def namespaces(count: int) -> list[Namespace]:
    """Namespaces of one label."""
    return [(f"user{number}",) for number in range(count)]


def key(number: int) -> str:
    """An item's key."""
    return f"memory{number}"


def puts(spaces: Sequence[Namespace], each: int, seed: int) -> list[PutOp]:
    """What fills namespaces with so many items each."""
    draw = random.Random(seed)
    return [
        PutOp(space, key(number), value(number, draw)) for number in range(each) for space in spaces
    ]


async def fill(store: Stored, ops: Sequence[PutOp]) -> None:
    """Store them."""
    for at in range(0, len(ops), FILLED_AT_ONCE):
        await store.batch(store.prepared(ops[at : at + FILLED_AT_ONCE]))


class Batches:
    """Batches of mixed operations, the same for all who ask for the same number.

    A batch reads some items and writes others anew, stores new ones, and deletes those that
    the batch before it stored; so a store does not grow.

    Args:
        spaces: The namespaces, filled with items.
        each: How many items there are in each.
        seed: Of all choices.
        finds: Whether searches and a listing stand in place of some reads.
    """

    def __init__(
        self, spaces: Sequence[Namespace], each: int, seed: int, *, finds: bool = False
    ) -> None:
        self._spaces = spaces
        self._each = each
        self._seed = seed
        self.finds = finds

    def ops(self, number: int) -> list[Op]:
        """A batch by its number, beginning with 1."""
        draw = random.Random(f"{self._seed}, {number}")
        # What is read is even and what is written odd: a batch does not read what it writes.
        read = [2 * at for at in draw.sample(range(self._each // 2), GETS)]
        written = [2 * at + 1 for at in draw.sample(range(self._each // 2), UPDATES)]
        gone = [(space, name) for space, name, _ in self._passing(number - 1)]
        ops: list[Op] = [GetOp(draw.choice(self._spaces), key(at), False) for at in read]
        ops += [PutOp(draw.choice(self._spaces), key(at), value(at, draw)) for at in written]
        ops += [PutOp(*each) for each in self._passing(number)]
        ops += [PutOp(space, name, None) for space, name in gone]
        if self.finds:
            ops[: SEARCHES + LISTINGS] = [*self._searches(draw), ListNamespacesOp(limit=LISTED)]
        draw.shuffle(ops)
        return ops

    def _passing(self, number: int) -> Iterator[tuple[Namespace, str, dict[str, Any]]]:
        draw = random.Random(f"{self._seed}, passing, {number}")
        for at in range(PASSING):
            yield draw.choice(self._spaces), f"passing{number}x{at}", value(at, draw)

    def _searches(self, draw: random.Random) -> list[SearchOp]:
        wanted = draw.sample(KINDS, SEARCHES)
        return [
            SearchOp(draw.choice(self._spaces), filter={"kind": kind}, limit=FOUND)
            for kind in wanted
        ]
