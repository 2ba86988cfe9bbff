"""What may speak against serving a cached answer, each for a reason of its own."""

from __future__ import annotations

from rag_cache.guards.guard import Guard

DEFAULT_GUARDS: tuple[Guard, ...] = ()
