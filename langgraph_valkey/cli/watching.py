"""``health``: how all places are, once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from langgraph_valkey.cli import output
from langgraph_valkey.cli.naming import tiers_of
from langgraph_valkey.cli.options import AsJson, tiers_name
from langgraph_valkey.errors import LanggraphValkeyError

if TYPE_CHECKING:
    from langgraph_valkey.settings import Settings
    from langgraph_valkey.tiers.state_tiers import StateTiers

_SHARD = ("primary", "slots", "replicas", "lag_s", "memory", "writes", "calls_per_s")


def health(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    every_s: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks.")
    ] = 2.0,
    looks: Annotated[int | None, typer.Option("--count", min=1, help="How often, at most.")] = None,
    as_json: AsJson = False,
) -> int:
    """Print how all places are, as JSON; with --watch the cluster's shards, as they change."""
    with tiers_of(tiers_name(context)) as tiers:
        if not watch:
            found = tiers.health()
            output.emit(asdict(found), indent=2)
            return output.LOOK if found.primary_trouble else output.OK
        status = output.OK
        try:
            for look in _watched(tiers, every_s, looks, as_json=as_json):
                status = output.LOOK if _is_bad(look) else output.OK
        except KeyboardInterrupt:
            pass
    return status


def _watched(
    tiers: StateTiers, every_s: float, looks: int | None, *, as_json: bool
) -> Iterator[dict[str, Any]]:
    """Show a look every so often."""
    with Live(console=output.console(), auto_refresh=False, screen=False) as live:
        count = 0
        while True:
            look = _look(tiers)
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


def _look(tiers: StateTiers) -> dict[str, Any]:
    """All that can be seen from here, now."""
    found = tiers.health()
    seen: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "durability": found.saver.durability,
        "primary_trouble": found.primary_trouble,
        "cluster_trouble": "",
        "shards": [],
    }
    try:
        seen["shards"] = _shards(tiers.settings.transient)
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
