"""The cache in an agent: which model calls it spares, and which it must not."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from langgraph_valkey.local import LocalValkey
from rag_cache import SemanticCache
from rag_cache.faces import CacheMiddleware
from tests.rag_ground import Bag, Caches
from tests.rag_models import USAGE, Chat, StreamingChat, ask

QUESTION, SIMILAR = "when does the shop open", "the shop when does open"


@dataclass
class Context:
    """Whose run it is."""

    user: str = ""


def agent_of(model: Any, *middleware: Any, **given: Any) -> Any:
    return create_agent(model, middleware=middleware, context_schema=Context, **given)


async def asked(kind: str, agent: Any, question: Any, **more: Any) -> list[BaseMessage]:
    """An agent's messages after a run."""
    messages = question if isinstance(question, list) else [HumanMessage(question)]
    if kind == "async":
        found = await agent.ainvoke({"messages": messages}, **more)
    else:
        found = await asyncio.to_thread(agent.invoke, {"messages": messages}, **more)
    said: list[BaseMessage] = found["messages"]
    return said


async def test_a_similar_question_asks_no_model(caches: Caches, kind: str) -> None:
    cache, model = caches(), Chat()
    agent = agent_of(model, CacheMiddleware(cache), system_prompt="Be brief.")
    first = (await asked(kind, agent, QUESTION))[-1]
    again = (await asked(kind, agent, SIMILAR))[-1]
    assert model.times == 1
    assert isinstance(again, AIMessage)
    assert (again.content, again.response_metadata) == (first.content, first.response_metadata)
    assert again.id not in (None, first.id)
    # As LangChain marks what it serves from a cache.
    assert again.usage_metadata == {**USAGE, "total_cost": 0}
    counted = cache.stats()
    assert (counted.tokens_in, counted.tokens_out, counted.stored) == (7, 3, 1)
    assert (counted.hits, counted.misses) == ({"process": 1}, {"absent": 1})


async def test_all_but_the_question_is_compared_exactly(caches: Caches, kind: str) -> None:
    cache = caches()

    @tool
    def search(query: str) -> str:
        """Search."""
        return query

    @tool("search")
    def other_search(query: str) -> str:
        """Search elsewhere."""
        return query

    @tool
    def write(text: str) -> str:
        """Write."""
        return text

    history = [HumanMessage("hi"), AIMessage("hello")]
    ones: list[tuple[dict[str, Any], list[Any], dict[str, Any]]] = [
        ({}, [], {}),
        ({}, history, {}),
        ({}, [history[0], AIMessage("go away")], {}),
        ({"system_prompt": "Be brief."}, [], {}),
        ({"system_prompt": "Be rude."}, [], {}),
        ({"tools": [search]}, [], {}),
        ({"tools": [other_search]}, [], {}),
        ({"tools": [search, write]}, [], {}),
        ({"temperature": 1}, [], {}),
        ({}, [], {"tenant": "acme"}),
        ({}, [], {"corpus": "handbook"}),
        ({}, [], {"label": "other"}),
    ]
    for given, before, face in ones:
        model = Chat(temperature=given.pop("temperature", 0))
        agent = agent_of(model, CacheMiddleware(cache, **face), **given)
        for question in (QUESTION, SIMILAR):
            await asked(kind, agent, [*before, HumanMessage(question)])
            assert model.times == 1, (given, before, face)


async def test_a_tenant_is_told_by_the_runs_context(caches: Caches, kind: str) -> None:
    cache, model = caches(), Chat()
    agent = agent_of(
        model, CacheMiddleware(cache, tenant=lambda request: request.runtime.context.user)
    )
    seen: dict[str, set[Any]] = {}
    for user in ("ann", "bob", "ann", "bob"):
        for question in (QUESTION, SIMILAR):
            said = await asked(kind, agent, question, context=Context(user))
            seen.setdefault(user, set()).add(said[-1].content)
    assert (model.times, len(seen["ann"]), len(seen["bob"])) == (2, 1, 1)
    assert not seen["ann"] & seen["bob"]
    nobody = agent_of(model, CacheMiddleware(cache, tenant=lambda request: None))
    for _ in range(2):
        await asked(kind, nobody, QUESTION)
    assert model.times == 4
    number: Any = lambda request: 5  # noqa: E731
    wrong = agent_of(model, CacheMiddleware(cache, tenant=number))
    with pytest.raises(TypeError, match="tenant"):
        await asked(kind, wrong, QUESTION)


