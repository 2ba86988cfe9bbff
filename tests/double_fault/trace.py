"""Who executed what, and when: one line for each node of each execution, in a file.

The file is no part of what is tested: it is appended to by single writes, which neither
a killed process nor a concurrent one can tear, and what is written stays. Times are on
the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

GAVE_UP = "gave up"
"""Instead of a node: the attempt ended with an error, so anybody may try again."""


class Step(NamedTuple):
    """A process was in a node.

    Attributes:
        run_id: Of which run.
        attempt: In which attempt of it.
        process: Id of the process.
        node: Which one, or `GAVE_UP`.
        at_s: When, on the monotonic clock.
    """

    run_id: str
    attempt: int
    process: int
    node: str
    at_s: float


class Trace:
    """Appends to the file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, run_id: str, attempt: int, node: str) -> None:
        """Append a step of this process."""
        step = Step(run_id, attempt, os.getpid(), node, time.monotonic())
        os.write(self._file, json.dumps(step).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def steps_of(path: str) -> list[Step]:
    """All that was noted, in order of time."""
    lines: Iterable[str] = Path(path).read_text().splitlines()
    return sorted((Step(*json.loads(line)) for line in lines), key=lambda step: step.at_s)
