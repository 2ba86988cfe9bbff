"""Carrying checkpoints between the Valkey server and the tier, whole.

What is carried is a *cargo*: a checkpoint with the pending writes that stand on it. In
the tier it bears a *label*, a key of its own in the metadata: of which life of its
thread it is, so that one that was deleted can't come back; and the paths of its tasks,
which no checkpointer gives back. Which subgraphs go on with it, a pending write of its
own tells for each, since several of them may come along at once.

**Delta channels.** A `DeltaChannel` is stored now and then; in between it is rebuilt
from the writes on its ancestors. A checkpoint without these would read back with the
channel empty, and no error. So they go along: down to where the channel was stored
last, the oldest first, writes ahead of their checkpoint. What is in the tier is thereby
complete: only the writes on the newest one may have grown since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_valkey import listing, loading, operations
from langgraph_valkey.boundary.faces import TierFace
from langgraph_valkey.checkpoints import Checkpoints
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.keys import namespace_of, to_text
from langgraph_valkey.link import Link
from langgraph_valkey.operations import Standing, Status
from langgraph_valkey.place import Place
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.stored import writes

LABEL = "langgraph_valkey"
"""The key in a checkpoint's metadata, in the tier."""

BESIDE = "__langgraph_valkey_beside"
"""The channel of the writes that name subgraphs; no graph has one of this name."""


class Side(NamedTuple):
    """All that one face of a saver talks to.

    Attributes:
        core: The saver's logic.
        link: The Valkey server.
        tier: The tier, if there is one.
        primary: The primary store, if there is one.
    """

    core: Checkpoints
    link: Link
    tier: TierFace | None
    primary: Primary | None


class Label(NamedTuple):
    """What a checkpoint bears in the tier.

    Attributes:
        gen: The stamp of its thread's creation, 16 digits.
        dead: The stamp of the deletion before that; zeros if there was none.
        stamp: The thread's newest stamp when it was carried.
        paths: The paths of the tasks whose writes stand on it, by their ids.
        is_ours: Whether it was there. One that another saver stored has none: its life
            began when it was made, as far as is known.
    """

    gen: str
    dead: str
    stamp: str
    paths: Mapping[str, str] = {}
    is_ours: bool = True

    def as_json(self) -> dict[str, Any]:
        """As it stands in the metadata."""
        given = self._asdict()
        del given["is_ours"]
        return given

    def standing(self, nonce: bytes, stamp: str) -> Standing:
        """The thread, as a replay takes it."""
        return Standing(nonce, self.gen.encode(), stamp.encode(), self.dead.encode())


class Task(NamedTuple):
    """The pending writes of one task.

    Attributes:
        task_id, path: As of `put_writes`.
        ordinary: In their order. One that is special keeps the number of the next.
        special: Those of which the last one stands.
    """

    task_id: str
    path: str
    ordinary: list[tuple[str, Any]]
    special: list[tuple[str, Any]]


class Cargo(NamedTuple):
    """A checkpoint and its pending writes."""

    found: CheckpointTuple
    tasks: Sequence[Task]

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.found.config["configurable"].get("checkpoint_ns", ""))

    @property
    def id(self) -> str:
        """Its id."""
        return self.found.checkpoint["id"]

    @property
    def parent_id(self) -> str:
        """Its parent's id, or ''."""
        parent = (self.found.parent_config or {}).get("configurable") or {}
        return str(parent.get("checkpoint_id") or "")


def address(thread: str, namespace: str, checkpoint_id: str = "") -> RunnableConfig:
    """A config, as every checkpointer takes it."""
    configurable = {"thread_id": thread, "checkpoint_ns": namespace}
    if checkpoint_id:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def label_of(found: CheckpointTuple) -> Label:
    """The label of a checkpoint in the tier."""
    given = found.metadata.get(LABEL)
    if isinstance(given, Mapping) and set(given) == set(Label._fields) - {"is_ours"}:
        return Label(**given)
    made_us = round(datetime.fromisoformat(found.checkpoint["ts"]).timestamp() * 1e6)
    stamp = f"{made_us:016d}"
    return Label(stamp, Standing().dead.decode(), stamp, is_ours=False)


def unlabelled(metadata: CheckpointMetadata) -> CheckpointMetadata:
    """The metadata without the label."""
    return cast(CheckpointMetadata, {k: v for k, v in metadata.items() if k != LABEL})


