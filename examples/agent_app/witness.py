"""What customers were told, held against what is left of it.

A customer's message counts as accepted once the agent has begun to think about it: its
checkpoint is acknowledged then. It counts as answered once the answer was on the screen.
None of that may be gone afterwards. The witness remembers, in the server's memory, which
no fault here touches, and compares with what the threads hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHOWN = 60


@dataclass(slots=True)
class Turn:
    """A customer's message.

    Attributes:
        text: What was said.
        accepted: Whether its checkpoint was acknowledged.
        answered: Whether its answer was on the screen.
    """

    text: str
    accepted: bool = False
    answered: bool = False


@dataclass(slots=True)
class Verdict:
    """What is left of what was told.

    Attributes:
        threads: How many conversations were looked at.
        accepted: Messages that were accepted.
        answered: Messages that were answered.
        gone: Texts of accepted messages that are not in their threads any more.
        unanswered: Texts of messages whose answers were told, and are gone.
    """

    threads: int = 0
    accepted: int = 0
    answered: int = 0
    gone: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether nothing is missing."""
        return not self.gone and not self.unanswered


class Witness:
    """All turns, by conversation and run."""

    def __init__(self) -> None:
        self._turns: dict[str, dict[str, Turn]] = {}

    @property
    def threads(self) -> list[str]:
        """Conversations of which something was accepted."""
        return [
            thread
            for thread, turns in self._turns.items()
            if any(turn.accepted for turn in turns.values())
        ]

    def said(self, thread: str, run: str, text: str) -> None:
        """A customer has said something."""
        self._turns.setdefault(thread, {})[run] = Turn(text)

    def accepted(self, thread: str, run: str) -> None:
        """A run has begun, so its message is stored."""
        turn = self._turns.get(thread, {}).get(run)
        if turn is not None:
            turn.accepted = True

    def answered(self, thread: str, run: str) -> None:
        """A run has ended with an answer: to its own message, or to the one it goes on with."""
        turns = self._turns.get(thread, {})
        turn = turns.get(run) or next(reversed(turns.values()), None)
        if turn is not None:
            turn.accepted = turn.answered = True

    def travelled(self, thread: str, turns: Mapping[str, bool]) -> None:
        """A conversation went on elsewhere: what is not on that branch was left on purpose."""
        kept = self._turns.get(thread, {})
        self._turns[thread] = {
            run: Turn(turn.text, turn.accepted, turns[run])
            for run, turn in kept.items()
            if run in turns
        }

    def compare(self, found: Mapping[str, Mapping[str, bool]]) -> Verdict:
        """Compare with what there is; what is gone is told once.

        Args:
            found: Of each conversation, its messages by run, and whether each is answered.
        """
        verdict = Verdict(threads=len(found))
        for thread, turns in found.items():
            for run, turn in list(self._turns.get(thread, {}).items()):
                if not turn.accepted:
                    continue
                verdict.accepted += 1
                verdict.answered += turn.answered
                if run not in turns:
                    verdict.gone.append(turn.text[:SHOWN])
                    del self._turns[thread][run]
                elif turn.answered and not turns[run]:
                    verdict.unanswered.append(turn.text[:SHOWN])
                    turn.answered = False
        return verdict
