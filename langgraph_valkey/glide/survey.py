"""Looking a cluster over, node by node, by plain commands.

Each question is put to each node by itself, and once more if it is not answered within the
request timeout; what a node does not answer, or does not let this user ask, is no reason to
stop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glide_shared.exceptions import GlideError
from glide_shared.exceptions import TimeoutError as GlideTimeoutError
from glide_shared.routes import ByAddressRoute, RandomNode

from langgraph_valkey.glide.clients import make_blocking, require_glide
from langgraph_valkey.glide.errors import translate
from langgraph_valkey.settings import ConnectionSettings

SECTIONS = ("server", "clients", "memory", "persistence", "stats", "replication")
"""What of INFO is asked for: not what commands were called with."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, by its own word.

    Attributes:
        host, port: Where it is.
        shard: Which shard it belongs to, by number.
        leads: Whether it is the shard's primary.
        info: Its INFO; empty if it told nothing.
        view: Its CLUSTER INFO: each node has a view of its own.
        offset_s: How far its clock is ahead of this machine's; None if not known.
        trouble: Why it told nothing; "" if it did.
    """

    host: str
    port: int
    shard: int
    leads: bool
    info: Mapping[str, str] = field(default_factory=dict)
    view: Mapping[str, str] = field(default_factory=dict)
    offset_s: float | None = None
    trouble: str = ""

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    def number(self, name: str) -> int | None:
        """A figure of its INFO; None if it is not there."""
        text = self.info.get(name, "")
        return int(text) if re.fullmatch(r"-?\d+", text) else None


@dataclass(frozen=True, slots=True)
class Shard:
    """Some of the slots, and who has them.

    Attributes:
        slots: First and last of each range.
        nodes: The primary first.
    """

    slots: tuple[tuple[int, int], ...]
    nodes: tuple[Node, ...]

    @property
    def primary(self) -> Node:
        """The primary."""
        return self.nodes[0]


@dataclass(frozen=True, slots=True)
class Survey:
    """A cluster, or a server without cluster mode.

    Attributes:
        in_cluster: Whether the server runs in cluster mode.
        shards: Its shards; one for a server without cluster mode.
        has_search: Whether there is a search module; None if not told.
    """

    in_cluster: bool
    shards: tuple[Shard, ...]
    has_search: bool | None

    @property
    def primaries(self) -> tuple[Node, ...]:
        """The primaries, by shard."""
        return tuple(shard.primary for shard in self.shards)


def survey(settings: ConnectionSettings) -> Survey:
    """Look a cluster over; blocks for a few requests.

    Raises:
        ConfigurationError: The user is not let in, or TLS does not fit.
        Unreachable: Nobody answers.
        LanggraphValkeyError: The server answered with another error.
    """
    require_glide()
    client: Any = make_blocking(settings)
    try:
        return _Looking(client, settings).all()
    finally:
        client.close()


def runs_in_cluster_mode(settings: ConnectionSettings) -> bool | None:
    """Whether a server runs in cluster mode, asked without relying on it; None if not told.

    Raises:
        LanggraphValkeyError: It does not answer.
    """
    alone = settings.model_copy(update={"cluster_mode": False})
    client: Any = make_blocking(alone)
    try:
        info = _fields(client.custom_command(["INFO", "cluster"]))
    except GlideError as error:
        raise translate(error, writes=False) from error
    finally:
        client.close()
    told = info.get("cluster_enabled")
    return None if told is None else told == "1"


class _Looking:
    """One look over."""

    def __init__(self, client: Any, settings: ConnectionSettings) -> None:
        self._client = client
        self._settings = settings

    def all(self) -> Survey:
        try:  # The one question that every user may ask, and every server answers.
            self._do(["PING"])
        except GlideError as error:
            raise translate(error, writes=False) from error
        in_cluster = self._settings.cluster_mode
        shards = self._shards() if in_cluster else ()
        if not shards:
            host, port = self._settings.addresses[0]
            shards = (Shard((), (self._node(host, port, 0, leads=True),)),)
        search = self._asked("COMMAND INFO FT._LIST")
        has_search = None if search is None else any(search)
        return Survey(in_cluster, shards, has_search)

    def _do(self, words: list[str], at: tuple[str, int] | None = None) -> Any:
        try:
            return self._once(words, at)
        except GlideTimeoutError:
            return self._once(words, at)  # One late answer says nothing of a node.

    def _once(self, words: list[str], at: tuple[str, int] | None) -> Any:
        if not self._settings.cluster_mode:
            return self._client.custom_command(words)
        route = RandomNode() if at is None else ByAddressRoute(*at)
        return self._client.custom_command(words, route=route)

    def _asked(self, command: str, at: tuple[str, int] | None = None) -> Any:
        """A reply; None if there is none, or this user may not ask."""
        try:
            return self._do(command.split(), at)
        except GlideError:
            return None

    def _shards(self) -> tuple[Shard, ...]:
        ranges = self._asked("CLUSTER SLOTS") or ()
        slots: dict[tuple[str, int], list[tuple[int, int]]] = {}
        members: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for first, last, *nodes in sorted(ranges, key=lambda each: int(each[0])):
            places = [(node[0].decode(), int(node[1])) for node in nodes]
            slots.setdefault(places[0], []).append((int(first), int(last)))
            members[places[0]] = places
        return tuple(
            Shard(
                tuple(slots[primary]),
                tuple(
                    self._node(*place, number, leads=place == primary) for place in members[primary]
                ),
            )
            for number, primary in enumerate(slots)
        )

    def _node(self, host: str, port: int, shard: int, *, leads: bool) -> Node:
        try:
            info = _fields(self._do(["INFO", *SECTIONS], (host, port)))
        except GlideError as error:
            return Node(host, port, shard, leads, trouble=str(translate(error, writes=False)))
        in_cluster = self._settings.cluster_mode
        view = _fields(self._asked("CLUSTER INFO", (host, port))) if in_cluster else {}
        return Node(host, port, shard, leads, info, view, self._offset_s((host, port)))

    def _offset_s(self, at: tuple[str, int]) -> float | None:
        """How far a node's clock is ahead, judged by the middle of the question."""
        before_s = time.time()
        found = self._asked("TIME", at)
        after_s = time.time()
        if found is None:
            return None
        seconds, micros = found
        return int(seconds) + int(micros) / 1e6 - (before_s + after_s) / 2


def _fields(reply: Any) -> dict[str, str]:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply or "")
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.M))
