"""`StateTiers`: each kind of state in its place, behind one object.

=============  ========================================================================
what           goes to
=============  ========================================================================
checkpoints    the transient cluster, and the tier once something was committed
commits        the primary store, with the caller's own changes, in one transaction
runs           the primary store: what was lost is found, and run again
locks          the coordination cluster, else the primary store
messages       the primary store's outbox, and from there the world outside
=============  ========================================================================

::

    settings = TierSettings(transient="valkeys://...", primary="postgresql://...")
    with StateTiers(settings, tier=PostgresSaver(...)) as tiers:
        graph = builder.compile(checkpointer=tiers.saver)
        tiers.register(graph)
        tiers.recover()
        tiers.run(graph, inputs, thread_id="42", run_id=request_id)

Before the first use of the primary store its tables are made, and it is checked that
each cluster is as durable as what it holds needs (`roles`).
"""

from __future__ import annotations

import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from typing import Any

import anyio.to_thread
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_valkey import limits
from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.closing import Closing
from langgraph_valkey.commits.outbox import Outbox, OutboxHealth
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.link import Link, finish
from langgraph_valkey.loss_window.report import Health, Hooks, RecoveryReport
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.runs.registry import Runs
from langgraph_valkey.runs.report import RunsHealth, RunsReport
from langgraph_valkey.tiers import roles
from langgraph_valkey.tiers.commits import TierCommits
from langgraph_valkey.tiers.lock_places import LockPlace
from langgraph_valkey.tiers.locks import Lock
from langgraph_valkey.tiers.prepared import Preparation, PreparedStore
from langgraph_valkey.tiers.settings import TierSettings

REBURY_S = limits.TOMBSTONE_TTL_MS / 1000
"""How far `recover` looks back for durable deletes that a server may have lost: as long as
servers remember them, since no older write is replayed."""


@dataclass(frozen=True, slots=True)
class TiersHealth:
    """How all places are, as this process sees it.

    Attributes:
        saver: The loss window of the transient cluster.
        runs: The runs of this process.
        outbox: What was sent from here.
        primary_trouble: Why the primary store can't be used; "" if it can. Tables that are
            not there yet are told of, too: `setup` makes them, and so does the first use.
    """

    saver: Health
    runs: RunsHealth
    outbox: OutboxHealth
    primary_trouble: str


