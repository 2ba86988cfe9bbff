"""A look at the server past the saver: its keys, what they hold, what was called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import zstandard
from glide_sync import GlideClusterClient, GlideClusterClientConfiguration, NodeAddress

_READERS = {
    b"string": ["GET"],
    b"hash": ["HGETALL"],
    b"zset": ["ZRANGE", "0", "-1", "WITHSCORES"],
    b"set": ["SMEMBERS"],
    b"list": ["LRANGE", "0", "-1"],
    b"stream": ["XRANGE", "-", "+"],
}
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class RawServer:
    """One shard, by plain commands."""

    def __init__(self, client: GlideClusterClient) -> None:
        self._client = client

    def do(self, *words: str | bytes) -> Any:
        return self._client.custom_command(list(words))

    def keys(self, prefix: str) -> list[bytes]:
        found: list[bytes] = self.do("KEYS", f"{prefix}*")
        return sorted(found)

    def memory_bytes(self, prefix: str) -> int:
        return sum(self.do("MEMORY", "USAGE", key, "SAMPLES", "0") for key in self.keys(prefix))

    def deadlines_ms(self, prefix: str) -> dict[bytes, int]:
        """When each key expires, in ms since the epoch; -1: never."""
        return {key: self.do("PEXPIRETIME", key) for key in self.keys(prefix)}

    def content(self, prefix: str) -> bytes:
        """All a key's name, fields and values, compressed parts also as plain text."""
        pieces: list[bytes] = []
        for key in self.keys(prefix):
            command, *rest = _READERS[self.do("TYPE", key)]
            for piece in (key, *_flat(self.do(command, key, *rest))):
                pieces.extend((piece, *_decompressed(piece)))
        return b"\n".join(pieces)

    def script_calls(self) -> int:
        """How many script executions were asked for since the server's start."""
        told = self.do("INFO", "commandstats")
        if isinstance(told, dict):
            told = b"\n".join(told.values())
        calls = 0
        for line in told.decode().splitlines():
            name, _, figures = line.partition(":calls=")
            if name in ("cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall"):
                calls += int(figures.split(",")[0])
        return calls


def _flat(reply: Any) -> Iterator[bytes]:
    if isinstance(reply, dict):
        for key, value in reply.items():
            yield from _flat(key)
            yield from _flat(value)
    elif isinstance(reply, list | tuple | set):
        for one in reply:
            yield from _flat(one)
    elif isinstance(reply, bytes):
        yield reply


def _decompressed(piece: bytes) -> Iterator[bytes]:
    """Each zstd frame inside, decompressed."""
    at = piece.find(_ZSTD_MAGIC)
    while at >= 0:
        with suppress(zstandard.ZstdError):  # raised where the number stands by chance
            yield zstandard.ZstdDecompressor().decompressobj().decompress(piece[at:])
        at = piece.find(_ZSTD_MAGIC, at + 1)


@contextmanager
def raw_server(url: str) -> Iterator[RawServer]:
    parts = urlsplit(url)
    address = NodeAddress(parts.hostname or "127.0.0.1", parts.port or 6379)
    client = GlideClusterClient.create(GlideClusterClientConfiguration([address]))
    try:
        yield RawServer(client)
    finally:
        client.close()
