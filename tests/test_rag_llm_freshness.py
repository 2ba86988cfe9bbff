"""Answers in LangChain's cache that must not be served, or not be kept: stale, or another's."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation

from rag_cache.faces import LLMCache
from rag_cache.faces.llm_cache import AWAITED_MOST, _awaited
from tests.rag_ground import Caches
from tests.rag_models import Chat, ask

QUESTION, SIMILAR = "how do i reset my password", "my password how do i reset"
CALL = {"name": "search", "args": {"q": "password"}, "id": "call-1", "type": "tool_call"}

user: ContextVar[str | None] = ContextVar("user")


def llm_string(model: Any) -> str:
    found: str = model._get_llm_string(stop=None)
    return found


async def test_an_answer_belongs_to_who_asked_for_it(caches: Caches, kind: str) -> None:
    """Even if the context says otherwise by the time the answer is there."""
    user.set("acme")

    def answer(_: Any) -> AIMessage:
        user.set("other")
        return AIMessage("secret of acme")

    model = Chat(cache=LLMCache(caches(), tenant=user.get), answer=answer)
    await ask(kind, model, QUESTION)
    model.answer = lambda _: AIMessage("mine")
    user.set("other")
    assert (await ask(kind, model, SIMILAR)).content == "mine"
    user.set("acme")
    assert (await ask(kind, model, SIMILAR)).content == "secret of acme"


async def test_an_answer_made_while_its_document_changed_is_never_served(
    caches: Caches,
) -> None:
    """The late writer's fence is its own, also beside one who asks the same after the change."""
    cache = caches()
    llm_cache = LLMCache(cache, evidence=lambda *_: {"d": None})
    late, changed = asyncio.Event(), asyncio.Event()

    class Slow(Chat):
        async def _agenerate(self, messages: Any, stop: Any = None, *args: Any, **more: Any) -> Any:
            first = self.times == 0
            self.say(messages)
            if first:
                late.set()
                await changed.wait()
            said = AIMessage("old" if first else "new")
            return ChatResult(generations=[ChatGeneration(message=said)])

    model = Slow(cache=llm_cache)
    before = asyncio.create_task(model.ainvoke(QUESTION))
    await late.wait()
    await cache.ainvalidate("d")
    # Another misses the same prompt now, so a fence kept by prompt would be this newer one.
    assert await llm_cache.alookup(dumps([HumanMessage(QUESTION)]), llm_string(model)) is None
    changed.set()
    assert (await before).content == "old"
    assert cache.stats().not_stored == {"stale": 1}
    assert (await model.ainvoke(SIMILAR)).content == "new"
    assert (await model.ainvoke(QUESTION)).content == "new"
    assert model.times == 2


async def test_the_fence_of_a_miss_is_kept_until_its_answer(caches: Caches, kind: str) -> None:
    cache = caches()
    model = Chat(cache=LLMCache(cache, evidence=lambda *_: {"d": None}))

    def answer(_: Any) -> AIMessage:
        cache.invalidate("d")
        return AIMessage("old")

    model.answer = answer
    await ask(kind, model, QUESTION)
    assert cache.stats().not_stored == {"stale": 1}
    model.answer = lambda _: AIMessage("new")
    assert (await ask(kind, model, SIMILAR)).content == "new"
    # With a fence, what was invalidated before the miss does not matter.
    assert cache.stats().stored == 1
    assert (await ask(kind, model, QUESTION)).content == "new"
    assert model.times == 2


