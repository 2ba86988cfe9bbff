"""Embeddings around others: what is embedded, what is not, and that nothing gets in the way."""

from __future__ import annotations

import asyncio
import random
import struct
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

from langgraph_valkey.local import LocalValkey
from rag_cache import Scope, SemanticCache
from rag_cache.faces import CachedEmbeddings
from rag_cache.faces.embeddings import TEXTS_MOST, packed, unpacked
from tests.rag_ground import Bag, Caches


class Model(Embeddings):
    """Embeds a text at random, the same way each time, and questions another way.

    Attributes:
        batches: The texts of each call.
    """

    def __init__(self, size: int = 5, model: str = "m") -> None:
        self.size = size
        self.model = model
        self.batches: list[list[str]] = []

    def vector(self, text: str) -> list[float]:
        draw = random.Random(repr((self.model, text)))
        return [draw.uniform(-1, 1) for _ in range(self.size)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.batches.append(texts)
        return [self.vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([f"query: {text}"])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        await asyncio.sleep(0)
        return self.embed_query(text)


async def documents(kind: str, embeddings: Embeddings, texts: list[str]) -> list[list[float]]:
    if kind == "async":
        return await embeddings.aembed_documents(texts)
    return await asyncio.to_thread(embeddings.embed_documents, texts)


async def query(kind: str, embeddings: Embeddings, text: str) -> list[float]:
    if kind == "async":
        return await embeddings.aembed_query(text)
    return await asyncio.to_thread(embeddings.embed_query, text)


def rounded(vectors: list[list[float]]) -> list[list[float]]:
    """As float32."""
    return [list(struct.unpack(f"<{len(v)}f", struct.pack(f"<{len(v)}f", *v))) for v in vectors]


async def test_only_what_is_missing_is_embedded_once_in_one_call(caches: Caches, kind: str) -> None:
    cache, model = caches(), Model()
    embeddings = CachedEmbeddings(model, cache)
    texts = ["b", "a", "b", "", "\0\ud800", "a"]
    first = await documents(kind, embeddings, texts)
    assert model.batches == [["b", "a", "", "\0\ud800"]]
    assert first == rounded([model.vector(text) for text in texts])
    assert await documents(kind, embeddings, texts) == first
    assert len(model.batches) == 1
    more = await documents(kind, CachedEmbeddings(model, cache), ["c", "a", "d", "c"])
    assert model.batches[1:] == [["c", "d"]]
    assert more == rounded([model.vector(text) for text in "cadc"])
    assert await documents(kind, embeddings, []) == []
    assert len(model.batches) == 2


async def test_vectors_are_the_callers_own(caches: Caches, kind: str) -> None:
    embeddings = CachedEmbeddings(Model(), caches())
    one, same = await documents(kind, embeddings, ["a", "a"])
    one[0] = 99.0
    assert same[0] != 99.0
    assert (await documents(kind, embeddings, ["a"]))[0] == same


async def test_questions_and_documents_are_kept_apart(caches: Caches, kind: str) -> None:
    model = Model()
    embeddings = CachedEmbeddings(model, caches())
    for _ in range(2):
        assert [await query(kind, embeddings, "a")] == rounded([model.vector("query: a")])
        assert await documents(kind, embeddings, ["a"]) == rounded([model.vector("a")])
    assert model.batches == [["query: a"], ["a"]]


async def test_embedders_share_nothing(caches: Caches, kind: str) -> None:
    cache = caches()
    models = [Model(), Model(model="n"), Model()]
    for model, identity in zip(models, [None, None, "with a prefix"], strict=True):
        embeddings = CachedEmbeddings(model, cache, identity=identity)
        for _ in range(2):
            assert await documents(kind, embeddings, ["a"]) == rounded([model.vector("a")])
        assert len(model.batches) == 1


async def test_many_texts(caches: Caches, kind: str) -> None:
    model, texts = Model(), [f"text {n}" for n in range(3 * TEXTS_MOST + 7)]
    embeddings = CachedEmbeddings(model, caches(lookup_deadline_ms=5000))
    known = texts[::2]
    await documents(kind, embeddings, known)
    assert await documents(kind, embeddings, texts) == rounded([model.vector(t) for t in texts])
    assert model.batches == [known, texts[1::2]]
    await documents(kind, embeddings, texts)
    assert len(model.batches) == 2


@pytest.mark.parametrize("knows", [True, False])
async def test_vectors_of_another_length_are_made_anew(
    caches: Caches, kind: str, knows: bool
) -> None:
    """As after an embedder was set to another dimension, and is still called the same."""
    cache = caches()
    await documents(kind, CachedEmbeddings(Model(5), cache, identity="x"), ["a", "b"])
    model = Model(7)
    embeddings = CachedEmbeddings(model, cache, identity="x")
    if knows:
        await documents(kind, embeddings, ["z"])
        assert await documents(kind, embeddings, ["a", "b"]) == rounded(
            [model.vector("a"), model.vector("b")]
        )
    else:
        found = await documents(kind, embeddings, ["a", "c", "b"])
        assert found == rounded([model.vector(t) for t in "acb"])
        assert model.batches == [["c"], ["a", "b"]]
    # Those of two lengths, of which nobody knows the right one.
    await documents(kind, CachedEmbeddings(Model(5), cache, identity="y"), ["a"])
    await documents(kind, CachedEmbeddings(model, cache, identity="y"), ["b"])
    embeddings = CachedEmbeddings(model, cache, identity="y")
    assert await documents(kind, embeddings, ["a", "b"]) == rounded([model.vector(t) for t in "ab"])


@pytest.mark.parametrize("raw", [b"", b"f", b"fabc", b"f12345", b"x12345678", b"\0" * 9])
async def test_a_damaged_vector_is_made_anew(caches: Caches, kind: str, raw: bytes) -> None:
    cache, model = caches(), Model()
    embeddings = CachedEmbeddings(model, cache)
    cache.put_many(embeddings._namespace("documents"), {"a": raw})
    for _ in range(2):
        assert await documents(kind, embeddings, ["a"]) == rounded([model.vector("a")])
    assert len(model.batches) == 1


async def test_what_is_no_vector_is_not_kept(caches: Caches, kind: str) -> None:
    class Odd(Model):
        def vector(self, text: str) -> list[float]:
            return {"nan": [float("nan")], "inf": [float("inf")], "huge": [1e300]}.get(text, [])

    model = Odd()
    embeddings = CachedEmbeddings(model, caches())
    for _ in range(2):
        found = await documents(kind, embeddings, ["huge"])
        assert found == [[1e300]]
    for text in ("nan", "inf", "none"):
        for _ in range(2):
            await documents(kind, embeddings, [text])
    assert len(model.batches) == 8


def test_stored_form() -> None:
    vector = [0.5, -1.0, 3.25]
    raw = packed(vector)
    assert raw is not None
    assert len(raw) == 1 + 4 * 3
    assert unpacked(raw) == vector


async def test_an_embedder_that_returns_too_little(caches: Caches, kind: str) -> None:
    class Short(Model):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return super().embed_documents(texts)[1:]

    with pytest.raises(ValueError, match="1 vectors for 2 texts"):
        await documents(kind, CachedEmbeddings(Short(), caches()), ["a", "b"])


async def test_clearing_forgets_this_embedders_vectors_alone(caches: Caches, kind: str) -> None:
    cache, one, other = caches(), Model(), Model(model="n")
    mine, theirs = CachedEmbeddings(one, cache), CachedEmbeddings(other, cache)
    for each in (mine, theirs):
        await documents(kind, each, ["a"])
        await query(kind, each, "a")
    if kind == "async":
        await mine.aclear()
    else:
        mine.clear()
    for each in (mine, theirs):
        await documents(kind, each, ["a"])
        await query(kind, each, "a")
    assert (len(one.batches), len(other.batches)) == (4, 2)


async def test_vectors_end_with_their_time(
    caches: Caches, kind: str, valkey: LocalValkey, prefix: str
) -> None:
    def left_s() -> float:
        keys = valkey.command("KEYS", f"{prefix}:k:*")
        assert isinstance(keys, list)
        lives = [valkey.command("PTTL", key) for key in keys if isinstance(key, bytes)]
        return max(each for each in lives if isinstance(each, int)) / 1000

    cache = caches(ttl_s={"embedding": 500})
    await documents(kind, CachedEmbeddings(Model(), cache, ttl_s=100), ["a"])
    assert 89 < left_s() <= 100
    await documents(kind, CachedEmbeddings(Model(model="n"), cache), ["a"])
    assert 449 < left_s() <= 500
    with pytest.raises(ValueError, match="ttl_s"):
        CachedEmbeddings(Model(), cache, ttl_s=0)


async def test_a_server_that_is_away_costs_nothing_but_time(kind: str, tmp_path: Any) -> None:
    with LocalValkey() as server:
        url = server.url
    primary = f"sqlite:///{tmp_path}/p.db"
    with SemanticCache(url, embedder=Bag(), primary=primary) as cache:
        model = Model()
        embeddings = CachedEmbeddings(model, cache)
        assert await documents(kind, embeddings, ["a"]) == rounded([model.vector("a")])
        assert [await query(kind, embeddings, "a")] == rounded([model.vector("query: a")])


async def test_as_the_embedder_of_a_cache(caches: Caches, kind: str) -> None:
    """A question that was embedded once needs no embedding in any process."""
    plain, bag = caches(), Bag()
    embeddings = CachedEmbeddings(bag, plain)
    assert "bag" in embeddings.id
    for _ in range(3):
        caches(embedder=embeddings).store("what is this", Scope(), "x")
    assert bag.times == 1
