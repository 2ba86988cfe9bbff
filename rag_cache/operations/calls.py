"""Building the calls. The scripts' heads say what each argument is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langgraph_valkey.link import Call, Script
from langgraph_valkey.scripts import assemble
from rag_cache.partitions import Partition, bucket_keys

_READS = "flags=no-writes"
_FREES = "flags=allow-oom"
"""What must go on when the server is full: it makes entries invalid, or frees memory."""


def _script(name: str, flags: str = "", *, shared: bool = True) -> Script:
    return assemble(__package__, name, ("identity", "entries") if shared else (), flags)


def serve(
    partition: Partition,
    scope: str,
    marks: bytes,
    ids: Sequence[str],
    known: tuple[bytes, bytes],
    news_most: int,
) -> Call:
    """Serve the first of some entries that may be served.

    Args:
        partition: Where they are.
        scope: Key of their scope.
        marks: Marks of the scope itself, packed.
        ids: The entries, the best one first.
        known: Nonce and counter up to which the caller knows the scope.
        news_most: How many new entries to tell of.
    """
    name = scope.encode()
    args = [name, partition.tenant, marks, *known, b"%d" % news_most]
    args += [each.encode() for each in ids]
    keys = (partition.versions, partition.scopes + name, partition.entries(scope))
    return Call(_script("serve", _READS), keys, args, writes=False)


def store(
    partition: Partition,
    scope: str,
    marks: bytes,
    entry: Entry,
    fence: bytes,
    *,
    ttl_ms: int,
    kept_ms: int,
    entries_most: int,
) -> Call:
    """Store an entry, unless what it was made from has changed since the fence."""
    name = scope.encode()
    args = [name, partition.tenant, marks, fence]
    args += [b"%d" % ttl_ms, b"%d" % kept_ms, b"%d" % entries_most]
    args += [entry.id.encode(), entry.marks, entry.value, entry.card, entry.vector]
    keys = (partition.versions, partition.scopes + name, partition.entries(scope))
    size = len(entry.value) + len(entry.card) + len(entry.vector)
    return Call(_script("store"), keys, args, writes=True, size=size)


class Entry:
    """What is stored: an entry in its stored form.

    Args:
        entry_id: Its id.
        marks: Its own marks and their versions, packed.
        value: The value, and what is told with it.
        card: What is needed to judge whether it fits a question.
        vector: The question's embedding, float32; b"" if there is none.
    """

    __slots__ = ("card", "id", "marks", "value", "vector")

    def __init__(
        self, entry_id: str, marks: bytes, value: bytes, card: bytes, vector: bytes
    ) -> None:
        self.id = entry_id
        self.marks = marks
        self.value = value
        self.card = card
        self.vector = vector


def change(partition: Partition, packed: Iterable[bytes], kept_ms: int, token: bytes = b"") -> Call:
    """Write changed versions down.

    Args:
        partition: Where.
        packed: Of each: mark, number of the change, version; 16 bytes each.
        kept_ms: For how long they are kept at least.
        token: Of who writes all of them anew.
    """
    args = [b"%d" % kept_ms, token, *packed]
    return Call(_script("change", _FREES), (partition.versions,), args, writes=True)


def verify(partition: Partition, identity: str, token: bytes, nonce: bytes) -> Call:
    """Say that all versions were written down on a primary."""
    args = [identity.encode(), token, nonce]
    return Call(_script("verify", _FREES), (partition.versions,), args, writes=True)


def cards(partition: Partition, scope: str, ids: Sequence[str]) -> Call:
    """Ask what is needed to judge some entries."""
    args = [each.encode() for each in ids]
    keys = (partition.entries(scope),)
    return Call(_script("cards", _READS, shared=False), keys, args, writes=False)


def delete(partition: Partition, scope: str, entry_id: str) -> Call:
    """Delete an entry."""
    keys = (partition.scopes + scope.encode(), partition.entries(scope) + entry_id.encode())
    return Call(_script("delete", _FREES, shared=False), keys, [entry_id.encode()], writes=True)


def claim(partition: Partition, entry_id: str, holder: bytes, ttl_ms: int) -> Call:
    """Claim a computation for a time, or give it back (0)."""
    key = partition.claims + entry_id.encode()
    args = [holder, b"%d" % ttl_ms]
    return Call(_script("claim", shared=False), (key,), args, writes=True)


def recall(prefix: str, bucket: int, namespace: bytes, keys: Sequence[bytes]) -> Call:
    """Read values under plain keys of one bucket."""
    script = _script("recall", _READS, shared=False)
    return Call(script, bucket_keys(prefix, bucket), [namespace, *keys], writes=False)


def keep(
    prefix: str,
    bucket: int,
    namespace: bytes,
    nonce: bytes,
    lives_ms: int,
    values: Iterable[tuple[bytes, int, bytes]],
) -> Call:
    """Keep values under plain keys of one bucket: of each its key, time to live in ms, value."""
    args = [namespace, nonce, b"%d" % lives_ms]
    size = 0
    for key, ttl_ms, value in values:
        args += [key, b"%d" % ttl_ms, value]
        size += len(value)
    script = _script("keep", shared=False)
    return Call(script, bucket_keys(prefix, bucket), args, writes=True, size=size)


def forget(prefix: str, bucket: int, namespace: bytes) -> Call:
    """Forget the values of a namespace in one bucket; of all namespaces if it is b""."""
    keys = bucket_keys(prefix, bucket)[:1]
    return Call(_script("forget", _FREES, shared=False), keys, [namespace], writes=True)
