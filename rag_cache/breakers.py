"""Which lookups are left alone: those that would ask primaries that don't answer.

A breaker belongs to where entries live, not to whose they are: the tenants of a shard that
is frozen find out together. Lookups of a corpus that is spread ask several primaries, and
what fails does not say which; so the ones that ask the same primaries have one breaker.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from langgraph_valkey.breaker import Breaker
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.primary.versions import PartitionKey
from rag_cache.freshness.standings import Standings

BREAKERS_MOST = 10_000
"""Places whose troubles are remembered."""


class Breakers:
    """The breakers of one process; safe to use from many threads.

    Args:
        standings: Which primary is that of a partition.
    """

    def __init__(self, standings: Standings) -> None:
        self._standings = standings
        self._of: OrderedDict[Hashable, Breaker] = OrderedDict()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin with a free lock: the parent's may be held by nobody here."""
        self._lock = threading.Lock()

    def of(self, names: Sequence[PartitionKey]) -> Breaker:
        """The breaker of lookups that may ask these partitions.

        Args:
            names: The partitions, the one of the very question first.
        """
        primaries = {self._standings.last_identity(name) for name in names}
        # While a primary is not known, nothing is known to be shared.
        place: Hashable = names[0] if "" in primaries else frozenset(primaries)
        with self._lock:
            breaker = self._of.get(place)
            if breaker is None:
                breaker = self._of[place] = Breaker()
                if len(self._of) > BREAKERS_MOST:
                    self._of.popitem(last=False)
            self._of.move_to_end(place)
            return breaker
