"""The cache as LangChain and LangGraph know caches.

==================  =====================================  ===============================
name                is                                     keeps
==================  =====================================  ===============================
`LLMCache`          LangChain's `BaseCache`                what models answer
`CacheMiddleware`   LangChain's agent middleware           what agents' models answer
`CachedRetriever`   LangChain's `BaseRetriever`            what a retriever finds
`CachedEmbeddings`  LangChain's `Embeddings`               vectors
`NodeCache`         LangGraph's `BaseCache`                what nodes of a graph return
==================  =====================================  ===============================

`evidence_of` makes evidence of documents that were found. All faces go over one
`SemanticCache`, which whoever made it closes. Each module is imported when its name is first
used; only `CacheMiddleware` needs the ``agents`` extra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_cache.faces.embeddings import CachedEmbeddings
    from rag_cache.faces.evidence import evidence_of
    from rag_cache.faces.llm_cache import LLMCache
    from rag_cache.faces.middleware import CacheMiddleware
    from rag_cache.faces.node_cache import NodeCache
    from rag_cache.faces.retriever import CachedRetriever

__all__ = [
    "CacheMiddleware",
    "CachedEmbeddings",
    "CachedRetriever",
    "LLMCache",
    "NodeCache",
    "evidence_of",
]

_HOMES = {
    "CacheMiddleware": "middleware",
    "CachedEmbeddings": "embeddings",
    "CachedRetriever": "retriever",
    "LLMCache": "llm_cache",
    "NodeCache": "node_cache",
    "evidence_of": "evidence",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: one face never pays for another."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
