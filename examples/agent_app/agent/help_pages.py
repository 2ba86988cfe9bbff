"""What the agent knows of the shop: pages that may be edited, behind a semantic cache.

A question is looked up in the cache first. On a miss the passages that fit best are read,
and a model answers from them. The answer is stored with the pages it was made from and the
versions they had; a page that is edited makes all answers from it stale, in every process.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from examples.agent.words import stems
from rag_cache import Prices, Scope, SemanticCache, Stats
from rag_cache.embedders import WordLlama

SYSTEM = "Answer from the passages alone, in two sentences at most. Cite them by their numbers."
CORPUS = "shop"
PRICES = Prices(0.5, 1.5)
"""US dollars for a million tokens: about what small hosted models cost."""

THRESHOLD = 0.8
LOOKUP_DEADLINE_MS = 250
"""Longer than the default: one small machine runs everything here."""

PASSAGES_READ = 3
WORDS_COUNT = 0.7
"""What it is worth if a passage has all words of the question, beside a cosine of 1."""

_CITED = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph of a page."""

    page: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a question.

    Attributes:
        answer: What the pages say.
        source: The cache's tier, or "model".
        details: Where it came from, for the page: as JSON has it.
    """

    answer: str
    source: str
    details: dict[str, Any]


class HelpPages:
    """The shop's pages, their index, and the cache before them.

    Args:
        folder: Where the pages are.
        model: Answers from passages.
        model_name: Answers of one model do not serve another one.
        cache_url: Where the cache is.
        primary: URL of the primary store, which knows the pages' versions.
    """

    def __init__(
        self, folder: Path, model: BaseChatModel, model_name: str, cache_url: str, primary: str
    ) -> None:
        self._folder = folder
        self._model = model
        self._embedder = WordLlama()
        self._scope = Scope(
            tenant="customers", corpus=CORPUS, system_prompt=SYSTEM, model=model_name
        )
        self._cache = SemanticCache(
            cache_url,
            embedder=self._embedder,
            threshold=THRESHOLD,
            prices=PRICES,
            primary=primary,
            lookup_deadline_ms=LOOKUP_DEADLINE_MS,
        )
        self._lock = threading.Lock()
        self._versions: dict[str, str] = {}
        self._passages: list[Passage] = []
        self._vectors: np.ndarray[Any, Any] = np.empty((0, 1))

    def read_again(self) -> dict[str, str]:
        """Read the pages, and make stale what was made from other versions of them.

        Returns:
            The pages' versions.
        """
        pages = {each.name: each.read_text("utf-8") for each in sorted(self._folder.glob("*.md"))}
        passages = [passage for name, text in pages.items() for passage in passages_of(name, text)]
        vectors = np.array(self._embedder.embed_documents([each.text for each in passages]))
        versions = {name: version_of(text) for name, text in pages.items()}
        with self._lock:
            self._versions, self._passages, self._vectors = versions, passages, vectors
        self._cache.invalidate(dict(versions), corpus=CORPUS)
        return versions

    def ask(self, question: str) -> Found:
        """Answer a question."""
        began_s = time.perf_counter()
        looked = self._cache.lookup(question, self._scope)
        if looked:
            details = {
                "tier": looked.tier,
                "asked_as": looked.question,
                "score": round(looked.score, 3),
                "evidence": dict(looked.evidence),
            }
            found = Found(str(looked.value), looked.tier, details)
        else:
            answer, evidence, usage = self._compute(question)
            took_s = time.perf_counter() - began_s
            stored = self._cache.store(
                question,
                self._scope,
                answer,
                evidence=evidence,
                fence=looked.fence,
                usage=usage,
                took_s=took_s,
            )
            details = {
                "missed": looked.reason,
                "evidence": evidence,
                "stored": stored.accepted,
                "usage": usage,
            }
            found = Found(answer, "model", details)
        found.details["took_ms"] = round((time.perf_counter() - began_s) * 1000, 1)
        return found

    def stats(self) -> Stats:
        """What the cache has counted in this process."""
        return self._cache.stats()

    def close(self) -> None:
        """Close the cache's connections."""
        self._cache.close()

    def _compute(self, question: str) -> tuple[str, dict[str, str], dict[str, int]]:
        passages, versions = self._best(question)
        told = "\n\n".join(
            f"[{number}] {each.page}\n{each.heading}\n{each.text}"
            for number, each in enumerate(passages, 1)
        )
        prompt = [SystemMessage(SYSTEM), HumanMessage(f"{told}\n\nQuestion: {question}")]
        message = self._model.invoke(prompt)
        usage = {
            name: count
            for name, count in (message.usage_metadata or {}).items()
            if isinstance(count, int)
        }
        evidence = {each.page: versions[each.page] for each in passages}
        return cited(str(message.text), passages), evidence, usage

    def _best(self, question: str) -> tuple[list[Passage], Mapping[str, str]]:
        """The passages that fit best, and the versions of the pages they are of."""
        with self._lock:
            passages, vectors, versions = self._passages, self._vectors, self._versions
        asked = set(stems(question))
        scores = vectors @ np.array(self._embedder.embed_query(question))
        for at, each in enumerate(passages):
            shared = asked & set(stems(f"{each.heading} {each.text}"))
            scores[at] += WORDS_COUNT * len(shared) / max(1, len(asked))
        best = np.argsort(-scores, kind="stable")[:PASSAGES_READ]
        return [passages[at] for at in best], versions


def passages_of(name: str, text: str) -> list[Passage]:
    """The paragraphs of a page."""
    heading, found = name, []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith("#"):
            heading = paragraph.lstrip("# ").strip()
        elif paragraph.strip():
            found.append(Passage(name, heading, paragraph.strip()))
    return found


def version_of(text: str) -> str:
    """A page's version: a digest of what it says."""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def cited(answer: str, passages: Sequence[Passage]) -> str:
    """An answer with the names of pages for the numbers of passages."""

    def name(found: re.Match[str]) -> str:
        at = int(found[1]) - 1
        return f"[{passages[at].page}]" if 0 <= at < len(passages) else found[0]

    return _CITED.sub(name, answer)
