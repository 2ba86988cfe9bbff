"""A search index of the server's, as our logic sees it.

It keeps to what Valkey's own search module knows (and ElastiCache's, from 8.2 on): HASH
keys, one prefix without braces, a TAG and a vector of FLOAT32, and one kind of query, the
nearest K. The module may be missing: then there are no indexes, which is no error.

**Which kind of index.** What a query costs hangs on how much its tag matches: with 10,000
entries a FLAT index takes 0.4 ms where the tag matches 1 % and 12.7 ms where it matches all
of them (1.4 ms without a tag), an HNSW index 9.7 ms for 1 %. So many small sets share one
FLAT index with a tag, and a large set has an HNSW index of its own, asked without a tag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from langgraph_valkey.link import Link

TAG = "s"
"""Field of a hash that says to which set it belongs."""

VECTOR = "v"
"""Field of a hash that holds its vector: float32, little-endian."""

INDEXES_MOST = 10
"""Indexes a server may have: ElastiCache 8.2's limit, and the module's default before 1.2.
(9.0 allows 1,000.)"""


@dataclass(frozen=True, slots=True)
class Index:
    """An index.

    Attributes:
        name: Its name.
        prefix: What the keys of its hashes begin with; no braces.
        dimension: Numbers in each vector.
        of_one_set: Whether all of its hashes belong to one set: HNSW and no tag, else FLAT
            and a tag.
    """

    name: str
    prefix: str
    dimension: int
    of_one_set: bool = False


@dataclass(frozen=True, slots=True)
class Nearest:
    """A query for the nearest hashes.

    Attributes:
        index: Name of the index.
        vector: What they are to be near to: float32, little-endian.
        count: How many.
        tag: Of which set; None in an index of one set. Letters and digits only.
    """

    index: str
    vector: bytes
    count: int
    tag: str | None = None


class IndexMissing(Exception):
    """The server has no such index, or no search module."""


class SearchLink(Link, Protocol):
    """A link over which indexes can be asked."""

    async def nearest(self, query: Nearest) -> list[tuple[bytes, float]]:
        """Keys of the nearest hashes and their cosines, the best first.

        Raises:
            IndexMissing: There is no such index.
            LanggraphValkeyError: The server could not be asked, or a part of it.
        """
        ...


@runtime_checkable
class IndexingLink(SearchLink, Protocol):
    """A link over which indexes are made, too."""

    async def indexes(self) -> frozenset[str] | None:
        """Names of all indexes; None if the server has no search module.

        Raises:
            LanggraphValkeyError: The server could not be asked.
        """
        ...

    async def create_index(self, index: Index) -> None:
        """Create an index, unless there is one of its name.

        Raises:
            LanggraphValkeyError: The server refused it, or could not be asked.
        """
        ...

    async def is_built(self, name: str) -> bool:
        """Whether an index holds all that it is to hold: it is filled after its creation.

        Raises:
            IndexMissing: There is no such index.
            LanggraphValkeyError: The server could not be asked.
        """
        ...


def indexing_of(link: Link) -> IndexingLink | None:
    """The link over which indexes are made and asked: this one, or one behind it, if any.

    Args:
        link: Any. One that stands before another one gives it as its ``indexing``.
    """
    if isinstance(link, IndexingLink):
        return link
    behind = getattr(link, "indexing", None)
    return behind if isinstance(behind, IndexingLink) else None
