"""Looking for what was acknowledged, with a saver that replays nothing itself."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from langgraph_valkey import ValkeySaver, operations
from langgraph_valkey.link import finish
from langgraph_valkey.place import place_of_thread
from tests.kill_loop.ledger import At, Ledger, Told, checksum, checksums

PATIENCE_S = 3.0
"""How long what is not there may take to come: a thawed primary may acknowledge after
the replay, and its acknowledgement is replayed when it is known for what it is."""

SLACK_S = 0.05
"""Between the clocks of the servers and of this process, which are one."""


@dataclass(slots=True)
class Findings:
    """What is wrong, in words, each thing once.

    Attributes:
        missing: Elements that were acknowledged and are not there, or not as they were.
        resurrected: Checkpoints that are there although their deletion was acknowledged.
        moved_back: Heads that are not what was acknowledged last.
        outlived: Threads that are there for longer than acknowledged.
        looked_at: How many elements were looked for.
    """

    missing: set[str] = field(default_factory=set)
    resurrected: set[str] = field(default_factory=set)
    moved_back: set[str] = field(default_factory=set)
    outlived: set[str] = field(default_factory=set)
    looked_at: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.resurrected or self.moved_back or self.outlived)

    def add(self, other: Findings) -> None:
        """Take in what was found elsewhere."""
        self.missing |= other.missing
        self.resurrected |= other.resurrected
        self.moved_back |= other.moved_back
        self.outlived |= other.outlived
        self.looked_at += other.looked_at


def search(ledger: Ledger, reader: ValkeySaver, threads: Iterable[str]) -> Findings:
    """Compare what was acknowledged of threads with what the server has.

    What seems wrong is looked at again for `PATIENCE_S`.
    """
    found = Findings()
    suspects: list[str] = []
    for thread in threads:
        here = _look(ledger, reader, thread)
        if here:
            suspects.append(thread)
        else:
            found.add(here)
    until_s = time.monotonic() + PATIENCE_S
    while suspects:
        last = time.monotonic() >= until_s
        for thread in list(suspects):
            here = _look(ledger, reader, thread)
            if last or not here:
                found.add(here)
                suspects.remove(thread)
        if suspects:
            time.sleep(0.1)
    return found


def _look(ledger: Ledger, reader: ValkeySaver, thread: str) -> Findings:
    with ledger.lock:
        before = ledger.of(thread).copy()
    if not before.is_settled:
        return Findings()
    there = {
        (_namespace(each), each.checkpoint["id"]): each
        for each in reader.list({"configurable": {"thread_id": thread}})
    }
    heads = {
        namespace: reader.get_tuple(
            {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
        )
        for namespace in before.heads
    }
    deadline_s = _deadline_s(reader, thread)
    with ledger.lock:
        after = ledger.of(thread).copy()
    if not after.is_settled or after.life != before.life or after.gone != before.gone:
        return Findings()
    return _compare(thread, before, after, there, heads, deadline_s)


def _compare(
    thread: str,
    before: Told,
    after: Told,
    there: dict[At, CheckpointTuple],
    heads: dict[str, CheckpointTuple | None],
    deadline_s: float,
) -> Findings:
    found = Findings()
    name = f"{thread} #{before.life}"
    for at in before.gone & there.keys():
        found.resurrected.add(f"{name} {at}")
    if before.may_have_expired() or after.may_have_expired():
        now_s = time.time()
        if there and now_s > after.deadline_s[1] + SLACK_S and not after.under_way:
            found.outlived.add(f"{name}: {now_s - after.deadline_s[1]:.2f} s")
        return found
    latest_s = after.deadline_s[1] + SLACK_S
    has_ttl = after.ttl_s is not None and there and not after.under_way
    if has_ttl and not 0 < deadline_s <= latest_s:
        found.outlived.add(f"{name}: {deadline_s} > {latest_s}")
    for at, values in before.checkpoints.items():
        found.looked_at += 1 + len(values)
        found.missing |= _missing(name, at, values, before, there.get(at))
    for namespace, (expected, _) in before.heads.items():
        head = heads[namespace]
        if not after.has_forked and (head is None or head.checkpoint["id"] < expected):
            id_ = head and head.checkpoint["id"]
            found.moved_back.add(f"{name} {namespace!r}: {expected} -> {id_}")
    return found


def _missing(
    name: str, at: At, values: dict[str, int], told: Told, found: CheckpointTuple | None
) -> set[str]:
    if found is None:
        return {f"{name} {at} checkpoint"}
    here = checksums(found.checkpoint["channel_values"])
    missing = {
        f"{name} {at} channel {channel}"
        for channel, value in values.items()
        if here.get(channel) != value
    }
    writes = {
        (task, channel, checksum(value)) for task, channel, value in found.pending_writes or ()
    }
    for (task, _), (channel, value) in told.writes.get(at, {}).items():
        if (task, channel, value) not in writes:
            missing.add(f"{name} {at} write {task} {channel}")
    return missing


def _namespace(found: CheckpointTuple) -> str:
    namespace: str = found.config["configurable"]["checkpoint_ns"]
    return namespace


def _deadline_s(reader: ValkeySaver, thread: str) -> float:
    """When the thread expires, on the server's clock; negative if it never does."""
    place = place_of_thread(reader.settings.key_prefix, thread)
    call = operations.get(place.keys, "", "", believed="", size=0, slide_ttl_ms=None)
    answer: Any = finish(reader._core.ask(reader._blocking, place, call))
    rest = answer.rest
    return float(rest[4]) / 1000 if len(rest) > 4 else 0.0
