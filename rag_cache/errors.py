"""Errors of the cache itself. Lookups and stores raise none of these: they fail open."""

from __future__ import annotations

from langgraph_valkey.errors import LanggraphValkeyError


class RagCacheError(LanggraphValkeyError):
    """Root of the errors that only the cache raises."""


class InvalidationPending(RagCacheError):
    """A change is recorded, but some partition could not be told of it yet.

    Nothing stale is served meanwhile: lookups of the corpus miss, in this process at once, and
    in the others when they have learned of it, 3 s after it was recorded at the latest. (So it
    is raised after that, unless ``invalidate_deadline_s`` was made shorter.) Any process that
    uses the corpus goes on trying; calling again is safe.

    Attributes:
        corpus: The corpus concerned.
    """

    def __init__(self, message: str, *, corpus: str) -> None:
        super().__init__(message)
        self.corpus = corpus


class InsufficientData(RagCacheError):
    """There are too few examples to say what was asked for.

    Attributes:
        served: How many hits of held-out examples there were, or would be.
        needed: How many it takes at least.
    """

    def __init__(self, message: str, *, served: int, needed: int) -> None:
        super().__init__(message)
        self.served = served
        self.needed = needed
