"""Listing namespaces: from a mirror of their names.

As of items (`mirror`): each bucket is asked for what is new since it was asked last, all of
them side by side, and then the page is made here. A namespace is listed as long as it has an
item. The server tells of items that have expired and were not taken out yet; so where there
are some, that is done first.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from langgraph.store.base import ListNamespacesOp

from langgraph_valkey.errors import LanggraphValkeyError, Unreachable
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.items import calls
from langgraph_valkey.items.asking import TRIES, Buckets, ask_all
from langgraph_valkey.items.calls import Names
from langgraph_valkey.items.names import unpack_namespace
from langgraph_valkey.items.namespaces import Namespace, listed
from langgraph_valkey.items.telling import NOWHERE, Basis, Telling, names_of
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call, Link
from langgraph_valkey.operations import Answer

FEW = 64
"""Changes that are put in their places one by one; more are sorted in."""

KEPT_MOST = 200_000
"""Namespaces that are kept at hand, about 60 MB; more are read anew for each listing."""

SWEPT_AT_ONCE = 500
"""Expired items that one call takes out."""

SWEEPS_MOST = 20
"""How often one listing does that; what is left then, the next one does."""


class NamesMirror:
    """The names of all namespaces; safe to use from many threads.

    Attributes:
        lock: To be held by who reads `namespaces`.
    """

    lock: threading.RLock

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: the lock may be held by nobody, and what it guards be half done."""
        self.lock = threading.RLock()
        self._sorted: list[Namespace] | None = []
        self._basis: dict[str, Basis] = {}
        self._names: dict[str, set[bytes]] = {}

    def basis(self, bucket: str) -> Basis:
        """Of whom a bucket's names were told, and up to when."""
        return self._basis.get(bucket, NOWHERE)

    def reaches(self, seen: Mapping[str, Basis]) -> bool:
        """Whether each of some buckets is known as far as was seen, or further."""
        return all(self.basis(bucket).reaches(basis) for bucket, basis in seen.items())

    def learn(self, bucket: str, since: Basis, basis: Basis, told: Mapping[bytes, bool]) -> bool:
        """Take what a bucket told, unless it is known already, or what was before is not.

        Args:
            bucket: Which one.
            since: From where on it told; `NOWHERE` where it told everything.
            basis: Of whom, and up to when.
            told: Names of namespaces, and whether they have items.

        Returns:
            Whether what it told is known now; if not, it has to be asked anew.
        """
        with self.lock:
            here = self.basis(bucket)
            if here.reaches(basis):
                return True
            if since != NOWHERE and not here.reaches(since):
                return False
            names = self._names.get(bucket, set())
            gone = names if since == NOWHERE else {name for name, has in told.items() if not has}
            new = names.difference(gone).union(name for name, has in told.items() if has)
            self._basis[bucket] = basis
            self._names[bucket] = new
            self._change(names - new, new - names)
            return True

    @property
    def namespaces(self) -> list[Namespace]:
        """All namespaces, sorted."""
        if self._sorted is None:
            every = sorted(name for names in self._names.values() for name in names)
            self._sorted = [unpack_namespace(name) for name in every]  # They sort alike.
        return self._sorted

    def _change(self, removed: Collection[bytes], added: Collection[bytes]) -> None:
        here = self._sorted
        if here is None or len(removed) + len(added) > FEW:
            self._sorted = None  # Sorted once all buckets have told.
            return
        for name in removed:
            del here[bisect_left(here, unpack_namespace(name))]
        for name in added:
            insort(here, unpack_namespace(name))


class NamesUpdate:
    """Brings the names up to date; as of `updating.Update`.

    Args:
        mirror: Those.
        keys: Of all buckets.

    Attributes:
        mirror: As given.
        seen: Up to where each bucket was asked: the mirror must reach that.
        due: How many items of each bucket have expired and were not taken out yet.
    """

    def __init__(self, mirror: NamesMirror, keys: Mapping[str, ThreadKeys]) -> None:
        self.mirror = mirror
        self._keys = keys
        self._open = {bucket: self._telling(bucket) for bucket in keys}
        self._told: dict[str, dict[bytes, bool]] = {}
        self.seen: dict[str, Basis] = {}
        self.due: dict[str, int] = {}

    def _telling(self, bucket: str) -> Telling[Names]:
        return names_of(self._keys[bucket], self.mirror.basis(bucket))

    def next(self) -> list[tuple[str, Call]]:
        """What to ask next, of which buckets; nothing at the end."""
        return [(bucket, telling.call()) for bucket, telling in self._open.items()]

    def take(self, bucket: str, answer: Answer) -> None:
        """Take what a bucket answered."""
        telling = self._open[bucket]
        names = telling.take(answer)
        if names is None or names.anew:
            self._told.pop(bucket, None)
        if names is None:
            return
        told = self._told.setdefault(bucket, {})
        told.update(dict.fromkeys(names.born, True))
        told.update(dict.fromkeys(names.gone, False))
        if not telling.is_done:
            return
        self.due[bucket] = names.due
        if self.mirror.learn(bucket, telling.since, telling.basis, self._told.pop(bucket)):
            self.seen[bucket] = telling.basis
            del self._open[bucket]
        else:
            self._open[bucket] = self._telling(bucket)


class Lister:
    """Answers listings, over any link.

    Args:
        buckets: What asks buckets.
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._mirror = NamesMirror()

    def update(self) -> NamesUpdate:
        """What a listing asks first, to be asked along with other things."""
        return NamesUpdate(self._mirror, self._buckets.keys)

    async def list(
        self,
        link: Link,
        listings: Sequence[ListNamespacesOp],
        update: NamesUpdate | None = None,
    ) -> list[list[Namespace]]:
        """Answer some listings; all of them see the same namespaces.

        Args:
            link: Over which to ask.
            listings: What is wanted.
            update: What was asked for them already, to its end.

        Raises:
            Unreachable: A bucket kept changing its primary.
        """
        sweeps = 0
        for _ in range(TRIES + SWEEPS_MOST):
            if update is None:
                update = self.update()
                await ask_all(self._buckets, link, [update])
            seen, mirror = update.seen, update.mirror
            due = [bucket for bucket, count in update.due.items() if count]
            update = None
            if due and sweeps < SWEEPS_MOST:
                sweeps += 1
                if await self._sweep(link, due):
                    continue
                sweeps = SWEEPS_MOST
            with mirror.lock:
                if not mirror.reaches(seen):
                    continue
                found = [listed(mirror.namespaces, each) for each in listings]
                if len(mirror.namespaces) > KEPT_MOST:
                    self._mirror = NamesMirror()
                return found
        raise Unreachable("the store's buckets kept changing under this listing: call again")

    async def _sweep(self, link: Link, buckets: Sequence[str]) -> bool:
        """Take out what has expired; whether that could be done.

        A server that takes no writes now is read from all the same.
        """
        asked = [
            (bucket, calls.sweep(self._buckets.keys[bucket], SWEPT_AT_ONCE)) for bucket in buckets
        ]
        for _, call in asked:
            call.patient = False
        with suppress(LanggraphValkeyError):
            await self._buckets.read(link, asked)
            return True
        return False
