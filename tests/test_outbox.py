"""The outbox: at least once, again after failures, given up in the end, never in step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from langgraph_valkey.commits import outbox as outbox_module
from langgraph_valkey.commits.outbox import Drained
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import Message
from tests.outbox_ground import SECRET, TOPIC, Ground, failing, until


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path / "outbox.db")
    yield made
    for outbox in made.outboxes:
        assert outbox.stop()
    made.store.close()


# --- sending ---------------------------------------------------------------------------


def test_what_was_committed_is_sent_once(ground: Ground) -> None:
    ground.commit("1", {"cents": 5}, "second")
    outbox = ground.handling()
    assert outbox.drain() == Drained(sent=2)
    assert sorted(map(str, ground.bodies)) == ["second", "{'cents': 5}"]
    ground.make_due()
    assert outbox.drain() == Drained()
    assert [(each.op, each.key, each.attempts) for each in ground.seen] == [("charge", "1", 1)] * 2
    assert len({each.idempotency_key for each in ground.seen}) == 2


def test_only_topics_with_a_handler_are_taken(ground: Ground) -> None:
    ground.commit("1", topic="another")
    outbox = ground.handling()
    assert ground.outbox().drain() == Drained()  # Without any handler.
    assert outbox.drain() == Drained()
    outbox.handle("another", ground.seen.append)
    assert outbox.drain() == Drained(sent=1)


def test_a_topic_has_one_handler(ground: Ground) -> None:
    outbox = ground.handling()
    with pytest.raises(ValueError, match="'invoice'"):
        outbox.handle(TOPIC, print)


async def test_async_handlers_are_awaited_and_blocking_ones_run_in_threads(ground: Ground) -> None:
    outbox, threads = ground.outbox(), set[int]()

    @outbox.on(TOPIC)
    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        threads.add(threading.get_ident())

    outbox.handle("another", lambda _: threads.add(-threading.get_ident()))
    ground.commit("1")
    ground.commit("2", topic="another")
    assert await outbox.adrain() == Drained(sent=2)
    assert threading.get_ident() in threads
    assert -threading.get_ident() not in threads
    assert len(threads) == 2
    await ground.store.loops.close()


def test_the_worker_runs_async_handlers(ground: Ground) -> None:
    outbox = ground.outbox()

    @outbox.on(TOPIC)
    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        ground.seen.append(message)

    ground.commit("1")
    assert outbox.drain() == Drained(sent=1)
    ground.commit("2")
    outbox.start()
    until(lambda: len(ground.seen) == 2)


async def test_draining_async_handlers_where_a_loop_runs_says_what_to_do(ground: Ground) -> None:
    async def send(_: Message) -> None: ...

    outbox = ground.outbox()
    outbox.handle(TOPIC, send)
    with pytest.raises(RuntimeError, match=r"adrain\(\)"):
        outbox.drain()


# --- failures --------------------------------------------------------------------------


def test_what_failed_is_sent_again_later_by_the_same_key(ground: Ground) -> None:
    outbox = ground.outbox()
    tried = failing(outbox, 1)
    ground.commit("1")
    assert outbox.drain() == Drained(failed=1)
    assert outbox.drain() == Drained()  # Not due yet.
    ground.make_due()
    assert outbox.drain() == Drained(sent=1)
    assert [each.attempts for each in tried] == [1, 2]
    assert len({(each.id, each.idempotency_key) for each in tried}) == 1
    assert tried[1].error.startswith("OSError: no route")


def test_pauses_grow_up_to_a_bound_and_are_drawn(ground: Ground) -> None:
    outbox = ground.outbox(attempts_most=40)
    for attempts in range(1, 40):
        bound_s = min(2.0 ** (attempts - 1), outbox_module.AGAIN_MOST_S)
        drawn = {outbox._again_in_s(attempts) for _ in range(20)}
        assert len(drawn) > 1
        assert all(each is not None and bound_s / 2 <= each <= bound_s for each in drawn)
    assert outbox._again_in_s(40) is None


def test_what_fails_too_often_is_a_dead_letter_that_can_be_revived(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = ground.outbox(attempts_most=3)
    tried = failing(outbox, 3)
    ground.commit("1")
    found = []
    for _ in range(4):
        found.append(outbox.drain())
        ground.make_due()
    assert found == [Drained(failed=1), Drained(failed=1), Drained(dead=1), Drained()]
    [letter] = outbox.dead_letters()
    assert (letter.topic, letter.body, letter.attempts) == (TOPIC, SECRET, 3)
    assert letter.error == f"OSError: no route for {SECRET}"
    assert "was given up after 3 attempts (OSError)" in caplog.text
    assert SECRET not in caplog.text
    assert outbox.revive([letter.id, "no such"]) == 1
    assert outbox.drain() == Drained(sent=1)
    assert len(tried) == 4
    assert outbox.dead_letters() == []


async def test_dead_letters_on_the_async_face(ground: Ground) -> None:
    outbox = ground.outbox(attempts_most=1)
    failing(outbox, 1)
    ground.commit("1")
    assert await outbox.adrain() == Drained(dead=1)
    [letter] = await outbox.adead_letters(limit=5)
    assert await outbox.arevive([letter.id]) == 1
    assert await outbox.adrain() == Drained(sent=1)
    await ground.store.loops.close()


def test_one_that_fails_holds_up_no_other(ground: Ground) -> None:
    outbox = ground.outbox()
    tried = failing(outbox, 1)
    for number in range(5):
        ground.commit(str(number))
    assert outbox.drain() == Drained(sent=4, failed=1)
    assert len(tried) == 5


def test_a_message_that_ends_its_process_is_given_up_in_the_end(ground: Ground) -> None:
    """It is taken, and nothing is ever heard of it: as if the handler had killed us."""
    ground.commit("1")
    for _ in range(3):
        taken = finish(ground.store.blocking.take_messages([TOPIC], limit=1, for_s=30))
        assert len(taken) == 1
        ground.make_due()
    outbox = ground.handling(attempts_most=3)
    assert outbox.drain() == Drained(dead=1)
    assert ground.seen == []
    [letter] = outbox.dead_letters()
    assert "never came to an end" in letter.error


def test_a_handler_that_takes_longer_than_its_lease_is_told_of(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    slow, other = ground.outbox(lease_s=0.1), ground.handling()

    def send(message: Message) -> None:
        time.sleep(0.15)
        other.drain()

    slow.handle(TOPIC, send)
    ground.commit("1")
    assert slow.drain() == Drained(sent=1)
    assert ground.bodies == [SECRET]  # It was sent twice, as may be.
    assert "raise outbox_lease_s" in caplog.text
    assert SECRET not in caplog.text


def test_two_workers_do_not_send_the_same(ground: Ground) -> None:
    for number in range(30):
        ground.commit(str(number), number)
    one, other = ground.handling(), ground.handling()
    one.start()
    other.start()
    until(lambda: len(ground.seen) >= 30)
    assert one.stop()
    assert other.stop()
    assert sorted(ground.bodies) == list(range(30))
