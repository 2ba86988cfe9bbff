"""Calling the handlers of messages, blocking or async, on either face.

What a handler is, only its result tells for certain: a lambda that calls a coroutine
function looks like any other, and returns a coroutine that has yet to be run. So what
can be awaited is awaited, wherever it comes from; a message whose coroutine was dropped
would count as sent.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import anyio.to_thread

from langgraph_valkey.primary.records import Message

Handler: TypeAlias = Callable[[Message], Any]
"""Sends one message, blocking or async; what it returns does not matter."""

HandlerT = TypeVar("HandlerT", bound=Handler)


class LoopRuns(RuntimeError):
    """An async handler can't be run to its end where an event loop runs."""

    def __init__(self) -> None:
        super().__init__("an event loop runs here: await adrain() instead of drain()")


async def call_blocking(handler: Handler, message: Message) -> None:
    """Call a handler in this thread, also an async one; never suspends.

    Raises:
        LoopRuns: It is async, and a loop runs here. Nothing of it was run.
        BaseException: Whatever it raises.
    """
    result = handler(message)
    if not inspect.isawaitable(result):
        return
    if loop_runs():
        if inspect.iscoroutine(result):
            result.close()
        raise LoopRuns
    asyncio.run(_to_its_end(result))


async def call_async(handler: Handler, message: Message) -> None:
    """Call a handler: an async one here, another in a worker thread.

    Raises:
        BaseException: Whatever it raises.
    """
    if is_async(handler):
        await handler(message)
        return
    result = await anyio.to_thread.run_sync(handler, message)
    if inspect.isawaitable(result):
        await result


async def _to_its_end(awaitable: Awaitable[Any]) -> None:
    await awaitable


def is_async(handler: Handler) -> bool:
    """Whether a handler shows that it is async: a function, or an object called as one."""
    called = getattr(handler, "__call__", None)  # noqa: B004 - not whether, but how
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)


def loop_runs() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_failure(error: BaseException) -> bool:
    """Whether a handler failed by this, and nobody wants the caller to end by it.

    A handler may raise anything: `CancelledError` because a task of its own was
    cancelled, `SystemExit` because a library wants to leave. In the main thread
    `SystemExit` and `KeyboardInterrupt` come from signals, too.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task() if loop_runs() else None
        return task is None or not task.cancelling()
    if isinstance(error, GeneratorExit):
        return False
    return isinstance(error, Exception) or (
        threading.current_thread() is not threading.main_thread()
    )
