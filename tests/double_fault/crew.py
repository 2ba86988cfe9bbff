"""Crews: processes that run turns, and are killed; and what is said between them and others.

A crew is forked from a server that has imported everything (a fresh one is there within
some ms), says `Ready`, and then does whatever it is told, side by side: turns of the
blocking face in threads, those of the async face as tasks of one event loop. It leaves
as soon as whoever told it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeAlias

from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command
from pydantic import SecretStr

from langgraph_valkey.settings import Settings
from tests.double_fault.agent import KINDS, Agent, Kind, answer_to, question
from tests.double_fault.bank import Intent
from tests.double_fault.offer import Report, Tiers
from tests.double_fault.plain import Plain
from tests.double_fault.trace import GAVE_UP, Trace

Face: TypeAlias = Literal["sync", "async"]
Control: TypeAlias = Literal["", "registry", "receipts"]

AT_ONCE_MOST = 16
"""Turns and recoveries of the blocking face at a time; more wait."""

ENDED_DEADLINE_S = 5.0
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is.

    Attributes:
        url: Of the cluster.
        primary: URL of the primary store.
        trace: File of the trace.
        lag_bound_s: The cluster's.
        owner_alive_s: After how long of silence a process is taken for dead.
        control: Which part is left out, if one is.
    """

    url: str
    primary: str
    trace: str
    lag_bound_s: float
    owner_alive_s: float
    control: Control = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a client sends: once.

    Attributes:
        run_id: Names it.
        thread_id: The conversation.
        kind: Which agent it is for.
        face: By which face it is run.
        intents: What is to be done.
        asks: Whether the client wants to be asked in between.
        resumes: Its first run, if this one brings the client's word.
    """

    run_id: str
    thread_id: str
    kind: Kind
    face: Face
    intents: tuple[Intent, ...]
    asks: bool = False
    resumes: str = ""

    @property
    def turn_id(self) -> str:
        """The same for all its runs."""
        return self.resumes or self.run_id


@dataclass(frozen=True, slots=True)
class Recover:
    """Recover, by this face."""

    face: Face


@dataclass(frozen=True, slots=True)
class Leave:
    """Close everything, and end."""

    drain_s: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The crew takes turns."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A turn has its answer."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn waits for the client's word."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A turn ended with an error, or with another answer than its own."""

    run_id: str
    error: str


