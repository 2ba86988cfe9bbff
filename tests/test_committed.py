"""The decorator: what is called, what a model is shown, and what becomes key and payload."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode, ToolRuntime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel

from langgraph_valkey.commits.committed import Committed
from langgraph_valkey.primary.records import Outgoing, Receipt


@dataclass
class Books:
    """Stands for `StateTiers`: makes each commit, and notes what it was asked for."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)

    def commit(self, op: str, *, key: str, fn: Callable[..., Any], **about: Any) -> Receipt:
        self.asked.append({"op": op, "key": key, **about})
        replayed = key in self.results
        if not replayed:
            self.results[key] = fn("transaction")
        return Receipt(op, key, self.results[key], replayed, datetime.now(UTC), "")

    async def acommit(self, op: str, *, key: str, fn: Callable[..., Any], **about: Any) -> Receipt:
        assert inspect.iscoroutinefunction(fn)
        found: list[Any] = []
        if key not in self.results:
            found.append(await fn("transaction"))
        return self.commit(op, key=key, fn=lambda _: found[0], **about)

    def committed(self, key: Any = "order_id", **options: Any) -> Committed:
        options = {"scope": "turn", "on_mismatch": "raise", "outbox": (), "payload": None} | options
        return Committed(self.commit, self.acommit, op="charge", key=key, **options)


@pytest.fixture
def books() -> Books:
    return Books()


def test_a_call_is_one_commit(books: Books) -> None:
    @books.committed()
    def charge(connection: Any, order_id: str, cents: int = 5) -> str:
        assert connection == "transaction"
        return f"{order_id} for {cents}"

    assert charge("7") == "7 for 5"
    assert charge(order_id="7", cents=6) == "7 for 5"  # What the first one returned.
    assert [(each["op"], each["key"], each["payload"]) for each in books.asked] == [
        ("charge", "7", {"order_id": "7", "cents": 5}),
        ("charge", "7", {"order_id": "7", "cents": 6}),
    ]
    assert books.asked[0]["scope"] == "turn"
    assert books.asked[0]["on_mismatch"] == "raise"


async def test_an_async_function_is_awaited(books: Books) -> None:
    @books.committed()
    async def charge(connection: Any, order_id: str) -> str:
        await asyncio.sleep(0)
        return f"{connection} {order_id}"

    assert inspect.iscoroutinefunction(charge)
    assert await charge("7") == "transaction 7"
    assert await charge("7") == "transaction 7"


def test_options_are_passed_on(books: Books) -> None:
    sent = [Outgoing("invoice", 1)]

    @books.committed(scope="global", on_mismatch="return_first", outbox=sent)
    def one(connection: Any, order_id: str) -> None: ...

    @books.committed(outbox=lambda arguments: [Outgoing("invoice", arguments["order_id"])])
    def other(connection: Any, order_id: str) -> None: ...

    one("1")
    other("2")
    assert books.asked[0] | {"scope": "global", "on_mismatch": "return_first"} == books.asked[0]
    assert [each["outbox"] for each in books.asked] == [sent, [Outgoing("invoice", "2")]]


def test_a_key_may_be_made_of_the_arguments(books: Books) -> None:
    @books.committed(key=lambda arguments: f"{arguments['order_id']}/{arguments['item']}")
    def charge(connection: Any, order_id: str, item: int = 3) -> None: ...

    charge("7")
    assert books.asked[0]["key"] == "7/3"


@pytest.mark.parametrize(
    ("given", "key"),
    [(7, "7"), (UUID(int=7), "00000000-0000-0000-0000-000000000007"), (None, None), (True, True)],
)
def test_numbers_and_uuids_are_keys_by_their_text(books: Books, given: Any, key: Any) -> None:
    @books.committed()
    def charge(connection: Any, order_id: Any) -> None: ...

    charge(given)
    assert books.asked[0]["key"] == key  # What is none is refused by the commit.


def test_a_key_that_no_parameter_has_is_found_at_once(books: Books) -> None:
    with pytest.raises(TypeError, match=r"'order'.*it has order_id, cents"):

        @books.committed(key="order")
        def charge(connection: Any, order_id: str, cents: int) -> None: ...

    with pytest.raises(TypeError, match="'connection'"):

        @books.committed(key="connection")
        def refund(connection: Any, order_id: str) -> None: ...


def test_a_function_without_a_transaction_is_refused(books: Books) -> None:
    with pytest.raises(TypeError, match="first parameter"):

        @books.committed()  # type: ignore[arg-type]
        def charge() -> None: ...

    with pytest.raises(TypeError, match="first parameter"):

        @books.committed()  # type: ignore[arg-type]
        def refund(*, order_id: str) -> None: ...


class Item(BaseModel):
    name: str
    price: Decimal


class Size(Enum):
    LARGE = "L"


