"""Where locks are kept: the coordination cluster if there is one, else the primary store."""

from __future__ import annotations

from typing import cast

from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.retry import Retrying
from langgraph_valkey.settings import Settings
from langgraph_valkey.tiers.locks import ClusterLeases, Leases, Way, ways
from langgraph_valkey.tiers.prepared import Preparation, Prepared


class LockPlace:
    """Both faces of where locks are kept.

    Args:
        settings: Of that cluster, if there is one.
        primary: The primary store.
        preparation: What is done before the first use of the cluster.

    Attributes:
        faces: Both faces of the leases.
        blocking: The blocking link to the cluster, if there is one.
    """

    def __init__(
        self, settings: Settings | None, primary: PrimaryStore, preparation: Preparation
    ) -> None:
        self.blocking: BlockingLink | None = None
        self._loops: LoopLink | None = None
        self.faces: tuple[Way, Way] = ways(primary.blocking, primary.loops)
        if settings is None:
            return
        self.blocking = BlockingLink(settings)
        self._loops = LoopLink(settings, self.blocking)
        blocking, loops = (
            ClusterLeases(Retrying(link, settings), settings.key_prefix)
            for link in (self.blocking, self._loops)
        )
        self.faces = ways(
            cast("Leases", Prepared(blocking, preparation.blocking)),
            cast("Leases", Prepared(loops, preparation.loops)),
        )

    def close(self) -> None:
        """Close the connections. May be called again."""
        if self.blocking is not None and self._loops is not None:
            self._loops.close()
            self.blocking.close()
