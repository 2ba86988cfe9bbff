"""Walking over checkpoints: `list`, and a delta channel's history."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory, PendingWrite

from langgraph_valkey import limits, loading, operations, reads
from langgraph_valkey.checkpoints import Checkpoints
from langgraph_valkey.keys import namespace_of, thread_of, thread_pattern, to_bytes, to_text
from langgraph_valkey.link import Link
from langgraph_valkey.operations import Answer, Status
from langgraph_valkey.place import Place, place_of, place_of_thread
from langgraph_valkey.stored import records, writes
from langgraph_valkey.stored.codec import Damaged


async def threads(core: Checkpoints, link: Link) -> AsyncIterator[Place]:
    """Every thread on the server, each once, in no order.

    The names seen are kept while the walk lasts, since a scan may repeat itself.
    """
    seen: set[str] = set()
    cursor: Any = None
    while True:
        cursor, keys = await link.scan(cursor, thread_pattern(core.prefix))
        for key in keys:
            thread = thread_of(core.prefix, key)
            if thread not in seen:
                seen.add(thread)
                yield place_of_thread(core.prefix, thread)
        if cursor is None:
            return


async def list_checkpoints(
    core: Checkpoints,
    link: Link,
    config: RunnableConfig | None,
    criteria: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> AsyncGenerator[CheckpointTuple, None]:
    """Checkpoints, newest first; see `BaseCheckpointSaver.list`."""
    left = limit
    if left is not None and left <= 0:
        return
    bound = ((before or {}).get("configurable") or {}).get("checkpoint_id") or ""
    if config:
        async for found in _of_thread(
            core, link, place_of(core.prefix, config), criteria, bound, left
        ):
            yield found
        return
    async for place in threads(core, link):
        async for found in _of_thread(core, link, place, criteria, bound, left):
            yield found
            if left is not None:
                left -= 1
                if not left:
                    return


async def _of_thread(
    core: Checkpoints,
    link: Link,
    place: Place,
    criteria: Mapping[str, Any] | None,
    before: str,
    limit: int | None,
) -> AsyncIterator[CheckpointTuple]:
    if before and place.checkpoint_id >= before:
        return
    left = limit if limit is not None else -1
    walk = _filtered(core, link, place, criteria, before) if criteria else _all(
        core, link, place, before, limit
    )  # fmt: skip
    async for found in walk:
        yield found
        left -= 1
        if not left:
            return


async def _all(
    core: Checkpoints, link: Link, place: Place, before: str, limit: int | None
) -> AsyncIterator[CheckpointTuple]:
    page = limits.LIST_PAGE if limit is None else min(limit, limits.LIST_PAGE)
    async for items, chunks in core.pages(link, place, "all", before=before, limit=page):
        for raw_namespace, raw_id, record, entries, values in grouped(items, 5):
            checkpoint_id = to_text(raw_id)
            parsed = loading.parsed(core.codec, place, checkpoint_id, record)
            namespace, pending = namespace_of(raw_namespace), (entries, values)
            yield loading.load(
                core.codec, place, namespace, checkpoint_id, parsed, chunks, pending
            )[0]


async def _filtered(
    core: Checkpoints, link: Link, place: Place, criteria: Mapping[str, Any], before: str
) -> AsyncIterator[CheckpointTuple]:
    """Those whose metadata fit; nothing else of the others is read."""
    wanted = criteria.items()
    async for raw_namespace, raw_id, metadata in metadata_of(core, link, place, before):
        if not all(metadata.get(key) == value for key, value in wanted):
            continue
        config = place.config(namespace_of(raw_namespace), to_text(raw_id))
        found = await core.get_tuple(link, config)
        if found is not None:
            yield found._replace(config=config)


async def metadata_of(
    core: Checkpoints, link: Link, place: Place, before: str = ""
) -> AsyncIterator[tuple[bytes, bytes, Mapping[str, Any]]]:
    """Namespace and id, as they are stored, and metadata of each checkpoint, newest first."""
    load, codec = records.load_metadata, core.codec
    async for items, _ in core.pages(link, place, "meta", before=before):
        for at in range(0, len(items), 3):
            try:
                metadata = load(codec, items[at + 2])
            except Damaged as damage:
                raise place.corrupt(
                    str(damage), to_text(items[at + 1]), place.keys.state
                ) from damage
            yield items[at], items[at + 1], metadata


def grouped(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """What came in a row, a tuple of `size` at a time."""
    return [items[at : at + size] for at in range(0, len(items), size)]


async def ancestry(
    core: Checkpoints, link: Link, place: Place, checkpoint_id: str, *, builds: bool = False
) -> AsyncIterator[tuple[str, records.Record, tuple[bytes, list[bytes | None]]]]:
    """A checkpoint and its ancestors, towards the root.

    Stops where a parent is not there.

    Args:
        core: The saver's.
        link: Over which.
        place: The thread and the namespace.
        checkpoint_id: The checkpoint's id, or '' for the head.
        builds: Whether the caller builds upon what it reads, so that it is journaled.

    Yields:
        Id, record, and the entries and stored form of the writes.
    """
    namespace = place.namespace or ""
    seen: set[str] = set()
    while True:
        call = operations.history(place.keys, namespace, checkpoint_id, limit=limits.HISTORY_PAGE)
        answer = await core.read(link, place, call)
        if answer.status is Status.NONE:
            return
        core.require(place, answer)
        following, items, values, _ = answer.rest
        if builds:
            await _note(core, link, place, answer)
        taken = 0
        for raw_id, raw_record, entries in grouped(items, 3):
            at = to_text(raw_id)
            if at in seen:
                return  # A checkpoint that names itself as its ancestor.
            seen.add(at)
            end = taken + len(entries) // 16
            yield (
                at,
                loading.parsed(core.codec, place, at, raw_record),
                (entries, values[taken:end]),
            )
            taken = end
        if not following:
            return
        checkpoint_id = to_text(following)


async def _note(core: Checkpoints, link: Link, place: Place, answer: Answer) -> None:
    """Journal what others stored of a line of ancestors, with its chunks."""
    _, items, values, deadline_ms = answer.rest
    foreign = [
        loading.parsed(core.codec, place, to_text(raw_id), record)
        for raw_id, record, _ in grouped(items, 3)
        if core.window.rule.journals and records.entry_of(record)[:8] != core.writer.name
    ]
    if not foreign:
        return
    digests = list({digest for record in foreign for digest in record.digests})
    chunks: dict[bytes, bytes | None] = {}
    if digests:
        more = await core.read(link, place, operations.chunks(place.keys, digests))
        if more.status is Status.OK:
            chunks = dict(zip(digests, more.rest[0], strict=True))
    found, taken = [], 0
    for raw_id, record, entries in grouped(items, 3):
        end = taken + len(entries) // 16
        its = {d: chunks.pop(d) for d in records.digests_of(record) if d in chunks}
        found.append(reads.Found(raw_id, record, its, entries, values[taken:end]))
        taken = end
    namespace = place.namespace or ""
    where = core.window, core.writer.name, place, answer, deadline_ms, namespace
    reads.note(*where, found, link.now())


async def delta_history(
    core: Checkpoints, link: Link, config: RunnableConfig, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """See `BaseCheckpointSaver.get_delta_channel_history`."""
    place = place_of(core.prefix, config)
    found: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    seeds: dict[str, tuple[str, records.Record, records.Entry]] = {}
    left = {channel: to_bytes(channel) for channel in channels}
    target: records.Record | None = None
    parent: str | None = None
    async for checkpoint_id, record, pending in ancestry(
        core, link, place, place.checkpoint_id, builds=True
    ):
        parent = record.parent
        if target is None:
            target = record  # Its own writes belong to its children.
            continue
        if any(writes.may_mention(stored, left.values()) for stored in pending[1]):
            for write in reversed(_merged(core, place, checkpoint_id, pending)):
                if write.channel in left:
                    found[write.channel] += writes.load(core.codec, [write])
        if record.may_hold(left.values()):
            for entry in record.manifest:
                if left.pop(entry[0], None) is not None:
                    seeds[entry[0]] = checkpoint_id, record, entry
        if not left:
            break
    if left and target is not None and parent is not None:
        _require_line(core, place, target, parent, left)
    loaded = await _load_seeds(core, link, place, seeds)
    history: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        history[channel] = {"writes": found[channel][::-1]}
        if channel in loaded:
            history[channel]["seed"] = loaded[channel]
    return history


def _require_line(
    core: Checkpoints, place: Place, target: records.Record, gone: str, left: Collection[str]
) -> None:
    """Raise if an ancestor is gone from which a channel would have to be rebuilt."""
    metadata = records.load_metadata(core.codec, target.metadata)
    needed = set(left) & set(metadata.get("counters_since_delta_snapshot") or ())
    if needed:
        raise place.corrupt(
            f"a delta channel is rebuilt from its ancestor {gone!r}, which is gone",
            place.checkpoint_id,
            place.keys.state,
        )


def _merged(
    core: Checkpoints, place: Place, checkpoint_id: str, pending: tuple[bytes, list[bytes | None]]
) -> list[writes.Write]:
    try:
        return writes.merge(core.codec, *pending)
    except Damaged as damage:
        raise place.corrupt(str(damage), checkpoint_id, place.keys.state) from damage


async def _load_seeds(
    core: Checkpoints,
    link: Link,
    place: Place,
    seeds: Mapping[str, tuple[str, records.Record, records.Entry]],
) -> dict[str, Any]:
    """The values at which the walks ended, read with at most one call."""
    digests = list(
        {
            record.digest(index)
            for _, record, entry in seeds.values()
            for index in records.indices(entry)
        }
    )
    chunks: dict[bytes, bytes] = {}
    if digests:
        answer = await core.read(link, place, operations.chunks(place.keys, digests))
        core.require(place, answer)
        chunks = dict(zip(digests, answer.rest[0], strict=True))
    loaded: dict[str, Any] = {}
    for channel, (checkpoint_id, record, entry) in seeds.items():
        try:
            kind, plain, _, _ = records.load_value(core.codec, record, entry, chunks)
            loaded[channel] = core.codec.loads(kind, plain)
        except Damaged as damage:
            raise place.corrupt(str(damage), checkpoint_id, place.keys.state) from damage
    return loaded
