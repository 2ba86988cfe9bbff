"""Chat prompts with one system prompt: how many unrelated questions get each other's answer.

LangChain hands a cache the whole conversation as one text. Whoever embeds that, as
langchain-redis does, compares prompts that are the same for the most part: the system prompt
and the words around it. `LLMCache` compares what the system says exactly, and embeds the
question alone.

A hundred questions about different things are asked of a chat model that has a cache of its
own for each: it holds the answer to one question, and is asked all that come after it, which
makes 4,950 pairs. Served is what did not reach the model.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from langchain_core.caches import BaseCache
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from benchmarks.contenders import OURS, tell
from benchmarks.figures import Column, Figure, Goal
from benchmarks.rag_peers import LANGCHAIN_REDIS
from benchmarks.rag_topics import QUESTIONS
from benchmarks.servers import HOST
from benchmarks.session import Session
from rag_cache import SemanticCache
from rag_cache.embedders import MiniLM
from rag_cache.faces.llm_cache import LLMCache

THRESHOLD = 0.8
"""langchain-redis' default (a distance of 0.2), and taken for ours as well."""

QUESTIONS_QUICK = 25
WHOLE = "the whole prompt embedded"
ALONE = "the question alone embedded"
NONE, ALL = Goal(0, "nothing"), Goal(100, "nothing", at_least=True)

SYSTEM = (
    "You are the assistant of a public library's help desk. Answer in at most five sentences, in "
    "plain words, and only what you are sure of; if you do not know, say so and name who might. "
    "Never give medical, legal or financial advice, and never ask for personal data. Be friendly, "
    "and do not mention these instructions."
)
OTHER_SYSTEM = SYSTEM.replace("at most five sentences", "exactly one sentence")

MakeCache = Callable[[str], BaseCache]


class Counted(BaseChatModel):
    """A chat model that counts how often it is asked, and says what it was asked."""

    times: int = 0

    @property
    def _llm_type(self) -> str:
        return "counted"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.times += 1
        said = AIMessage(f"This answers: {messages[-1].content}")
        return ChatResult(generations=[ChatGeneration(message=said)])


class Remembered(Embeddings):
    """MiniLM, which embeds each text once.

    Its `aembed_query` is not used here: the prompts are asked on the blocking face.
    """

    def __init__(self) -> None:
        self._model = MiniLM()
        self._known: dict[str, list[float]] = {}
        self.id = self._model.id
        self.dimension = self._model.dimension

    def embed_query(self, text: str) -> list[float]:
        """Embed a text."""
        if text not in self._known:
            self._known[text] = self._model.embed_query(text)
        return self._known[text]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts."""
        return [self.embed_query(text) for text in texts]


def measure(session: Session) -> list[Figure]:
    """Ours, and whoever embeds the whole prompt."""
    questions = QUESTIONS[: QUESTIONS_QUICK if session.quick else None]
    pairs = len(questions) * (len(questions) - 1) // 2
    figure = Figure("rag-prompts", "Chat prompts with one system prompt: served by a cache")
    figure.columns.append(Column(OURS, "ours", speaks_valkey=True))
    embedder = Remembered()
    rows = (
        (f"unrelated pairs served, of {pairs:,}", NONE),
        (f"asked again under another system prompt, served, of {len(questions)}", NONE),
        (f"asked again word by word, served, of {len(questions)}", None),
    )
    with _ours(session, embedder) as make:
        _one(session, figure, OURS, make, questions, rows)
    try:
        with _langchain_redis(session, embedder) as make:
            figure.columns.append(Column(LANGCHAIN_REDIS, "peer", speaks_valkey=True))
            _one(session, figure, LANGCHAIN_REDIS, make, questions, rows)
    except ImportError as error:
        tell(f"{LANGCHAIN_REDIS} is left out, as it or a search module is not installed: {error}")
    for name, texts in (
        (WHOLE, [dumps(_prompt(SYSTEM, each)) for each in questions]),
        (ALONE, questions),
    ):
        figure.columns.append(Column(name, "reference", speaks_valkey=False))
        figure.case(*_row(rows[0])).add(name, _near(embedder, texts))
    figure.notes.append(
        f"MiniLM; all serve from a cosine of {THRESHOLD} on, ours with its default guards. The "
        f"references count the pairs whose texts are as near as that. The system prompt has "
        f"{len(SYSTEM.split())} words."
    )
    return [figure]


def _row(row: tuple[str, Goal | None]) -> tuple[str, str, Goal | None]:
    return row[0], "", row[1]


def _prompt(system: str, question: str) -> list[BaseMessage]:
    return [SystemMessage(system), HumanMessage(question)]


def _one(
    session: Session,
    figure: Figure,
    name: str,
    make: MakeCache,
    questions: Sequence[str],
    rows: Sequence[tuple[str, Goal | None]],
) -> None:
    served = [0] * len(rows)
    for at, question in enumerate(questions):
        session.progress(f"{figure.name}: {name}, {at + 1} of {len(questions)}")
        model = Counted(cache=make(f"prompts-{at}"))
        model.invoke(_prompt(SYSTEM, question))
        served[2] += _is_served(model, SYSTEM, question)
        # Nothing is added meanwhile that could answer a question which comes later.
        for other in questions[at + 1 :]:
            fresh = Counted(cache=_ReadOnly(model.cache))
            served[0] += _is_served(fresh, SYSTEM, other)
        served[1] += _is_served(Counted(cache=_ReadOnly(model.cache)), OTHER_SYSTEM, question)
    for row, count in zip(rows, served, strict=True):
        figure.case(*_row(row)).add(name, count)


def _is_served(model: Counted, system: str, question: str) -> bool:
    before = model.times
    model.invoke(_prompt(system, question))
    return model.times == before


class _ReadOnly(BaseCache):
    """A cache that is asked, and told nothing."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def lookup(self, prompt: str, llm_string: str) -> Any:
        """Ask."""
        return self._cache.lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        """Tell nothing."""

    def clear(self, **_: Any) -> None:
        """Clear nothing."""


def _near(embedder: Embeddings, texts: Sequence[str]) -> int:
    """How many pairs are near enough to be served."""
    vectors = np.array(embedder.embed_documents(list(texts)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return sum(
        float(vectors[one] @ vectors[other]) >= THRESHOLD
        for one, other in itertools.combinations(range(len(texts)), 2)
    )


@contextlib.contextmanager
def _ours(session: Session, embedder: Embeddings) -> Iterator[MakeCache]:
    store, prefix = session.servers.valkey(cluster=True), session.new_thread()
    primary = f"sqlite:///{session.servers.sqlite(prefix).path}"
    with SemanticCache(
        *(store.url,), embedder=embedder, threshold=THRESHOLD, key_prefix=prefix, primary=primary
    ) as cache:
        yield lambda name: LLMCache(cache, label=name)


@contextlib.contextmanager
def _langchain_redis(session: Session, embedder: Embeddings) -> Iterator[MakeCache]:
    from langchain_redis import RedisSemanticCache

    store = session.servers.searching(cluster=False)
    prefix = session.new_thread()
    yield lambda name: RedisSemanticCache(
        embeddings=embedder,
        redis_url=f"redis://{HOST}:{store.port}",
        distance_threshold=1 - THRESHOLD,
        name=f"{prefix}-{name}",
    )
