"""Names of keys and fields.

A thread lives in one hash slot: its keys share the hash tag ``{thread id}``, so
that one script call reaches all of it.

=========  =====  ==============================================================
key        type   holds
=========  =====  ==============================================================
`state`    hash   records, chunks, pending writes, heads, the thread's identity
`index`    zset   the order of checkpoints (scores 0: members sort as bytes)
`graves`   zset   when the thread, or a checkpoint of it, was deleted; and, while a
                  sweep for unreferenced chunks is open, those it must keep
`beat`     text   nothing; written to learn whether the shard accepts writes
=========  =====  ==============================================================

Thread ids and namespaces may hold any character; two different ones never give
the same key. A hash tag ends at the first ``}``, so braces are escaped in it.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

SLOTS = 16384
"""Hash slots of a cluster, by the protocol."""

_EMPTY = b"%"
_SEPARATOR = b"\0"


@dataclass(frozen=True, slots=True)
class ThreadKeys:
    """The keys of one thread, in the order in which scripts take them; and their slot."""

    state: bytes
    index: bytes
    graves: bytes
    beat: bytes
    slot: int


def thread_name(thread_id: object) -> str:
    """The name under which a thread is kept.

    Args:
        thread_id: A string, or an int or UUID, which name the same thread as
            their text.

    Raises:
        ValueError: Anything else, which would make threads collide or vanish.
    """
    if isinstance(thread_id, str):
        return thread_id
    if isinstance(thread_id, UUID) or (
        isinstance(thread_id, int) and not isinstance(thread_id, bool)
    ):
        return str(thread_id)
    raise ValueError(
        f"thread_id must be a string, not {type(thread_id).__name__}: "
        "pass config={'configurable': {'thread_id': '...'}}"
    )


def to_bytes(text: str) -> bytes:
    """UTF-8 that also takes lone surrogates; it sorts as the text does."""
    return text.encode("utf-8", "surrogatepass")


def to_text(raw: bytes) -> str:
    """The inverse of `to_bytes`."""
    return raw.decode("utf-8", "surrogatepass")


@lru_cache(maxsize=4096)
def thread_keys(prefix: str, thread: str) -> ThreadKeys:
    """The keys of a thread.

    Args:
        prefix: What all keys of a saver begin with; without braces or glob
            characters (`limits` of the settings model).
        thread: The thread's name.
    """
    escaped = (
        to_bytes(thread).replace(b"%", b"%25").replace(b"{", b"%7B").replace(b"}", b"%7D") or _EMPTY
    )
    stem = b"%s:{%s}" % (to_bytes(prefix), escaped)
    slot = binascii.crc_hqx(escaped, 0) % SLOTS
    return ThreadKeys(stem + b":state", stem + b":index", stem + b":graves", stem + b":beat", slot)


def slot_of(key: bytes) -> int:
    """The hash slot of one of a thread's keys."""
    tag = key[key.index(b"{") + 1 : key.rindex(b"}")]
    return binascii.crc_hqx(tag, 0) % SLOTS


def thread_pattern(prefix: str) -> bytes:
    """A glob pattern that matches the `state` and the `index` of each thread.

    Both, since either may be all that eviction left of it.
    """
    return b"%s:{*}:[si]*" % to_bytes(prefix)


def thread_of(prefix: str, key: bytes) -> str:
    """The thread that has this key: the inverse of `thread_keys`."""
    escaped = key[len(to_bytes(prefix)) + 2 : key.rindex(b"}")]
    if escaped == _EMPTY:
        return ""
    return to_text(escaped.replace(b"%7D", b"}").replace(b"%7B", b"{").replace(b"%25", b"%"))


def namespace_field(namespace: str) -> bytes:
    """A namespace without the separator, so that an id may follow it."""
    return to_bytes(namespace).replace(b"\x01", b"\x01\x02").replace(_SEPARATOR, b"\x01\x01")


def namespace_of(field: bytes) -> str:
    """The inverse of `namespace_field`."""
    return to_text(field.replace(b"\x01\x01", _SEPARATOR).replace(b"\x01\x02", b"\x01"))
