"""The outbox's worker: woken, stopped, collected, forked, and alive through outages."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.commits.outbox import Outbox
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.primary.records import Message
from tests.outbox_ground import SECRET, TOPIC, Ground, failing, until


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path / "outbox.db")
    yield made
    for outbox in made.outboxes:
        assert outbox.stop()
    made.store.close()


# --- the worker ------------------------------------------------------------------------


def start_idle(ground: Ground, outbox: Outbox) -> None:
    """Start the worker, and wait until it has nothing to do."""
    ground.commit("0")
    outbox.start()
    until(lambda: outbox.health().sent == 1)
    time.sleep(0.1)  # It looks once more, and waits then.


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
    until(lambda: outbox.health().sent == 1)


def test_the_worker_is_collected_with_its_outbox(ground: Ground) -> None:
    outbox = ground.handling(poll_s=3600.0)
    start_idle(ground, outbox)
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
    start_idle(ground, outbox)
    assert results.get() == (os.getpid(), SECRET)

    def child() -> None:
        outbox.handle("child", note)
        ground.commit("1", "from the child", topic="child")
        outbox.wake()
        until(lambda: outbox.health().sent == 2)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    with outbox._lock:  # As if a thread of the parent held it just now.
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
