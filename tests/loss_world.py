"""A world in which writes are lost: one server with a log that lags, and processes on it.

`Cluster` is a server in memory whose log lags behind. What it holds back is what a
crash may lose: the newest of the writes that are not in the log, however old they
are. Beyond the bound it refuses writes. A primary that was replaced lives on for a
moment as `World.former`, and answers whoever still reaches it.

`Process` is a saver with a link of its own, which may be led astray. What it was
told is noted in `loss_truth`; time passes only when the story says so.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from langgraph.checkpoint.base import Checkpoint

from langgraph_valkey import OutcomeUnknown, WriteRejected, operations
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import Call, Reply, Script, finish
from langgraph_valkey.loss_window.report import Fork, Hooks, RecoveryReport
from langgraph_valkey.loss_window.tending import tend
from langgraph_valkey.operations import Answer, Status
from langgraph_valkey.testing import MemoryLink, memory_saver
from langgraph_valkey.testing.commands import Args, Commands
from langgraph_valkey.testing.keyspace import ServerError
from langgraph_valkey.testing.memory_link import START_S
from tests.loss_truth import At, Truth, thread_of

LAG_BOUND_S = 10.0
FORMER_S = 2.5
"""How long a primary that was replaced goes on answering."""
SHORT_S = 0.05
"""In pauses shorter than this nothing else happens."""
THREADS = ("t", "u")


class Hiding(Commands):
    """A server that tells nobody who it is."""

    def run(self, args: Args) -> Any:
        if args and args[0].upper() == b"INFO":
            raise ServerError("NOPERM this user has no permissions to run the 'info' command")
        return super().run(args)


class Cluster(MemoryLink):
    """A server whose log lags behind, and what a failover leaves of it."""

    def __init__(self, *, seed: int, hides: bool = False) -> None:
        super().__init__(seed=seed, page_most=3)
        if hides:
            self._server.__class__ = Hiding
        self.bound_s = LAG_BOUND_S
        self.open: deque[float] = deque()
        self.watch: Callable[[Call, Reply | None], None] = lambda *_: None

    def _run(self, call: Call) -> Reply:
        if call.writes and self.open and self.now() - self.open[0] > self.bound_s:
            raise WriteRejected("CLUSTERDOWN the log lags behind")
        self.watch(call, None)
        reply = self.execute(call)
        if call.writes:
            self.open.append(self.now())
        self.watch(call, reply)
        return reply

    def execute(self, call: Call) -> Reply:
        """Run a call."""
        return super()._run(call)

    def persist(self, many: int) -> None:
        """The log has so many more of the writes."""
        for _ in range(min(many, len(self.open))):
            self.open.popleft()

    def twin(self) -> Cluster:
        """The same server, going its own way from now on."""
        other = Cluster(seed=0)
        other._server.__class__ = self._server.__class__
        other._server.identity = self._server.identity
        other._elapsed_us, other._clock_us = self._elapsed_us, self._clock_us
        other.restore(self.image())
        other._set_clock()
        return other

    def image(self) -> Any:
        """All it holds."""
        keyspace = self._server.keyspace
        values = {key: type(held)(held) for key, held in keyspace._values.items()}
        return values, dict(keyspace._deadlines_ms)

    def restore(self, image: Any) -> None:
        """Hold that again."""
        keyspace = self._server.keyspace
        values, deadlines_ms = image
        keyspace._values = {key: type(held)(held) for key, held in values.items()}
        keyspace._deadlines_ms = dict(deadlines_ms)
        self._applied.clear()
        self.open.clear()

    def crash(self, lost: int, clock_s: float) -> None:
        """Another primary takes over, without the last writes."""
        self.rewind(lost, clock_s=clock_s)
        self.open.clear()

    @property
    def clock_ms(self) -> int:
        return self._clock_us // 1000

    @property
    def identity(self) -> bytes:
        return b"" if isinstance(self._server, Hiding) else self._server.identity.encode()

    def state(self, thread: str) -> dict[bytes, bytes]:
        """A thread as it is stored."""
        self._set_clock()
        return self._server.keyspace.hash(thread_keys("lgv", thread).state)

    def deadline_ms(self, thread: str) -> int:
        """When a thread expires; 0 for never."""
        return self._server.keyspace.deadline_ms(thread_keys("lgv", thread).state) or 0


class Process:
    """One saver: what it has in mind, and where its calls go.

    Attributes:
        mind: For a thread and a namespace, the checkpoint it works on.
        astray: How many of its next calls reach the primary that was replaced.
        is_stuck: Its replays time out, and what else it sends does not.
        acks: The last answers of its writes, by number, until it takes them.
        heard: For a thread, identities it has had an answer from.
        reports: What its recoveries came to.
        forks: What it was told of forks.
    """

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.number = number
        self.id_offset = world.random.randrange(-3, 4)
        self.mind: dict[tuple[str, str], Checkpoint] = {}
        self.astray = 0
        self.is_stuck = False
        self.acks: dict[bytes, Answer] = {}
        self.answer: Answer | None = None
        self.server: Cluster | None = None
        self.number_sent = b""
        self.removed: list[tuple[int, At]] = []
        self.last: tuple[str, str, str, Checkpoint | None] = "", "", "", None
        self.heard: set[tuple[str, bytes]] = set()
        self.reports: list[RecoveryReport] = []
        self.forks: list[Fork] = []
        hooks = Hooks(on_rewind=self.reports.append, on_fork=self.forks.append)
        self.saver = memory_saver(
            self, durability="async", lag_bound_s=LAG_BOUND_S, ttl_s=world.ttl_s, hooks=hooks
        )
        self.saver._writer._name = name.encode().rjust(8, b"-")  # For runs that repeat.

    # --- as its saver's link --------------------------------------------------------

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        return [self.world.deliver(self, call) for call in calls]

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        return await self.world.primary.scan(cursor, pattern)

    async def sleep(self, delay_s: float) -> None:
        self.world.wait(delay_s, but=self)

    def now(self) -> float:
        return self.world.primary.now()

    # --- what it does by itself -------------------------------------------------------

    def tend(self) -> None:
        """One round of its monitor."""
        finish(tend(self.saver._window, self))


class World:
    """A cluster, processes, and the truth about what they were told.

    Args:
        seed: From which everything is drawn.
        many: How many processes.
        ttl_s: When threads expire, if they do.
        hides: Whether the server tells nobody who it is.
        patch: What becomes of a script before it is sent.
        primary: The server, if it is not one in memory; it has no former one then.
    """

    def __init__(
        self,
        seed: int,
        *,
        many: int = 2,
        ttl_s: float | None = None,
        hides: bool = False,
        patch: Callable[[Script], Script] = lambda script: script,
        primary: Cluster | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.ttl_s = ttl_s
        self.hides = hides
        self.patch = patch
        self.truth = Truth(ttl_s)
        self.primary = primary or Cluster(seed=seed, hides=hides)
        self.may_thaw = primary is None and not hides
        self.primary.watch = self._watch_primary
        self.former: Cluster | None = None
        self.former_until_s = 0.0
        self.tick = 0
        self._talking: Process | None = None
        self._waiting = False
        self.processes = [Process(self, f"p{number}", number) for number in range(many)]
        self.names = many
        self.all = list(self.processes)

    def wall_s(self) -> float:
        """The processes' clock, which does not jump."""
        return START_S + self.primary.now()

    # --- calls --------------------------------------------------------------------------

    def deliver(self, process: Process, call: Call) -> Reply:
        """Bring a call to a server, and its reply back."""
        call = replace(call, script=self.patch(call.script))
        if process.is_stuck and call.script.name == "replay":
            raise OutcomeUnknown("replay failed (stuck)")
        server = self.primary
        if self.former is not None and process.astray > 0 and self.random.random() < 0.6:
            if self.primary.now() > self.former_until_s:
                self.former, process.astray = None, 0
            else:
                process.astray -= 1
                server = self.former
                self.primary.calls.append(f"former {call.script.name}")
        if call.script.name in {"put", "put_writes"}:
            process.number_sent = call.args[0][:16]
        before, self._talking = self._talking, process
        try:
            reply = server._send(call)
        finally:
            self._talking = before
        answer = operations.read(reply)
        if call.script.name == "get":
            process.answer, process.server = answer, server
        process.heard.add((thread_of(call), answer.identity))
        if answer.status is Status.OK and call.script.name in {"put", "put_writes"}:
            process.acks[call.args[0][:16]] = answer
        elif answer.status is Status.OK and call.script.name == "remove":
            stamp = int(answer.standing.stamp)
            process.removed += [(stamp, (thread_of(call), call.args[2], i)) for i in call.args[3:]]
        elif answer.status is Status.OK:
            process.acks[call.script.name.encode()] = answer
        return reply

    def _watch_primary(self, call: Call, reply: Reply | None) -> None:
        talker = self._talking.name if self._talking is not None else None
        self.truth.watch(self.primary, talker, call, reply)

    def _watch_former(self, call: Call, reply: Reply | None) -> None:
        if self.former is not None:
            self.truth.watch(self.former, None, call, reply)

    # --- what happens -------------------------------------------------------------------

    def advance(self, delay_s: float) -> None:
        """Time passes."""
        self.primary.advance(delay_s)
        if self.former is not None:
            self.former.advance(delay_s)
        self.truth.passed(self.primary.clock_ms)

    def wait(self, delay_s: float, *, but: Process | None = None) -> None:
        """Time passes, and the other processes' monitors look after them."""
        if self._waiting or delay_s < SHORT_S:
            self.advance(delay_s)
            return
        self._waiting = True
        for _ in range(4):
            self.advance(delay_s / 4)
            for process in self.processes:
                if process is not but:
                    process.tend()
        self._waiting = False

    def crash(self, lost: int, *, clock_s: float = 0.0, thaws: bool = False) -> None:
        """A failover. The old primary may go on for a while, without knowing."""
        self.former = None
        if thaws:
            self.former = self.primary.twin()
            self.former.watch = self._watch_former
            self.former_until_s = self.primary.now() + FORMER_S
        self.primary.crash(lost, clock_s)
        self.truth.passed(self.primary.clock_ms)
        for process in self.processes:
            process.astray = self.random.choice((0, 1, 2, 4)) if thaws else 0

    def die(self, process: Process) -> Process:
        """A process ends as if killed; another one takes its place."""
        self.processes.remove(process)
        other = Process(self, f"p{self.names}", process.number)
        other.id_offset = process.id_offset
        self.names += 1
        self.processes.append(other)
        self.all.append(other)
        return other

    def next_number(self, process: Process) -> int:
        """For an id: higher than this process's last, and unlike any other."""
        self.tick += 1
        return (self.tick + process.id_offset + 8) * 8 + process.number
