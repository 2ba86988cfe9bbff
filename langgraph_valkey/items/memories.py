"""Items that the primary store has, too: how it keeps them, and how a bucket gets them.

The primary store numbers the changes of a bucket (`primary.memories`). The bucket counts them
in its state: up to which number all are there. That is told with each answer, so whoever knows
a higher number knows that something is missing. And as it stands beside the items, a failover
that takes some of them takes it back just as far; with the bucket, it is gone.

It also has a mark, its *epoch*, drawn when counting began. Who brings several pages can tell
by that whether the first ones are still there when the last one arrives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.items import calls
from langgraph_valkey.items.names import item_name, split_item_name
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call
from langgraph_valkey.operations import Answer, Standing
from langgraph_valkey.primary.memories import Memory, NewMemory

WRITER = b"\0durable"
"""Who writes what the primary store has, whichever process brings it; 8 bytes."""

_FORMAT = b"1"
_HEAD = 1 + 16 * 3
_NOT_YET = b"0" * 16


class Reach(NamedTuple):
    """What a bucket has of the primary store's changes.

    Attributes:
        number: All up to this one.
        epoch: Since when it has counted; b"" if it has none.
    """

    number: int
    epoch: bytes


def reach(answer: Answer) -> Reach:
    """What an answer says of that."""
    counted = answer.beyond
    return Reach(int(counted[:16] or 0), counted[16:32])


def kept(
    bucket: str, namespace: bytes, key: bytes, body: bytes | None, *, born: int, ttl_ms: int
) -> NewMemory:
    """An item, as the primary store keeps it.

    Args:
        bucket: Its bucket.
        namespace: The name of its namespace.
        key: Its key.
        body: What `records.pack` made; None if it is deleted.
        born: Its place in results.
        ttl_ms: How long it lives; 0 for ever.
    """
    name = item_name(namespace, key)
    if body is None:
        return NewMemory(bucket, name, None)
    now_s = time.time()
    until_ms = round(now_s * 1000) + ttl_ms if ttl_ms else None
    head = b"%b%016d%016d%016d" % (_FORMAT, born, round(now_s * 1e6), ttl_ms)
    return NewMemory(bucket, name, head + body, until_ms)


def operation(memory: Memory) -> bytes:
    """The operation that brings a bucket what the primary store has of an item.

    Raises:
        ConfigurationError: It was recorded by a newer release.
    """
    namespace, key = split_item_name(memory.name)
    entry = WRITER + memory.change.to_bytes(8, "big")
    record = memory.record
    if record is None:
        return calls.deletion(entry, namespace, key)
    if record[:1] != _FORMAT:
        raise ConfigurationError(
            "the primary store has items of another format than this release reads: update "
            "langgraph-valkey in all processes"
        )
    born, created, ttl_ms = (record[at : at + 16] for at in range(1, _HEAD, 16))
    return calls.stored(
        *(entry, _NOT_YET, created, namespace, key, record[_HEAD:]),
        born=int(born),
        deadline_ms=memory.until_ms or 0,
        ttl_ms=int(ttl_ms),
    )


class Step(NamedTuple):
    """What a call says of the changes that it brings.

    Attributes:
        epoch: What the bucket must have counted since, if this is not the first step.
        stamp: The stamp of the answer to the step before; b"" if there was none.
        upto: All changes up to this number have been brought.
        number: The change that this call brings by itself; 0 if it is none.
    """

    epoch: bytes = b""
    stamp: bytes = b""
    upto: int = 0
    number: int = 0


def apply(
    keys: ThreadKeys,
    primary: bytes,
    standing: Standing,
    changes: Sequence[bytes],
    step: Step,
    *,
    anyway: bool = True,
) -> Call:
    """Bring a bucket some changes; each is taken once, whoever brings it.

    Args:
        keys: The bucket's keys.
        primary: Which primary is to take it; another one answers `Status.MOVED`.
        standing: What the process knows of the bucket.
        changes: Operations, each of another item.
        step: What is said of them.
        anyway: Also if the server has no memory left, so that reads can go on.
    """
    fresh = os.urandom(16)
    head = b"%b%b%016d%b%b%b%016d%016d" % (
        *(primary, standing.stamp, limits.TOMBSTONE_TTL_MS, fresh),
        *(step.epoch or fresh, step.stamp or _NOT_YET, step.upto, step.number),
    )
    return calls.applying(keys, [head, *changes], anyway=anyway)
