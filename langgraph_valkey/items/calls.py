"""The calls of a bucket, one script each: built here, and their replies read here.

As of a saver's (`operations`): an operation is data, nothing here waits, and `read` of
`operations` takes apart what all replies begin with. The scripts' heads say what each
argument is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.items.names import item_name
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call, Script
from langgraph_valkey.operations import Answer, Standing
from langgraph_valkey.scripts import assemble

_READS = "flags=no-writes"
_FREES = "flags=allow-oom"
"""What frees memory, or reads, must run when there is none left."""

_ANY = ""
_CHANGES = ("vectors", "change")
"""What scripts share that change something."""


def _script(name: str, flags: str, *shared: str) -> Script:
    return assemble(__package__, name, ("identity", "prelude", *shared), flags)


def _call(
    name: str, flags: str, keys: ThreadKeys, args: list[bytes], *shared: str, size: int = 0
) -> Call:
    size = size or sum(map(len, args))
    return Call(_script(name, flags, *shared), (keys.state,), args, flags != _READS, size)


# --- reading and changing items -----------------------------------------------------


def read(keys: ThreadKeys, names: Sequence[bytes]) -> Call:
    """Read items by their names; puts off no end. The answer is read by `read_items`."""
    return _call("read", _READS, keys, list(names))


def slide(keys: ThreadKeys, names: Sequence[bytes], *, told: bool) -> Call:
    """Put off the end of items that expire.

    Args:
        keys: The bucket's keys.
        names: Which items.
        told: Whether the items are told, as of `read`; else their deadlines, to be read by
            `read_deadlines`.
    """
    args = [b"%d" % told, *names]
    call = _call("slide", _FREES, keys, args, *_CHANGES)
    call.patient = False  # There is `read`.
    return call


def turn(
    keys: ThreadKeys,
    entry: bytes,
    asked: Sequence[tuple[bytes, bool]],
    changes: Sequence[bytes],
    standing: Standing,
    primary: bytes,
) -> Call:
    """Read items and then change some, in one turn.

    Args:
        keys: The bucket's keys.
        entry: Writer and sequence number, 16 bytes: the same when sent again.
        asked: The names of items that are read, as they were before; and whether the end
            of each is put off.
        changes: Operations (`operations.put`, `operations.deletion`), each of another item.
        standing: What the writer knows of the bucket.
        primary: Which primary is to take it; another one answers `Status.MOVED`.
    """
    head = b"%b%b%b%b%b%016d" % (
        entry,
        standing.nonce,
        standing.gen,
        standing.stamp,
        primary,
        limits.TOMBSTONE_TTL_MS,
    )
    reads = b"".join(b"%d%06d%b" % (slides, len(name), name) for name, slides in asked)
    takes_room = any(change[:1] == PUT for change in changes)
    flags = _ANY if takes_room else _FREES
    return _call("turn", flags, keys, [head, reads, *changes], *_CHANGES)


def read_items(answer: Answer) -> list[bytes | None]:
    """What was read, in the order in which it was asked for, as `records.unpack` takes it."""
    found: list[bytes | None] = answer.rest[1]
    return found


def read_deadlines(answer: Answer) -> list[int | None]:
    """The deadlines that `slide` gave: 0 for never, None where there is no item."""
    return [None if each is None else int(each) for each in answer.rest[1]]


def seek(keys: ThreadKeys, names: Sequence[bytes]) -> Call:
    """Read items that the server's search has named; read by `read_sought`."""
    return _call("seek", _READS, keys, list(names))


def read_sought(answer: Answer) -> tuple[bool, list[bytes | None]]:
    """Whether the search sees all vectors of the bucket; and the items, as of `read`."""
    is_part, found = answer.rest[1:]
    return not is_part, found


# --- operations -----------------------------------------------------------------------

PUT, DELETION = b"P", b"D"
_STAMPED, _BORN, _CREATED, _ENDS, _TTL, _ENTRY = (slice(at, at + 16) for at in range(1, 97, 16))
_LENGTHS, _NAMES = 103, 109
_UNKNOWN = b"0" * 16
LATE, ALREADY = b"l", b"t"


