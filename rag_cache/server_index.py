"""The server's own search, for scopes that this process does not have at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ServerIndex:
    """Not there yet."""

    is_ready = False

    def __init__(self, *_: Any) -> None:
        pass

    async def search(self, key: str, vector: Any, count: int) -> Sequence[tuple[str, float]]:
        """Nothing."""
        return ()
