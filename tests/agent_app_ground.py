"""The demo's app, started for tests, and made whole again between them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from examples.agent_app.visitor import Visitor

WORD_S = 0.03
"""How long the model takes to say a word: so that there is a middle of a turn to be hit."""

_number = count(1)


def new_thread() -> str:
    """A conversation that no other test has."""
    return f"c-{next(_number)}"


def is_whole(visitor: Visitor) -> bool:
    """Whether nothing is broken, under way, or being mended."""
    state = visitor.state()
    cluster, agent = state["cluster"], state["agent"]
    fine = all(
        each["whole"] and not each["held"] and not each["rejecting"] for each in cluster["shards"]
    )
    idle = not any(each["running"] for each in state["threads"])
    return fine and idle and not cluster["mending"] and bool(agent["up"] and agent["recovered"])


def wait_whole(visitor: Visitor) -> None:
    visitor.until(lambda: is_whole(visitor) or None, "all in order", 60)


def wait_begun(visitor: Visitor, thread: str, run: str) -> None:
    """Wait until a turn is under way; on a machine that stalls it may have ended by then."""

    def look() -> bool | None:
        threads = visitor.state()["threads"]
        if any(each["thread"] == thread and each["running"] for each in threads):
            return True
        found = visitor.thread(thread)
        return (found is not None and run in found["turns"]) or None

    visitor.until(look, "a turn under way")


def shard_of(visitor: Visitor, thread: str) -> int:
    return next(
        int(each["shard"]) for each in visitor.state()["threads"] if each["thread"] == thread
    )


def wait_persisted(visitor: Visitor, shard: int) -> None:
    """Wait until all that a shard has accepted is persisted."""

    def look() -> bool | None:
        return visitor.state()["cluster"]["shards"][shard]["lag_s"] == 0 or None

    visitor.until(look, "all is persisted")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """The app of a module."""
    folder = tmp_path_factory.mktemp("agent-app")
    with Visitor(Path(folder, "data"), word_s=WORD_S) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """Another one, for what leaves the books wrong, or ends it."""
    folder = tmp_path_factory.mktemp("second-app")
    with Visitor(Path(folder, "data"), word_s=WORD_S) as visitor:
        yield visitor


@pytest.fixture
def visitor(app: Visitor) -> Iterator[Visitor]:
    """The same, with nothing broken before the test, nor after it."""
    wait_whole(app)
    yield app
    for shard in range(3):
        app.press("accept_writes", shard)
        app.press("release_log", shard)
        app.press("resume", shard)
    wait_whole(app)
