"""Chat models that are streamed: what is in the cache is replayed, and what is whole is kept."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessageChunk, SystemMessage
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langgraph.graph import START, StateGraph

from rag_cache import SemanticCache
from rag_cache.faces import LLMCache
from tests.rag_ground import Caches
from tests.rag_models import AsyncStreamingChat, Chat, StreamingChat, ask, streamed

SYSTEM = SystemMessage("Be brief.")
QUESTION, SIMILAR = "how do i reset my password", "my password how do i reset"
CHATS = [StreamingChat, AsyncStreamingChat]


def cached(cache: SemanticCache, chat: type[Chat] = AsyncStreamingChat, **given: Any) -> Any:
    return LLMCache(cache).for_streaming(chat(**given))


def whole(chunks: list[BaseMessageChunk]) -> Any:
    found = chunks[0]
    for chunk in chunks[1:]:
        found += chunk
    return found


@pytest.mark.parametrize("chat", CHATS)
async def test_a_hit_is_streamed_as_the_model_streams(
    caches: Caches, kind: str, chat: type[Chat]
) -> None:
    cache = caches()
    model = cached(cache, chat)
    assert isinstance(model, chat)
    first = await streamed(kind, model, [SYSTEM, ("human", QUESTION)])
    again = await streamed(kind, model, [SYSTEM, ("human", SIMILAR)])
    assert model.times == 1
    assert len(again) > 2
    assert all(type(each) is AIMessageChunk for each in again)
    ours, theirs = whole(again), whole(first)
    assert ours.content == theirs.content == f"answer 1 to: {QUESTION}"
    assert ours.usage_metadata == {**theirs.usage_metadata, "total_cost": 0}
    assert ours.response_metadata == theirs.response_metadata
    assert again[-1].chunk_position == "last"
    assert len({each.id for each in again}) == 1
    assert ours.id != theirs.id
    # It is the same answer, whether it is streamed or not.
    hit = await ask(kind, model, [SYSTEM, ("human", SIMILAR)])
    assert (type(hit), hit.content, model.times) == (AIMessage, ours.content, 1)
    counted = cache.stats()
    assert (counted.stored, counted.misses) == (1, {"absent": 1})
    assert counted.tokens_in == 2 * 7


@pytest.mark.parametrize("chat", CHATS)
async def test_what_was_invoked_is_streamed(caches: Caches, kind: str, chat: type[Chat]) -> None:
    text = "many words \n\n with  spaces\tand a-very-long-word-" + 50 * "x" + " at the end\n"
    message = AIMessage(text, additional_kwargs={"k": "v"})
    model = cached(caches(), chat, answer=lambda _: message)
    plain = chat(cache=model.cache, answer=lambda _: message)
    await ask(kind, plain, QUESTION)
    chunks = await streamed(kind, model, SIMILAR)
    assert (whole(chunks).content, whole(chunks).additional_kwargs) == (text, {"k": "v"})
    assert plain.times == 1
    assert model.times == 0
    other = [SYSTEM, ("human", QUESTION)]
    await streamed(kind, model, other)
    assert (await ask(kind, plain, other)).content == text
    assert plain.times == 1


class Serializable(AsyncStreamingChat):
    """One that LangChain tells from others by its class."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True


async def test_the_copy_shares_its_answers_with_the_model(caches: Caches, kind: str) -> None:
    model = cached(caches(), Serializable)
    plain = Serializable(cache=model.cache)
    await streamed(kind, model, QUESTION)
    await ask(kind, plain, SIMILAR)
    assert (model.times, plain.times) == (1, 0)


class WithBlocks(AsyncStreamingChat):
    """One whose content is written as blocks."""

    @property
    def _llm_type(self) -> str:
        return "blocks"


@pytest.mark.parametrize("invoked_first", [True, False])
async def test_content_in_blocks(caches: Caches, kind: str, invoked_first: bool) -> None:
    model = cached(caches(), WithBlocks, output_version="v1")
    plain = WithBlocks(output_version="v1")
    expected = whole(await streamed(kind, plain, QUESTION)).content
    if invoked_first:
        await ask(kind, model, QUESTION)
    else:
        await streamed(kind, model, QUESTION)
    again = whole(await streamed(kind, model, SIMILAR))
    assert [block["text"] for block in again.content] == [f"answer 1 to: {QUESTION}"]
    assert [block["type"] for block in again.content] == [block["type"] for block in expected]
    hit = await ask(kind, model, SIMILAR)
    assert hit.content_blocks[0]["text"] == f"answer 1 to: {QUESTION}"
    assert model.times == 1


@pytest.mark.parametrize("chat", CHATS)
async def test_what_is_not_whole_is_not_kept(caches: Caches, kind: str, chat: type[Chat]) -> None:
    cache = caches()
    model = cached(cache, chat)
    assert len(await streamed(kind, model, QUESTION, most=2)) == 2
    model.breaks_at = 2
    with pytest.raises(ConnectionError):
        await streamed(kind, model, QUESTION)
    assert cache.stats().stored == 0
    model.breaks_at = None
    assert whole(await streamed(kind, model, QUESTION)).content == f"answer 3 to: {QUESTION}"
    await streamed(kind, model, SIMILAR)
    assert model.times == 3


