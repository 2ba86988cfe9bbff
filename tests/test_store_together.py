"""Several questions to one bucket travel as one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph_valkey import operations
from langgraph_valkey.items import calls
from langgraph_valkey.items.calls import FROM_THE_START
from langgraph_valkey.items.names import bucket_of, item_name, pack_namespace
from langgraph_valkey.items.together import Together
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from tests.link_ground import links
from tests.store_buckets import BUCKETS, PlainBuckets


def test_what_reads_one_bucket_travels_as_one_call(valkey: LocalValkey, prefix: str) -> None:
    buckets = PlainBuckets(prefix)
    place = pack_namespace(("a",))
    mine, other = bucket_of(place, BUCKETS), next(iter(buckets.keys))
    names = [item_name(place, key) for key in (b"k1", b"none", b"k\0 2")]
    asked = [
        calls.read(buckets.keys[mine], names),
        calls.names(buckets.keys[other], FROM_THE_START, b"", names_most=9),
        calls.news(buckets.keys[mine], b"", FROM_THE_START, b"", bytes_most=9**9, items_most=9),
        calls.sweep(buckets.keys[mine], 1),
        calls.read(buckets.keys[mine], names * 40),
        calls.names(buckets.keys[mine], FROM_THE_START, b"", names_most=9),
        calls.seek(buckets.keys[mine], names[:1]),
        calls.seek(buckets.keys[mine], []),
    ]
    together = Together(asked)
    sent = [call.script.name for call in together.calls]
    assert sorted(sent) == ["names", "read", "several", "sweep"]
    with links(valkey.url) as (link, _):
        buckets.put(link, {(("a",), "k1"): {"n": 1}, (("a",), "k\0 2"): {"n": 2}})
        alone = [finish(link.send([call]))[0] for call in asked]
        replies = together.replies(finish(link.send(together.calls)))
    assert told(replies) == told(alone)
    assert calls.read_items(answer(replies[0]))[1] is None


def told(replies: Sequence[Any]) -> list[Any]:
    """Replies but for clocks and stamps."""
    return [[reply[0], reply[1], reply[2][:32], *map(stampless, reply[4:])] for reply in replies]


def stampless(part: Any) -> Any:
    return None if isinstance(part, bytes) and len(part) == 16 else part


def answer(reply: Any) -> Any:
    return operations.read(reply)
