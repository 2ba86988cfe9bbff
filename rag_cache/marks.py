"""Marks: what an entry was made from, and by what it can be made stale.

=====================  ==========================================
mark                   of
=====================  ==========================================
``d:`` and its id      a document; the only one with versions
``t:`` and the tag     a tag
``s:`` and its key     a scope
``o:`` and the name    a tenant
``a:``                 all that was made from a corpus
=====================  ==========================================

The primary store has them as texts. Scripts know digests of 16 bytes: of a mark, and of a
version, where zeros stand for one that is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from rag_cache.scope import Scope, digest_of

ANY_VERSION = b"\0" * 16
"""In place of a version's digest: it is not known, or there is none."""


def document_mark(document: str) -> str:
    """The mark of a document."""
    return f"d:{document}"


def tag_mark(tag: str) -> str:
    """The mark of a tag."""
    return f"t:{tag}"


def scope_mark(scope: Scope) -> str:
    """The mark of one scope."""
    return f"s:{scope.key}"


def tenant_mark(tenant: str) -> str:
    """The mark of all that a tenant has of a corpus."""
    return f"o:{tenant}"


CORPUS_MARK = "a:"
"""The mark of all that was made from a corpus."""


@lru_cache(maxsize=65536)
def packed_mark(mark: str) -> bytes:
    """A mark as scripts know it: 16 bytes."""
    return digest_of("mark", mark)


def packed_version(version: str | None) -> bytes:
    """A version as scripts know it: 16 bytes, zeros if it is not known."""
    return ANY_VERSION if version is None else digest_of("version", version)


@lru_cache(maxsize=4096)
def scope_marks(scope: Scope) -> bytes:
    """The marks that every entry of a scope has, packed for scripts."""
    marks = (CORPUS_MARK, tenant_mark(scope.tenant), scope_mark(scope))
    return b"".join(packed_mark(mark) + ANY_VERSION for mark in marks)


def changed(
    document: str | Mapping[str, str | None] | None,
    version: str | None,
    tag: str | None,
    scope: Scope | None,
    tenant: str | None,
    corpus: str | None,
) -> tuple[str, dict[str, str | None]]:
    """What an invalidation says: in which corpus, and of which marks.

    Raises:
        TypeError: Something is of a wrong type.
        ValueError: It does not say what changed, or contradicts itself.
    """
    for given in (version, tag, tenant, corpus):
        if given is not None and not isinstance(given, str):
            raise TypeError("version, tag, tenant and corpus must be strings")
    if scope is not None and not isinstance(scope, Scope):
        raise TypeError(f"scope must be a Scope, not {type(scope).__name__}")
    if scope is not None and corpus not in (None, scope.corpus):
        raise ValueError("the scope is of another corpus: leave corpus out")
    marks: dict[str, str | None] = {}
    if isinstance(document, str):
        marks[document_mark(document)] = version
    elif version is not None:
        raise ValueError("a version belongs to one document: give its id, or a mapping of both")
    elif document is not None:
        _check_documents(document)
        marks.update((document_mark(name), new) for name, new in document.items())
    if tag is not None:
        marks[tag_mark(tag)] = None
    if tenant is not None:
        marks[tenant_mark(tenant)] = None
    if scope is not None:
        marks[scope_mark(scope)] = None
        corpus = scope.corpus
    if not marks:
        if corpus is None or document is not None:
            raise ValueError("say what changed: a document, a tag, a scope, a tenant or a corpus")
        marks[CORPUS_MARK] = None
    return "default" if corpus is None else corpus, marks


def _check_documents(documents: Mapping[str, str | None]) -> None:
    if not isinstance(documents, Mapping) or not all(
        isinstance(name, str) and (new is None or isinstance(new, str))
        for name, new in documents.items()
    ):
        raise TypeError("documents must map ids to versions: strings, or None for not known")
