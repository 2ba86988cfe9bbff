"""Writers in a process of their own, and what that process tells the one that breaks things.

Each crew has several savers; each counts as a process, having a journal of its own.
Half of the writers are threads, the others tasks of one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from langgraph_valkey.loss_window.report import RecoveryReport
from langgraph_valkey.settings import Settings
from tests.kill_loop.ledger import Ledger
from tests.kill_loop.recorded import Recorded
from tests.kill_loop.search import Findings, search
from tests.kill_loop.talks import TALKS, Graphs, Talk, life
from tests.kill_loop.watch import Promotion

PAUSE_S = 0.4
"""The longest pause of a writer between two calls; two cores have to serve all."""

READ_PAUSE_S = 0.05
ANSWER_DEADLINE_S = 120.0
"""How long a crew may take to answer: the last search looks at everything."""

STOP_DEADLINE_S = 40.0
"""How long its writers may take to end: a refused write is tried for 30 s."""

CHECKED_S = 40.0
"""How long ago a thread was written to that is looked at after each failover."""


def unended(threads: Sequence[threading.Thread]) -> int:
    """How many threads, told to stop, have not ended when their time is over."""
    until_s = time.monotonic() + STOP_DEADLINE_S
    for thread in threads:
        thread.join(max(0.1, until_s - time.monotonic()))
    return sum(thread.is_alive() for thread in threads)


@dataclass(frozen=True, slots=True)
class Order:
    """What a crew does.

    Attributes:
        number: Which crew this is.
        url: Of the cluster.
        seed: Of all that it draws.
        writers: How many.
        settings: Of its savers, one each.
        reader: Of the saver that only reads while writers write.
    """

    number: int
    url: str
    seed: int
    writers: int
    settings: tuple[dict[str, Any], ...]
    reader: dict[str, Any]


@dataclass(slots=True)
class Told:
    """What a crew's savers told of one failover.

    Attributes:
        waiting: Savers that still take the former primary for the present one, or have
            something to be replayed. One that never wrote to the shard is not among them.
        reports: How many have told of it.
        last_s: When the last one did, on the clock that all processes share.
        replayed: Entries that had been lost and are there again.
        forks: Branches that were kept beside a head.
        incomplete: Threads that could not be restored.
    """

    waiting: int = 0
    reports: int = 0
    last_s: float = 0.0
    replayed: int = 0
    forks: int = 0
    incomplete: int = 0

    def add(self, other: Told) -> None:
        """Take in what another crew told."""
        self.waiting += other.waiting
        self.reports += other.reports
        self.last_s = max(self.last_s, other.last_s)
        self.replayed += other.replayed
        self.forks += other.forks
        self.incomplete += other.incomplete


@dataclass(slots=True)
class Tally:
    """What a crew's ledger says in the end; see `Ledger`."""

    acked: int = 0
    threads: int = 0
    stale_reads: int = 0
    moved_back: list[str] = field(default_factory=list)
    unavailable: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


