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
``<prefix>:e:{partition}:id``      hash  an entry
``<prefix>:f:{partition}:id``      text  who computes that entry
``<prefix>:l:{bucket}``            hash  lives of namespaces of plain keys
``<prefix>:k:{bucket}:...``        text  values under plain keys
=================================  ====  ==============================================

Entries have a prefix of their own, so that the server can index them and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from langgraph_valkey.keys import to_bytes
from langgraph_valkey.primary.versions import PartitionKey
from rag_cache.scope import digest_of

BUCKETS = 64
"""Over how many slots plain keys are spread: a few for each shard of a large cluster."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One hash slot of entries.

    Attributes:
        name: What the primary store calls it.
        versions: Key of what is known about versions.
        scopes: What keys of scopes begin with.
        entries: What keys of entries begin with.
        claims: What keys of claims begin with.
        tenant: Digest of the tenant, in hex digits.
    """

    name: PartitionKey
    versions: bytes
    scopes: bytes
    entries: bytes
    claims: bytes
    tenant: bytes


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
        name=PartitionKey(corpus, tenant, number),
        versions=b"%b:v:%b" % (stem, tag),
        scopes=b"%b:s:%b:" % (stem, tag),
        entries=b"%b:e:%b:" % (stem, tag),
        claims=b"%b:f:%b:" % (stem, tag),
        tenant=digest_of("tenant", tenant).hex().encode(),
    )


@lru_cache(maxsize=BUCKETS)
def bucket_keys(prefix: str, bucket: int) -> tuple[bytes, bytes]:
    """The keys of a bucket of plain keys: of lives, and what those of values begin with."""
    stem = to_bytes(prefix)
    return b"%b:l:{k%d}" % (stem, bucket), b"%b:k:{k%d}:" % (stem, bucket)
