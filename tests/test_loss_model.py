"""The loss window under random losses: what must hold after the replays, does.

`loss_story` tells random stories of two or three processes on one server that loses
writes, and judges each of their chapters by `loss_truth`, which knows what was told to
whom. A seed gives the same story on every run; a failure names its seed and last steps.
"""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import pytest

from tests.loss_story import tell
from tests.loss_truth import Broken
from tests.loss_world import Process, World

KINDS: dict[str, tuple[int, dict[str, Any], dict[str, int]]] = {
    "as it comes": (300, {}, {}),
    "deletions": (120, {}, {"delete": 6, "prune": 4}),
    "many die": (120, {}, {"die": 6, "put_loaded": 20}),
    "long stalls": (120, {}, {"persist": 1, "advance": 14, "tend": 14}),
    "special writes": (120, {}, {"special": 20, "late": 6}),
    "threads that expire": (120, {"ttl_s": 40.0}, {"advance": 10}),
    "hidden identities": (120, {"hides": True}, {}),
}
"""How many stories, in which world, and what happens how often."""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_nothing_comes_back(kind: str) -> None:
    stories, world, weights = KINDS[kind]
    began_s = time.monotonic()
    steps = sum(
        len(tell(seed, World(seed, many=2 + seed % 2, **world), **weights).log)
        for seed in range(stories)
    )
    took_s = time.monotonic() - began_s
    print(f"{kind}: seeds 0-{stories - 1}, {steps} steps, {took_s:.1f} s")


def test_a_story_is_the_same_each_time() -> None:
    first, second = (tell(7, World(7, many=3)).log for _ in range(2))
    assert first == second


def test_what_is_broken_is_told_with_its_story() -> None:
    world = World(1)
    lose_all = lambda *_: world.primary.restore(({}, {}))  # noqa: E731
    with mock.patch.object(Process, "tend", lose_all), pytest.raises(Broken) as told:
        tell(1, world)
    assert told.value.check in {"missing", "read too early"}
    assert any(note.startswith("seed 1: ") for note in told.value.__notes__)
