"""The command line: what an operator does without a program.

::

    python -m langgraph_valkey setup                      # make tables, check all clusters
    python -m langgraph_valkey health                     # JSON
    python -m langgraph_valkey recover --graph shop:agent # run again what was lost
    python -m langgraph_valkey dead-letters               # JSON lines, without bodies
    python -m langgraph_valkey revive ID ...              # have these sent again

Settings come from the environment (see `tiers.settings`), or from the `StateTiers` that
``--tiers module:attribute`` names.

A graph is named ``module:attribute``. That is a function of the `StateTiers` which returns
the compiled graph (best, since its tools commit by these tiers); or a `StateGraph` that is
not compiled yet; or, with ``--tiers``, one that was compiled with their saver. A re-run
takes the name of a graph to find it: ``--graph name=module:attribute`` gives one.

Exit status: 0 if all is well; 1 if something is left to be looked at (conflicts, failures,
a primary store that does not answer); 2 if it could not be done.
"""

# ruff: noqa: T201 - a command line prints.

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

from langgraph_valkey.errors import ConfigurationError, LanggraphValkeyError
from langgraph_valkey.primary.records import Message, moment
from langgraph_valkey.runs.report import RunTrouble
from langgraph_valkey.tiers.state_tiers import StateTiers

OK, LOOK, FAILED = 0, 1, 2
"""Exit statuses."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Args:
        arguments: Those after the program's name; the process's own if not given.

    Returns:
        The exit status.
    """
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    sys.path.insert(0, os.getcwd())
    command: Callable[[StateTiers, argparse.Namespace], int] = given.command
    try:
        with _tiers(given.tiers) as tiers:
            return command(tiers, given)
    except LanggraphValkeyError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m langgraph_valkey",
        description="Look after the state tiers of LangGraph agents.",
        epilog="Settings come from LANGGRAPH_VALKEY_... variables, or from --tiers.",
    )
    parser.add_argument("--tiers", metavar="MODULE:ATTRIBUTE", help="a StateTiers to use")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, does: Callable[..., int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=does)
        return command

    add("setup", _setup, "make the primary store's tables, and check all clusters")
    add("health", _health, "print how all places are, as JSON")
    recover = add("recover", _recover, "run again what was lost")
    recover.add_argument(
        "--graph",
        action="append",
        required=True,
        metavar="[NAME=]MODULE:ATTRIBUTE",
        help="a graph, or a function of the tiers that returns one; may be repeated",
    )
    letters = add("dead-letters", _dead_letters, "print messages that were given up, as JSON lines")
    letters.add_argument("--limit", type=int, default=100, help="how many at most")
    revive = add("revive", _revive, "have dead letters sent again")
    revive.add_argument("ids", nargs="+", metavar="ID")
    return parser


def _tiers(name: str | None) -> StateTiers:
    if name is None:
        return StateTiers()
    tiers = _named(name)
    if not isinstance(tiers, StateTiers):
        raise ConfigurationError(f"{name} is a {type(tiers).__name__}, not a StateTiers")
    return tiers


def _named(name: str) -> Any:
    """What ``module:attribute`` names."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(
            f"{name!r} names nothing: write module:attribute, as in shop:agent"
        )
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigurationError(
            f"there is no module {module_name!r} on the path: start this where it can be imported"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"module {module_name!r} has no attribute {attribute!r}")
        found = getattr(found, part)
    return found


def _graph(tiers: StateTiers, name: str) -> Any:
    """The compiled graph that is named, with the saver of the tiers."""
    found = _named(name)
    if hasattr(found, "compile"):
        return found.compile(checkpointer=tiers.saver)
    if hasattr(found, "invoke") or not callable(found):
        return found
    return found(tiers)


# --- commands ----------------------------------------------------------------------------


def _setup(tiers: StateTiers, _: argparse.Namespace) -> int:
    tiers.setup()
    print("ready")
    return OK


def _health(tiers: StateTiers, _: argparse.Namespace) -> int:
    health = tiers.health()
    print(json.dumps(asdict(health), indent=2, default=str))
    return LOOK if health.primary_trouble else OK


def _recover(tiers: StateTiers, given: argparse.Namespace) -> int:
    for each in given.graph:
        name, equals, place = each.rpartition("=")
        tiers.register(_graph(tiers, place), name=name if equals else None)
    report = tiers.recover()
    for kind in ("fine", "rerun", "busy", "deleted"):
        runs: Sequence[str] = getattr(report, kind)
        print(f"{kind}: {len(runs)}")
        if kind == "rerun":
            for run_id in runs:
                print(f"  {run_id}")
    troubles: list[RunTrouble] = []
    for kind in ("conflicts", "failed", "unknown_graphs"):
        found: Sequence[RunTrouble] = getattr(report, kind)
        print(f"{kind.replace('_', ' ')}: {len(found)}")
        for trouble in found:
            print(f"  {trouble.run_id} (thread {trouble.thread_id}): {trouble.why}")
        troubles += found
    return LOOK if troubles else OK


def _dead_letters(tiers: StateTiers, given: argparse.Namespace) -> int:
    letters = tiers.outbox.dead_letters(given.limit)
    for letter in letters:
        print(json.dumps(_shown(letter)))
    return OK


def _shown(letter: Message) -> dict[str, Any]:
    """A message without its body, which is the user's."""
    return {
        "id": letter.id,
        "topic": letter.topic,
        "op": letter.op,
        "key": letter.key,
        "attempts": letter.attempts,
        "committed_at": moment(letter.created_s).isoformat(),
        "error": letter.error,
    }


def _revive(tiers: StateTiers, given: argparse.Namespace) -> int:
    revived = tiers.outbox.revive(given.ids)
    print(f"revived: {revived}")
    return OK if revived == len(set(given.ids)) else LOOK
