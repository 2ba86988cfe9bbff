"""Locks: one holder at a time, and a token for when that can't be kept.

A lock is a lease: it ends by itself after ``ttl_s``, so that a holder that dies locks
nobody out. A holder that was merely slow (a garbage collection, a suspended machine)
may therefore go on when another one already holds the lock. No lock over a network can
exclude that. What can be done is to give each holder a *fencing token*, higher than all
tokens of this name before it, for the resource to refuse whoever comes with a lower one
than it has seen::

    with tiers.lock("report-7", ttl_s=30) as lock:
        write_report(..., token=lock.token)  # UPDATE ... WHERE token <= :token

Tokens must never go back, and two must never hold a lock because a failover forgot the
first: so leases are kept where nothing acknowledged is lost, in a cluster with sync
durability or in the primary store, and never in one with async durability.

Each time a lock is entered a holder's name is drawn. Whoever asks again after an answer
was lost does so by the same name, and gets the lease that it already has.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import anyio

from langgraph_valkey.errors import (
    LanggraphValkeyError,
    LockLost,
    LockUnavailable,
    OutcomeUnknown,
    WriteRejected,
)
from langgraph_valkey.link import Link, finish
from langgraph_valkey.operations.leases import lease
from langgraph_valkey.primary.records import Lease

_log = logging.getLogger("langgraph_valkey")

LOCK_PAUSE_FIRST_S = 0.02
LOCK_PAUSE_MOST_S = 1.0
"""Bounds of the wait between two looks at a lock that another one holds. It doubles, and
each is drawn between half of it and all of it, so that those who wait do not ask in step."""

LOCK_ASKED_MOST = 3
"""How often a lease is asked for whose answers are lost; links and stores have already
tried again by themselves before they say so."""

LOCK_LEAVE_S = 5.0
"""How long giving a lock back may take on the async face, where it can't be cancelled: it
ends by itself anyway."""

LOCK_NAME_MOST = 512
"""Characters of a lock's name: keys of stores have bounds."""


_SINCE_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)
"""Linux has a clock of this name."""


class Leases(Protocol):
    """Where leases are kept: a face of a primary store, or a cluster."""

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Get a lease, or get it again; None if another one holds it."""
        ...

    async def renew(self, lease: Lease, holder: str) -> bool:
        """Hold it on for its time; False if it was lost."""
        ...

    async def release(self, lease: Lease, holder: str) -> None:
        """Give it back."""
        ...


class ClusterLeases:
    """Leases in a cluster with sync durability.

    Args:
        link: One face of the connection to it.
        prefix: What all keys begin with.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Get a lease; see `Leases`."""
        [token] = await self._link.send([lease(self._prefix, name, "acquire", holder, ttl_s)])
        return Lease(name, int(token), ttl_s) if token else None

    async def renew(self, lease_: Lease, holder: str) -> bool:
        """Hold it on; see `Leases`."""
        call = lease(self._prefix, lease_.name, "renew", holder, lease_.ttl_s, lease_.token)
        return bool((await self._link.send([call]))[0])

    async def release(self, lease_: Lease, holder: str) -> None:
        """Give it back; see `Leases`."""
        call = lease(self._prefix, lease_.name, "release", holder, token=lease_.token)
        await self._link.send([call])


class Way(NamedTuple):
    """How one face reaches the leases, and how it waits."""

    leases: Leases
    sleep: Callable[[float], Awaitable[None]]


def clock_s() -> float:
    """Time that never goes back, and goes on while the machine is suspended.

    On Linux `time.monotonic` stands still then, while a lease elsewhere runs out.
    """
    return time.monotonic() if _SINCE_BOOT is None else time.clock_gettime(_SINCE_BOOT)


async def hold_up(delay_s: float) -> None:
    """Wait, on the blocking face: the thread stands still."""
    time.sleep(delay_s)


Scope: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Within what a lease is given back."""


def _to_its_end() -> anyio.CancelScope:
    """For what is to be done though the task is cancelled: but not for long."""
    return anyio.CancelScope(shield=True, deadline=anyio.current_time() + LOCK_LEAVE_S)


def ways(blocking: Leases, loops: Leases) -> tuple[Way, Way]:
    """The two faces of a lock, over those of where its lease is kept."""
    return Way(blocking, hold_up), Way(loops, anyio.sleep)


