"""What the cache answers: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from rag_cache.metrics import MissReason

HitTier: TypeAlias = Literal["exact", "process", "server", "computed"]
"""Where an answer came from: the very question; this process' matrix; the server's index;
or nowhere, since it was computed just now."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What was current when a computation began; `store` takes it back.

    Attributes:
        entry_id: Of which question.
        mark: Nonce and counter of its partition, 32 bytes.
        vector: The question's embedding, so that it is not computed again.
    """

    entry_id: str
    mark: bytes
    vector: np.ndarray[Any, Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an entry that was near enough was not served.

    Attributes:
        guard: Name of the guard, or of what else refused.
        why: In words; may name words of either question.
        question: The entry's question.
        score: Its cosine.
    """

    guard: str
    why: str
    question: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A value that was found, or computed by `get_or_compute`.

    Attributes:
        value: The value.
        question: The question it was stored under.
        score: Cosine of the two questions' embeddings; 1.0 for the very question.
        tier: Where it came from.
        entry_id: Its name in the cache.
        age_s: How long ago it was stored, by the clocks of the two processes.
        evidence: Ids of the documents it was made from, and their versions.
        saved_s: How long it took to compute; None if that is not known.
        usage: What the model used for it: counts of tokens.
    """

    value: Any
    question: str
    score: float
    tier: HitTier
    entry_id: str
    age_s: float
    evidence: Mapping[str, str | None]
    saved_s: float | None = None
    usage: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> Literal[True]:
        return True


@dataclass(frozen=True, slots=True)
class Miss:
    """Nothing was served.

    Attributes:
        reason: Why.
        fence: To be given to `store` with what is computed now; None if the server could
            not be asked, and then nothing can be stored that has evidence.
        refusals: Entries that were near enough, and why they were not served.
    """

    reason: MissReason
    fence: Fence | None = None
    refusals: tuple[Refusal, ...] = ()

    def __bool__(self) -> Literal[False]:
        return False


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a value that was to be stored.

    Attributes:
        accepted: Whether it is in the cache.
        reason: Why not; "" if it is.
    """

    accepted: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.accepted


@dataclass(frozen=True, slots=True)
class Computed:
    """What a computation may return, to tell more than its value.

    Attributes:
        value: The value.
        evidence: Ids of the documents it was made from, best first, and their versions;
            None for a version that is not known.
        tags: Names by which it can be invalidated.
        usage: What the model used for it.
    """

    value: Any
    evidence: Mapping[str, str | None] = field(default_factory=dict)
    tags: Sequence[str] = ()
    usage: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Considered:
    """One entry that was looked at; see `Explanation`.

    Attributes:
        question: Its question.
        score: Its cosine.
        verdict: What came of it, in words.
    """

    question: str
    score: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a question hits or misses.

    Attributes:
        outcome: "hit", or the reason of the miss.
        tier: Where the hit came from; "" for a miss.
        threshold: What a score has to reach.
        considered: The nearest entries, best first.
    """

    outcome: str
    tier: str
    threshold: float
    considered: tuple[Considered, ...]

    def __str__(self) -> str:
        head = f"hit ({self.tier})" if self.tier else f"miss: {self.outcome}"
        lines = [f"{head}; threshold {self.threshold:.3f}"]
        lines += [
            f"  {each.score:6.3f}  {each.question!r}: {each.verdict}" for each in self.considered
        ]
        return "\n".join(lines)