class StateTiers(TierCommits, Closing):
    """Checkpoints, commits, runs, locks and messages, each where it belongs.

    One object serves blocking and async callers, any number of threads and event loops,
    and forked children.

    Attributes:
        settings: Where everything is.
        saver: The checkpointer: compile graphs with it.
        primary: The primary store.
        runs: The registry of runs, and what executes them.
        outbox: Handlers for messages, and the worker that calls them.
    """

    def __init__(
        self,
        settings: TierSettings | None = None,
        *,
        tier: BaseCheckpointSaver[Any] | None = None,
        store: PrimaryStore | None = None,
        serde: SerializerProtocol | None = None,
        hooks: Hooks | None = None,
        link: Link | None = None,
    ) -> None:
        """Make the object; nothing is connected to yet.

        Args:
            settings: Where everything is; from the environment if not given.
            tier: Any checkpointer that loses nothing: a thread's checkpoint after a
                commit goes there as well. It stays its owner's to set up and to close.
            store: A primary store instead of the one that the settings name; it stays
                its owner's to close.
            serde: The serializer; LangGraph's own if not given.
            hooks: Functions that are told of failovers, forks and a full journal.
            link: A link of your own to the transient cluster, for tests.

        Raises:
            ConfigurationError: The settings, or the serializer, can't be used.
        """
        self.settings = settings = settings or TierSettings.from_env()
        self._opened = None if store is not None else _open(settings)
        self._raw: PrimaryStore = store or self._opened  # type: ignore[assignment]
        self._preparation = Preparation(self._prepare, self._aprepare)
        self.primary: PrimaryStore = PreparedStore(self._raw, self._preparation)
        hooks = hooks or Hooks()
        self._on_rewind = hooks.on_rewind
        told = replace(hooks, on_rewind=_weakly(self))
        self._tier = tier
        self._is_emulated = link is not None
        self.saver = TieredSaver(
            settings.transient, tier=tier, store=self.primary, serde=serde, hooks=told, link=link
        )
        self.outbox = Outbox(
            self.primary,
            poll_s=settings.outbox_poll_s,
            lease_s=settings.outbox_lease_s,
            attempts_most=settings.outbox_attempts_most,
        )
        self.runs = Runs(
            self.saver,
            self.primary,
            owner_alive_s=settings.owner_alive_s,
            recover_on_rewind=settings.recover_on_rewind,
        )
        self._locks = LockPlace(settings.coordination, self.primary, self._preparation)

    # --- set-up ----------------------------------------------------------------------

    def setup(self) -> None:
        """Make the primary store's tables, and look at all clusters. May be called again.

        Raises:
            ConfigurationError: A cluster is not fit for what it holds, or the tier can't
                be used on this face.
            Unreachable: A cluster, or the primary store, does not answer.
        """
        self.saver.check_face("sync")
        self._check(must_answer=True)
        finish(self._raw.blocking.setup())
        self._preparation.is_done = True

    async def asetup(self) -> None:
        """See `setup`."""
        self.saver.check_face("async")
        await anyio.to_thread.run_sync(lambda: self._check(must_answer=True))
        await self._raw.loops.setup()
        self._preparation.is_done = True

    async def _prepare(self) -> None:
        self._check(must_answer=False)
        await self._raw.blocking.setup()

    async def _aprepare(self) -> None:
        await anyio.to_thread.run_sync(lambda: self._check(must_answer=False))
        await self._raw.loops.setup()

    def _check(self, *, must_answer: bool) -> None:
        transient: Link = self.saver._blocking  # noqa: SLF001
        roles.check(
            self.settings,
            self._tier,
            transient,
            self._locks.blocking,
            must_answer=must_answer,
        )

    # --- locks -----------------------------------------------------------------------

    def lock(self, name: str, ttl_s: float, wait_s: float = 0.0) -> Lock:
        """A lock, for ``with`` or ``async with``; see `Lock`.

        Args:
            name: Of what; any characters.
            ttl_s: After how long it ends by itself, unless it is renewed.
            wait_s: How long to wait for it while another one holds it.

        Raises:
            ValueError: An argument can't be used.
        """
        return Lock(self._locks.faces, name, ttl_s, wait_s)

    # --- runs ------------------------------------------------------------------------

    def register(self, graph: Any, name: str | None = None, **options: Any) -> None:
        """Make a graph known, so that its runs can be executed again here.

        Args:
            graph: A compiled graph with `saver`.
            name: Under which its runs are recorded; its own name if not given.
            **options: As of `Runs.register`.

        Raises:
            ConfigurationError: It is no compiled graph with this saver.
        """
        self.runs.register(graph, name, **options)

    def run(self, graph: Any, input: Any, *, thread_id: str, **options: Any) -> Any:  # noqa: A002
        """Execute a turn, and see to it that it comes to its end; see `Runs.run`.

        Args:
            graph: A compiled graph with `saver`.
            input: Its input.
            thread_id: The thread.
            **options: ``run_id``, ``turn_id``, ``config``, ``wait_s`` and those of
                ``graph.invoke``.

        Returns:
            What ``graph.invoke`` returns.

        Raises:
            RunInProgress, RunTakenOver, ReplayIncomplete: See `Runs.run`.
        """
        return self.runs.run(graph, input, thread_id=thread_id, **options)

    async def arun(self, graph: Any, input: Any, *, thread_id: str, **options: Any) -> Any:  # noqa: A002
        """See `run`."""
        return await self.runs.arun(graph, input, thread_id=thread_id, **options)

    def stream(self, graph: Any, input: Any, *, thread_id: str, **options: Any) -> Iterator[Any]:  # noqa: A002
        """Execute a turn, and yield what ``graph.stream`` yields; see `run`."""
        return self.runs.stream(graph, input, thread_id=thread_id, **options)

    def astream(
        self,
        graph: Any,
        input: Any,  # noqa: A002
        *,
        thread_id: str,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """See `stream`."""
        return self.runs.astream(graph, input, thread_id=thread_id, **options)

    def recover(self, graphs: Any = None) -> RunsReport:
        """Bring back what was lost: durable deletes, then runs that nobody works on.

        Call it when a process starts. Any number of processes may.

        Args:
            graphs: A graph, or graphs by their names, beside those that are registered.

        Returns:
            What became of the runs.

        Raises:
            Unreachable, OutcomeUnknown: The primary store, or a shard, can't be asked.
        """
        self.saver.rebury(REBURY_S)
        return self.runs.recover(graphs)

    async def arecover(self, graphs: Any = None) -> RunsReport:
        """See `recover`."""
        await self.saver.arebury(REBURY_S)
        return await self.runs.arecover(graphs)

    def cancel(self, run_id: str) -> bool:
        """End a run: nobody executes it again, and it can commit nothing more.

        Returns:
            Whether there was such a run that was not settled.

        Raises:
            RunInProgress: Another process executes it.
        """
        return self.runs.cancel(run_id)

    async def acancel(self, run_id: str) -> bool:
        """See `cancel`."""
        return await self.runs.acancel(run_id)

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread everywhere, and for good: no failover brings it back.

        Its commits stay, with their receipts. If this raises, call it again.
        """
        self.saver.delete_thread(thread_id, durable=True)
        self.runs.forget_thread(thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """See `delete_thread`."""
        await self.saver.adelete_thread(thread_id, durable=True)
        await self.runs.aforget_thread(thread_id)

    def _rewound(self, report: RecoveryReport) -> None:
        self.runs.rewound(report)
        if self._on_rewind is not None:
            self._on_rewind(report)

    # --- the whole -------------------------------------------------------------------

    def health(self) -> TiersHealth:
        """How all places are; asks the primary store whether it answers, and makes nothing."""
        trouble = ""
        try:
            finish(self._raw.blocking.run(""))
        except LanggraphValkeyError as error:
            trouble = f"{type(error).__name__}: {error}"
        return self._health(trouble)

    async def ahealth(self) -> TiersHealth:
        """See `health`."""
        trouble = ""
        try:
            await self._raw.loops.run("")
        except LanggraphValkeyError as error:
            trouble = f"{type(error).__name__}: {error}"
        return self._health(trouble)

    def _health(self, trouble: str) -> TiersHealth:
        return TiersHealth(self.saver.health(), self.runs.health(), self.outbox.health(), trouble)

    def close(self, drain_s: float | None = None) -> None:
        """Leave in order. May be called again.

        Args:
            drain_s: How long to wait until nothing that was written here can be lost any
                more, and runs are settled by that; 2.4 lag bounds if not given. With 0
                what is not settled is left to whoever recovers next.
        """
        until_s = time.monotonic() + self._drain_s(drain_s)
        with ExitStack() as rest:
            if self._opened is not None:
                rest.callback(self._opened.close)
            rest.callback(self._locks.close)
            rest.callback(lambda: self.saver.close(max(0.0, until_s - time.monotonic())))
            rest.callback(lambda: self.runs.close(max(0.0, until_s - time.monotonic())))
            rest.callback(self.outbox.stop)

    async def aclose(self, drain_s: float | None = None) -> None:
        """See `close`. Other tasks run meanwhile."""
        until_s = time.monotonic() + self._drain_s(drain_s)
        async with AsyncExitStack() as rest:
            if self._opened is not None:
                rest.push_async_callback(self._opened.aclose)
            rest.callback(self._locks.close)

            async def leave(close: Callable[[float], Awaitable[None]]) -> None:
                await close(max(0.0, until_s - time.monotonic()))

            rest.push_async_callback(leave, self.saver.aclose)
            rest.push_async_callback(leave, self.runs.aclose)
            rest.push_async_callback(lambda: anyio.to_thread.run_sync(self.outbox.stop))

    def _drain_s(self, drain_s: float | None) -> float:
        if drain_s is not None:
            return drain_s
        if self._is_emulated:
            return 0.0  # Nobody looks after its loss window.
        return limits.CLOSE_DRAIN_BOUNDS * self.settings.transient.lag_bound_s

    def __repr__(self) -> str:
        return f"StateTiers({self.saver!r})"


def _weakly(tiers: StateTiers) -> Callable[[RecoveryReport], None]:
    """Tell the tiers of a failover, without a cycle that would keep them alive."""
    itself = weakref.ref(tiers)

    def rewound(report: RecoveryReport) -> None:
        tiers = itself()
        if tiers is not None:
            tiers._rewound(report)  # noqa: SLF001

    return rewound


def _open(settings: TierSettings) -> PrimaryStore:
    options = {} if settings.primary_schema is None else {"schema": settings.primary_schema}
    return open_store(settings.primary.get_secret_value(), **options)
