"""What every figure group is given: servers, one event loop, sizes, progress."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.faces import Contender, Opened
from benchmarks.figures import Figure
from benchmarks.servers import Servers

LOG_EVERY_S = 2.0


@dataclass(slots=True)
class Session:
    """One run of the benchmarks.

    Attributes:
        servers: Where everyone stores to.
        runner: The only event loop.
        quick: Smaller and fewer, for a look while developing.
        seed: Of all data.
        threads: Numbers for thread ids; none is used twice.
    """

    servers: Servers
    runner: asyncio.Runner
    quick: bool
    seed: int
    threads: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _started_s: float = field(default_factory=time.monotonic)
    _told_s: float = -LOG_EVERY_S

    def new_thread(self) -> str:
        """An id never used before in this run."""
        return f"bench-{next(self.threads)}"

    def progress(self, text: str) -> None:
        """Say on stderr what is being done."""
        now_s = time.monotonic()
        line = f"[{now_s - self._started_s:5.0f} s] {text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
        elif now_s - self._told_s >= LOG_EVERY_S:
            # A log need not hold every step, only show that it goes on.
            self._told_s = now_s
            print(line.rstrip(), file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def opened(self, line_up: Sequence[Contender], figure: Figure) -> Iterator[list[Opened]]:
        """Open everyone, each with a column in the figure; close them at the end."""
        with contextlib.ExitStack() as stack:
            found = []
            for contender in line_up:
                self.progress(f"{figure.name}: opening {contender.name} ({contender.face})")
                found.append(stack.enter_context(Opened(contender, self.runner)))
                figure.take_part(found[-1])
            yield found
