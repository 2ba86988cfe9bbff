"""The agent's process, seen from the server: started, asked, killed, and started again.

It is looked after as a supervisor does in production: whenever it has ended, another one
takes its place. That one waits already, with everything imported, as a warm stand-by does.
Nothing is handed over from one to the next but what is in the stores.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from examples.agent.documents import REPOSITORY
from examples.agent_app.wire import LINE_BYTES_MOST, Message, packed

ANSWER_DEADLINE_S = 20.0
"""How long the agent may take to answer: a store that is away is asked for some seconds."""

UP_DEADLINE_S = 30.0
UP_POLL_S = 0.2
LEAVE_DEADLINE_S = 8.0
RESTART_PAUSE_S = 0.2


class AgentAwayError(Exception):
    """The agent's process is down, or went down before it answered."""


class OutageError(Exception):
    """The agent could not ask a store; the text is the store's error."""


@dataclass(frozen=True, slots=True)
class _Life:
    """A process, and the way to talk to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()


class AgentProcess:
    """The process that lives now, and those after it.

    Args:
        place: What each is told at its start.
        on_event: Called with each thing that it tells.

    Attributes:
        place: May be changed; the next process is told that.
        pid: Its process id; None while there is none that answers.
        lives: How many there were.
        trouble: Why it can't start; "" if it can.
    """

    def __init__(self, place: dict[str, Any], on_event: Callable[[Message], None]) -> None:
        self.place = place
        self.pid: int | None = None
        self.lives = 0
        self.trouble = ""
        self._on_event = on_event
        self._now: _Life | None = None
        self._next: asyncio.Task[_Life] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._up = asyncio.Event()
        self._is_leaving = False
        self._living: asyncio.Task[None] | None = None

    @property
    def spare_pid(self) -> int | None:
        """Process id of the one that waits; None if none does."""
        waits = self._next
        if waits is None or not waits.done() or waits.cancelled() or waits.exception():
            return None
        return waits.result().process.pid

    def start(self) -> None:
        """Begin to look after it."""
        self._is_leaving = False
        self._living = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Let it leave; kill it if it does not."""
        self._is_leaving = True
        await self._let_leave()
        if self._living is not None:
            await self._living
        if self._next is not None:
            waiting, self._next = await self._next, None
            waiting.kill()
            waiting.writer.close()
            await waiting.process.wait()

    async def renew(self) -> None:
        """Let it leave, and wait for the next one, which is told `place` as it is now.

        Raises:
            AgentAwayError: That did not come up.
        """
        lives = self.lives
        await self._let_leave()
        while self.lives == lives:
            await asyncio.sleep(RESTART_PAUSE_S)
        await self.wait_up()

    async def _let_leave(self) -> None:
        life = self._now
        if life is None:
            return
        if self._up.is_set():
            with suppress(AgentAwayError, OutageError, TimeoutError):
                await self.ask("leave", deadline_s=LEAVE_DEADLINE_S)
                await asyncio.wait_for(life.process.wait(), LEAVE_DEADLINE_S)
        if life.process.returncode is None:
            life.kill()

    def kill(self) -> int | None:
        """End it at once (SIGKILL); the id that it had."""
        if self._now is None or self._now.process.returncode is not None:
            return None
        self._now.kill()
        self._up.clear()
        self.pid = None
        return self._now.process.pid

    async def wait_up(self, deadline_s: float = UP_DEADLINE_S) -> None:
        """Wait until it answers.

        Raises:
            AgentAwayError: It did not come up, or says why it can't.
        """
        until_s = time.monotonic() + deadline_s
        while not self._up.is_set():
            if self.trouble:
                raise AgentAwayError(f"the agent's process can't start: {self.trouble}")
            if time.monotonic() > until_s:
                raise AgentAwayError("the agent's process does not start in time")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._up.wait(), UP_POLL_S)

    async def ask(
        self,
        what: str,
        about: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = ANSWER_DEADLINE_S,
    ) -> Any:
        """Ask it something, when it is up.

        Raises:
            AgentAwayError: It is not, or went down before it answered.
            OutageError: A store is away.
            ValueError: It can't do that.
        """
        await self.wait_up()
        if self._now is None:
            raise AgentAwayError("the agent's process has just ended")
        self._number += 1
        number = self._number
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._now.writer.write(packed({"ask": what, "number": number, "about": about or {}}))
            return await asyncio.wait_for(answer, deadline_s)
        except TimeoutError:
            raise OutageError(f"no answer within {deadline_s:.0f} s") from None
        finally:
            self._answers.pop(number, None)

    # --- its lives --------------------------------------------------------------------

    async def _live(self) -> None:
        while not self._is_leaving:
            await self._one_life()
            if not self._is_leaving:
                await asyncio.sleep(RESTART_PAUSE_S)

    async def _one_life(self) -> None:
        life = await (self._next or self._hatch())
        self._next, self._now = None, life
        self.lives += 1
        life.writer.write(packed({"ask": "begin", "number": 0, "about": self.place}))
        try:
            while line := await life.reader.readline():
                self._heard(json.loads(line))
        except (ConnectionError, ValueError):
            pass  # It was killed in the middle of a word.
        finally:
            self._gone()
        code = await life.process.wait()
        self._on_event({"event": "down", "pid": life.process.pid, "code": code})

    async def _hatch(self) -> _Life:
        """Start a process that waits until it is told to begin."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "examples.agent_app.agent", str(theirs.fileno())),
                cwd=REPOSITORY,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the server, which then ends this too.
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MOST)
        return _Life(process, reader, writer)

    def _heard(self, message: Message) -> None:
        number = message.get("reply")
        if number is None:
            if message["event"] == "up":
                self.pid, self.trouble = message["pid"], ""
                self._up.set()
                if self._next is None and not self._is_leaving:
                    self._next = asyncio.create_task(self._hatch())
            elif message["event"] == "unable":
                self.trouble = message["why"]
            self._on_event(message)
            return
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if "outage" in message:
            answer.set_exception(OutageError(message["outage"]))
        elif "error" in message:
            answer.set_exception(ValueError(message["error"]))
        else:
            answer.set_result(message.get("value"))

    def _gone(self) -> None:
        self._up.clear()
        self.pid = None
        if self._now is not None:
            self._now.writer.close()
            self._now = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AgentAwayError("the agent's process ended"))
