"""A batch of operations, sorted by what has to be asked of whom; bad input ends here.

As LangGraph's InMemoryStore has it: what is read is what was there before the batch, and of
several puts to one item the last one wins, in the place of the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    Op,
    PutOp,
    SearchOp,
)

from langgraph_valkey.items import namespaces
from langgraph_valkey.items.names import bucket_of, item_name, pack_namespace
from langgraph_valkey.keys import to_bytes

_MS_A_MINUTE = 60_000
_TTL_MS_MOST = 1 << 42
"""About 139 years: a deadline beyond that does not fit beside the server's clock."""


class DurablePut(PutOp):
    """A `PutOp` that goes through the store's primary store; see `ValkeyStore.put`."""

    __slots__ = ()


class Get(NamedTuple):
    """An item to be read.

    Attributes:
        at: Its place in the batch.
        namespace: The name of its namespace.
        key: Its key.
        slides: Whether its end is to be put off, if it has one.
    """

    at: int
    namespace: bytes
    key: bytes
    slides: bool

    @property
    def name(self) -> bytes:
        """The item's name."""
        return item_name(self.namespace, self.key)


class Put(NamedTuple):
    """An item to be stored, or deleted.

    Attributes:
        namespace: The name of its namespace.
        key: Its key.
        op: As the caller gave it.
        ttl_ms: How long it lives; 0 for ever.
        rank: Its place among the puts of the batch.
    """

    namespace: bytes
    key: bytes
    op: PutOp
    ttl_ms: int
    rank: int = 0


@dataclass(slots=True)
class Batch:
    """What a batch asks for.

    Attributes:
        size: How many operations it has.
        gets: Items to be read, by bucket.
        puts: Items to be stored or deleted, each once, by bucket.
        lasting: The same, of those that go through the primary store: one that is put
            several times does if one of its puts is a `DurablePut`.
        searches: By their places in the batch.
        listings: By their places in the batch.
    """

    size: int = 0
    gets: dict[str, list[Get]] = field(default_factory=dict)
    puts: dict[str, list[Put]] = field(default_factory=dict)
    lasting: dict[str, list[Put]] = field(default_factory=dict)
    searches: dict[int, SearchOp] = field(default_factory=dict)
    listings: dict[int, ListNamespacesOp] = field(default_factory=dict)

    @property
    def changes(self) -> list[Put]:
        """All that is stored or deleted."""
        return [put for of in (self.puts, self.lasting) for some in of.values() for put in some]

    @property
    def reads_what_it_changes(self) -> bool:
        """Whether one of its puts is to an item that it reads, too."""
        for bucket, puts in self.puts.items():
            read = {(get.namespace, get.key) for get in self.gets.get(bucket, ())}
            if read and any((put.namespace, put.key) in read for put in puts):
                return True
        return False


def sort(ops: Iterable[Op], buckets: int) -> Batch:
    """Sort operations by bucket.

    Args:
        ops: As `BaseStore.batch` takes them.
        buckets: How many buckets there are.

    Raises:
        InvalidNamespaceError: A namespace is no tuple of strings.
        TypeError, ValueError: Another part of an operation can't be meant.
    """
    batch = Batch()
    gets = batch.gets
    puts: dict[tuple[bytes, bytes], tuple[PutOp, int]] = {}
    lasting: set[tuple[bytes, bytes]] = set()
    for at, op in enumerate(ops):
        batch.size += 1
        if isinstance(op, GetOp):
            name, key = _namespace(op.namespace), _key(op.key)
            get = Get(at, name, key, bool(op.refresh_ttl))
            gets.setdefault(bucket_of(name, buckets), []).append(get)
        elif isinstance(op, PutOp):
            name, key = _namespace(op.namespace), _key(op.key)
            puts[name, key] = _checked(op), _ttl_ms(op.ttl)
            if isinstance(op, DurablePut):
                lasting.add((name, key))
        elif isinstance(op, SearchOp):
            _namespace(op.namespace_prefix)
            batch.searches[at] = op
        elif isinstance(op, ListNamespacesOp):
            for condition in op.match_conditions or ():
                _namespace(namespaces.path_of(condition))
            namespaces.check(op)
            batch.listings[at] = op
        else:
            raise ValueError(f"Unknown operation type: {type(op)}")  # noqa: TRY004 - as others do
    for rank, (item, (op, ttl_ms)) in enumerate(puts.items()):
        name, key = item
        where = batch.lasting if item in lasting else batch.puts
        where.setdefault(bucket_of(name, buckets), []).append(Put(name, key, op, ttl_ms, rank))
    return batch


def _namespace(given: Any) -> bytes:
    try:
        return _name_of(given)  # Mostly it is one of few.
    except TypeError:  # It can't be looked up.
        return _name_of.__wrapped__(given)


@lru_cache(maxsize=8192)
def _name_of(given: Any) -> bytes:
    if not isinstance(given, tuple | list):
        raise InvalidNamespaceError(
            f"a namespace must be a tuple of strings, not {type(given).__name__}"
        )
    for label in given:
        if not isinstance(label, str):
            raise InvalidNamespaceError(
                f"a label of a namespace must be a string, not {type(label).__name__}"
            )
    return pack_namespace(tuple(given))


def _key(given: Any) -> bytes:
    if not isinstance(given, str):
        raise TypeError(f"a key must be a string, not {type(given).__name__}")
    return to_bytes(given)


def _checked(op: PutOp) -> PutOp:
    value, index = op.value, op.index
    if value is not None:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise TypeError(f"a value must be a dict, not {type(value).__name__}")
        for name in value:
            if not isinstance(name, str):
                raise TypeError("a value must have strings as the names of its fields")
    if index is None or index is False:
        return op
    if not isinstance(index, list | tuple) or not all(isinstance(path, str) for path in index):
        raise TypeError("index must be None, False, or a list of paths")
    return op


def _ttl_ms(ttl: Any) -> int:
    if ttl is None:
        return 0
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"ttl must be a number of minutes, not {type(ttl).__name__}")
    if not math.isfinite(ttl) or not 0 < ttl * _MS_A_MINUTE <= _TTL_MS_MOST:
        raise ValueError(f"ttl must be more than 0 minutes, and at most 139 years, not {ttl:g}")
    return max(1, round(ttl * _MS_A_MINUTE))
