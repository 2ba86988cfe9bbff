"""What a primary store is: one protocol, kept by every adapter on both faces.

A `Primary` is one face of a store. All its methods are coroutines; those of the
blocking face never suspend, so `link.finish` runs them with no event loop. What
uses a primary is thereby written once, as all of this package.

Every method is one transaction of the store, or one request. All but `commit` (for
the caller's function) may be called again after an error without further thought.

Errors are those of the package: `Unreachable` (nothing was done), `OutcomeUnknown`
(call again), `ConfigurationError` (fix the set-up); the driver's own is the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from langgraph_valkey.primary.memories import Memories
from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
    Fence,
    Lease,
    Message,
    NewRun,
    Purged,
    Receipt,
    Room,
    Run,
    RunEnd,
    Settling,
    Started,
    Tombstone,
)
from langgraph_valkey.primary.versions import Versions


class Primary(Versions, Memories, Protocol):
    """One face of a primary store."""

    @property
    def room(self) -> Room:
        """What the store takes at most."""
        ...

    async def setup(self) -> None:
        """Make what the store needs, or bring it to this version's form. Idempotent.

        Raises:
            ConfigurationError: It is of a newer version than this package knows.
        """
        ...

    # --- commits ---------------------------------------------------------------

    async def commit(self, request: CommitRequest, fn: Callable[..., Any]) -> Receipt:
        """Do something exactly once, by the key.

        In one transaction: the fence is checked, the key's row written, `fn` called,
        its result and the outbox written. If the key is there, or comes to be there
        while this waits, nothing is done and the first receipt is returned, whatever
        its payload was. A commit whose answer was lost is sent again, by this.

        Args:
            request: What is asked for.
            fn: Called with the open transaction: a SQLAlchemy `Connection`; on the
                async face an `AsyncConnection` if it is a coroutine function, else a
                `Connection` still. DynamoDB: called with the client, returns `Items`.
                It may be called again after a serialization failure that undid all.

        Returns:
            The receipt; `replayed` tells which.

        Raises:
            RunTakenOver: The fence does not hold: nothing was done.
            TypeError, ValueError: The result can't be JSON, or is too large: nothing was
                done.
            Exception: Whatever `fn` raised: nothing was done.
        """
        ...

    async def receipt(self, key: CommitKey) -> Receipt | None:
        """The receipt of a commit; None if there is none."""
        ...

    async def receipts(self, thread_id: str, turn_id: str) -> list[Receipt]:
        """What was committed in a turn, in the order in which it was."""
        ...

    # --- runs ------------------------------------------------------------------

    async def start_run(self, new: NewRun) -> Started:
        """Record a run before it starts; see `Started`. Concurrent ones of a thread queue."""
        ...

    async def end_run(self, fence: Fence, end: RunEnd) -> bool:
        """An attempt has ended; whether it still was the run's last one.

        An outcome of "failed" or "cancelled" settles the run: its caller was told.
        """
        ...

    async def settle_runs(self, fences: Settling) -> int:
        """Nobody will run these again; how many there were. Their inputs are dropped.

        Only ended runs are settled, and only by their last attempt.
        """
        ...

    async def release_run(self, fence: Fence) -> None:
        """The attempt was given up half-way; whoever recovers may run it again."""
        ...

    async def claim_run(self, fence: Fence, owner: str) -> Run | None:
        """Take a run over: the new attempt, or None if another got it or its owner lives.

        The owner itself may claim what it owns. Waits for a commit of the attempt before
        that is under way, so that its receipt is seen by the new one.
        """
        ...

    async def run(self, run_id: str) -> Run | None:
        """A run; None if there is none of this id."""
        ...

    async def unsettled_runs(
        self, *, thread_id: str | None = None, after: tuple[float, str] | None = None, limit: int
    ) -> list[Run]:
        """Runs that are not settled, the oldest first; of one thread, by their numbers.

        Args:
            thread_id: Only those of this thread.
            after: `started_s` and `run_id` of the last one of the page before.
            limit: Size of a page.
        """
        ...

    async def alive(self, owner: str, for_s: float) -> None:
        """A process says that it lives; believed for so long. 0 says that it leaves."""
        ...

    # --- leases ----------------------------------------------------------------

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Get a lease, if nobody holds it; its token is higher than all before."""
        ...

    async def renew(self, lease: Lease, holder: str) -> bool:
        """Hold it on for its time; False if it was lost."""
        ...

    async def release(self, lease: Lease, holder: str) -> None:
        """Give it back. The token stays used."""
        ...

    # --- tombstones ------------------------------------------------------------

    async def bury(self, thread_id: str) -> Tombstone:
        """Delete a thread for good: recorded before anything else is done about it."""
        ...

    async def buried(self, tomb: Tombstone, stamp: str) -> None:
        """The Valkey server has deleted it, under this stamp; a tombstone's stamp only grows.

        Of a deletion that was asked for after `tomb` was read this says nothing: one that
        has no stamp yet gets none by it.
        """
        ...

    async def tombstone(self, thread_id: str) -> Tombstone | None:
        """A thread's newest tombstone; None if it has none."""
        ...

    async def tombstones(
        self, *, since_s: float, after: tuple[float, str] | None = None, limit: int
    ) -> list[Tombstone]:
        """Those of the last `since_s` seconds, the oldest first.

        Args:
            since_s: How far to look back.
            after: `buried_s` and `thread_id` of the last one of the page before.
            limit: Size of a page.
        """
        ...

    # --- the outbox ------------------------------------------------------------

    async def take_messages(
        self, topics: Sequence[str], *, limit: int, for_s: float
    ) -> list[Message]:
        """Take messages that are due, the oldest first; nobody else gets them for `for_s`."""
        ...

    async def sent_messages(self, ids: Sequence[str]) -> None:
        """These were sent."""
        ...

    async def failed_message(self, message_id: str, error: str, again_in_s: float | None) -> None:
        """It could not be sent: to be tried again then, or a dead letter (None)."""
        ...

    async def dead_letters(self, *, limit: int) -> list[Message]:
        """Messages that were given up, the oldest first."""
        ...

    async def revive_messages(self, ids: Sequence[str]) -> int:
        """Send dead letters again, from the first attempt on; how many there were."""
        ...

    # --- upkeep ----------------------------------------------------------------

    async def purge(self, older_than_s: float, tombstones_s: float | None = None) -> Purged:
        """Drop commits, settled runs, tombstones and memories that are gone, of an age.

        A commit is kept while one of its messages was not sent, and while its turn has a
        run that is not settled: whoever runs that again must find it. A tombstone is kept
        until the Valkey server has confirmed it. After this the same key would be applied
        again, so the age must be more than a turn may stay interrupted for.

        Args:
            older_than_s: The age: what has it is dropped, too.
            tombstones_s: That of tombstones, and of memories since they were deleted or
                have expired: no server must still have an older record of the item that
                was not told. None for the same.
        """
        ...

    async def close(self) -> None:
        """Close the connections of this face."""
        ...


class PrimaryStore(Protocol):
    """A store of record, on both faces.

    Attributes:
        blocking: The blocking face: its coroutines never suspend.
        loops: The async face, for any number of event loops.
    """

    @property
    def blocking(self) -> Primary:
        """The blocking face."""
        ...

    @property
    def loops(self) -> Primary:
        """The async face."""
        ...

    def close(self) -> None:
        """Close both faces. The async face's connections of other loops are dropped."""
        ...

    async def aclose(self) -> None:
        """Close both faces, those of the running loop in order."""
        ...
