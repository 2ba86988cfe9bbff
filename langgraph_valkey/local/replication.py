"""The connection on which a replica follows its primary, with the log between them.

It begins with a conversation: the replica introduces itself, asks to go on from where
it was, and is told either to go on (``+CONTINUE``) or that all data comes first
(``+FULLRESYNC``). In the latter case the replica acknowledges when it has loaded the
data. From then on it *follows*: what comes is the stream of writes, and each piece
is held until the log lets it through. Before that, only a log that is held at all
holds it up.

Held bytes live in this process only. They have left the primary, and no buffer of
the kernel has them any more, so when the primary crashes they are gone for good; what
was let through has been handed to the kernel, which delivers it even so.
"""

from __future__ import annotations

import asyncio

from langgraph_valkey.local.log import Held, Log
from langgraph_valkey.local.tunnel import Tunnel

HELD_BYTES_MOST = 64 * 1024 * 1024
"""Bytes that are held for a replica: above it, what comes waits in the primary, which
ends the connection in the end, as it would with a replica that does not read."""

_LOADED = b"\r\n$3\r\nACK\r\n"
_CONTINUES = b"+CONTINUE"
_ALL_DATA = b"+FULLRESYNC"

_AT_ONCE = float("-inf")


class ReplicaTunnel(Tunnel):
    """A replica's connection to its primary.

    Args:
        port: Of the primary.
        open_tunnels: Where it stands while it is open.
        log: The primary's.

    Attributes:
        held: What the log does not let through yet.
        follows: Whether the replica has the primary's data, so that only writes come.
    """

    def __init__(self, port: int, open_tunnels: set[Tunnel], log: Log) -> None:
        super().__init__(port, open_tunnels)
        self.held = Held()
        self.follows = False
        self._log = log
        self._loading = False
        self._timer: asyncio.TimerHandle | None = None
        log.followers.add(self)

    def from_near(self, data: bytes) -> None:
        """Something came from the replica."""
        if not self.follows and _LOADED in data:
            self._follow()
        self.far.send(data)

    def from_far(self, data: bytes) -> None:
        """Something came from the primary."""
        log = self._log
        if self.follows and (log.held or log.lag_s or self.held):
            self.held.put(log.rule.now_s(), data, writes=True)
        elif log.held or self.held:
            self.held.put(_AT_ONCE, data, writes=False)
        else:
            self._send(data)
            return
        if self.held.size > HELD_BYTES_MOST:
            self.far.stop("held")
        self.deliver()

    def deliver(self) -> None:
        """Send what the log lets through, and come back when more is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        log = self._log
        if log.held or not self.held:
            return
        now_s = log.rule.now_s()
        self._send(self.held.take(now_s - log.lag_s))
        if self.held.size <= HELD_BYTES_MOST:
            self.far.go("held")
        if self.held:
            wait_s = (self.held.first_s() + log.lag_s - now_s) / log.rule.clock_rate
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.deliver)

    def cut(self) -> None:
        """Lose what is held, and end the connection."""
        self.held.clear()
        self.far.abort()
        self.near.close()

    def ended(self) -> None:
        """Tell the log, which remembers for how long nobody has what was held."""
        super().ended()
        if self._timer is not None:
            self._timer.cancel()
        self._log.lost(self)
        self.held.clear()

    def _send(self, data: bytes) -> None:
        if not self.follows:
            if not self._loading and _CONTINUES in data:
                self._follow()
            self._loading = self._loading or _ALL_DATA in data
        self.near.send(data)

    def _follow(self) -> None:
        self.follows = True
        self._log.follows()
