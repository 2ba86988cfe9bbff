"""The outbox: what commits send to the world outside, at least once.

A message is stored in the transaction of its commit. After that a worker takes it, calls
the handler of its topic, and notes that it was sent. A process that dies in between
leaves a message that is taken again when its lease has run out: so a handler may see a
message twice, and passes on its ``idempotency_key``, which is the same each time::

    @tiers.outbox.on("invoice")
    def send_invoice(message: Message) -> None:
        http.post(url, json=message.body, headers={"Idempotency-Key": message.idempotency_key})

A handler that raises is called again later, with pauses that grow, and in the end the
message is a dead letter: it stays where it is, can be looked at, and be revived. So does
one whose handler never came to an end (a process that it kills, time after time).

Messages are taken one by one, so that a lease covers one call of a handler and no more.
Any number of processes may work on one outbox. Nobody takes messages of a topic that it
has no handler for. The order of messages is not kept.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from langgraph_valkey.commits.handlers import (
    Handler,
    HandlerT,
    LoopRuns,
    call_async,
    call_blocking,
    is_async,
    is_failure,
    loop_runs,
)
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import Primary, PrimaryStore
from langgraph_valkey.primary.records import Message

_log = logging.getLogger("langgraph_valkey")

AGAIN_FIRST_S = 1.0
AGAIN_MOST_S = 600.0
"""Bounds of the pause before a message is tried again. It doubles from try to try, and is
drawn between half of it and all of it, so that what failed together does not come back
together; ten minutes, so that the end of a long outage is noticed within that."""

TROUBLE_MOST_S = 60.0
"""The longest pause of the worker while the primary store does not answer."""

STOP_S = 10.0
"""How long `stop` waits for the handler that is under way."""

DRAIN_MOST = 10_000
"""Messages that one pass sends at most: it must end, whatever is committed meanwhile."""

ERROR_LENGTH_MOST = 500
"""Characters of an error's text that are kept with the message."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of a pass, in messages.

    Attributes:
        sent: They were sent.
        failed: They could not be, and will be tried again.
        dead: They were given up.
    """

    sent: int = 0
    failed: int = 0
    dead: int = 0

    def __add__(self, other: Drained) -> Drained:
        return Drained(self.sent + other.sent, self.failed + other.failed, self.dead + other.dead)


@dataclass(frozen=True, slots=True)
class OutboxHealth:
    """The outbox, as this process sees it.

    Attributes:
        working: Whether its worker runs here.
        topics: What it has handlers for.
        sent, failed, dead: Messages so far, by this process; see `Drained`.
        trouble: Why the worker could not look for messages the last time; "" if it could.
    """

    working: bool
    topics: tuple[str, ...]
    sent: int
    failed: int
    dead: int
    trouble: str


class Outbox:
    """Handlers by topic, and the worker that calls them.

    Args:
        store: Where messages are.
        poll_s: How often the worker looks for messages of other processes.
        lease_s: How long a handler may take.
        attempts_most: How often a message is tried.
    """

    def __init__(
        self, store: PrimaryStore, *, poll_s: float, lease_s: float, attempts_most: int
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._attempts_most = attempts_most
        self._handlers: dict[str, Handler] = {}
        self._counts = Drained()
        self._trouble = ""
        self._wanted = False
        self._begin()
        renew_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def after_fork(self) -> None:
        """Begin anew: the worker is the parent's. The first commit here starts another."""
        self._begin()

    # --- handlers --------------------------------------------------------------------

    def handle(self, topic: str, handler: Handler) -> None:
        """Have the messages of a topic sent by this.

        Args:
            topic: The topic, as given with `Outgoing`.
            handler: Called with each `Message`, maybe more than once, and by several
                processes side by side. It raises if it could not send it.

        Raises:
            ValueError: The topic has a handler.
        """
        if topic in self._handlers:
            raise ValueError(f"topic {topic!r} has a handler already")
        self._handlers = {**self._handlers, topic: handler}
        self.wake()

    def on(self, topic: str) -> Callable[[HandlerT], HandlerT]:
        """The same, as a decorator."""

        def decorate(handler: HandlerT) -> HandlerT:
            self.handle(topic, handler)
            return handler

        return decorate

    # --- sending ---------------------------------------------------------------------

    def drain(self) -> Drained:
        """Send what is due now.

        Async handlers are run to their end, each in an event loop of its own.

        Raises:
            RuntimeError: There are such, and this is called where an event loop runs.
            Unreachable, OutcomeUnknown: The primary store did not answer; nothing is lost.
        """
        if loop_runs() and any(map(is_async, self._handlers.values())):
            raise LoopRuns
        return finish(self._drain(self._store.blocking, call_blocking, lambda: False))

    async def adrain(self) -> Drained:
        """See `drain`. Handlers that are not async run in worker threads."""
        return await self._drain(self._store.loops, call_async, lambda: False)

    async def _drain(
        self,
        primary: Primary,
        call: Callable[[Handler, Message], Awaitable[None]],
        is_stopped: Callable[[], bool],
    ) -> Drained:
        found = Drained()
        for _ in range(DRAIN_MOST):
            topics = list(self._handlers)
            if not topics or is_stopped():
                break
            taken_s = time.monotonic()
            messages = await primary.take_messages(topics, limit=1, for_s=self._lease_s)
            if not messages:
                break
            for message in messages:
                found += await self._send(primary, call, message, taken_s)
        with self._lock:
            self._counts += found
        return found

    async def _send(
        self,
        primary: Primary,
        call: Callable[[Handler, Message], Awaitable[None]],
        message: Message,
        taken_s: float,
    ) -> Drained:
        """Send one message, and note what came of it."""
        if message.attempts > self._attempts_most:
            return await self._failed(primary, message, "its handler never came to an end")
        try:
            await call(self._handlers[message.topic], message)
        except LoopRuns as error:
            await primary.failed_message(message.id, str(error), 0.0)  # It may be sent at once.
            raise
        except BaseException as error:  # Whatever a handler raises, others go on.
            if not is_failure(error):
                raise
            why = " ".join(f"{type(error).__name__}: {error}".split())
            return await self._failed(primary, message, why[:ERROR_LENGTH_MOST])
        took_s = time.monotonic() - taken_s
        if took_s > self._lease_s:
            _log.warning(
                "the handler of topic %r took %.1f s for message %s, longer than its lease of "
                "%g s, so the message may have been sent twice: raise outbox_lease_s",
                *(message.topic, took_s, message.id, self._lease_s),
            )
        await primary.sent_messages([message.id])
        return Drained(sent=1)

    async def _failed(self, primary: Primary, message: Message, why: str) -> Drained:
        again_in_s = self._again_in_s(message.attempts)
        await primary.failed_message(message.id, why, again_in_s)
        if again_in_s is not None:
            return Drained(failed=1)
        _log.error(
            "message %s of commit %r (topic %r) was given up after %d attempts (%s): look at the "
            "dead letters, and revive it once what it failed by is mended",
            *(message.id, message.op, message.topic, message.attempts, why.partition(":")[0]),
        )
        return Drained(dead=1)

    def _again_in_s(self, attempts: int) -> float | None:
        """Pause after so many attempts; None if there is none left."""
        if attempts >= self._attempts_most:
            return None
        bound_s = min(AGAIN_FIRST_S * 2.0 ** (attempts - 1), AGAIN_MOST_S)
        return random.uniform(bound_s / 2, bound_s)  # noqa: S311

    # --- dead letters ----------------------------------------------------------------

    def dead_letters(self, limit: int = 100) -> list[Message]:
        """Messages that were given up, the oldest first."""
        return finish(self._store.blocking.dead_letters(limit=limit))

    async def adead_letters(self, limit: int = 100) -> list[Message]:
        """See `dead_letters`."""
        return await self._store.loops.dead_letters(limit=limit)

    def revive(self, ids: Sequence[str]) -> int:
        """Send dead letters again, from the first attempt on; how many there were."""
        revived = finish(self._store.blocking.revive_messages(ids))
        self.wake()
        return revived

    async def arevive(self, ids: Sequence[str]) -> int:
        """See `revive`."""
        revived = await self._store.loops.revive_messages(ids)
        self.wake()
        return revived

    # --- the worker ------------------------------------------------------------------

    def start(self) -> None:
        """Have a daemon thread send messages, until `stop`, or until this is collected.

        In a forked child it is started by the first commit there that has messages.
        """
        self._wanted = True
        self.wake()

    def wake(self) -> None:
        """Look for messages now, if the worker is wanted."""
        if not self._wanted:
            return
        with self._lock:
            if self._worker is None or not self._worker.is_alive:
                self._worker = _Worker(self)
            self._worker.wake()

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Stop the worker. May be called again.

        Args:
            timeout_s: How long to wait for the handler under way.

        Returns:
            Whether it has ended.
        """
        self._wanted = False
        with self._lock:
            worker, self._worker = self._worker, None
        return worker is None or worker.stop(timeout_s)

    def health(self) -> OutboxHealth:
        """What it did so far."""
        with self._lock:
            working = self._worker is not None and self._worker.is_alive
            counts = self._counts
        topics = tuple(sorted(self._handlers))
        return OutboxHealth(working, topics, counts.sent, counts.failed, counts.dead, self._trouble)

    def _round(self, is_stopped: Callable[[], bool], quiet_s: float) -> float:
        """One pass of the worker; in how many seconds the next one is due.

        Args:
            is_stopped: Whether to leave off after the message under way.
            quiet_s: What the last pass returned.
        """
        try:
            finish(self._drain(self._store.blocking, call_blocking, is_stopped))
        except Exception as error:  # noqa: BLE001 - the worker outlives the store's outages
            why = type(error).__name__
            if why != self._trouble:
                expected = isinstance(error, LanggraphValkeyError)
                _log.warning(
                    "the outbox could not be looked at (%s); it is tried again", why,
                    exc_info=None if expected else error,
                )  # fmt: skip
            self._trouble = why
            return random.uniform(0.5, 1) * min(2 * max(quiet_s, self._poll_s), TROUBLE_MOST_S)  # noqa: S311
        self._trouble = ""
        return random.uniform(0.5, 1) * self._poll_s  # noqa: S311


class _Worker:
    """The thread, which does not keep its outbox alive."""

    def __init__(self, outbox: Outbox) -> None:
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._of = weakref.ref(outbox, lambda _: self.wake())
        self._thread = threading.Thread(
            target=self._run, name="langgraph-valkey-outbox", daemon=True
        )
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        self._wanted.set()

    def stop(self, timeout_s: float) -> bool:
        self._stopped.set()
        self._wanted.set()
        if self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopped.is_set():
            self._wanted.clear()
            outbox = self._of()
            if outbox is None:
                return
            pause_s = outbox._round(self._stopped.is_set, pause_s)  # noqa: SLF001
            del outbox  # It may be collected while there is nothing to do.
            self._wanted.wait(pause_s)
