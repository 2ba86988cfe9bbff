"""Something that is used as it is, but for what has to be done before its first use.

Tables are made and clusters looked at when they are first needed: making the object
that holds them never fails for want of a server, and nobody has to call ``setup()``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from langgraph_valkey.primary.contract import Primary, PrimaryStore


class Preparation:
    """What is done once, before the first use; again, if it failed.

    Two that come at once may both do it, so it must bear that.

    Args:
        blocking: Does it on the blocking face; never suspends.
        loops: Does it on the async face.

    Attributes:
        is_done: Whether it was done.
    """

    def __init__(
        self, blocking: Callable[[], Awaitable[None]], loops: Callable[[], Awaitable[None]]
    ) -> None:
        self._blocking = blocking
        self._loops = loops
        self.is_done = False

    async def blocking(self) -> None:
        """Have it done."""
        await self._do(self._blocking)

    async def loops(self) -> None:
        """Have it done, on the async face."""
        await self._do(self._loops)

    async def _do(self, prepare: Callable[[], Awaitable[None]]) -> None:
        if not self.is_done:
            await prepare()
            self.is_done = True


class Prepared:
    """Stands before an object, and has it prepared before each call of a coroutine function.

    Args:
        target: The object.
        prepare: Prepares it, if that was not done yet.
    """

    def __init__(self, target: Any, prepare: Callable[[], Awaitable[None]]) -> None:
        self._target = target
        self._prepare = prepare

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._target, name)
        if name == "close" or not inspect.iscoroutinefunction(member):
            return member

        async def prepared(*args: Any, **kwargs: Any) -> Any:
            await self._prepare()
            return await member(*args, **kwargs)

        return prepared


class PreparedStore:
    """A primary store whose faces are prepared before their first use.

    Args:
        store: The store.
        preparation: What is to be done before.
    """

    def __init__(self, store: PrimaryStore, preparation: Preparation) -> None:
        self._store = store
        self.blocking = cast("Primary", Prepared(store.blocking, preparation.blocking))
        self.loops = cast("Primary", Prepared(store.loops, preparation.loops))

    def close(self) -> None:
        """See `PrimaryStore.close`."""
        self._store.close()

    async def aclose(self) -> None:
        """See `PrimaryStore.aclose`."""
        await self._store.aclose()
