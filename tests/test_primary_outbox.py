"""The outbox, and dropping what is old, on every store and both faces."""

from __future__ import annotations

import asyncio
import time

from langgraph_valkey.primary.records import Message, Purged, RunEnd
from tests.primary_ground import (
    Ground,
    asked,
    gathered,
    new_run,
    started,
)

LONG_S = 100.0


async def send(ground: Ground, *bodies: str, key: str = "A17", topic: str = "mail") -> None:
    """Commit with messages; bodies are JSON texts."""
    outbox = tuple((topic, body) for body in bodies)
    await ground.call("commit", asked(key, outbox=outbox), ground.adding(1))


async def take(
    ground: Ground, *topics: str, limit: int = 10, for_s: float = LONG_S
) -> list[Message]:
    """Take messages."""
    found: list[Message] = await ground.call(
        "take_messages", topics or ("mail",), limit=limit, for_s=for_s
    )
    return found


async def test_messages_are_those_of_their_commit(ground: Ground) -> None:
    await send(ground, '{"to":["a\\u0000"]}', "2")
    await send(ground, "3", key="other")
    messages = await take(ground)
    assert [message.body for message in messages] == [{"to": ["a\0"]}, 2, 3]
    assert [message.key for message in messages] == ["A17", "A17", "other"]
    assert {(m.op, m.topic, m.attempts, m.error) for m in messages} == {("charge", "mail", 1, "")}
    assert len({message.id for message in messages}) == 3
    assert len({message.idempotency_key for message in messages}) == 3
    assert all(abs(message.created_s - time.time()) < 2 for message in messages)


async def test_a_duplicate_sends_nothing(ground: Ground) -> None:
    await send(ground, "1")
    await send(ground, "1")
    assert len(await take(ground)) == 1


async def test_a_message_that_was_taken_is_nobody_elses(ground: Ground) -> None:
    await send(ground, "1", "2", "3")
    assert [message.body for message in await take(ground, limit=2, for_s=0.25)] == [1, 2]
    assert [message.body for message in await take(ground)] == [3]
    await asyncio.sleep(0.3)
    again = await take(ground)
    assert [(message.body, message.attempts) for message in again] == [(1, 2), (2, 2)]


async def test_takers_at_once_share_messages_out(ground: Ground) -> None:
    for n in range(4):
        await send(ground, *(str(5 * n + m) for m in range(5)), key=f"key {n}")
    taken = await gathered([take(ground, limit=3) for _ in range(8)])
    rest = await take(ground, limit=20)
    bodies = [message.body for messages in (*taken, rest) for message in messages]
    assert sorted(bodies) == list(range(20))
    assert all([m.body for m in each] == sorted(m.body for m in each) for each in taken)


async def test_only_the_topics_asked_for_are_taken(ground: Ground) -> None:
    await send(ground, "1", key="1", topic="mail")
    await send(ground, "2", key="2", topic="sms")
    assert await take(ground, "push") == []
    assert await ground.call("take_messages", [], limit=5, for_s=1) == []
    assert [message.body for message in await take(ground, "sms", "push")] == [2]
    assert [message.body for message in await take(ground, "sms", "mail")] == [1]


async def test_what_was_sent_is_gone(ground: Ground) -> None:
    await send(ground, "1", "2")
    first, second = await take(ground, for_s=0.05)
    await ground.call("sent_messages", [first.id, "no such message"])
    await ground.call("sent_messages", [])
    await asyncio.sleep(0.1)
    assert [message.id for message in await take(ground)] == [second.id]


async def test_what_could_not_be_sent_is_tried_again(ground: Ground) -> None:
    await send(ground, "1")
    [message] = await take(ground)
    await ground.call("failed_message", message.id, "refused: \0", 0.2)
    assert await take(ground) == []
    await asyncio.sleep(0.25)
    [again] = await take(ground)
    assert (again.id, again.attempts, again.error) == (message.id, 2, "refused: \0")
    assert again.idempotency_key == message.idempotency_key


async def test_dead_letters_are_seen_and_revived(ground: Ground) -> None:
    await send(ground, "1", "2")
    first, second = await take(ground)
    for message in (first, second):
        await ground.call("failed_message", message.id, "never", None)
    assert [message.id for message in await ground.call("dead_letters", limit=1)] == [first.id]
    dead = await ground.call("dead_letters", limit=5)
    assert [(m.id, m.error, m.body) for m in dead] == [
        (first.id, "never", 1),
        (second.id, "never", 2),
    ]
    assert await take(ground) == []
    assert await ground.call("revive_messages", [second.id, "no such message"]) == 1
    assert await ground.call("revive_messages", [second.id]) == 0
    [again] = await take(ground)
    assert (again.id, again.attempts) == (second.id, 1)
    assert [message.id for message in await ground.call("dead_letters", limit=5)] == [first.id]


# --- dropping what is old --------------------------------------------------------------------


async def test_what_is_old_is_dropped(ground: Ground) -> None:
    await send(ground, key="plain")
    done, open_ = await started(ground), await started(ground, new_run("open", "other"))
    await ground.call("end_run", done.fence, RunEnd("failed", "", 0))
    tomb = await ground.call("bury", "thread")
    await ground.call("buried", tomb, "1-stamp")
    assert await ground.call("purge", LONG_S) == Purged(0, 0, 0)
    await asyncio.sleep(0.3)
    await send(ground, key="late")
    assert await ground.call("purge", 0.2) == Purged(commits=1, runs=1, tombstones=1)
    assert await ground.call("receipt", asked("plain").key) is None
    assert await ground.call("receipt", asked("late").key) is not None
    assert [each.key for each in await ground.call("receipts", "thread", "turn")] == ["late"]
    assert await ground.call("run", "run") is None
    assert await ground.call("run", "open") == open_
    assert await ground.call("tombstone", "thread") is None


async def test_a_commit_is_kept_until_all_its_messages_were_sent(ground: Ground) -> None:
    await send(ground, "1", "2")
    first, second = await take(ground)
    await asyncio.sleep(0.1)
    assert (await ground.call("purge", 0.05)).commits == 0
    await ground.call("sent_messages", [first.id])
    await ground.call("failed_message", second.id, "never", None)
    assert (await ground.call("purge", 0.05)).commits == 0
    assert (await ground.call("receipt", asked().key)).replayed
    await ground.call("sent_messages", [second.id])
    assert (await ground.call("purge", 0.05)).commits == 1
