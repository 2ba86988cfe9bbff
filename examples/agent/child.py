"""The agent as a process of its own, so that it can be killed like one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.agent.documents import REPOSITORY
from examples.agent.models import DemoError

_LEAVE_S = 5.0
"""How long a process that was killed may take to be gone."""


class AgentProcess:
    """``python -m examples.agent`` on a thread; it shares this terminal's screen.

    Args:
        url: The server to use.
        thread: The thread to talk on.
        model: The chat model.
        data_dir: Where its notes go.
        question: What to ask; without one it settles what waits, and ends.
    """

    def __init__(
        self, url: str, thread: str, model: str, data_dir: Path, question: str | None = None
    ) -> None:
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "examples.agent", "--url", url, "--thread", thread]
        command += ["--model", model, "--data-dir", str(data_dir), "--tell", str(writing)]
        command += [] if question is None else ["--question", question]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                command,
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
                text=True,
                start_new_session=True,  # Ctrl-C is for the tour, which then ends this too
            )
        finally:
            os.close(writing)
        self._told = os.fdopen(reading)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_told(self) -> str:
        """Wait until it says that it is ``waiting`` or has ``answered``.

        Raises:
            DemoError: It ended before.
        """
        told = self._told.readline().strip()
        if not told:
            self._process.wait()
            raise DemoError("the agent's process ended early; what it said is above")
        return told

    def kill(self) -> None:
        """SIGKILL: no clean-up of its own, no last word."""
        self._process.kill()
        self._process.wait(_LEAVE_S)

    def finish(self, typed: str) -> None:
        """Type something, and wait until it ends.

        Raises:
            DemoError: It failed.
        """
        self._process.communicate(typed)
        if self._process.returncode:
            raise DemoError("the agent's process failed; what it said is above")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._told.close()
