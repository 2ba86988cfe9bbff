"""The loop: kill a primary and crews at once, let others recover, and again; then judge."""

from __future__ import annotations

import queue
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from langgraph.graph.state import CompiledStateGraph

from langgraph_valkey import ValkeySaver
from langgraph_valkey.settings import Settings
from tests.double_fault import stories
from tests.double_fault.agent import Kind
from tests.double_fault.bank import ledger, missing_money
from tests.double_fault.books import Books
from tests.double_fault.clients import Clients
from tests.double_fault.crew import (
    Control,
    Crew,
    Face,
    Leave,
    Place,
    Recover,
    Turn,
    graphs_of,
    open_tiers,
)
from tests.double_fault.judge import (
    Fine,
    Verdict,
    is_there,
    judge_executions,
    judge_money,
    judge_threads,
)
from tests.double_fault.lab import OWNER_ALIVE_S, Lab, Store, lab
from tests.double_fault.trace import Trace, steps_of
from tests.kill_loop.ledger import clock
from tests.kill_loop.watch import Watch

Fault: TypeAlias = Literal["both", "crew", "primary"]
DECK: tuple[Fault, ...] = ("both",) * 10 + ("crew", "primary")

HELD_S = (0.15, 0.9)
"""For how long what is acknowledged is not durable, at least and at most; beyond the lag
bound it would be refused."""

SETTLE_S = (0.2, 0.8)
READY_DEADLINE_S = 30.0
RECOVERED_DEADLINE_S = 30.0
"""How long it may take from a fault until no interrupted run is left: more than a
process is believed to live, and a run."""

IDLE_DEADLINE_S = 45.0
"""How long turns may take to end when nothing is broken: a write is tried for 30 s."""

ANSWER_DEADLINE_S = 60.0
ROUNDS_MOST = 5
"""How often clients may be told at the end that they are asked for their word."""

AGAIN_S = 0.3
STORIES_MOST = 5
"""Of how many threads it is told what happened, if something is wrong with them."""