async def test_evidence_and_tags(caches: Caches, kind: str) -> None:
    cache, model = caches(), Chat()
    seen: list[Any] = []

    def evidence(request: ModelRequest, response: ModelResponse) -> Any:
        seen.append((request.messages[-1].content, response.result[0].content))
        return {"hours": "1"}

    middleware = CacheMiddleware(cache, evidence=evidence, tags=["shop"], tenant="acme")
    agent = agent_of(model, middleware)

    async def calls() -> int:
        before = model.times
        await asked(kind, agent, QUESTION)
        return model.times - before

    assert [await calls(), await calls()] == [1, 0]
    assert seen == [(QUESTION, f"answer 1 to: {QUESTION}")]
    cache.invalidate("hours", version="1")
    assert await calls() == 0
    cache.invalidate("hours", version="2")
    assert [await calls(), await calls()] == [1, 1]  # Its evidence is of an old version.
    middleware = CacheMiddleware(cache, tags=["shop"], tenant="acme", label="tags")
    agent = agent_of(model, middleware)
    assert [await calls(), await calls()] == [1, 0]
    cache.invalidate(tag="shop")
    assert [await calls(), await calls()] == [1, 0]
    CacheMiddleware(cache, tenant="other", label="tags").clear()
    assert await calls() == 0
    if kind == "async":
        await middleware.aclear()
    else:
        middleware.clear()
    assert [await calls(), await calls()] == [1, 0]


CALL = {"name": "f", "args": {}, "id": "c", "type": "tool_call"}


def _raises(*_: Any) -> Any:
    raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"evidence": _raises}, AIMessage("x")),
        ({"evidence": lambda *_: None}, AIMessage("x")),
        ({"evidence": lambda *_: {"d": 5}}, AIMessage("x")),
        ({"keeps": _raises}, AIMessage("x")),
        ({"keeps": lambda request, response: False}, AIMessage("x")),
        ({}, AIMessage("")),
        ({}, AIMessage("x", additional_kwargs={"raw": object()})),
        ({}, AIMessage("x" * (9 * 1024 * 1024))),
    ],
    ids=range(8),
)
async def test_what_may_not_be_kept_costs_nobody_an_answer(
    caches: Caches, kind: str, given: Any, answer: AIMessage
) -> None:
    cache = caches()
    model = Chat(answer=lambda _: answer.model_copy())
    agent = agent_of(model, CacheMiddleware(cache, **given))
    for _ in range(2):
        assert (await asked(kind, agent, QUESTION))[-1].content == answer.content
    assert (model.times, cache.stats().stored) == (2, 0)


class Hours(BaseModel):
    """When it opens."""

    hour: int


async def test_agents_with_structured_responses_go_past_the_cache(
    caches: Caches, kind: str
) -> None:
    cache = caches()
    model = Chat(answer=lambda _: AIMessage('{"hour": 9}'))
    agent = agent_of(model, CacheMiddleware(cache), response_format=ProviderStrategy(Hours))
    for _ in range(2):
        found = await ask(kind, agent, {"messages": [HumanMessage(QUESTION)]})
        assert found["structured_response"] == Hours(hour=9)
    assert (model.times, cache.stats().lookups) == (2, 0)


async def test_models_chosen_by_a_runs_configuration_go_past_the_cache(
    caches: Caches, kind: str
) -> None:
    """What is behind them can't be told here."""
    middleware, times = CacheMiddleware(caches()), 0
    some: Any = RunnableLambda(lambda messages: AIMessage("x"))
    request: Any = ModelRequest(model=some, messages=[HumanMessage(QUESTION)])

    def handler(request: Any) -> Any:
        nonlocal times
        times += 1
        return ModelResponse(result=[some.invoke(request.messages)])

    async def ahandler(request: Any) -> Any:
        return handler(request)

    for _ in range(2):
        if kind == "async":
            await middleware.awrap_model_call(request, ahandler)
        else:
            middleware.wrap_model_call(request, handler)
    assert times == 2


