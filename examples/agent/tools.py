"""What the agent can do. Reading is free; writing needs a person's approval.

The first line of each answer says what came of it, for the model and for the
screen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, tool
from langgraph.types import interrupt

from examples.agent.documents import Library, Passage
from examples.agent.words import sentences

WRITTEN = "written to "
"""How the answer of `write_note` begins, if the note was written."""

_READ_MOST = 6_000
"""Characters of a document given to the model at once."""


def make_tools(library: Library, notes: Path) -> list[BaseTool]:
    """The agent's tools.

    Args:
        library: What it may read.
        notes: The directory it may write to.
    """

    @tool
    def search_documents(query: str) -> str:
        """Search the documents; returns the best passages as ``path # heading``.

        Args:
            query: A few key words.
        """
        found = library.search(query)
        if not found:
            return "no passage found"
        rows = [f"{n}. {_name(passage)}\n   {_gist(passage)}" for n, passage in enumerate(found, 1)]
        return "\n".join([f"{len(found)} passages, best {_name(found[0])}", *rows])

    @tool
    def read_document(path: str, heading: str = "") -> str:
        """Read a document, or what stands in it under one heading.

        Args:
            path: As the search gave it.
            heading: As the search gave it; the whole document without it.
        """
        found = library.read(path, heading)
        if not found:
            return f"nothing under {path} # {heading}: use what search_documents gives"
        text = "\n\n".join(f"{_name(p)} (line {p.line})\n\n{p.text}" for p in found)
        return text if len(text) <= _READ_MOST else text[:_READ_MOST] + "\n\n(cut: too long)"

    @tool
    def count_lines(path: str) -> str:
        """Count the lines of a document.

        Args:
            path: As the search gave it.
        """
        lines = library.lines(path)
        return f"no document {path}" if lines is None else f"{path} has {lines} lines"

    @tool
    def write_note(path: str, text: str) -> str:
        """Write a note to a file. The user is asked first, and may decline.

        Args:
            path: A file name, such as ``locks.md``.
            text: What to write.
        """
        target = (notes / path).resolve()
        if not target.is_relative_to(notes.resolve()) or target == notes.resolve():
            return f"not written: {path} is outside of the notes"
        # All above runs again when the thread is resumed, all below only then: so
        # nothing may have an effect before this line.
        answer: Any = interrupt({"tool": "write_note", "path": path, "text": text})
        if not answer["approved"]:
            return "declined by the user, nothing written"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n", "utf-8")
        return WRITTEN + path

    return [search_documents, read_document, count_lines, write_note]


def _name(passage: Passage) -> str:
    return f"{passage.path} # {passage.heading}"


def _gist(passage: Passage) -> str:
    return next(iter(sentences(passage.text)), passage.text.splitlines()[0])
