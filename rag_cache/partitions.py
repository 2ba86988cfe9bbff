"""Where things are kept: partitions, and the names of keys.

A *partition* is one hash slot: the entries of one tenant made from one corpus, and what is
known about the versions of that corpus' documents. So one script call sees both, and
serves nothing that has changed. A corpus that many share may be spread over several
partitions; every one of them then knows all versions.

=================================  ====  ==============================================
key                                type  holds
=================================  ====  ==============================================
``<prefix>:v:{partition}``         hash  versions of documents; see ``entries.lua``
``<prefix>:s:{partition}:scope``   zset  ids of a scope's entries, oldest first
``<prefix>:e:set:{partition}:id``  hash  an entry; a scope's keys have a prefix in common
``<prefix>:f:{partition}:id``      text  who computes that entry
``<prefix>:l:{bucket}``            hash  lives of namespaces of plain keys
``<prefix>:k:{bucket}:...``        text  values under plain keys
=================================  ====  ==============================================

Entries have a prefix of their own, so that the server can index them and nothing else; and
before the braces, which an index' prefix must not have, stands to which set they belong: the
first digits of their scope's key. So a large scope can have an index of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from langgraph_valkey.keys import to_bytes
from langgraph_valkey.primary.versions import PartitionKey
from rag_cache.scope import digest_of

SET_DIGITS = 8
"""Digits of a scope's key that name its set: two scopes may share one, by chance, and what
an index tells of another scope is not served."""

BUCKETS = 64
"""Over how many slots plain keys are spread: a few for each shard of a large cluster."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One hash slot of entries.

    Attributes:
        name: What the primary store calls it.
        versions: Key of what is known about versions.
        scopes: What keys of scopes begin with.
        stem: What all keys begin with.
        tag: What makes its keys belong to one slot.
        claims: What keys of claims begin with.
        tenant: Digest of the tenant, in hex digits.
    """

    name: PartitionKey
    versions: bytes
    scopes: bytes
    stem: bytes
    tag: bytes
    claims: bytes
    tenant: bytes

    def entries(self, scope: str) -> bytes:
        """What keys of a scope's entries begin with."""
        return b"%b:e:%b:%b:" % (self.stem, scope[:SET_DIGITS].encode(), self.tag)


def recorded(prefix: str, corpus: str) -> str:
    """What the primary store calls a corpus: each cache has corpora of its own there.

    A change counts as made once the partitions were told that the primary store knows, and
    a process tells those under its own prefix only.

    Args:
        prefix: What all keys begin with; it never has the character that follows it here.
        corpus: Name of the corpus.
    """
    return f"{prefix}|{corpus}"


@lru_cache(maxsize=8192)
def partition_of(prefix: str, corpus: str, tenant: str, number: int) -> Partition:
    """A partition and its keys.

    Args:
        prefix: What all keys begin with.
        corpus: Name of the corpus.
        tenant: Name of the tenant.
        number: Which one of those the corpus is spread over, from 0.
    """
    stem = to_bytes(prefix)
    tag = b"{%b.%d}" % (digest_of(corpus, tenant).hex().encode(), number)
    return Partition(
        name=PartitionKey(recorded(prefix, corpus), tenant, number),
        versions=b"%b:v:%b" % (stem, tag),
        scopes=b"%b:s:%b:" % (stem, tag),
        stem=stem,
        tag=tag,
        claims=b"%b:f:%b:" % (stem, tag),
        tenant=digest_of("tenant", tenant).hex().encode(),
    )


def partition_named(prefix: str, name: PartitionKey) -> Partition:
    """A partition, by what the primary store calls it.

    Raises:
        ValueError: It is of a cache with another prefix.
    """
    own = recorded(prefix, "")
    if not name.corpus.startswith(own):
        raise ValueError("this partition is of a cache with another key_prefix")
    return partition_of(prefix, name.corpus.removeprefix(own), name.tenant, name.number)


def set_prefix(prefix: str, scope: str | None = None) -> str:
    """What keys of all entries begin with, or those of a scope's set."""
    return f"{prefix}:e:" if scope is None else f"{prefix}:e:{scope[:SET_DIGITS]}:"


@lru_cache(maxsize=BUCKETS)
def bucket_keys(prefix: str, bucket: int) -> tuple[bytes, bytes]:
    """The keys of a bucket of plain keys: of lives, and what those of values begin with."""
    stem = to_bytes(prefix)
    return b"%b:l:{k%d}" % (stem, bucket), b"%b:k:{k%d}:" % (stem, bucket)
