"""Judging what is stored after the replays by what was told to whom."""

from __future__ import annotations

from typing import Any, TypeAlias

from langgraph_valkey.keys import namespace_field, namespace_of, to_bytes
from langgraph_valkey.stored import records
from langgraph_valkey.testing import memory_saver
from tests.faces import config
from tests.loss_truth import At, Fact, heads_of, require
from tests.loss_world import THREADS, World

STAMP = 16
States: TypeAlias = dict[str, dict[bytes, bytes]]


class Judge:
    """Fails where a promise is broken.

    Args:
        world: The world.

    Attributes:
        contents: What a checkpoint may hold, by where it is.
        values: Channel and value of each write that was sent, by its number.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.contents: dict[At, list[Any]] = {}
        self.values: dict[bytes, tuple[str, str]] = {}

    def states(self) -> States:
        """Each thread as it is stored."""
        return {thread: dict(self.world.primary.state(thread)) for thread in THREADS}

    def certain(self, states: States) -> States:
        """The same without what may come and go: writes of unknown outcome, and the like."""
        truth = self.world.truth
        doubtful = {
            (fact.at[0], fact.field)
            for fact in truth.facts.values()
            if not fact.held or fact.is_over or fact.expired or truth.ended(fact, fact.gens)
        }
        return {
            thread: {
                # One that landed late has another stamp than where it was replayed.
                name: value[STAMP:] if name[:1] == b"w" else value
                for name, value in state.items()
                if name[:1] in b"rw" and (thread, name) not in doubtful
            }
            for thread, state in states.items()
        }

    def same(self, check: str, one: States, other: States) -> None:
        """The same is stored, whenever it came."""
        for thread in THREADS:
            pair = [
                {name: value for name, value in states[thread].items() if name[:1] in b"rwxHO"}
                for states in (one, other)
            ]
            require(pair[0] == pair[1], check, sorted(pair[0].items() ^ pair[1].items()))

    def is_whole(self, at: At, values: Any) -> None:
        require(values in self.contents[at], "not whole", (at, list(values)))

    def judge(self, before: States) -> None:
        """Fail if a promise is broken by what is stored now."""
        world, truth = self.world, self.world.truth
        living = {process.name for process in world.processes}
        truth.passed(world.primary.clock_ms)
        states = self.states()
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
            came = fact.field in states[fact.at[0]] and fact.field not in before[fact.at[0]]
            require(not (fact.is_over and came), "expired and back", fact)
        for thread in THREADS:
            deadline_ms = world.primary.deadline_ms(thread)
            require(
                deadline_ms <= truth.latest_ms.get(thread, 0),
                "deadline moved on", (thread, deadline_ms - truth.latest_ms.get(thread, 0)),
            )  # fmt: skip
        self._judge_heads(wanted, states)
        self._judge_content(wanted, states)

    def _judge_heads(self, wanted: list[Fact], states: States) -> None:
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

    def _judge_content(self, wanted: list[Fact], states: States) -> None:
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
                self.is_whole(at, found.checkpoint["channel_values"])
                for _, channel, value in found.pending_writes or ():
                    if channel.startswith("__"):
                        stamp = int(states[thread][b"w" + number_of[value]][:STAMP])
                        for fact in wanted_in.get((at, channel), ()):
                            same = fact.number[:8] == number_of[value][:8]
                            newer = number_of[value] >= fact.number if same else stamp >= fact.stamp
                            require(newer, "not the newest", (at, value, fact))
            for ns in heads_of(states[thread]):
                if not any(name.startswith(b"r" + ns + b"\0") for name in states[thread]):
                    continue
                head = reader.get_tuple(config(thread, namespace_of(ns)))
                require(head is not None, "no head", (thread, ns))
