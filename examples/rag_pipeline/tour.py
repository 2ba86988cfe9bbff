"""The tour: one stream of questions, without a cache and with one, and what came of it."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel

from examples.agent.models import OFFLINE, chat_model
from examples.agent.show import WIDTH, Screen, short
from examples.rag_pipeline.corpus import Corpus
from examples.rag_pipeline.extractive_model import ExtractiveModel
from examples.rag_pipeline.figures import Run, plot, rows
from examples.rag_pipeline.pipeline import Answer, Pipeline
from examples.rag_pipeline.questions import stream
from examples.rag_pipeline.story import NEW, OLD, PAGE, SIMILAR, Story
from langgraph_valkey.local import LocalValkey
from rag_cache import Prices, SemanticCache, Stats
from rag_cache.embedders import MiniLM, WordLlama

EVERY_S = 0.02
"""How often somebody asks: 50 times a second, whether or not others have answers."""

AT_ONCE = 64
"""Questions that may be under way at the same time."""

EMBEDDERS: dict[str, type[Embeddings]] = {"wordllama": WordLlama, "minilm": MiniLM}

THRESHOLD = 0.8
"""Suits both, with guards. From labelled traffic `calibrate` finds one, and says how wrong."""

TTL_S = 600.0
"""How long answers live: none stays on a server of the user's for long."""

LOOKUP_DEADLINE_MS = 250
"""Longer than the default: here documents are searched and quoted by the same process."""

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        questions: How many questions are asked.
        seed: Of the draw who asks what.
        model: The chat model.
        embedder: Name of the embedder.
        prices: What a million tokens of input and output cost.
        plot: Where to draw; None for nowhere.
    """

    questions: int
    seed: int
    model: str
    embedder: str
    prices: tuple[float, float]
    plot: Path | None


def tour(options: Options, screen: Screen) -> None:
    """Run all acts.

    Raises:
        DemoError: The model can't be had.
        LanggraphValkeyError: A package is missing, or a server fails.
    """
    embedder, prices = EMBEDDERS[options.embedder](), Prices(*options.prices)
    model = _model(options, embedder)
    questions = stream(options.questions, options.seed)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        corpora = [Corpus(Path(folder, name), embedder) for name in ("plain", "cached")]
        _introduce(screen, corpora[0], questions, model)
        plain = _without_cache(screen, Pipeline(corpora[0], model), questions)
        url = os.environ.get("LANGGRAPH_VALKEY_URL") or stack.enter_context(LocalValkey()).url
        cache = SemanticCache(
            url,
            embedder=embedder,
            threshold=THRESHOLD,
            prices=prices,
            primary=f"sqlite:///{folder}/versions.db",
            key_prefix=f"rag-example-{secrets.token_hex(4)}",
            ttl_s={"answer": TTL_S},
            lookup_deadline_ms=LOOKUP_DEADLINE_MS,
        )
        stack.enter_context(cache)
        cache.tend()  # Makes the primary store's tables, so that no lookup waits for them.
        story = Story(Pipeline(corpora[1], model, cache, options.model), cache, screen)
        cached = _with_cache(screen, story, questions)
        stats = cache.stats()
        _explain(screen, story)
    _conclude(screen, rows(plain, cached, prices), stats)
    if options.plot is not None:
        plot(plain, cached, options.plot)
        screen.text(f"Drawn: {options.plot}")


def answer_all(pipeline: Pipeline, questions: Sequence[str], edit: Callable[[], None]) -> Run:
    """Answer questions as they come in; when half of them are answered a document is edited."""

    def answered(some: Sequence[str]) -> list[Answer]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            under_way = []
            for question in some:
                under_way.append(pool.submit(pipeline.ask, question))
                time.sleep(EVERY_S)
            return [each.result() for each in under_way]

    half = len(questions) // 2
    answers = answered(questions[:half])
    edit()
    answers += answered(questions[half:])
    return Run(answers, half, dict(pipeline.corpus.versions))


def _model(options: Options, embedder: Embeddings) -> BaseChatModel:
    if options.model == OFFLINE:
        return ExtractiveModel(embedder=embedder)
    return chat_model(options.model)


def _introduce(
    screen: Screen, corpus: Corpus, questions: Sequence[str], model: BaseChatModel
) -> None:
    screen.act(1, "Documents")
    screen.text(f"{len(corpus.versions)} documents of this repository, {len(corpus)} passages")
    screen.text(f"{len(questions)} questions, one every {1000 * EVERY_S:g} ms")
    if isinstance(model, ExtractiveModel):
        pace = f"{model.first_token_s:g} s until it begins, {model.tokens_per_s:g} tokens a second"
        screen.text(f"The model quotes passages, at the pace of a small hosted one: {pace}.")


def _without_cache(screen: Screen, pipeline: Pipeline, questions: Sequence[str]) -> Run:
    def edit() -> None:
        pipeline.corpus.edit(PAGE, OLD, NEW)
        pipeline.corpus.sync()

    screen.act(2, "Without a cache")
    run = answer_all(pipeline, questions, edit)
    took_s = run.took_at_most_s(0.5)
    screen.text(f"{len(run.by_model)} answers by the model, half of them within {took_s:.2f} s")
    return run


def _with_cache(screen: Screen, story: Story, questions: Sequence[str]) -> Run:
    screen.act(3, "With a cache, and a document that is edited")
    run = answer_all(story.pipeline, questions, story.edit)
    across = {
        (each.question, each.asked_as): each.score
        for each in run.answers
        if each.question != each.asked_as
    }
    screen.line()
    screen.text(f"Answers that served another wording: {len(across)}", style="dim")
    cells = [
        (f"{score:.3f}", short(asked, 44), short(answered, 44))
        for (asked, answered), score in list(across.items())[:SHOWN]
    ]
    screen.table(("cosine", "asked", "answered before"), cells)
    return run


def _explain(screen: Screen, story: Story) -> None:
    screen.act(4, "Why not?", "The nearest entries of a question, and what speaks against them.")
    screen.text(SIMILAR, style="bold")
    for line in str(story.explain()).splitlines()[:SHOWN]:
        screen.line(f"  {short(line, WIDTH - 2)}")


def _conclude(screen: Screen, cells: Sequence[tuple[str, str, str]], stats: Stats) -> None:
    screen.act(5, "Figures", "Of the stream; and of the cache, with what the edit was shown by.")
    screen.table(("", "without", "with a cache"), cells, right="<>>")
    screen.line()
    for line in str(stats).splitlines():
        screen.line(f"  {line}")
