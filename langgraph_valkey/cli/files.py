"""``export`` and ``import``: one thread, in one file."""

from __future__ import annotations

import os
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langgraph_valkey.cli import output
from langgraph_valkey.cli.naming import home_at
from langgraph_valkey.cli.options import AsJson, At, Yes, tiers_name

if TYPE_CHECKING:
    from langgraph_valkey.moving.homes import SaverHome


def export(
    context: typer.Context,
    thread: Annotated[str, typer.Argument(metavar="THREAD")],
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file; standard output if none."),
    ] = None,
    at: At = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Write a thread to a file: all of its state, in clear."""
    if to is not None and to.exists():
        output.ask(f"Replace {to}?", yes=yes)
    with home_at(at, tiers_name(context)) as home:
        count = _written(home, thread, to)
    told = {"thread": thread, "checkpoints": count, "file": None if to is None else str(to)}
    if to is not None and as_json:
        output.emit(told)
    elif to is not None:
        output.say(f"{output.plural(count, 'checkpoint')} of thread {thread!r} in {to}")
    return output.OK


def _written(home: SaverHome, thread: str, to: Path | None) -> int:
    from langgraph_valkey.moving import thread_file

    if to is None:
        return thread_file.write(home, thread, sys.stdout.buffer)
    # Under another name until it is whole; and for its owner's eyes alone.
    part = to.with_name(f"{to.name}.part")
    with suppress(FileNotFoundError):
        part.unlink()
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            count = thread_file.write(home, thread, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(to)
    return count


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    under: Annotated[
        str | None, typer.Option("--as", metavar="THREAD", help="Under another name.")
    ] = None,
    at: At = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Read a thread from a file, and look whether all of it came back."""
    from langgraph_valkey.moving.copying import Copying
    from langgraph_valkey.moving.ledger import Ledger
    from langgraph_valkey.moving.thread_file import ThreadFile

    with (
        closing(ThreadFile(file, under)) as source,
        home_at(at, tiers_name(context), writes=True) as target,
    ):
        between = source.identity, target.identity
        walk = Copying(source, target, Ledger(None, between)).verify()
        if walk.taken:
            what = f"{target.name} has another thread {source.thread!r}. Replace it?"
            output.ask(what, yes=yes)
            walk = Copying(source, target, Ledger(None, between), overwrite=True).verify()
        count = len(source.addresses(source.thread))
    for why in walk.failed.values():
        output.complain(why)
    if walk.failed or walk.verified != [source.thread]:
        return output.FAILED
    if as_json:
        output.emit({"thread": source.thread, "checkpoints": count, "verified": True})
    else:
        output.say(f"{output.plural(count, 'checkpoint')} of thread {source.thread!r}, verified")
    return output.OK
