"""The fixtures of tests of runs, which import them by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from langgraph_valkey.local import LocalValkey
from tests.runs_ground import Ground, Trace


@pytest.fixture(name="ground")
async def open_ground(kind: str, valkey: LocalValkey, tmp_path: Path) -> AsyncIterator[Ground]:
    """A place for parties, on each face."""
    made = Ground(kind, valkey, tmp_path)
    yield made
    await made.leave()


@pytest.fixture(name="trace")
def new_trace() -> Trace:
    """What one test's graphs do."""
    return Trace()
