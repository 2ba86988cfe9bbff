"""The seam between our logic and the network.

Everything this package decides is written once, as ``async`` code that awaits a
`Link`. A link never has to suspend: over a blocking client each await returns
at once, so `finish` can run the very same coroutine to its end with a single
``.send(None)``, with no event loop and no thread. That is how one
implementation has two native faces.

A `Call` is one execution of a server-side `Script` on keys of one hash slot: it
is applied whole or not at all, and, being plain data, can be sent, kept, sent
again, or run on an in-memory link.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from langgraph_valkey.errors import Unreachable

T = TypeVar("T")

Reply: TypeAlias = Any
"""What a script returns: bytes, int, None, or a list of these."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script.

    Attributes:
        name: What it does, for errors and counters.
        source: The Lua text.
        sha: Its SHA-1 in hex digits, by which the server knows it.
    """

    name: str
    source: str
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest.encode())


@dataclass(slots=True)
class Call:
    """One execution of a script: the unit that is sent, kept and sent again.

    Attributes:
        script: What to run.
        keys: The keys it touches, all of one hash slot.
        args: Its arguments.
        writes: Whether it may change data.
        size: About how many bytes travel in the larger direction; calls above
            `limits.LARGE_VALUE_BYTES` go over a connection of their own.
        patient: Whether a refusal is waited out; else the caller has another way.
        rides: It reads, and goes along with the writes that are sent with it: over a
            connection of its own it would take a round trip more.
    """

    script: Script
    keys: tuple[bytes, ...]
    args: list[bytes]
    writes: bool
    size: int = 0
    patient: bool = True
    rides: bool = False


class NotSent(Unreachable):
    """A call waited on this side for longer than it may; no server was asked."""


class Link(Protocol):
    """A connection to one cluster, as our logic sees it."""

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        """Run the calls side by side; return their replies in the same order.

        Raises:
            WriteRejected, Unreachable, OutcomeUnknown, StoreFull,
            ConfigurationError: The first failure, after all have ended. With
                more than one call, some of the others may have been applied.
        """
        ...

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        """One page of the keys that match a glob pattern, over all shards.

        Args:
            cursor: None for the first page, then what the last page returned.
            pattern: A glob pattern, as of SCAN's MATCH.

        Returns:
            The next cursor (None after the last page) and the keys. A key may
            come twice, as with any SCAN.
        """
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        ...

    def now(self) -> float:
        """A monotonic clock, in seconds."""
        ...


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result.

    Args:
        coroutine: One that awaits only links whose methods return at once.

    Raises:
        RuntimeError: It suspended, so it was given the wrong kind of link.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a blocking call was given a link that suspends")


def finish_each(steps: AsyncGenerator[T, None]) -> Iterator[T]:
    """Iterate over an async generator that never suspends; see `finish`."""
    try:
        while True:
            try:
                item = finish(anext(steps))
            except StopAsyncIteration:
                return
            yield item
    finally:
        finish(steps.aclose())
