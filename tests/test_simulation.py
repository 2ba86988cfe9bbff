"""Every call of a short story, struck by every fault; see `simulated`.

`test_mutants_are_caught` shows that each protection is needed: it takes out one
line of a script at a time, and the simulation must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations

import pytest
from langgraph.checkpoint.serde.types import INTERRUPT

from langgraph_valkey import ThreadDeleted, operations
from tests.simulated import (
    Fault,
    Mutant,
    Outcome,
    Step,
    Story,
    copy,
    delete,
    delete_run,
    get,
    judge,
    listed,
    prune,
    run,
)

ONCE = ("rejected", "unreachable", "lost", "applied", "index", "failover", "state")


@dataclass
class Tale:
    """A story, its steps, and the faults that strike it."""

    name: str
    story: Story
    steps: list[Step]
    faults: list[Fault]
    expected: Outcome


def told(name: str, story: Story, steps: list[Step], faults: list[Fault] | None = None) -> Tale:
    expected = run(story, steps)
    return Tale(name, story, steps, faults or every_fault(steps, expected), expected)


def told_shortly(name: str, story: Story, steps: list[Step]) -> Tale:
    """As `told`, without the faults that don't depend on who comes when."""
    expected = run(story, steps)
    faults = every_fault(steps, expected, rewinds=1, resent=False)
    return Tale(name, story, steps, faults, expected)


def every_fault(
    steps: list[Step], expected: Outcome, *, rewinds: int = 3, resent: bool = True
) -> list[Fault]:
    """Each fault at each call; late calls land before each later step, and at the end.

    Args:
        steps: Of the story.
        expected: What comes of it without a fault.
        rewinds: The most writes that a failover loses.
        resent: Whether the link tries late calls again, too, not just the caller.
    """
    faults = []
    for call, writes in enumerate(expected.writes):
        faults += [Fault(kind, call, lands=-1) for kind in ONCE if writes or kind != "rejected"]
        faults += [Fault("rewind", call, lands=-1, many=many) for many in range(1, rewinds + 1)]
        if writes and expected.link.calls[call] in {"put", "put_writes", "sweep"}:
            for lands in range(1, len(steps) + 1):
                for resends in (False, True)[: 1 + resent]:
                    faults.append(Fault("late", call, lands=lands, resends=resends))
    return faults


# --- the tales ------------------------------------------------------------------


@cache
def one_writer() -> list[Tale]:
    """A thread written, deleted, begun anew, pruned, copied."""
    story = Story()
    first = story.made(1, None)
    second = story.made(2, first[0])
    again = story.made(2, first[0], changed=True)
    third = story.made(3, None)
    fourth = story.made(4, third[0])
    fifth = story.made(5, fourth[0], run_id="bad")
    sixth = story.made(6, fourth[0])
    inner = story.made(7, None, ns="inner")
    w = "a"
    steps = [
        story.put(w, first),
        story.write(w, first, "first", "a"),
        story.put(w, second),
        story.write(w, second, INTERRUPT, "old"),
        story.write(w, second, INTERRUPT, "new"),
        story.write("b", second, INTERRUPT, "newest"),
        story.put(w, again),
        get(w),
        listed(w),
        delete(w),
        get(w),
        story.put(w, third),
        story.put(w, fourth),
        story.put(w, fifth),
        delete_run(w, "bad"),
        get(w),
        story.write(w, fourth, "first", "b"),
        story.put(w, sixth),
        story.put(w, inner),
        prune(w),
        get(w),
        copy(w),
    ]
    return [told("one writer", story, steps)]


@cache
def two_writers() -> list[Tale]:
    """All interleavings of two writers of one thread."""
    story = Story()
    first = story.made(1, None)
    second = story.made(2, first[0])
    third = story.made(3, None)
    fourth = story.made(4, third[0])
    mine = [
        story.put("a", first),
        story.put("a", second),
        story.write("a", second, INTERRUPT, "old"),
        story.write("a", second, INTERRUPT, "new"),
    ]
    theirs = [delete("b"), story.put("b", third), story.put("b", fourth)]
    tales = []
    for places in combinations(range(len(mine) + len(theirs)), len(theirs)):
        left, right = iter(mine), iter(theirs)
        steps = [next(right if n in places else left) for n in range(len(mine) + len(theirs))]
        steps.append(listed("b"))
        tales.append(told_shortly(f"two writers {places}", story, steps))
    return tales


@cache
def meanwhile() -> list[Tale]:
    """Each call of one writer's step, with a whole step of another in front of it."""
    story = Story()
    first = story.made(1, None)
    second = story.made(2, first[0])
    third = story.made(3, None)
    fourth = story.made(4, third[0])
    # What leans on chunks that only pruned checkpoints have; and a clean one.
    leans = story.made(5, second[0])
    begin = [story.put("a", first), story.put("a", second), story.put("b", second)]
    begin += [story.put("a", third), story.put("a", fourth)]
    tales = []
    for step in (
        prune("a"),
        copy("a"),
        listed("a"),
        delete_run("a", "none"),
        story.put("a", leans),
    ):
        for other in (story.put("b", leans), prune("b"), delete("b"), listed("b")):
            before, both = run(story, begin), run(story, [*begin, step])
            calls = range(len(before.writes), len(both.writes))
            faults = [
                Fault("other", call, meanwhile=other, after_s=after_s)
                for call in calls
                for after_s in (0.0, 601.0)
            ]
            name = f"{other.name} while {step.name}"
            tales.append(told(name, story, [*begin, step, listed("b")], faults))
    return tales


