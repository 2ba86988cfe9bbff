"""Building the calls. The scripts' heads say what each argument is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.keys import ThreadKeys, namespace_field, to_bytes
from langgraph_valkey.link import Call, Script
from langgraph_valkey.operations.answer import Standing
from langgraph_valkey.scripts import assemble

ANYONE = b"0" * 40
"""In place of the primary that is expected: any will do."""


class Kind(NamedTuple):
    """What a script may do, and what it is put together from."""

    flags: str
    parts: tuple[str, ...]
    keys: int
    writes: bool


READS = Kind("flags=no-writes", ("identity", "prelude"), 2, writes=False)
_SLIDES = Kind("flags=allow-oom", ("identity", "prelude"), 2, writes=True)
"""A read that puts off the end of a thread: a full server must go on reading."""

_STORES = Kind("", ("identity", "prelude", "admit"), 3, writes=True)
CHANGES = Kind("flags=allow-oom", ("identity", "prelude", "change"), 3, writes=True)
"""What frees memory must run when there is none left."""


def script(name: str, kind: Kind) -> Script:
    """A script with what it shares with others before it."""
    return assemble(__package__, name, kind.parts, kind.flags)


def call(
    name: str, kind: Kind, keys: ThreadKeys, args: list[bytes], size: int | None = None
) -> Call:
    """One execution of a script on a thread; `size` is that of its arguments if not given."""
    if size is None:
        size = sum(map(len, args))
    names = (keys.state, keys.index, keys.graves)[: kind.keys]
    return Call(script(name, kind), names, args, kind.writes, size, kind is not _SLIDES)


def _head(
    entry: bytes,
    standing: Standing,
    primary: bytes,
    ttl_ms: int | None,
    trusted: bytes,
    flags: bytes,
    namespace: str,
    checkpoint_id: str,
    payload: bytes,
) -> bytes:
    """The first argument of what stores something (``admit.lua``)."""
    name, identifier = namespace_field(namespace), to_bytes(checkpoint_id)
    return b"%b%b%b%b%016d%b%b%b%06d%06d%b%b%b" % (
        entry,
        standing.nonce,
        standing.gen,
        standing.stamp,
        ttl_ms or 0,
        trusted,
        flags,
        primary,
        len(name),
        len(identifier),
        name,
        identifier,
        payload,
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint in its stored form.

    Attributes:
        record: The record.
        chunks: What is sent: digest and stored chunk, joined.
        trusted: Entry of the parent's record, in which what is not sent stands;
            zeros if it is not known.
        complete: All chunks the record refers to are sent.
        root: It may begin a thread anew that was deleted.
        leans: It can't be loaded without its ancestors.
    """

    record: bytes
    chunks: list[bytes]
    trusted: bytes
    complete: bool
    root: bool
    leans: bool


def put(
    keys: ThreadKeys,
    entry: bytes,
    ttl_ms: int | None,
    namespace: str,
    checkpoint_id: str,
    stored: Stored,
    standing: Standing,
    primary: bytes = ANYONE,
) -> Call:
    """Store a checkpoint.

    Args:
        keys: The thread's keys.
        entry: Writer and sequence number, 16 bytes: the same when sent again.
        ttl_ms: When the thread expires, from now on.
        namespace: The checkpoint's namespace.
        checkpoint_id: Its id.
        stored: What is stored.
        standing: What the writer knows of the thread.
        primary: Which primary is to take it; another one answers `Status.MOVED`.
    """
    flags = b"%d%d%d" % (stored.complete, stored.root, stored.leans)
    where = namespace, checkpoint_id
    head = _head(entry, standing, primary, ttl_ms, stored.trusted, flags, *where, stored.record)
    return call("put", _STORES, keys, [head, *stored.chunks])


def put_writes(
    keys: ThreadKeys,
    entry: bytes,
    ttl_ms: int | None,
    namespace: str,
    checkpoint_id: str,
    stored: bytes,
    standing: Standing,
    primary: bytes = ANYONE,
) -> Call:
    """Store a task's writes on a checkpoint. Args are as of `put`.

    A writer that knows the thread relies on its being there; one that does not
    may make it, since writes may come before their checkpoint.
    """
    flags = b"000" if standing.exists else b"100"
    where = namespace, checkpoint_id
    head = _head(entry, standing, primary, ttl_ms, bytes(16), flags, *where, stored)
    return call("put_writes", _STORES, keys, [head])


