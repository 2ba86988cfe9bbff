"""Commits as `StateTiers` offers them: with what follows from them for the other places.

Once something was committed in a thread, the thread's next checkpoint goes to the tier,
within the step that made the commit (see `boundary`). That holds under
``durability="sync"``, which `StateTiers.run` sets. Under any other a step's checkpoint
may be stored long after it: so the present one is brought there by the commit itself,
as far as it is stored, and the one after the commit when it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig

from langgraph_valkey import limits
from langgraph_valkey.boundary.tiered_saver import TieredSaver
from langgraph_valkey.commits import commit as commits
from langgraph_valkey.commits.commit import OnMismatch
from langgraph_valkey.commits.committed import Committed, Key, Payload
from langgraph_valkey.commits.committed import Outbox as OutboxOf
from langgraph_valkey.commits.outbox import Outbox
from langgraph_valkey.commits.turns import Turn, turn_of
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.primary.records import Outgoing, Purged, Receipt, Scope

_log = logging.getLogger("langgraph_valkey")


class TierCommits:
    """The commits of `StateTiers`.

    Attributes:
        saver: The checkpointer: compile graphs with it.
        primary: The primary store.
        outbox: Handlers for messages, and the worker that calls them.
    """

    saver: TieredSaver
    primary: PrimaryStore
    outbox: Outbox
    _warned = False

    def commit(
        self,
        op: str,
        *,
        key: str,
        payload: Any = None,
        fn: Callable[..., Any],
        scope: Scope = "turn",
        on_mismatch: OnMismatch = "raise",
        outbox: Sequence[Outgoing] = (),
        config: RunnableConfig | None = None,
    ) -> Receipt:
        """Do something exactly once, although the step that does it may run again.

        Args:
            op: What is done: "charge", say.
            key: To what: an order's number, say; the same when the step runs again.
            payload: What it is about; anything that JSON can hold.
            fn: Does it, given the open transaction (a SQLAlchemy `Connection`), and
                returns what JSON can hold; for DynamoDB see `Primary.commit`.
            scope: Within what the two are unique: the turn, the thread, or everything.
            on_mismatch: What to do if it was committed with another payload.
            outbox: What is to be sent once it is committed.
            config: The config of the graph's run; within a node or tool it is known.

        Returns:
            The receipt, with the result of the first time.

        Raises:
            ValueError, TypeError: An argument can't be used; nothing was done.
            CommitConflict: It was committed with another payload.
            RunTakenOver: Another process has taken the run over; nothing was done.
            Unreachable: The primary store can't be reached; nothing was done.
            OutcomeUnknown: It may have been done: call again with the same key.
            Exception: Whatever `fn` raised; nothing was done.
        """
        turn = turn_of(config)
        asked = turn, op, key, payload, fn, scope, on_mismatch, outbox
        receipt = finish(commits.commit(self.primary.blocking, *asked))
        if self._committed(turn, receipt, outbox):
            with _told():
                self.saver.carry(turn.thread_id, turn.namespace)
        return receipt

    async def acommit(
        self,
        op: str,
        *,
        key: str,
        payload: Any = None,
        fn: Callable[..., Any],
        scope: Scope = "turn",
        on_mismatch: OnMismatch = "raise",
        outbox: Sequence[Outgoing] = (),
        config: RunnableConfig | None = None,
    ) -> Receipt:
        """See `commit`; `fn` may be a coroutine function, and gets an `AsyncConnection` then."""
        turn = turn_of(config)
        asked = turn, op, key, payload, fn, scope, on_mismatch, outbox
        receipt = await commits.commit(self.primary.loops, *asked)
        if self._committed(turn, receipt, outbox):
            with _told():
                await self.saver.acarry(turn.thread_id, turn.namespace)
        return receipt

    def _committed(self, turn: Turn, receipt: Receipt, outbox: Sequence[Outgoing]) -> bool:
        """Note a commit; whether the thread's checkpoint must be carried to the tier now."""
        if outbox and not receipt.replayed:
            self.outbox.wake()
        if not turn.thread_id:
            return False
        self.saver.crossed(turn.thread_id, turn.made_on)
        if turn.durability not in ("async", "exit"):
            return False
        if not self._warned:
            self._warned = True
            _log.warning(
                "a commit was made under durability=%r, where steps go on before their checkpoint "
                "is stored: start graphs that commit by run(), or with durability='sync'",
                turn.durability,
            )
        return True

    def committed(
        self,
        *,
        op: str,
        key: Key,
        scope: Scope = "turn",
        on_mismatch: OnMismatch = "raise",
        payload: Payload | None = None,
        outbox: OutboxOf = (),
    ) -> Committed:
        """Make a tool, or a node, one commit; see `committed`.

        Args:
            op: What is done.
            key: Name of the parameter that says to what, or a function of the arguments.
            scope: Within what the two are unique.
            on_mismatch: What to do if it was committed with another payload.
            payload: A function of the arguments, instead of all of them that are data.
            outbox: What is to be sent, or a function of the arguments that says so.
        """
        return Committed(
            self.commit,
            self.acommit,
            op=op,
            key=key,
            scope=scope,
            on_mismatch=on_mismatch,
            payload=payload,
            outbox=outbox,
        )

    def receipts(self, config: RunnableConfig | None = None) -> list[Receipt]:
        """What was committed in a turn so far, in the order in which it was.

        Args:
            config: Names thread and turn; within a node or tool they are known.

        Raises:
            ValueError: Nothing names them.
        """
        return finish(self.primary.blocking.receipts(*_turn_named(config)))

    async def areceipts(self, config: RunnableConfig | None = None) -> list[Receipt]:
        """See `receipts`."""
        return await self.primary.loops.receipts(*_turn_named(config))

    def purge(self, older_than_s: float) -> Purged:
        """Drop commits, settled runs and tombstones of an age from the primary store.

        What an unsettled run has committed stays, and so does what is to be sent. The
        same key would be applied again after this: let them grow older than any turn
        may wait to be resumed, or a client may ask again. Tombstones are also what is
        left of a store's durable memories that were deleted or have expired.

        Args:
            older_than_s: The age, in seconds: months rather than days. Tombstones are
                kept for a day at least: so long a server may have lost a deletion.

        Raises:
            ValueError, TypeError: It is no age; nothing was dropped.
        """
        return finish(self.primary.blocking.purge(*_ages(older_than_s)))

    async def apurge(self, older_than_s: float) -> Purged:
        """See `purge`."""
        return await self.primary.loops.purge(*_ages(older_than_s))