def put(
    entry: bytes, namespace: bytes, key: bytes, body: bytes, *, born: int, ttl_ms: int
) -> bytes:
    """The operation that stores an item.

    Args:
        entry: Writer and sequence number of its call.
        namespace: The name of the item's namespace.
        key: Its key.
        body: What `records.pack` made.
        born: Its place in results, if it is new.
        ttl_ms: How long it lives; 0 for ever.
    """
    return _operation(PUT, _UNKNOWN, born, _UNKNOWN, 0, ttl_ms, entry, namespace, key, body)


def deletion(entry: bytes, namespace: bytes, key: bytes) -> bytes:
    """The operation that deletes an item."""
    return _operation(DELETION, _UNKNOWN, 0, _UNKNOWN, 0, 0, entry, namespace, key, b"")


def stored(
    entry: bytes, stamp: bytes, created: bytes, namespace: bytes, key: bytes, body: bytes,
    *, born: int, deadline_ms: int, ttl_ms: int,
) -> bytes:  # fmt: skip
    """The operation that would store an item as it was read.

    Args:
        entry: Of its last write.
        stamp: Of that.
        created: The stamp of the first.
        namespace: The name of its namespace.
        key: Its key.
        body: Its body.
        born: Its place in results.
        deadline_ms: When it expires; 0 for never.
        ttl_ms: How long it lives from a write or a read on.
    """
    return _operation(PUT, stamp, born, created, deadline_ms, ttl_ms, entry, namespace, key, body)


def _operation(
    kind: bytes, stamp: bytes, born: int, created: bytes, deadline_ms: int, ttl_ms: int,
    entry: bytes, namespace: bytes, key: bytes, body: bytes,
) -> bytes:  # fmt: skip
    name = item_name(namespace, key)
    return b"%b%b%016d%b%016d%016d%b%06d%06d%b%b" % (
        *(kind, stamp, born, created, deadline_ms, ttl_ms, entry),
        *(len(namespace), len(name), name, body),
    )


def settled(changes: list[bytes], answer: Answer) -> list[bytes]:
    """Operations of a turn with what its acknowledgement says of them.

    Those that came too late to change anything are left out.
    """
    return [
        b"".join((change[:1], outcome[1:65], change[_TTL.start :]))
        for change, outcome in zip(changes, answer.rest[2], strict=True)
        if outcome[:1] != LATE
    ]


def unsettled(change: bytes, stamp: int, sent_ms: int) -> bytes:
    """An operation that was never acknowledged, as what it may have become at the latest.

    Args:
        change: The operation; one that was settled stays as it is.
        stamp: A stamp that it is not below.
        sent_ms: When it was sent, on the server's clock or one like it.
    """
    if change[_STAMPED] != _UNKNOWN:
        return change
    ttl_ms = int(change[_TTL])
    at = b"%016d" % stamp
    ends = b"%016d" % (ttl_ms and sent_ms + ttl_ms)
    return b"".join((change[:1], at, change[_BORN], at, ends, change[_TTL.start :]))


def without_body(change: bytes) -> bytes:
    """The same without what it would store: it can be asked for, and no more."""
    return change[: _NAMES + int(change[_LENGTHS:_NAMES])]


def join(keys: ThreadKeys, primary: bytes, standing: Standing, changes: Sequence[bytes]) -> Call:
    """Join operations, with their stamps, into what the server has of a bucket.

    Args:
        keys: The bucket's keys.
        primary: Which primary is to take it.
        standing: The bucket as it was when they were acknowledged; its stamp is the newest
            one that this process knows.
        changes: The operations.
    """
    head = b"%b%b%b%b%b%016d" % (
        primary,
        standing.nonce,
        standing.gen,
        standing.dead,
        standing.stamp,
        limits.TOMBSTONE_TTL_MS,
    )
    return _call("join", _FREES, keys, [head, *changes], *_CHANGES)


def applying(keys: ThreadKeys, args: list[bytes], *, anyway: bool) -> Call:
    """Bring a bucket what the primary store has; see `memories.apply`."""
    return _call("apply", _FREES if anyway else _ANY, keys, args, *_CHANGES)


# --- what is new ------------------------------------------------------------------


class Change(NamedTuple):
    """An item that is new, or not what it was.

    Attributes:
        namespace: The name of its namespace (`names.pack_namespace`).
        key: Its key.
        record: The item as `records.unpack` takes it; None if it is gone.
    """

    namespace: bytes
    key: bytes
    record: bytes | None