def get(
    keys: ThreadKeys,
    namespace: str,
    checkpoint_id: str,
    *,
    believed: str = "",
    slide_ttl_ms: int | None = None,
    size: int = 0,
) -> Call:
    """Read a checkpoint, the head if the id is ''.

    Args:
        keys: The thread's keys.
        namespace: Its namespace.
        checkpoint_id: Its id, or ''.
        believed: The id the head is believed to have: it saves the server a look.
        slide_ttl_ms: Put off the thread's end to this long from now.
        size: About how many bytes will come back.
    """
    name, identifier = namespace_field(namespace), to_bytes(checkpoint_id)
    head = b"%016d%06d%06d%b%b%b" % (
        slide_ttl_ms or 0,
        len(name),
        len(identifier),
        name,
        identifier,
        to_bytes(believed),
    )
    return call("get", _SLIDES if slide_ttl_ms else READS, keys, [head], size)


def page(
    keys: ThreadKeys,
    what: str,
    *,
    namespace: str | None,
    after: tuple[str, str] = ("", ""),
    before: str = "",
    only: str = "",
    limit: int,
    ascending: bool = False,
) -> Call:
    """Read a page of checkpoints.

    Args:
        keys: The thread's keys.
        what: 'all', 'meta', 'refs' or 'ids'.
        namespace: A namespace, or None for all.
        after: The cursor that the last page returned.
        before: Only ids below this one.
        only: Only this id.
        limit: How many.
        ascending: Oldest first.
    """
    args = [
        to_bytes(what),
        b"*" if namespace is None else b"=" + namespace_field(namespace),
        to_bytes(after[0] or "1"),
        *map(to_bytes, (after[1], before, only)),
        b"%d" % limit,
        b"up" if ascending else b"down",
        b"%d" % limits.PAGE_BYTES,
    ]
    return call("page", READS, keys, args)


def history(keys: ThreadKeys, namespace: str, checkpoint_id: str, *, limit: int) -> Call:
    """Walk from a checkpoint (the head if the id is '') towards the root."""
    args = [namespace_field(namespace), to_bytes(checkpoint_id), b"%d" % limit]
    args.append(b"%d" % limits.PAGE_BYTES)
    return call("history", READS, keys, args)


def heads(keys: ThreadKeys, after: str = "1") -> Call:
    """Read the heads of the namespaces that outlive a run, a page from an ordinal on."""
    return call("heads", READS, keys, [to_bytes(after)])


def chunks(keys: ThreadKeys, digests: Sequence[bytes]) -> Call:
    """Read chunks."""
    return call("chunks", READS, keys, list(digests))


def delete(keys: ThreadKeys, standing: Standing, primary: bytes = ANYONE) -> Call:
    """Delete the thread, unless it is newer than what the caller knows of it."""
    args = [b"%d" % limits.TOMBSTONE_TTL_MS, primary, standing.stamp]
    return call("delete", CHANGES, keys, args)


def remove(
    keys: ThreadKeys, namespace: str, checkpoint_ids: Sequence[str], primary: bytes = ANYONE
) -> Call:
    """Remove checkpoints with their writes."""
    args = [b"%d" % limits.TOMBSTONE_TTL_MS, primary, namespace_field(namespace)]
    return call("remove", CHANGES, keys, args + [to_bytes(i) for i in checkpoint_ids])


def mend(keys: ThreadKeys) -> Call:
    """Make a lost index anew."""
    return call("mend", CHANGES, keys, [])


def open_sweep(keys: ThreadKeys) -> Call:
    """Begin to drop chunks that nothing refers to."""
    return _sweep(keys, b"open")


def scan_sweep(keys: ThreadKeys, cursor: bytes) -> Call:
    """A page of the chunks that are there. Begins at b'0'."""
    return _sweep(keys, b"scan", cursor)


def drop_chunks(keys: ThreadKeys, digests: Sequence[bytes]) -> Call:
    """Drop chunks, except those a put has come to refer to meanwhile."""
    return _sweep(keys, b"drop", *digests)


def close_sweep(keys: ThreadKeys) -> Call:
    """End the sweep."""
    return _sweep(keys, b"close")


def _sweep(keys: ThreadKeys, step: bytes, *args: bytes) -> Call:
    return call("sweep", CHANGES, keys, [step, b"%d" % limits.SWEEP_MS, *args])