@contextmanager
def _told() -> Iterator[None]:
    """Log why a checkpoint could not be carried: the commit was made, and must say so.

    The thread's next checkpoint is due in the tier all the same.
    """
    try:
        yield
    except LanggraphValkeyError as error:
        _log.warning(
            "a commit was made, but its thread's checkpoint could not be brought to the tier (%s): "
            "the next one will be", type(error).__name__
        )  # fmt: skip


def _ages(older_than_s: float) -> tuple[float, float]:
    """The age of what is dropped, and that of tombstones."""
    if isinstance(older_than_s, bool) or not isinstance(older_than_s, int | float):
        raise TypeError(f"older_than_s must be a number of seconds, not {older_than_s!r}")
    if not (math.isfinite(older_than_s) and older_than_s >= 0):
        raise ValueError(f"older_than_s must be finite, and 0 or more, not {older_than_s!r}")
    return older_than_s, max(older_than_s, limits.TOMBSTONE_TTL_MS / 1000)


def _turn_named(config: RunnableConfig | None) -> tuple[str, str]:
    turn = turn_of(config)
    if not turn.thread_id or not turn.turn_id:
        raise ValueError(
            "receipts are those of a turn, and no turn is named: call it within a node or tool of "
            "a graph that was started by run(), or pass a config with thread_id and turn_id"
        )
    return turn.thread_id, turn.turn_id
