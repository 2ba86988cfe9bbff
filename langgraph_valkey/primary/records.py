"""What is kept in the primary store, as plain data: commits, runs, leases, tombstones.

A *commit* is known by its `CommitKey`. That is all there is to exactly-once: the key's
row stands in the same transaction as what the caller's function wrote, so whoever
comes second finds it, or waits for it, and gets the first one's receipt.

A *run* is one execution of a graph on a thread. Its input is recorded before it
starts. It is *unsettled* until its last checkpoint can't be lost any more: only then
will nobody have to run it again. Runs of a thread are numbered.

An *owner* is a process that executes runs. It says that it is alive; once it has
fallen silent, its unsettled runs may be claimed by others. Each claim makes a new
*attempt*, whose number is the fencing token: a commit names the run and the attempt
in which it is made (`Fence`), and is refused once there is a newer one.

Times are seconds since 1970 by the store's clock (by this machine's, where the store
has none).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

Scope: TypeAlias = Literal["turn", "thread", "global"]
"""Within what a key names one commit."""

Outcome: TypeAlias = Literal["", "finished", "interrupted", "failed", "cancelled"]
"""How a run ended; "" while it has not."""


def digest_of(*parts: str) -> str:
    """A name of fixed length for texts of any length and any characters.

    Args:
        *parts: The texts; where one ends and the next begins counts.

    Returns:
        SHA-256 in 64 hex digits.
    """
    joined = json.dumps(parts, separators=(",", ":"))  # ASCII, whatever they hold.
    return hashlib.sha256(joined.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CommitKey:
    """What makes a commit the same commit again.

    Attributes:
        op: What is done: "charge", say.
        key: To what: an order's number, say. Any characters.
        scope: Within what the two are unique.
        thread_id: The thread; "" with scope "global".
        turn_id: The turn; "" unless the scope is "turn".
    """

    op: str
    key: str
    scope: Scope
    thread_id: str = ""
    turn_id: str = ""

    @property
    def id(self) -> str:
        """Its name in the store: 64 hex digits."""
        return digest_of(self.scope, self.thread_id, self.turn_id, self.op, self.key)


@dataclass(frozen=True, slots=True)
class Fence:
    """In which attempt of which run something is done."""

    run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to the world outside, sent after its commit, at least once.

    Attributes:
        topic: By which its handler is chosen.
        body: What it says; anything that JSON can hold.
    """

    topic: str
    body: Any


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """A commit, as a store is asked for it; checked before.

    Attributes:
        key: What makes it the same again.
        payload_sha256: Digest of what the caller says it is about.
        thread_id: In which thread it was asked for; "" if in none.
        turn_id: In which turn; "" if in none.
        fence: In which attempt of which run, if in one.
        outbox: Topic and body (JSON text) of each message to be sent.
    """

    key: CommitKey
    payload_sha256: str
    thread_id: str = ""
    turn_id: str = ""
    fence: Fence | None = None
    outbox: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """That something was committed.

    Attributes:
        op: What was done.
        key: To what.
        result: What the caller's function returned, the first time.
        replayed: Whether it had been committed before, so nothing was done now.
        committed_at: When, by the store's clock; with a time zone.
        payload_sha256: Digest of the payload, in hex digits.
    """

    op: str
    key: str
    result: Any
    replayed: bool
    committed_at: datetime
    payload_sha256: str