POLL_S = 0.05
DRAIN_S = 10.0
LEAVE_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        faults: How many double faults.
        seed: Of faults, conversations and intents. What agents do is not of it.
        crews: How many there are at a time.
        talks: How many conversations.
        store: Which primary store.
        control: Which part is left out, to see the harness fail.
    """

    faults: int = 100
    seed: int = 0
    crews: int = 3
    talks: int = 15
    store: Store = "postgresql"
    control: Control = ""

    @property
    def faces(self) -> tuple[Face, ...]:
        """By which faces turns are run."""
        return ("sync",) if self.control == "registry" else ("sync", "async")

    @property
    def asks(self) -> float:
        """Share of turns in which the client wants to be asked."""
        return 0.0 if self.control == "registry" else 0.25


@dataclass(slots=True)
class Result:
    """What came of a run.

    Attributes:
        faults: How many there were of each kind.
        verdict: What is wrong.
        recover_s: From each fault until no interrupted run was left.
        errors: What turns and recoveries ended with, and how often.
        refused: Turns that were sent, and not accepted.
        took_s: How long it all took.
    """

    faults: dict[Fault, int] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    recover_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    took_s: float = 0.0

    @property
    def recover_p50_s(self) -> float:
        """The median of `recover_s`; 0.0 of nothing."""
        return statistics.median(self.recover_s) if self.recover_s else 0.0


def run(plan: Plan, say: Callable[[str], None] = print) -> Result:
    """Run it.

    Args:
        plan: What to do.
        say: Called with a line about each fault.

    Raises:
        TimeoutError: The cluster, or a crew, did not come to where it had to be.
    """
    started_s = time.monotonic()
    with lab(plan.store, plan.control) as place, _loop(plan, place, say) as loop:
        loop.run()
    loop.result.took_s = time.monotonic() - started_s
    return loop.result


@contextmanager
def _loop(plan: Plan, place: Lab, say: Callable[[str], None]) -> Iterator[_Loop]:
    loop = _Loop(plan, place, say)
    try:
        yield loop
    finally:
        loop.end()


@contextmanager
def _fresh_graphs(place: Place) -> Iterator[dict[Kind, CompiledStateGraph]]:
    """The agents, on a saver that has seen nothing of what happened."""
    tiers, trace = open_tiers(place), Trace(place.trace)
    try:
        yield graphs_of(tiers, place, trace)
    finally:
        tiers.close()
        trace.close()


class _Loop:
    """A run under way."""

    def __init__(self, plan: Plan, lab: Lab, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._lab = lab
        self._say = say
        self._chance = random.Random(f"{plan.seed} faults")
        self._clients = Clients(plan.seed, plan.talks, plan.faces, plan.asks)
        self._crews: list[Crew] = []
        self._dead: list[Crew] = []
        self._books: Books | None = None
        self._fine: list[Fine] = []
        settings = Settings.from_url(lab.place.url, replay=False)
        self._reader = ValkeySaver(settings)
        self.result = Result()

    def run(self) -> None:
        """From the first turn to the verdict."""
        self._start_crews()
        self._books = self._lab.books()
        self._clients.start()
        crews = self._plan.crews
        self._await(lambda: len(self._clients.crews) == crews, READY_DEADLINE_S, "ready")
        deck: list[Fault] = []
        while self.result.faults.get("both", 0) < self._plan.faults:
            if not deck:
                deck = list(DECK)
                self._chance.shuffle(deck)
            time.sleep(self._chance.uniform(*SETTLE_S))
            self._break(deck.pop())
        self._finish()
        self._judge()

    def end(self) -> None:
        """End all that was started."""
        self._clients.stop()
        for crew in self._crews:
            crew.kill()
        self._reader.close()
        if self._books is not None:
            self._books.close()

    def _start_crews(self) -> None:
        while len(self._crews) < self._plan.crews:
            crew = Crew(self._lab.place)
            self._crews.append(crew)
            self._clients.add(crew)

    # --- a fault --------------------------------------------------------------------

    def _break(self, fault: Fault) -> None:
        cluster, shard = self._lab.cluster, self._chance.randrange(3)
        victims = self._victims() if fault != "primary" else []
        if fault != "crew":
            cluster.hold_log(shard)
            time.sleep(self._chance.uniform(*HELD_S))
        under_way = len(self._clients.under_way())
        struck_s = time.monotonic()
        if fault == "crew":
            self._kill(victims)
        else:
            self._fine = [each.until(struck_s) for each in self._fine]
            with Watch(cluster, shard) as watch:
                first = self._chance.random() < 0.5
                self._kill(victims if first else [])
                node = cluster.kill_primary(shard)
                self._kill([] if first else victims)
                watch.promoted()
            self._note_fine()
            cluster.restart_node(node)
        self._start_crews()
        cluster.wait_healthy()
        told = self._recover(struck_s)
        self.result.faults[fault] = self.result.faults.get(fault, 0) + 1
        took_s = time.monotonic() - struck_s
        self.result.recover_s.append(took_s)
        self._say(
            f"{clock()} {sum(self.result.faults.values()):4d}  {fault:7}  shard {shard}  "
            f"@{struck_s:.2f}  crews {[each.pid for each in victims]}  "
            f"{under_way:3d} turns under way  {took_s:.1f} s  {told}"
        )

    def _victims(self) -> list[Crew]:
        most = max(1, self._plan.crews - 1)
        return self._chance.sample(self._crews, self._chance.randint(1, most))

    def _kill(self, victims: list[Crew]) -> None:
        for crew in victims:
            crew.kill()
            self._crews.remove(crew)
            self._dead.append(crew)

    def _note_fine(self) -> None:
        """Which runs a fault has left as they were, so that nobody need do them again."""
        now_s = time.monotonic()
        unsettled = self._open_books.unsettled()
        there = frozenset(each.run_id for each in unsettled if is_there(self._reader, each))
        self._fine.append(Fine(there, now_s))

    # --- recovery ---------------------------------------------------------------------

    def _recover(self, struck_s: float) -> str:
        """Have one or two processes recover until nothing is left; what came of it."""
        told: list[str] = []
        until_s = time.monotonic() + RECOVERED_DEADLINE_S
        while True:
            told += self._recover_once()
            if self._is_recovered(struck_s):
                break
            if time.monotonic() > until_s:
                self.result.errors["not recovered in time"] += 1
                break
            time.sleep(AGAIN_S)
        self._tell_clients()
        return "; ".join(each for each in told if each) or "nothing"

    def _tell_clients(self) -> None:
        waiting = self._clients.waiting()
        accepted = self._open_books.accepted(waiting)
        self._clients.recovered({each: accepted.get(each, "") for each in waiting})

    def _recover_once(self) -> Iterator[str]:
        crews = self._clients.crews
        chosen = self._chance.sample(crews, min(len(crews), self._chance.randint(1, 2)))
        for crew in chosen:
            crew.tell(Recover(self._chance.choice(self._plan.faces)))
        for _ in chosen:
            try:
                heard = self._clients.recoveries.get(timeout=ANSWER_DEADLINE_S)
            except queue.Empty:
                raise TimeoutError(f"recover() took over {ANSWER_DEADLINE_S:.0f} s") from None
            self.result.errors.update(heard.troubles)
            yield heard.in_short

    def _is_recovered(self, struck_s: float) -> bool:
        """Whether nothing is left of what the dead were doing."""
        if time.monotonic() < struck_s + OWNER_ALIVE_S:
            return False
        if self._plan.control == "registry":
            return True
        orphans = [each for each in self._open_books.unsettled() if not each.owner_alive]
        return all(
            each.run_id in self._clients.conflicts or is_there(self._reader, each)
            for each in orphans
        )

    # --- the end ----------------------------------------------------------------------

    def _finish(self) -> None:
        """Let all turns end, recover what there is, and let the crews leave."""
        self._clients.be_quiet()
        for _ in range(ROUNDS_MOST):
            self._await(lambda: not self._clients.under_way(), IDLE_DEADLINE_S, "idle")
            self._say(f"at the end: {self._recover(time.monotonic())}")
            if not self._clients.under_way() and not self._clients.waiting():
                break
        for crew in self._crews:
            crew.tell(Leave(DRAIN_S))
        for crew in self._crews:
            crew.end(DRAIN_S + LEAVE_DEADLINE_S)
        self._clients.stop()

    def _judge(self) -> None:
        verdict, sent = self.result.verdict, self._clients.sent
        books = self._open_books
        accepted = books.accepted(sent.turns)
        runs = [turn for run_id, turn in sent.turns.items() if run_id in accepted]
        turns = [turn for turn in runs if not turn.resumes]
        conflicts = {turn.turn_id for turn in runs if turn.run_id in self._clients.conflicts}
        verdict.accepted, verdict.conflicts = len(turns), len(conflicts)
        verdict.missing_money = missing_money(self._lab.engine)
        booked = books.commits({turn.run_id: turn.thread_id for turn in turns})
        counted = [turn for turn in turns if turn.run_id not in conflicts]
        judge_money(verdict, counted, ledger(self._lab.engine), booked)
        with _fresh_graphs(self._lab.place) as graphs:
            judge_threads(verdict, graphs, turns, conflicts)
            self._tell_stories(graphs, turns)
        ended_s = {each.pid: each.ended_s or 0.0 for each in (*self._dead, *self._crews)}
        judge_executions(verdict, steps_of(self._lab.place.trace), ended_s, self._fine)
        verdict.unfinished += [
            f"{run_id} was answered, and not recorded" for run_id in sent.answered - accepted.keys()
        ]
        self.result.refused = len(sent.turns) - len(runs)
        self.result.errors.update(sent.errors)

    def _tell_stories(self, graphs: Mapping[Kind, CompiledStateGraph], turns: list[Turn]) -> None:
        """What happened on some threads that something is wrong with."""
        verdict = self.result.verdict
        wrong = " ".join([*verdict.unfinished, *verdict.broken, *verdict.missing]).split()
        kinds = {turn.thread_id: turn.kind for turn in turns}
        steps = steps_of(self._lab.place.trace)
        wrong += [f"{turn.thread_id}:" for turn in turns if turn.run_id in self._clients.conflicts]
        told = [each for each in kinds if {f"{each},", f"{each}:"} & {*wrong}]
        for thread_id in told[:STORIES_MOST]:
            for turn in self._clients.sent.turns.values():
                if turn.thread_id == thread_id:
                    run = self._open_books.run(turn.run_id)
                    self._say("\n".join(stories.of_run(turn, run, steps)))
            self._say("\n".join(stories.of_thread(graphs[kinds[thread_id]], thread_id)))

    @property
    def _open_books(self) -> Books:
        assert self._books is not None
        return self._books

    def _await(self, what: Callable[[], bool], deadline_s: float, word: str) -> None:
        until_s = time.monotonic() + deadline_s
        while not what():
            if time.monotonic() > until_s:
                raise TimeoutError(f"crews were not {word} within {deadline_s:.0f} s")
            time.sleep(POLL_S)
