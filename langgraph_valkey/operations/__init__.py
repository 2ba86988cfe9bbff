"""The operations on a thread: one script each, its call built and its reply read here.

An operation is data. A builder turns arguments into a `Call`; the link sends it;
`read` turns the reply into an `Answer`. Nothing here waits, and nothing here
knows what a value looks like inside.
"""

from __future__ import annotations

from langgraph_valkey.operations.answer import Answer, Standing, Status, read
from langgraph_valkey.operations.calls import (
    Stored,
    chunks,
    close_sweep,
    delete,
    drop_chunks,
    get,
    history,
    mend,
    open_sweep,
    page,
    put,
    put_writes,
    remove,
    scan_sweep,
)

__all__ = [
    "Answer",
    "Standing",
    "Status",
    "Stored",
    "chunks",
    "close_sweep",
    "delete",
    "drop_chunks",
    "get",
    "history",
    "mend",
    "open_sweep",
    "page",
    "put",
    "put_writes",
    "read",
    "remove",
    "scan_sweep",
]
