"""What this process knows of the threads it wrote or read last.

It spares work and is never relied on: each claim that follows from it is checked
by the server (see ``put.lua``), so that forgetting an entry, or keeping one that
has become wrong, costs a second call and nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from langgraph_valkey import limits
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.operations import Standing
from langgraph_valkey.stored.pieces import Value

T = TypeVar("T")


class Base(NamedTuple):
    """A checkpoint that the server is known to have.

    Attributes:
        checkpoint_id: Its id.
        entry: Writer and sequence number of the call that stored it.
        versions: Its channel versions.
        values: What its channels hold.
    """

    checkpoint_id: str
    entry: bytes
    versions: Mapping[str, str | int | float]
    values: Mapping[str, Value]

    @property
    def size(self) -> int:
        """Bytes of all its chunks."""
        return sum(value.size for value in self.values.values())

    def without_own(self, chunks: Mapping[bytes, T]) -> dict[bytes, T]:
        """Those of some chunks, by their names, that it does not refer to."""
        own = {piece.digest for value in self.values.values() for piece in value.pieces}
        return {digest: chunk for digest, chunk in chunks.items() if digest not in own}


@dataclass(slots=True)
class _Thread:
    standing: Standing
    bases: OrderedDict[str, Base] = field(default_factory=OrderedDict)


class Known:
    """A bounded memory of threads; safe to use from many threads."""

    def __init__(
        self, *, threads_most: int = limits.KNOWN_THREADS_MOST,
        namespaces_most: int = limits.KNOWN_NAMESPACES_MOST,
    ) -> None:  # fmt: skip
        self._threads: OrderedDict[str, _Thread] = OrderedDict()
        self._threads_most = threads_most
        self._namespaces_most = namespaces_most
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget whoever held the lock in the parent."""
        self._lock = threading.Lock()

    def standing(self, thread: str) -> Standing:
        """What is known of a thread; an empty standing if nothing is."""
        known = self._threads.get(thread)
        return known.standing if known is not None else Standing()

    def base(self, thread: str, namespace: str) -> Base | None:
        """The checkpoint last written or read in a namespace."""
        known = self._threads.get(thread)
        return known.bases.get(namespace) if known is not None else None

    def learn(
        self, thread: str, standing: Standing, namespace: str = "", base: Base | None = None
    ) -> None:
        """Note what an answer said of a thread.

        Args:
            thread: Its name.
            standing: Its standing. Another nonce than before voids its bases.
            namespace: The namespace of `base`.
            base: A checkpoint that the server has.
        """
        with self._lock:
            known = self._threads.get(thread)
            if known is None:
                known = self._threads[thread] = _Thread(standing)
            elif standing.stamp < known.standing.stamp:
                return  # An answer that was overtaken by a newer one.
            elif known.standing.nonce != standing.nonce:
                known.bases.clear()
            known.standing = standing
            self._threads.move_to_end(thread)
            if base is not None:
                known.bases[namespace] = base
                known.bases.move_to_end(namespace)
                if len(known.bases) > self._namespaces_most:
                    known.bases.popitem(last=False)
            if len(self._threads) > self._threads_most:
                self._threads.popitem(last=False)

    def forget(self, thread: str) -> None:
        """Drop what is known of a thread, since it proved wrong."""
        with self._lock:
            self._threads.pop(thread, None)
