"""The boundary between what may be lost and what may not: a saver with a tier behind it.

Checkpoints live on a Valkey server that may lose the last seconds of them. After a
*commit* that is not enough: the thread must not fall back behind what it has told the
world. So the checkpoint after a commit goes to a *tier* as well, any checkpointer that
loses nothing, within the same put. And what the server turns out to lack (lost at a
failover, expired, evicted) is joined back from there, before anything is read.

When is the tier asked? At the first read of a thread, and again when another primary
answers for it, or when its keys were made anew by another process. If the server has no
such thread, always. In between a thread costs nothing: a subgraph's first read, which
finds nothing, is answered by the server alone, since the thread is there.

**Order.** The server first, then the tier: it refuses a write to a thread that was
deleted. A thread that is deleted goes from the tier, from the server, and from the tier
once more, unless it was begun anew by then. If the deleter dies after the first, the
server still has the thread, and nothing comes back that was gone; the last takes away
what a run stored there meanwhile. That run looks after storing whether the thread was
deleted, and cleans up by itself, so one of the two sees the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import INTERRUPT

from langgraph_valkey import operations, upkeep
from langgraph_valkey.boundary import burials, joining
from langgraph_valkey.boundary.acquaintance import Acquaintances, Crossings
from langgraph_valkey.boundary.carrying import (
    Cargo,
    Side,
    address,
    has_deltas,
    label_of,
    leaning,
    look,
)
from langgraph_valkey.boundary.courier import Courier
from langgraph_valkey.boundary.faces import TierFace
from langgraph_valkey.errors import ConfigurationError, CorruptState, ReplayIncomplete
from langgraph_valkey.place import Place, place_of, place_of_thread
from langgraph_valkey.primary.records import Tombstone


class Boundary:
    """The logic of `TieredSaver`, for both faces; each call is given the side it is on.

    Args:
        ttl_ms: How long a thread lives that is put back; None for ever.
    """

    def __init__(self, ttl_ms: int | None) -> None:
        self._ttl_ms = ttl_ms
        self._crossings = Crossings()
        self._known = Acquaintances()
        self._courier = Courier(self._known)

    # --- writing ---------------------------------------------------------------

    def crossed(self, thread_id: str, on: Mapping[str, str]) -> None:
        """Something was committed in a thread: its next checkpoint has to be in the tier."""
        self._crossings.note(thread_id, on)

    async def put(
        self,
        side: Side,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, in the tier as well if it is due there."""
        place = place_of(side.core.prefix, config)
        namespace = place.namespace or ""
        due = self._crossings.due(place.thread, namespace, checkpoint["id"], place.checkpoint_id)
        given = config, checkpoint, metadata, new_versions
        self._require_own_line(side, place, CheckpointTuple(config, checkpoint, metadata))
        try:
            stored = await side.core.put(side.link, *given)
        except ReplayIncomplete:
            if not await self._came_back(side, place):
                raise
            stored = await side.core.put(side.link, *given)
        if due and side.tier is not None:
            whole = get_checkpoint_metadata(config, metadata)
            parent = place.config(namespace, place.checkpoint_id) if place.checkpoint_id else None
            found = CheckpointTuple(stored, checkpoint, whole, parent, [])
            if await self._courier.carry(side, side.tier, place, Cargo(found, ())):
                self._crossings.done(place.thread, namespace, due)
        return stored

    async def put_writes(
        self,
        side: Side,
        config: RunnableConfig,
        writes: Sequence[tuple[str, object]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Store a task's writes; if a run stops behind a commit, the tier gets them, too.

        For no checkpoint comes until somebody answers the interrupt.
        """
        place = place_of(side.core.prefix, config)
        try:
            await side.core.put_writes(side.link, config, writes, task_id, task_path)
        except ReplayIncomplete:
            if not await self._came_back(side, place):
                raise
            await side.core.put_writes(side.link, config, writes, task_id, task_path)
        self._note_written(side, place)
        stops = any(channel == INTERRUPT for channel, _ in writes)
        is_due = self._crossings.is_stopped(place.thread, place.checkpoint_id, now=stops)
        if is_due and side.tier is not None:
            cargo = await look(side, place)
            if cargo is not None:
                await self._courier.carry(side, side.tier, place, cargo)

    def _note_written(self, side: Side, place: Place) -> None:
        """Note under which mark of the thread this process began to write on a checkpoint."""
        if side.tier is not None:
            wrote = self._known.of(place.thread).wrote
            namespace = place.namespace or ""
            if wrote.get(namespace, ("",))[0] != place.checkpoint_id:
                nonce = side.core.known.standing(place.thread).nonce
                wrote[namespace] = place.checkpoint_id, nonce

    def _require_own_line(self, side: Side, place: Place, made: CheckpointTuple) -> None:
        """Raise if what this process wrote on a parent was lost, and the parent is back.

        A reader may have joined it meanwhile: then only what is rebuilt from those writes
        tells the difference.
        """
        known = self._known.get(place.thread)
        parent, nonce = known.wrote.pop(place.namespace or "", ("", b"")) if known else ("", b"")
        if parent != place.checkpoint_id or nonce == side.core.known.standing(place.thread).nonce:
            return
        if leaning(made):
            raise ReplayIncomplete(
                f"thread {place.thread!r} was lost by the server and put back from the tier while "
                "this run was in the middle of it, so its checkpoint was not stored: run the "
                "thread again from its input",
                thread_ids=[place.thread],
            )

    async def carry(self, side: Side, thread_id: str, namespace: str) -> bool:
        """Bring a thread's present head to the tier; whether there is one.

        Args:
            side: The face.
            thread_id: The thread.
            namespace: That of a task, whose subgraphs go along.
        """
        if side.tier is None:
            return False
        place = place_of_thread(side.core.prefix, thread_id, "")
        parts = namespace.split("|")
        for depth in range(len(parts) - 1, -1, -1):
            cargo = await look(side, place._replace(namespace="|".join(parts[:depth])))
            if cargo is not None and await self._courier.carry(side, side.tier, place, cargo):
                return True  # What it hangs on went along.
        return False

    async def _came_back(self, side: Side, place: Place) -> bool:
        """Whether what a refused write hangs on was lost, and is there again.

        Delta channels are rebuilt from what was written beside it, too, which may be lost
        still: then the run has to be gone on with from what is there.
        """
        self._known.forget(place.thread)
        if side.tier is None:
            return False
        await self._join(side, place)
        cargo = await look(side, place)
        return cargo is not None and not has_deltas(cargo.found)

    # --- reading ---------------------------------------------------------------

    async def get_tuple(self, side: Side, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint, after joining back what the server lacks of the thread."""
        place = place_of(side.core.prefix, config)
        asked_of: bytes | None = None
        while True:
            before = self._joined(side, place)
            found: CheckpointTuple | None = None
            damage: CorruptState | None = None
            try:
                found = await side.core.get_tuple(side.link, config)
            except CorruptState as error:
                side.core.known.forget(place.thread)
                damage = error
            primary = side.core.window.primary_of(place.keys)
            if asked_of != primary and self._must_ask(side, place, found, before):
                asked_of = primary
                await self._join(side, place)
                continue  # Another reader may have joined it since this one read.
            if damage is not None:
                raise damage
            return found

    async def ready(self, side: Side, config: RunnableConfig, *, is_sure: bool = False) -> None:
        """Join back what the server lacks of a thread that is read in another way.

        Args:
            side: The face.
            config: Names the thread.
            is_sure: Whether the thread was read right before, so that it is there.
        """
        if side.tier is None and side.primary is None:
            return
        place = place_of(side.core.prefix, config)
        if not is_sure:
            answer = await side.core.read(side.link, place, operations.chunks(place.keys, ()))
            side.core.known.forget(place.thread)
            side.core.known.learn(place.thread, answer.standing)
        if self._joined(side, place) is None:
            await self.get_tuple(side, address(place.thread, ""))

    def _must_ask(
        self, side: Side, place: Place, found: CheckpointTuple | None, before: bytes | None
    ) -> bool:
        """Whether what was read may be less than what the tier has, or more than it should.

        Args:
            side: The face.
            place: What was read.
            found: What was found.
            before: Which thread was compared with the tier before it was read, if one was.
        """
        if side.tier is None and (side.primary is None or found is None):
            return False
        if before is None or self._joined(side, place) != before:
            return True
        return found is None and bool(place.checkpoint_id) and side.tier is not None

    def _joined(self, side: Side, place: Place) -> bytes | None:
        """The nonce of the thread, as it is known now, if it was compared with the tier."""
        known = self._known.get(place.thread)
        nonce = side.core.known.standing(place.thread).nonce
        if known is None or known.primary != side.core.window.primary_of(place.keys):
            return None
        if known.nonce == bytes(16) and nonce[:8] == side.core.writer.name:
            known.nonce = nonce  # Neither had it, and this process has begun it since.
        return nonce if nonce == known.nonce != bytes(16) else None

    async def _join(self, side: Side, place: Place) -> bool:
        """Compare a thread with the tier and its tombstone; whether something was changed."""
        core, thread = side.core, place.thread
        primary = core.window.primary_of(place.keys)
        changed = False
        tomb = await side.primary.tombstone(thread) if side.primary is not None else None
        if tomb is not None:
            gen = core.known.standing(thread).gen
            is_dead = core.known.standing(thread).exists and gen <= burials.stamp_of(tomb)
            if is_dead or not tomb.stamp:
                await burials.complete(side, place, tomb)
                changed = True
        if side.tier is not None:
            changed |= await self._join_tier(side, side.tier, place, tomb)
        known = self._known.of(thread)
        if changed:
            await joining.head_in(side, place, "")
        known.primary, known.nonce = primary, core.known.standing(thread).nonce
        return changed

    async def _join_tier(
        self, side: Side, tier: TierFace, place: Place, tomb: Tombstone | None
    ) -> bool:
        top = await tier.get_tuple(address(place.thread, ""))
        if top is None:
            return False
        if tomb is not None and label_of(top).gen.encode() <= burials.stamp_of(tomb):
            await tier.delete_thread(place.thread)
            return False
        changed = await joining.bring_thread(side, place, top, self._ttl_ms)
        if place.checkpoint_id and await look(side, place) is None:
            changed |= await joining.bring_one(side, place, self._ttl_ms)
        return changed

    # --- threads as a whole ----------------------------------------------------------

    async def delete_thread(self, side: Side, thread_id: str, *, durable: bool | None) -> None:
        """Delete a thread from the tier and the server; see the module for the order.

        Args:
            side: The face.
            thread_id: The thread.
            durable: Whether with a tombstone; None for one wherever there is a store.

        Raises:
            ConfigurationError: It is to be durable, and there is no primary store.
        """
        if durable and side.primary is None:
            raise ConfigurationError(
                "delete_thread(durable=True) writes a tombstone to the primary store, and this "
                "saver has none: give it one by store=..."
            )
        thread = place_of_thread(side.core.prefix, thread_id).thread
        registry = side.primary if durable is not False else None
        tomb = await registry.bury(thread) if registry is not None else None
        if side.tier is not None:
            await side.tier.delete_thread(thread)
        stamp = await side.core.delete_thread(side.link, thread_id)
        # Before anything else: from here on it may be begun anew, and that life commits, too.
        self._crossings.forget(thread)
        self._known.forget(thread)
        if side.tier is not None:
            await burials.clear(side.tier, thread, stamp)
        if registry is not None and tomb is not None:
            await registry.buried(tomb, stamp.decode())

    async def rebury(self, side: Side, since_s: float) -> int:
        """Complete the durable deletes of the last while; see `burials.rebury`."""
        if side.primary is None:
            raise ConfigurationError(
                "rebury() reads tombstones from the primary store, and this saver has none: give "
                "it one by store=..."
            )
        return await burials.rebury(side, since_s)

    async def copy_thread(self, side: Side, source: str, target: str) -> None:
        """Copy a thread; the copy's head goes to the tier."""
        for thread_id in (source, target):
            await self.ready(side, address(thread_id, ""))
        await upkeep.copy_thread(side.core, side.link, source, target)
        await self.carry(side, target, "")

    async def prune(self, side: Side, thread_ids: Sequence[str], strategy: str) -> None:
        """Prune threads, in the tier as well if it can."""
        if strategy == "delete":
            for thread_id in thread_ids:
                await self.delete_thread(side, thread_id, durable=None)
            return
        for thread_id in thread_ids:
            await self.ready(side, address(thread_id, ""))
        await upkeep.prune(side.core, side.link, thread_ids, strategy)
        if side.tier is not None:
            with suppress(NotImplementedError):
                await side.tier.prune([str(each) for each in thread_ids], strategy)

    async def delete_for_runs(self, side: Side, run_ids: Sequence[str]) -> None:
        """Remove runs; what the tier has of their threads is made anew where it can't."""
        tier = side.tier
        if tier is None:
            await upkeep.delete_for_runs(side.core, side.link, run_ids)
            return
        threads: dict[str, None] = {}
        for run_id in run_ids:
            for found in await tier.listed(None, {"run_id": run_id}):
                threads[str(found.config["configurable"]["thread_id"])] = None
        for thread in threads:
            await self.ready(side, address(thread, ""))
        await upkeep.delete_for_runs(side.core, side.link, run_ids)
        try:
            await tier.delete_for_runs(run_ids)
        except NotImplementedError:
            for thread in threads:
                await tier.delete_thread(thread)
                self._known.forget(thread)
                await self.carry(side, thread, "")
