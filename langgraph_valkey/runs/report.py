"""What a program is told about its runs: what `recover` did, and how they are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunTrouble:
    """A run that could not be brought to its end, and why.

    Attributes:
        run_id: The run.
        thread_id: Its thread.
        why: In one sentence, without anything of the thread's state.
        error: What was raised, if that is what it was; it may hold state.
    """

    run_id: str
    thread_id: str
    why: str
    error: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class RunsReport:
    """What `recover` found, and did.

    Attributes:
        fine: Runs whose thread is whole: nothing was executed.
        rerun: Runs that were executed again, to their end or an interrupt.
        conflicts: Runs that were lost, and whose thread went on without them. They are
            never touched, and reported each time until they are cancelled.
        failed: Runs that raised, or can't be executed again now. They are left, and the
            next recovery tries them again; one that keeps raising has ended as "failed"
            after some attempts.
        busy: Runs whose owner lives, or that another process got first.
        unknown_graphs: Runs of graphs that were not given.
        deleted: Runs whose thread was deleted for good since; they were cancelled.
        duration_s: How long it took.
    """

    fine: tuple[str, ...]
    rerun: tuple[str, ...]
    conflicts: tuple[RunTrouble, ...]
    failed: tuple[RunTrouble, ...]
    busy: tuple[str, ...]
    unknown_graphs: tuple[RunTrouble, ...]
    deleted: tuple[str, ...]
    duration_s: float


@dataclass(frozen=True, slots=True)
class RunsHealth:
    """The runs of this process.

    Attributes:
        owner: As what it is known in the registry.
        running: Ids of the runs it executes now.
        settling: How many runs have ended whose last checkpoint may still be lost.
        silent_s: How long ago it last said that it lives; None if it never had to.
    """

    owner: str
    running: tuple[str, ...]
    settling: int
    silent_s: float | None
