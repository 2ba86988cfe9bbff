"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask: do it.")]
At: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="PLACE",
        help="Where the threads are: a URL, module:attribute, or env:NAME for a URL in a "
        "variable; the environment's cluster if not given.",
    ),
]


def tiers_name(context: typer.Context) -> str | None:
    """What was given as ``--tiers``."""
    name: str | None = context.obj
    return name
