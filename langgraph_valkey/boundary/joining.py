"""Joining back: what the tier has of a thread, and the Valkey server lacks.

A join is a replay. The tier's checkpoints are written as the entries that a journal
would hold of them, and joined by the same script, with the same rules: nothing that
is there is changed, a head moves on and never back, what was deleted or removed stays
so. It may be done at any time, twice, and by several processes at once.

The head moves to the tier's also where the line between the two has gaps, since the
tier has no more than one checkpoint a commit: the higher id is the newer one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from langgraph.checkpoint.base import CheckpointTuple

from langgraph_valkey import drafts, limits, operations
from langgraph_valkey.boundary.carrying import (
    Cargo,
    Label,
    Side,
    Task,
    address,
    beside,
    label_of,
    line_there,
    look,
    unlabelled,
    unloaded,
)
from langgraph_valkey.errors import CorruptState, ReplayIncomplete, Unreachable
from langgraph_valkey.keys import namespace_field, to_bytes
from langgraph_valkey.link import Call, Link
from langgraph_valkey.loss_window.entries import DELETE, PUT, WRITES, Entry, OfThread
from langgraph_valkey.loss_window.recovering import replay_thread
from langgraph_valkey.loss_window.replay import ThreadReplay
from langgraph_valkey.loss_window.shards import Heard
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Standing
from langgraph_valkey.place import Place
from langgraph_valkey.stored import writes


async def bring_thread(side: Side, place: Place, top: CheckpointTuple, ttl_ms: int | None) -> bool:
    """Put back what a thread lacks that its head in the tier has.

    Args:
        side: The face.
        place: The thread.
        top: Its head in the tier.
        ttl_ms: How long it lives if it has to be made anew.

    Returns:
        Whether something was put back.

    Raises:
        CorruptState: The tier does not give it back whole.
    """
    tier, label = side.tier, label_of(top)
    assert tier is not None
    head = await head_in(side, place, "")
    is_behind = head is not None and head.id > top.checkpoint["id"]
    named = beside(top) if label.is_ours else await _found_beside(side, place, top)
    lines: list[Cargo] = []
    for namespace, checkpoint_id in named.items():
        there = await head_in(side, place, namespace)
        if is_behind and (there is not None or ":" in namespace):
            continue  # It has been gone on with, or its run is over.
        if there is None or there.id <= checkpoint_id:
            found = await tier.get_tuple(address(place.thread, namespace, checkpoint_id))
            if found is None:
                what = f"checkpoint {checkpoint_id!r} of subgraph {namespace!r} is gone from it"
                raise place.corrupt(what, None, f"the tier ({tier.name})".encode())
            lines += await line_there(side, tier, place, unloaded(found))
    if not is_behind:
        lines += await line_there(side, tier, place, unloaded(top))
    return await _bring(side, place, lines, label, ttl_ms)


async def bring_one(side: Side, place: Place, ttl_ms: int | None) -> bool:
    """Put back the one checkpoint that a place names, if the tier has it."""
    tier = side.tier
    assert tier is not None
    namespace = place.namespace or ""
    found = await tier.get_tuple(address(place.thread, namespace, place.checkpoint_id))
    if found is None:
        return False
    line = await line_there(side, tier, place, unloaded(found))
    return await _bring(side, place, line, label_of(found), ttl_ms)


async def _found_beside(side: Side, place: Place, top: CheckpointTuple) -> dict[str, str]:
    """The heads of all subgraphs, of a thread that another saver stored."""
    heads: dict[str, str] = {}
    assert side.tier is not None
    whole = {"configurable": {"thread_id": place.thread}}
    for found in await side.tier.listed(whole):  # type: ignore[arg-type]
        each = Cargo(found, ())
        heads[each.namespace] = max(each.id, heads.get(each.namespace, ""))
    heads.pop("", None)
    at = top.checkpoint["id"]
    # Those of the runs before are over.
    return {name: i for name, i in heads.items() if ":" not in name or i > at}


async def head_in(side: Side, place: Place, namespace: str) -> Cargo | None:
    """A head on the server; None if it is not there whole."""
    try:
        return await look(side, place._replace(namespace=namespace, checkpoint_id=""))
    except CorruptState:
        side.core.known.forget(place.thread)
        return None  # What is torn is put back, as far as it is not there.


async def _bring(
    side: Side, place: Place, lines: Sequence[Cargo], label: Label, ttl_ms: int | None
) -> bool:
    """Put back what is not there of some checkpoints, in their order."""
    core = side.core
    nonce = core.writer.entry()
    entries: list[Entry] = []
    heads: dict[bytes, dict[bytes, None]] = {}
    for cargo in lines:
        own = label_of(cargo.found)
        standing = label.standing(nonce, own.stamp)
        at = place._replace(namespace=cargo.namespace, checkpoint_id=cargo.id)
        head = await head_in(side, place, cargo.namespace)
        if head is not None:
            heads.setdefault(namespace_field(cargo.namespace), {})[to_bytes(head.id)] = None
        try:
            here = await look(side, at)
        except CorruptState:
            here = None
        entries += _entries(side, at, cargo, here, standing)
    if not entries:
        return False
    deadline_ms = _deadline_ms(core.known.standing(place.thread), ttl_ms)
    for entry in entries:
        entry.deadline_ms = deadline_ms
    done = await rejoin(core.window, side.link, place, entries, heads)
    core.known.forget(place.thread)
    is_dead = any(entry.kind == PUT for entry in done.unwanted) and not done.outcome.expired
    if is_dead and label.is_ours and side.tier is not None:
        await side.tier.delete_thread(place.thread)  # The server remembers that it was deleted.
    if done.missing:
        raise ReplayIncomplete(
            f"thread {place.thread!r} could not be put back whole from the tier, since it was "
            "changed meanwhile: call again",
            thread_ids=[place.thread],
        )
    return done.outcome.replayed > 0


def _deadline_ms(known: Standing, ttl_ms: int | None) -> int:
    """When a thread that is made anew expires; one that is there keeps its own deadline."""
    if not ttl_ms or known.exists:
        return 0
    # The answer that a thread is not there has the server's clock.
    return (int(known.stamp) // 1000 or round(time.time() * 1000)) + ttl_ms


def _entries(
    side: Side, at: Place, cargo: Cargo, here: Cargo | None, standing: Standing
) -> list[Entry]:
    """What a journal would hold of a checkpoint, without what is there."""
    made: list[Entry] = []
    for task in _missing_tasks(cargo.tasks, here.tasks if here is not None else ()):
        pending = [*task.ordinary, *task.special]
        stored = writes.build(side.core.codec, pending, task.task_id, task.path)
        number = side.core.writer.entry()
        where = at.keys, number, None, at.namespace or "", at.checkpoint_id
        call = operations.put_writes(*where, stored, standing)
        made.append(_entry(number, WRITES, at, call, standing))
    if here is None:
        made.append(_put_entry(side, at, cargo, standing))
    return made


def _put_entry(side: Side, at: Place, cargo: Cargo, standing: Standing) -> Entry:
    """What a journal would hold of a checkpoint itself."""
    checkpoint, number = cargo.found.checkpoint, side.core.writer.entry()
    draft = drafts.build(
        side.core.codec,
        number,
        at.thread,
        cargo.parent_id,
        checkpoint,
        unlabelled(cargo.found.metadata),
        checkpoint["channel_versions"],
        False,
        None,
    )
    where = at.keys, number, None, at.namespace or "", at.checkpoint_id
    call = operations.put(*where, draft.stored, standing)
    return _entry(number, PUT, at, call, standing)


def question(side: Side, at: Place, standing: Standing) -> Entry:
    """An entry by which to ask whether a thread was deleted; it stores nothing."""
    nothing = operations.Stored(b"", [], bytes(16), complete=True, root=True, leans=False)
    number = side.core.writer.entry()
    where = at.keys, number, None, at.namespace or "", at.checkpoint_id
    entry = _entry(number, PUT, at, operations.put(*where, nothing, standing), standing)
    entry.bare = True
    return entry


def _missing_tasks(tasks: Sequence[Task], here: Sequence[Task]) -> list[Task]:
    """Tasks with those writes that are not there."""
    there = {task.task_id: task for task in here}
    missing: list[Task] = []
    for task in tasks:
        other = there.get(task.task_id)
        if other is not None:
            names = {channel for channel, _ in other.special}
            task = task._replace(
                ordinary=[] if other.ordinary else task.ordinary,
                special=[each for each in task.special if each[0] not in names],
            )
        if task.ordinary or task.special:
            missing.append(task)
    return missing


def _entry(number: bytes, kind: bytes, place: Place, call: Call, standing: Standing) -> Entry:
    entry = Entry(number, kind, place.thread, place.keys.slot, call.args, call.size, standing)
    entry.sure = True  # It was acknowledged, before it went to the tier.
    return entry


def deletion(side: Side, place: Place, stamp: bytes) -> Entry:
    """What a journal would hold of a deletion."""
    standing = Standing(stamp=stamp)
    entry = Entry(side.core.writer.entry(), DELETE, place.thread, place.keys.slot, [], 0, standing)
    entry.sure = True
    return entry


async def rejoin(
    window: LossWindow,
    link: Link,
    place: Place,
    entries: Sequence[Entry],
    heads: dict[bytes, dict[bytes, None]],
) -> ThreadReplay:
    """Join entries of one thread into what the server has of it.

    Args:
        window: The saver's.
        link: Over which.
        place: The thread.
        entries: In the order in which they were acknowledged.
        heads: In each namespace, as it is stored, ids from which the head may move on.

    Raises:
        Unreachable: The primary was replaced, again and again.
    """
    held = OfThread({entry.number: entry for entry in entries}, heads)
    carried = {entry.number: entry.args or [] for entry in entries}
    replay_of = partial(ThreadReplay, place.thread, place.keys, held, entries, carried)
    for _ in range(limits.REPLAY_TRIES):
        replay = replay_of(window.primary_of(place.keys))
        while (call := replay.next()) is not None:
            answer = operations.read((await link.send((call,)))[0])
            if window.heard(place.keys, answer.identity, link.now()) is Heard.FORMER:
                await link.sleep(limits.FORMER_PAUSE_S)
            replay.take(answer)
        if replay.moved_to is None:
            window.recoveries.tell_forks(replay.outcome.forks.values())
            return replay
        await replay_thread(window, link, place.thread)  # What the journal has goes first.
    raise Unreachable(
        f"the primary of thread {place.thread!r} was replaced again and again while the thread "
        "was put back: call again"
    )
