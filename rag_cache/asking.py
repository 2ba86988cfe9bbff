"""One lookup under way: what is asked, and what has come of it so far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from rag_cache.judging import Judged
from rag_cache.partitions import Partition
from rag_cache.results import Fence, Refusal
from rag_cache.within import Within

if TYPE_CHECKING:
    import numpy as np

    from rag_cache.metrics import MissReason

    Vector: TypeAlias = np.ndarray[Any, Any]

Embed: TypeAlias = "Callable[[str], Awaitable[Vector]]"
Verify: TypeAlias = Callable[[str, str, Any], Awaitable[str | None]]


class Bypass(Exception):
    """Why nothing can be served now."""

    def __init__(self, reason: MissReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Asking:
    """One lookup under way.

    Attributes:
        question: What is asked.
        within: In which scope.
        entry_id: Name of the entry for exactly this question.
        home: The partition of that entry.
        documents: Ids of the current top documents; None if they are not known.
        embed: Embeds a text: the embedder's method of one face.
        verify: Tells why an answer does not fit, having seen it; None if there is no verifier.
        until_s: When to give up, by the link's clock.
        vector: The question's embedding, once it is known.
        fence: What was current when the server was asked first.
        judged: What came of the nearest entries.
        refusals: Entries that were refused after they had been judged.
        verdicts: What the server said of entries, by their ids.
        was_answered: Whether the server has answered anything.
        was_late: Whether the time was over before the server was asked, on a busy machine.
    """

    question: str
    within: Within
    entry_id: str
    home: Partition
    documents: tuple[str, ...] | None
    embed: Embed
    verify: Verify | None
    until_s: float
    vector: Vector | None = None
    fence: Fence | None = None
    judged: Judged = field(default_factory=Judged)
    refusals: list[Refusal] = field(default_factory=list)
    verdicts: dict[str, str] = field(default_factory=dict)
    was_answered: bool = False
    was_late: bool = False

    def given_fence(self) -> Fence | None:
        """The fence for who computes now, with the embedding, so that it is made only once."""
        if self.fence is None or self.vector is None:
            return self.fence
        return Fence(self.fence.entry_id, self.fence.mark, self.vector)
