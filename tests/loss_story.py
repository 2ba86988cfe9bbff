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
from typing import Any, Literal
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
from langgraph_valkey.keys import namespace_field, to_bytes
from langgraph_valkey.stored import records
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.loss_judge import Judge, States
from tests.loss_truth import require
from tests.loss_world import THREADS, Process, World

NAMESPACES = ("", "child")
TEXT = "word " * 30
EXPECTED = (WriteRejected, Unreachable, OutcomeUnknown, ThreadDeleted, ReplayIncomplete)
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
        weights: What happens how often, where it differs from `WORK`; and ``doubt``,
            how many writes of a hundred have an unknown outcome.
    """

    def __init__(self, world: World, **weights: int) -> None:
        self.world = world
        self.random = world.random
        self.doubt = weights.pop("doubt", 6) / 100
        self.weights = {**WORK, **{name.replace("_", " "): n for name, n in weights.items()}}
        self.judge = Judge(world)
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
        self.judge.contents.setdefault(where, []).append(made["channel_values"])
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

    def _put_writes(self, process: Process, thread: str, ns: str, channel: str, task: str) -> None:
        mine = process.mind.get((thread, ns))
        if mine is None:
            return
        self.world.tick += 1
        value = f"{channel} {self.world.tick}"
        where = config(thread, ns, mine["id"])
        process.number_sent = b""
        self._do(process, lambda s: s.put_writes(where, [(channel, value)], task))
        if process.number_sent:
            self.judge.values[process.number_sent] = (channel, value)

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
        if self.random.random() < self.doubt:
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

    def _read(self, process: Process, thread: str, ns: str) -> Checkpoint | Literal[False] | None:
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
        self.judge.is_whole(
            (thread, namespace_field(ns), raw_id), found.checkpoint["channel_values"]
        )
        for number in (records.entry_of(record), *grouped(entries)):
            truth.hold(process.name, number, answer, max(0, deadline_ms))
        return found.checkpoint

    # --- the end of a chapter ------------------------------------------------------------

    def settle(self) -> None:
        """All processes replay; then what is stored is judged."""
        world, judge = self.world, self.judge
        world.primary.persist(10**6)
        if self.random.random() < 0.5:
            self._late(world.processes[0], "", "")
        for process in world.processes:
            process.astray, process.is_stuck = 0, False
        world.advance(3.0)
        before, image = judge.states(), world.primary.image()
        self.replay_and_judge(before)
        first = judge.states()
        self.replay(force=True)  # Writes of unknown outcome may come in by this.
        all_of_it = judge.states()
        self.replay(force=True)
        judge.same("replayed again", all_of_it, judge.states())
        if self.random.random() < 0.5:
            self.log.append("back to before the replays")
            world.primary.restore(image)
            world.crash(0)
            world.advance(3.0)
            self.replay_and_judge(before)
            judge.same("another order", *map(judge.certain, (first, judge.states())))
        for process in world.all:
            process.reports.clear()

    def replay_and_judge(self, before: States) -> None:
        self.replay()
        self.replay()  # Some wait for chunks that others have.
        self.judge.judge(before)

    def replay(self, *, force: bool = False) -> None:
        """All processes replay, in random order."""
        processes = self.world.processes
        for process in self.random.sample(processes, len(processes)):
            self.log.append(f"{process.name} replays")
            if self.world.hides or force:
                process.saver.recover()
            else:
                process.tend()


def grouped(entries: bytes) -> list[bytes]:
    return [entries[at : at + NUMBER] for at in range(0, len(entries), NUMBER)]


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
                world.crash(lost, clock_s=clock_s, thaws=draw.random() < 0.3 and world.may_thaw)
                story.work(draw.choice((0, 1, 2, 4, after)))
            story.settle()
    return story
