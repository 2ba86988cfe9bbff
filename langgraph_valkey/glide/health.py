"""When GLIDE's clients have to be made anew."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from glide_shared.exceptions import GlideError, RequestError

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.glide.errors import Kind, kind_of
from langgraph_valkey.settings import ConnectionSettings

HEALING = frozenset({Kind.STALE, Kind.BROKEN, Kind.NOT_SENT})
"""After one of these a standalone client is made anew."""

_TIMEOUTS_MOST = 2
"""So it is after this many timeouts in a row."""

LOST = frozenset({Kind.TIMED_OUT, Kind.MOVED})
_RO = b"_RO"
"""How the verbs of reading calls end."""

_LOST_WITHIN_S = 10.0
"""A cluster client is made anew after as many of these within this time ..."""

_RENEWED_S = 1.0
"""... and not again for so long."""


def closed() -> ConfigurationError:
    """The error of a link that is used after its end."""
    return ConfigurationError("this connection was closed: make a new one")


class Health:
    """When the clients of a link have to be made anew; its lanes share one.

    A standalone client stays with the node it found at first. One lane's trouble ends
    the clients of all, since a demoted primary refuses writes but goes on answering
    reads, from a past it is stuck in. A cluster client finds a new primary by itself,
    with two exceptions: where the old one is frozen and keeps its connections open it
    goes on asking that one, and all it shows is timeouts; and after two failovers in a
    row it may ask the wrong node for seconds.

    Args:
        settings: Where the server is.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self.matters = not settings.cluster_mode
        self.generation = 0
        self._timeouts = 0
        self._lost_s: deque[float] = deque(maxlen=_TIMEOUTS_MOST)
        self._renewed_s = float("-inf")
        self._timed_out_s = float("-inf")

    @property
    def in_trouble(self) -> bool:
        """Whether some node of a cluster has kept a call waiting not long ago."""
        return time.monotonic() - self._timed_out_s < _LOST_WITHIN_S

    def note(self, generation: int, result: Any, error: GlideError | None = None) -> None:
        """Take note of how a call ended; start a new generation if need be.

        Args:
            generation: That of the client it ran on.
            result: What it returned.
            error: What it raised.
        """
        if error is not None:
            failures: list[GlideError] = [error]
        else:
            found = result if isinstance(result, list) else []
            failures = [each for each in found if isinstance(each, RequestError)]
        kinds = [kind_of(failure) for failure in failures]
        if not self.matters:
            self._note_of_cluster(generation, kinds)
            return
        self._timeouts = self._timeouts + 1 if Kind.TIMED_OUT in kinds else 0
        if not HEALING.isdisjoint(kinds) or self._timeouts >= _TIMEOUTS_MOST:
            self._timeouts = 0
            self.generation = max(self.generation, generation + 1)

    def _note_of_cluster(self, generation: int, kinds: list[Kind]) -> None:
        """Successes don't count here: they may be another shard's."""
        if LOST.isdisjoint(kinds):
            return
        now_s = time.monotonic()
        if Kind.TIMED_OUT in kinds:
            self._timed_out_s = now_s
        if generation != self.generation:
            return
        self._lost_s.append(now_s)
        recent = [each for each in self._lost_s if now_s - each < _LOST_WITHIN_S]
        if len(recent) == _TIMEOUTS_MOST and now_s - self._renewed_s > _RENEWED_S:
            self.generation = generation + 1
            self._renewed_s = now_s
            self._lost_s.clear()


def is_one_read(commands: list[list[bytes]]) -> bool:
    """Whether it is a single call that reads: it has no need of a batch."""
    return len(commands) == 1 and commands[0][0].endswith(_RO)


def failed(result: Any) -> bool:
    """Whether a batch's only command failed."""
    return type(result) is list and bool(result) and isinstance(result[0], RequestError)
