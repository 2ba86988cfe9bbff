"""A semantic cache for retrieval, answers and embeddings, on Valkey.

`SemanticCache` is the cache; `Scope` says within what an answer may be reused.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_cache.errors import InsufficientData, InvalidationPending, RagCacheError
    from rag_cache.metrics import Prices, Stats
    from rag_cache.results import Computed, Explanation, Fence, Hit, Miss, Stored
    from rag_cache.scope import Scope
    from rag_cache.semantic_cache import SemanticCache
    from rag_cache.settings import CacheSettings

__all__ = [
    "CacheSettings",
    "Computed",
    "Explanation",
    "Fence",
    "Hit",
    "InsufficientData",
    "InvalidationPending",
    "Miss",
    "Prices",
    "RagCacheError",
    "Scope",
    "SemanticCache",
    "Stats",
    "Stored",
]

_HOMES = {
    "CacheSettings": "settings",
    "InsufficientData": "errors",
    "InvalidationPending": "errors",
    "Prices": "metrics",
    "RagCacheError": "errors",
    "Scope": "scope",
    "SemanticCache": "semantic_cache",
    "Stats": "metrics",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: one part never pays for another."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'results')}"), name)
    globals()[name] = value
    return value
