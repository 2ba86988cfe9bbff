"""Handlers of all kinds: those that only turn out to be async, and those that raise anything."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_valkey.commits.outbox import Drained
from langgraph_valkey.primary.records import Message
from tests.outbox_ground import TOPIC, Ground, until


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path / "outbox.db")
    yield made
    for outbox in made.outboxes:
        assert outbox.stop()
    made.store.close()


# --- async in disguise -------------------------------------------------------------------


async def send(seen: list[Message], message: Message) -> None:
    await asyncio.sleep(0)
    seen.append(message)


class Sender:
    """An object that is called as a coroutine function."""

    def __init__(self, seen: list[Message]) -> None:
        self._seen = seen

    async def __call__(self, message: Message) -> None:
        await send(self._seen, message)


class Later:
    """What can be awaited, and is no coroutine."""

    def __init__(self, seen: list[Message], message: Message) -> None:
        self._sent = (seen, message)

    def __await__(self) -> Any:
        return send(*self._sent).__await__()


Making = Callable[[list[Message]], Callable[[Message], Any]]

DISGUISES: dict[str, Making] = {
    "lambda": lambda seen: lambda message: send(seen, message),
    "partial": lambda seen: functools.partial(send, seen),
    "object": Sender,
    "awaitable": lambda seen: lambda message: Later(seen, message),
}


@pytest.fixture(params=DISGUISES)
def disguised(request: pytest.FixtureRequest, ground: Ground) -> Callable[[Message], Any]:
    return DISGUISES[request.param](ground.seen)


def test_what_is_async_in_disguise_is_run(
    ground: Ground, disguised: Callable[[Message], Any]
) -> None:
    outbox = ground.outbox()
    outbox.handle(TOPIC, disguised)
    ground.commit("1", 1)
    assert outbox.drain() == Drained(sent=1)
    assert ground.bodies == [1]
    ground.commit("2", 2)
    outbox.start()
    until(lambda: ground.bodies == [1, 2])


async def test_what_is_async_in_disguise_is_awaited(
    ground: Ground, disguised: Callable[[Message], Any]
) -> None:
    outbox = ground.outbox()
    outbox.handle(TOPIC, disguised)
    ground.commit("1", 1)
    assert await outbox.adrain() == Drained(sent=1)
    assert ground.bodies == [1]
    await ground.store.loops.close()


async def test_what_is_async_in_disguise_is_not_lost_where_a_loop_runs(
    ground: Ground, disguised: Callable[[Message], Any]
) -> None:
    outbox = ground.outbox()
    outbox.handle(TOPIC, disguised)
    ground.commit("1", 1)
    with pytest.raises(RuntimeError, match=r"adrain\(\)"):
        outbox.drain()
    assert ground.bodies == []
    assert await outbox.adrain() == Drained(sent=1)
    await ground.store.loops.close()


# --- whatever a handler raises ------------------------------------------------------------


def leave(_: Message) -> None:
    sys.exit(3)


def cancelled(_: Message) -> None:
    raise asyncio.CancelledError


async def cancelled_later(_: Message) -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


async def leave_later(_: Message) -> None:
    await asyncio.sleep(0)
    sys.exit(3)


@pytest.mark.parametrize("handler", [leave, cancelled, cancelled_later, leave_later])
def test_the_worker_outlives_whatever_a_handler_raises(
    ground: Ground, handler: Callable[[Message], Any]
) -> None:
    outbox = ground.handling(poll_s=3600.0)
    outbox.handle("odd", handler)
    ground.commit("1", topic="odd")
    ground.commit("2", "after it")
    outbox.start()
    until(lambda: ground.bodies == ["after it"])
    until(lambda: (outbox.health().failed, outbox.health().sent) == (1, 1))
    assert outbox.health().working


@pytest.mark.parametrize("handler", [cancelled, cancelled_later])
async def test_a_handler_that_is_cancelled_has_failed(
    ground: Ground, handler: Callable[[Message], Any]
) -> None:
    outbox = ground.outbox(attempts_most=1)
    outbox.handle(TOPIC, handler)
    ground.commit("1")
    assert await outbox.adrain() == Drained(dead=1)
    [letter] = await outbox.adead_letters()
    assert letter.error.startswith("CancelledError")
    await ground.store.loops.close()


async def test_a_pass_that_is_cancelled_ends(ground: Ground) -> None:
    """That is the caller's wish, and no failure of the handler's."""
    outbox, entered = ground.outbox(attempts_most=1), asyncio.Event()

    async def wait(_: Message) -> None:
        entered.set()
        await asyncio.sleep(60)

    outbox.handle(TOPIC, wait)
    ground.commit("1")
    passing = asyncio.create_task(outbox.adrain())
    await entered.wait()
    passing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await passing
    assert await outbox.adead_letters() == []
    await ground.store.loops.close()


def test_who_leaves_the_main_thread_leaves(ground: Ground) -> None:
    """A signal's handler may have raised it."""
    assert threading.current_thread() is threading.main_thread()
    outbox = ground.outbox()
    outbox.handle(TOPIC, leave)
    ground.commit("1")
    with pytest.raises(SystemExit):
        outbox.drain()
    assert outbox.dead_letters() == []
