"""The calls of a bucket, one script each: built here, and their replies read here.

As of a saver's (`operations`): an operation is data, nothing here waits, and `read` of
`operations` takes apart what all replies begin with. The scripts' heads say what each
argument is for.
"""

from __future__ import annotations

from typing import NamedTuple

from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call, Script
from langgraph_valkey.operations import Answer
from langgraph_valkey.scripts import assemble

_READS = "flags=no-writes"


def _script(name: str, flags: str, *shared: str) -> Script:
    return assemble(__package__, name, ("identity", "prelude", *shared), flags)


def _call(
    name: str, flags: str, keys: ThreadKeys, args: list[bytes], *shared: str, size: int = 0
) -> Call:
    names = keys.state, keys.index, keys.graves
    writes = flags != _READS
    size = size or sum(map(len, args))
    return Call(_script(name, flags, *shared), names, args, writes, size)


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
    return _call("news", _READS, keys, args, "items", size=bytes_most)


def read_news(answer: Answer) -> News:
    """The page that an answer to `news` brings."""
    server_ms, watermark, cursor, anew, found = answer.rest
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
        due: Some items have expired and were not taken away yet, so that namespaces may
            be told of which have none: send `sweep` and ask again.
        anew: As of `News`.
    """

    born: list[bytes]
    gone: list[bytes]
    cursor: bytes
    watermark: bytes
    due: bool
    anew: bool


def names(keys: ThreadKeys, watermark: bytes, cursor: bytes, *, names_most: int) -> Call:
    """Ask for a page of the namespaces that are new, or gone, since a watermark.

    Args:
        keys: The bucket's keys.
        watermark: What the last names gave; `FROM_THE_START` to be told of all.
        cursor: What the last page gave; b"" for the first.
        names_most: How many a page may hold.
    """
    args = [watermark, cursor, b"%d" % names_most]
    return _call("names", _READS, keys, args)


def read_names(answer: Answer) -> Names:
    """The page that an answer to `names` brings."""
    watermark, cursor, due, anew, born, gone = answer.rest
    return Names(born, gone, cursor, watermark, bool(due), bool(anew))
