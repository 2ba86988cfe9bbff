"""Each method of a saver as a call on a filled thread, and all that a failure tells."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any

from tests.faces import Face, Twin, checkpoint, config, metadata, numbered_id

MARK = "marked-5d1e"
"""Stands in all state, metadata and writes of `fill`: no error and no log may repeat it."""

LAST = 4
"""How many checkpoints `fill` puts."""


def state(number: int) -> list[str]:
    """A list of several stored pieces."""
    return [f"{MARK} {n} " + "word " * 20 for n in range(60 * number)]


async def fill(face: Face, thread_id: str = "t") -> Twin:
    """A thread with long and short values, metadata and pending writes."""
    twin = Twin(face)
    for number in range(1, LAST + 1):
        about = metadata(number, note=f"{MARK} {number}", run_id=f"run {number}")
        where = await twin.step(
            thread_id, number, about=about, messages=state(number), short=f"{MARK} short {number}"
        )
        await twin.write(where, [("messages", f"{MARK} write")], "task")
        await twin.write(where, [("messages", [MARK * 400])], "other task")
    return twin


async def put_next(face: Face, twin: Twin, thread_id: str = "t", number: int = LAST + 1) -> Any:
    """Put a child of the thread's last checkpoint; the twin does not learn of it."""
    parent = twin.last[thread_id, ""]
    made, new_versions = checkpoint(numbered_id(number), {"short": f"{MARK} next"}, parent=parent)
    return await face.aput(config(thread_id, "", parent["id"]), made, metadata(9), new_versions)


Calls = Mapping[str, Callable[[], Awaitable[Any]]]


def reads(face: Face) -> Calls:
    """Every way to read the thread that `fill` made."""
    return {
        "get_tuple": lambda: face.aget_tuple(config("t")),
        "get_tuple by id": lambda: face.aget_tuple(config("t", "", numbered_id(LAST))),
        "list": lambda: face.listed(config("t")),
        "list all threads": lambda: face.listed(None),
        "list some": lambda: face.listed(config("t"), filter={"step": 2}),
        "history": lambda: face.aget_delta_channel_history(
            config=config("t"), channels=["messages"]
        ),
    }


def writes(face: Face, twin: Twin) -> Calls:
    """Every way to change it."""
    at = config("t", "", numbered_id(LAST))
    return {
        "put": lambda: put_next(face, twin),
        "put_writes": lambda: face.aput_writes(at, [("short", f"{MARK} late")], "third task"),
        "copy_thread": lambda: face.acopy_thread("t", "copy"),
        "prune": lambda: face.aprune(["t"]),
        "delete_for_runs": lambda: face.adelete_for_runs(["run 2"]),
        "prune all": lambda: face.aprune(["t"], strategy="delete"),
        "delete_thread": lambda: face.adelete_thread("t"),
    }


def every(face: Face, twin: Twin) -> Calls:
    """All of them, and setting up."""
    return {**reads(face), **writes(face, twin), "setup": lambda: face.call("setup")}


async def outcomes(calls: Calls) -> dict[str, tuple[Any, float]]:
    """Make all calls at once; what each returned or raised, and after how many seconds."""

    async def one(call: Callable[[], Awaitable[Any]]) -> tuple[Any, float]:
        start = time.monotonic()
        try:
            result: Any = await call()
        except Exception as error:
            result = error
        return result, time.monotonic() - start

    found = await asyncio.gather(*(one(call) for call in calls.values()))
    return dict(zip(calls, found, strict=True))


def told(error: BaseException) -> str:
    """All that an error says, and those it came from, wherever a log may look."""
    parts = []
    for each in _chain(error, set()):
        parts += [str(each), repr(each), repr(each.args), repr(vars(each))]
    parts += traceback.format_exception(error)
    return "\n".join(parts)


def _chain(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    if error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        yield from _chain(error.__cause__, seen)
        yield from _chain(error.__context__, seen)


def assert_silent(errors: Collection[BaseException], log: str = "") -> None:
    """No error and no log record repeats what users keep."""
    for error in errors:
        assert MARK not in told(error)
    assert MARK not in log
