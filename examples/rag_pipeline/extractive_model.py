"""A chat model that needs no network: it answers by quoting the passages it was given.

It reads nothing but its prompt. Of all sentences in it, it picks those that are nearest to
the question, by meaning and by words. It takes the time that a small hosted model takes: so
long until the first token, so many tokens a second.
"""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult

from examples.agent.words import stems

SENTENCES_MOST = 2
WORDS_LEAST = 4
NEAR_THE_BEST = 0.8
"""A further sentence is said if it fits nearly as well as the best one."""

WORDS_COUNT = 0.7
"""What it is worth if a sentence has all words of the question, beside a cosine of 1."""

_PASSAGE = re.compile(r"^\[(\d+)\] [^\n]*\n(.*?)(?=^\[\d+\] |^Question: )", re.M | re.S)
_QUESTION = re.compile(r"^Question: (.*)\Z", re.M | re.S)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*(\"])")


class Sentence(NamedTuple):
    """A sentence of a passage, and the passage's number."""

    text: str
    source: str


class ExtractiveModel(BaseChatModel):
    """A chat model that quotes.

    Attributes:
        embedder: Compares sentences with the question.
        first_token_s: How long it takes to begin.
        tokens_per_s: How fast it goes on.
    """

    embedder: Embeddings
    first_token_s: float = 0.2
    tokens_per_s: float = 250.0

    @property
    def _llm_type(self) -> str:
        return "extractive"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - it stops by itself
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **_: Any,
    ) -> ChatResult:
        prompt = messages[-1].text
        asked = _QUESTION.search(prompt)
        question = asked[1].strip() if asked else prompt
        answer = self._quoted(question, _sentences(prompt))
        given = count_tokens_approximately(messages)
        said = count_tokens_approximately([AIMessage(answer)])
        time.sleep(self.first_token_s + said / self.tokens_per_s)
        message = AIMessage(
            answer,
            usage_metadata={
                "input_tokens": given,
                "output_tokens": said,
                "total_tokens": given + said,
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _quoted(self, question: str, sentences: list[Sentence]) -> str:
        if not sentences:
            return "The documents do not say."
        asked = frozenset(stems(question))
        nearness = np.array(self.embedder.embed_documents([each.text for each in sentences]))
        scores = nearness @ np.array(self.embedder.embed_query(question))
        for at, each in enumerate(sentences):
            scores[at] += WORDS_COUNT * len(asked & set(stems(each.text))) / max(1, len(asked))
        order = np.argsort(-scores, kind="stable")[:SENTENCES_MOST]
        best = [at for at in order if scores[at] >= NEAR_THE_BEST * scores[order[0]]]
        return " ".join(f"{sentences[at].text} [{sentences[at].source}]" for at in best)


def _sentences(prompt: str) -> list[Sentence]:
    """The sentences of a prompt's passages; of a table, its rows."""
    found: dict[str, str] = {}
    for number, text in _PASSAGE.findall(prompt):
        for line in text.splitlines()[1:]:  # The first one is the heading.
            if line.startswith("|"):
                cells = [cell.strip() for cell in line.strip("| ").split("|")]
                parts = [": ".join(cell for cell in cells if cell)]
            else:
                parts = _SENTENCE_END.split(line.removeprefix("- "))
            for part in parts:
                if len(part.split()) >= WORDS_LEAST:
                    found.setdefault(part, number)
    return [Sentence(text, number) for text, number in found.items()]
