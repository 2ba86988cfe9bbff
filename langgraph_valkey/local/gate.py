"""The connection of a client to a node of a durable cluster.

Requests go on to the server as they come, and each is noted with what is to become of
its reply (`_Expected`), so that the two stay together however many are under way:

- A write that is refused never gets there: a ``PING`` goes in its place, and the
  refusal is what comes back in its turn.
- With sync durability a ``WAIT`` goes behind the writes. What the server answers is kept
  back until the ``WAIT`` says that the replicas have them; its own reply is swallowed.
  If it says that they have not, the connection is broken: the writes were executed,
  so to call them refused would be untrue, and they are never acknowledged.

A transaction is one write: it is refused, or waited for, as a whole at its ``EXEC``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from langgraph_valkey.local.framing import Replies, Request, Requests
from langgraph_valkey.local.log import Log
from langgraph_valkey.local.resp import CLUSTERDOWN, encode
from langgraph_valkey.local.tunnel import Tunnel

_REFUSAL = f"-{CLUSTERDOWN}\r\n".encode()
_PING = encode(("PING",))
_DISCARD = encode(("DISCARD",))

_ANSWERED_OUT_OF_TURN = frozenset(
    prefix + name for prefix in (b"", b"P", b"S") for name in (b"SUBSCRIBE", b"UNSUBSCRIBE")
)
"""Commands whose replies are counted by channels, not by requests."""


class Wanted(NamedTuple):
    """What the gate of a node needs to know.

    Attributes:
        writes: Names of the commands that may write.
        replicas: How many replicas must have a write before it is acknowledged.
    """

    writes: frozenset[bytes]
    replicas: Callable[[], int]


class _Expected(NamedTuple):
    """A reply that is to come.

    Attributes:
        instead: What the client gets in its place.
        sent_s: When the write went to the server; None: it is no write.
        wait: How many replicas a ``WAIT`` must name; 0: it is none.
    """

    instead: bytes | None = None
    sent_s: float | None = None
    wait: int = 0


_READ = _Expected()
_REFUSED = _Expected(instead=_REFUSAL)


class ClientTunnel(Tunnel):
    """A client's connection to a node.

    Args:
        port: Of the node.
        open_tunnels: Where it stands while it is open.
        log: The node's.
        wanted: What the gate needs to know.
    """

    def __init__(self, port: int, open_tunnels: set[Tunnel], log: Log, wanted: Wanted) -> None:
        super().__init__(port, open_tunnels)
        self._log = log
        self._wanted = wanted
        self._requests = Requests()
        self._replies = Replies()
        self._expected: deque[_Expected] = deque()
        self._sync = log.rule.mode == "sync"
        self._wait_ms = max(1, round(1000 * log.rule.lag_bound_s / log.rule.clock_rate))
        self._in_transaction = False
        self._transaction_writes = False
        self._to_wait_for = False
        self._waits = 0
        self._executed = False
        self._kept_back: list[bytes] = []

    # --- requests -----------------------------------------------------------------

    def from_near(self, data: bytes) -> None:
        """Requests came from the client."""
        out: list[bytes] = []
        for request in self._requests.feed(data):
            self._take(request, out)
        self._wait_for_replicas(out)
        self.far.send(b"".join(out))

    def _take(self, request: Request, out: list[bytes]) -> None:
        name = request.name
        writes = name in self._wanted.writes
        if name == b"MULTI":
            self._wait_for_replicas(out)
            self._in_transaction, self._transaction_writes = True, False
        elif self._in_transaction:
            self._transaction_writes = self._transaction_writes or writes
            writes = name == b"EXEC" and self._transaction_writes
            self._in_transaction = name not in (b"EXEC", b"DISCARD")
        if writes and self._log.refuses():
            self._expected.append(_REFUSED)
            out.append(_DISCARD if name == b"EXEC" else _PING)
            return
        out.append(request.raw)
        if name in _ANSWERED_OUT_OF_TURN:
            return
        self._expected.append(_Expected(sent_s=self._log.rule.now_s()) if writes else _READ)
        self._to_wait_for = self._to_wait_for or writes

    def _wait_for_replicas(self, out: list[bytes]) -> None:
        if not (self._sync and self._to_wait_for) or self._in_transaction:
            return
        replicas = self._wanted.replicas()
        out.append(encode(("WAIT", replicas, self._wait_ms)))
        self._expected.append(_Expected(wait=replicas))
        self._waits += 1
        self._to_wait_for = False

    # --- replies ------------------------------------------------------------------

    def from_far(self, data: bytes) -> None:
        """Replies came from the server."""
        out: list[bytes] = []
        for reply in self._replies.feed(data):
            if reply.startswith(b">") or not self._expected:
                out.append(reply)  # nobody asked for it: it is a message
                continue
            expected = self._expected.popleft()
            if expected.wait:
                self._waits -= 1
                if self._executed and not _at_least(reply, expected.wait):
                    self.end()
                    return
                out += self._kept_back
                self._kept_back.clear()
                self._executed = False
                continue
            if expected.sent_s is not None and not reply.startswith(b"-"):
                self._log.answered(expected.sent_s)
                self._executed = True
            (self._kept_back if self._waits else out).append(expected.instead or reply)
        self.near.send(b"".join(out))


def _at_least(reply: bytes, replicas: int) -> bool:
    """Whether ``WAIT`` says that so many replicas have the writes before it."""
    return reply.startswith(b":") and int(reply[1:]) >= replicas
