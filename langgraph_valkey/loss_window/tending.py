"""What has to be done beside the calls: beats, looks, replays and trimming."""

from __future__ import annotations

import time

from langgraph_valkey import limits, operations
from langgraph_valkey.errors import LanggraphValkeyError
from langgraph_valkey.link import Link
from langgraph_valkey.loss_window.entries import unpacked
from langgraph_valkey.loss_window.recovering import recover
from langgraph_valkey.loss_window.shards import Shard
from langgraph_valkey.loss_window.window import LossWindow

DRAIN_PAUSE_S = 0.05
"""Pause between two looks while waiting for what was written to be durable."""


async def tend(window: LossWindow, link: Link) -> None:
    """One round, over a link that does not try again.

    A shard that does not answer is left for the next round; `window.in_trouble`
    says that there is one.
    """
    troubled = False
    for shard in window.vitals.shards():
        try:
            await _look_after(window, link, shard)
        except LanggraphValkeyError as failure:
            window.failed(shard.keys.slot, failure, link.now())
            troubled = True
    if window.is_recovering or window.behind():
        try:
            await _verify(window, link)
        except LanggraphValkeyError:
            troubled = True
        try:
            await recover(window, link, ends=not window.vitals.to_verify())
        except LanggraphValkeyError:
            troubled = True
    window.in_trouble = troubled
    window.trim(link.now())
    window.purge()


def adopt(window: LossWindow) -> None:
    """Take over what processes that are gone left in the spool's directory."""
    now_s = time.monotonic()
    if window.spool is None or now_s - window.adopted_s < limits.ADOPT_S:
        return
    window.adopted_s = now_s
    for adopted in window.spool.adopt():
        for row in adopted.rows():
            window.adopt(unpacked(row), now_s)
        adopted.finish()


async def _look_after(window: LossWindow, link: Link, shard: Shard) -> None:
    now_s = link.now()
    if window.vitals.needs_beat(shard.identity, now_s):
        [reply] = await link.send([operations.beat(shard.keys)])
        answer = operations.read(reply)
        window.heard(shard.keys, answer.identity, link.now())
        window.vitals.beaten(answer.identity, now_s, link.now())
    if window.vitals.needs_look(shard.identity, now_s, in_trouble=window.in_trouble):
        [reply] = await link.send([operations.look(shard.keys)])
        answer = operations.read(reply)
        window.heard(shard.keys, answer.identity, link.now())
        info, system = (text.decode(errors="replace") for text in answer.rest)
        window.vitals.looked(answer.identity, now_s, info, system)


async def _verify(window: LossWindow, link: Link) -> None:
    """Ask for each slot of a primary that was replaced in one, who has it now."""
    for identity, keys in window.vitals.to_verify().items():
        asked_s = link.now()
        for at in range(0, len(keys), limits.VERIFY_PAGE):
            some = keys[at : at + limits.VERIFY_PAGE]
            replies = await link.send([operations.chunks(each, ()) for each in some])
            for each, reply in zip(some, replies, strict=True):
                window.heard(each, operations.read(reply).identity, link.now())
        window.vitals.verified(identity, asked_s)


async def drain(window: LossWindow, link: Link, until_s: float, unreachable_s: float) -> bool:
    """Tend until all is durable; whether it is, or never will be for want of a replica.

    Not being told when it is, since the server hides who it is, is no reason to wait.

    Args:
        window: The saver's.
        link: Over which.
        until_s: When to give up, on the link's clock.
        unreachable_s: For how long to go on while a server does not answer.
    """
    answered_s = link.now()
    while not window.is_durable():
        await tend(window, link)
        now_s = link.now()
        if not window.in_trouble:
            answered_s = now_s
        if window.is_durable() or window.is_hopeless():
            return True
        if window.is_blind or now_s >= until_s or now_s - answered_s >= unreachable_s:
            return False
        await link.sleep(DRAIN_PAUSE_S)
    return True


async def wait_durable(
    window: LossWindow, link: Link, thread: str | None, timeout_s: float
) -> bool:
    """Wait until nothing of a thread, or of all, is journaled any more; whether that came."""
    until_s = link.now() + timeout_s
    while not window.is_durable(thread):
        if link.now() >= until_s:
            return False
        await link.sleep(DRAIN_PAUSE_S)
    return True
