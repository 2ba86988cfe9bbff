"""The operations on a thread: one script each, its call built and its reply read here.

An operation is data. A builder turns arguments into a `Call`; the link sends it;
`read` turns the reply into an `Answer`. Nothing here waits, and nothing here
knows what a value looks like inside.
"""

from __future__ import annotations

from langgraph_valkey.operations.answer import Answer, Standing, Status, read
from langgraph_valkey.operations.calls import (
    ANYONE,
    Stored,
    chunks,
    close_sweep,
    delete,
    drop_chunks,
    get,
    heads,
    history,
    mend,
    open_sweep,
    page,
    put,
    put_writes,
    remove,
    scan_sweep,
)
from langgraph_valkey.operations.replaying import (
    Taken,
    beat,
    look,
    named,
    replay,
    taken_apart,
    without_payload,
)

__all__ = [
    "ANYONE",
    "Answer",
    "Standing",
    "Status",
    "Stored",
    "Taken",
    "beat",
    "chunks",
    "close_sweep",
    "delete",
    "drop_chunks",
    "get",
    "heads",
    "history",
    "look",
    "mend",
    "named",
    "open_sweep",
    "page",
    "put",
    "put_writes",
    "read",
    "remove",
    "replay",
    "scan_sweep",
    "taken_apart",
    "without_payload",
]
