"""The two links over GLIDE: one for threads, one for event loops.

How calls travel stands in `exchange`, over what in `blocking_lane` and `native_lane`.

**Event loops.** GLIDE has one loop read the replies of all async clients of a
process (see `clients`). `LoopLink` uses them on that loop only; calls from
any other loop, and from trio, run over the `BlockingLink` on worker threads.
They work, too, while the reading loop is blocked. When it is closed, the next
loop that sends takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from glide.async_commands import ft
from glide_shared.exceptions import GlideError
from glide_shared.routes import RandomNode
from glide_sync.sync_commands import ft as sync_ft

from langgraph_valkey import limits
from langgraph_valkey.fork import renew_after_fork
from langgraph_valkey.glide import scan, search
from langgraph_valkey.glide.blocking_lane import BlockingLane
from langgraph_valkey.glide.clients import (
    can_own_replies,
    check_server,
    is_checked,
    owns_replies,
    require_glide,
)
from langgraph_valkey.glide.errors import Kind, kind_of, translate
from langgraph_valkey.glide.exchange import (
    LANES,
    READS,
    WRITES,
    by_lane,
    exchange,
    in_order,
    lane_of,
    raise_first,
)
from langgraph_valkey.glide.health import Health, closed
from langgraph_valkey.glide.native_lane import NativeLane
from langgraph_valkey.glide.turns import in_time
from langgraph_valkey.link import Call, Reply, finish
from langgraph_valkey.settings import ConnectionSettings
from langgraph_valkey.vectors.index import Index, Nearest

T = TypeVar("T")

_NO_ANSWER = frozenset({Kind.NOT_SENT, Kind.BROKEN, Kind.TIMED_OUT})


def _info_of(settings: ConnectionSettings, client: Any) -> Any:
    """Ask any node what it is: the text, or something to await for it."""
    return client.info(route=RandomNode()) if settings.cluster_mode else client.info()


def _note_info(settings: ConnectionSettings, info: Any) -> None:
    text = info.decode(errors="replace") if isinstance(info, bytes) else ""
    check_server(settings, text)


def _note_no_info(settings: ConnectionSettings, error: GlideError) -> None:
    """No INFO: raise if nobody answered; else it is hidden from us, which is allowed."""
    if kind_of(error) in _NO_ANSWER:
        raise translate(error, writes=False) from error
    check_server(settings, "")


class BlockingLink:
    """A link whose methods return at once when awaited: for threads.

    One link may be used from any number of threads, and in a forked child.

    Args:
        settings: Where the server is.

    Raises:
        ConfigurationError: The GLIDE wheels are not of the version needed.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        require_glide()
        self.settings = settings
        self._is_checked = is_checked(settings)
        health = Health(settings)
        self._lanes = tuple(BlockingLane(settings, health) for _ in range(LANES))
        self._finalizer = weakref.finalize(self, _close_lanes, self._lanes)
        self._finalizer.atexit = False
        renew_after_fork(self)

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        """Run the calls, one lane after the other; see `Link.send`."""
        if not self._is_checked:
            self._check()
        if len(calls) == 1:
            return raise_first(await exchange(self._lanes[lane_of(calls[0])], calls))
        parts = by_lane(calls)
        found = [
            await exchange(self._lanes[lane], [calls[index] for index in indices])
            for lane, indices in parts.items()
        ]
        return raise_first(in_order(parts, found, len(calls)))

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        """One page of a walk over keys; see `Link.scan`."""
        page = scan.cluster_page if self.settings.cluster_mode else scan.page
        try:
            return self._lanes[READS].use(lambda client: page(client, cursor, pattern))
        except GlideError as error:
            raise translate(error, writes=False) from error

    async def nearest(self, query: Nearest) -> list[tuple[bytes, float]]:
        """Ask an index; see `SearchLink.nearest`."""
        try:
            reply = self._lanes[READS].use(lambda client: search.ask(sync_ft, client, query))
        except GlideError as error:
            raise search.failure_of(error) from error
        return search.found(reply)

    async def indexes(self) -> frozenset[str] | None:
        """Names of all indexes; see `IndexingLink.indexes`."""
        return self._index(lambda client: search.names(sync_ft, client))

    async def create_index(self, index: Index) -> None:
        """Create an index; see `IndexingLink.create_index`."""
        self._index(lambda client: search.create(sync_ft, client, index))

    async def is_built(self, name: str) -> bool:
        """Whether an index is complete; see `IndexingLink.is_built`."""
        in_cluster = self.settings.cluster_mode
        return self._index(lambda client: search.is_built(client, name, cluster_mode=in_cluster))

    def _index(self, run: Callable[[Any], T]) -> T:
        """Manage indexes; all of it may be sent twice."""
        try:
            return self._lanes[WRITES].use(run)
        except GlideError as error:
            raise search.failure_of(error) from error

    async def sleep(self, delay_s: float) -> None:
        """Hold up this thread."""
        time.sleep(delay_s)

    def now(self) -> float:
        """A monotonic clock, in seconds."""
        return time.monotonic()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return not self._finalizer.alive

    def close(self) -> None:
        """Close the connections; calls under way end first. May be called again."""
        self._finalizer()

    async def aclose(self) -> None:
        """The same, for callers that await."""
        self.close()

    def after_fork(self) -> None:
        """Make the link usable in the child."""
        for lane in self._lanes:
            lane.after_fork()

    def _check(self) -> None:
        """Look at the server, before the first call of this process."""
        try:
            info = self._lanes[READS].use(lambda client: _info_of(self.settings, client))
        except GlideError as error:
            _note_no_info(self.settings, error)
        else:
            _note_info(self.settings, info)
        self._is_checked = True