@cache
def lost_and_made_anew() -> list[Tale]:
    """A thread that was lost, and that another one made again in other pieces."""
    story = Story()
    made = [story.made(1, None)]
    for number in range(2, 5):
        made.append(story.made(number, made[-1][0]))
    steps = [story.put("a", one) for one in made[:3]]
    redone = story.made(3, made[1][0], redone=True)
    steps += [story.put("b", redone), story.put("a", made[3]), get("a")]
    faults = [Fault("state", call) for call in range(6)]
    faults += [Fault("rewind", call, many=many) for call in range(6) for many in range(1, 6)]
    return [told("made anew", story, steps, faults)]


def simulate(tales: list[Tale], mutant: Mutant | None = None) -> int:
    """Run all cases of these tales; how many there were."""
    cases = 0
    for tale in tales:
        for fault in tale.faults:
            try:
                out = run(tale.story, tale.steps, fault, mutant)
            except Exception as error:
                raise AssertionError(f"{tale.name}, {fault}: not an error we promise") from error
            assert out.link.struck, (tale.name, fault)
            judge(tale.story, tale.expected, fault, out)
            cases += 1
    return cases


# --- the tests ------------------------------------------------------------------


def test_without_a_fault_the_stories_end_as_they_should() -> None:
    """What the faulty runs are compared with is right in itself."""
    expected = one_writer()[0].expected
    ids = [[int(one[0][-4:]) for one in found] for found in expected.final]
    assert ids == [[6, 7], [6, 7], [6]]
    assert [int(expected.results[step][0][0][-4:]) for step in (7, 15, 20)] == [2, 4, 6]
    assert expected.results[10] == []
    assert dict(expected.results[7][0][1][3])["changed"]
    assert [write[2] for write in expected.results[7][0][2]] == ["newest"]
    for tale in two_writers():
        assert {one[0] for one in tale.expected.final[0]} <= tale.expected.since, tale.name
        assert ThreadDeleted not in tale.expected.results or "delete" in {
            step.name for step in tale.steps[: tale.expected.results.index(ThreadDeleted)]
        }


@pytest.mark.parametrize("tales", [one_writer, two_writers, meanwhile, lost_and_made_anew])
def test_each_call_struck_by_each_fault(tales: Callable[[], list[Tale]]) -> None:
    print(f"{tales()[0].name} ...: {simulate(tales())} cases")


MUTANTS = {
    "tombstone": (two_writers, "admit", "gen ~= NEVER and tonumber(gen) <= dead", "false"),
    "late creation": (one_writer, "admit", "dead > 0 and newest <= dead", "false"),
    "removed checkpoint": (one_writer, "admit", "removed > 0 and newest <= removed", "false"),
    "stamps go on": (two_writers, "admit", "math.max(now, tonumber(sub(m, 33, 48)) + 1)", "now"),
    "deletion stamp": (
        two_writers,
        "delete",
        "math.max(clock(), t and t.stamp or 0, tonumber(ARGV[3]))",
        "clock()",
    ),
    "removals marked": (one_writer, "remove", "save(t, '1')", "save(t, '0')"),
    "missing chunks": (one_writer, "put", "if #lacking > 0", "if false"),
    "late put": (one_writer, "put", "if not late", "if true"),
    "order of one writer": (one_writer, "put", "above(sub(here, 10, 17), sub(ENTRY, 9))", "true"),
    "head only forward": (one_writer, "put", "head == '' or above(ID, head)", "true"),
    "sweep noted": (meanwhile, "put", "#lacking == 0 and sweeping", "false"),
    "swept chunks kept": (
        meanwhile,
        "sweep",
        r"not call('ZSCORE', GRAVES, '\3' .. ARGV[i])",
        "true",
    ),
    "sweep out of time": (meanwhile, "sweep", "elseif not open[1]", "elseif false"),
    "state evicted": (
        one_writer,
        "prelude",
        "#call('ZRANGEBYLEX', INDEX, '[!', '(\"', 'LIMIT', 0, 1) > 0",
        "false",
    ),
    "index evicted": (
        one_writer,
        "page",
        "not call('ZSCORE', INDEX, '!' .. sub(m, 1, 16))",
        "false",
    ),
    "head after a removal": (one_writer, "change", "if id ~= head", "if true"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    tales, script, old, new = MUTANTS[name]
    source = (files(operations) / f"{script}.lua").read_text("utf-8")
    assert source.count(old) == 1, f"{script}.lua no longer says {old!r}"
    with pytest.raises(AssertionError):
        simulate(tales(), Mutant(script, old, new))
