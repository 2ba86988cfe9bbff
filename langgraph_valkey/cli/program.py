"""The program: its commands, and what becomes of what they raise."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from langgraph_valkey.cli import (
    doctor,
    files,
    local_servers,
    migrate,
    naming,
    output,
    showing,
    tending,
    threads,
    watching,
)
from langgraph_valkey.errors import LanggraphValkeyError

NAME = "langgraph-valkey"
MODULE = "python -m langgraph_valkey"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    # What is raised unforeseen shows where, and no variable: those hold state and passwords.
    pretty_exceptions_enable=False,
    help="Look after the state of LangGraph agents on Valkey.",
    epilog="Settings come from LANGGRAPH_VALKEY_... variables, or from --tiers.",
)


@app.callback()
def program(
    context: typer.Context,
    tiers: Annotated[
        str | None, typer.Option(metavar="MODULE:ATTRIBUTE", help="A StateTiers to use.")
    ] = None,
) -> None:
    """What stands before the command."""
    context.obj = tiers


for _name, _command, _panel in (
    ("doctor", doctor.doctor, "The cluster"),
    ("health", watching.health, "The cluster"),
    ("local", local_servers.local, "The cluster"),
    ("threads", threads.threads, "Threads"),
    ("history", threads.history, "Threads"),
    ("show", showing.show, "Threads"),
    ("export", files.export, "Threads"),
    ("import", files.import_, "Threads"),
    ("prune", threads.prune, "Threads"),
    ("delete", threads.delete, "Threads"),
    ("migrate", migrate.migrate, "Threads"),
    ("setup", tending.setup, "Tiers"),
    ("recover", tending.recover, "Tiers"),
    ("dead-letters", tending.dead_letters, "Tiers"),
    ("revive", tending.revive, "Tiers"),
):
    app.command(_name, rich_help_panel=_panel)(_command)


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; see `cli.main`."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    naming.importable()
    try:
        status: Any = app(args=[*arguments], prog_name=_called(), standalone_mode=False)
    except output.Refused as refusal:
        output.complain(str(refusal))
        return output.FAILED
    except LanggraphValkeyError as error:
        output.complain(f"{type(error).__name__}: {error}")
        return output.FAILED
    except typer.Abort:
        output.complain("nobody answered")
        return output.FAILED
    except Exception as error:
        # Typer's errors of usage have no common public class in all its releases.
        if not hasattr(error, "format_message"):
            raise
        _complain_of_usage(error, arguments)
        raise SystemExit(output.FAILED) from None
    return int(status or output.OK)


def _complain_of_usage(error: Any, arguments: Sequence[str]) -> None:
    """Say what is wrong with the command line, without what may hold a password."""
    context = getattr(error, "ctx", None)
    if context is not None:
        output.complain(context.get_usage())
    output.complain(output.without_places(f"Error: {error.format_message()}", arguments))


def _called() -> str:
    """As what the program was called."""
    return NAME if Path(sys.argv[0]).name == NAME else MODULE
