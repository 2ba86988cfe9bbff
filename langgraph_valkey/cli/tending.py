"""Looking after all places: ``setup``, ``recover``, ``dead-letters``, ``revive``.

A graph is named ``module:attribute``. That is a function of the `StateTiers` which returns
the compiled graph (best, since its tools commit by these tiers); or a `StateGraph` that is
not compiled yet; or, with ``--tiers``, one that was compiled with their saver. A re-run
takes the name of a graph to find it: ``--graph name=module:attribute`` gives one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_valkey.cli import output
from langgraph_valkey.cli.naming import graph_of, tiers_of
from langgraph_valkey.cli.options import AsJson, tiers_name

if TYPE_CHECKING:
    from langgraph_valkey.primary.records import Message
    from langgraph_valkey.runs.report import RunsReport, RunTrouble

_DONE = ("fine", "rerun", "busy", "deleted")
_LEFT = ("conflicts", "failed", "unknown_graphs")


def setup(context: typer.Context, as_json: AsJson = False) -> int:
    """Make the primary store's tables, and check all clusters."""
    with tiers_of(tiers_name(context)) as tiers:
        tiers.setup()
    if as_json:
        output.emit({"ready": True})
    else:
        output.say("ready")
    return output.OK


def recover(
    context: typer.Context,
    graph: Annotated[
        list[str],
        typer.Option(
            "--graph",
            metavar="[NAME=]MODULE:ATTRIBUTE",
            help="A graph, or a function of the tiers that returns one; may be repeated.",
        ),
    ],
    as_json: AsJson = False,
) -> int:
    """Run again what was lost."""
    with tiers_of(tiers_name(context)) as tiers:
        for each in graph:
            name, equals, place = each.rpartition("=")
            tiers.register(graph_of(tiers, place), name=name if equals else None)
        report = tiers.recover()
    if as_json:
        output.emit(_told(report), indent=2)
    else:
        _say(report)
    return output.LOOK if any(getattr(report, kind) for kind in _LEFT) else output.OK


def _told(report: RunsReport) -> dict[str, Any]:
    """A report without what was raised, which may hold state."""
    told: dict[str, Any] = {kind: list(getattr(report, kind)) for kind in _DONE}
    for kind in _LEFT:
        troubles: Sequence[RunTrouble] = getattr(report, kind)
        told[kind] = [
            {"run_id": each.run_id, "thread_id": each.thread_id, "why": each.why}
            for each in troubles
        ]
    return told | {"duration_s": report.duration_s}


def _say(report: RunsReport) -> None:
    for kind in _DONE:
        runs: Sequence[str] = getattr(report, kind)
        output.say(f"{kind}: {len(runs)}")
        if kind == "rerun":
            for run_id in runs:
                output.say(f"  {run_id}")
    for kind in _LEFT:
        found: Sequence[RunTrouble] = getattr(report, kind)
        output.say(f"{kind.replace('_', ' ')}: {len(found)}")
        for trouble in found:
            output.say(f"  {trouble.run_id} (thread {trouble.thread_id}): {trouble.why}")


def dead_letters(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 100,
    as_json: AsJson = True,
) -> int:
    """Print messages that were given up, as JSON lines, without their bodies."""
    del as_json  # There is no other form.
    with tiers_of(tiers_name(context)) as tiers:
        for letter in tiers.outbox.dead_letters(limit):
            output.emit(_shown(letter))
    return output.OK


def _shown(letter: Message) -> dict[str, Any]:
    """A message without its body, which is the user's."""
    from langgraph_valkey.primary.records import moment

    return {
        "id": letter.id,
        "topic": letter.topic,
        "op": letter.op,
        "key": letter.key,
        "attempts": letter.attempts,
        "committed_at": moment(letter.created_s).isoformat(),
        "error": letter.error,
    }


def revive(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    as_json: AsJson = False,
) -> int:
    """Have dead letters sent again."""
    with tiers_of(tiers_name(context)) as tiers:
        revived = tiers.outbox.revive(ids)
    if as_json:
        output.emit({"revived": revived})
    else:
        output.say(f"revived: {revived}")
    return output.OK if revived == len(set(ids)) else output.LOOK
