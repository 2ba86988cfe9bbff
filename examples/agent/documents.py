"""The documents of this repository, in passages, with a search.

Markdown is cut at its headings, Python at what has a docstring: module, class,
function, and constants with a text below. The search ranks passages by BM25: a
word counts the more, the rarer it is; saying it again counts less each time; and
long passages have no advantage over short ones.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

from examples.agent.words import stems

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where the documents are."""

_TEXTS = ("README.md", "CHANGELOG.md")
_PACKAGES = ("langgraph_valkey", "rag_cache")
_SATURATION = 1.2
_LENGTH_MATTERS = 0.75
_HEADING_WEIGHT = 2
_NO_HEADING = "beginning"
_WORDS_LEAST = 6
"""Docstrings shorter than this say nothing that could answer a question."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document.

    Attributes:
        path: The document, relative to the repository.
        heading: What stands above it, or the name it documents.
        line: Where it begins, from 1.
        text: What it says.
    """

    path: str
    heading: str
    line: int
    text: str


class Library:
    """All passages, and an index of their words.

    Args:
        root: The repository.
    """

    def __init__(self, root: Path = REPOSITORY) -> None:
        self.root = root
        self.passages = [passage for path in _documents(root) for passage in _cut(root, path)]
        self.paths = sorted({passage.path for passage in self.passages})
        self._counts = [
            Counter(stems(passage.text) + stems(passage.heading) * _HEADING_WEIGHT)
            for passage in self.passages
        ]
        self._lengths = [sum(count.values()) for count in self._counts]
        self._mean_length = sum(self._lengths) / max(1, len(self._lengths))
        self._passages_with = Counter(word for count in self._counts for word in count)

    def search(self, query: str, most: int = 5) -> list[Passage]:
        """The passages that fit a query best, best first; none if no word of it occurs."""
        scores = [(self._score(stems(query), at), -at) for at in range(len(self.passages))]
        best = sorted((score for score in scores if score[0] > 0), reverse=True)[:most]
        return [self.passages[-at] for _, at in best]

    def read(self, path: str, heading: str = "") -> list[Passage]:
        """A document's passages, or those under one heading; none if there are none."""
        return [
            passage
            for passage in self.passages
            if passage.path == path and heading in ("", passage.heading)
        ]

    def lines(self, path: str) -> int | None:
        """How many lines a document has; None if it is not one of the library's."""
        if path not in self.paths:
            return None
        return len((self.root / path).read_text("utf-8").splitlines())

    def _score(self, query: list[str], at: int) -> float:
        count, total = self._counts[at], 0.0
        length = 1 - _LENGTH_MATTERS + _LENGTH_MATTERS * self._lengths[at] / self._mean_length
        for word in set(query):
            having = self._passages_with[word]
            rarity = math.log(1 + (len(self.passages) - having + 0.5) / (having + 0.5))
            total += rarity * count[word] * (_SATURATION + 1) / (count[word] + _SATURATION * length)
        return total


def _documents(root: Path) -> Iterator[Path]:
    yield from (root / name for name in _TEXTS if (root / name).is_file())
    for package in _PACKAGES:
        yield from sorted((root / package).rglob("*.py"))


def _cut(root: Path, file: Path) -> Iterator[Passage]:
    path, text = file.relative_to(root).as_posix(), file.read_text("utf-8")
    pieces = _of_markdown(text) if file.suffix == ".md" else _of_python(text)
    for heading, line, piece in pieces:
        if len(piece.split()) >= _WORDS_LEAST:
            yield Passage(path, heading, line, piece)


def _of_markdown(text: str) -> Iterator[tuple[str, int, str]]:
    above: list[str] = []
    lines: list[str] = []
    start, fenced = 1, False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) +(.*)", line)
        if heading is None:
            lines.append(line)
            continue
        yield " > ".join(above) or _NO_HEADING, start, "\n".join(lines).strip()
        above = [*above[: len(heading[1]) - 1], heading[2].strip()]
        lines, start = [], number
    yield " > ".join(above) or _NO_HEADING, start, "\n".join(lines).strip()


def _of_python(text: str) -> Iterator[tuple[str, int, str]]:
    module = ast.parse(text)
    if doc := ast.get_docstring(module):
        yield "module", 1, doc
    yield from _of_body(module.body, "")


def _of_body(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, int, str]]:
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef):
            if doc := ast.get_docstring(node):
                yield f"class {node.name}", node.lineno, doc
            yield from _of_body(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if (doc := ast.get_docstring(node)) and not node.name.startswith("_"):
                yield f"{owner}{node.name}()", node.lineno, doc
        elif isinstance(node, ast.Assign | ast.AnnAssign) and (told := _text(following)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield f"{owner}{ast.unparse(target)}", node.lineno, told


def _text(node: ast.stmt | None) -> str | None:
    """The text that stands below a constant to explain it."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return None
    return cleandoc(node.value.value) if isinstance(node.value.value, str) else None
