"""A scope as one cache sees it: with the embedder's identity, and ready for scripts."""

from __future__ import annotations

from rag_cache.marks import scope_marks
from rag_cache.scope import Scope, digest_of


class Within:
    """A scope and an embedder: vectors of different embedders must never be compared.

    Args:
        scope: The scope.
        embedder_id: Name of the embedder and its parameters.

    Attributes:
        key: What stands for both: 32 hex digits.
        marks: The marks that every entry in it has, packed for scripts.
    """

    __slots__ = ("key", "marks", "scope")

    def __init__(self, scope: Scope, embedder_id: str) -> None:
        self.scope = scope
        self.key = digest_of("within", scope.key, embedder_id).hex()
        self.marks = scope_marks(scope)

    def entry_id(self, question: str) -> str:
        """Name of the entry for exactly this question: 32 hex digits."""
        return digest_of("entry", self.key, question).hex()
