"""The documents: copied to where they may be edited, split, embedded, and searched.

A document is a section of a page, or the docstring of a module or class. Its version is a
digest of its text, so whoever reads the documents again knows which ones have changed.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from examples.agent.documents import REPOSITORY, Library, Passage
from examples.agent.words import stems

PASSAGE_LENGTH = 400
"""Characters of a passage, about: a few sentences, which one vector can stand for."""

WORDS_LEAST = 4

NEAREST = 40
"""Passages of which the best are chosen by their words."""

WORDS_COUNT = 0.7
"""What it is worth if a passage has all words of the question, beside a cosine of 1."""

_PUBLIC = re.compile(r"module|class [A-Z]\w*")
_LEFT_OUT = re.compile(r"```[\s\S]*?```|<!--[\s\S]*?-->|^\|.*\n\|[-| :]+$", re.M)
"""Code, comments, and heads of tables."""

_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=- |\|)")


class Corpus:
    """Documents and an index of their passages.

    Args:
        folder: Where the copy is kept.
        embedder: Embeds passages and questions.

    Attributes:
        versions: The version of each document, by its id.
    """

    def __init__(self, folder: Path, embedder: Embeddings) -> None:
        self.versions: dict[str, str] = {}
        self._folder = folder
        self._store = InMemoryVectorStore(embedder)
        self._passages: dict[str, list[str]] = {}
        self._words: dict[str, frozenset[str]] = {}
        self._passages_with: Counter[str] = Counter()
        pages = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md"]
        for package in ("langgraph_valkey", "rag_cache"):
            pages += (REPOSITORY / package).glob("*.py")
        for page in pages:
            copy = folder / page.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, copy)
        self.sync()

    def __len__(self) -> int:
        return len(self._words)

    def edit(self, page: str, old: str, new: str) -> None:
        """Edit a page, as an author does.

        Raises:
            ValueError: The old text does not stand there.
        """
        path = self._folder / page
        text = path.read_text("utf-8")
        if old not in text:
            raise ValueError(f"{page} does not say {old!r} any more: choose another edit")
        path.write_text(text.replace(old, new), "utf-8")

    def sync(self) -> dict[str, str | None]:
        """Read the documents again, and index what has changed.

        Returns:
            The new versions of what has changed, by id; None for what is gone.
        """
        texts = dict(_named(Library(self._folder).passages))
        versions = {name: _digest(passage.text) for name, passage in texts.items()}
        changed = {
            name: versions.get(name)
            for name in {**self.versions, **versions}
            if versions.get(name) != self.versions.get(name)
        }
        for name, version in changed.items():
            self._forget(name)
            if version is not None:
                self._index(name, version, texts[name])
        self.versions = versions
        self._passages_with = Counter(word for words in self._words.values() for word in words)
        return changed

    def retrieve(self, question: str, most: int = 4) -> list[Document]:
        """The passages that fit a question best, the best first.

        They are searched by meaning, and then put in order by rare words as well: a small
        embedder tells what a text is about, but hardly one name from another.
        """
        asked = frozenset(stems(question))
        ranked = [
            (score + WORDS_COUNT * self._shared(asked, str(found.id)), found)
            for found, score in self._store.similarity_search_with_score(question, NEAREST)
        ]
        ranked.sort(key=lambda each: each[0], reverse=True)
        return [found for _, found in ranked[:most]]

    def _shared(self, asked: frozenset[str], passage: str) -> float:
        """Which part of the question's words a passage has, rare ones counting more."""
        rarity = {
            word: math.log1p(len(self._words) / (self._passages_with[word] + 0.5)) for word in asked
        }
        shared = sum(rarity[word] for word in asked & self._words[passage])
        return shared / (sum(rarity.values()) or 1.0)

    def _index(self, name: str, version: str, document: Passage) -> None:
        heading = document.heading.rpartition(" > ")[2]
        found = [
            Document(
                f"{heading}\n{text}",
                id=f"{name} ~{number}",
                metadata={"document": name, "version": version, "page": document.path},
            )
            for number, text in enumerate(split(document.text))
        ]
        self._passages[name] = self._store.add_documents(found)
        for each in found:
            self._words[str(each.id)] = frozenset(stems(each.page_content))

    def _forget(self, name: str) -> None:
        passages = self._passages.pop(name, [])
        self._store.delete(passages)
        for each in passages:
            del self._words[each]


def documents_of(passages: Sequence[Document]) -> dict[str, str]:
    """The documents that passages are of, the best first, and the versions they were read in."""
    return {each.metadata["document"]: each.metadata["version"] for each in passages}


def split(text: str) -> list[str]:
    """The passages of a document: neighbouring paragraphs, items and rows; code is left out."""
    found: list[str] = []
    for paragraph in _PARAGRAPH.split(_LEFT_OUT.sub("", text)):
        piece = " ".join(paragraph.split())
        if len(piece.split()) < WORDS_LEAST or "](#" in piece:
            continue  # Headings of lists, and tables of contents.
        if found and len(found[-1]) + len(piece) < PASSAGE_LENGTH:
            found[-1] += f"\n{piece}"
        else:
            found.append(piece)
    return found


def _named(passages: Sequence[Passage]) -> Iterator[tuple[str, Passage]]:
    """Those passages that users read, by an id that an edit elsewhere does not change."""
    seen: Counter[str] = Counter()
    for each in passages:
        if each.path.endswith(".md") or _PUBLIC.fullmatch(each.heading):
            name = f"{each.path}#{each.heading}"
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name} ({seen[name]})"), each


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