class News(NamedTuple):
    """A page of what is new in a bucket.

    Attributes:
        changes: In no order that means anything.
        cursor: Where the next page begins; b"" if this was the last.
        watermark: What to ask by for what is new after this; good once the last page is
            there.
        server_ms: The server's clock.
        anew: These are not changes: what the asker knows of this bucket, from before this
            page, is void, and all there is will be told, from this page on.
    """

    changes: list[Change]
    cursor: bytes
    watermark: bytes
    server_ms: int
    anew: bool


FROM_THE_START = b"0" * 16
"""The watermark of whoever knows nothing."""


def news(
    keys: ThreadKeys,
    prefix: bytes,
    watermark: bytes,
    cursor: bytes,
    *,
    bytes_most: int,
    items_most: int,
) -> Call:
    """Ask for a page of what is new in a bucket since a watermark.

    The answer is read by `read_news`, also where its status says that there is no such
    bucket. It is of the primary `Answer.identity` and the bucket `Answer.standing`: where
    either is another than of the page, or the watermark, before it, that counts for
    nothing.

    Args:
        keys: The bucket's keys.
        prefix: The name of a prefix of namespaces; b"" for all.
        watermark: What the last news gave; `FROM_THE_START` to be told everything.
        cursor: What the last page gave; b"" for the first.
        bytes_most: About how many bytes a page may hold.
        items_most: How many items.
    """
    args = [prefix, watermark, cursor, b"%d" % bytes_most, b"%d" % items_most]
    size = bytes_most if watermark == FROM_THE_START else 0
    return _call("news", _READS, keys, args, "paging", size=size)


def read_news(answer: Answer) -> News:
    """The page that an answer to `news` brings."""
    server_ms, watermark, cursor, anew, found, *_ = answer.rest
    changes = [
        Change(namespace, kept[at], kept[at + 1])
        for namespace, kept in zip(found[::2], found[1::2], strict=True)
        for at in range(0, len(kept), 2)
    ]
    return News(changes, cursor, watermark, int(server_ms), bool(anew))


class Names(NamedTuple):
    """A page of which namespaces are new in a bucket, or gone.

    Attributes:
        born: Names of namespaces that have items.
        gone: Names of namespaces that have none any more.
        cursor: Where the next page begins; b"" if this was the last.
        watermark: As of `News`.
        due: How many items have expired and were not taken out yet, so that namespaces may
            be told of which have none: send `sweep` until it leaves none, and ask again.
        anew: As of `News`.
    """

    born: list[bytes]
    gone: list[bytes]
    cursor: bytes
    watermark: bytes
    due: int
    anew: bool


def names(keys: ThreadKeys, watermark: bytes, cursor: bytes, *, names_most: int) -> Call:
    """Ask for a page of the namespaces that are new, or gone, since a watermark.

    A namespace may be told of twice, also as born and then as gone; the later one is right.

    Args:
        keys: The bucket's keys.
        watermark: What the last names gave; `FROM_THE_START` to be told of all.
        cursor: What the last page gave; b"" for the first.
        names_most: How many a page may hold.
    """
    return _call("names", _READS, keys, [watermark, cursor, b"%d" % names_most], "paging")


def read_names(answer: Answer) -> Names:
    """The page that an answer to `names` brings."""
    _, watermark, cursor, anew, born, gone, due = answer.rest
    return Names(born, gone, cursor, watermark, due, bool(anew))


def sweep(keys: ThreadKeys, items_most: int) -> Call:
    """Take out some of what has expired; `read_left` says whether there is more."""
    return _call("sweep", _FREES, keys, [b"%d" % items_most], *_CHANGES)


def read_left(answer: Answer) -> int:
    """How many expired items `sweep` has left."""
    left: int = answer.rest[0]
    return left


# --- the layout -------------------------------------------------------------------------


def layout(keys: ThreadKeys, buckets: int | None = None) -> Call:
    """Ask how many buckets the store has; its reply is that, or None.

    Args:
        keys: Those of `names.LAYOUT`.
        buckets: The number to be kept where there is none yet.
    """
    flags = _READS if buckets is None else _ANY
    args = [] if buckets is None else [b"%d" % buckets]
    return Call(assemble(__package__, "layout", (), flags), (keys.state,), args, bool(args))
