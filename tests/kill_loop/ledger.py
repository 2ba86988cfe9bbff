"""What was acknowledged, and whether it is there: Jepsen's `set-full`, for checkpoints.

Each *element* (a checkpoint, the value of one of its channels, a task's writes, a
deletion) is noted when its call returns, and looked for after every failover and at
the end. What a call that raised has done is not known, so nothing is asked of it.
Values are kept as checksums.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint, CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey.errors import OutcomeUnknown, Unreachable, WriteRejected

At = tuple[str, str]
"""A checkpoint of a thread: namespace and id."""


_SERIALIZER = JsonPlusSerializer()


def checksum(value: Any) -> int:
    """Of a value as it is stored, which makes lists of tuples."""
    return zlib.crc32(_SERIALIZER.dumps_typed(value)[1])


def checksums(values: Mapping[str, Any]) -> dict[str, int]:
    """Of a checkpoint's channels."""
    return {channel: checksum(value) for channel, value in values.items()}


@dataclass(slots=True)
class Told:
    """What has been acknowledged of one thread.

    Attributes:
        ttl_s: How long it lives after a write; None for ever.
        checkpoints: Checksums of their channels.
        writes: Of each checkpoint: by task and index, the channel and a checksum.
        gone: Checkpoints that were deleted.
        heads: In each namespace the highest id, and who stored it.
        life: Goes up by one when a deletion of the thread begins.
        under_way: Writes that have not returned.
        removing: Deletions that have not returned.
        is_unclear: A deletion raised, so it may have happened.
        has_forked: Two savers wrote to it without knowing of each other.
        deadline_s: Wall clock: it may expire from the first on, and must by the second.
        touched_s: When something was last acknowledged, on the monotonic clock.
    """

    ttl_s: float | None = None
    checkpoints: dict[At, dict[str, int]] = field(default_factory=dict)
    writes: dict[At, dict[tuple[str, int], tuple[str, int]]] = field(default_factory=dict)
    gone: set[At] = field(default_factory=set)
    heads: dict[str, tuple[str, object]] = field(default_factory=dict)
    life: int = 0
    under_way: int = 0
    removing: int = 0
    is_unclear: bool = False
    has_forked: bool = False
    deadline_s: tuple[float, float] = (0.0, 0.0)
    touched_s: float = 0.0

    def copy(self) -> Told:
        """As it is now, to compare with."""
        return Told(
            self.ttl_s,
            dict(self.checkpoints),
            {at: dict(writes) for at, writes in self.writes.items()},
            set(self.gone),
            dict(self.heads),
            self.life,
            self.under_way,
            self.removing,
            self.is_unclear,
            self.has_forked,
            self.deadline_s,
            self.touched_s,
        )

    @property
    def is_settled(self) -> bool:
        """Whether what must be there is known."""
        return not self.removing and not self.is_unclear

    def may_have_expired(self) -> bool:
        """Whether its time has come, or may have."""
        return self.ttl_s is not None and time.time() >= self.deadline_s[0]


def clock() -> str:
    """Time of day, to find what happened when in several processes."""
    now_s = time.time()
    return time.strftime("%H:%M:%S", time.localtime(now_s)) + f".{int(now_s * 1000) % 1000:03}"


