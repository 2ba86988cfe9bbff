"""The store under random losses: what must hold after the replays, does; and its rules are needed.

`store_world` tells random stories and judges what everybody is given. A seed gives the same
story on every run; a failure tells its last steps. Of each rule in `MUTANTS` the test takes
the text out of a script, or of a module's function, and looks for a story in which that shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest

from langgraph_valkey.items import calls, reads
from langgraph_valkey.items.replaying import BucketReplay
from langgraph_valkey.link import Script
from tests.store_truth import Broken
from tests.store_world import Process, World

STEPS = 80
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "as it comes": (40, {}),
    "items that expire": (40, {"expires": True}),
    "many fail and die": (40, {"crash": 6, "die": 3}),
    "long stalls": (20, {"persist": 1, "advance": 14, "tend": 14}),
}
"""How many stories, and what happens in them."""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_and_nothing_comes_back(kind: str) -> None:
    stories, about = KINDS[kind]
    for seed in range(stories):
        World(seed, **about).tell(STEPS)


def test_a_story_is_the_same_each_time() -> None:
    first, second = World(7), World(7)
    for world in (first, second):
        world.tell(STEPS)
    assert first.log == second.log


def test_what_is_broken_is_told_with_its_story() -> None:
    with mock.patch.object(Process, "tend"):
        told = broken(World(seed) for seed in range(20))
    assert " crash" in told.__notes__[0]


@dataclass(frozen=True)
class Mutant:
    """A rule taken out.

    Attributes:
        script: Of which script, or '' where a function is patched.
        old: The text that says it.
        new: What stands there instead.
        patch: What to do to the modules, given the means to patch them.
        about: What happens in the stories in which it is likely to show.
    """

    script: str = ""
    old: str = ""
    new: str = ""
    patch: Callable[[], Any] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def applied_to(self, script: Script) -> Script:
        if script.name != self.script:
            return script
        assert script.source.count(self.old) == 1, self.old
        return Script(script.name, script.source.replace(self.old, self.new))


EXPIRING: dict[str, Any] = {"expires": True}
MUTANTS = {
    "the newer one stays": Mutant(
        "join",
        "if here and stamp_of(here) >= op.stamp then\n    if",
        "if here and false then\n    if",
    ),
    "what was deleted stays deleted": Mutant("join", "if dead > op.stamp or", "if false or"),
    "deletions are replayed": Mutant("join", "bury(op, here, grave, 'D', digits(op.stamp))", ""),
    "what has expired replaces what was there": Mutant(
        "join", "bury(op, here, grave, 'E', digits(op.stamp))", "", about=EXPIRING
    ),
    "graves of what expires are dug when it is put": Mutant(
        "turn", "later('HSET', STATE, 'D' .. name, 'E' .. stamp .. entries)", "", about=EXPIRING
    ),
    "a deletion leaves a grave": Mutant(
        "turn",
        "later('HSET', STATE, 'D' .. name, why .. stamp .. with_entry(entries_of(here, grave), "
        "op.entry))",
        "later('HDEL', STATE, 'D' .. name)",
    ),
    "each joined operation is written before the next": Mutant(
        "join", "  settle() -- ", "  if at == #ARGV then settle() end -- "
    ),
    "late writes are known": Mutant(
        "turn", "elseif before then\n    return 'l'", "", about={"late": 8}
    ),
    "what is gone is news": Mutant("turn", "  later('ZADD', GRAVES, STAMP, name)\n", ""),
    "what was read is journaled": Mutant(
        patch=lambda: mock.patch.object(reads, "note"), about={"die": 4}
    ),
    "acknowledgements settle what is journaled": Mutant(
        patch=lambda: mock.patch.object(calls, "settled", lambda changes, _: changes),
    ),
    "reads wait for others' replays": Mutant(
        patch=lambda: mock.patch.object(BucketReplay, "is_shared", False)
    ),
}


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    if mutant.patch is None:
        yield
    else:
        with mutant.patch():
            yield


@pytest.mark.parametrize("rule", MUTANTS)
def test_each_rule_is_needed(rule: str) -> None:
    mutant = MUTANTS[rule]
    with applied(mutant):
        broken(World(seed, patch=mutant.applied_to, **mutant.about) for seed in range(300))


def broken(worlds: Iterable[World]) -> Broken:
    """The first story that breaks."""
    for world in worlds:
        try:
            world.tell(STEPS)
        except Broken as found:
            return found
    pytest.fail("no story shows it")
