"""``local``: a real server on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from langgraph_valkey.cli import output
from langgraph_valkey.cli.options import AsJson
from langgraph_valkey.errors import ConfigurationError

if TYPE_CHECKING:
    from langgraph_valkey.local import LocalCluster, LocalValkey

_CLUSTERS = ("async", "sync", "none")


def local(
    data: Annotated[
        Path | None,
        typer.Argument(help="Where to keep data; in memory if not given. One shard only."),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, max=64, help="Start a cluster of so many shards.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=0, max=5, help="Replicas of each shard.")] = 1,
    durability: Annotated[
        str, typer.Option(help="Of a cluster, as ElastiCache has it: async, sync or none.")
    ] = "none",
    lag_bound_s: Annotated[
        float, typer.Option("--lag-bound", metavar="SECONDS", help="When its log lags too much.")
    ] = 10.0,
    as_json: AsJson = False,
) -> int:
    """Start a Valkey, or a cluster of them, on this machine; print its URL; stop at Ctrl-C."""
    if durability not in _CLUSTERS:
        raise ConfigurationError(f"durability must be async, sync or none, not {durability!r}")
    if shards is None and durability != "none":
        shards = 3
    if shards is not None and data is not None:
        raise ConfigurationError("a cluster keeps its data in memory: leave the folder out")
    server = _server(data, shards, replicas, durability, lag_bound_s)
    with _until_told() as told, server:
        url = server.url
        if shards is not None and durability != "none":
            url += f"?durability={durability}&lag_bound_s={lag_bound_s:g}"
        if as_json:
            output.emit({"url": url, "shards": shards or 1, "durability": durability})
        else:
            output.say(url)
            output.complain(f"export LANGGRAPH_VALKEY_URL='{url}'   (Ctrl-C stops it)")
        told.wait()
    return output.OK


def _server(
    data: Path | None, shards: int | None, replicas: int, durability: str, lag_bound_s: float
) -> LocalCluster | LocalValkey:
    from langgraph_valkey.local import LocalCluster, LocalValkey

    if shards is None:
        return LocalValkey(data)
    if durability == "none":
        return LocalCluster(shards=shards, replicas=replicas)
    mode: Literal["async", "sync"] = "async" if durability == "async" else "sync"
    return LocalCluster(shards=shards, replicas=replicas, durability=mode, lag_bound_s=lag_bound_s)


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that Ctrl-C, or a signal to end, sets."""
    told = threading.Event()
    former = {
        each: signal.signal(each, lambda *_: told.set()) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
