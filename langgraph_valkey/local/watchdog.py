"""No server outlives the Python process that started it.

A ``finally`` or ``atexit`` does not run on SIGTERM or SIGKILL, and the kernel's
parent-death signal exists on Linux only and follows the *thread* that started a
child, not the process. So each Python process that starts servers also starts
one watchdog, a tiny process that holds the read end of a pipe; the Python process
holds the write end. However the latter ends, the kernel closes the pipe, the
watchdog reads to its end, kills every server that was noted and removes every
temporary directory.

What makes it airtight:

- A server is noted by itself: it starts as a shell whose output is the pipe,
  which writes its own process id there and then *becomes* the server. There is no
  moment at which a server runs that the pipe has not named.
- Watchdog and servers have a session of their own, so Ctrl-C in the terminal
  reaches the Python process only.
- The write end is closed on exec, and after a fork in the child (which owns no
  server: its copies of the objects do nothing), so that no child keeps it open.
- The watchdog is handed to init, so it is no child that someone has to reap.

The pipe carries lines: ``run PID``, ``end PID``, ``dir PATH``, ``gone PATH``; each
is shorter than PIPE_BUF, so writes of several threads and shells never mix.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

REMOVE_DEADLINE_S = 5.0
REMOVE_AGAIN_S = 0.02
"""How long the watchdog tries to remove what killed servers leave, and how often."""

_DETACH = 'exec 3<&0; "$@" <&3 3<&- &'
"""Runs a program in the background with this shell's standard input."""


def attend(lines: Iterable[bytes]) -> None:
    """The watchdog's whole life: note until the lines end, then clean up."""
    noted: dict[bytes, set[bytes]] = {b"run": set(), b"dir": set()}
    for line in lines:
        verb, _, what = line.rstrip(b"\n").partition(b" ")
        match verb:
            case b"run" | b"dir":
                noted[verb].add(what)
            case b"end":
                noted[b"run"].discard(what)
            case b"gone":
                noted[b"dir"].discard(what)
    for pid in noted[b"run"]:
        with contextlib.suppress(OSError):
            os.kill(int(pid), signal.SIGKILL)
    _remove([os.fsdecode(path) for path in noted[b"dir"]])


def _remove(paths: list[str]) -> None:
    """Remove directories; again and again, for a killed server may be writing still."""
    deadline = time.monotonic() + REMOVE_DEADLINE_S
    while paths and time.monotonic() < deadline:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)
        paths = [path for path in paths if os.path.lexists(path)]
        time.sleep(REMOVE_AGAIN_S)


class Watchdog:
    """This process's end of the pipe.

    Starts the watchdog when it is first needed, and again, with all that is
    noted, should someone have killed it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._noted: dict[str, None] = {}

    def pipe(self) -> int:
        """The write end: a server's shell writes ``run PID`` to it."""
        self._tell("")  # finds out whether anyone still reads
        with self._lock:
            return self._open()

    def note_process(self, pid: int) -> None:
        """Remember a server that has noted itself, should the watchdog be replaced."""
        with self._lock:
            self._noted[f"run {pid}"] = None

    def forget_process(self, pid: int) -> None:
        """A server has ended."""
        self._tell(f"end {pid}", forget=f"run {pid}")

    def note_directory(self, path: Path) -> None:
        """A temporary directory has been made."""
        self._tell(f"dir {path}", note=f"dir {path}")

    def forget_directory(self, path: Path) -> None:
        """A temporary directory has been removed."""
        self._tell(f"gone {path}", forget=f"dir {path}")

    def leave(self) -> None:
        """Forget everything, in a forked child: the servers are its parent's."""
        if self._pipe is not None:
            os.close(self._pipe)
        # The lock may have been held by another thread when the process forked.
        self._lock, self._pipe, self._noted = threading.Lock(), None, {}

    def _tell(self, line: str, *, note: str | None = None, forget: str | None = None) -> None:
        with self._lock:
            if note is not None:
                self._noted[note] = None
            if forget is not None:
                self._noted.pop(forget, None)
            try:
                os.write(self._open(), os.fsencode(line) + b"\n")
            except BrokenPipeError:
                self._replace()

    def _replace(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        pipe = self._open()
        for line in self._noted:
            os.write(pipe, os.fsencode(line) + b"\n")

    def _open(self) -> int:
        if self._pipe is None:
            reading, writing = os.pipe()
            try:
                program = [sys.executable or "python3", "-I", "-S", __file__]
                subprocess.run(  # noqa: S603
                    ["/bin/sh", "-c", _DETACH, "sh", *program],
                    stdin=reading,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    check=True,
                )
            finally:
                os.close(reading)
            self._pipe = writing
        return self._pipe


watchdog = Watchdog()
"""The one of this process."""

os.register_at_fork(after_in_child=watchdog.leave)

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        attend(sys.stdin.buffer)
