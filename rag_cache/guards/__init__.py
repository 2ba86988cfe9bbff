"""What may speak against serving a cached answer, each for a reason of its own.

`DEFAULT_GUARDS` look at words, and at today's documents where they are told. They know
English; see `lexicon` for what another language takes.
"""

from __future__ import annotations

from rag_cache.guards.agreement import EvidenceAgreement, NeighbourAgreement
from rag_cache.guards.guard import Asked, Candidate, Guard
from rag_cache.guards.names import Names
from rag_cache.guards.negation import Negation
from rag_cache.guards.numbers import Numbers
from rag_cache.guards.substitution import Substitution

WORD_GUARDS: tuple[Guard, ...] = (Numbers(), Negation(), Names(), Substitution())
"""Those that compare the words of two questions."""

DEFAULT_GUARDS: tuple[Guard, ...] = (*WORD_GUARDS, EvidenceAgreement())
"""What a cache uses if nothing else is said."""

__all__ = [
    "DEFAULT_GUARDS",
    "WORD_GUARDS",
    "Asked",
    "Candidate",
    "EvidenceAgreement",
    "Guard",
    "Names",
    "Negation",
    "NeighbourAgreement",
    "Numbers",
    "Substitution",
]
