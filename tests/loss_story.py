"""Random stories in which writes are lost, and what must hold at the end of each chapter.

A chapter is a time of work, a failover (or two, or none), some more work in which
nothing has been replayed yet, and then the replays, in random order. `judge` looks at
what is stored then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from langgraph.checkpoint.base import Checkpoint

from langgraph_valkey import (
    OutcomeUnknown,
    ReplayIncomplete,
    ThreadDeleted,
    Unreachable,
    ValkeySaver,
    WriteRejected,
    limits,
)
from langgraph_valkey.keys import namespace_field, namespace_of, to_bytes
from langgraph_valkey.stored import records
from langgraph_valkey.testing import memory_saver
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.loss_truth import At, Fact, heads_of, require, shape
from tests.loss_world import THREADS, Process, World

NAMESPACES = ("", "child")
TEXT = "word " * 30
EXPECTED = (WriteRejected, Unreachable, OutcomeUnknown, ThreadDeleted, ReplayIncomplete)
Contents = dict[At, list[Any]]
NUMBER = 16
CHAPTERS = 3

WORK = {
    "put on": 10, "put loaded": 8, "write": 3, "special": 4, "get": 3, "put again": 2,
    "delete": 1, "prune": 1, "advance": 6, "persist": 4, "tend": 6, "late": 2, "die": 1,
    "stick": 1,
}  # fmt: skip
"""What happens, and how often."""


class Story:
    """One story.

    Args:
        world: Where it happens.
        weights: What happens how often, where it differs from `WORK`.
    """

    def __init__(self, world: World, **weights: int) -> None:
        self.world = world
        self.random = world.random
        self.weights = {**WORK, **{name.replace("_", " "): n for name, n in weights.items()}}
        self.contents: Contents = {}
        self.values: dict[bytes, tuple[str, str]] = {}
        self.log: list[str] = []

    # --- steps ---------------------------------------------------------------------------

    def work(self, steps: int) -> None:
        for _ in range(steps):
            [what] = self.random.choices(list(self.weights), list(self.weights.values()))
            process = self.random.choice(self.world.processes)
            thread, ns = self.random.choice(THREADS), self.random.choices(NAMESPACES, (3, 1))[0]
            self.log.append(f"{process.name} {what} {thread}/{ns}")
            getattr(self, f"_{what.replace(' ', '_')}")(process, thread, ns)

    def _put_on(self, process: Process, thread: str, ns: str) -> None:
        if (thread, ns) in process.mind:
            self._put(process, thread, ns, process.mind[thread, ns])
        else:
            self._put_loaded(process, thread, ns)

    def _put_loaded(self, process: Process, thread: str, ns: str) -> None:
        found = self._read(process, thread, ns)
        if found is not False:
            self._put(process, thread, ns, found)

    def _put(
        self, process: Process, thread: str, ns: str, parent: Checkpoint | None, again: str = ""
    ) -> None:
        number = self.world.next_number(process)
        at = again or numbered_id(number)
        before = list(parent["channel_values"].get("messages", ())) if parent else []
        updates: dict[str, Any] = {"messages": [*before[-6:], f"{at} {number} {TEXT}"]}
        updates["count"] = number
        if parent is None:
            updates["document"] = f"{number} {TEXT * 2}"
        made, new = checkpoint(at, updates, parent=parent)
        where = (thread, namespace_field(ns), to_bytes(at))
        self.contents.setdefault(where, []).append(made["channel_values"])
        given = config(thread, ns, parent["id"] if parent else None)
        if parent:
            self.world.truth.saw(process.name, (*where[:2], to_bytes(parent["id"])))
        if self._do(process, lambda s: s.put(given, made, metadata(number), new)):
            process.mind[thread, ns] = made
            process.last = thread, ns, at, parent
        elif self.random.random() < 0.6:
            process.mind.pop((thread, ns), None)
        elif self.random.random() < 0.5:
            self.log.append(f"{process.name} puts {at} again")
            self._put(process, thread, ns, parent, at)

    def _put_again(self, process: Process, thread: str, ns: str) -> None:
        thread, ns, at, parent = process.last
        mine = process.mind.get((thread, ns))
        if mine is not None and mine["id"] == at:
            self._put(process, thread, ns, parent, at)

    def _write(self, process: Process, thread: str, ns: str) -> None:
        self._put_writes(process, thread, ns, "messages", f"task {self.world.tick}")

    def _special(self, process: Process, thread: str, ns: str) -> None:
        if self.random.random() < 0.5:
            self._get(process, thread, ns)  # Likely to meet what others write there.
        channel = self.random.choice(("__interrupt__", "__interrupt__", "__resume__", "__error__"))
        self._put_writes(process, thread, ns, channel, "task")

    def _put_writes(
        self, process: Process, thread: str, ns: str, channel: str, task: str
    ) -> None:
        mine = process.mind.get((thread, ns))
        if mine is None:
            return
        self.world.tick += 1
        value = f"{channel} {self.world.tick}"
        where = config(thread, ns, mine["id"])
        process.number_sent = b""
        self._do(process, lambda s: s.put_writes(where, [(channel, value)], task))
        if process.number_sent:
            self.values[process.number_sent] = (channel, value)

    def _get(self, process: Process, thread: str, ns: str) -> None:
        found = self._read(process, thread, ns)
        if found:
            process.mind[thread, ns] = found

    def _delete(self, process: Process, thread: str, ns: str) -> None:
        if self._do(process, lambda s: s.delete_thread(thread)):
            stamp = int(process.acks[b"delete"].standing.stamp) - 1
            self.world.truth.deleted(process.name, thread, stamp)
        for one in NAMESPACES:
            process.mind.pop((thread, one), None)

    def _prune(self, process: Process, thread: str, ns: str) -> None:
        process.removed.clear()
        if self._do(process, lambda s: s.prune([thread])):
            for stamp, at in process.removed:
                self.world.truth.deleted(process.name, thread, stamp, at)

    def _advance(self, process: Process, thread: str, ns: str) -> None:
        self.world.advance(self.random.choice((0.3, 1.0, 3.0, 6.0)))

    def _persist(self, process: Process, thread: str, ns: str) -> None:
        self.world.primary.persist(self.random.choice((1, 3, 10, 100)))

    def _tend(self, process: Process, thread: str, ns: str) -> None:
        process.tend()

    def _stick(self, process: Process, thread: str, ns: str) -> None:
        process.is_stuck = not process.is_stuck

    def _late(self, process: Process, thread: str, ns: str) -> None:
        try:
            self.world.primary.land_late()
        except WriteRejected:
            return

    def _die(self, process: Process, thread: str, ns: str) -> None:
        self.greet(self.world.die(process))

    def greet(self, process: Process) -> None:
        """A new process has heard of all shards."""
        for thread in THREADS:
            self._get(process, thread, "")
        process.mind.clear()

    # --- calls ----------------------------------------------------------------------------

    def _do(self, process: Process, act: Callable[[ValkeySaver], Any]) -> bool:
        """A write; whether it was acknowledged."""
        world = self.world
        process.acks.clear()
        if self.random.random() < 0.06:
            how = self.random.choice((False, True, "later"))
            world.primary.fail_next(OutcomeUnknown, applied=how)  # type: ignore[arg-type]
        wall_ms = round(world.wall_s() * 1000)
        try:
            act(process.saver)
        except EXPECTED as error:
            self.log.append(f"  {type(error).__name__}")
            if isinstance(error, ThreadDeleted):
                require(error.thread_id in world.truth.gone, "deleted by nobody", error)
            if world.ttl_s:
                for thread in THREADS:
                    world.truth.may_last(thread, wall_ms + world.truth.ttl_ms + 1)
            return False
        finally:
            world.primary._faults.clear()
        for number, answer in process.acks.items():
            if len(number) == NUMBER:
                world.truth.hold(process.name, number, answer, int(answer.rest[0] or 0))
                if len(answer.rest) > 1 and answer.rest[1]:
                    thread, ns, _ = world.truth.facts[number].at
                    world.truth.saw(process.name, (thread, ns, answer.rest[1]))
        return True

    def _read(self, process: Process, thread: str, ns: str) -> Checkpoint | None | bool:
        """Read the head; False if that failed."""
        world, truth = self.world, self.world.truth
        heard = {identity for at, identity in process.heard if at == thread}
        known = world.primary.identity in heard
        others_astray = any(one.astray or one.is_stuck for one in world.processes)
        try:
            found = process.saver.get_tuple(config(thread, ns))
        except EXPECTED as error:
            self.log.append(f"  {type(error).__name__}")
            return False
        answer, server = process.answer, process.server
        assert answer is not None
        assert server is not None
        state = server.state(thread)
        if not world.hides:
            if known:
                require(server is world.primary, "read from a former primary", (process.name,))
            held_by = {process.name}
            # A thread that is in its own journal is answered for as far as that goes.
            fresh = process.saver._window.is_durable(thread) and not others_astray
            if heard and not known and fresh and server is world.primary:
                held_by = {one.name for one in world.processes}
            lacking = [f for f in truth.wanted(held_by) if f.at[0] == thread and not f.is_in(state)]
            require(not lacking, "read too early", (process.name, lacking))
        if found is None:
            return None
        raw_id, record, entries, _, deadline_ms = answer.rest
        self._is_whole((thread, namespace_field(ns), raw_id), found.checkpoint["channel_values"])
        for number in (records.entry_of(record), *grouped(entries)):
            truth.hold(process.name, number, answer, max(0, deadline_ms))
        return found.checkpoint

    def _is_whole(self, at: At, values: Any) -> None:
        require(values in self.contents[at], "not whole", (at, list(values)))

    # --- the end of a chapter ------------------------------------------------------------

    def settle(self) -> None:
        """All processes replay; then what is stored is judged."""
        world, processes = self.world, self.world.processes
        world.primary.persist(10**6)
        if self.random.random() < 0.5:
            self._late(processes[0], "", "")
        for process in processes:
            process.astray, process.is_stuck = 0, False
        world.advance(3.0)
        before = {thread: dict(world.primary.state(thread)) for thread in THREADS}
        image = world.primary.image()
        self.replay()
        self.replay()  # Some wait for chunks that others have.
        self.judge(before)
        first = self._shapes()
        self.replay(force=True)  # Writes of unknown outcome may come in by this.
        heads = {thread: heads_of(world.primary.state(thread)) for thread in THREADS}
        whole = self._shapes()
        self.replay(force=True)
        again = self._shapes()
        require(whole == again, "replayed again", difference(whole, again))
        later = {thread: heads_of(world.primary.state(thread)) for thread in THREADS}
        require(heads == later, "heads replayed again", difference(heads, later))
        if self.random.random() < 0.5:
            self.log.append("back to before the replays")
            world.primary.restore(image)
            world.crash(0)
            world.advance(3.0)
            self.replay()
            self.replay()
            self.judge(before)
            one, other = self._certain(first), self._certain(self._shapes())
            require(one == other, "another order", difference(one, other))

    def _shapes(self) -> dict[str, dict[bytes, Any]]:
        return {thread: shape(self.world.primary.state(thread)) for thread in THREADS}

    def _certain(self, shapes: dict[str, dict[bytes, Any]]) -> dict[str, dict[bytes, Any]]:
        """The same without writes of unknown outcome."""
        facts = self.world.truth.facts.values()
        doubtful = {
            (fact.at[0], fact.field)
            for fact in facts
            if not fact.held
            or fact.is_over
            or fact.expired
            or self.world.truth.ended(fact, fact.gens)
        }
        return {
            thread: {
                # One that landed late has another stamp than where it was replayed.
                name: value[NUMBER:] if name[:1] == b"w" else value
                for name, value in held.items()
                if name[:1] != b"x" and (thread, name) not in doubtful
            }
            for thread, held in shapes.items()
        }

    def replay(self, *, force: bool = False) -> None:
        """All processes replay, in random order."""
        processes = self.world.processes
        for process in self.random.sample(processes, len(processes)):
            self.log.append(f"{process.name} replays")
            if self.world.hides or force:
                process.saver.recover()
            else:
                process.tend()

    def judge(self, before: dict[str, dict[bytes, bytes]]) -> None:
        """Fail if a promise is broken by what is stored now."""
        world, truth = self.world, self.world.truth
        living = {process.name for process in world.processes}
        truth.passed(world.primary.clock_ms)
        states = {thread: world.primary.state(thread) for thread in THREADS}
        rewound = {
            thread for process in world.all for report in process.reports
            for thread in report.rewound
        }  # fmt: skip
        wanted = truth.wanted(living)
        for fact in wanted:
            require(fact.is_in(states[fact.at[0]]), "missing", fact)
            if not fact.is_in(before[fact.at[0]]) and not world.hides:
                require(fact.at[0] in rewound, "not reported", fact)
        for fact in truth.unwanted(living):
            there = states[fact.at[0]].get(fact.field)
            require(
                there is None or (fact.kind == "put" and records.entry_of(there) != fact.number),
                "deleted and back", fact,
            )  # fmt: skip
        for fact in truth.facts.values():
            there, was = fact.field in states[fact.at[0]], fact.field in before[fact.at[0]]
            require(not fact.is_over or was or not there, "expired and back", fact)
        for thread in THREADS:
            deadline_ms = world.primary.deadline_ms(thread)
            require(
                deadline_ms <= truth.latest_ms.get(thread, 0),
                "deadline moved on", (thread, deadline_ms - truth.latest_ms.get(thread, 0)),
            )  # fmt: skip
        self._judge_heads(wanted, states)
        self._judge_content(wanted, states)

    def _judge_heads(self, wanted: list[Fact], states: dict[str, dict[bytes, bytes]]) -> None:
        forked = {
            (fork.thread_id, namespace_field(fork.namespace))
            for process in self.world.all for fork in process.forks
        }  # fmt: skip
        tops: dict[tuple[str, bytes], bytes] = {}
        for fact in wanted:
            if fact.kind == "put":
                thread, ns, at = fact.at
                tops[thread, ns] = max(at, tops.get((thread, ns), b""))
        for (thread, ns), top in tops.items():
            head = heads_of(states[thread]).get(ns, b"")
            fork = (thread, ns) in forked
            require(head >= top or fork, "head too low, and no fork told", (thread, ns, head, top))

    def _judge_content(self, wanted: list[Fact], states: dict[str, dict[bytes, bytes]]) -> None:
        truth = self.world.truth
        wanted_in: dict[tuple[At, str], list[Fact]] = {}
        for fact in wanted:
            channel = self.values.get(fact.number, ("", ""))[0]
            if channel.startswith("__"):
                wanted_in.setdefault((fact.at, channel), []).append(fact)
        number_of = {value: number for number, (_, value) in self.values.items()}
        reader = memory_saver(self.world.primary, replay=False)
        for thread in THREADS:
            for found in reader.list({"configurable": {"thread_id": thread}}):
                where = found.config["configurable"]
                ns = namespace_field(where["checkpoint_ns"])
                at = (thread, ns, to_bytes(where["checkpoint_id"]))
                self._is_whole(at, found.checkpoint["channel_values"])
                for _, channel, value in found.pending_writes or ():
                    if channel.startswith("__"):
                        stamp = int(states[thread][b"w" + number_of[value]][:NUMBER])
                        for fact in wanted_in.get((at, channel), ()):
                            same = fact.number[:8] == number_of[value][:8]
                            newer = number_of[value] >= fact.number if same else stamp >= fact.stamp
                            require(newer, "not the newest", (at, value, fact))
            for ns in heads_of(states[thread]):
                if not any(name.startswith(b"r" + ns + b"\0") for name in states[thread]):
                    continue
                head = reader.get_tuple(config(thread, namespace_of(ns)))
                require(head is not None, "no head", (thread, ns))


def grouped(entries: bytes) -> list[bytes]:
    return [entries[at : at + NUMBER] for at in range(0, len(entries), NUMBER)]


def difference(one: Any, other: Any) -> Any:
    return {
        thread: sorted(one[thread].items() ^ other[thread].items())
        for thread in one if one[thread] != other[thread]
    }  # fmt: skip


@contextmanager
def told(seed: int, world: World, **weights: int) -> Iterator[Story]:
    """A story; what breaks in it is told with its seed and its last steps."""
    log = logging.getLogger("langgraph_valkey")
    page = (200, 200, 2)[seed % 3]
    with (
        mock.patch.object(time, "time", world.wall_s),
        mock.patch.object(log, "disabled", True),
        mock.patch.object(limits, "REPLAY_PAGE_ENTRIES", page),
    ):
        story = Story(world, **weights)
        try:
            yield story
        except Exception as error:
            error.add_note(f"seed {seed}: " + "; ".join(story.log[-40:]))
            raise


def tell(seed: int, world: World, *, after: int = 12, **weights: int) -> Story:
    """A whole story; `after` is the most that is done between a crash and the replays."""
    with told(seed, world, **weights) as story:
        draw = world.random
        for process in world.processes:
            story.greet(process)
        for _ in range(CHAPTERS):
            story.work(draw.randrange(4, 30))
            for _ in range(draw.choice((0, 1, 1, 1, 2))):
                lost = draw.choice((0, 1, 2, 4, 8, 99))
                lost = min(lost, len(world.primary.open))
                clock_s = draw.choice((0.0, 0.0, 0.0, -2.0, 2.0))
                story.log.append(f"crash, {lost} lost, clock {clock_s:+}")
                world.crash(lost, clock_s=clock_s, thaws=draw.random() < 0.3 and not world.hides)
                story.work(draw.choice((0, 1, 2, 4, after)))
            story.settle()
    return story
