"""A document is edited: what the cache serves before, in between, and afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from examples.agent.show import Screen, short
from examples.rag_pipeline.pipeline import CORPUS, Answer, Pipeline
from rag_cache import Explanation, SemanticCache, Stored

PAGE, OLD, NEW = "README.md", "for a day", "for a week"
"""The edit: how long something is kept, wherever the page says so."""

QUESTION = "How long does the tombstone of a deleted thread stay?"
PARAPHRASE = "how long do tombstones of deleted threads stay"
LATE_QUESTION = "Can a write that arrives late bring a deleted thread back?"

ANSWERED = "What can a crash failover lose with async durability?"
SIMILAR = "What can a crash failover lose with disabled durability?"
"""One word apart, and of different answers."""

WIDE = 200
"""Characters shown of an answer."""


@dataclass
class Story:
    """An edit, told by those who ask before and after it.

    Args:
        pipeline: With the cache.
        cache: The cache.
        screen: Where it is told.
    """

    pipeline: Pipeline
    cache: SemanticCache
    screen: Screen

    def edit(self) -> None:
        """Edit the page while somebody is still answering from its old text."""
        screen = self.screen
        self._show(self.pipeline.ask(QUESTION), "before")
        has_read, has_changed = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(self._answer_late, has_read, has_changed)
            has_read.wait()
            self.pipeline.corpus.edit(PAGE, OLD, NEW)
            changed = self.pipeline.corpus.sync()
            screen.text(f"{PAGE}: {OLD!r} becomes {NEW!r}, in {len(changed)} documents", "edit")
            # Until it is told, a cache can't know. So tell it once the change can be read.
            self._show(self.pipeline.ask(QUESTION), "untold")
            self.cache.invalidate(changed, corpus=CORPUS)
            screen.text(f"invalidate() has returned: {len(changed)} documents", "told")
            found = self.cache.lookup(QUESTION, self.pipeline.scope)
            screen.text("a hit" if found else f"a miss: {found.reason}", "lookup")
            has_changed.set()
            self._show_stored(late.result())
        for question in (QUESTION, PARAPHRASE, LATE_QUESTION):
            self._show(self.pipeline.ask(question), "after")

    def explain(self) -> Explanation:
        """Why a question is not answered by what is cached for a very similar one."""
        self.pipeline.ask(ANSWERED)
        documents = self.pipeline.best_documents(SIMILAR)
        return self.cache.explain(SIMILAR, self.pipeline.scope, documents=documents)

    def _answer_late(self, has_read: threading.Event, has_changed: threading.Event) -> Stored:
        """Read the documents, think, and store the answer when they have changed."""
        scope = self.pipeline.scope
        miss = self.cache.lookup(LATE_QUESTION, scope)
        passages = self.pipeline.corpus.retrieve(LATE_QUESTION)
        has_read.set()
        made = self.pipeline.answer_from(LATE_QUESTION, passages)
        has_changed.wait()
        fence = None if miss else miss.fence
        return self.cache.store(
            *(LATE_QUESTION, scope, made.value), evidence=made.evidence, fence=fence
        )

    def _show(self, answer: Answer, when: str) -> None:
        self.screen.text(f"{answer.question} ({_source(answer)})", when, "bold")
        self.screen.text(short(answer.text, WIDE), "", "dim")

    def _show_stored(self, stored: Stored) -> None:
        told = "stored" if stored else f"refused: {stored.reason}"
        self.screen.text(f"somebody else's answer, from the old text: {told}", "late")


def _source(answer: Answer) -> str:
    if answer.came_from == "model":
        return "by the model"
    if answer.question == answer.asked_as:
        return "from the cache"
    return f"from the cache, asked as: {answer.asked_as}"