@pytest.mark.parametrize("chat", CHATS)
async def test_a_document_that_changed_while_it_was_streamed(
    caches: Caches, kind: str, chat: type[Chat]
) -> None:
    cache = caches()
    model = LLMCache(cache, evidence=lambda *_: {"d": None}).for_streaming(chat())

    def answer(_: Any) -> AIMessage:
        cache.invalidate("d")
        return AIMessage("old answer")

    model.answer = answer
    await streamed(kind, model, QUESTION)
    assert cache.stats().not_stored == {"stale": 1}
    model.answer = lambda _: AIMessage("new answer")
    assert whole(await streamed(kind, model, QUESTION)).content == "new answer"
    assert whole(await streamed(kind, model, SIMILAR)).content == "new answer"
    assert model.times == 2


async def test_a_model_that_does_not_stream(caches: Caches, kind: str) -> None:
    model = cached(caches(), Chat)
    [first] = await streamed(kind, model, QUESTION)
    [again] = await streamed(kind, model, SIMILAR)
    assert (model.times, again.content) == (1, first.content)


async def test_tools_are_bound_to_the_copy(caches: Caches, kind: str) -> None:
    model = cached(caches())
    bound, other = model.bind_tools(["search"]), model.bind_tools(["write"])
    for each in (bound, bound, other, model, model):
        await streamed(kind, each, QUESTION)
    assert model.times == 3
    call = {"name": "search", "args": {"q": "x"}, "id": "c", "type": "tool_call"}
    calling = LLMCache(caches(), tool_calls=True).for_streaming(
        StreamingChat(answer=lambda _: AIMessage("", tool_calls=[call]))
    )
    await ask(kind, calling, "another question")
    assert whole(await streamed(kind, calling, "question another")).tool_calls == [call]
    assert calling.times == 1
    with pytest.raises(TypeError, match="chat model"):
        LLMCache(caches()).for_streaming(bound)


async def test_calls_past_the_cache(caches: Caches, kind: str) -> None:
    model = LLMCache(caches(), tenant=lambda: None).for_streaming(AsyncStreamingChat())
    for _ in range(2):
        assert "answer" in whole(await streamed(kind, model, QUESTION)).content
        await ask(kind, model, QUESTION)
    assert model.times == 4


class Tokens(BaseCallbackHandler, _StreamingCallbackHandler):
    """A handler for whose sake LangChain streams a model that is invoked."""

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        return output

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        return output


async def test_a_model_that_broke_is_not_taken_for_one_on_its_way(
    caches: Caches, kind: str
) -> None:
    """In one context: a miss that LangChain streams to answer is left to it only once."""
    cache = caches()
    model = cached(cache, breaks_at=1)
    config: Any = {"callbacks": [Tokens()]}
    if kind == "async":
        with pytest.raises(ConnectionError):
            await model.ainvoke(QUESTION, config)
    else:
        with pytest.raises(ConnectionError):
            model.invoke(QUESTION, config)
    model.breaks_at = None
    for _ in range(4):
        if kind == "async":
            assert [chunk async for chunk in model.astream(QUESTION)]
        else:
            assert list(model.stream(QUESTION))
    assert (model.times, cache.stats().stored) == (2, 1)


class State(TypedDict, total=False):
    asked: str
    said: str


async def tokens(kind: str, graph: Any, asked: str) -> list[str]:
    """What a graph streams of its models' messages."""
    if kind == "async":
        return [m.content async for m, _ in graph.astream({"asked": asked}, stream_mode="messages")]

    def collect() -> list[str]:
        return [m.content for m, _ in graph.stream({"asked": asked}, stream_mode="messages")]

    return await asyncio.to_thread(collect)


@pytest.mark.parametrize("chat", CHATS)
async def test_a_graph_that_streams_messages(caches: Caches, kind: str, chat: type[Chat]) -> None:
    """LangChain looks up by itself, and streams to answer a miss: counted and kept once."""
    cache = caches()
    model = cached(cache, chat)

    async def anode(state: State) -> State:
        return {"said": (await model.ainvoke(state["asked"])).content}

    def node(state: State) -> State:
        return {"said": model.invoke(state["asked"]).content}

    builder = StateGraph(State)
    builder.add_node("node", anode if kind == "async" else node)
    graph = builder.add_edge(START, "node").compile()
    first = await tokens(kind, graph, QUESTION)
    assert len(first) > 2
    assert "".join(await tokens(kind, graph, SIMILAR)) == "".join(first)
    counted = cache.stats()
    assert (model.times, counted.stored) == (1, 1)
    assert (counted.misses, counted.hits) == ({"absent": 1}, {"process": 1})
