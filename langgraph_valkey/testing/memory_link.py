"""A server in memory, and the ways in which a real one fails.

`MemoryLink` runs the scripts that a real server runs, over a keyspace in this
process. Nothing waits: time is virtual and `sleep` moves it on. All that would
be left to chance is drawn from a seed, so a run can be repeated.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langgraph_valkey.errors import (
    LanggraphValkeyError,
    OutcomeUnknown,
    StoreFull,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import Call, Reply
from langgraph_valkey.testing.commands import Commands
from langgraph_valkey.testing.interpreter import interpreter
from langgraph_valkey.testing.keyspace import ServerError, glob, walk

Failure: TypeAlias = (
    type[WriteRejected] | type[Unreachable] | type[OutcomeUnknown] | type[StoreFull]
)
Applied: TypeAlias = bool | Literal["later"]
Kind: TypeAlias = Literal["state", "index", "graves"]

REWIND_MOST = 10_000
"""How many writing calls can be taken back."""

START_S = 1_767_225_600.0
"""When the server's clock starts: 2026-01-01."""

CALL_S = 0.0001
"""How long a call takes: about what it takes on a local network."""


@dataclass(slots=True)
class _Fault:
    failure: Failure
    applied: Applied
    script: str | None
    skip: int


class MemoryLink:
    """A `Link` to a server in memory; serves the blocking and the async face.

    Each of its faults is what a real cluster does, seen from a client:

    ======================  ==================================================
    `fail_next`             a call fails: applied, not applied, or applied late
    `land_late`             what was still under way arrives now
    `rewind`                a failover loses the last writes
    `evict`                 the server drops a key to get memory
    `go_down`, `come_up`    no server answers
    `before_call`           anything else, at the call you choose
    ======================  ==================================================

    Args:
        seed: From which whatever is random is drawn.
        page_most: The most keys or fields on a page of a walk; a small number
            makes small threads take the ways of large ones.

    Attributes:
        calls: The names of the scripts that were called, in order, failed calls
            included.
        late: Calls that are still under way (see `fail_next`).
        before_call: Is given each call before it is run. It may use the link,
            and may raise one of this package's errors: then nothing is applied.

    Example:
        How an agent takes it that its third checkpoint is refused:

        ```python
        from langgraph_valkey import WriteRejected
        from langgraph_valkey.testing import MemoryLink, memory_saver

        link = MemoryLink()
        graph = builder.compile(checkpointer=memory_saver(link))
        link.fail_next(WriteRejected, script="put", skip=2)
        with pytest.raises(WriteRejected):
            graph.invoke(inputs, config, durability="sync")
        assert link.counts["put"] == 3
        graph.invoke(None, config, durability="sync")  # goes on from the second
        ```
    """

    def __init__(self, *, seed: int = 0, page_most: int = 1000) -> None:
        self.calls: list[str] = []
        self.late: list[Call] = []
        self.before_call: Callable[[Call], None] | None = None
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        self._server = Commands(self._new_identity(), page_most)
        self._interpreter = interpreter()
        self._elapsed_us = 0
        self._clock_us = round(START_S * 1e6)
        self._faults: list[_Fault] = []
        self._applied: deque[list[Any]] = deque(maxlen=REWIND_MOST)
        self._down = False
        self._lock = threading.RLock()
        self._set_clock()

    # --- the link --------------------------------------------------------------

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        """Run the calls in order; see `Link.send`."""
        replies: list[Reply] = []
        failures: list[LanggraphValkeyError] = []
        for call in calls:
            try:
                replies.append(self._send(call))
            except LanggraphValkeyError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return replies

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        """One page of the keys; see `Link.scan`."""
        with self._lock:
            if self._down:
                raise Unreachable("no server could be reached (in memory: go_down)")
            self._set_clock()
            keyspace = self._server.keyspace
            most = self._server.page_most
            following, page = walk(keyspace.alive(), cursor or b"0", most)
            found = [key for key in page if glob(pattern).fullmatch(key)]
            return None if following == b"0" else following, found

    async def sleep(self, delay_s: float) -> None:
        """Move the time on."""
        self.advance(delay_s)

    def now(self) -> float:
        """Seconds since the link was made, virtual."""
        return self._elapsed_us / 1e6

    # --- what a test does to it ------------------------------------------------

    @property
    def counts(self) -> Counter[str]:
        """How often each script was called."""
        return Counter(self.calls)

    @property
    def keys(self) -> list[bytes]:
        """The keys that are there, sorted."""
        with self._lock:
            self._set_clock()
            return sorted(self._server.keyspace.alive())

    def advance(self, delay_s: float) -> None:
        """Move the time on: threads with a ttl expire by it."""
        with self._lock:
            self._pass(max(0, round(delay_s * 1e6)))

    def fail_next(
        self,
        failure: Failure,
        *,
        applied: Applied = False,
        script: str | None = None,
        skip: int = 0,
    ) -> None:
        """Make one call fail.

        Args:
            failure: `WriteRejected`, `Unreachable`, `StoreFull` or `OutcomeUnknown`.
            applied: With `OutcomeUnknown`: whether the call is applied
                nevertheless, or ``"later"``, when `land_late` is called.
            script: Fail a call of this script: ``"put"``, ``"put_writes"``,
                ``"get"``, ``"page"``, ``"delete"`` ...; None for any.
            skip: How many such calls succeed before.

        Raises:
            ValueError: A failure that promises that nothing was applied, and
                `applied`.
        """
        if applied and failure is not OutcomeUnknown:
            raise ValueError(f"{failure.__name__} says that nothing was applied")
        self._faults.append(_Fault(failure, applied, script, skip))

    def land_late(self) -> list[Reply]:
        """Apply the calls that are still under way, in order; what they returned.

        Nobody gets to hear these replies: they are returned for a test to look at.
        """
        with self._lock:
            late, self.late = self.late, []
            return [self._run(call) for call in late]

    def rewind(self, calls: int = 1, *, clock_s: float = 0.0) -> None:
        """Fail over to a replica that has not got the last writing calls.

        They had been acknowledged: no one is told.

        Args:
            calls: How many; at most `REWIND_MOST` are remembered.
            clock_s: How far the new primary's clock is ahead of the old one's.
        """
        with self._lock:
            self._expired_between()
            for _ in range(min(calls, len(self._applied))):
                self._server.keyspace.take_back(self._applied.pop())
            self._server.identity = self._new_identity()
            self._clock_us += round(clock_s * 1e6)
            self._set_clock()

    def evict(self, kind: Kind, thread_id: str | None = None) -> int:
        """Drop keys, as a server does that is short of memory.

        Args:
            kind: Which of a thread's keys; see the `keys` module.
            thread_id: Of which thread; None for all.

        Returns:
            How many were there.
        """
        end = f":{kind}".encode()
        if thread_id is not None:
            end = getattr(thread_keys("", thread_id), kind)
        with self._lock:
            self._set_clock()
            keyspace = self._server.keyspace
            return sum(keyspace.remove(key) for key in keyspace.alive() if key.endswith(end))

    def go_down(self) -> None:
        """From now on no server answers: each call raises `Unreachable`."""
        self._down = True

    def come_up(self) -> None:
        """The server answers again, with all it had."""
        self._down = False

    # --- inside ----------------------------------------------------------------

    def _send(self, call: Call) -> Reply:
        with self._lock:
            self.calls.append(call.script.name)
            if self.before_call is not None:
                self.before_call(call)
            if self._down:
                raise Unreachable("no server could be reached (in memory: go_down)")
            fault = self._fault_of(call)
            if fault is None:
                return self._run(call)
            if fault.applied == "later":
                self.late.append(call)
            elif fault.applied:
                self._run(call)
            raise fault.failure(f"{call.script.name} failed (in memory: fail_next)")

    def _fault_of(self, call: Call) -> _Fault | None:
        """The fault that hits this call; the others that wait for it count it."""
        hit = None
        for fault in list(self._faults):
            if fault.script in {None, call.script.name}:
                if fault.skip:
                    fault.skip -= 1
                elif hit is None:
                    hit = fault
                    self._faults.remove(fault)
        return hit

    def _run(self, call: Call) -> Reply:
        self._pass(round(CALL_S * 1e6))
        self._expired_between()
        try:
            return self._interpreter.run(call.script.source, call.keys, call.args, self._server)
        except ServerError as error:
            raise LanggraphValkeyError(f"the server answered with an error: {error}") from error
        finally:
            if call.writes:
                self._applied.append(self._server.keyspace.taken())
            else:
                self._expired_between()

    def _expired_between(self) -> None:
        """Keys that went by themselves come back with the writing call before them."""
        undo = self._server.keyspace.taken()
        if self._applied:
            self._applied[-1] += undo

    def _pass(self, delay_us: int) -> None:
        self._elapsed_us += delay_us
        self._clock_us += delay_us
        self._set_clock()

    def _set_clock(self) -> None:
        self._server.now_us = self._clock_us
        self._server.keyspace.now_ms = self._clock_us // 1000

    def _new_identity(self) -> str:
        return self._random.randbytes(20).hex()
