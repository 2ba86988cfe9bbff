"""`Runs`: turns that are brought to their end, whatever dies on the way.

A graph's checkpoints bring it back to where it was; they don't make anybody go on. And
where the process dies together with the primary node, the last of them are gone, too:
then the user's turn is silently lost. So a run is recorded in the primary store, with
its input, before its first step. It counts as unsettled until its last checkpoint is
there and can't be lost any more. `recover` finds those that nobody works on, and
executes them again under the same id: from the checkpoint that is left, or from their
input. What they have committed is not done twice (see `commits`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import anyio.to_thread
from langchain_core.runnables import RunnableConfig

from langgraph_valkey import limits
from langgraph_valkey.keeper import Keeper
from langgraph_valkey.keys import thread_name
from langgraph_valkey.link import finish, finish_each
from langgraph_valkey.loss_window.report import RecoveryReport
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.runs.admitting import Over, admit
from langgraph_valkey.runs.attempts import Parts, execute, stream
from langgraph_valkey.runs.cancelling import cancel, forget_thread
from langgraph_valkey.runs.faces import BlockingFace, Face, LoopFace
from langgraph_valkey.runs.graphs import Graphs, Known
from langgraph_valkey.runs.home_loop import HomeLoop
from langgraph_valkey.runs.leaving import leave
from langgraph_valkey.runs.orders import Order, order_of
from langgraph_valkey.runs.outcomes import chunks_of, values_of
from langgraph_valkey.runs.owner import BEATS, Owner
from langgraph_valkey.runs.receipts_note import WithReceipts
from langgraph_valkey.runs.recovering import recover_runs
from langgraph_valkey.runs.report import RunsHealth, RunsReport
from langgraph_valkey.runs.rewinds import Rewinds
from langgraph_valkey.runs.settling import Settling
from langgraph_valkey.saver import ValkeySaver

OWNER_ALIVE_S = 15.0
"""For how long a process is believed to live after it said so: it may be slow, or the
database away for a moment, and its runs are executed again only after that."""

DRAIN_SLACK_S = 1.0
"""How much longer than the saver this waits: it looks at what the saver knows, and then
tells the registry."""


class Runs:
    """Executes graphs so that each turn is brought to its end.

    One object serves blocking and async callers, any number of threads and event
    loops, and forked children. Its graphs have to be compiled with its saver.

    Example:
        ```python
        runs = Runs(saver, SqlStore("sqlite:///agent.db"))
        agent = builder.compile(checkpointer=saver, name="agent")
        runs.recover(agent)  # at the start: what the last process left undone
        runs.run(agent, {"messages": [...]}, thread_id="42")
        ```
    """

    def __init__(
        self,
        saver: ValkeySaver,
        store: PrimaryStore,
        *,
        owner_alive_s: float = OWNER_ALIVE_S,
        recover_on_rewind: bool = True,
    ) -> None:
        """Nothing is asked or opened yet.

        Args:
            saver: The checkpointer of the graphs. Threads that a plain `ValkeySaver`
                deletes need `forget_thread` as well, or they are taken for lost; a
                `TieredSaver` with this store leaves a tombstone, which is seen here.
            store: Where runs are recorded. It is closed by whoever made it.
            owner_alive_s: After how many seconds of silence a process counts as dead.
            recover_on_rewind: Whether recoveries begin by themselves: after `rewound`,
                and again after one that had to leave something.
        """
        self._saver = saver
        self._store = store
        self._recover_on_rewind = recover_on_rewind
        settings = saver.settings
        settling = Settling(
            saver._window,  # noqa: SLF001
            settings.key_prefix,
            is_watched=settings.replay,
        )
        self._rewinds = Rewinds(owner_alive_s)
        self._parts = Parts(Owner(owner_alive_s), Graphs(saver), settling, self._rewinds)
        self._given: dict[str, Known] = {}  # To `recover`.
        self._home = HomeLoop()
        self._blocking: Face = BlockingFace(saver, store, self._home)
        self._loops: Face = LoopFace(saver, store)
        beat_s = owner_alive_s / BEATS
        # Two, since looking at a shard that is being failed over takes seconds: meanwhile the
        # process must not pass for dead. Nor while it waits for its runs to end, so the
        # heart is stopped last.
        self._heart = Keeper(self, Runs.say_alive, beat_s, "runs")
        self._keeper = Keeper(self, Runs.tend, beat_s, "runs")

    def register(
        self,
        graph: Any,
        name: str | None = None,
        *,
        with_receipts: WithReceipts | None = None,
        config: RunnableConfig | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a graph known, so that its runs can be executed again here.

        Args:
            graph: A compiled graph with this saver.
            name: Under which its runs are recorded; its own name if not given.
            with_receipts: How a re-run is told what its turn has committed already. If
                not given, by a message, where the state has messages.
            config: What a re-run's config is to have beside what was recorded of it:
                callbacks, and whatever of ``configurable`` can't be serialized.
            options: What a re-run is to be given beside what was recorded of it: a
                ``context`` that can't be serialized.

        Raises:
            ConfigurationError: It is no compiled graph with this saver.
        """
        self._parts.graphs.add(
            graph, name, with_receipts=with_receipts, config=config, options=options
        )

    # --- the blocking face -----------------------------------------------------

    def run(
        self,
        graph: Any,
        input: Any,  # noqa: A002 - LangGraph's name for it
        *,
        thread_id: str,
        run_id: str | None = None,
        turn_id: str | None = None,
        config: RunnableConfig | None = None,
        wait_s: float = 0.0,
        **options: Any,
    ) -> Any:
        """Execute a turn; what ``graph.invoke`` returns.

        Its input is recorded first. If the thread has lost an older turn, that is
        executed again before. Called with the id of a run that has ended, it returns
        the thread's values as they were then, and executes nothing; of one whose
        process died, it brings that to its end.

        Args:
            graph: A compiled graph with this saver.
            input: Its input: a dict, a `Command`, or None to go on.
            thread_id: The thread.
            run_id: The run's id, the same for the same request; drawn if not given.
            turn_id: What makes its commits the same again. If not given it is the run's
                id; for an input that resumes, that of the turn which is resumed.
            config: Further config; no checkpoint of its own.
            wait_s: For how long to wait for a run of the thread that is under way.
            **options: Of ``graph.invoke``. The durability is "sync" always.

        Raises:
            RunInProgress: A run of the thread is under way. It says whether this one is
                recorded.
            RunTakenOver: This process was taken for dead; another one goes on.
            ReplayIncomplete: The thread had lost the turn that this one answers, or went on
                before this one could begin: what it answers is not asked any more.
            ConfigurationError: The graph can't be executed by this object, or that was
                closed: nothing is recorded.
            ValueError: An argument can't be used; the run's id was used before.
            Unreachable, WriteRejected, OutcomeUnknown, StoreFull: An outage; where a note
                says so, the run is recorded, and `recover` brings it to its end.
            Exception: Whatever the graph raised; the run has ended then.
        """
        order = self._order(graph, input, thread_id, run_id, turn_id, config, wait_s, options)
        return finish(self._run(self._blocking, order))

    def stream(
        self,
        graph: Any,
        input: Any,  # noqa: A002
        *,
        thread_id: str,
        run_id: str | None = None,
        turn_id: str | None = None,
        config: RunnableConfig | None = None,
        wait_s: float = 0.0,
        **options: Any,
    ) -> Generator[Any, None, None]:
        """Execute a turn, and yield what ``graph.stream`` yields; see `run`.

        One that is closed early is brought to its end by `recover`. Of a run that has
        ended only the values are yielded, if the stream mode is to yield those.
        """
        order = self._order(graph, input, thread_id, run_id, turn_id, config, wait_s, options)
        yield from finish_each(self._stream(self._blocking, order))

    def recover(self, graphs: Any = None) -> RunsReport:
        """Bring to their end the runs that nobody works on.

        Call it when a process starts. May run in any number of processes at once: each
        run is executed by one of them. What has to be left is tried again later, by
        itself, with the same graphs.

        Args:
            graphs: A graph, or graphs by their names, beside those that are registered.

        Returns:
            What was found and done.

        Raises:
            Unreachable, OutcomeUnknown: The primary store, or a shard, can't be asked.
            ConfigurationError: This was closed.
        """
        given = self._parts.graphs.given(graphs)
        return finish(self._recover(self._blocking, given))

    def cancel(self, run_id: str) -> bool:
        """End a run: nobody executes it again, and it can commit nothing more.

        Args:
            run_id: The run. If it is executed now, in this process, it goes on to its
                next commit, or its end, and raises `RunTakenOver` there.

        Returns:
            Whether there was such a run that was not settled.

        Raises:
            RunInProgress: Another process executes it.
        """
        return finish(cancel(self._parts, self._blocking, run_id))

    def forget_thread(self, thread_id: str) -> int:
        """Cancel all unsettled runs of a thread that is being deleted; how many there were.

        Otherwise `recover` would take the thread for lost, unless its deletion was durable
        (see `TieredSaver.delete_thread`).
        """
        return finish(forget_thread(self._parts, self._blocking, thread_name(thread_id)))

    # --- the async face --------------------------------------------------------

    async def arun(
        self,
        graph: Any,
        input: Any,  # noqa: A002
        *,
        thread_id: str,
        run_id: str | None = None,
        turn_id: str | None = None,
        config: RunnableConfig | None = None,
        wait_s: float = 0.0,
        **options: Any,
    ) -> Any:
        """See `run`."""
        order = self._order(graph, input, thread_id, run_id, turn_id, config, wait_s, options)
        return await self._run(self._loops, order)

    async def astream(
        self,
        graph: Any,
        input: Any,  # noqa: A002
        *,
        thread_id: str,
        run_id: str | None = None,
        turn_id: str | None = None,
        config: RunnableConfig | None = None,
        wait_s: float = 0.0,
        **options: Any,
    ) -> AsyncGenerator[Any, None]:
        """See `stream`."""
        order = self._order(graph, input, thread_id, run_id, turn_id, config, wait_s, options)
        async with aclosing(self._stream(self._loops, order)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def arecover(self, graphs: Any = None) -> RunsReport:
        """See `recover`."""
        given = self._parts.graphs.given(graphs)
        return await self._recover(self._loops, given)

    async def acancel(self, run_id: str) -> bool:
        """See `cancel`."""
        return await cancel(self._parts, self._loops, run_id)

    async def aforget_thread(self, thread_id: str) -> int:
        """See `forget_thread`."""
        return await forget_thread(self._parts, self._loops, thread_name(thread_id))

    # --- both ------------------------------------------------------------------

    def rewound(self, report: RecoveryReport) -> None:
        """To be told of a failover (`Hooks.on_rewind`): looks for runs that it cost.

        At once, and again when a process that died with the primary counts as dead.
        """
        del report
        self._rewinds.failed_over()
        self._keeper.wake()

    def health(self) -> RunsHealth:
        """The runs of this process."""
        owner = self._parts.owner
        return RunsHealth(owner.id, owner.active, len(self._parts.settling), owner.silent_s)

    def close(self, drain_s: float | None = None) -> None:
        """Leave, before the saver and the store are closed. May be called again.

        Nothing is begun any more, and a recovery that is under way ends. What is not settled
        by then is left to whoever recovers next; what is executed still may be taken over
        when this process counts as dead.

        Args:
            drain_s: How long to wait for runs to end, and to be settled; 2.4 lag bounds
                and a second if not given.
        """
        if drain_s is None:
            bound_s = self._saver.settings.lag_bound_s
            drain_s = limits.CLOSE_DRAIN_BOUNDS * bound_s + DRAIN_SLACK_S
        until_s = time.monotonic() + drain_s
        leave(self._parts, self._blocking, self._keeper, self._heart, until_s)

    async def aclose(self, drain_s: float | None = None) -> None:
        """See `close`. Other tasks run meanwhile."""
        await anyio.to_thread.run_sync(self.close, drain_s)

    def say_alive(self) -> None:
        """Say that this process lives, if that is due."""
        finish(self._parts.owner.live(self._blocking.primary))

    def tend(self) -> None:
        """Settle what can be, and look for what a failover cost, if one was noticed."""
        if finish(self._parts.owner.tell(self._blocking.primary)):
            self._rewinds.left()
        if finish(self._parts.settling.settle(self._blocking)):
            self._rewinds.lost()
        is_able = self._recover_on_rewind and (len(self._parts.graphs) or self._given)
        if is_able and self._rewinds.begin():
            self._rewinds.launch(self.recover)

    async def _live(self, face: Face) -> None:
        """Say that this process lives, and see to it that this goes on."""
        if face is self._loops:
            self._home.remember()
        await self._parts.owner.live(face.primary)
        self._heart.start()
        self._keeper.start()

    async def _recover(self, face: Face, given: Mapping[str, Known]) -> RunsReport:
        is_left = True
        try:
            with self._parts.owner.recovering():
                await self._live(face)
                find = self._parts.graphs.find
                before = {name: known for name, known in self._given.items() if not find(name, {})}
                self._given = {**before, **given}
                report = await recover_runs(self._parts, face, self._given)
            is_left = bool(report.busy or report.failed)
        finally:
            self._rewinds.looked(is_left=is_left)
        return report

    async def _run(self, face: Face, order: Order) -> Any:
        await self._live(face)
        came = await admit(self._parts, face, order)
        if isinstance(came, Over):
            return await values_of(face, order, came.run)
        return await execute(self._parts, face, came)

    async def _stream(self, face: Face, order: Order) -> AsyncGenerator[Any, None]:
        await self._live(face)
        came = await admit(self._parts, face, order)
        if isinstance(came, Over):
            for chunk in chunks_of(order, await values_of(face, order, came.run)):
                yield chunk
            return
        async with aclosing(stream(self._parts, face, came)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _order(self, graph: Any, *asked: Any) -> Order:
        return order_of(self._parts.graphs.of(graph), *asked)
