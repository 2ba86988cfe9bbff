"""What is read may be built upon, so it is journaled, too: as the operation that stores it.

As of a saver's (`langgraph_valkey.reads`). What this process wrote itself already stands in its
journal, or is durable; unless its outcome was not known, and the read tells that it was
applied. And a read that puts off an item's end is a write of a kind: the later end has to
survive, so it is kept now and then.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from langgraph_valkey import limits
from langgraph_valkey.items import calls, names
from langgraph_valkey.items.names import pack_namespace
from langgraph_valkey.items.records import Record
from langgraph_valkey.keys import ThreadKeys, to_bytes
from langgraph_valkey.loss_window.entries import ITEMS, Entry
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Standing


class Source(NamedTuple):
    """Where something was read.

    Attributes:
        bucket: In which bucket.
        keys: Its keys.
        identity: Which primary told it, or one that is asked no more.
        standing: The bucket as it was then.
    """

    bucket: str
    keys: ThreadKeys
    identity: bytes
    standing: Standing


def note(
    window: LossWindow,
    writer: bytes,
    source: Source,
    found: Iterable[tuple[Record, int | None]],
    now_s: float,
) -> None:
    """Journal what others stored of that which was read.

    Args:
        window: The store's.
        writer: This process, as its entries name it.
        source: Where it was read.
        found: The items, and the deadline to which the read put each off; None if it did not.
        now_s: When they were told.
    """
    if not window.rule.journals:
        return
    kept: list[Entry] = []
    doubtful = window.doubtful
    for record, ends_ms in found:
        is_own = record.number[:8] == writer
        if is_own and record.number in doubtful:
            # The call that stored it was applied, with all that it held.
            applied = source.standing._replace(stamp=record.stamp)
            where = source.bucket, source.keys.slot
            kept.append(Entry(record.number, ITEMS, *where, [], 0, applied))
        elif is_own and not ends_ms:
            continue
        kept.append(_entry(source, record, ends_ms or record.deadline_ms or 0))
    if kept:
        window.read(kept, source.identity, now_s)


def _entry(source: Source, record: Record, deadline_ms: int) -> Entry:
    namespace, key = pack_namespace(record.namespace), to_bytes(record.key)
    change = calls.stored(
        *(record.number, record.stamp, record.created, namespace, key, record.body),
        born=record.born,
        deadline_ms=deadline_ms,
        ttl_ms=record.ttl_ms,
    )
    step_ms = max(1, min(record.ttl_ms // limits.REFRESH_SHARE, limits.REFRESH_STEP_MS))
    about = b"%b%b%d" % (record.number, names.item_name(namespace, key), deadline_ms // step_ms)
    number = blake2b(about, digest_size=16).digest()
    where = source.bucket, source.keys.slot
    return Entry(number, ITEMS, *where, [change], len(change), source.standing)
