"""Durable deletes: what was deleted stays so, whatever is lost with the deleter.

The tombstone in the primary store is written first: from then on the thread is deleted,
and whoever meets it completes that. Then it goes from the tier, then from the Valkey
server, whose stamp of the deletion is added to the tombstone. By that stamp the life
that ended is told from one that was begun anew after it.

If the deleter dies before it has the stamp, the tombstone's own time stands for it.
That is the primary store's clock, so a thread that is begun anew within the difference
of the two servers' clocks is taken for the old one.
"""

from __future__ import annotations

from langgraph_valkey.boundary.carrying import Side, address, label_of
from langgraph_valkey.boundary.faces import TierFace
from langgraph_valkey.boundary.joining import deletion, rejoin
from langgraph_valkey.place import Place, place_of_thread
from langgraph_valkey.primary.records import Tombstone

PAGE = 200
"""Tombstones read at once: about 20 KiB."""


def stamp_of(tomb: Tombstone) -> bytes:
    """Up to which creation threads are dead by it, 16 digits."""
    return tomb.stamp.encode() or b"%016d" % round(tomb.buried_s * 1e6)


async def clear(tier: TierFace, thread: str, stamp: bytes) -> None:
    """Delete what the tier has of a thread, unless that was begun after the deletion."""
    top = await tier.get_tuple(address(thread, ""))
    if top is not None and label_of(top).gen.encode() <= stamp:
        await tier.delete_thread(thread)


async def complete(side: Side, place: Place, tomb: Tombstone) -> bool:
    """Delete again what a tombstone says is deleted; see the module.

    Args:
        side: The face.
        place: The thread.
        tomb: Its tombstone.

    Returns:
        Whether the Valkey server did not know of the deletion.
    """
    stamp = stamp_of(tomb)
    if side.tier is not None and not tomb.stamp:  # Else it went from there before.
        await clear(side.tier, place.thread, stamp)
    entry = deletion(side, place, stamp)
    done = await rejoin(side.core.window, side.link, place, [entry], {})
    side.core.known.forget(place.thread)
    if not tomb.stamp and side.primary is not None:
        await side.primary.buried(tomb, stamp.decode())
    return done.outcome.replayed > 0


async def rebury(side: Side, since_s: float) -> int:
    """Complete all deletions of the last while; how many the Valkey server did not know of."""
    assert side.primary is not None
    count = 0
    after: tuple[float, str] | None = None
    while True:
        page = await side.primary.tombstones(since_s=since_s, after=after, limit=PAGE)
        for tomb in page:
            place = place_of_thread(side.core.prefix, tomb.thread_id)
            count += await complete(side, place, tomb)
        if len(page) < PAGE:
            return count
        after = page[-1].buried_s, page[-1].thread_id
