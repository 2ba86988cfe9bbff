"""What tests of the outbox share: a store, its outboxes, and what handlers were called with."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph_valkey.commits.commit import commit
from langgraph_valkey.commits.outbox import Outbox
from langgraph_valkey.commits.turns import Turn
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import PrimaryStore
from langgraph_valkey.primary.opening import open_store
from langgraph_valkey.primary.records import Message, Outgoing

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


def until(happened: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    give_up_s = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


def failing(outbox: Outbox, times: int) -> list[Message]:
    """Give it a handler that fails so often; what it was called with."""
    tried: list[Message] = []

    def send(message: Message) -> None:
        tried.append(message)
        if len(tried) <= times:
            raise OSError(f"no route for {SECRET}")

    outbox.handle(TOPIC, send)
    return tried
