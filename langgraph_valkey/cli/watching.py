"""``health``: how all places are, once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from langgraph_valkey.cli import output
from langgraph_valkey.cli.naming import names_primary, tiers_of
from langgraph_valkey.cli.options import AsJson, tiers_name
from langgraph_valkey.errors import LanggraphValkeyError

if TYPE_CHECKING:
    from langgraph_valkey.settings import Settings

_SHARD = ("primary", "slots", "replicas", "lag_s", "memory", "writes", "calls_per_s")


class _Place(NamedTuple):
    """What is looked at.

    Attributes:
        cluster: Where checkpoints are.
        health: How all of it is, as JSON has it.
    """

    cluster: Settings
    health: Callable[[], dict[str, Any]]


def health(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    every_s: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks.")
    ] = 2.0,
    looks: Annotated[int | None, typer.Option("--count", min=1, help="How often, at most.")] = None,
    as_json: AsJson = False,
) -> int:
    """Print how all places are, as JSON; with --watch the cluster's shards, as they change.

    The primary store is looked at if --tiers or the environment names one.
    """
    with _place(tiers_name(context)) as place:
        if not watch:
            found = place.health()
            output.emit(found, indent=2)
            return output.LOOK if found.get("primary_trouble") else output.OK
        status = output.OK
        try:
            for look in _watched(place, every_s, looks, as_json=as_json):
                status = output.LOOK if _is_bad(look) else output.OK
        except KeyboardInterrupt:
            pass
    return status


@contextmanager
def _place(tiers: str | None) -> Iterator[_Place]:
    """The tiers, or the cluster alone for those who use nothing else."""
    if tiers is None and not names_primary():
        from langgraph_valkey.saver import ValkeySaver

        with ValkeySaver() as saver:
            yield _Place(saver.settings, lambda: {"saver": asdict(saver.health())})
        return
    with tiers_of(tiers) as opened:
        yield _Place(opened.settings.transient, lambda: asdict(opened.health()))


def _watched(
    place: _Place, every_s: float, looks: int | None, *, as_json: bool
) -> Iterator[dict[str, Any]]:
    """Show a look every so often."""
    with Live(console=output.console(), auto_refresh=False, screen=False) as live:
        count = 0
        while True:
            look = _look(place)
            if as_json:
                live.stop()
                output.emit(look)
            else:
                live.update(_drawn(look), refresh=True)
            yield look
            count += 1
            if count == looks:
                return
            time.sleep(every_s)


def _look(place: _Place) -> dict[str, Any]:
    """All that can be seen from here, now."""
    found = place.health()
    seen: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "durability": found["saver"]["durability"],
        "primary_trouble": found.get("primary_trouble", ""),
        "cluster_trouble": "",
        "shards": [],
    }
    try:
        seen["shards"] = _shards(place.cluster)
    except LanggraphValkeyError as error:
        seen["cluster_trouble"] = f"{type(error).__name__}: {error}"
    return seen


def _shards(settings: Settings) -> list[dict[str, Any]]:
    from langgraph_valkey.cli.probes import rejection_of
    from langgraph_valkey.glide.link import BlockingLink
    from langgraph_valkey.glide.survey import survey

    found = survey(settings)
    link = BlockingLink(settings)
    try:
        shards = []
        for shard in found.shards:
            node = shard.primary
            used, most = node.number("used_memory"), node.number("maxmemory")
            refusal = rejection_of(link, settings.key_prefix, shard)
            cells = (
                node.address,
                ",".join(f"{first}-{last}" for first, last in shard.slots) or None,
                node.number("connected_slaves"),
                _lag_s(node.info),
                used / most if used and most else None,
                "accepted" if refusal is None else f"refused: {refusal}",
                node.number("instantaneous_ops_per_sec"),
            )
            shards.append(dict(zip(_SHARD, cells, strict=True)))
        return shards
    finally:
        link.close()


def _lag_s(info: Any) -> int | None:
    """How long ago the slowest replica last said how far it is; INFO has whole seconds."""
    lags = [
        int(field.removeprefix("lag="))
        for name, told in info.items()
        if name.startswith("slave") and "lag=" in told
        for field in told.split(",")
        if field.startswith("lag=") and field.removeprefix("lag=").isdigit()
    ]
    return max(lags, default=None)


def _is_bad(look: dict[str, Any]) -> bool:
    refused = any(shard["writes"] != "accepted" for shard in look["shards"])
    return bool(look["primary_trouble"] or look["cluster_trouble"] or refused)


def _drawn(look: dict[str, Any]) -> Group:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _SHARD:
        table.add_column(name.replace("_", " "), overflow="fold")
    for shard in look["shards"]:
        cells = [_cell(name, shard[name]) for name in _SHARD]
        table.add_row(*cells, style=None if shard["writes"] == "accepted" else "red")
    about = f"{look['at']}  durability {look['durability']}"
    troubles = [
        Text(f"{what}: {look[f'{what}_trouble']}", "bold red")
        for what in ("cluster", "primary")
        if look[f"{what}_trouble"]
    ]
    return Group(Text(about, "bold"), table, *troubles)


def _cell(name: str, value: Any) -> Text:
    if value is None:
        return Text("-", "dim")
    return Text(f"{value:.0%}" if name == "memory" else str(value))
