"""Walking over the keys of all shards, a page at a time.

GLIDE's own cluster scan has no deadline: it waits until a server that died comes
back. So the walk is made of plain SCANs, each sent to one primary and bounded by
the request timeout. Slots that move meanwhile would be missed on the node they
left for; so at the end the map of slots is compared with that of the beginning,
and if it changed the walk begins again. Keys that come twice are the caller's to
tell.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from glide_shared.routes import ByAddressRoute, RandomNode

from langgraph_valkey import limits
from langgraph_valkey.errors import Unreachable

_Node = tuple[str, int]
_SlotMap = tuple[tuple[int, int, _Node], ...]


class _Cursor(NamedTuple):
    """Where a walk stands.

    Attributes:
        slots: Which primary had which slots when it began.
        left: The primaries still to be walked, the current one first.
        at: SCAN's cursor on the current one.
        rounds: How often the walk began.
    """

    slots: _SlotMap
    left: tuple[_Node, ...]
    at: bytes
    rounds: int


def cluster_page(client: Any, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
    """One page over all shards; see `Link.scan`.

    Raises:
        GlideError: As GLIDE raised it.
        Unreachable: The slots kept moving.
    """
    where = cursor or _begin(_slots(client), 1)
    (host, port), *others = where.left
    command = ["SCAN", where.at, "MATCH", pattern, "COUNT", str(limits.SCAN_COUNT)]
    at, keys = client.custom_command(command, route=ByAddressRoute(host, port))
    if at != b"0":
        return where._replace(at=at), keys
    if others:
        return where._replace(left=tuple(others), at=b"0"), keys
    slots = _slots(client)
    if slots == where.slots:
        return None, keys
    if where.rounds >= limits.SCAN_ROUNDS_MOST:
        raise Unreachable(
            "slots kept moving between nodes, so that some threads may not have been seen: call "
            "again when the cluster is at rest"
        )
    return _begin(slots, where.rounds + 1), keys


def page(client: Any, cursor: Any, pattern: bytes) -> tuple[Any, list[bytes]]:
    """One page on a standalone server; see `Link.scan`."""
    at, keys = client.scan(cursor or b"0", match=pattern, count=limits.SCAN_COUNT)
    return (None if at == b"0" else at), keys


def _begin(slots: _SlotMap, rounds: int) -> _Cursor:
    return _Cursor(slots, _nodes(slots), b"0", rounds)


def primaries(client: Any) -> tuple[_Node, ...]:
    """Host and port of each primary, over a blocking client."""
    return _nodes(_slots(client))


def _nodes(slots: _SlotMap) -> tuple[_Node, ...]:
    return tuple(dict.fromkeys(node for _, _, node in slots))


def _slots(client: Any) -> _SlotMap:
    """First slot, last slot and primary of each range."""
    ranges = client.custom_command(["CLUSTER", "SLOTS"], route=RandomNode())
    return tuple(
        sorted(
            (int(first), int(last), (primary[0].decode(), int(primary[1])))
            for first, last, primary, *_ in ranges
        )
    )
