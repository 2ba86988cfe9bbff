"""Everyone who takes part: ours, the floor and the peers that are installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from benchmarks import floor, peers
from benchmarks.faces import Contender, FaceName
from benchmarks.servers import Servers, ValkeyStore

OURS, FLOOR = "langgraph-valkey", "floor"

_told: set[str] = set()


def tell(text: str) -> None:
    """Say something on stderr, once."""
    if text not in _told:
        _told.add(text)
        print(text, file=sys.stderr, flush=True)


def ours(servers: Servers, face: FaceName) -> Contender:
    """Our saver with its defaults and a name for its connections, on a cluster."""
    from langgraph_valkey import ValkeySaver

    store = servers.valkey(cluster=True)
    saver = ValkeySaver.from_url(store.url, client_name=OURS)
    return Contender(OURS, "ours", face, True, store, saver)


def ruler(servers: Servers, face: FaceName) -> Contender:
    """The floor, on the same server."""
    store = servers.valkey(cluster=True)
    connection = _async_floor(store) if face == "async" else _floor(store)
    return Contender(FLOOR, "floor", face, True, store, connection)


@contextlib.asynccontextmanager
async def _async_floor(store: ValkeyStore) -> AsyncIterator[Any]:
    async with contextlib.AsyncExitStack() as stack:
        opened = await floor.open_floor(store.url)
        stack.push_async_callback(opened.close)
        yield opened


@contextlib.contextmanager
def _floor(store: ValkeyStore) -> Iterator[Any]:
    with contextlib.closing(floor.open_blocking_floor(store.url)) as opened:
        yield opened


def line_up(
    servers: Servers,
    face: FaceName,
    *,
    with_floor: bool = False,
    rivals: Sequence[str] = tuple(peers.PEERS),
    more: dict[str, Any] | None = None,
) -> list[Contender]:
    """Those who can take part in a figure, not yet open.

    Args:
        servers: What they store to.
        face: How they will be called.
        with_floor: Whether the figure has one.
        rivals: Names of `peers.PEERS`.
        more: Rivals of this figure's own: name to constructor, role, protocol.
    """
    found: list[Contender] = []
    try:
        found.append(ours(servers, face))
    except ImportError as error:
        tell(f"our saver is left out: {error}")
    if with_floor:
        found.append(ruler(servers, face))
    own = more or {}
    for name in (*rivals, *own):
        try:
            found.append(peers.build(servers, face, name, own.get(name)))
        except ImportError as error:
            tell(f"{name} is left out, as it is not installed: {error}")
    return found
