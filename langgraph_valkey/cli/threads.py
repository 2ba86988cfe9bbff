"""What is there: ``threads``, ``history``; and what takes it away: ``prune``, ``delete``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from langgraph_valkey.cli import output
from langgraph_valkey.cli.naming import home_at, tiers_of
from langgraph_valkey.cli.options import AsJson, At, Yes, tiers_name
from langgraph_valkey.errors import ConfigurationError

if TYPE_CHECKING:
    from langgraph_valkey.moving.cargo import Address
    from langgraph_valkey.moving.homes import SaverHome

_GREGORIAN = datetime(1582, 10, 15, tzinfo=UTC)
"""From when on the ids of checkpoints count time, in units of 100 ns (RFC 9562)."""

_THREADS = ("thread", "checkpoints", "namespaces", "last", "step", "source")
_HISTORY = ("checkpoint", "namespace", "made", "step", "source", "writes", "parent", "head")
_NAMES_SHOWN = 5


def threads(
    context: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most.")] = None,
    at: At = None,
    as_json: AsJson = False,
) -> int:
    """List threads: how many checkpoints, and when each was last written."""
    with home_at(at, tiers_name(context)) as home:
        rows = _threads(home, limit)
        output.lines(rows, _THREADS, as_json=as_json, empty=f"no threads at {home.name}")
    return output.OK


def _threads(home: SaverHome, limit: int | None) -> Iterator[Sequence[Any]]:
    for number, thread in enumerate(home.threads()):
        if number == limit:
            return
        found = home.addresses(thread)
        if not found:
            continue
        spaces = {namespace for namespace, _ in found}
        newest = max(found, key=lambda at: (at[0] == "", at[1]))
        about = _metadata(home, thread, newest)
        last = made_at(newest[1])
        yield thread, len(found), len(spaces), last, about.get("step"), about.get("source")


def _metadata(home: SaverHome, thread: str, at: Address) -> Mapping[str, Any]:
    """What the saver knows of a checkpoint; nothing if it is encrypted and keys are not here."""
    from langgraph_valkey.moving.our_homes import OurHome

    try:
        if isinstance(home, OurHome):
            return home.metadata(thread, at) or {}
        cargo = home.cargo(thread, at)
    except ConfigurationError:
        return {}
    return {} if cargo is None else cargo.found.metadata


def made_at(checkpoint_id: str) -> str | None:
    """When a checkpoint was made, by its id; None if that does not tell."""
    try:
        made = UUID(checkpoint_id)
    except ValueError:
        return None
    if made.version != 6:
        return None
    ticks = (made.int >> 80 << 12) | (made.int >> 64 & 0xFFF)
    at = _GREGORIAN + timedelta(microseconds=ticks / 10)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def history(
    context: typer.Context,
    thread: Annotated[str, typer.Argument(metavar="THREAD")],
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    namespace: Annotated[
        str | None, typer.Option(help="Of one namespace alone; '' for the graph itself.")
    ] = None,
    at: At = None,
    as_json: AsJson = False,
) -> int:
    """List a thread's checkpoints, the newest first."""
    with home_at(at, tiers_name(context)) as home:
        found = [each for each in home.addresses(thread) if namespace in (None, each[0])]
        if not found:
            output.complain(f"there is no thread {thread!r} at {home.name}")
            return output.FAILED
        newest = sorted(found, key=lambda each: each[1])[-limit:]
        rows = sorted(_history(home, thread, newest), key=lambda row: str(row[0]), reverse=True)
        output.lines(rows, _HISTORY, as_json=as_json, empty="")
    return output.OK


def _history(home: SaverHome, thread: str, wanted: Sequence[Address]) -> Iterator[Sequence[Any]]:
    heads = home.heads(thread)
    for cargo in home.cargoes(thread, set(wanted)):
        about = cargo.found.metadata
        writes = sum(len(task.ordinary) + len(task.special) for task in cargo.tasks)
        yield (
            cargo.id,
            cargo.namespace,
            made_at(cargo.id),
            about.get("step"),
            about.get("source"),
            writes,
            cargo.parent_id or None,
            "head" if heads.get(cargo.namespace) == cargo.id else None,
        )


def delete(
    context: typer.Context,
    thread: Annotated[list[str], typer.Argument(metavar="THREAD...")],
    durable: Annotated[
        bool,
        typer.Option(
            "--durable", help="By the tiers, for good: no failover brings it back. Not with --at."
        ),
    ] = False,
    at: At = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Delete threads, with all their checkpoints."""
    if durable and at is not None:
        raise ConfigurationError("--durable is by the tiers, and --at names another place")
    output.ask(f"Delete {_listed(thread)}? This can't be undone.", yes=yes)
    gone, missing = list[str](), list[str]()
    if durable:
        with tiers_of(tiers_name(context)) as tiers:
            for each in thread:
                tiers.delete_thread(each)
                gone.append(each)
    else:
        with home_at(at, tiers_name(context), writes=True) as home:
            for each in thread:
                (gone if home.addresses(each) else missing).append(each)
                home.delete(each)  # Also one that is not there: something may be on its way.
    _tell({"deleted": gone, "not_there": missing}, as_json=as_json)
    return output.LOOK if missing else output.OK


def prune(
    context: typer.Context,
    thread: Annotated[list[str] | None, typer.Argument(metavar="[THREAD...]")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every thread.")] = False,
    at: At = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Keep only the latest checkpoint of threads, and what it is rebuilt from."""
    if bool(thread) == every:
        raise ConfigurationError("name threads, or say --all")
    pruned, removed = list[str](), 0
    with home_at(at, tiers_name(context), writes=True) as home:
        names = list(home.threads()) if every else list(thread or ())
        what = f"all {len(names)} threads" if every else _listed(names)
        output.ask(f"Prune {what} to the latest checkpoint? There is no way back.", yes=yes)
        for each in names:
            before = len(home.addresses(each))
            _prune(home, each)
            removed += before - len(home.addresses(each))
            pruned.append(each)
    _tell({"pruned": pruned, "checkpoints_removed": removed}, as_json=as_json)
    return output.OK


def _prune(home: SaverHome, thread: str) -> None:
    try:
        home.saver.prune([thread], strategy="keep_latest")
    except NotImplementedError as error:
        raise ConfigurationError(
            f"{type(home.saver).__name__} can't prune thread {thread!r}: it has no such method, or "
            "the thread uses a DeltaChannel"
        ) from error


def _listed(names: Sequence[str]) -> str:
    """Some names, for a question."""
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    noun = "thread" if len(names) == 1 else "threads"
    return f"{noun} {shown}" + (f" and {more} more" if more > 0 else "")


def _tell(done: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.emit(dict(done))
        return
    for what, value in done.items():
        count = value if isinstance(value, int) else len(value)
        output.say(f"{what.replace('_', ' ')}: {count}")
