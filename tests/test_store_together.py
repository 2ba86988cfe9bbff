"""Several questions to one bucket travel as one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from langgraph_valkey import operations
from langgraph_valkey.items import buckets as asking_buckets
from langgraph_valkey.items import calls
from langgraph_valkey.items.calls import FROM_THE_START
from langgraph_valkey.items.names import bucket_of, item_name, pack_namespace
from langgraph_valkey.items.together import Together
from langgraph_valkey.link import finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.testing import memory_store
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


@pytest.mark.parametrize(
    ("differs", "judged"),
    [("nothing", 1), ("primary", 2), ("stamp", 2), ("status", 2), ("count", 2)],
)
def test_what_says_the_same_of_a_bucket_is_judged_once(
    monkeypatch: pytest.MonkeyPatch, differs: str, judged: int
) -> None:
    """Whether an answer holds hangs on the bucket and on who tells of it, not on the question."""
    store = memory_store()
    buckets, link = store._buckets, store._session.blocking
    bucket = next(iter(buckets.keys))
    heard = []

    async def not_yet(*about: Any) -> bool:
        heard.append(about)
        return False

    monkeypatch.setattr(asking_buckets, "not_yet", not_yet)
    standing, other = bytes(16) + b"1" * 48, bytes(16) + b"2" * 48
    first = [b"ok", b"A" * 40, standing, 1, []]
    second = {
        "nothing": [b"ok", b"A" * 40, standing, 2, [b"x"]],
        "primary": [b"ok", b"B" * 40, standing, 1, []],
        "stamp": [b"ok", b"A" * 40, other, 1, []],
        "status": [b"none", b"A" * 40, standing, 1, []],
        "count": [b"ok", b"A" * 40, standing + b"3" * 32, 1, []],
    }[differs]
    asked = [(bucket, calls.read(buckets.keys[bucket], []))] * 2
    found = finish(buckets.until_good(link, asked, [first, second], 0.0))
    assert [each.rest for each in found] == [first[3:], second[3:]]
    assert len(heard) == judged
    store.close()