async def test_which_tool_must_be_called_is_compared_exactly(caches: Caches, kind: str) -> None:
    cache = caches()
    middleware, model = CacheMiddleware(cache), Chat()

    def handler(request: Any) -> Any:
        return ModelResponse(result=[model.invoke(request.messages)])

    async def ahandler(request: Any) -> Any:
        return handler(request)

    async def asks(choice: Any, question: str = QUESTION) -> int:
        messages: Any = [HumanMessage(question)]
        request: Any = ModelRequest(model=model, messages=messages, tool_choice=choice)
        before = model.times
        if kind == "async":
            await middleware.awrap_model_call(request, ahandler)
        else:
            middleware.wrap_model_call(request, handler)
        return model.times - before

    assert [await asks(None), await asks("any"), await asks("any")] == [1, 1, 0]
    # Nor is anything served that is no answer of a model.
    once = middleware._once(ModelRequest(model=model, messages=[HumanMessage("else")]))
    assert once is not None
    assert cache.store("else", once._scope, "no message")
    assert await asks(None, "else") == 1


@pytest.mark.parametrize("failure", [RuntimeError, TypeError, ValueError])
async def test_what_a_model_raises_is_raised(
    caches: Caches, kind: str, failure: type[Exception]
) -> None:
    def fail(_: Any) -> AIMessage:
        raise failure("the model is away")

    agent = agent_of(Chat(answer=fail), CacheMiddleware(caches()))
    for _ in range(2):
        with pytest.raises(failure, match="the model is away"):
            await asked(kind, agent, QUESTION)


class Rude(AgentMiddleware[Any, Any, Any]):
    """Changes what the model is asked."""

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self.prompt = prompt

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(system_prompt=self.prompt))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(system_prompt=self.prompt))


async def test_standing_last_it_sees_what_the_model_is_asked(caches: Caches, kind: str) -> None:
    cache, model = caches(), Chat()
    for prompt in ("Be rude.", "Be polite.", "Be rude."):
        await asked(kind, agent_of(model, Rude(prompt), CacheMiddleware(cache)), QUESTION)
    assert model.times == 2


async def test_of_many_at_once_one_asks_the_model(caches: Caches, kind: str) -> None:
    gate = threading.Event()

    class Slow(Chat):
        def _generate(self, messages: Any, *args: Any, **more: Any) -> Any:
            result = super()._generate(messages)
            gate.wait(10)
            return result

        async def _agenerate(self, messages: Any, *args: Any, **more: Any) -> Any:
            return await asyncio.to_thread(self._generate, messages)

    model = Slow()
    agent = agent_of(model, CacheMiddleware(caches(lookup_deadline_ms=5000)))
    runs = [asyncio.create_task(asked(kind, agent, QUESTION)) for _ in range(20)]
    while model.times == 0:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    gate.set()
    said = [messages[-1].content for messages in await asyncio.gather(*runs)]
    assert said == [f"answer 1 to: {QUESTION}"] * 20
    assert model.times == 1


async def test_an_answer_given_twice_in_a_thread_stays_twice(caches: Caches, kind: str) -> None:
    """With the conversation outside of the scope: here, cut off by a middleware."""

    class Forgetful(Rude):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(messages=request.messages[-1:]))

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(messages=request.messages[-1:]))

    model = Chat()
    agent = agent_of(
        *(model, Forgetful(""), CacheMiddleware(caches())), checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "t"}}
    for times in (1, 2, 3):
        said = await asked(kind, agent, QUESTION, config=config)
        assert len(said) == 2 * times
    assert model.times == 1


async def test_a_hit_is_streamed_as_a_message(caches: Caches, kind: str) -> None:
    model = StreamingChat()
    agent = agent_of(model, CacheMiddleware(caches()))

    async def tokens() -> list[Any]:
        given = {"messages": [HumanMessage(QUESTION)]}
        if kind == "async":
            return [m.content async for m, _ in agent.astream(given, stream_mode="messages")]
        return await asyncio.to_thread(
            lambda: [m.content for m, _ in agent.stream(given, stream_mode="messages")]
        )

    first, again = await tokens(), await tokens()
    assert (len(first) > 2, again) == (True, ["".join(first)])
    assert model.times == 1


async def test_a_server_that_is_away_costs_no_answer(kind: str, tmp_path: Any) -> None:
    with LocalValkey() as server:
        url = server.url
    with SemanticCache(url, embedder=Bag(), primary=f"sqlite:///{tmp_path}/p.db") as cache:
        model = Chat()
        agent = agent_of(model, CacheMiddleware(cache))
        for times in (1, 2, 3):
            assert (await asked(kind, agent, QUESTION))[-1].content
            assert model.times == times
