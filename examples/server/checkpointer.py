"""Threads of a LangGraph server, kept on Valkey.

``langgraph.json`` names `generate_checkpointer` as ``checkpointer.path``. The
server enters it once when it starts, uses what it yields for every run, and
leaves it when it shuts down. Where Valkey is stands in the environment:
``LANGGRAPH_VALKEY_URL``, and one variable for each further setting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langgraph_valkey import ValkeySaver


@asynccontextmanager
async def generate_checkpointer() -> AsyncIterator[ValkeySaver]:
    """Yield a saver that stays open as long as the server runs.

    Connects at once, so that a wrong address shows at the start and not in the
    first run.
    """
    async with ValkeySaver() as saver:
        await saver.asetup()
        yield saver