def moment(seconds: float) -> datetime:
    """A time of the store as a date, with a time zone."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is about to begin.

    Attributes:
        run_id: Its id; all executions of it share it.
        thread_id: The thread.
        turn_id: The turn: that of the run it resumes, or its own id.
        graph: Name of the graph.
        face: By which face it was started.
        input: The graph's input, serialized.
        context: JSON text: what else it takes to start it again.
        owner: The process that executes it.
    """

    run_id: str
    thread_id: str
    turn_id: str
    graph: str
    face: Literal["sync", "async"]
    input: bytes
    context: str
    owner: str

    @property
    def input_sha256(self) -> str:
        """Digest of the input, in hex digits."""
        return hashlib.sha256(self.input).hexdigest()


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the store knows it.

    Attributes:
        run_id, thread_id, turn_id, graph, face, input, context: As of `NewRun`.
        input_sha256: Digest of the input.
        number: Runs of a thread are numbered from 1.
        attempt: Number of its executions so far: the fencing token.
        owner: The process that executes it, or did last; "" if it was released.
        owner_alive: Whether that process has lately said that it lives.
        state: "running", "ended", or "settled": nobody will run it again. A settled run
            has no input any more.
        outcome: How it ended.
        head: Id of the thread's last checkpoint when it had ended.
        writes: How many pending writes stood on that checkpoint.
        started_s: When it was recorded.
        ended_s: When it had ended; None if it has not.
    """

    run_id: str
    thread_id: str
    turn_id: str
    graph: str
    face: Literal["sync", "async"]
    input: bytes = field(repr=False)
    input_sha256: str
    context: str = field(repr=False)
    number: int
    attempt: int
    owner: str
    owner_alive: bool
    state: Literal["running", "ended", "settled"]
    outcome: Outcome
    head: str
    writes: int
    started_s: float
    ended_s: float | None

    @property
    def fence(self) -> Fence:
        """By which commits of this attempt are told."""
        return Fence(self.run_id, self.attempt)


@dataclass(frozen=True, slots=True)
class Started:
    """What came of the wish to start a run.

    Attributes:
        run: The run; or one of this id that was recorded before.
        is_new: Whether it was recorded now. If not, nothing was changed.
        before: The thread's older runs that are not settled, oldest first. If one of
            them is running and its owner is alive, the new one was not recorded.
    """

    run: Run | None
    is_new: bool
    before: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How an attempt ended: `outcome`, `head` and `writes` as of `Run`."""

    outcome: Outcome
    head: str
    writes: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to something named, for a while.

    Attributes:
        name: Of what.
        token: Higher with each one who gets it: the fencing token. What is done under
            the lease carries it, and refuses a lower one than it has seen.
        ttl_s: For how long it was given.
    """

    name: str
    token: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Tombstone:
    """That a thread was deleted for good.

    Attributes:
        thread_id: The thread.
        buried_s: When it was asked for.
        stamp: Stamp of the deletion on the Valkey server, in 16 digits: of a thread that
            was begun before, nothing may come back. "" if that server has not
            confirmed it yet.
    """

    thread_id: str
    buried_s: float
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the outbox.

    Attributes:
        id: Its id: stable, unique.
        topic: By which its handler is chosen.
        body: What it says.
        op, key: Of its commit.
        idempotency_key: The same each time it is sent; another for each message.
        attempts: How often it was taken for sending, this time included.
        created_s: When it was committed.
        error: Why it could not be sent the last time, in one line.
    """

    id: str
    topic: str
    body: Any
    op: str
    key: str
    idempotency_key: str
    attempts: int
    created_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Purged:
    """How many records were dropped: they were old, and nothing will ask for them.

    Of memories, those count that were deleted or had expired.
    """

    commits: int
    runs: int
    tombstones: int
    memories: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """What a store takes, in bytes.

    Attributes:
        result_bytes_max: Of a result, as JSON.
        input_bytes_max: Of a run's input, serialized.
        outbox_most: Messages of one commit.
        message_bytes_max: Of a message's body, as JSON.
        memory_bytes_max: Of a memory, with its name.
        memories_bytes_max: Of all memories of one put.
    """

    result_bytes_max: int
    input_bytes_max: int
    outbox_most: int
    message_bytes_max: int
    memory_bytes_max: int
    memories_bytes_max: int


Settling: TypeAlias = Sequence[Fence]
"""Attempts whose last checkpoint can't be lost any more."""