def _close_lanes(lanes: tuple[BlockingLane, ...]) -> None:
    for lane in lanes:
        lane.close()


class _Native:
    """The three lanes of the loop that reads GLIDE's replies."""

    def __init__(self, settings: ConnectionSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        health = Health(settings)
        self.lanes = tuple(NativeLane(settings, loop, health) for _ in range(LANES))

    def close(self) -> None:
        """Close the lanes, on the thread of their loop if that runs elsewhere."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if self.loop is not running and self.loop.is_running():
            with contextlib.suppress(RuntimeError):  # It was closed in between.
                self.loop.call_soon_threadsafe(self._close_here)
                return
        self._close_here()

    def _close_here(self) -> None:
        for lane in self.lanes:
            lane.close()


class _OfLoops:
    """What a `LoopLink` has open; apart from it, so that its finalizer can close it."""

    def __init__(self) -> None:
        self.native: _Native | None = None
        self.pool: ThreadPoolExecutor | None = None
        self.is_closed = False
        self.lock = threading.Lock()

    def close(self) -> None:
        """Close it all."""
        with self.lock:
            self.is_closed = True
            native, self.native = self.native, None
            pool, self.pool = self.pool, None
        if native is not None:
            native.close()
        if pool is not None:
            pool.shutdown(wait=False)


class LoopLink:
    """A link for event loops: any number of them, at once or one after another.

    Args:
        settings: Where the server is.
        blocking: The link that takes the calls of loops which can't use GLIDE's
            async client, and all scans. It stays its owner's to close.
        turn_s: For how long such a call may wait for a thread, in seconds; it is never sent
            if none was free by then. None: for as long as it takes.

    Raises:
        ConfigurationError: The GLIDE wheels are not of the version needed.
    """

    def __init__(
        self, settings: ConnectionSettings, blocking: BlockingLink, *, turn_s: float | None = None
    ) -> None:
        require_glide()
        self.settings = settings
        self._blocking = blocking
        self._turn_s = turn_s
        self._is_checked = is_checked(settings)
        self._open = _OfLoops()
        self._finalizer = weakref.finalize(self, self._open.close)
        self._finalizer.atexit = False
        renew_after_fork(self)

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        """Run the calls side by side; see `Link.send`."""
        native = self._here()
        if native is None:
            return await self._in_thread(lambda: finish(self._blocking.send(calls)))
        if not self._is_checked:
            await self._check(native.lanes[READS])
        if len(calls) == 1:
            return raise_first(await exchange(native.lanes[lane_of(calls[0])], calls))
        parts = by_lane(calls)
        exchanges = [
            exchange(native.lanes[lane], [calls[index] for index in indices])
            for lane, indices in parts.items()
        ]
        found = [await exchanges[0]] if len(parts) == 1 else await asyncio.gather(*exchanges)
        return raise_first(in_order(parts, found, len(calls)))

    async def scan(self, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
        """One page of a walk over keys; see `Link.scan`.

        Always over the blocking link: a cursor belongs to the library that gave
        it, and a walk may change loops.
        """
        return await self._in_thread(lambda: finish(self._blocking.scan(cursor, pattern)))

    async def nearest(self, query: Nearest) -> list[tuple[bytes, float]]:
        """Ask an index; see `SearchLink.nearest`."""
        native = self._here()
        if native is None:
            return await self._in_thread(lambda: finish(self._blocking.nearest(query)))
        try:
            reply = await native.lanes[READS].use(lambda client: search.ask(ft, client, query))
        except GlideError as error:
            raise search.failure_of(error) from error
        return search.found(reply)

    async def indexes(self) -> frozenset[str] | None:
        """Names of all indexes; see `IndexingLink.indexes`.

        As what follows, always over the blocking link: it is seldom asked.
        """
        return await self._in_thread(lambda: finish(self._blocking.indexes()))

    async def create_index(self, index: Index) -> None:
        """Create an index; see `IndexingLink.create_index`."""
        await self._in_thread(lambda: finish(self._blocking.create_index(index)))

    async def is_built(self, name: str) -> bool:
        """Whether an index is complete; see `IndexingLink.is_built`."""
        return await self._in_thread(lambda: finish(self._blocking.is_built(name)))

    async def sleep(self, delay_s: float) -> None:
        """Wait, and let others run."""
        await anyio.sleep(delay_s)

    def now(self) -> float:
        """A monotonic clock, in seconds."""
        return time.monotonic()

    def close(self) -> None:
        """Close the connections, from any thread. May be called again."""
        self._finalizer()

    async def aclose(self) -> None:
        """The same, for callers that await."""
        self.close()

    def after_fork(self) -> None:
        """Make the link usable in the child, where nothing of the parent's works."""
        self._open.lock = threading.Lock()
        self._open.native = None
        self._open.pool = None

    def _here(self) -> _Native | None:
        """The lanes of the running loop, or None if its calls must go through threads."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # Trio.
            return None
        native = self._open.native
        return native if native is not None and native.loop is loop else self._enter(loop)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> _Native | None:
        """The lanes for this loop, or None if its calls must go through threads."""
        with self._open.lock:
            if self._open.is_closed:
                raise closed()
            if not can_own_replies(loop):
                return None
            former, self._open.native = self._open.native, None
            if former is not None:
                former.close()
            native = _Native(self.settings, loop)
            try:
                native.lanes[READS].open()
            except GlideError as error:
                raise translate(error, writes=False) from error
            if not owns_replies(loop):  # Another loop was quicker.
                native.close()
                return None
            self._open.native = native
            return native

    async def _in_thread(self, run: Callable[[], T]) -> T:
        with self._open.lock:
            if self._open.is_closed:
                raise closed()
            pool = self._open.pool
            if pool is None:
                pool = self._open.pool = ThreadPoolExecutor(
                    limits.WORKER_THREADS_MOST, thread_name_prefix="langgraph-valkey"
                )
        if self._turn_s is not None:
            run = in_time(run, self.now() + self._turn_s)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
        return await loop.run_in_executor(pool, run)

    async def _check(self, lane: NativeLane) -> None:
        """Look at the server, before the first call of this process."""
        try:
            info = await lane.use(lambda client: _info_of(self.settings, client))
        except GlideError as error:
            _note_no_info(self.settings, error)
        else:
            _note_info(self.settings, info)
        self._is_checked = True
