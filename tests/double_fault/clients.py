"""The clients: they hold conversations with agents, and send each turn exactly once.

A conversation is a thread with one to four turns. Who is cut off in the middle of one
either waits until it was recovered, or, being impatient, says the next thing at once,
to another crew. What becomes of a turn that was sent is in the registry; clients send
nothing again.

Clients live in a thread of their own, so that they go on while things break.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait

from tests.double_fault.agent import KINDS, Kind
from tests.double_fault.bank import draw_intent
from tests.double_fault.crew import (
    Answered,
    Asked,
    Crew,
    Event,
    Face,
    Failed,
    Left,
    Ready,
    Recovered,
    Turn,
)

POLL_S = 0.02
PAUSE_S = (0.0, 0.5)
"""How long a client thinks between two turns; two cores have to serve all."""

TURNS = (1, 4)
INTENTS = (1, 3)
IMPATIENT = 0.3
"""Share of clients that do not wait for a turn they were cut off from."""


@dataclass(slots=True, eq=False)
class Talk:
    """A conversation.

    Attributes:
        thread_id: Names it.
        kind: Which agent it is with.
        left: How many more turns it takes.
        due_s: When the client says the next thing, on the monotonic clock.
        turn: What was said and is not answered; None if the client thinks.
        crew: Whom it was said to; None if the client waits for it to be recovered.
        asked: The turn that waits for the client's word.
    """

    thread_id: str
    kind: Kind
    left: int
    due_s: float
    turn: Turn | None = None
    crew: Crew | None = None
    asked: Turn | None = None


@dataclass(slots=True)
class Sent:
    """What clients have sent, and heard.

    Attributes:
        turns: All turns, by run id, in the order in which they were sent.
        answered: Those that were answered.
        errors: What others ended with, and how often.
    """

    turns: dict[str, Turn] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)


class Clients:
    """All clients.

    Args:
        seed: Of all that they draw.
        talks: How many conversations there are at a time.
        faces: By which faces turns are run.
        asks: Share of turns in which the client wants to be asked.

    Attributes:
        sent: What they have sent.
        recoveries: What came of recoveries, as crews tell it.
        conflicts: Run ids that any recovery reported as conflicts.
    """

    def __init__(self, seed: int, talks: int, faces: tuple[Face, ...], asks: float) -> None:
        self._chance = random.Random(f"{seed} clients")
        self._names = f"{random.Random(seed).getrandbits(32):08x}"
        self._talks_most = talks
        self._faces = faces
        self._asks = asks
        self._lock = threading.Lock()
        self._crews: list[Crew] = []
        self._talks: list[Talk] = []
        self._begun = 0
        self._stop = threading.Event()
        self._is_quiet = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = Sent()
        self.recoveries: queue.Queue[Recovered] = queue.Queue()
        self.conflicts: set[str] = set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was sent stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def be_quiet(self) -> None:
        """Say nothing new from now on."""
        with self._lock:
            self._is_quiet = True

    def under_way(self) -> list[Turn]:
        """Turns that living crews have not answered yet, or whose clients are asked."""
        with self._lock:
            talks = self._talks
            asked = [talk.asked for talk in talks if talk.asked and not talk.turn]
            return [talk.turn for talk in talks if talk.turn and talk.crew] + asked

    def waiting(self) -> list[str]:
        """Runs that clients were cut off from, and wait for."""
        with self._lock:
            return [talk.turn.run_id for talk in self._talks if talk.turn and talk.crew is None]

    # --- crews come and go ----------------------------------------------------------

    def add(self, crew: Crew) -> None:
        """Use this crew, once it is ready."""
        with self._lock:
            self._crews.append(crew)

    @property
    def crews(self) -> list[Crew]:
        """Those that take turns."""
        with self._lock:
            return [crew for crew in self._crews if crew.is_ready]

    def _lose(self, crew: Crew) -> None:
        """This crew is dead, and with it the answers it owed."""
        with self._lock:
            self._crews.remove(crew)
            for talk in self._talks:
                if talk.crew is crew:
                    self._cut_off(talk)
        crew.pipe.close()

    def _cut_off(self, talk: Talk) -> None:
        talk.crew = None
        is_impatient = self._chance.random() < IMPATIENT
        if talk.turn and not talk.turn.asks and is_impatient:
            self._think(talk)

    def recovered(self, fates: Mapping[str, str]) -> None:
        """What was interrupted is done: clients that waited for it go on.

        Args:
            fates: Of the runs they waited for: state and outcome; "" of one that was not
                accepted. If that was a client's word, it is given again; so it is if the
                run was cancelled, since what it answers was asked anew meanwhile.
        """
        with self._lock:
            for talk in self._talks:
                fate = fates.get(talk.turn.run_id) if talk.turn and not talk.crew else None
                if fate is None or fate.startswith("running"):
                    continue  # It is being executed again.
                if fate and "cancelled" not in fate:
                    talk.asked = talk.turn if "interrupted" in fate else None
                self._think(talk)

    # --- their thread -----------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                crews = {crew.pipe: crew for crew in self._crews}
            for pipe in wait(list(crews), POLL_S):
                self._hear(crews[pipe])  # type: ignore[index]
            with self._lock:
                self._speak(time.monotonic())

    def _hear(self, crew: Crew) -> None:
        try:
            event: Event = crew.pipe.recv()
        except Exception:  # It was killed, perhaps in the middle of a word.
            self._lose(crew)
            return
        with self._lock:
            match event:
                case Ready():
                    crew.is_ready = True
                case Answered(run_id):
                    self.sent.answered.add(run_id)
                    self._think_after(run_id, is_asked=False)
                case Asked(run_id):
                    self._think_after(run_id, is_asked=True)
                case Failed(run_id, error):
                    self.sent.errors[error.replace(run_id, "..")] += 1
                    for talk in self._talks:
                        if talk.turn and talk.turn.run_id == run_id:
                            self._cut_off(talk)
                case Recovered():
                    self.conflicts.update(event.runs.get("conflicts", ()))
                    self.recoveries.put(event)
                case Left():
                    pass

    def _think_after(self, run_id: str, *, is_asked: bool) -> None:
        for talk in self._talks:
            if talk.turn and talk.turn.run_id == run_id:
                talk.asked = talk.turn if is_asked else None
                self._think(talk)

    def _think(self, talk: Talk) -> None:
        talk.turn = talk.crew = None
        talk.due_s = time.monotonic() + self._chance.uniform(*PAUSE_S)

    def _speak(self, now_s: float) -> None:
        """Say what is due, and begin as many conversations as have ended."""
        self._talks = [talk for talk in self._talks if talk.left or talk.turn or talk.asked]
        while len(self._talks) < self._talks_most and not self._is_quiet:
            self._talks.append(self._begin(now_s))
        ready = [crew for crew in self._crews if crew.is_ready]
        for talk in self._talks:
            is_due = talk.turn is None and talk.due_s <= now_s
            if ready and is_due and (talk.asked or not self._is_quiet):
                self._say(talk, self._chance.choice(ready))

    def _begin(self, now_s: float) -> Talk:
        self._begun += 1
        thread_id = f"talk-{self._names}-{self._begun}"
        kind = KINDS[self._begun % len(KINDS)]
        pause_s = self._chance.uniform(*PAUSE_S)
        return Talk(thread_id, kind, self._chance.randint(*TURNS), now_s + pause_s)

    def _say(self, talk: Talk, crew: Crew) -> None:
        run_id = f"turn-{self._names}-{len(self.sent.turns)}"
        face = self._chance.choice(self._faces)
        if talk.asked:
            turn = replace(talk.asked, run_id=run_id, face=face, resumes=talk.asked.turn_id)
        else:
            names = (f"{run_id}.{n}" for n in range(self._chance.randint(*INTENTS)))
            intents = tuple(draw_intent(self._chance, name) for name in names)
            asks = self._chance.random() < self._asks
            turn = Turn(run_id, talk.thread_id, talk.kind, face, intents, asks)
            talk.left -= 1
        talk.turn, talk.crew = turn, crew
        self.sent.turns[run_id] = turn
        crew.tell(turn)