class Crew:
    """A crew, seen from the process that breaks things.

    Args:
        order: What it does.
        aboard: Who does it, in the crew's process: an `Aboard`, or what answers the same.
    """

    def __init__(self, order: Order, aboard: type[Any]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_main, args=(aboard, order, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, method: str, *args: Any) -> None:
        """Ask for something."""
        self._pipe.send((method, args))

    def receive(self) -> Any:
        """The answer to what was asked first.

        Raises:
            TimeoutError: It did not come in time.
            EOFError: The crew is gone.
        """
        if not self._pipe.poll(ANSWER_DEADLINE_S):
            raise TimeoutError(f"no answer from a crew within {ANSWER_DEADLINE_S:.0f} s")
        return self._pipe.recv()

    def end(self) -> None:
        """End it, whatever it does."""
        self._pipe.close()
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def ask_all(crews: list[Crew], method: str, *args: Any) -> list[Any]:
    """Ask all crews the same, at once."""
    for crew in crews:
        crew.send(method, *args)
    return [crew.receive() for crew in crews]


# --- in the crew's process --------------------------------------------------------


def _main(aboard: type[Any], order: Order, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("langgraph_valkey").setLevel(logging.CRITICAL)
    crew = aboard(order)
    crew.start()
    try:
        while True:
            method, args = pipe.recv()
            pipe.send(getattr(crew, method)(*args))
    except (EOFError, BrokenPipeError):
        pass  # Whoever ordered it is done with it, or gone.


def told_of(timed: Sequence[tuple[float, RecoveryReport]], waiting: int) -> Told:
    """What reports, and when they came, say of one failover."""
    reports = [report for _, report in timed]
    return Told(
        waiting=waiting,
        reports=len(reports),
        last_s=max((at for at, _ in timed), default=0.0),
        replayed=sum(report.replayed for report in reports),
        forks=sum(len(report.forks) for report in reports),
        incomplete=sum(len(report.incomplete) for report in reports),
    )


class Aboard:
    """A crew, from within."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._ledger = Ledger()
        self._reports: dict[str, list[tuple[float, RecoveryReport]]] = {}
        self._savers = [self._saver(each) for each in order.settings]
        self._reader = self._saver(order.reader)
        self._direct = self._plain_reader()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._checked_s = 0.0
        self._known_wrong = Findings()

    def _saver(self, settings: dict[str, Any]) -> Recorded:
        return Recorded(Settings.from_url(self._order.url, **settings), self._ledger, self._told)

    def _plain_reader(self) -> Recorded:
        settings = Settings.from_url(self._order.url, replay=False)
        return Recorded(settings, Ledger(), self._told)

    def _told(self, report: RecoveryReport) -> None:
        self._reports.setdefault(report.shard, []).append((time.monotonic(), report))

    def start(self) -> None:
        """Begin to write."""
        names = list(TALKS)
        graphs = [Graphs(saver) for saver in self._savers]
        tasks: list[Coroutine[Any, Any, None]] = []
        for index in range(self._order.writers):
            number = self._order.number * self._order.writers + index
            turn = index % len(graphs)
            mine = [*graphs[turn:], *graphs[:turn]]
            chance = random.Random(f"{self._order.seed} {number}")
            writer = Writer(names[number % len(names)], number, mine, chance, self._ledger)
            if index % 2:
                tasks.append(writer.write_awaiting(self._stop))
            else:
                self._thread(writer.write_blocking, self._stop)
        self._thread(_run_tasks, tasks)
        self._thread(self._read)

    def _thread(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self) -> None:
        """Look at heads all the time, as another process would."""
        chance = random.Random(f"{self._order.seed} reader {self._order.number}")
        while not self._stop.wait(READ_PAUSE_S):
            with self._ledger.lock:
                recent = list(self._ledger.threads)[-2 * self._order.writers :]
            if recent:
                thread = chance.choice(recent)
                try:
                    self._reader.get_tuple({"configurable": {"thread_id": thread}})
                except Exception as error:
                    self._ledger.failed("reader", error)

    # --- what it can be asked --------------------------------------------------

    def ready(self) -> bool:
        """Whether each writer has written."""
        with self._ledger.lock:
            return self._ledger.acked > 4 * self._order.writers

    def told(self, promotion: Promotion) -> Told:
        """What its savers told of a failover."""
        waiting = sum(not saver.is_past(promotion.former) for saver in self._savers)
        return told_of(self._reports.get(promotion.identity, []), waiting)

    def check(self) -> Findings:
        """Look for what was written lately; what is wrong is told once."""
        since_s = time.monotonic() - CHECKED_S
        with self._ledger.lock:
            touched = [
                thread for thread, told in self._ledger.threads.items() if told.touched_s >= since_s
            ]
        return self._new(search(self._ledger, self._direct, touched))

    def stop(self) -> Tally:
        """End writing; what the ledger says."""
        self._stop.set()
        ledger = self._ledger
        late = unended(self._threads)
        if late:
            ledger.errors["writers that did not end"] += late
        return Tally(
            acked=ledger.acked,
            threads=len(ledger.threads),
            stale_reads=ledger.stale_reads,
            moved_back=list(ledger.moved_back),
            unavailable=dict(ledger.unavailable),
            errors=dict(ledger.errors),
        )

    def check_all(self) -> Findings:
        """Look for everything, with a fresh saver, when those that wrote are closed."""
        for saver in (*self._savers, self._reader):
            saver.close()
        reader = self._plain_reader()
        try:
            return self._new(search(self._ledger, reader, list(self._ledger.threads)))
        finally:
            reader.close()
            self._direct.close()

    def _new(self, found: Findings) -> Findings:
        known = self._known_wrong
        new = Findings(
            found.missing - known.missing,
            found.resurrected - known.resurrected,
            found.moved_back - known.moved_back,
            found.outlived - known.outlived,
            found.looked_at,
        )
        known.add(found)
        return new


class Writer:
    """Talks on one thread after the other.

    Args:
        name: Of its talks.
        number: Which writer this is.
        graphs: Of the savers, the one to use most in front.
        chance: What it draws from.
        ledger: Where errors are counted.
    """

    def __init__(
        self, name: str, number: int, graphs: list[Graphs], chance: random.Random, ledger: Ledger
    ) -> None:
        self._name = name
        self._number = number
        self._graphs = graphs
        self._chance = chance
        self._ledger = ledger
        self._talks = 0

    def _next(self) -> tuple[str, Talk]:
        self._talks += 1
        thread = f"{self._name} {self._number}.{self._talks}"
        return thread, life(self._name, self._graphs, thread, self._chance)

    def _failed(self, thread: str, error: Exception) -> None:
        if not self._ledger.of(thread).has_forked:
            self._ledger.failed(self._name, error)

    def write_blocking(self, stop: threading.Event) -> None:
        """Write until told to stop, in a thread."""
        while not stop.is_set():
            thread, talk = self._next()
            result = None
            try:
                while not stop.wait(self._chance.uniform(0, PAUSE_S)):
                    asked = talk.send(result)
                    result = getattr(asked.target, asked.method)(*asked.args, **asked.keywords)
            except StopIteration:
                pass
            except Exception as error:
                self._failed(thread, error)

    async def write_awaiting(self, stop: threading.Event) -> None:
        """Write until told to stop, as a task."""
        while not stop.is_set():
            thread, talk = self._next()
            result = None
            try:
                while not stop.is_set():
                    await asyncio.sleep(self._chance.uniform(0, PAUSE_S))
                    asked = talk.send(result)
                    twin = getattr(asked.target, f"a{asked.method}")
                    result = await twin(*asked.args, **asked.keywords)
            except StopIteration:
                pass
            except Exception as error:
                self._failed(thread, error)


def _run_tasks(tasks: list[Coroutine[Any, Any, None]]) -> None:
    async def together() -> None:
        await asyncio.gather(*tasks)

    asyncio.run(together())