# --- from the server ------------------------------------------------------------------


async def look(side: Side, place: Place) -> Cargo | None:
    """A checkpoint on the Valkey server, the head if the place names none."""
    core, namespace = side.core, place.namespace or ""
    call = operations.get(place.keys, namespace, place.checkpoint_id)
    answer = await core.read(side.link, place, call)
    core.known.learn(place.thread, answer.standing)
    if answer.status is Status.NONE:
        return None
    core.require(place, answer)
    raw_id, raw, entries, values, _ = answer.rest
    at = to_text(raw_id)
    record = loading.parsed(core.codec, place, at, raw)
    digests = record.digests
    chunks, stored = dict(zip(digests, values, strict=False)), values[len(digests) :]
    found, _ = loading.load(core.codec, place, namespace, at, record, chunks, (entries, stored))
    tasks: dict[str, list[writes.Write]] = {}
    for write in writes.merge(core.codec, entries, stored):
        tasks.setdefault(write.task_id, []).append(write)
    return Cargo(found, [_task_of(core, each) for each in tasks.values()])


def _task_of(core: Checkpoints, cells: Sequence[writes.Write]) -> Task:
    special = [(w.channel, core.codec.loads(w.kind, w.plain)) for w in cells if w.idx < 0]
    numbered = {w.idx: (w.channel, core.codec.loads(w.kind, w.plain)) for w in cells if w.idx >= 0}
    # A task's writes are known by their numbers, and special ones are counted, too.
    spare = iter(special)
    line = [numbered.get(n) or next(spare, None) for n in range(max(numbered, default=-1) + 1)]
    ordinary = [each for each in line if each is not None]
    return Task(cells[0].task_id, cells[0].task_path, ordinary, special)


async def lasting_heads(side: Side, place: Place) -> dict[str, str]:
    """The heads of the subgraphs that keep their state from run to run."""
    found: dict[str, str] = {}
    after = "1"
    while after:
        answer = await side.core.read(side.link, place, operations.heads(place.keys, after))
        if answer.status is not Status.OK:
            return {}
        raw_after, items = answer.rest
        after = to_text(raw_after)
        for raw_namespace, raw_id in listing.grouped(items, 2):
            found[namespace_of(raw_namespace)] = to_text(raw_id)
    found.pop("", None)
    return found


# --- delta channels ---------------------------------------------------------------------


def leaning(found: CheckpointTuple) -> set[str]:
    """The delta channels that are rebuilt from a checkpoint's ancestors."""
    counted = found.metadata.get("counters_since_delta_snapshot") or ()
    versions, values = found.checkpoint["channel_versions"], found.checkpoint["channel_values"]
    return {name for name in counted if name in versions and name not in values}


def has_deltas(found: CheckpointTuple) -> bool:
    """Whether a checkpoint has delta channels, stored with it or rebuilt."""
    counted = found.metadata.get("counters_since_delta_snapshot")
    values = found.checkpoint["channel_values"].values()
    return bool(counted) or any(isinstance(value, _DeltaSnapshot) for value in values)


async def line_here(side: Side, place: Place, cargo: Cargo, sent: str) -> list[Cargo]:
    """A checkpoint, and behind it the ancestors that it is rebuilt from; the oldest first.

    Args:
        side: The face.
        place: The thread.
        cargo: The checkpoint.
        sent: Id of one that the tier has, with all it needs: there the line ends. It
            goes once more, since writes came to stand on it afterwards.
    """
    line, wanted = [cargo], leaning(cargo.found)
    while wanted and line[-1].parent_id and line[-1].id != sent:
        at = place._replace(namespace=cargo.namespace, checkpoint_id=line[-1].parent_id)
        above = await look(side, at)
        if above is None:
            why = (
                f"a delta channel is rebuilt from its ancestor {at.checkpoint_id!r}, which is gone"
            )
            raise place.corrupt(why, cargo.id, place.keys.state)
        line.append(above)
        wanted -= above.found.checkpoint["channel_values"].keys()
    return line[::-1]


