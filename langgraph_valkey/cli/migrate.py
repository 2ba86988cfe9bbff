"""``migrate``: threads from one checkpointer to another, also while they are being written.

It copies, then catches up with what was written meanwhile, walk by walk. The last walk
needs the writers stopped, and verifies: somebody says that they are (at the question, or by
``--yes``), or ``--until-quiet`` waits until nothing has changed for so long.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from langgraph_valkey.cli import output
from langgraph_valkey.cli.naming import leave, named
from langgraph_valkey.cli.options import AsJson, Yes

if TYPE_CHECKING:
    from langgraph_valkey.moving.copying import Copying, Walk
    from langgraph_valkey.moving.homes import Home

_POLL_S = 0.5
"""How often a source that seems quiet is looked at again, at least."""

_SHOWN = 10
"""How many threads of a kind are named; all of them with --json."""


def migrate(
    source: Annotated[str, typer.Option("--from", metavar="PLACE", help="Where to copy from.")],
    target: Annotated[str, typer.Option("--to", metavar="PLACE", help="Where to copy to.")],
    thread: Annotated[
        list[str] | None, typer.Option("--thread", help="This thread alone; may be repeated.")
    ] = None,
    until_quiet_s: Annotated[
        float | None,
        typer.Option(
            "--until-quiet",
            metavar="SECONDS",
            min=0.0,
            help="Catch up until nothing has changed for so long, then end. Choose it longer "
            "than writers pause, and than a failover of the source lasts.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to note how far it is; a file in this folder if not said."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace threads at the target that are others.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Copy threads to another place, catch up, and verify; it may be killed and resumed.

    A place is a URL (valkey://, postgresql://, sqlite:///file, aws+valkey://), module:attribute
    of a checkpointer, or env:NAME for a URL in a variable. --yes also says that nothing writes
    to the source.
    """
    from langgraph_valkey.moving.opening import pair

    if until_quiet_s is None and not yes and not sys.stdin.isatty():
        raise output.Refused(
            "the last walk needs the writers stopped: say --until-quiet SECONDS, or --yes if "
            "nothing writes to the source"
        )
    if overwrite:
        output.ask("Replace threads at the target that are other ones?", yes=yes)
    ends = pair(source, target, named)
    try:
        moving = _Moving(ends, state, thread, overwrite=overwrite)
        walk = moving.run(until_quiet_s, stopped=yes)
    finally:
        for end in ends:
            leave(end)
    _report(ends, walk, as_json=as_json)
    return output.OK if _is_done(walk) else output.LOOK


class _Moving:
    """A migration, and how it is shown."""

    def __init__(
        self,
        ends: tuple[Home, Home],
        state: Path | None,
        threads: list[str] | None,
        *,
        overwrite: bool,
    ) -> None:
        from langgraph_valkey.moving.copying import Copying
        from langgraph_valkey.moving.ledger import Ledger

        between = ends[0].identity, ends[1].identity
        short = hashlib.sha256("\n".join(between).encode()).hexdigest()[:8]
        path = state or Path(f"langgraph-valkey-migrate-{short}.db")
        self._ledger = Ledger(path, between)
        self._copying: Copying = Copying(
            *ends, self._ledger, only=threads, overwrite=overwrite, tell=self._tell
        )
        self._progress: Progress | None = None
        self._copied: set[str] = set()

    def run(self, until_quiet_s: float | None, *, stopped: bool) -> Walk:
        """Copy, catch up and verify; what it all came to."""
        done = False
        try:
            with self._shown("copying"):
                self._catch_up(until_quiet_s)
            if until_quiet_s is None and not stopped:
                input("All is copied. Stop what writes to the source, then press Enter: ")
            while True:
                with self._shown("verifying"):
                    walk = self._verified()
                if until_quiet_s is None or not walk.changing:
                    break
                with self._shown("catching up"):
                    self._catch_up(until_quiet_s)
            walk.copied = sorted(self._copied)
            done = _is_done(walk)
            return walk
        finally:
            self._ledger.close(done=done)

    def _catch_up(self, until_quiet_s: float | None) -> None:
        """Walk until nothing has changed for so long; once if not said for how long."""
        quiet_since_s = time.monotonic()
        while True:
            walk = self._copying.catch_up()
            self._copied.update(walk.copied)
            now_s = time.monotonic()
            if not walk.is_quiet:
                quiet_since_s = now_s
            if until_quiet_s is None or now_s - quiet_since_s >= until_quiet_s:
                return
            time.sleep(min(_POLL_S, until_quiet_s / 4))

    def _verified(self) -> Walk:
        """The walk that verifies, and with it what was written while it lasted."""
        walk = self._copying.verify()
        after = self._copying.catch_up()
        self._copied.update(walk.copied, after.copied)
        walk.changing = sorted({*walk.changing, *after.copied, *after.deleted, *after.changing})
        walk.verified = [each for each in walk.verified if each not in walk.changing]
        return walk

    @contextmanager
    def _shown(self, what: str) -> Iterator[None]:
        """Show a bar while this lasts; where nobody looks, a line."""
        screen = output.console(to_stderr=True)
        if not screen.is_terminal:
            output.complain(f"{what} ...")
            yield
            return
        columns = (
            TextColumn(f"{what:<11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("threads"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=screen) as self._progress:
            self._progress.add_task(what, total=None)
            try:
                yield
            finally:
                self._progress = None

    def _tell(self, done: int, of: int) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done, total=of)


def _is_done(walk: Walk) -> bool:
    return not (walk.failed or walk.taken or walk.changing)


def _report(ends: tuple[Home, Home], walk: Walk, *, as_json: bool) -> None:
    if as_json:
        output.emit({"from": ends[0].name, "to": ends[1].name, **asdict(walk)}, indent=2)
        return
    output.say(f"{ends[0].name} -> {ends[1].name}")
    output.say(f"copied: {len(walk.copied)}, verified: {len(walk.verified)} of {walk.seen}")
    if walk.deleted:
        output.say(f"deleted, since they were at the source: {len(walk.deleted)}")
    lists = (
        ("still being written: stop the writers, and call again", walk.changing),
        ("already there, and others: not touched (--overwrite replaces them)", walk.taken),
        ("not carried", [f"{thread}: {why}" for thread, why in walk.failed.items()]),
    )
    for what, found in lists:
        if found:
            output.say(f"{what}: {len(found)}")
            for each in found[:_SHOWN]:
                output.say(f"  {each}")
            if len(found) > _SHOWN:
                output.say(f"  and {len(found) - _SHOWN} more (--json names all)")
