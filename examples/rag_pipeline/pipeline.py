"""From a question to an answer: retrieve, look into the cache, else ask the model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from examples.rag_pipeline.corpus import Corpus, documents_of
from rag_cache import Computed, Scope, SemanticCache

SYSTEM = "Answer from the passages alone, and cite them by their numbers."
CORPUS = "repository"


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody was told.

    Attributes:
        question: What was asked.
        text: The answer.
        evidence: The documents it was made from, and the versions they had.
        came_from: "model", or the cache's tier.
        asked_as: The question that the answer was given to first.
        score: Cosine of the two questions.
        took_s: How long it took.
        usage: Tokens that the model used for it.
    """

    question: str
    text: str
    evidence: Mapping[str, str | None]
    came_from: str
    asked_as: str
    score: float
    took_s: float
    usage: Mapping[str, int]


class Pipeline:
    """Answers questions from documents.

    Args:
        corpus: The documents.
        model: Any chat model of LangChain.
        cache: Without one the model answers every question.
        model_name: Answers of one model do not serve another one.
    """

    def __init__(
        self,
        corpus: Corpus,
        model: BaseChatModel,
        cache: SemanticCache | None = None,
        model_name: str = "",
    ) -> None:
        self.corpus = corpus
        self.scope = Scope(
            tenant="everybody", corpus=CORPUS, system_prompt=SYSTEM, model=model_name
        )
        self._model = model
        self._cache = cache

    def ask(self, question: str) -> Answer:
        """Answer a question."""
        started_s = time.perf_counter()
        if self._cache is None:
            made = self.compute(question)
            value, came_from, asked_as, score = made.value, "model", question, 1.0
            evidence, usage = made.evidence, made.usage or {}
        else:
            hit = self._cache.get_or_compute(
                *(question, self.scope, lambda: self.compute(question)),
                documents=self.best_documents(question),
            )
            value, asked_as, score = hit.value, hit.question, hit.score
            came_from = "model" if hit.tier == "computed" else hit.tier
            evidence, usage = hit.evidence, hit.usage
        took_s = time.perf_counter() - started_s
        return Answer(question, value, evidence, came_from, asked_as, score, took_s, usage)

    def best_documents(self, question: str) -> list[str]:
        """Ids of the documents that are best for a question now, the best first."""
        return list(documents_of(self.corpus.retrieve(question)))

    def compute(self, question: str) -> Computed:
        """Ask the model.

        The documents are read here, after the cache has missed: what the cache compares with
        later changes is what was current then.
        """
        return self.answer_from(question, self.corpus.retrieve(question))

    def answer_from(self, question: str, passages: Sequence[Document]) -> Computed:
        """Ask the model about passages that have been read."""
        told = "\n\n".join(
            f"[{number}] {each.metadata['page']}\n{each.page_content}"
            for number, each in enumerate(passages, 1)
        )
        prompt = [SystemMessage(SYSTEM), HumanMessage(f"{told}\n\nQuestion: {question}")]
        message = self._model.invoke(prompt)
        usage = {
            name: count
            for name, count in (message.usage_metadata or {}).items()
            if isinstance(count, int)
        }
        return Computed(message.text, documents_of(passages), usage=usage)
