"""The example of a RAG pipeline: it runs, and its figures are those of its run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from langchain_core.messages import HumanMessage

from examples.agent.documents import REPOSITORY
from examples.rag_pipeline.corpus import Corpus, documents_of, split
from examples.rag_pipeline.extractive_model import ExtractiveModel
from examples.rag_pipeline.figures import Run, rows
from examples.rag_pipeline.pipeline import CORPUS, Answer, Pipeline
from examples.rag_pipeline.questions import stream, wordings
from examples.rag_pipeline.story import NEW, OLD, PAGE, QUESTION
from examples.rag_pipeline.tour import answer_all
from rag_cache import Prices
from rag_cache.embedders import WordLlama
from tests.rag_ground import Caches

ASKED = 40


class Ran(NamedTuple):
    """What a run of the example has shown."""

    output: str
    plot: str

    def labelled(self, label: str) -> list[str]:
        """Each text beside a label, in one line."""
        found = re.findall(rf"^  {label:<9}(.*\n(?: {{11}}.*\n)*)", self.output, re.M)
        return [" ".join(text.split()) for text in found]

    def row(self, name: str) -> list[str]:
        """The cells of a row of the table, or the one beside a name."""
        line = next(each for each in self.output.splitlines() if each.startswith(f"  {name}  "))
        return re.split(r"\s{2,}", line.strip())[1:]

    def counts(self, name: str) -> dict[str, int]:
        """Counts beside a name."""
        [told] = self.row(name)
        pairs = (each.rsplit(" ", 1) for each in told.split(", "))
        return {name: int(count.replace(",", "")) for name, count in pairs}


def number(text: str) -> float:
    return float(text.replace(",", "").split()[0])


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.rag_pipeline", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=90,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("rag")
    done = run(folder, "--questions", str(ASKED), "--plot", "p.svg", "--prices", "3", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert [path.name for path in folder.iterdir()] == ["p.svg"]
    return Ran(done.stdout, (folder / "p.svg").read_text("utf-8"))


# --- the edit ------------------------------------------------------------------


def test_what_was_edited_is_not_served_once_the_cache_was_told(ran: Ran) -> None:
    [before], [untold] = ran.labelled("before"), ran.labelled("untold")
    assert "(by the model)" in before
    assert OLD in before
    assert "(from the cache)" in untold  # As before: it can't know.
    assert OLD in untold
    assert ran.labelled("lookup") == ["a miss: stale"]
    again, paraphrase, late = ran.labelled("after")
    assert "(by the model)" in again
    assert f"asked as: {QUESTION}" in paraphrase
    assert "(by the model)" in late
    for answer in (again, paraphrase, late):
        assert NEW in answer
        assert OLD not in answer


def test_a_late_writer_is_refused(ran: Ran) -> None:
    [late] = ran.labelled("late")
    assert late.endswith("refused: stale")
    assert ran.row("stored")[0].endswith("not: stale 1")


def test_it_explains_why_a_similar_question_is_not_answered(ran: Ran) -> None:
    told = ran.output.partition("Why not?")[2].partition("Figures")[0]
    assert "miss: refused; threshold 0.800" in told
    assert re.search(r"0\.8\d\d .*refused by substitution", told)


# --- figures -------------------------------------------------------------------


def test_figures_fit_together(ran: Ran) -> None:
    plain, cached = ran.row("questions")
    assert number(plain) == number(cached) == ASKED
    plain, cached = ran.row("answered by the model")
    assert ASKED == number(plain) > number(cached) > 0
    hits, misses = ran.counts("hits"), ran.counts("misses")
    assert hits["process"] > 0
    assert hits["exact"] > 0
    assert misses["stale"] > 0
    lookups, rate = re.findall(r"[\d.]+", ran.row("lookups")[0])
    assert int(lookups) == sum(hits.values()) + sum(misses.values()) > ASKED
    assert float(rate) == pytest.approx(100 * sum(hits.values()) / int(lookups), abs=0.06)
    assert ran.row("after the edit, from what it changed") == ["0", "0"]


def test_costs_are_tokens_at_the_prices_given(ran: Ran) -> None:
    for tokens, cost in zip(ran.row("tokens, input / output"), ran.row("cost"), strict=True):
        given, said = map(number, tokens.split(" / "))
        assert given > said > 0
        assert number(cost) == pytest.approx((3 * given + 20 * said) / 1e6, abs=1e-6)
    plain, cached = map(number, ran.row("cost"))
    assert cached < plain
    saved_s, tokens = ran.row("saved")[0].split(", ", 1)
    assert number(saved_s) > 1
    assert number(tokens) > 1_000


def test_the_plot_shows_both_runs(ran: Ran) -> None:
    assert ran.plot.startswith("<?xml")
    for told in ("without a cache", "by the model", "cached: the very question", "edited"):
        assert f"<!-- {told}" in ran.plot or f"{told} -->" in ran.plot, told


def answered(versions: dict[str, str | None], *, came_from: str = "exact") -> Answer:
    usage = {"input_tokens": 100, "output_tokens": 10}
    return Answer("q", "a", versions, came_from, "q", 1.0, 0.5, usage)


def test_what_was_made_from_old_documents_is_counted() -> None:
    old, new = answered({"d1": "1", "d2": "1"}), answered({"d1": "2", "d2": "1"})
    assert Run([old, new, new], 1, {"d1": "2", "d2": "1"}).stale == 0
    assert Run([old, old, new], 1, {"d1": "2", "d2": "1"}).stale == 1
    assert Run([new, new, new], 0, {"d1": "2"}).stale == 3


def test_only_the_model_costs() -> None:
    plain = Run([answered({}, came_from="model")] * 3, 1, {})
    cached = Run([answered({}, came_from="model"), answered({}), answered({})], 1, {})
    table = {name: cells for name, *cells in rows(plain, cached, Prices(1.0, 10.0, "EUR"))}
    assert table["tokens, input / output"] == ["300 / 30", "100 / 10"]
    assert table["cost"] == ["0.000600 EUR", "0.000200 EUR"]
    assert table["answered by the model"] == ["3", "1"]


# --- its parts -----------------------------------------------------------------


@pytest.fixture(scope="module")
def embedder() -> WordLlama:
    return WordLlama()


def quick(embedder: WordLlama) -> ExtractiveModel:
    """The model, without the time it takes."""
    return ExtractiveModel(embedder=embedder, first_token_s=0.0, tokens_per_s=1e9)


@pytest.mark.parametrize("tells", [True, False])
def test_without_invalidation_answers_would_be_stale(
    tells: bool, caches: Caches, embedder: WordLlama, tmp_path: Path
) -> None:
    """So the example's "0" is what the cache does, and nothing that would be there anyway."""
    cache = caches(embedder=embedder)
    pipeline = Pipeline(Corpus(tmp_path, embedder), quick(embedder), cache)

    def edit() -> None:
        pipeline.corpus.edit(PAGE, OLD, NEW)
        changed = pipeline.corpus.sync()
        if tells:
            cache.invalidate(changed, corpus=CORPUS)

    cache.tend()
    pipeline.ask(QUESTION)
    run = answer_all(pipeline, [QUESTION] * 4, edit)
    assert run.stale == (0 if tells else 2)
    assert (OLD in run.answers[-1].text) is not tells


