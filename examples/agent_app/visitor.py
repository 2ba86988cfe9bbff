"""A visitor without a browser: starts the demo, and does over HTTP what the page does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from examples.agent.documents import REPOSITORY

WORD_S = 0.005
"""Nobody reads along."""

STARTED_DEADLINE_S = 60.0
ANSWER_DEADLINE_S = 60.0
LEAVE_DEADLINE_S = 30.0
POLL_S = 0.05

JUDGED = ("kept", "missing", "unjudged")
"""Entries of the timeline that end a fault."""

T = TypeVar("T")


class RefusedError(Exception):
    """The server refused.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, told: str) -> None:
        super().__init__(f"{status}: {told}")
        self.status = status


class Visitor:
    """The demo in a process of its own, and somebody who uses it.

    Args:
        folder: Where its data goes.
        word_s: How long the offline model takes to say a word.

    Attributes:
        url: Where the page is.
        process: The demo's process.
    """

    def __init__(self, folder: Path, *, word_s: float = WORD_S) -> None:
        options = ("--data-dir", str(folder), "--word-s", str(word_s), "--model", "offline")
        self.process = subprocess.Popen(  # noqa: S603 - this very demo
            [sys.executable, "-m", "examples.agent_app", "--port", "0", *options],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.url = self._told_url()

    def _told_url(self) -> str:
        assert self.process.stdout is not None
        told = ""
        for line in self.process.stdout:
            told += line
            if found := re.search(r"http://[\d.]+:\d+", line):
                return found[0]
        raise RuntimeError(f"the demo did not start:\n{told}")

    def leave(self) -> tuple[int, str]:
        """End it, as Ctrl-C does; its exit code, and what it said."""
        self.process.send_signal(signal.SIGINT)
        try:
            told, _ = self.process.communicate(timeout=LEAVE_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.leave()
        if self.process.stdout is not None:
            self.process.stdout.close()

    # --- asking ---------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for something under ``/api``.

        Raises:
            RefusedError: It was refused.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - it is ours
            f"{self.url}/api/{path}", data, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_DEADLINE_S) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                told = json.load(error).get("error", "")
            raise RefusedError(error.code, told) from None

    def state(self) -> dict[str, Any]:
        """All that a page begins with."""
        found: dict[str, Any] = self.ask("GET", "state")
        return found

    def until(self, what: Callable[[], T | None], about: str, deadline_s: float = 40.0) -> T:
        """Look again and again until there is something.

        Raises:
            TimeoutError: There was nothing in time.
        """
        until_s = time.monotonic() + deadline_s
        while time.monotonic() < until_s:
            if found := what():
                return found
            time.sleep(POLL_S)
        raise TimeoutError(f"{about}: not within {deadline_s:.0f} s\n{self.told()}")

    def told(self) -> str:
        """The timeline as text."""
        return "\n".join(
            f"{each['kind']}: {each['title']} | {each['text']}" for each in self.state()["timeline"]
        )

    # --- talking --------------------------------------------------------------------------

    def say(self, thread: str, text: str) -> str:
        """Say something; the run's id."""
        run: str = self.ask("POST", f"threads/{thread}/messages", {"text": text})["run"]
        return run

    def decide(self, thread: str, *, approve: bool) -> str:
        """Approve or decline; the run's id."""
        run: str = self.ask("POST", f"threads/{thread}/approval", {"approve": approve})["run"]
        return run

    def thread(self, thread: str) -> dict[str, Any] | None:
        """A conversation; None if it can't be read now."""
        try:
            found: dict[str, Any] = self.ask("GET", f"threads/{thread}")
        except RefusedError as error:
            if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
                return None
            raise
        return found

    def settled(self, thread: str, run: str = "", deadline_s: float = 60.0) -> dict[str, Any]:
        """Wait until a conversation is answered, or waits for approval.

        Args:
            thread: The conversation.
            run: A run of which something has to be there.
            deadline_s: For how long.
        """

        def look() -> dict[str, Any] | None:
            found = self.thread(thread)
            if found is None or found["running"] or found["under_way"]:
                return None
            if run.startswith("turn-") and run not in found["turns"]:
                return None
            return found if found["pending"] or not found["next"] else None

        return self.until(look, f"conversation {thread} at rest", deadline_s)

    # --- breaking -------------------------------------------------------------------------

    def press(self, fault: str, shard: int = 0) -> dict[str, Any]:
        """Press a button, once that can be."""

        def pressed() -> dict[str, Any] | None:
            try:
                return {"done": True, **self.ask("POST", f"faults/{fault}", {"shard": shard})}
            except RefusedError as error:
                if error.status == HTTPStatus.CONFLICT:
                    return None
                raise

        return self.until(pressed, f"button {fault}")

    def mark(self) -> int:
        """Where the timeline ends now."""
        entries = self.state()["timeline"]
        return entries[-1]["number"] if entries else 0

    def entry(
        self, kinds: str | Collection[str], after: int = 0, deadline_s: float = 90.0
    ) -> dict[str, Any]:
        """Wait for an entry of the timeline, of one of some kinds."""
        wanted = (kinds,) if isinstance(kinds, str) else kinds

        def look() -> dict[str, Any] | None:
            entries = self.state()["timeline"]
            return next((e for e in entries if e["number"] > after and e["kind"] in wanted), None)

        return self.until(look, f"an entry of {', '.join(wanted)}", deadline_s)

    def judged(self, after: int) -> dict[str, Any]:
        """Wait until a fault was mended, and what is left was compared."""
        return self.entry(JUDGED, after)

    def orders(self) -> list[dict[str, Any]]:
        """All orders, when the books were looked at after this call."""
        time.sleep(2 * 0.25 + POLL_S)
        orders: list[dict[str, Any]] = self.state()["ledger"]["orders"]
        return orders
