"""What starts and stops, as a context manager of both kinds."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Lifecycle(ABC):
    """Gives ``with`` and ``async with`` to a class that has `start` and `stop`.

    The async forms do the same work in a thread, so the event loop goes on.
    """

    @abstractmethod
    def start(self) -> Self:
        """Start; return self."""

    @abstractmethod
    def stop(self) -> None:
        """Stop. Does nothing when stopped already."""

    async def astart(self) -> Self:
        """Start without blocking the event loop; if cancelled, leave nothing behind."""
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await starting
            await self.astop()
            raise

    async def astop(self) -> None:
        """Stop without blocking the event loop."""
        await asyncio.to_thread(self.stop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.astop()