def test_an_edit_changes_the_versions_of_what_it_changes_alone(
    embedder: WordLlama, tmp_path: Path
) -> None:
    corpus = Corpus(tmp_path, embedder)
    before = dict(corpus.versions)
    assert corpus.sync() == {}
    gone = {name for name in before if name.startswith("CHANGELOG.md")}
    assert gone & set(documents_of(corpus.retrieve("Which changes were added?", most=40)))
    page = tmp_path / PAGE
    page.write_text(page.read_text("utf-8") + "\n## New\n\nA zebra is striped, as all know.\n")
    (tmp_path / "CHANGELOG.md").unlink()
    changed = corpus.sync()
    assert not gone & set(documents_of(corpus.retrieve("Which changes were added?", most=40)))
    [new] = set(changed) - gone
    assert new.endswith("> New")
    assert {name: changed[name] for name in gone} == dict.fromkeys(gone)
    best = corpus.retrieve("How is a zebra striped?")[0]
    assert documents_of([best]) == {new: changed[new]}
    assert corpus.versions == {
        **{name: version for name, version in before.items() if name not in gone},
        new: changed[new],
    }
    with pytest.raises(ValueError, match="choose another edit"):
        corpus.edit(PAGE, "what nobody ever wrote", "")


def test_passages_are_prose_and_rows() -> None:
    text = """Some words about something here.

```python
code = "is left out"
```

| name | what it is |
|---|---|
| `a` | the first of all letters |

- An item of several words.
  It goes on.
"""
    assert split(text) == [
        "Some words about something here.\n| `a` | the first of all letters |\n"
        "- An item of several words. It goes on."
    ]


def test_the_model_quotes_its_prompt_and_counts_tokens(embedder: WordLlama) -> None:
    prompt = (
        "[1] a.md\nKinds\nA tiger is a large cat. It lives in the forest of the north.\n\n"
        "[2] b.md\nTable\n| zebra | an animal with black stripes |\n\n"
        "Question: What is a zebra?"
    )
    message = quick(embedder).invoke([HumanMessage(prompt)])
    assert message.text == "zebra: an animal with black stripes [2]"
    usage = message.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] > usage["output_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert "do not say" in quick(embedder).invoke([HumanMessage("Question: And?")]).text


def test_the_model_takes_its_time(embedder: WordLlama) -> None:
    model = ExtractiveModel(embedder=embedder, first_token_s=0.05, tokens_per_s=100)
    started_s = time.perf_counter()
    message = model.invoke([HumanMessage("Question: And?")])
    assert message.usage_metadata is not None
    least_s = 0.05 + message.usage_metadata["output_tokens"] / 100
    assert time.perf_counter() - started_s >= least_s


def test_answers_are_made_from_what_was_read_with_the_versions_it_had(
    embedder: WordLlama, tmp_path: Path
) -> None:
    pipeline = Pipeline(Corpus(tmp_path, embedder), quick(embedder))
    passages = pipeline.corpus.retrieve(QUESTION)
    before = dict(pipeline.corpus.versions)
    pipeline.corpus.edit(PAGE, OLD, NEW)
    changed = pipeline.corpus.sync()
    made = pipeline.answer_from(QUESTION, passages)
    assert OLD in made.value
    assert made.evidence == {name: before[name] for name in documents_of(passages)}
    assert set(made.evidence) & set(changed)


def test_questions_are_those_listed_and_repeat() -> None:
    known = {each for some in wordings() for each in some}
    assert all(len(some) > 1 for some in wordings())
    asked = stream(200, seed=7)
    assert set(asked) <= known
    assert asked == stream(200, seed=7) != stream(200, seed=8)
    assert 10 < len(set(asked)) < 200


# --- the command line ----------------------------------------------------------


def test_a_model_that_can_not_be_had_is_said_in_a_sentence(tmp_path: Path) -> None:
    done = run(tmp_path, RAG_MODEL="nobody:knows")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the chat model nobody:knows can't be made" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_few_questions_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--questions", "1")
    assert done.returncode == 2
    assert "at least 2" in done.stderr
