"""Names of namespaces, items and buckets as bytes.

A namespace's labels are escaped and each is ended by a NUL. So two namespaces never have
the same name, whatever their labels hold; the name of a prefix is a prefix of the names of
all namespaces beneath it (and of itself), and of no other; and names sort as tuples do.

An item's name is that of its namespace, `SEPARATOR`, and its key as it is. All items of a
namespace live in one *bucket*, one of a fixed number: the unit that is replayed after a
failover, as a thread is of a saver. It has keys in the manner of a thread's (`keys.py`):

=========  ======  ==============================================================
key        type    holds
=========  ======  ==============================================================
`state`    hash    the bucket's identity, births of namespaces, deletions
`index`    zset    the live namespaces (scores 0: members sort as bytes)
`names`    zset    the same, by the stamp of their last change
`graves`   zset    items and namespaces that are gone, by the stamp of that
`ends`     zset    items that expire, by when they do
`n:`...    zset    of a namespace: its keys, by the stamp of their last change
`i:`...    text    an item
=========  ======  ==============================================================
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from langgraph_valkey.keys import ThreadKeys, thread_keys, to_bytes, to_text

SEPARATOR = b"\x01/"
"""What stands between the name of a namespace and a key: in neither escape."""

LAYOUT = "layout"
"""In place of a bucket: where the number of buckets is kept."""


@lru_cache(maxsize=8192)
def pack_namespace(namespace: tuple[str, ...]) -> bytes:
    """The name of a namespace, or of a prefix of namespaces."""
    return b"".join(_escaped(label) + b"\0" for label in namespace)


@lru_cache(maxsize=8192)
def unpack_namespace(name: bytes) -> tuple[str, ...]:
    """The inverse of `pack_namespace`."""
    return tuple(
        to_text(label.replace(b"\x010", b"\0").replace(b"\x011", b"\x01"))
        for label in name.split(b"\0")[:-1]
    )


def item_name(namespace: bytes, key: bytes) -> bytes:
    """The name of an item: that of its namespace, and its key."""
    return namespace + SEPARATOR + key


def split_item_name(name: bytes) -> tuple[bytes, bytes]:
    """The inverse of `item_name`."""
    namespace, _, key = name.partition(SEPARATOR)
    return namespace, key


@lru_cache(maxsize=8192)
def bucket_of(namespace: bytes, buckets: int) -> str:
    """The bucket of a namespace, as the loss window names it.

    Args:
        namespace: The namespace's name.
        buckets: How many there are.
    """
    digest = blake2b(namespace, digest_size=8).digest()
    return f"{int.from_bytes(digest, 'big') % buckets}.{buckets}"


def bucket_names(buckets: int) -> list[str]:
    """All buckets."""
    return [f"{number}.{buckets}" for number in range(buckets)]


def told(bucket: str) -> str:
    """A bucket as people are told of it."""
    number, _, buckets = bucket.partition(".")
    return f"store bucket {number} of {buckets}"


def bucket_keys(prefix: str, bucket: str) -> ThreadKeys:
    """The keys of a bucket."""
    return thread_keys(prefix, bucket)


def _escaped(label: str) -> bytes:
    return to_bytes(label).replace(b"\x01", b"\x011").replace(b"\0", b"\x010")
