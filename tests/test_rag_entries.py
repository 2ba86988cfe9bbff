"""Entries as bytes: what comes back, and what is corrupt."""

from __future__ import annotations

import random
from typing import Any

import ormsgpack
import pytest

from rag_cache.entries import FORMAT, Card, Corrupt, Record
from tests.test_rag_values import damaged

CARD = Card("q \ud800 日本", "a" * 32, ("d1", "", "\0\udfff"))
RECORD = Record(
    *("acme \ud800", b"\0value", {"d1": "v1", "\ud800": None, "": ""}),
    *({"input_tokens": 7}, 1.7e9, 2.5),
)


def test_entries_come_back_as_they_were() -> None:
    assert Card.unpack(CARD.pack()) == CARD
    assert Card.unpack(Card("", "", ()).pack()) == Card("", "", ())
    assert Record.unpack(RECORD.pack()) == RECORD
    bare = Record("", b"", {}, {}, 0.0, None)
    assert Record.unpack(bare.pack()) == bare
    assert list(Record.unpack(RECORD.pack()).evidence) == ["d1", "\ud800", ""]


GOOD: list[Any] = [FORMAT, b"acme", b"value", [[b"d1", b"v1"]], {"input_tokens": 7}, 1.7e9, 2.5]


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        *((0, 2), (0, "1"), (1, "acme"), (1, None), (1, b"\xff"), (2, "value"), (2, None)),
        *((3, {}), (3, None), (3, [1]), (3, [[b"d1"]]), (3, [[b"d1", b"v1", b"x"]])),
        *((3, [["d1", b"v1"]]), (3, [[b"d1", "v1"]]), (3, [[b"\xff", None]]), (3, [b"ab"])),
        *((4, []), (4, None), (4, {"input_tokens": "7"}), (4, {"input_tokens": None})),
        *((5, None), (5, "1"), (5, float("nan")), (5, float("inf"))),
        *((6, "2.5"), (6, [2.5]), (6, float("nan"))),
    ],
)
def test_a_record_that_is_not_whole_is_corrupt(at: int, wrong: Any) -> None:
    assert Record.unpack(ormsgpack.packb(GOOD)).took_s == 2.5
    with pytest.raises(Corrupt):
        Record.unpack(ormsgpack.packb([*GOOD[:at], wrong, *GOOD[at + 1 :]]))


@pytest.mark.parametrize(
    "fields",
    [
        *([2, b"q", "a", []], [FORMAT, "q", "a", []], [FORMAT, b"q", b"a", []], {}, 7, None),
        *([FORMAT, b"q", "a"], [FORMAT, b"q", "a", [], 1], [FORMAT, b"q", "a", ["d1"]]),
        *([FORMAT, b"q", "a", b"d1"], [FORMAT, b"\xff", "a", []], [FORMAT, b"q", "a", {"d": 1}]),
    ],
    ids=repr,
)
def test_a_card_that_is_not_whole_is_corrupt(fields: Any) -> None:
    with pytest.raises(Corrupt):
        Card.unpack(ormsgpack.packb(fields))


def test_damaged_entries_are_entries_or_corrupt() -> None:
    draw = random.Random(9)
    for packed, kind in ((CARD.pack(), Card), (RECORD.pack(), Record)):
        for _ in range(3_000):
            raw = (
                damaged(packed, draw) if draw.random() < 0.9 else draw.randbytes(draw.randrange(9))
            )
            try:
                kind.unpack(raw)
            except Corrupt:
                continue
