"""The faces of the cache as a package: each is imported alone, and says what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_langchain_it_says_what_to_install() -> None:
    run(
        "import sys; sys.modules['langchain'] = None\n"
        "import rag_cache.faces as faces\n"
        "from langgraph_valkey.errors import ConfigurationError\n"
        "assert faces.LLMCache and faces.NodeCache and faces.CachedEmbeddings\n"
        "try: faces.CacheMiddleware\n"
        "except ConfigurationError as failure: assert 'agents' in str(failure)\n"
        "else: raise SystemExit('no error')\n"
    )


def test_one_face_never_pays_for_another() -> None:
    run(
        "import sys, rag_cache.faces as faces\n"
        "def loaded(*names): return [n for n in names if n in sys.modules]\n"
        "assert not loaded('langchain_core', 'langgraph', 'langchain', 'numpy', 'glide')\n"
        "faces.CachedEmbeddings\n"
        "assert not loaded('langgraph.cache.base', 'langgraph.pregel', 'langchain', 'glide')\n"
        "faces.NodeCache\n"
        "assert not loaded('langgraph.pregel', 'langchain', 'rag_cache.faces.llm_cache')\n"
        "faces.LLMCache, faces.CachedRetriever\n"
        "assert not loaded('langgraph.pregel', 'langchain', 'rag_cache.faces.middleware')\n"
    )


def test_public_names_are_sorted_and_there() -> None:
    import rag_cache.faces as faces

    assert faces.__all__ == sorted(faces.__all__)
    assert all(getattr(faces, name).__name__ == name for name in faces.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = faces.no_such_name
