"""What happens, told live to every page that is open: server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

BEHIND_MOST = 2000
"""Events that a page may be behind; one that is slower is cut off, and asks anew."""

SIGN_OF_LIFE_S = 10.0


class Hub:
    """All pages that are open; belongs to one event loop."""

    def __init__(self) -> None:
        self._pages: set[asyncio.Queue[str | None]] = set()
        self._is_closed = False

    def tell(self, kind: str, about: Any) -> None:
        """Tell all pages."""
        told = f"event: {kind}\ndata: {json.dumps(about, separators=(',', ':'))}\n\n"
        for page in tuple(self._pages):
            if page.qsize() < BEHIND_MOST:
                page.put_nowait(told)
            else:
                self._cut_off(page)

    async def events(self, first: str, about: Any) -> AsyncIterator[str]:
        """The events for one page, until it goes or the server does.

        Args:
            first: Name of the event that it gets at once.
            about: What that says.
        """
        page: asyncio.Queue[str | None] = asyncio.Queue()
        if self._is_closed:
            return
        self._pages.add(page)
        try:
            yield f"retry: 500\nevent: {first}\ndata: {json.dumps(about)}\n\n"
            while True:
                told: str | None = ": still here\n\n"
                with suppress(TimeoutError):
                    async with asyncio.timeout(SIGN_OF_LIFE_S):
                        told = await page.get()
                if told is None:
                    return
                yield told
        finally:
            self._pages.discard(page)

    def close(self) -> None:
        """Let all pages go: the server is about to end, and waits for them."""
        self._is_closed = True
        for page in tuple(self._pages):
            self._cut_off(page)

    def _cut_off(self, page: asyncio.Queue[str | None]) -> None:
        self._pages.discard(page)
        page.put_nowait(None)
