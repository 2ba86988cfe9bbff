"""Copying, pruning and removing: what an owner does to threads as a whole.

All of it goes in pages, may be stopped at any page and begun again, and leaves
each checkpoint that it keeps whole. What is removed frees its chunks by a
mark-and-sweep over the thread's records, during which writers go on.

**Delta channels.** LangGraph's `DeltaChannel` stores its value now and then; in
between, a checkpoint's value is rebuilt from the writes on its ancestors. So an
ancestor may be removed only if no kept checkpoint is rebuilt from it. Which
channels are of that kind is not stored; `_delta_chain` tells by their traces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langgraph_valkey import limits, loading, operations, storing
from langgraph_valkey.checkpoints import Checkpoints
from langgraph_valkey.keys import namespace_of, to_text
from langgraph_valkey.link import Call, Link
from langgraph_valkey.listing import ancestry, grouped, metadata_of, threads
from langgraph_valkey.loss_window.entries import REMOVE
from langgraph_valkey.operations import Answer, Standing, Status
from langgraph_valkey.place import Place, place_of_thread
from langgraph_valkey.stored import records, writes
from langgraph_valkey.storing import Write


async def copy_thread(core: Checkpoints, link: Link, source: str, target: str) -> None:
    """See `BaseCheckpointSaver.copy_thread`.

    Oldest first, so that whatever has arrived is whole, its ancestors included.
    """
    origin, goal = place_of_thread(core.prefix, source), place_of_thread(core.prefix, target)
    if origin.thread == goal.thread:
        return
    sent: set[bytes] = set()
    async for items, chunks in core.pages(
        link, origin, "all", limit=limits.LIST_PAGE, ascending=True
    ):
        copies: list[Write] = []
        for raw_namespace, raw_id, record, _, pending in grouped(items, 5):
            at = goal._replace(namespace=namespace_of(raw_namespace), checkpoint_id=to_text(raw_id))
            digests = loading.parsed(core.codec, origin, at.checkpoint_id, record).digests
            fresh = [digest for digest in dict.fromkeys(digests) if digest not in sent]
            sent.update(fresh)
            gone = [digest.hex() for digest in fresh if chunks.get(digest) is None]
            if gone:
                why = f"its chunk {gone[0]} is gone"
                raise origin.corrupt(why, at.checkpoint_id, origin.keys.state)
            parts = [digest + chunks[digest] for digest in fresh]
            copies.append(core.record_write(at, record, parts))
            # They count by their stamps, which a replay restored, and not as they came.
            came = sorted(pending, key=writes.stamp_of)
            copies += [core.task_write(at, writes.unstamped(stored)) for stored in came]
        await core.store_all(link, goal, copies)


async def prune(core: Checkpoints, link: Link, thread_ids: Sequence[str], strategy: str) -> None:
    """See `BaseCheckpointSaver.prune`."""
    if strategy not in ("keep_latest", "delete"):
        raise ValueError(f"strategy must be 'keep_latest' or 'delete', not {strategy!r}")
    for thread_id in thread_ids:
        if strategy == "delete":
            await core.delete_thread(link, thread_id)
        else:
            await _keep_latest(core, link, place_of_thread(core.prefix, thread_id))


async def _keep_latest(core: Checkpoints, link: Link, place: Place) -> None:
    ids = await _ids_by_namespace(core, link, place)
    removed = False
    for namespace, found in ids.items():
        within = place._replace(namespace=namespace)
        keep = {found[0]} | await _delta_chain(core, link, within, found[0])
        gone = [checkpoint_id for checkpoint_id in found if checkpoint_id not in keep]
        removed |= await _remove(core, link, within, gone)
    if removed:
        await _sweep(core, link, place)


async def delete_for_runs(core: Checkpoints, link: Link, run_ids: Sequence[str]) -> None:
    """See `BaseCheckpointSaver.delete_for_runs`."""
    # LangGraph drops NULs from metadata when it stores them.
    runs = {run_id.replace("\0", "") for run_id in run_ids}
    if not runs:
        return
    async for place in threads(core, link):
        doomed: dict[str, set[str]] = {}
        async for raw_namespace, raw_id, metadata in metadata_of(core, link, place):
            if metadata.get("run_id") in runs:
                doomed.setdefault(namespace_of(raw_namespace), set()).add(to_text(raw_id))
        removed = False
        for namespace, gone in doomed.items():
            within = place._replace(namespace=namespace)
            keep = await _needed_by_survivors(core, link, within, gone)
            removed |= await _remove(core, link, within, [i for i in gone if i not in keep])
        if removed:
            await _sweep(core, link, place)


async def _ids_by_namespace(core: Checkpoints, link: Link, place: Place) -> dict[str, list[str]]:
    """The ids of each namespace, newest first."""
    ids: dict[str, list[str]] = {}
    async for items, _ in core.pages(link, place, "ids"):
        for raw_namespace, raw_id in grouped(items, 2):
            ids.setdefault(namespace_of(raw_namespace), []).append(to_text(raw_id))
    return ids


async def _needed_by_survivors(
    core: Checkpoints, link: Link, place: Place, doomed: Collection[str]
) -> set[str]:
    """Which of the doomed a kept checkpoint is rebuilt from.

    Only the children of doomed ones have to be asked: what lies behind them is
    needed by later ones through them.
    """
    needed: set[str] = set()
    async for items, _ in core.pages(link, place, "all"):
        for _, raw_id, record, _, _ in grouped(items, 5):
            checkpoint_id = to_text(raw_id)
            if checkpoint_id not in doomed and records.parent_id(record) in doomed:
                needed |= await _delta_chain(core, link, place, checkpoint_id)
    return needed & set(doomed)


async def _delta_chain(core: Checkpoints, link: Link, place: Place, checkpoint_id: str) -> set[str]:
    """The ancestors from which a checkpoint's delta channels are rebuilt.

    A channel that has a version and no value is either a delta channel or one
    that is merely empty now. It is a delta channel if the checkpoint's metadata
    count steps since its last snapshot, if the nearest value of it is a
    snapshot, or if a write to it left no value in the child. The chain reaches
    back to the nearest ancestor with a value of it, or else to the root.
    """
    chain: list[str] = []
    reach = 0
    unsettled: set[str] | None = None
    deltas: set[str] = set()
    async for ancestor_id, record, pending in ancestry(core, link, place, checkpoint_id):
        held = {entry[0]: entry for entry in record.manifest}
        if unsettled is None:  # The checkpoint itself.
            versions = records.load_checkpoint(core.codec, record)["channel_versions"]
            unsettled = versions.keys() - held.keys()
            metadata = records.load_metadata(core.codec, record.metadata)
            deltas.update(metadata.get("counters_since_delta_snapshot") or ())
            continue
        chain.append(ancestor_id)
        written = writes.merge(core.codec, *pending)
        deltas.update(write.channel for write in written if write.channel in unsettled)
        for name in held.keys() & unsettled:
            if name in deltas or records.is_snapshot(held[name]):
                reach = len(chain)
        unsettled -= held.keys()
        if not unsettled:
            break
    if unsettled and unsettled & deltas:
        return set(chain)
    return set(chain[:reach])


async def _remove(core: Checkpoints, link: Link, place: Place, gone: Sequence[str]) -> bool:
    """Remove checkpoints of one namespace; whether there were any."""

    async def readmit(answer: Answer, standing: Standing) -> Standing:
        if answer.status is not Status.UNORDERED:
            core.require(place, answer)
        await core.ask(link, place, operations.mend(place.keys))
        return standing

    for at in range(0, len(gone), limits.REMOVE_PAGE):
        some = gone[at : at + limits.REMOVE_PAGE]

        def build(_: Standing, primary: bytes, some: Sequence[str] = some) -> Call:
            return operations.remove(place.keys, place.namespace or "", some, primary)

        write = Write(core.writer.entry(), REMOVE, build, readmit)
        await storing.store(core, link, place, write, core.known.standing(place.thread))
    return bool(gone)


async def _sweep(core: Checkpoints, link: Link, place: Place) -> None:
    """Drop the chunks that no record refers to, nor one that may yet be replayed."""
    await link.sleep(max(0.0, core.window.others_done_s(place.keys) - link.now()))
    answer = await core.read(link, place, operations.open_sweep(place.keys))
    if answer.status is not Status.OK:
        return
    used: set[bytes] = set()
    whole = place._replace(namespace=None, checkpoint_id="")
    async for items, _ in core.pages(link, whole, "refs"):
        for _, _, referred in grouped(items, 3):
            used.update(_digests(referred))
    there: set[bytes] = set()
    cursor = b"0"
    while True:
        answer = await core.ask(link, place, operations.scan_sweep(place.keys, cursor))
        if answer.status is not Status.OK:
            return  # It took too long, or the thread is gone: the next sweep does it.
        cursor, found = answer.rest
        there.update(_digests(found))
        if cursor == b"0":
            break
    idle = list(there - used)
    for at in range(0, len(idle), limits.WALK_PAGE):
        call = operations.drop_chunks(place.keys, idle[at : at + limits.WALK_PAGE])
        await core.ask(link, place, call)
    await core.ask(link, place, operations.close_sweep(place.keys))


def _digests(joined: bytes) -> list[bytes]:
    size = limits.DIGEST_BYTES
    return [joined[at : at + size] for at in range(0, len(joined), size)]