async def test_answers_are_forgotten_by_documents_tags_and_all(caches: Caches, kind: str) -> None:
    cache = caches()
    documents: ContextVar[dict[str, str | None]] = ContextVar("documents")
    llm_cache = LLMCache(
        *(cache,),
        tenant=user.get,
        corpus="handbook",
        evidence=lambda prompt, answers: documents.get(),
        tags=lambda prompt, answers: [prompt.question.split()[0]],
    )
    other = LLMCache(cache, label="other", corpus="handbook")
    model, beside = Chat(cache=llm_cache), Chat(cache=other)

    async def asks(question: str) -> int:
        documents.set({question: "v1"})
        before = model.times
        await ask(kind, model, question)
        return model.times - before

    user.set("acme")
    await ask(kind, beside, "beside")
    for question in ("first one", "second one"):
        assert [await asks(question), await asks(question)] == [1, 0]
    cache.invalidate("first one", version="v1", corpus="handbook")
    assert [await asks("first one"), await asks("second one")] == [0, 0]
    cache.invalidate("first one", version="v2", corpus="handbook")
    assert [await asks("first one"), await asks("second one")] == [1, 0]
    cache.invalidate(tag="second", corpus="handbook")
    assert await asks("second one") == 1
    user.set("third")
    assert await asks("second one") == 1
    if kind == "async":
        await llm_cache.aclear(tenant="acme")
    else:
        llm_cache.clear(tenant="acme")
    assert await asks("second one") == 0
    user.set("acme")
    assert [await asks("second one"), await asks("second one")] == [1, 0]
    llm_cache.clear()
    assert await asks("second one") == 1
    user.set("third")
    assert await asks("second one") == 1
    await ask(kind, beside, "beside")
    assert beside.times == 1
    with pytest.raises(TypeError, match="older_than"):
        llm_cache.clear(older_than=3)


def test_a_fixed_tenant_clears_its_own_answers_alone(caches: Caches) -> None:
    cache = caches()
    mine, theirs = (LLMCache(cache, tenant=name) for name in ("acme", "other"))
    for each in (mine, theirs):
        Chat(cache=each).invoke(QUESTION)
    mine.clear()
    mine_again, theirs_again = Chat(cache=mine), Chat(cache=theirs)
    mine_again.invoke(QUESTION)
    theirs_again.invoke(QUESTION)
    assert (mine_again.times, theirs_again.times) == (1, 0)


def _raises(*_: Any) -> Any:
    raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"evidence": _raises}, AIMessage("x")),
        ({"evidence": lambda *_: None}, AIMessage("x")),
        ({"tags": _raises}, AIMessage("x")),
        ({"evidence": lambda *_: {"d": 7}}, AIMessage("x")),
        ({"evidence": lambda *_: {str(n): None for n in range(300)}}, AIMessage("x")),
        ({}, AIMessage("")),
        ({}, AIMessage("let me look", tool_calls=[CALL])),
        ({}, AIMessage("x", additional_kwargs={"raw": object()})),
        ({}, AIMessage("x" * (9 * 1024 * 1024))),
    ],
    ids=range(9),
)
async def test_what_may_not_be_kept_costs_nobody_an_answer(
    caches: Caches, kind: str, given: Any, answer: AIMessage
) -> None:
    cache = caches()
    model = Chat(cache=LLMCache(cache, **given), answer=lambda _: answer)
    for _ in range(2):
        assert (await ask(kind, model, QUESTION)).content == answer.content
    assert (model.times, cache.stats().stored) == (2, 0)


@pytest.mark.parametrize("value", ["text", [], [{"text": 5, "info": None}], [{"message": "x"}]])
async def test_what_is_no_answer_is_not_served(caches: Caches, kind: str, value: Any) -> None:
    """As another program, or another release, may have stored it."""
    cache = caches()
    llm_cache = LLMCache(cache)
    model = Chat(cache=llm_cache)
    question, scope = llm_cache.place(dumps([HumanMessage(QUESTION)]), llm_string(model))
    assert cache.store(question, scope, value)
    assert (await ask(kind, model, QUESTION)).content
    assert model.times == 1


def test_misses_that_are_never_answered_are_bounded(caches: Caches) -> None:
    llm_cache = LLMCache(caches())
    for n in range(AWAITED_MOST + 20):
        assert llm_cache.lookup(f"prompt {n}", "model") is None
    assert len(_awaited.get({})) == AWAITED_MOST
    llm_cache.update("prompt 0", "model", [Generation(text="forgotten")])
    llm_cache.update(f"prompt {AWAITED_MOST}", "model", [Generation(text="awaited")])
    assert len(_awaited.get({})) == AWAITED_MOST - 1
    assert llm_cache.lookup("prompt 0", "model") == [Generation(text="forgotten")]