async def prove(side: Side, tier: TierFace, place: Place, cargo: Cargo) -> bool:
    """Whether the tier gives back a checkpoint's delta channels; False if it has none.

    Raises:
        ConfigurationError: It does not.
    """
    channels = sorted(leaning(cargo.found))
    if not channels:
        return False
    where = address(place.thread, cargo.namespace, cargo.id)
    ours = await listing.delta_history(side.core, side.link, where, channels)
    theirs = await tier.history(where, channels)
    for name in channels:
        one, other = ours[name], theirs.get(name) or {"writes": []}
        if len(one["writes"]) != len(other["writes"]) or ("seed" in one) != ("seed" in other):
            raise ConfigurationError(
                f"the tier ({tier.name}) does not give back DeltaChannel {name!r}: it keeps "
                f"{len(other['writes'])} of {len(one['writes'])} writes that it is rebuilt from. "
                "Use a tier that keeps the ancestors of a checkpoint with their writes "
                "(PostgresSaver, SqliteSaver), or no DeltaChannel in graphs that commit"
            )
    return True


# --- to the tier ------------------------------------------------------------------------


async def send(tier: TierFace, place: Place, cargo: Cargo, label: Label) -> None:
    """Give a checkpoint to the tier, its writes ahead of it."""
    where = address(place.thread, cargo.namespace, cargo.id)
    for task in cargo.tasks:
        for some in (task.special, task.ordinary):
            if some:
                await tier.put_writes(where, some, task.task_id, task.path)
    paths = {task.task_id: task.path for task in cargo.tasks}
    metadata = {**cargo.found.metadata, LABEL: label._replace(paths=paths).as_json()}
    given = cargo.found.checkpoint
    copied = cast(Checkpoint, {**given, "channel_values": dict(given["channel_values"])})
    parent = address(place.thread, cargo.namespace, cargo.parent_id)
    await tier.put(parent, copied, cast(CheckpointMetadata, metadata))


async def hang(tier: TierFace, place: Place, root_id: str, namespace: str, at: str) -> None:
    """Let it be known in the tier that a subgraph goes on with a checkpoint of the graph.

    Args:
        tier: The tier.
        place: The thread.
        root_id: The graph's checkpoint.
        namespace: The subgraph's namespace.
        at: The subgraph's checkpoint.
    """
    # An ordinary write stays as it first came, so each has a task of its own.
    where = address(place.thread, "", root_id)
    await tier.put_writes(where, [(BESIDE, [namespace, at])], f"{at} {namespace}", "")


# --- from the tier ----------------------------------------------------------------------


def unloaded(found: CheckpointTuple) -> Cargo:
    """A checkpoint as the tier gave it."""
    tasks: dict[str, Task] = {}
    paths = label_of(found).paths
    for task_id, channel, value in found.pending_writes or ():
        if channel == BESIDE:
            continue
        task = tasks.setdefault(task_id, Task(task_id, "", [], []))
        part = task.special if channel in WRITES_IDX_MAP else task.ordinary
        part.append((channel, value))
    if not all(task_id in paths for task_id in tasks):
        # The order in which they came is all there is to tell their paths by.
        paths = {task_id: f"{number:06d}" for number, task_id in enumerate(tasks)}
    return Cargo(found, [each._replace(path=paths[each.task_id]) for each in tasks.values()])


def beside(found: CheckpointTuple) -> dict[str, str]:
    """The subgraphs that go on with a checkpoint in the tier: namespaces and ids."""
    newest: dict[str, str] = {}
    for _, channel, value in found.pending_writes or ():
        if channel == BESIDE:
            namespace, at = value
            newest[namespace] = max(at, newest.get(namespace, ""))
    return newest


async def line_there(side: Side, tier: TierFace, place: Place, cargo: Cargo) -> list[Cargo]:
    """A checkpoint in the tier, and behind it the ancestors that it is rebuilt from.

    The oldest first; the line ends at one that the Valkey server has: what lies behind
    that is there, too.
    """
    line, wanted = [cargo], leaning(cargo.found)
    while wanted and line[-1].parent_id:
        at = place._replace(namespace=cargo.namespace, checkpoint_id=line[-1].parent_id)
        found = await tier.get_tuple(address(place.thread, cargo.namespace, at.checkpoint_id))
        if found is None:
            why = (
                f"a delta channel is rebuilt from its ancestor {at.checkpoint_id!r}, which is gone"
            )
            raise place.corrupt(why, cargo.id, f"the tier ({tier.name})".encode())
        line.append(unloaded(found))
        wanted -= found.checkpoint["channel_values"].keys()
        if await look(side, at) is not None:
            break
    return line[::-1]