class Lock:
    """A lock of a name, for ``with`` and ``async with``; while it is held, its handle.

    Made by `StateTiers.lock`. It may be entered again once it was left, by one at a time.

    Args:
        faces: The blocking face and the async one.
        name: Of what.
        ttl_s: After how long it ends by itself, unless it is renewed.
        wait_s: How long to wait for it while another one holds it.

    Raises:
        ValueError: An argument can't be used.
    """

    def __init__(
        self, faces: tuple[Way, Way], name: str, ttl_s: float, wait_s: float = 0.0
    ) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= LOCK_NAME_MOST:
            raise ValueError(f"a lock's name must be a text of 1 to {LOCK_NAME_MOST} characters")
        if not (math.isfinite(ttl_s) and ttl_s > 0):
            raise ValueError("ttl_s of a lock must be a positive number of seconds")
        if not wait_s >= 0:
            raise ValueError("wait_s of a lock must not be negative")
        self.name = name
        self.ttl_s = ttl_s
        self._wait_s = wait_s
        self._blocking, self._loops = faces
        self._lease: Lease | None = None
        self._holder = ""
        self._until_s = 0.0

    def __repr__(self) -> str:
        held = "not held" if self._lease is None else f"token {self._lease.token}"
        return f"Lock({self.name!r}, {held})"

    @property
    def token(self) -> int:
        """The fencing token: higher than that of each holder before."""
        return self._held().token

    def check(self) -> None:
        """Make sure, by this process's clock alone, that the lock's time has not run out.

        Raises:
            LockLost: It has.
        """
        self._held()
        if clock_s() >= self._until_s:
            raise self._lost()

    def renew(self) -> None:
        """Hold it on for ``ttl_s`` from now.

        Raises:
            LockLost: Its time had run out.
            Unreachable, WriteRejected, OutcomeUnknown: It may be tried again in time.
        """
        finish(self._renew(self._blocking))

    async def arenew(self) -> None:
        """See `renew`."""
        await self._renew(self._loops)

    def __enter__(self) -> Self:
        finish(self._enter(self._blocking, nullcontext))
        return self

    async def __aenter__(self) -> Self:
        await self._enter(self._loops, _to_its_end)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        finish(self._leave(self._blocking, error, nullcontext))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leave(self._loops, error, _to_its_end)

    # --- both faces --------------------------------------------------------------

    async def _enter(self, way: Way, scope: Scope) -> None:
        if self._lease is not None:
            raise RuntimeError(f"lock {self.name!r} is held by this object already: make another")
        holder = os.urandom(16).hex()
        give_up_s = time.monotonic() + self._wait_s
        bound_s = LOCK_PAUSE_FIRST_S
        while True:
            asked_s, refusal = clock_s(), None
            try:
                found = await self._ask(way, holder)
            except WriteRejected as error:
                found, refusal = None, error
            except LanggraphValkeyError:
                raise
            except BaseException:  # Cancelled, or interrupted: the answer may be on its way.
                await self._give_back(self._take_back(way, holder), scope)
                raise
            if found is not None:
                self._lease, self._holder, self._until_s = found, holder, asked_s + self.ttl_s
                return
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise refusal or LockUnavailable(
                    f"lock {self.name!r} is held by another one: call again later, or give "
                    "wait_s more time",
                    name=self.name,
                )
            await way.sleep(min(left_s, random.uniform(bound_s / 2, bound_s)))  # noqa: S311
            bound_s = min(2 * bound_s, LOCK_PAUSE_MOST_S)

    async def _ask(self, way: Way, holder: str) -> Lease | None:
        """Ask for the lease; again, and by the same name, if the answer was lost."""
        for _ in range(LOCK_ASKED_MOST - 1):
            try:
                return await way.leases.acquire(self.name, holder, self.ttl_s)
            except OutcomeUnknown:
                pass
        return await way.leases.acquire(self.name, holder, self.ttl_s)

    async def _renew(self, way: Way) -> None:
        self.check()
        asked_s = clock_s()
        if not await way.leases.renew(self._held(), self._holder):
            self._until_s = -math.inf
            raise self._lost()
        self._until_s = asked_s + self.ttl_s

    async def _leave(self, way: Way, error: BaseException | None, scope: Scope) -> None:
        """Give it back; what went wrong in the body is never hidden by what goes wrong here."""
        held, in_time = self._held(), clock_s() < self._until_s
        self._lease = None
        await self._give_back(way.leases.release(held, self._holder), scope)
        if error is None and not in_time:
            raise self._lost()

    async def _take_back(self, way: Way, holder: str) -> None:
        """Give back what may have been got: nobody would hold it, until its end.

        It is asked for once more, to know its token; if it is got only now, it is given
        back as well. After that the holder's name is used up: a request that comes late
        gets nothing by it.
        """
        found = await way.leases.acquire(self.name, holder, self.ttl_s)
        if found is not None:
            await way.leases.release(found, holder)

    async def _give_back(self, giving: Awaitable[None], scope: Scope) -> None:
        """Have it given back; if that can't be, it is told, and is no failure."""
        why = "it took too long"
        try:
            with scope():
                await giving
                why = ""
        except LanggraphValkeyError as failure:
            why = type(failure).__name__
        if not why:
            return
        _log.warning(
            "lock %r could not be given back (%s): it ends by itself within %g s",
            *(self.name, why, self.ttl_s),
        )

    def _held(self) -> Lease:
        if self._lease is None:
            raise RuntimeError(f"lock {self.name!r} is not held: enter it by `with`")
        return self._lease

    def _lost(self) -> LockLost:
        return LockLost(
            f"the time of lock {self.name!r} ran out ({self.ttl_s:g} s), so another one may hold "
            "it: what was done since then needs the token's protection. Give it a longer ttl_s, "
            "or renew it on the way",
            name=self.name,
        )
