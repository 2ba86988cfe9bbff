"""The outbox: at least once, again after failures, given up in the end, never in step."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey import outbox as outbox_module
from langgraph_valkey.commits import commit
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.outbox import Drained, Outbox
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.primary.records import Message, Outgoing
from langgraph_valkey.turns import Turn

TOPIC = "invoice"
SECRET = "4711-secret-body"


class Ground:
    """A store with an outbox, and what its handler was called with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: PrimaryStore = open_store(f"sqlite:///{path}")
        finish(self.store.blocking.setup())
        self.outboxes: list[Outbox] = []
        self.seen: list[Message] = []

    def outbox(self, **options: Any) -> Outbox:
        options = {"poll_s": 0.05, "lease_s": 30.0, "attempts_most": 3} | options
        made = Outbox(self.store, **options)
        self.outboxes.append(made)
        return made

    def handling(self, **options: Any) -> Outbox:
        made = self.outbox(**options)
        made.handle(TOPIC, self.seen.append)
        return made

    def commit(self, key: str, *bodies: Any, topic: str = TOPIC) -> None:
        """Commit under a key, with these messages."""
        messages = [Outgoing(topic, body) for body in bodies or (SECRET,)]
        turn = Turn("thread", "turn", None, "", "")
        asked = ("charge", key, None, lambda _: None, "turn", "raise", messages)
        finish(commit(self.store.blocking, turn, *asked))  # type: ignore[arg-type]

    def make_due(self) -> None:
        """Have all that waits be due now."""
        with sqlite3.connect(self.path) as database:
            database.execute("UPDATE lgv_outbox SET due_s = 0 WHERE due_s > 0")
        database.close()

    @property
    def bodies(self) -> list[Any]:
        return [message.body for message in self.seen]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path / "outbox.db")
    yield made
    for outbox in made.outboxes:
        assert outbox.stop()
    made.store.close()


def until(happened: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    give_up_s = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


# --- sending ---------------------------------------------------------------------------


def test_what_was_committed_is_sent_once(ground: Ground) -> None:
    ground.commit("1", {"cents": 5}, "second")
    outbox = ground.handling()
    assert outbox.drain() == Drained(sent=2)
    assert sorted(map(str, ground.bodies)) == ["second", "{'cents': 5}"]
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


def failing(outbox: Outbox, times: int) -> list[Message]:
    """Give it a handler that fails so often; what it was called with."""
    tried: list[Message] = []

    def send(message: Message) -> None:
        tried.append(message)
        if len(tried) <= times:
            raise OSError(f"no route for {SECRET}")

    outbox.handle(TOPIC, send)
    return tried


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


# --- the worker ------------------------------------------------------------------------


def test_a_commit_wakes_the_worker_at_once(ground: Ground) -> None:
    outbox = ground.handling(poll_s=3600.0)
    outbox.start()
    for number in range(5):
        until(lambda: outbox.health().working)
        ground.commit(str(number))
        outbox.wake()
        until(lambda at=number: len(ground.seen) == at + 1)  # type: ignore[misc]


def test_the_worker_finds_what_others_committed(ground: Ground) -> None:
    outbox = ground.handling(poll_s=0.05)
    outbox.start()
    ground.commit("1")
    until(lambda: ground.bodies == [SECRET])


def test_a_worker_that_is_not_wanted_is_not_woken(ground: Ground) -> None:
    outbox = ground.handling()
    ground.commit("1")
    outbox.wake()
    assert not outbox.health().working
    outbox.start()
    until(lambda: ground.bodies == [SECRET])
    assert outbox.stop()
    assert outbox.stop()
    ground.commit("2")
    outbox.wake()
    assert not outbox.health().working


def test_stopping_waits_for_the_handler_under_way_and_no_longer(ground: Ground) -> None:
    outbox, entered, leave = ground.outbox(), threading.Event(), threading.Event()

    def send(message: Message) -> None:
        entered.set()
        leave.wait(20)
        ground.seen.append(message)

    outbox.handle(TOPIC, send)
    ground.commit("1")
    ground.commit("2")
    outbox.start()
    assert entered.wait(20)
    assert not outbox.stop(timeout_s=0.05)
    leave.set()
    until(lambda: not any(t.name == "langgraph-valkey-outbox" for t in threading.enumerate()))
    assert len(ground.seen) == 1  # The other one was not begun.


def test_a_handler_may_stop_the_worker(ground: Ground) -> None:
    outbox = ground.outbox()
    outbox.handle(TOPIC, lambda _: outbox.stop() and None)
    ground.commit("1")
    outbox.start()
    until(lambda: not outbox.health().working)


def test_the_worker_is_collected_with_its_outbox(ground: Ground) -> None:
    outbox = ground.handling(poll_s=3600.0)
    outbox.start()
    ground.outboxes.clear()
    del outbox
    gc.collect()
    until(lambda: not any(t.name == "langgraph-valkey-outbox" for t in threading.enumerate()))


def test_the_worker_outlives_an_outage(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outbox, take = ground.handling(), type(ground.store.blocking).take_messages
    failures = 3

    async def away(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal failures
        if self is ground.store.blocking and failures:
            failures -= 1
            raise Unreachable("the primary store does not answer")
        return await take(self, *args, **options)

    monkeypatch.setattr(type(ground.store.blocking), "take_messages", away)
    ground.commit("1")
    with caplog.at_level(logging.WARNING, "langgraph_valkey"):
        outbox.start()
        until(lambda: outbox.health().trouble == "Unreachable")
        until(lambda: ground.bodies == [SECRET])
    until(lambda: outbox.health().trouble == "")
    assert len([each for each in caplog.records if "Unreachable" in each.message]) == 1


def test_a_forked_child_has_a_worker_of_its_own(ground: Ground) -> None:
    outbox = ground.outbox(poll_s=3600.0)
    results: Any = multiprocessing.get_context("fork").SimpleQueue()

    def note(message: Message) -> None:
        results.put((os.getpid(), message.body))

    outbox.handle(TOPIC, note)
    outbox.start()

    def child() -> None:
        outbox.handle("child", note)
        ground.commit("1", "from the child", topic="child")
        outbox.wake()
        until(lambda: outbox.health().sent == 1)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert results.get() == (process.pid, "from the child")
    process.join(20)
    assert process.exitcode == 0
    ground.commit("2", "from the parent")
    outbox.wake()
    assert results.get() == (os.getpid(), "from the parent")


def test_health_counts(ground: Ground) -> None:
    outbox = ground.outbox(attempts_most=1)
    failing(outbox, 1)
    ground.commit("1", 1, 2)
    outbox.drain()
    health = outbox.health()
    assert (health.sent, health.failed, health.dead, health.topics) == (1, 0, 1, (TOPIC,))
    assert not health.working
