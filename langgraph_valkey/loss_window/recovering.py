"""Replaying threads over a link: one at a time in the way of a call, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from langgraph_valkey import limits, operations
from langgraph_valkey.errors import (
    LanggraphValkeyError,
    OutcomeUnknown,
    Unreachable,
    WriteRejected,
)
from langgraph_valkey.keys import ThreadKeys
from langgraph_valkey.link import Call, Link, Reply
from langgraph_valkey.loss_window.recovery import Recovery
from langgraph_valkey.loss_window.replay import Replay
from langgraph_valkey.loss_window.report import RecoveryReport
from langgraph_valkey.loss_window.shards import Heard
from langgraph_valkey.loss_window.window import LossWindow
from langgraph_valkey.operations import Answer, Standing, Status

_ABSENT = (Status.NONE, Status.TORN)
_OUTAGES = (Unreachable, WriteRejected, OutcomeUnknown)


async def replay_thread(
    window: LossWindow, link: Link, thread: str, *, force: bool = False, patient: bool = True
) -> Replay | None:
    """Replay what is journaled of a thread; None if there is nothing to be replayed.

    Args:
        window: The saver's.
        link: Over which.
        thread: The thread's name.
        force: Also what the present primary itself has acknowledged.
        patient: Whether a refusal is waited out, as of a write.
    """
    for _ in range(limits.REPLAY_TRIES):
        replay = window.replay_of(thread, force=force)
        if replay is None:
            return None
        failure = await _run(window, link, [replay], patient=patient)
        if failure is not None:
            raise failure
        if replay.moved_to is None:
            return replay
        # Its primary was replaced once more.
    return None


async def _run(
    window: LossWindow, link: Link, replays: Sequence[Replay], *, patient: bool = True
) -> LanggraphValkeyError | None:
    """Replay threads side by side, page by page.

    Returns:
        Why some could not be replayed for now, if there are any.
    """
    failure: LanggraphValkeyError | None = None
    active = list(replays)
    while active:
        asked = [(replay, call) for replay in active if (call := replay.next()) is not None]
        for _, call in asked:
            call.patient = patient
        going_on = []
        for (replay, _), reply in zip(asked, await _send_each(link, asked), strict=True):
            if isinstance(reply, _OUTAGES):
                failure = failure or reply
                continue
            now_s = link.now()
            if isinstance(reply, LanggraphValkeyError):
                window.set_aside(replay, now_s)
                continue
            answer = operations.read(reply)
            window.heard(replay.keys, answer.identity, now_s)
            replay.take(answer)
            window.confirmed(replay, answer.identity or operations.ANYONE, now_s)
            if replay.moved_to is None:
                going_on.append(replay)
        for replay in active:
            if replay not in going_on:
                window.replayed(replay, link.now())
        active = going_on
    return failure


async def _send_each(
    link: Link, asked: Sequence[tuple[Replay, Call]]
) -> list[Reply | LanggraphValkeyError]:
    """What each call came to: one that fails must not hold up the others.

    A primary that does not answer, or refuses, does so for all its threads.
    """
    if not asked:
        return []
    try:
        return await link.send([call for _, call in asked])
    except LanggraphValkeyError as error:
        if len(asked) == 1:
            return [error]
    found: list[Reply | LanggraphValkeyError] = []
    away: dict[bytes, LanggraphValkeyError] = {}
    for replay, call in asked:
        if replay.primary in away:
            found.append(away[replay.primary])
            continue
        try:
            found += await link.send([call])
        except LanggraphValkeyError as error:
            found.append(error)
            if isinstance(error, _OUTAGES):
                away[replay.primary] = error
    return found


async def recover(
    window: LossWindow, link: Link, *, everything: bool = False, ends: bool = True
) -> RecoveryReport | None:
    """Replay all threads of which something may have been lost, the active ones first.

    Args:
        window: The saver's.
        link: Over which.
        everything: Replay all that is journaled, whether or not a primary was replaced.
        ends: Whether that may be all: no slot has still to be asked for who has it.

    Returns:
        What came of it; None if there was nothing to be replayed.

    Raises:
        Unreachable, WriteRejected, OutcomeUnknown: A shard does not take replays now;
            those of the others are done.
    """
    here = Recovery(b"", link.now())
    failure: LanggraphValkeyError | None = None
    threads = window.behind(everything=everything)
    for at in range(0, len(threads), limits.REPLAY_THREADS):
        some = threads[at : at + limits.REPLAY_THREADS]
        for _ in range(limits.REPLAY_TRIES):
            found = [window.replay_of(thread, force=everything) for thread in some]
            replays = [replay for replay in found if replay is not None]
            failure = await _run(window, link, replays) or failure
            for replay in replays:
                name = window.replays.reported(replay.thread)
                here.add(name, replay.outcome)
                if replay.missing:
                    here.give_up(name)
            # Those of a primary that turned out to be replaced once more.
            some = [replay.thread for replay in replays if replay.moved_to is not None]
            if not some:
                break
    if ends:
        window.recovered(link.now())
    if failure is not None:
        raise failure
    return here.report(link.now()) if threads else None


async def not_yet(
    window: LossWindow,
    link: Link,
    thread: str,
    keys: ThreadKeys,
    answer: Answer,
    known: Standing,
    tries: int,
    sent_s: float,
) -> bool:
    """Whether what was read must not be returned yet, but asked for again.

    Args:
        window: The saver's.
        link: Over which it was read.
        thread: The thread's name.
        keys: Its keys.
        answer: What was read.
        known: The thread as this process knew it before.
        tries: How often it was asked for before.
        sent_s: When it was asked for: it may be older than a replay that has ended.
    """
    is_stranger = window.is_stranger(answer.identity)
    heard = window.heard(keys, answer.identity, link.now())
    if is_stranger:
        await _ask_the_others(window, link, answer.identity)
    if heard is Heard.FORMER:
        await link.sleep(limits.FORMER_PAUSE_S)
        return True
    if window.is_recovering and await _replay_for_read(window, link, thread):
        return True
    good_from_s = window.readable_s(thread, answer.identity)
    if sent_s <= good_from_s:
        await link.sleep(max(0.0, good_from_s - link.now()))
        return True
    if not answer.may_hide_loss or tries or window.is_durable(thread):
        return False
    # All there is to go by is what it has.
    behind = answer.standing.gen == known.gen and answer.standing.stamp < known.stamp
    if (behind and known.exists) or answer.status in _ABSENT:
        replay = await replay_thread(window, link, thread, force=True)
        return replay is not None and replay.outcome.replayed > 0
    return False


async def _ask_the_others(window: LossWindow, link: Link, stranger: bytes) -> None:
    """Ask the primaries that are known whether they have their slots still.

    A primary that was never heard of is another shard, or has taken one over, and this
    process has asked for none of its slots yet.
    """
    for shard in window.vitals.shards():
        if shard.identity != stranger:
            with suppress(LanggraphValkeyError):  # It replaced none, if none answers for it.
                [reply] = await link.send([operations.chunks(shard.keys, ())])
                window.heard(shard.keys, operations.read(reply).identity, link.now())
    window.acquainted(stranger)


async def _replay_for_read(window: LossWindow, link: Link, thread: str) -> bool:
    """Replay a thread that is to be read; whether there was anything to be replayed.

    Raises:
        Unreachable: The server refuses writes, so what it lost can't be given back yet,
            and what it has must not pass for the thread.
    """
    until_s = link.now() + limits.READ_DEADLINE_S
    while True:
        try:
            replay = await replay_thread(window, link, thread, patient=False)
        except WriteRejected as refusal:
            if link.now() >= until_s:
                raise Unreachable(
                    f"another primary has taken over the shard of {window.replays.told(thread)} "
                    "and refuses writes, so what may have been lost can't be replayed yet: "
                    "call again"
                ) from refusal
            await link.sleep(limits.REFUSED_PAUSE_S)
        else:
            if replay is not None and replay.missing:
                await link.sleep(limits.REFUSED_PAUSE_S)  # Another process may bring it.
            return replay is not None
