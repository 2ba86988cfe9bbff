"""Which primary answers for which slot, and since when.

Every answer names the primary that gave it, so a failover is noticed by the first
call that reaches the new one; no error and no event is needed. There is no map of
shards either: a shard is the slots for which one primary answers, and it is known
by that primary's identity. A slot that is moved to another shard looks like a
failover of that slot alone, which is the safe way to look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.operations import ANYONE


class Heard(Enum):
    """What an answer's identity means."""

    CURRENT = "the primary that was expected, or the first one heard of"
    CHANGED = "another primary has taken the slot over"
    FORMER = "a primary that was replaced, and may not know it yet"


class Shard(NamedTuple):
    """A primary, and a thread's keys by which it is reached."""

    identity: bytes
    keys: ThreadKeys


class Shards:
    """What this process knows of the primaries; the caller holds a lock around it."""

    def __init__(self) -> None:
        self._of_slot: dict[int, bytes] = {}
        self._keys_in: dict[int, ThreadKeys] = {}
        self._taken_over_s: dict[bytes, float] = {}
        self._replaced_s: dict[bytes, float] = {}
        self._verified_s: dict[bytes, float] = {}
        self._acquainted: set[bytes] = set()

    def primary_of(self, slot: int) -> bytes:
        """Who is expected to answer for a slot; `ANYONE` if none has yet."""
        return self._of_slot.get(slot, ANYONE)

    def is_stranger(self, identity: bytes) -> bool:
        """Whether it may have replaced one that is known, which was not asked since."""
        return bool(self._acquainted) and identity not in self._acquainted

    def acquainted(self, identity: bytes) -> None:
        """The others were asked: it replaced none of them, or that is known now."""
        self._acquainted.add(identity)

    def heard(self, keys: ThreadKeys, identity: bytes, now_s: float) -> Heard:
        """Take note of who answered a call on these keys."""
        expected = self._of_slot.get(keys.slot)
        if expected == identity:
            return Heard.CURRENT
        if expected is None:
            if not self._of_slot:
                self._acquainted.add(identity)
            self._of_slot[keys.slot] = identity
            self._keys_in[keys.slot] = keys
            return Heard.CURRENT
        replaced_s = self._replaced_s.get(identity)
        if replaced_s is not None and now_s - replaced_s < limits.FORMER_S:
            return Heard.FORMER
        self._of_slot[keys.slot] = identity
        self._replaced_s.pop(identity, None)
        self._replaced_s[expected] = now_s
        self._taken_over_s.setdefault(identity, now_s)
        self._acquainted.add(identity)
        return Heard.CHANGED

    def taken_over_s(self, identity: bytes) -> float:
        """When this process first heard that it replaced another; else long ago."""
        return self._taken_over_s.get(identity, float("-inf"))

    def to_verify(self) -> dict[bytes, list[ThreadKeys]]:
        """The slots of primaries that lost another slot, and were not asked since.

        One that was replaced has lost them all; one that gave a slot away has not.
        """
        asked: dict[bytes, list[ThreadKeys]] = {
            identity: []
            for identity, replaced_s in self._replaced_s.items()
            if replaced_s > self._verified_s.get(identity, float("-inf"))
        }
        for slot, identity in self._of_slot.items() if asked else ():
            if identity in asked:
                asked[identity].append(self._keys_in[slot])
        return asked

    def verified(self, identity: bytes, now_s: float) -> None:
        """It was asked for all of its slots."""
        self._verified_s[identity] = now_s

    def absolve(self, now_s: float) -> None:
        """Trust those again that gave a slot away a while ago, and have others still."""
        late = {i for i, at_s in self._replaced_s.items() if now_s - at_s >= limits.FORMER_S}
        for identity in late & set(self._of_slot.values()) if late else ():
            del self._replaced_s[identity]

    def never_replaced(self) -> set[bytes]:
        """Primaries that have kept all their slots."""
        return set(self._of_slot.values()) - self._replaced_s.keys()

    def __iter__(self) -> Iterator[Shard]:
        """Each primary once, with some slot for which it is expected to answer."""
        slot_of = {identity: slot for slot, identity in self._of_slot.items()}
        return iter([Shard(identity, self._keys_in[slot]) for identity, slot in slot_of.items()])
