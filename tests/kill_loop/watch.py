"""When a replica becomes the primary: seen by asking it every 10 ms, in a thread."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.local import LocalCluster, Node

POLL_S = 0.01
ASK_TIMEOUT_S = 0.5
PROMOTED_DEADLINE_S = 15.0
"""A crash failover takes about 1.5 s; a lost election is repeated after some seconds."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A replica that became the primary.

    Attributes:
        former: The replication id of the one it replaced.
        identity: Its own from then on.
        at_s: When that was first seen, on the monotonic clock, which all processes share.
    """

    former: str
    identity: str
    at_s: float


class Watch:
    """Watches the replicas of a shard until one is promoted; a context manager.

    Args:
        cluster: The cluster.
        shard: The shard.
    """

    def __init__(self, cluster: LocalCluster, shard: int) -> None:
        self._former = leads(cluster.primary(shard))
        self._nodes = cluster.replicas(shard)
        self._stop = threading.Event()
        self._seen = threading.Event()
        self._promotion: Promotion | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def promoted(self) -> Promotion:
        """Wait for the promotion.

        Raises:
            TimeoutError: It did not come in time.
        """
        if not self._seen.wait(PROMOTED_DEADLINE_S) or self._promotion is None:
            raise TimeoutError(f"none of {self._nodes} was promoted")
        return self._promotion

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            for node in self._nodes:
                identity = leads(node)
                if identity:
                    self._promotion = Promotion(self._former, identity, time.monotonic())
                    self._seen.set()
                    return


def leads(node: Node) -> str:
    """The node's replication id if it is a primary, else ''."""
    try:
        reply = node.command("INFO", "replication", timeout_s=ASK_TIMEOUT_S)
    except LanggraphValkeyError:
        return ""
    text = reply.decode() if isinstance(reply, bytes) else ""
    fields = dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)
    return fields["master_replid"] if fields.get("role") == "master" else ""
