"""What is carried of a thread, and how two sides are compared.

A *cargo* is a checkpoint with its pending writes, as `boundary.carrying` has it. Its
*print* is a digest of all that a checkpointer has to give back of it. What they may give
back differently is put into one form first:

- PostgresSaver keeps metadata and small values as JSON: tuples become lists, and a large
  float an integer; what an early release noted as ``writes`` is dropped.
- A delta channel's snapshot belongs to a version of the channel. Savers give it back with
  each checkpoint that has this version, or with the first one alone.
- The order of parallel tasks is told, not their paths, which not all of them keep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_valkey.boundary.carrying import Cargo, Task, leaning
from langgraph_valkey.moving.opaque import NotCarried

Address: TypeAlias = tuple[str, str]
"""Namespace and id of a checkpoint, within a thread."""

_WHOLE_FROM = 1e16
"""Floats from here on are whole numbers, and JSON does not tell them from integers."""


class Row(NamedTuple):
    """A pending write, as databases keep it."""

    path: str
    task_id: str
    idx: int
    channel: str
    value: Any


class Line(NamedTuple):
    """What a checkpoint's delta channels have to do with its ancestors.

    Attributes:
        parent: The parent's id, or ''.
        leaning: Channels that are rebuilt from ancestors.
        held: Channels with a value here.
    """

    parent: str
    leaning: frozenset[str]
    held: frozenset[str]


def address_of(cargo: Cargo) -> Address:
    """Where a checkpoint is within its thread."""
    return cargo.namespace, cargo.id


def tasks_of(rows: Iterable[Row]) -> list[Task]:
    """The writes of each task, in the order in which they are applied."""
    by_task: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda each: each[:3]):
        by_task.setdefault(row[:2], []).append(row)
    return [_task_of(*task, cells) for task, cells in by_task.items()]


def _task_of(path: str, task_id: str, cells: Sequence[Row]) -> Task:
    special = [(row.channel, row.value) for row in cells if row.idx < 0]
    numbered = {row.idx: (row.channel, row.value) for row in cells if row.idx >= 0}
    # A write is known by its number, and special ones were counted, too.
    spare = iter(special)
    line = [numbered.get(n) or next(spare, None) for n in range(max(numbered, default=-1) + 1)]
    return Task(task_id, path, [each for each in line if each is not None], special)


def tasks_in(pending: Iterable[PendingWrite] | None) -> list[Task]:
    """The same of writes that a checkpointer gave: their order tells of their paths."""
    tasks: dict[str, Task] = {}
    for task_id, channel, value in pending or ():
        task = tasks.setdefault(task_id, Task(task_id, f"{len(tasks):06d}", [], []))
        part = task.special if channel in WRITES_IDX_MAP else task.ordinary
        part.append((channel, value))
    return list(tasks.values())


# --- prints ------------------------------------------------------------------------------


class Reckoning:
    """Takes the cargoes of a thread, oldest first, and sums up what they are.

    Attributes:
        prints: A digest of each checkpoint with its writes.
        lines: What their delta channels are rebuilt from.

    Args:
        serde: What the values were loaded by.
    """

    def __init__(self, serde: SerializerProtocol) -> None:
        self.prints: dict[Address, bytes] = {}
        self.lines: dict[Address, Line] = {}
        self._serde = serde
        self._snapshots: set[tuple[str, str, str]] = set()

    def add(self, cargo: Cargo) -> None:
        """Take a checkpoint."""
        found = cargo.found
        at = address_of(cargo)
        values = self._values(cargo.namespace, found)
        about = [
            at,
            cargo.parent_id,
            {name: part for name, part in found.checkpoint.items() if name != "channel_values"},
            {name: digest(self._serde, value).hex() for name, value in values.items()},
            _metadata(found.metadata),
            [self._task(task) for task in cargo.tasks],
        ]
        self.prints[at] = hashlib.blake2b(self._as_text(about).encode(), digest_size=16).digest()
        held = frozenset(found.checkpoint["channel_values"])
        self.lines[at] = Line(cargo.parent_id, frozenset(leaning(found)), held)

    def _values(self, namespace: str, found: CheckpointTuple) -> dict[str, Any]:
        """The values, without snapshots that were given with an earlier checkpoint."""
        values = dict(found.checkpoint["channel_values"])
        for name in [name for name, each in values.items() if isinstance(each, _DeltaSnapshot)]:
            of = namespace, name, str(found.checkpoint["channel_versions"].get(name))
            if of in self._snapshots:
                del values[name]
            self._snapshots.add(of)
        return values

    def _task(self, task: Task) -> list[Any]:
        special = sorted((name, digest(self._serde, each).hex()) for name, each in task.special)
        ordinary = [
            (name, digest(self._serde, each).hex())
            for name, each in task.ordinary
            if name not in WRITES_IDX_MAP
        ]
        return [task.task_id, special, ordinary]

    def _as_text(self, about: Any) -> str:
        return json.dumps(
            about, sort_keys=True, default=lambda each: digest(self._serde, each).hex()
        )


def digest(serde: SerializerProtocol, value: Any) -> bytes:
    """A digest of a value, the same wherever it was kept."""
    if isinstance(value, float) and abs(value) >= _WHOLE_FROM and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return hashlib.blake2b(b"int %d" % value, digest_size=16).digest()
    plain = serde.serde if isinstance(serde, EncryptedSerializer) else serde
    kind, data = plain.dumps_typed(value)
    return hashlib.blake2b(b"%b %b" % (kind.encode(), bytes(data)), digest_size=16).digest()


def _metadata(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.replace("\0", "") if isinstance(value, str) else value
        for name, value in given.items()
        if name != "writes"
    }


def require_lines(thread: str, lines: Mapping[Address, Line]) -> None:
    """Raise if a delta channel would have to be rebuilt from an ancestor that is gone.

    It would read back shorter, with no error.

    Raises:
        NotCarried: There is one.
    """
    for (namespace, checkpoint_id), line in lines.items():
        wanted, parent = set(line.leaning), line.parent
        while wanted and parent:
            above = lines.get((namespace, parent))
            if above is None:
                raise NotCarried(
                    f"thread {thread!r} has a DeltaChannel ({', '.join(sorted(wanted))}), and its "
                    f"checkpoint {checkpoint_id!r} is rebuilt from {parent!r}, which is gone: "
                    "delete that checkpoint's run or the thread, or run it again"
                )
            wanted -= above.held
            parent = above.parent
