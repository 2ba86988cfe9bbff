"""A small world in which each call can fail in each way, and what must hold in it.

Writers on one `MemoryLink` walk through a short story. A `Fault` strikes one call
of it; whoever made the call does as the table in `errors` says. What they saw and
what is stored at the end is judged by `judge`: if the fault lost nothing, all is
as in the story without it; if it did, what is there must be whole, must have been
put after the last delete, and must not be missing without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from langgraph.checkpoint.base import Checkpoint, CheckpointTuple

from langgraph_valkey import (
    CorruptState,
    OutcomeUnknown,
    ReplayIncomplete,
    Settings,
    ThreadDeleted,
    Unreachable,
    ValkeySaver,
    WriteRejected,
)
from langgraph_valkey.link import Call, Link, Reply, Script
from langgraph_valkey.retry import Retrying
from langgraph_valkey.testing import MemoryLink, memory_saver
from tests.faces import checkpoint, config, metadata, numbered_id

AGAIN = (WriteRejected, Unreachable, OutcomeUnknown)
THREAD, COPY = "t", "copy"


@dataclass(frozen=True)
class Mutant:
    """A line of a script taken out: a text of it, and what stands there instead."""

    script: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """What strikes, and at which call of the story (counted from 0).

    `kind` is one of: rejected, unreachable, lost (an unknown outcome, not applied),
    applied (unknown, applied), late (unknown, applied before step `lands`),
    state, index (evicted), rewind (`many` writes), failover (nothing lost, but
    the clock is behind), other (`meanwhile` happens).
    """

    kind: str
    call: int
    lands: int = 0
    many: int = 0
    resends: bool = False
    meanwhile: Step | None = None
    after_s: float = 0.0

    @property
    def loses(self) -> bool:
        return self.kind in {"state", "rewind", "other"}


@dataclass(frozen=True)
class Step:
    """What one writer does next.

    Attributes:
        writer: Who.
        name: For messages.
        do: Does it, and gives what was seen, if anything.
        strikes: Does something to the server instead.
        puts: The checkpoint it puts in `THREAD`.
        deletes: It deletes `THREAD`.
    """

    writer: str
    name: str
    do: Callable[[ValkeySaver], Any]
    puts: str | None = None
    strikes: Callable[[Simulated], Any] | None = None
    deletes: bool = False


class Simulated(MemoryLink):
    """A link on which one fault strikes, and one line of a script may be missing."""

    def __init__(self, fault: Fault | None, mutant: Mutant | None) -> None:
        super().__init__(page_most=3)
        self.mutant = mutant
        self.fault = fault
        self.struck = False
        self.ruined = False
        self.strike: Callable[[Fault], None] = lambda _: None
        self.writes: list[bool] = []
        self.before_call = self._count

    def _count(self, call: Call) -> None:
        self.writes.append(call.writes)
        fault = self.fault
        if fault is None or self.struck or len(self.writes) != fault.call + 1:
            return
        self.struck = True
        if fault.kind in {"rejected", "unreachable"}:
            self.fail_next(WriteRejected if fault.kind == "rejected" else Unreachable)
        elif fault.kind in {"lost", "applied"}:
            self.fail_next(OutcomeUnknown, applied=fault.kind == "applied")
        elif fault.kind == "late":
            self.fail_next(OutcomeUnknown, applied="later")
        elif fault.kind in {"state", "index"}:
            self.evict(fault.kind)  # type: ignore[arg-type]
            self.ruined = fault.kind == "state"
        elif fault.kind in {"rewind", "failover"}:
            self.rewind(fault.many, clock_s=-5.0)
        else:
            self.strike(fault)

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        return await super().send(
            [replace(c, script=mutated(c.script, self.mutant)) for c in calls]
        )


@cache
def mutated(script: Script, mutant: Mutant | None) -> Script:
    if mutant is None or mutant.old not in script.source:
        return script
    return Script(script.name, script.source.replace(mutant.old, mutant.new))


# --- what is put ----------------------------------------------------------------

_TEXT = "word " * 40


@dataclass
class Story:
    """The checkpoints of a story, and what each may look like when it is read."""

    whole: dict[str, list[Any]] = field(default_factory=dict)
    writes: dict[str, set[Any]] = field(default_factory=dict)

    def made(
        self,
        number: int,
        parent: Checkpoint | None,
        ns: str = "",
        *,
        redone: bool = False,
        **about: Any,
    ) -> Any:
        """A checkpoint with a list that grows, a channel that never changes, and a small one."""
        before = list(parent["channel_values"]["messages"]) if parent else []
        updates: dict[str, Any] = {
            "messages": [*before, f"{number} {_TEXT}", f"{number} again {_TEXT}"],
            "count": number,
        }
        if parent is None or redone:
            updates["document"] = f"{number} {_TEXT * 2}"
        made, new = checkpoint(numbered_id(number), updates, parent=parent)
        described = metadata(number, **about)
        parent_id = parent["id"] if parent else None
        self.whole.setdefault(made["id"], []).append(
            (ns, parent_id, made["channel_values"], described)
        )
        return made, new, described, ns, parent_id

    def put(self, writer: str, made: Any) -> Step:
        checkpoint_, new, described, ns, parent_id = made

        def do(saver: ValkeySaver) -> None:
            saver.put(config(THREAD, ns, parent_id), checkpoint_, described, new)

        name = f"put {int(checkpoint_['id'][-4:])}"
        return Step(writer, name, do, checkpoint_["id"])

    def write(self, writer: str, made: Any, channel: str, value: str) -> Step:
        at = made[0]["id"]
        self.writes.setdefault(at, set()).add(("task", channel, value))

        def do(saver: ValkeySaver) -> None:
            saver.put_writes(config(THREAD, made[3], at), [(channel, value)], "task")

        return Step(writer, f"write {value}", do)


def get(writer: str) -> Step:
    return Step(writer, "get", lambda saver: seen([saver.get_tuple(config(THREAD))]))


def listed(writer: str) -> Step:
    return Step(
        writer, "list", lambda saver: seen(saver.list({"configurable": {"thread_id": THREAD}}))
    )


def delete(writer: str) -> Step:
    return Step(writer, "delete", lambda saver: saver.delete_thread(THREAD), deletes=True)


def prune(writer: str) -> Step:
    return Step(writer, "prune", lambda saver: saver.prune([THREAD]))


def delete_run(writer: str, run_id: str) -> Step:
    return Step(writer, "delete run", lambda saver: saver.delete_for_runs([run_id]))


def copy(writer: str) -> Step:
    return Step(writer, "copy", lambda saver: saver.copy_thread(THREAD, COPY))


def seen(found: Any) -> list[Any]:
    return [plain(one) for one in found if one is not None]


def plain(found: CheckpointTuple) -> Any:
    """A checkpoint as it is compared: id, its content, its pending writes."""
    parent = found.parent_config["configurable"]["checkpoint_id"] if found.parent_config else None
    content = (
        found.config["configurable"]["checkpoint_ns"],
        parent,
        found.checkpoint["channel_values"],
        dict(found.metadata),
    )
    return found.checkpoint["id"], content, found.pending_writes


# --- running --------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of a story.

    Attributes:
        link: The server.
        results: What each step saw; the class of its error, if it ended with one.
        final: What a process that knows nothing reads at the end.
        absent: Steps that saw nothing although there was something.
        broken: Steps that saw ruins although the thread had been put anew.
        since: Ids that may be there: put after the last delete.
        writes: For each call of the story, whether it may change data.
    """

    link: Simulated
    results: list[Any] = field(default_factory=list)
    final: list[Any] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    since: set[str] = field(default_factory=set)
    writes: list[bool] = field(default_factory=list)


