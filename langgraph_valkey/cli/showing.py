"""``show``: a checkpoint's state, or in what two differ. It shows what users keep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.text import Text

from langgraph_valkey.cli import output
from langgraph_valkey.cli.naming import home_at
from langgraph_valkey.cli.options import AsJson, At, tiers_name
from langgraph_valkey.cli.threads import made_at

if TYPE_CHECKING:
    from langgraph_valkey.boundary.carrying import Cargo
    from langgraph_valkey.moving.homes import SaverHome

_STYLES = {"added": "green", "removed": "red", "changed": "yellow"}


class Change(NamedTuple):
    """One difference.

    Attributes:
        kind: "added", "removed" or "changed".
        path: Where, as in ``values.messages[3]``.
        before, after: What stands there on each side; None where nothing does.
    """

    kind: str
    path: str
    before: Any
    after: Any


def show(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT")],
    diff: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Show what changed from CHECKPOINT to this one."),
    ] = None,
    thread: Annotated[
        str | None, typer.Option(help="Its thread; all are looked through if not given.")
    ] = None,
    at: At = None,
    as_json: AsJson = False,
) -> int:
    """Show a checkpoint: its state, and the writes that stand on it; or how another differs."""
    with home_at(at, tiers_name(context)) as home:
        wanted = [checkpoint] if diff is None else [checkpoint, diff]
        found = [_found(home, thread, each) for each in wanted]
    missing = [each for each, there in zip(wanted, found, strict=True) if there is None]
    if missing:
        output.complain(f"there is no checkpoint {missing[0]!r} at {home.name}")
        return output.FAILED
    told = [each for each in found if each is not None]
    if diff is None:
        _print(told[0], as_json=as_json)
    else:
        changes = [each._asdict() for each in differences("", *told)]
        _print_changes(changes, as_json=as_json)
    return output.OK


def _found(home: SaverHome, thread: str | None, checkpoint: str) -> dict[str, Any] | None:
    names = home.threads() if thread is None else iter([thread])
    for name in names:
        for at in home.addresses(name):
            cargo = home.cargo(name, at) if at[1] == checkpoint else None
            if cargo is not None:
                return _told(home, name, cargo)
    return None


def _told(home: SaverHome, thread: str, cargo: Cargo) -> dict[str, Any]:
    from langgraph_valkey.moving.opaque import shown

    given = cargo.found.checkpoint
    values = given["channel_values"].items()
    return {
        "thread": thread,
        "namespace": cargo.namespace,
        "checkpoint": cargo.id,
        "parent": cargo.parent_id or None,
        "made": made_at(cargo.id),
        "metadata": shown(home.serde, dict(cargo.found.metadata)),
        "values": {name: shown(home.serde, value) for name, value in values},
        "versions": dict(given["channel_versions"]),
        "writes": [
            {
                "task": task.task_id,
                "path": task.path,
                "writes": [
                    {"channel": name, "value": shown(home.serde, value)}
                    for name, value in (*task.special, *task.ordinary)
                ],
            }
            for task in cargo.tasks
        ],
    }


def differences(path: str, one: Any, other: Any) -> Iterator[Change]:
    """In what two values differ, as far down as they are of one kind.

    Args:
        path: Where they stand.
        one: The earlier, as JSON has it.
        other: The later.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys([*one, *other]):
            below = f"{path}.{name}" if path else str(name)
            yield from _at(below, name in one, name in other, one.get(name), other.get(name))
    elif isinstance(one, list) and isinstance(other, list):
        for number in range(max(len(one), len(other))):
            here, there = number < len(one), number < len(other)
            before, after = one[number] if here else None, other[number] if there else None
            yield from _at(f"{path}[{number}]", here, there, before, after)
    elif one != other or type(one) is not type(other):
        yield Change("changed", path, one, other)


def _at(path: str, here: bool, there: bool, before: Any, after: Any) -> Iterator[Change]:
    if here and there:
        yield from differences(path, before, after)
    else:
        yield Change("removed" if here else "added", path, before, after)


def _print(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.emit(told, indent=2)
    else:
        output.show(told)


def _print_changes(changes: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for change in changes:
            output.emit(change)
        return
    screen = output.console()
    for change in changes:
        kind = change["kind"]
        screen.print(Text(f"{kind:<8} {output.printable(change['path'])}", _STYLES[kind]))
        for sign, side in (("-", "before"), ("+", "after")):
            if kind == "changed" or (kind == "removed") == (side == "before"):
                screen.print(Text(f"  {sign} {json.dumps(change[side], default=str)}"))
