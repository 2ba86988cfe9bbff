"""What tests of the spool share: rows, and a look at the files."""

from __future__ import annotations

import time
from pathlib import Path

from langgraph_valkey.loss_window.spool import Spool
from langgraph_valkey.loss_window.spool_file import Row

MIB = 1024 * 1024


def row(serial: int, thread: str = "t", body: bytes = b"body", age_s: float = 0.0) -> Row:
    return Row(serial, thread, time.time() - age_s, body)


def left_behind(directory: Path, *rows: Row) -> Path:
    """The file of an owner that is gone."""
    before = set(directory.glob("*.spool"))
    owner = Spool(directory, bytes_max=64 * MIB)
    assert all(owner.add(each) for each in rows)
    [path] = set(directory.glob("*.spool")) - before
    owner.close()
    return path


def contents(directory: Path) -> bytes:
    """All bytes of all files."""
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