def run(
    story: Story, steps: Sequence[Step], fault: Fault | None = None, mutant: Mutant | None = None
) -> Outcome:
    """Walk through a story."""
    roots = [at for at, contents in story.whole.items() if not contents[0][0]]
    link = Simulated(fault, mutant)
    out = Outcome(link)
    at_hand: Link = link
    if fault is not None and fault.resends:
        at_hand = Retrying(link, Settings(), draw=lambda low, high: high)
    savers: dict[str, ValkeySaver] = {}

    def take(step: Step) -> Any:
        if step.strikes is not None:
            return step.strikes(link)
        saver = savers.setdefault(step.writer, memory_saver(at_hand, replay=False))
        result = attempt(step, saver)
        if step.deletes and result is None:
            out.since.clear()
        if step.puts and result is None:
            out.since.add(step.puts)
            link.ruined = False
        if result == [] and holds_records(link, roots if step.name == "get" else story.whole):
            out.absent.append(step.name)
        if result is CorruptState and not link.ruined:
            out.broken.append(step.name)
        return result

    def strike(fault: Fault) -> None:
        link.advance(fault.after_s)
        if fault.meanwhile is not None:
            take(fault.meanwhile)

    link.strike = strike
    for number, step in enumerate(steps):
        if fault is not None and fault.lands == number:
            link.land_late()
        out.results.append(take(step))
    link.land_late()
    link.fault = None
    out.writes = list(link.writes)
    last = Step("reader", "get", lambda saver: seen([saver.get_tuple(config(THREAD))]))
    for thread in (THREAD, COPY):
        where = {"configurable": {"thread_id": thread}}
        step = Step("reader", "list", lambda saver, where=where: seen(saver.list(where)))  # type: ignore[misc]
        out.final.append(take(step) if thread == THREAD else attempt(step, savers["reader"]))
    out.final.append(take(last))
    return out