REPORTED = ("fine", "rerun", "conflicts", "failed", "busy")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery came to: run ids of each sort in its report, and what was trouble."""

    runs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()

    @property
    def in_short(self) -> str:
        """How many runs of each sort, if any."""
        return ", ".join(f"{len(ids)} {name}" for name, ids in self.runs.items() if ids)


@dataclass(frozen=True, slots=True)
class Left:
    """Everything is closed."""


Order: TypeAlias = Turn | Recover | Leave
Event: TypeAlias = Ready | Answered | Asked | Failed | Recovered | Left


def open_tiers(place: Place) -> Tiers:
    """What turns are run through, as a program would make it."""
    settings = Settings.from_url(place.url, durability="async", lag_bound_s=place.lag_bound_s)
    if place.control == "registry":
        return Plain(settings, place.primary)
    from langgraph_valkey.tiers.settings import TierSettings
    from langgraph_valkey.tiers.state_tiers import StateTiers

    told = TierSettings(
        transient=settings, primary=SecretStr(place.primary), owner_alive_s=place.owner_alive_s
    )
    tiers: Tiers = StateTiers(told)
    return tiers


def graphs_of(tiers: Tiers, place: Place, trace: Trace) -> dict[Kind, CompiledStateGraph]:
    """The agents, known by their names to whoever runs them again."""
    graphs: dict[Kind, CompiledStateGraph] = {}
    for kind in KINDS:
        agent = Agent(
            kind,
            tiers,
            trace,
            heeds=place.control != "receipts",
            is_sure=place.control == "registry",  # Its keys would not stand it.
        )
        graphs[kind] = agent.graph()
        tiers.register(graphs[kind], name=kind)
    return graphs


class Crew:
    """A crew, seen from the process that kills it.

    Args:
        place: Where everything is.

    Attributes:
        pipe: What it says comes from here; EOF says that it is gone.
        pid: Its process id.
        is_ready: Whether it has said so; set by whoever listens.
        ended_s: When it was seen to be dead, on the monotonic clock; None before.
    """

    def __init__(self, place: Place) -> None:
        self.pipe, theirs = FORKSERVER.Pipe()
        self._process = FORKSERVER.Process(target=_main, args=(place, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0
        self.is_ready = False
        self.ended_s: float | None = None

    def tell(self, order: Order) -> None:
        """Give an order; one that is dead does not mind."""
        with suppress(OSError):
            self.pipe.send(order)

    def kill(self) -> None:
        """End it at once (SIGKILL), and wait until it has."""
        self._process.kill()
        self.end()

    def end(self, within_s: float = ENDED_DEADLINE_S) -> None:
        """See to it that it ends: it is about to leave, or was killed."""
        self._process.join(within_s)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self.ended_s is None:
            self.ended_s = time.monotonic()


# --- in the crew's process ------------------------------------------------------------


def _main(place: Place, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in ("langgraph_valkey", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        Aboard(place, pipe).serve()
    except (EOFError, OSError):
        os._exit(1)  # Whoever gives orders is gone; turns under way must not hold it up.


class Aboard:
    """A crew, from within."""

    def __init__(self, place: Place, pipe: Connection) -> None:
        self._pipe = pipe
        self._says = threading.Lock()
        self._trace = Trace(place.trace)
        self._tiers = open_tiers(place)
        self._tiers.setup()
        self._graphs = graphs_of(self._tiers, place, self._trace)
        self._threads = ThreadPoolExecutor(AT_ONCE_MOST)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def serve(self) -> None:
        """Do what one is told, until told to leave."""
        self._say(Ready())
        while True:
            order = self._pipe.recv()
            match order:
                case Turn(face="sync"):
                    self._threads.submit(self._run, order)
                case Turn():
                    asyncio.run_coroutine_threadsafe(self._arun(order), self._loop)
                case Recover(face="sync"):
                    self._threads.submit(self._recover)
                case Recover():
                    asyncio.run_coroutine_threadsafe(self._arecover(), self._loop)
                case Leave(drain_s):
                    self._leave(drain_s)
                    return

    def _say(self, event: Event) -> None:
        with self._says, suppress(OSError):
            self._pipe.send(event)

    def _leave(self, drain_s: float) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._tiers.close(drain_s=drain_s)
        self._trace.close()
        self._say(Left())

    # --- turns --------------------------------------------------------------------

    def _run(self, turn: Turn) -> None:
        try:
            found = self._tiers.run(
                self._graphs[turn.kind], _input(turn), thread_id=turn.thread_id, run_id=turn.run_id
            )
        except Exception as error:
            self._gave_up(turn, error)
        else:
            self._say(_answer(turn, found))

    async def _arun(self, turn: Turn) -> None:
        try:
            found = await self._tiers.arun(
                self._graphs[turn.kind], _input(turn), thread_id=turn.thread_id, run_id=turn.run_id
            )
        except Exception as error:
            self._gave_up(turn, error)
        else:
            self._say(_answer(turn, found))

    def _gave_up(self, turn: Turn, error: Exception) -> None:
        self._trace.note(turn.run_id, 0, GAVE_UP)
        self._say(Failed(turn.run_id, described(error)))

    # --- recoveries -----------------------------------------------------------------

    def _recover(self) -> None:
        try:
            report = self._tiers.recover()
        except Exception as error:
            self._say(Recovered(troubles=(f"recover: {described(error)}",)))
        else:
            self._tell(report)

    async def _arecover(self) -> None:
        try:
            report = await self._tiers.arecover()
        except Exception as error:
            self._say(Recovered(troubles=(f"recover: {described(error)}",)))
        else:
            self._tell(report)

    def _tell(self, report: Report) -> None:
        told = {name: _ids(getattr(report, name)) for name in REPORTED}
        for run_id in told["failed"]:
            self._trace.note(run_id, 0, GAVE_UP)
        troubles = [
            f"{name}: {each.why}"
            for name in REPORTED
            for each in getattr(report, name)
            if getattr(each, "why", "")
        ]
        self._say(Recovered(told, tuple(troubles)))


def _input(turn: Turn) -> Any:
    if turn.resumes:
        return Command(resume="Yes.")
    return {"messages": [question(turn.run_id, turn.intents, asks=turn.asks)]}


def _answer(turn: Turn, found: Any) -> Answered | Asked | Failed:
    if found.get("__interrupt__"):
        return Asked(turn.run_id)
    said = found["messages"][-1].text
    if said == answer_to(turn.turn_id):
        return Answered(turn.run_id)
    return Failed(turn.run_id, f"WrongAnswer: {said[:100]!r}")


def _ids(runs: Any) -> tuple[str, ...]:
    """Run ids, of whatever a report lists."""
    return tuple(str(getattr(each, "run_id", each)) for each in runs)


def described(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}"[:300]