class Ledger:
    """What one process's writers were told, by thread; safe to use from many threads.

    Attributes:
        acked: How many writes were acknowledged.
        moved_back: Heads that their own writer saw move back.
        stale_reads: Heads of other writers that were not the newest.
        unavailable: Calls that gave up because no server took them, which is honest.
        errors: All other failures of calls, and wrong results of graphs.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: dict[str, Told] = {}
        self.acked = 0
        self.moved_back: list[str] = []
        self.stale_reads = 0
        self.unavailable: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def of(self, thread: str) -> Told:
        """What is known of a thread; the caller holds the lock."""
        return self.threads.setdefault(thread, Told())

    # --- writes -----------------------------------------------------------------

    @contextmanager
    def putting(
        self, saver: object, ttl_s: float | None, config: RunnableConfig, checkpoint: Checkpoint
    ) -> Iterator[None]:
        """A checkpoint is being stored; noted when the block ends without an error."""
        where = config["configurable"]
        values = checksums(checkpoint["channel_values"])
        with self._writing(where["thread_id"], ttl_s) as told:
            yield
            with self.lock:
                namespace, checkpoint_id = where.get("checkpoint_ns", ""), checkpoint["id"]
                told.checkpoints[namespace, checkpoint_id] = values
                if checkpoint_id > told.heads.get(namespace, ("", None))[0]:
                    told.heads[namespace] = checkpoint_id, saver

    @contextmanager
    def writing(
        self, ttl_s: float | None, config: RunnableConfig, writes: Sequence[Any], task_id: str
    ) -> Iterator[None]:
        """A task's writes are being stored."""
        where = config["configurable"]
        noted = {
            (task_id, WRITES_IDX_MAP.get(channel, index)): (channel, checksum(value))
            for index, (channel, value) in enumerate(writes)
        }
        with self._writing(where["thread_id"], ttl_s) as told:
            yield
            with self.lock:
                at = where.get("checkpoint_ns", ""), where["checkpoint_id"]
                there = told.writes.setdefault(at, {})
                for (task, index), write in noted.items():
                    if index < 0:  # The newest of these counts, of the others the first.
                        there[task, index] = write
                    else:
                        there.setdefault((task, index), write)

    @contextmanager
    def _writing(self, thread: str, ttl_s: float | None) -> Iterator[Told]:
        with self.lock:
            told = self.of(thread)
            told.ttl_s = ttl_s
            told.under_way += 1
        sent_s = time.time()
        try:
            yield told
            with self.lock:
                self.acked += 1
                told.touched_s = time.monotonic()
                if ttl_s is not None:
                    first_s, last_s = told.deadline_s
                    now_s = time.time()
                    told.deadline_s = max(first_s, sent_s + ttl_s), max(last_s, now_s + ttl_s)
        finally:
            with self.lock:
                told.under_way -= 1

    @contextmanager
    def deleting(self, thread: str) -> Iterator[None]:
        """A thread is being deleted."""
        with self._removing(thread) as told:
            with self.lock:
                told.life += 1
            yield
            with self.lock:
                told.gone |= told.checkpoints.keys()
                told.checkpoints.clear()
                told.writes.clear()
                told.heads.clear()

    @contextmanager
    def pruning(self, thread: str) -> Iterator[None]:
        """All checkpoints of a thread but the head of each namespace are being deleted."""
        with self._removing(thread) as told:
            yield
            with self.lock:
                old = [at for at in told.checkpoints if at[1] != told.heads[at[0]][0]]
                told.gone.update(old)
                for at in old:
                    del told.checkpoints[at]
                    told.writes.pop(at, None)

    @contextmanager
    def _removing(self, thread: str) -> Iterator[Told]:
        with self.lock:
            told = self.of(thread)
            told.removing += 1
        try:
            yield told
            with self.lock:
                self.acked += 1
                told.touched_s = time.monotonic()
        except BaseException:
            told.is_unclear = True
            raise
        finally:
            with self.lock:
                told.removing -= 1

    # --- reads ------------------------------------------------------------------

    def before_read(self, thread: str, namespace: str) -> tuple[int, tuple[str, object]]:
        """What a reader may expect at least: the thread's life, and its head."""
        with self.lock:
            told = self.of(thread)
            return told.life, told.heads.get(namespace, ("", None))

    def after_read(
        self,
        reader: object,
        thread: str,
        namespace: str,
        before: tuple[int, tuple[str, object]],
        found: CheckpointTuple | None,
    ) -> None:
        """A reader got a head: its own writes must be seen."""
        life, (expected, writer) = before
        head = "" if found is None else found.checkpoint["id"]
        if head >= expected:
            return
        with self.lock:
            told = self.of(thread)
            excused = not told.is_settled or told.has_forked or told.may_have_expired()
            if told.life != life or excused:
                return
            if writer is reader:
                told_of = f"{clock()} {thread} {namespace!r}: {expected} -> {head or None}"
                self.moved_back.append(told_of)
            else:
                self.stale_reads += 1

    def failed(self, who: str, error: Exception) -> None:
        """A call raised, or a graph gave a wrong result."""
        honest = isinstance(error, Unreachable | WriteRejected | OutcomeUnknown)
        with self.lock:
            counter = self.unavailable if honest else self.errors
            counter[f"{who}: {type(error).__name__}: {error}"[:300]] += 1

    def forked(self, thread: str) -> None:
        """A fork was reported."""
        with self.lock:
            self.of(thread).has_forked = True
