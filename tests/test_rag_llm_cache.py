"""LangChain's cache of what models answer: what is alike, what is not, and what is stale."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation

from langgraph_valkey.local import LocalValkey
from rag_cache import SemanticCache
from rag_cache.embedders import WordLlama
from rag_cache.faces import LLMCache
from rag_cache.guards import DEFAULT_GUARDS
from tests.rag_ground import Bag, Caches
from tests.rag_models import Chat, ask

SYSTEM = SystemMessage("You work for a shop. Be brief.")
QUESTION, SIMILAR = "how do i reset my password", "my password how do i reset"
LONG_SYSTEM = "You are the assistant of a company. " + 8 * (
    "Answer politely and briefly, cite the handbook, never speak of other companies, and say "
    "so if you do not know. "
)


def unrelated() -> list[str]:
    """100 questions that no one answer serves."""
    from fow_cache.data import load_questions

    rows = [row["a"] for row in load_questions() if row["category"] == "paraphrase"]
    return list(dict.fromkeys(rows))[:100]


async def test_a_similar_question_gets_the_answer_as_langchain_gives_it(
    caches: Caches, kind: str
) -> None:
    cache = caches()
    model, plain = Chat(cache=LLMCache(cache)), Chat(cache=InMemoryCache())
    for each in (model, plain):
        await ask(kind, each, [SYSTEM, ("human", QUESTION)])
    hit = await ask(kind, model, [SYSTEM, ("human", SIMILAR)])
    theirs = await ask(kind, plain, [SYSTEM, ("human", QUESTION)])
    assert (model.times, plain.times) == (1, 1)
    assert type(hit) is AIMessage
    # LangChain counts its own hits as costing nothing: so does it these, and nothing is added.
    assert hit.usage_metadata == theirs.usage_metadata == {**theirs.usage_metadata, "total_cost": 0}
    assert hit.model_copy(update={"id": None}) == theirs.model_copy(update={"id": None})
    counted = cache.stats()
    assert (counted.tokens_in, counted.tokens_out, counted.hits) == (7, 3, {"process": 1})
    assert counted.saved_s > 0


async def test_as_the_cache_of_the_whole_process(caches: Caches, kind: str) -> None:
    model = Chat()
    set_llm_cache(LLMCache(caches()))
    try:
        for question in (QUESTION, SIMILAR):
            await ask(kind, model, question)
    finally:
        set_llm_cache(None)
    assert model.times == 1


async def test_unrelated_questions_under_one_system_prompt_are_never_served(
    caches: Caches, kind: str
) -> None:
    """Each question is looked up beside all before it: 4,950 pairs."""
    questions = unrelated()
    prompts = [[SystemMessage(LONG_SYSTEM), HumanMessage(each)] for each in questions]
    embedder = WordLlama()
    whole = embedder.embed_array([dumps(prompt) for prompt in prompts])
    pairs = (whole @ whole.T)[np.triu_indices(len(prompts), 1)]
    cache = caches(embedder=embedder, guards=DEFAULT_GUARDS, threshold=0.9)
    model = Chat(cache=LLMCache(cache))
    answers = [await ask(kind, model, prompt) for prompt in prompts]
    assert (len(pairs), model.times) == (4950, 100)
    assert len({answer.content for answer in answers}) == 100
    assert cache.stats().stored == 100
    # Whoever embeds the whole prompt finds most of them alike.
    assert (pairs >= 0.9).mean() > 0.8


CALL = {"name": "search", "args": {"q": "password"}, "id": "call-1", "type": "tool_call"}
BASE = [SYSTEM, HumanMessage("hi"), AIMessage("hello"), HumanMessage(QUESTION)]


@pytest.mark.parametrize(
    "other",
    [
        [SystemMessage("You work for a bank. Be brief."), *BASE[1:]],
        BASE[1:],
        [BASE[0], BASE[3]],
        [*BASE[:1], HumanMessage("hi!"), *BASE[2:]],
        [*BASE[:2], AIMessage("go away"), BASE[3]],
        [*BASE[:2], HumanMessage("hello"), BASE[3]],
        [*BASE, AIMessage("", tool_calls=[CALL]), ToolMessage("a", tool_call_id="call-1")],
        [*BASE[:3], HumanMessage(QUESTION, name="bob")],
        [*BASE[:3], HumanMessage(QUESTION, additional_kwargs={"cache": True})],
        [*BASE[:3], HumanMessage([{"type": "text", "text": QUESTION}])],
        [
            *BASE[:3],
            HumanMessage([QUESTION, {"type": "image_url", "image_url": {"url": "http://x/1"}}]),
        ],
        [*BASE[:3], HumanMessage(["a text", QUESTION])],
    ],
)
async def test_all_but_the_question_is_compared_exactly(
    caches: Caches, kind: str, other: Any
) -> None:
    model = Chat(cache=LLMCache(caches()))
    await ask(kind, model, BASE)
    assert await ask(kind, model, [*BASE[:3], HumanMessage(SIMILAR)])
    assert model.times == 1
    await ask(kind, model, other)
    assert model.times == 2
    await ask(kind, model, other)
    assert model.times == 2


async def test_models_tools_and_faces_share_nothing(caches: Caches, kind: str) -> None:
    cache = caches()
    chats = [
        Chat(cache=LLMCache(cache)),
        Chat(cache=LLMCache(cache), temperature=1),
        Chat(cache=LLMCache(cache)),
        Chat(cache=LLMCache(cache)),
        Chat(cache=LLMCache(cache, tenant="acme")),
        Chat(cache=LLMCache(cache, corpus="handbook")),
        Chat(cache=LLMCache(cache, label="other")),
    ]
    models: list[Any] = [*chats]
    models[2] = chats[2].bind_tools(["search"])
    models[3] = chats[3].bind(stop=["."])
    for chat, model in zip(chats, models, strict=True):
        for question in (QUESTION, QUESTION, SIMILAR):
            await ask(kind, model, question)
        assert chat.times == 1
    again = Chat(cache=LLMCache(cache))
    await ask(kind, again, QUESTION)
    assert again.times == 0


async def test_what_differs_with_every_answer_does_not_tell_conversations_apart(
    caches: Caches, kind: str
) -> None:
    model = Chat(cache=LLMCache(caches()))

    def conversation(draw: str) -> list[Any]:
        call = {**CALL, "id": draw}
        provider = {"tool_calls": [{"id": draw, "function": {"name": "search"}}]}
        return [
            HumanMessage(QUESTION, id=f"h{draw}"),
            AIMessage(
                [{"type": "tool_use", "id": draw, "name": "search"}],
                id=f"a{draw}",
                tool_calls=[call],
                additional_kwargs=provider,
                response_metadata={"id": draw},
                usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": len(draw)},
            ),
            ToolMessage("found", tool_call_id=draw, artifact=[draw]),
        ]

    for draw in ("x", "yy", "zzz"):
        await ask(kind, model, conversation(draw))
    assert model.times == 1
    other = conversation("x")
    other[1].tool_calls[0]["args"]["q"] = "else"
    await ask(kind, model, other)
    assert model.times == 2


user: ContextVar[str | None] = ContextVar("user")


async def test_a_tenant_is_told_for_each_call(caches: Caches, kind: str) -> None:
    cache = caches()
    model = Chat(cache=LLMCache(cache, tenant=user.get))
    seen: dict[str, set[str]] = {}
    for name in ("acme", "other", "acme", "other"):
        user.set(name)
        seen.setdefault(name, set()).add((await ask(kind, model, QUESTION)).content)
        await ask(kind, model, SIMILAR)
    assert model.times == 2
    assert len(seen["acme"]) == len(seen["other"]) == 1
    assert not seen["acme"] & seen["other"]
    user.set(None)  # Nothing is cached for nobody.
    await ask(kind, model, QUESTION)
    await ask(kind, model, QUESTION)
    assert model.times == 4
    user.set(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tenant"):
        await ask(kind, model, QUESTION)


def llm_string(model: Any) -> str:
    found: str = model._get_llm_string(stop=None)
    return found


async def test_calls_of_tools_are_kept_if_that_is_wanted(caches: Caches, kind: str) -> None:
    model = Chat(
        cache=LLMCache(caches(), tool_calls=True),
        answer=lambda _: AIMessage("", tool_calls=[CALL]),
    )
    await ask(kind, model, QUESTION)
    assert (await ask(kind, model, SIMILAR)).tool_calls == [CALL]
    assert model.times == 1


async def test_models_of_text_in_batches(caches: Caches, kind: str) -> None:
    cache = caches()
    model = FakeListLLM(responses=[f"answer {n}" for n in range(9)], cache=LLMCache(cache))
    ours = [QUESTION, "what is the weather", SIMILAR, "who are you"]

    async def generate(prompts: list[str]) -> list[str]:
        if kind == "async":
            found = await model.agenerate(prompts)
        else:
            found = await asyncio.to_thread(model.generate, prompts)
        return [each[0].text for each in found.generations]

    assert await generate(ours[:2]) == ["answer 0", "answer 1"]
    assert await generate(ours[2:]) == ["answer 0", "answer 2"]
    assert await generate(ours) == ["answer 0", "answer 1", "answer 0", "answer 2"]
    chat = [SYSTEM, HumanMessage(QUESTION)]
    assert await ask(kind, model, chat) == "answer 3"
    assert await ask(kind, model, [SYSTEM, HumanMessage(SIMILAR)]) == "answer 3"
    assert await ask(kind, model, [SystemMessage("Rhyme."), HumanMessage(SIMILAR)]) == "answer 4"
    assert cache.stats().not_stored == {}


async def test_a_long_text_is_no_question_unless_one_is_told_in_it(
    caches: Caches, kind: str
) -> None:
    def prompt(question: str, context: str = "") -> str:
        return f"Answer from this: {context} {'The shop opens at nine. ' * 60}Question: {question}"

    cache = caches()
    model = Chat(cache=LLMCache(cache))
    for question in (QUESTION, QUESTION, SIMILAR):
        await ask(kind, model, prompt(question))
    assert model.times == 2
    knowing = LLMCache(cache, label="q", question_in=lambda text: text.partition("Question: ")[2])
    model = Chat(cache=knowing)
    for question in (QUESTION, SIMILAR):
        await ask(kind, model, prompt(question))
    assert model.times == 1
    await ask(kind, model, prompt(SIMILAR, "Today it is closed."))
    await ask(kind, model, prompt("what is the weather in paris"))
    assert model.times == 3
    wrong = Chat(cache=LLMCache(cache, question_in=str.upper))
    with pytest.raises(ValueError, match="part of the text"):
        await ask(kind, wrong, QUESTION)


async def test_an_answer_given_twice_in_a_conversation_stays_twice(
    caches: Caches, kind: str
) -> None:
    """LangGraph takes messages of one id for one."""
    from langgraph.graph.message import add_messages

    model = Chat(cache=LLMCache(caches()))
    await ask(kind, model, QUESTION)
    twice = [await ask(kind, model, QUESTION) for _ in range(2)]
    assert model.times == 1
    assert len(add_messages(add_messages([], twice[:1]), twice[1:])) == 2  # type: ignore[arg-type]


async def test_a_server_that_is_away_costs_no_answer(kind: str, tmp_path: Any) -> None:
    with LocalValkey() as server:
        url = server.url
    primary = f"sqlite:///{tmp_path}/p.db"
    with SemanticCache(url, embedder=Bag(), primary=primary, lookup_deadline_ms=50) as cache:
        model = Chat(cache=LLMCache(cache))
        started_s = time.monotonic()
        for _ in range(10):
            assert (await ask(kind, model, QUESTION)).content
        assert model.times == 10
        # No store was tried where nobody answers.
        assert cache.stats().not_stored == {}
        assert time.monotonic() - started_s < 10


async def test_kept_without_a_lookup(caches: Caches, kind: str) -> None:
    """As caches are warmed: LangChain itself always looks up first."""
    cache = LLMCache(caches())
    values: list[list[Generation]] = [
        [Generation(text="a", generation_info={"n": 1}), Generation(text="b")],
        [ChatGeneration(message=AIMessage("a")), ChatGeneration(message=AIMessage("b"))],
    ]
    for at, value in enumerate(values):
        if kind == "async":
            await cache.aupdate(f"prompt {at}", "model", value)
            assert await cache.alookup(f"prompt {at}", "model") == value
        else:
            cache.update(f"prompt {at}", "model", value)
            assert cache.lookup(f"prompt {at}", "model") == value
        assert cache.lookup(f"prompt {at}", "other model") is None


async def test_why_it_hits_or_misses_can_be_told(caches: Caches) -> None:
    cache = caches()
    llm_cache = LLMCache(cache)
    model = Chat(cache=llm_cache)
    model.invoke([SYSTEM, ("human", QUESTION)])
    asked = dumps([SYSTEM, HumanMessage("what about the weather")])
    question, scope = llm_cache.place(asked, llm_string(model))
    assert question == "what about the weather"
    explained = cache.explain(question, scope)
    assert explained.outcome == "below_threshold"
    assert [each.question for each in explained.considered] == [QUESTION]
