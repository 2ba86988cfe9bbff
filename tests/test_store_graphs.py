"""The store in LangGraph: in nodes, in agents, and in the hands of tools, on both faces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.config import get_store
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode, ToolRuntime
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from langgraph_valkey import ValkeySaver
from langgraph_valkey.local import LocalValkey
from tests.store_ground import Opener, StoreFace
from tests.store_oracle import DIMENSION, Counting

ADA = ("memories", "ada")
CONFIG: RunnableConfig = {"configurable": {"user": "ada", "thread_id": "t"}}


async def run(face: StoreFace, graph: Any, given: Any, config: RunnableConfig = CONFIG) -> Any:
    """Run a graph, or anything else that is invoked, on the face."""
    if face.kind == "async":
        return await graph.ainvoke(given, config)
    return await asyncio.to_thread(graph.invoke, given, config)


def both(blocking: Any, looping: Any, face: StoreFace) -> Any:
    """What goes with the face."""
    return looping if face.kind == "async" else blocking


# --- nodes -----------------------------------------------------------------------------


class State(TypedDict, total=False):
    item: str
    found: list[str]


def remembering(face: StoreFace) -> StateGraph[State]:
    """A graph that remembers an item in one node, and reads all in the next."""

    def remember(state: State, config: RunnableConfig, *, store: BaseStore) -> State:
        user = config["configurable"]["user"]
        store.put(("memories", user), state["item"], {"item": state["item"]})
        return {}

    async def aremember(state: State, config: RunnableConfig, *, store: BaseStore) -> State:
        user = config["configurable"]["user"]
        await store.aput(("memories", user), state["item"], {"item": state["item"]})
        return {}

    def look(_: State, runtime: Runtime[None]) -> State:
        assert runtime.store is not None
        return {"found": sorted(hit.key for hit in runtime.store.search(("memories",), limit=99))}

    async def alook(_: State, runtime: Runtime[None]) -> State:
        assert runtime.store is not None
        hits = await runtime.store.asearch(("memories",), limit=99)
        return {"found": sorted(hit.key for hit in hits)}

    builder = StateGraph(State)
    builder.add_node("remember", both(remember, aremember, face))
    builder.add_node("look", both(look, alook, face))
    builder.add_edge(START, "remember")
    builder.add_edge("remember", "look")
    return builder


async def test_nodes_are_given_the_store(store: StoreFace) -> None:
    """Of all threads the same one; also a graph's within a graph."""
    graph = remembering(store).compile(store=store.store)
    assert (await run(store, graph, {"item": "figs"}))["found"] == ["figs"]
    outer = StateGraph(State).add_node("inner", remembering(store).compile())
    outer.add_edge(START, "inner")
    found = await run(store, outer.compile(store=store.store), {"item": "plums"})
    assert found["found"] == ["figs", "plums"]


async def test_beside_a_saver_on_the_same_server(
    near: Opener, valkey: LocalValkey, prefix: str
) -> None:
    """With one prefix of keys for both."""
    face = near()
    with ValkeySaver.from_url(valkey.url, key_prefix=prefix, durability="none") as saver:
        graph = remembering(face).compile(checkpointer=saver, store=face.store)
        await run(face, graph, {"item": "figs"})
        await face.delete(ADA, "figs")
        saver.delete_thread("t")
        assert (await run(face, graph, {"item": "plums"}))["found"] == ["plums"]
        assert len(list(saver.list(CONFIG))) == 4


async def test_many_runs_at_once(store: StoreFace) -> None:
    graph = remembering(store).compile(store=store.store)
    runs = [run(store, graph, {"item": f"item {number}"}) for number in range(20)]
    for number, state in enumerate(await asyncio.gather(*runs)):
        assert f"item {number}" in state["found"]
    assert len(await store.keys(ADA, limit=99)) == 20


async def test_a_workflow_is_given_the_store(store: StoreFace) -> None:
    """By a parameter, or by `get_store`."""

    @entrypoint(store=store.store)
    def workflow(item: str, *, store: BaseStore) -> Any:
        store.put(ADA, "k", {"item": item})
        return get_store().get(ADA, "k")

    @entrypoint(store=store.store)
    async def aworkflow(item: str, *, store: BaseStore) -> Any:
        await store.aput(ADA, "k", {"item": item})
        return await get_store().aget(ADA, "k")

    found = await run(store, both(workflow, aworkflow, store), "figs")
    assert found.value == {"item": "figs"}


# --- tools -----------------------------------------------------------------------------


class Model(GenericFakeChatModel):
    """Says what it was told to say."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def calling(name: str, **args: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": "call"}])


def memory_tools(face: StoreFace) -> list[BaseTool]:
    """Tools for memories, as agents have them; each gets at the store in another way."""

    @tool
    def remember(what: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
        """Remember something."""
        store.put(ADA, what.split()[0], {"text": what})
        return "remembered"

    @tool
    def recall(query: str, runtime: ToolRuntime) -> str:
        """Recall what is most like it."""
        assert runtime.store is not None
        [hit] = runtime.store.search(ADA, query=query, limit=1)
        return str(hit.value["text"])

    @tool
    def forget(key: str) -> str:
        """Forget something."""
        get_store().delete(ADA, key)
        return "forgotten"

    @tool("remember")
    async def aremember(what: str, store: Annotated[BaseStore, InjectedStore()]) -> str:
        """Remember something."""
        await store.aput(ADA, what.split()[0], {"text": what})
        return "remembered"

    @tool("recall")
    async def arecall(query: str, runtime: ToolRuntime) -> str:
        """Recall what is most like it."""
        assert runtime.store is not None
        [hit] = await runtime.store.asearch(ADA, query=query, limit=1)
        return str(hit.value["text"])

    @tool("forget")
    async def aforget(key: str) -> str:
        """Forget something."""
        await get_store().adelete(ADA, key)
        return "forgotten"

    return list(both([remember, recall, forget], [aremember, arecall, aforget], face))


def agent(face: StoreFace, asked: AIMessage) -> Any:
    model = Model(messages=iter([asked, AIMessage("done")]))
    return create_agent(model, memory_tools(face), store=face.store)


def tool_node(face: StoreFace, asked: AIMessage) -> Any:
    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [asked]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_node("tools", ToolNode(memory_tools(face)))
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "tools")
    return builder.compile(store=face.store)


@pytest.mark.parametrize("made", [agent, tool_node])
async def test_tools_are_given_the_store(near: Opener, made: Callable[..., Any]) -> None:
    face = near(index={"dims": DIMENSION, "embed": Counting(), "fields": ["text"]})

    async def told(asked: AIMessage) -> str:
        found = await run(face, made(face, asked), {"messages": [("user", "hello")]})
        [answer] = [each for each in found["messages"] if isinstance(each, ToolMessage)]
        assert isinstance(answer.content, str)
        return answer.content

    assert await told(calling("remember", what="first red red red")) == "remembered"
    assert await told(calling("remember", what="second blue blue")) == "remembered"
    assert await told(calling("recall", query="blue")) == "second blue blue"
    assert await told(calling("forget", key="second")) == "forgotten"
    assert await told(calling("recall", query="blue")) == "first red red red"
    assert await face.keys(ADA) == ["first"]