def test_models_dates_and_the_like_are_data(books: Books) -> None:
    @books.committed()
    def charge(connection: Any, order_id: str, items: list[Item], size: Size, on: date) -> str:
        return type(items[0]).__name__  # The function gets them as they were given.

    assert (
        charge("7", [Item(name="a", price=Decimal("1.50"))], Size.LARGE, date(2026, 1, 2)) == "Item"
    )
    assert books.asked[0]["payload"] == {
        "order_id": "7",
        "items": [{"name": "a", "price": "1.50"}],
        "size": "L",
        "on": "2026-01-02",
    }


def test_messages_stay_what_json_refuses(books: Books) -> None:
    @books.committed(key=lambda _: "7")
    def charge(connection: Any, messages: list[Any]) -> None: ...

    message = HumanMessage("hello")
    charge([message])
    assert books.asked[0]["payload"] == {"messages": [message]}


# --- LangChain and LangGraph ---------------------------------------------------------------


def make_tool(books: Books) -> Any:
    @tool
    @books.committed()
    def charge(
        connection: Any,
        order_id: str,
        cents: int,
        state: Annotated[dict, InjectedState],
        store: Annotated[BaseStore, InjectedStore()],
        call_id: Annotated[str, InjectedToolCallId],
        config: RunnableConfig,
        runtime: ToolRuntime,
        note: str | None = None,
    ) -> str:
        """Charge the customer's card."""
        assert connection == "transaction"
        assert isinstance(store, BaseStore)
        assert runtime.tool_call_id == call_id
        return f"{order_id} {cents} {len(state['messages'])} {config['configurable']['thread_id']}"

    return charge


PAYLOAD = {"order_id": "7", "cents": 5, "note": None}
CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}
ASKS = AIMessage(
    "", tool_calls=[{"name": "charge", "args": {"order_id": "7", "cents": 5}, "id": "made-up"}]
)


def test_a_model_is_shown_the_other_parameters_alone(books: Books) -> None:
    charge = make_tool(books)
    assert (charge.name, charge.description) == ("charge", "Charge the customer's card.")
    shown = charge.tool_call_schema.model_json_schema()
    assert set(shown["properties"]) == {"order_id", "cents", "note"}
    assert shown["properties"]["cents"]["type"] == "integer"
    assert shown["required"] == ["order_id", "cents"]


def agent_of(books: Books) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode([make_tool(books)]))
    builder.add_edge(START, "tools")
    return builder.compile(store=InMemoryStore())


def test_a_tool_node_puts_in_what_it_is_to_put_in(books: Books) -> None:
    found = agent_of(books).invoke({"messages": [ASKS]}, CONFIG)
    assert found["messages"][-1].content == "7 5 1 t"
    assert books.asked[0]["payload"] == PAYLOAD
    assert books.asked[0]["config"]["configurable"]["thread_id"] == "t"


async def test_a_tool_node_does_so_on_the_async_face(books: Books) -> None:
    found = await agent_of(books).ainvoke({"messages": [ASKS]}, CONFIG)
    assert found["messages"][-1].content == "7 5 1 t"
    assert books.asked[0]["payload"] == PAYLOAD


async def test_an_agent_calls_async_tools(books: Books) -> None:
    from langchain.agents import create_agent

    @tool
    @books.committed()
    async def charge(connection: Any, order_id: str, cents: int, runtime: ToolRuntime) -> str:
        """Charge the customer's card."""
        return f"{connection} {order_id} {runtime.config['configurable']['thread_id']}"

    class Model(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **_: Any) -> Any:
            assert [each.name for each in tools] == ["charge"]
            return self

    agent = create_agent(Model(messages=iter([ASKS, AIMessage("done")])), [charge])
    found = await agent.ainvoke({"messages": [HumanMessage("charge it")]}, CONFIG)
    [answer] = [each for each in found["messages"] if isinstance(each, ToolMessage)]
    assert answer.content == "transaction 7 t"
    assert books.asked[0]["payload"] == {"order_id": "7", "cents": 5}


class State(TypedDict, total=False):
    order_id: str
    paid: str


def test_a_node_may_be_a_commit(books: Books) -> None:
    @books.committed(
        key=lambda arguments: arguments["state"]["order_id"],
        payload=lambda arguments: {"order": arguments["state"]["order_id"]},
    )
    def pay(connection: Any, state: State, config: RunnableConfig) -> dict[str, Any]:
        return {"paid": f"{connection} in {config['configurable']['thread_id']}"}

    builder = StateGraph(State)
    builder.add_node("pay", pay)
    builder.add_edge(START, "pay")
    found = builder.compile().invoke({"order_id": "7"}, CONFIG)
    assert found == {"order_id": "7", "paid": "transaction in t"}
    assert books.asked[0]["key"] == "7"
    assert books.asked[0]["payload"] == {"order": "7"}


def test_an_annotation_that_names_what_is_not_there_is_left_alone(books: Books) -> None:
    class Local(BaseModel):
        name: str

    @books.committed()
    def charge(connection: Any, order_id: str, local: Local) -> None: ...

    assert charge.__annotations__ == {"order_id": str, "local": "Local", "return": type(None)}
    charge("7", Local(name="a"))
    assert books.asked[0]["payload"] == {"order_id": "7", "local": {"name": "a"}}
