"""A bound on how long a database may leave a question unanswered.

A server, or a proxy before it, may hold a connection and never answer on it. The
system sees nothing wrong with it, and a driver waits for ever: a blocking one in a
thread that nothing can wake, an async one even after its task was cancelled. What ends
both is to shut the connection's socket down. So a thread looks after the questions that
are under way; it lives only while there are some.

Waiting for other transactions is part of an answer's time, so the server bounds that
by less (`sql_engines.LOCK_TIMEOUT_S`).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from langgraph_valkey.fork import renew_after_fork

ANSWER_S = 15.0
"""How long PostgreSQL may take for the statements that are sent in one go."""

LOOK_S = 0.25
"""How often the thread looks."""


class Asker(Protocol):
    """A driver's connection."""

    def fileno(self) -> int:
        """The number of its socket; an exception if it is closed."""
        ...


@dataclass(eq=False, slots=True)
class _Question:
    """A question under way: by whom, and until when the answer has to be there."""

    asker: Asker
    until_s: float


class Answers:
    """Looks after questions to servers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[_Question] = set()
        self._is_looking = False
        renew_after_fork(self)

    @contextmanager
    def within(self, for_s: float, asker: Asker) -> Iterator[None]:
        """Shut a socket down if this takes too long; who waits on it sees it broken.

        Args:
            for_s: How long it may take.
            asker: The connection, which nobody else uses meanwhile.
        """
        question = _Question(asker, time.monotonic() + for_s)
        with self._lock:
            self._open.add(question)
            if not self._is_looking:
                self._start()
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(question)

    def _start(self) -> None:
        with suppress(RuntimeError):  # The process is about to end: there is no bound then.
            threading.Thread(target=self._look, name="lgv-answers", daemon=True).start()
            self._is_looking = True

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                now_s = time.monotonic()
                for question in self._open:
                    if question.until_s < now_s:
                        _shut_down(question.asker)
                if not self._open:
                    self._is_looking = False
                    return

    def after_fork(self) -> None:
        """Nothing is under way in a child."""
        self._lock = threading.Lock()
        self._open = set()
        self._is_looking = False


def _shut_down(asker: Asker) -> None:
    with suppress(Exception):  # It is shut down, or closed, already.
        shut = socket.socket(fileno=asker.fileno())
        try:
            shut.shutdown(socket.SHUT_RDWR)
        finally:
            shut.detach()  # The driver closes it.


ANSWERS = Answers()
"""Those of this process."""
