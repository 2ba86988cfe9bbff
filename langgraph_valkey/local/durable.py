"""The doors of all nodes of a durable cluster.

One event loop in one thread keeps them all, from the cluster's start to its stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langgraph_valkey.local.front import Front, LoopThread
from langgraph_valkey.local.gate import Wanted
from langgraph_valkey.local.log import Log, Rule
from langgraph_valkey.local.node import Node
from langgraph_valkey.local.resp import write_commands

SERVER_OPTIONS = {
    # A replica under a held log hears nothing for long, and must not give up.
    "repl-timeout": "86400",
    "repl-ping-replica-period": "3600",
    # The stream of writes begins right behind the data. Without a file between, it
    # begins up to a second later, when the replica reports for the second time.
    "repl-diskless-sync": "no",
    "rdb-del-sync-files": "yes",
}
"""What the servers of a durable cluster are told."""


class Doors:
    """The doors of a cluster's nodes.

    Args:
        rule: How durable the cluster is.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._thread: LoopThread | None = None
        self._fronts: list[Front] = []
        self._of: dict[Node, Front] = {}

    def open(self, server_ports: Sequence[int]) -> list[tuple[int, int]]:
        """Open the doors of nodes that will listen on these ports.

        Returns:
            Of each node, where its clients and where its replicas find it.
        """
        self._thread = thread = LoopThread()
        for number, port in enumerate(server_ports):
            front = Front(thread, port, Log(self._rule, number))
            self._fronts.append(front)
            front.open()
        return [(front.client_port, front.node_port) for front in self._fronts]

    def guard(self, nodes: Sequence[Node]) -> None:
        """Begin to look at what clients write to these nodes, in the order of `open`."""
        self._of = dict(zip(nodes, self._fronts, strict=True))
        writes = write_commands(nodes[0].command("COMMAND"))
        for node, front in self._of.items():
            others = [each for each in nodes if each.shard == node.shard and each is not node]
            front.want(Wanted(writes, _counting(others)))

    def of(self, node: Node) -> Front:
        """The doors of a node."""
        return self._of[node]

    def close(self) -> None:
        """Close them all, and end the thread."""
        if self._thread is None:
            return
        for front in self._fronts:
            front.close()
        self._thread.stop()
        self._thread = None
        self._fronts.clear()
        self._of.clear()


def _counting(others: Sequence[Node]) -> Callable[[], int]:
    """Counts the nodes that exist, frozen ones too, for any of them may be promoted.

    At least one: without a replica nothing is persisted.
    """
    return lambda: max(1, sum(node.pid is not None for node in others))