def attempt(step: Step, saver: ValkeySaver) -> Any:
    """Do a step as the error table says: again, if it says so."""
    for _ in range(3):
        try:
            return step.do(saver)
        except AGAIN:
            continue
        except (CorruptState, ReplayIncomplete, ThreadDeleted) as error:
            return type(error)
    return Unreachable


def holds_records(link: Simulated, story_ids: Collection[str]) -> bool:
    """Whether the server has one of these checkpoints, or the ruins of a thread."""
    keyspace = link._server.keyspace
    state = keyspace.hash(f"lgv:{{{THREAD}}}:state".encode())
    if not state:
        return keyspace.value(f"lgv:{{{THREAD}}}:index".encode()) is not None
    ends = tuple(at.encode() for at in story_ids)
    return any(name[:1] == b"r" and name.endswith(ends) for name in state)


# --- judging --------------------------------------------------------------------


def judge(story: Story, expected: Outcome, fault: Fault, out: Outcome) -> None:
    """Fail if what came of a story with a fault breaks a promise."""
    where = f"{fault}: {out.results}"
    assert out.absent == [], f"nothing was found where something is: {where}"
    assert out.broken == [], f"in ruins, though put anew: {where}"
    for result in [*out.results, *out.final]:
        if isinstance(result, list):
            ids = [(one[0], one[1][0]) for one in result]
            assert len(set(ids)) == len(ids), f"listed twice: {where}"
            for at, content, writes in result:
                assert content in story.whole[at], f"not whole: {at} {where}"
                assert set(writes) <= story.writes.get(at, set()), f"not its writes: {where}"
        elif result is not None:
            assert result in {CorruptState, ThreadDeleted} or (
                result is ReplayIncomplete and fault.loses
            ), where
    if fault.loses or not isinstance(out.final[0], list):
        return
    assert {one[0] for one in out.final[0]} <= out.since, f"came back: {where}"
    assert out.results == expected.results, f"another course: {where}"
    assert out.final == expected.final, f"another end: {where}"
