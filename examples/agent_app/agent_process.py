"""The agent's process, seen from the server: started, asked, killed, and started again.

It is looked after as a supervisor does in production: whenever it has ended, another one
is started. Nothing is handed over from one to the next but what is in the stores.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from examples.agent.documents import REPOSITORY
from examples.agent_app.wire import LINE_BYTES_MOST, Message, packed

ANSWER_DEADLINE_S = 20.0
"""How long the agent may take to answer: a store that is away is asked for some seconds."""

UP_DEADLINE_S = 30.0
LEAVE_DEADLINE_S = 8.0
RESTART_PAUSE_S = 0.2


class AgentAwayError(Exception):
    """The agent's process is down, or went down before it answered."""


class OutageError(Exception):
    """The agent could not ask a store; the text is the store's error."""


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
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._up = asyncio.Event()
        self._is_leaving = False
        self._life: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look after it."""
        self._is_leaving = False
        self._life = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Let it leave; kill it if it does not."""
        self._is_leaving = True
        process, life = self._process, self._life
        if process is not None and process.returncode is None:
            with suppress(AgentAwayError, OutageError, TimeoutError):
                if self._up.is_set():
                    await self.ask("leave", deadline_s=LEAVE_DEADLINE_S)
                    await asyncio.wait_for(process.wait(), LEAVE_DEADLINE_S)
            self.kill()
        if life is not None:
            await life

    def kill(self) -> int | None:
        """End it at once (SIGKILL); the id that it had."""
        process = self._process
        if process is None or process.returncode is not None:
            return None
        with suppress(ProcessLookupError):
            process.kill()
        self._up.clear()
        self.pid = None
        return process.pid

    async def wait_up(self, deadline_s: float = UP_DEADLINE_S) -> None:
        """Wait until it answers.

        Raises:
            AgentAwayError: It did not come up.
        """
        try:
            await asyncio.wait_for(self._up.wait(), deadline_s)
        except TimeoutError:
            why = f": {self.trouble}" if self.trouble else ""
            raise AgentAwayError(f"the agent's process does not start{why}") from None

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
        writer = self._writer
        if writer is None:
            raise AgentAwayError("the agent's process has just ended")
        self._number += 1
        number = self._number
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            writer.write(packed({"ask": what, "number": number, "about": about or {}}))
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
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "examples.agent_app.agent"),
                *("--wire", str(theirs.fileno()), "--place", json.dumps(self.place)),
                cwd=REPOSITORY,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the server, which then ends this too.
            )
        self.lives += 1
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MOST)
        try:
            while line := await reader.readline():
                self._heard(json.loads(line))
        except (ConnectionError, ValueError):
            pass
        finally:
            self._gone()
        await self._process.wait()
        self._on_event(
            {"event": "down", "pid": self._process.pid, "code": self._process.returncode}
        )

    def _heard(self, message: Message) -> None:
        number = message.get("reply")
        if number is None:
            if message["event"] == "up":
                self.pid, self.trouble = message["pid"], ""
                self._up.set()
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
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AgentAwayError("the agent's process ended"))
