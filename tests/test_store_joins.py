"""The join that a replay of the store is: the same in any order, any number of times."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey import operations
from langgraph_valkey.items import calls, records
from langgraph_valkey.items.names import bucket_keys, item_name, pack_namespace
from langgraph_valkey.link import finish
from langgraph_valkey.operations import ANYONE, Answer, Standing
from langgraph_valkey.stored.codec import Codec
from langgraph_valkey.testing import MemoryLink
from langgraph_valkey.testing.memory_link import START_S

KEYS = bucket_keys("lgv:store", "0.1")
NAMESPACES = [pack_namespace((label,)) for label in ("p", "q")]
NAMES = [(namespace, key) for namespace in NAMESPACES for key in (b"a", b"b")]
CODEC = Codec(JsonPlusSerializer())
START_US = round(START_S * 1e6)
PAST_MS, SOON_MS, LATER_MS = (round(START_S * 1e3) + at for at in (-1_000, 60_000, 120_000))
STANDING = Standing(b"n" * 16, b"%016d" % (START_US - 10_000), b"%016d" % START_US)


class Op(NamedTuple):
    """An operation as it was acknowledged; the stamp tells it from all others."""

    name: tuple[bytes, bytes]
    stamp: int
    is_put: bool
    deadline_ms: int = 0
    older_by: int = 0

    def packed(self) -> bytes:
        stamp = b"%016d" % self.stamp
        entry = b"writer%02d" % (self.stamp % 3) + self.stamp.to_bytes(8, "big")
        if not self.is_put:
            gone = calls.deletion(entry, *self.name)
            return b"".join((gone[:1], stamp, gone[17:]))
        body = records.pack(CODEC, {"stamp": self.stamp}, {})
        return calls.stored(
            *(entry, stamp, b"%016d" % (self.stamp - self.older_by), *self.name, body),
            born=self.stamp,
            deadline_ms=self.deadline_ms,
            ttl_ms=60_000 if self.deadline_ms else 0,
        )


def some_ops(chance: random.Random) -> list[Op]:
    """What several processes may have been told, each stamp of one thing done to one item."""
    ops: list[Op] = []
    for n in range(chance.randint(2, 9)):
        stamp = START_US - 5_000 + n
        name, is_put = chance.choice(NAMES), chance.random() < 0.7
        ends = [chance.choice((PAST_MS, SOON_MS, LATER_MS)) for _ in range(chance.randint(0, 2))]
        if is_put and ends:  # Whoever read it has put its end off, and knows how old it is.
            ops += [Op(name, stamp, is_put, ends_ms, chance.choice((0, 50))) for ends_ms in ends]
        else:
            ops.append(Op(name, stamp, is_put))
    return ops


def ask(link: MemoryLink, call: Any) -> Answer:
    return operations.read(finish(link.send([call]))[0])


def join(link: MemoryLink, ops: Sequence[Op]) -> bytes:
    call = calls.join(KEYS, ANYONE, STANDING, [op.packed() for op in ops])
    verdicts: bytes = ask(link, call).rest[0]
    return verdicts


def seen(link: MemoryLink) -> dict[tuple[bytes, bytes], tuple[int, int, int]]:
    """Stamps, first stamps and deadlines of what is there, by every way to read it."""
    read = calls.read_items(ask(link, calls.read(KEYS, [item_name(*name) for name in NAMES])))
    found = {
        name: records.unpack(CODEC, *name, raw)
        for name, raw in zip(NAMES, read, strict=True)
        if raw is not None
    }
    start = calls.FROM_THE_START
    news = calls.news(KEYS, b"", start, b"", bytes_most=9_999, items_most=99)
    changes = calls.read_news(ask(link, news)).changes
    assert {(change.namespace, change.key) for change in changes} == set(found)
    while calls.read_left(ask(link, calls.sweep(KEYS, 99))):
        pass
    listed = calls.read_names(ask(link, calls.names(KEYS, start, b"", names_most=9)))
    assert set(listed.born) == {name[0] for name in found}
    assert all(record.value == {"stamp": int(record.stamp)} for record in found.values())
    return {
        name: (int(each.stamp), int(each.created), each.deadline_ms or 0)
        for name, each in found.items()
    }


def expected(ops: Sequence[Op]) -> dict[tuple[bytes, bytes], tuple[int, int, int]]:
    """Of each item the last one counts; with what anybody was told of its age and its end."""
    found = {}
    for name in NAMES:
        own = [op for op in ops if op.name == name]
        stamp = max((op.stamp for op in own), default=0)
        last = [op for op in own if op.stamp == stamp]
        ends_ms = max((op.deadline_ms for op in last), default=0)
        if last and last[0].is_put and ends_ms != PAST_MS:
            alive = [op for op in last if op.deadline_ms != PAST_MS]
            found[name] = stamp, stamp - max(op.older_by for op in alive), ends_ms
    return found


@pytest.mark.parametrize("seed", range(150))
def test_what_comes_of_it_depends_on_what_is_joined_alone(seed: int) -> None:
    chance = random.Random(seed)
    ops = some_ops(chance)
    for _ in range(3):
        link = MemoryLink()
        left = [*ops, *chance.sample(ops, len(ops) // 2)]
        chance.shuffle(left)
        while left:
            many = chance.randint(1, 4)
            page, left = left[:many], left[many:]
            join(link, page)
        assert seen(link) == expected(ops)
        assert set(join(link, ops)) <= set(b"tdx")
        assert seen(link) == expected(ops)


def test_verdicts() -> None:
    link, name = MemoryLink(), NAMES[0]
    old, new = (Op(name, START_US - at, is_put=True) for at in (90, 50))
    gone = Op(name, START_US - 70, is_put=False)
    assert join(link, [old, old, new, old, gone, new]) == b"ststtt"
    link = MemoryLink()
    assert join(link, [gone, gone, old, new, gone]) == b"stdst"
    link = MemoryLink()
    ended = Op(name, START_US - 60, is_put=True, deadline_ms=PAST_MS)
    assert join(link, [old, ended, old, gone]) == b"sxxt"
    assert seen(link) == {}
    assert join(link, [ended._replace(deadline_ms=SOON_MS)]) == b"s"
    assert seen(link) == {name: (ended.stamp, ended.stamp, SOON_MS)}
    bare = calls.without_body(new.packed())
    call = calls.join(KEYS, ANYONE, STANDING, [bare])
    assert ask(link, call).rest[0] == b"m"
    join(link, [new])
    assert ask(link, call).rest[0] == b"t"


def test_another_primary_joins_nothing() -> None:
    link = MemoryLink()
    call = calls.join(KEYS, b"1" * 40, STANDING, [Op(NAMES[0], START_US, is_put=True).packed()])
    assert ask(link, call).status is operations.Status.MOVED
    assert link.keys == []


def test_news_of_a_join_reach_those_who_were_told_more_already() -> None:
    """It is applied now, whenever it was acknowledged."""
    link = MemoryLink()
    first, late = (Op(NAMES[at], START_US - 10 - at, is_put=True) for at in (0, 1))
    join(link, [first])
    told = calls.news(KEYS, b"", calls.FROM_THE_START, b"", bytes_most=9_999, items_most=9)
    watermark = calls.read_news(ask(link, told)).watermark
    join(link, [late, Op(first.name, first.stamp + 1, is_put=False)])
    again = calls.news(KEYS, b"", watermark, b"", bytes_most=9_999, items_most=9)
    changes = calls.read_news(ask(link, again)).changes
    assert {(c.namespace, c.key): c.record is not None for c in changes} == {
        late.name: True,
        first.name: False,
    }
