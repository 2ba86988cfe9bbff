"""The cache in an agent with tools: answers hold for what tools found, while that is current."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import tool

from rag_cache.faces import CacheMiddleware
from tests.rag_ground import Caches
from tests.rag_models import Chat
from tests.test_rag_middleware import QUESTION, SIMILAR, agent_of, asked


def searching(found: Callable[[], list[Document]]) -> tuple[Any, Chat]:
    """A tool that finds documents, and a model that calls it, then answers."""

    @tool(response_format="content_and_artifact")
    def search(query: str) -> tuple[str, list[Document]]:
        """Search."""
        documents = found()
        return "\n".join(each.page_content for each in documents), documents

    def answer(messages: Sequence[BaseMessage]) -> BaseMessage:
        if isinstance(messages[-1], ToolMessage):
            return AIMessage(f"It says: {messages[-1].content}")
        call = {"name": "search", "args": {"query": "hours"}, "id": f"call-{model.times}"}
        return AIMessage("", tool_calls=[call])

    model = Chat(answer=answer)
    return search, model


async def test_calls_of_tools_are_not_kept_and_answers_hold_for_what_they_found(
    caches: Caches, kind: str
) -> None:
    cache = caches()
    version = ["1"]

    def found() -> list[Document]:
        # What the document says is the same in each version: only the evidence can tell.
        return [Document("at nine", metadata={"source": "hours", "version": version[0]})]

    search, model = searching(found)
    agent = agent_of(model, CacheMiddleware(cache), tools=[search])

    async def calls(question: str) -> int:
        before = model.times
        assert (await asked(kind, agent, question))[-1].content.endswith("at nine")  # type: ignore[union-attr]
        return model.times - before

    assert await calls(QUESTION) == 2
    assert cache.stats().stored == 1
    # The model is asked which tool to call; its answer to the same finding is there.
    assert await calls(SIMILAR) == 1
    cache.invalidate("hours", version="2")
    version[0] = "2"
    assert await calls(SIMILAR) == 2
    assert await calls(QUESTION) == 1


async def test_other_findings_make_another_answer(caches: Caches, kind: str) -> None:
    says = ["at nine"]
    search, model = searching(lambda: [Document(says[0])])
    agent = agent_of(model, CacheMiddleware(caches()), tools=[search])
    await asked(kind, agent, QUESTION)
    says[0] = "at ten"
    said = await asked(kind, agent, QUESTION)
    assert said[-1].content == "It says: at ten"
    assert model.times == 4


async def test_tools_of_the_provider(caches: Caches, kind: str) -> None:
    """They are dicts that LangChain hands on as they are."""
    cache = caches()
    tools = [{"type": "web_search_1", "name": "search"}, {"type": "web_search_2", "name": "search"}]
    for each in tools:
        model = Chat()
        for question in (QUESTION, SIMILAR):
            await asked(kind, agent_of(model, CacheMiddleware(cache), tools=[each]), question)
        assert model.times == 1
    unknown = [{"type": "web_search_1", "client": object()}]
    model = Chat()
    for _ in range(2):
        await asked(kind, agent_of(model, CacheMiddleware(cache), tools=unknown), QUESTION)
    assert model.times == 2
