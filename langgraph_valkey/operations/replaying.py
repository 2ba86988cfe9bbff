"""Building the calls that bring a thread back, and those that watch a shard.

What a journal keeps of a write is the call that stored it: `taken_apart` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call
from langgraph_valkey.operations.answer import Standing
from langgraph_valkey.operations.calls import CHANGES, READS, Kind, call, script

_WATCH = Kind("flags=allow-oom", ("identity", "prelude"), 1, writes=True)
_LENGTHS, _NAMES = 139, 151
_TTL = slice(64, 80)


class Taken(NamedTuple):
    """The first argument of a call that stored something, in parts.

    Attributes:
        entry: Writer and sequence number.
        ttl_ms: The time to live it asked for; 0 for none.
        name: Namespace and id with their lengths, as all scripts take them.
        namespace: The namespace, as it is stored.
        checkpoint_id: The checkpoint's id.
        payload: A record, or a task's writes.
    """

    entry: bytes
    ttl_ms: int
    name: bytes
    namespace: bytes
    checkpoint_id: bytes
    payload: bytes


def taken_apart(head: bytes) -> Taken:
    """The parts of the first argument of `put` and `put_writes`."""
    middle = _NAMES + int(head[_LENGTHS : _LENGTHS + 6])
    end = middle + int(head[_LENGTHS + 6 : _NAMES])
    return Taken(
        head[:16],
        int(head[_TTL]),
        head[_LENGTHS:end],
        head[_NAMES:middle],
        head[middle:end],
        head[end:],
    )


def without_payload(head: bytes) -> bytes:
    """The same without what it would store: it can be asked for, and no more."""
    taken = taken_apart(head)
    return head[: len(head) - len(taken.payload)]


def named(namespace: bytes, checkpoint_id: bytes) -> bytes:
    """A namespace, as it is stored, and an id, with their lengths before them."""
    return b"%06d%06d%b%b" % (len(namespace), len(checkpoint_id), namespace, checkpoint_id)


def replay(
    keys: ThreadKeys,
    primary: bytes,
    standing: Standing,
    deadline_ms: int,
    items: Sequence[bytes],
) -> Call:
    """Join entries of one thread into what the server has of it.

    Args:
        keys: The thread's keys.
        primary: Which primary is to take it.
        standing: The thread as it was when they were acknowledged; its stamp is the
            newest one that this process knows.
        deadline_ms: When it expires, on the server's clock; 0 for never.
        items: As ``replay.lua`` takes them.
    """
    head = b"%b%b%b%b%b%016d%016d" % (
        primary,
        standing.nonce,
        standing.gen,
        standing.dead,
        standing.stamp,
        deadline_ms,
        limits.TOMBSTONE_TTL_MS,
    )
    return call("replay", CHANGES, keys, [head, *items])


def beat(keys: ThreadKeys) -> Call:
    """A write that changes nothing, to the shard that has this thread."""
    return Call(script("beat", _WATCH), (keys.beat,), [], writes=True)


def look(keys: ThreadKeys) -> Call:
    """Ask the primary of the shard that has this thread about itself."""
    return Call(script("look", READS), (keys.beat,), [], writes=False)
