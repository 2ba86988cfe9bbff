"""What was found, as evidence: ids of documents, and their versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.documents import Document

ID_KEY, VERSION_KEY = "source", "version"
"""Where metadata has them, if nothing else is said: loaders put paths under ``source``."""


def evidence_of(
    documents: Iterable[Document], id_key: str = ID_KEY, version_key: str = VERSION_KEY
) -> dict[str, str | None] | None:
    """The evidence that documents are.

    Args:
        documents: Documents, or parts of them, the best first.
        id_key: Under which key of its metadata a document has its id. One that has none
            there goes by its ``id``.
        version_key: The same for its version; None if it has none.

    Returns:
        Versions by ids, the best first. None if a document has no id, or if parts of one
        have different versions: it is being indexed anew just now.
    """
    found: dict[str, str | None] = {}
    for document in documents:
        name = _text(document.metadata.get(id_key))
        if name is None:
            name = _text(document.id)
        version = _text(document.metadata.get(version_key))
        if name is None or found.setdefault(name, version) != version:
            return None
    return found


def documents_in(artifact: Any) -> list[Document]:
    """The documents that a tool has returned as its artifact, as LangChain's retrievers do."""
    if isinstance(artifact, Document):
        return [artifact]
    if isinstance(artifact, list | tuple):
        return [each for each in artifact if isinstance(each, Document)]
    return []


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
