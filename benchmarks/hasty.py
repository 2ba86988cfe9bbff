"""Our saver as on a cluster with async durability, and leaving without waiting.

There it keeps everything it writes for about 21 s, and waits for as long when it is
closed. The servers here lose nothing that a measurement would miss.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any

from benchmarks.faces import Contender, FaceName, Role
from benchmarks.servers import Store
from langgraph_valkey import ValkeySaver

LOG = logging.getLogger("langgraph_valkey")


@contextmanager
def quiet() -> Iterator[None]:
    """Let it not warn of what is meant to happen."""
    level = LOG.level
    LOG.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOG.setLevel(level)


class _Hasty(AbstractContextManager[ValkeySaver], AbstractAsyncContextManager[ValkeySaver]):
    """A saver that is closed at once, and says nothing of what it still had to keep."""

    def __init__(self, saver: ValkeySaver) -> None:
        self._saver = saver

    def __enter__(self) -> ValkeySaver:
        return self._saver

    def __exit__(self, *error: object) -> None:
        with quiet():
            self._saver.close(drain_s=0)

    async def __aenter__(self) -> ValkeySaver:
        return self._saver

    async def __aexit__(self, *error: object) -> None:
        self.__exit__()


def ours(
    name: str, role: Role, face: FaceName, store: Store, url: str, **settings: Any
) -> Contender:
    """A contender: our saver with async durability, and with these settings."""
    saver = ValkeySaver.from_url(url, durability="async", **settings)
    return Contender(name, role, face, True, store, _Hasty(saver))
