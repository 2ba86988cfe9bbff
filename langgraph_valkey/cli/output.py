"""What the command prints, and how it asks."""

# ruff: noqa: T201 - a command line prints.

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

OK, LOOK, FAILED = 0, 1, 2
"""Exit statuses."""

_PIPED = 10_000
"""Columns of what is no terminal: lines are not broken there, or cut."""

Status: TypeAlias = int


class Refused(Exception):
    """Something was not done, since nobody said that it should be."""


def console(*, to_stderr: bool = False) -> Console:
    """Where to print; made anew each time, since the streams may have been replaced."""
    file = sys.stderr if to_stderr else sys.stdout
    width = None if file.isatty() else _PIPED
    return Console(file=file, width=width, highlight=False, emoji=False, markup=False)


def printable(text: str) -> str:
    """A text with what moves a cursor, or is no character, spelled out: ids may hold anything."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def say(text: str) -> None:
    """Print a line."""
    print(printable(text))


def complain(text: str) -> None:
    """Print a line to where errors go."""
    print(printable(text), file=sys.stderr)


def emit(value: Any, *, indent: int | None = None) -> None:
    """Print JSON: one line, or indented."""
    print(json.dumps(value, indent=indent, default=str), flush=True)


def show(value: Any) -> None:
    """Print JSON for somebody to read."""
    text = printable(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    if _is_tty():
        console().print(JSONHighlighter()(Text(text)))
    else:
        print(text)


def lines(
    rows: Iterable[Sequence[Any]], columns: Sequence[str], *, as_json: bool, empty: str
) -> int:
    """Print rows: as a table, or an object a line.

    Args:
        rows: Their cells, in the order of the columns. None is no cell.
        columns: Their names.
        as_json: Whether to print objects.
        empty: What to say of a table without rows.

    Returns:
        How many there were.
    """
    if as_json:
        count = 0
        for row in rows:
            emit(dict(zip(columns, row, strict=True)))
            count += 1
        return count
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(Text(name.replace("_", " ")), overflow="fold", no_wrap=not _is_tty())
    for row in rows:
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        complain(empty)
    return table.row_count


def ask(question: str, *, yes: bool) -> None:
    """Go on only if somebody wants it.

    Args:
        question: What is about to be destroyed, and whether to.
        yes: It was said already.

    Raises:
        Refused: Nobody does, or nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{question} Nobody can be asked here: add --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("nothing was done")


def _is_tty() -> bool:
    return sys.stdout.isatty()


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def without_places(text: str, arguments: Iterable[str]) -> str:
    """A text without arguments that may hold a password."""
    for argument in arguments:
        for secret in (argument, argument.partition("=")[2]):
            if "://" in secret and "@" in secret:
                text = text.replace(secret, f"{secret.partition('://')[0]}://...")
    return text


Command: TypeAlias = Callable[..., Status]
