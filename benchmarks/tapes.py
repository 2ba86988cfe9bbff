"""What a saver asks of its loss window: timed in its place, or played again alone.

A *tape* holds the very arguments of a real run. Played to a window that keeps a journal and to one
that keeps none, the difference is what the journal takes: no server, no network, and
no caller in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from langgraph_valkey import limits, reads
from langgraph_valkey.loss_window.durability import Rule
from langgraph_valkey.loss_window.spool import Spool
from langgraph_valkey.loss_window.window import LossWindow

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(slots=True)
class Tape:
    """Arguments, call by call.

    Attributes:
        sent: Of `LossWindow.sending`.
        taken: Of the `LossWindow.taken` that followed, without the entry.
        noted: Of `reads.note`, without the window.
    """

    sent: list[tuple[Any, ...]] = field(default_factory=list)
    taken: list[Arguments] = field(default_factory=list)
    noted: list[tuple[Any, ...]] = field(default_factory=list)


@contextmanager
def record() -> Iterator[Tape]:
    """Record what savers ask of their windows, call after call, while this is open."""
    tape = Tape()
    sending, taken, note = LossWindow.sending, LossWindow.taken, reads.note

    def record_sending(window: LossWindow, *values: Any) -> Any:
        tape.sent.append(values)
        return sending(window, *values)

    def record_taken(window: LossWindow, entry: Any, *values: Any, **named: Any) -> None:
        tape.taken.append((values, named))
        taken(window, entry, *values, **named)

    def record_note(window: LossWindow, *values: Any) -> None:
        tape.noted.append(values)
        note(window, *values)

    with (
        patch.object(LossWindow, "sending", record_sending),
        patch.object(LossWindow, "taken", record_taken),
        patch.object(reads, "note", record_note),
    ):
        yield tape


@dataclass(slots=True)
class Clock:
    """How long the last write's `sending` and `taken` took, in seconds."""

    last_s: float = 0.0


@contextmanager
def timed() -> Iterator[Clock]:
    """Time what windows do for each write while this is open; one write at a time."""
    clock = Clock()
    sending, taken, now = LossWindow.sending, LossWindow.taken, time.perf_counter

    def time_sending(window: LossWindow, *values: Any) -> Any:
        started = now()
        entry = sending(window, *values)
        clock.last_s = now() - started
        return entry

    def time_taken(window: LossWindow, *values: Any, **named: Any) -> None:
        started = now()
        taken(window, *values, **named)
        clock.last_s += now() - started

    with (
        patch.object(LossWindow, "sending", time_sending),
        patch.object(LossWindow, "taken", time_taken),
    ):
        yield clock


def window(tape: Tape, *, keeps: bool = True, spool: Spool | None = None) -> LossWindow:
    """A window of a process that has been running: it knows the primary of each slot."""
    made = LossWindow("lgv", Rule("async", limits.LAG_BOUND_S, keeps=keeps), spool=spool)
    for (_, _, _, keys, *_), ((answer, _, now_s), _) in zip(tape.sent, tape.taken, strict=True):
        made.heard(keys, answer.identity, now_s)
    return made


def play(tape: Tape, to: LossWindow) -> float:
    """Play the writes; in seconds."""
    calls = list(zip(tape.sent, tape.taken, strict=True))
    sending, taken = to.sending, to.taken
    started = time.perf_counter()
    for sent, (values, named) in calls:
        taken(sending(*sent), *values, **named)
    return time.perf_counter() - started


def play_each(tape: Tape, to: LossWindow) -> list[float]:
    """Play the writes; each one's time in seconds, some 0.1 us too long."""
    spent_s: list[float] = []
    for sent, (values, named) in zip(tape.sent, tape.taken, strict=True):
        started = time.perf_counter()
        to.taken(to.sending(*sent), *values, **named)
        spent_s.append(time.perf_counter() - started)
    return spent_s


def play_reads(tape: Tape, to: LossWindow) -> float:
    """Play the reads; in seconds."""
    note: Callable[..., None] = reads.note
    started = time.perf_counter()
    for values in tape.noted:
        note(to, *values)
    return time.perf_counter() - started


def play_trim(to: LossWindow) -> float:
    """Let all that was played turn out durable at once; in seconds."""
    now_s = time.monotonic()
    to.rule.told("sync", "settings", now_s)
    started = time.perf_counter()
    to.trim(now_s)
    return time.perf_counter() - started
