"""A connection through a node's door, and keys to write over it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from langgraph_valkey.local import LocalCluster, Node, ServerError
from langgraph_valkey.local.resp import CLUSTERDOWN, Argument, Reply, encode, read_reply


class Wire:
    """One connection to a port of this machine, for requests one by one or in a row."""

    def __init__(self, port: int, *, timeout_s: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._stream = self._socket.makefile("rb")

    def __call__(self, *args: Argument) -> Reply:
        self.send(args)
        return self.receive()

    def send(self, *requests: Sequence[Argument]) -> None:
        """Send without waiting for replies."""
        self._socket.sendall(b"".join(encode(tuple(request)) for request in requests))

    def receive(self) -> Reply:
        """Read the next reply; raises ServerError if it is one."""
        return read_reply(self._stream)

    def pipeline(self, *requests: Sequence[Argument]) -> list[Reply | str]:
        """Send at once; return all replies, errors as their texts."""
        self.send(*requests)
        replies: list[Reply | str] = []
        for _ in requests:
            try:
                replies.append(self.receive())
            except ServerError as error:
                replies.append(str(error))
        return replies

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()


def refused_after_s(node: Node, key: str, most_s: float) -> float:
    """Write until a write is refused; how long that took, in seconds."""
    began_s = time.monotonic()
    with Wire(node.port) as wire:
        while time.monotonic() < began_s + most_s:
            if wire.pipeline(("SET", key, "late")) == [CLUSTERDOWN]:
                return time.monotonic() - began_s
            time.sleep(0.005)
    raise AssertionError(f"nothing was refused within {most_s} s")


def keys_of(cluster: LocalCluster, shard: int, count: int) -> list[str]:
    """New keys that live in one slot of the shard."""
    while cluster.shard_of(tag := os.urandom(6).hex()) != shard:
        pass
    return [f"{{{tag}}}{number:05}" for number in range(count)]


def surviving(node: Node, keys: Sequence[str]) -> list[str]:
    """Those of the keys, all of one slot, that the node has, in their order."""
    values = node.command("MGET", *keys)
    assert isinstance(values, list)
    return [key for key, value in zip(keys, values, strict=True) if value is not None]


def mend(cluster: LocalCluster) -> None:
    """Make a cluster of three shards whole again, and end its faults."""
    for shard in range(3):
        cluster.release_log(shard)
        cluster.set_lag(shard, 0.0)
        cluster.resume(shard)
    for node in cluster.nodes:
        if not node.running:
            cluster.restart_node(node)
    cluster.wait_healthy()
