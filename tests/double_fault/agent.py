"""The agents: graphs whose model never does the same twice.

    think --> (muse: think) | (ask: interrupt) | tools | one, one, .. | desk --> think .. --> answer

`think` is the model, and adds one message. What it asks for is done by one of three
ways, drawn at each execution: a ToolNode, a task for each call, or a subgraph. Some
turns want the client's word after the first intent: one turn, and two runs of it.

Two channels tell whether a thread is whole: `opened` is written once in a thread's life,
and `thoughts` counts the model's messages apart from them.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import StructuredTool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send, interrupt
from typing_extensions import TypedDict

from langgraph_valkey.commits.turns import turn_of
from langgraph_valkey.primary.records import Fence, Receipt
from tests.double_fault.bank import Intent, atransfer, transfer
from tests.double_fault.offer import Tiers
from tests.double_fault.trace import Trace

Kind: TypeAlias = Literal["careful", "asking", "told"]
KINDS: tuple[Kind, ...] = ("careful", "asking", "told")
"""A careful agent chooses the same key for the same intent. The others make up another one
each time; one asks what its turn has committed, the other only reads what it is told."""

CLIENT, WORD = "client", "word"
"""Names of the messages that clients write: what they want, and that they agree."""

MAY_I = "May I go on?"

OP = "transfer"
NOTE = "receipts-"
"""Where a message's id begins that tells a re-run what was done."""

PAUSE_S = 0.03
"""The longest pause in a node, so that there is something to be killed in."""

MUSES, MUSED_MOST = 0.25, 2
ASKS_AGAIN = 0.1
ASKS_TWICE = 0.1
"""How likely the model thinks once more, asks for what was done, or for the same twice."""


class State(TypedDict):
    """What a conversation keeps."""

    messages: Annotated[list[AnyMessage], add_messages]
    opened: str
    thoughts: Annotated[int, operator.add]


def question(turn: str, intents: Sequence[Intent], *, asks: bool = False) -> HumanMessage:
    """What a client says; `asks` if it wants to be asked after the first intent."""
    said = {"turn": turn, "intents": [each.data for each in intents], "asks": asks}
    return HumanMessage(json.dumps(said), name=CLIENT)


def answer_to(turn: str) -> str:
    """What the agent says in the end."""
    return f"All is done for {turn}."


class Model:
    """A scripted model: what to do is fixed, how to do it is drawn anew each time.

    Args:
        kind: Which keys it chooses.
        heeds: Whether it heeds receipts.
        is_sure: A careful one never asks for the same again in one execution.
    """

    def __init__(self, kind: Kind, *, heeds: bool = True, is_sure: bool = False) -> None:
        self._kind = kind
        self._heeds = heeds
        self._repeats = kind == "careful" and not is_sure
        self._chance = random.Random(os.urandom(16))

    def reply(self, messages: Sequence[AnyMessage], receipts: Iterable[Receipt]) -> AIMessage:
        """The next message."""
        at = max(n for n, each in enumerate(messages) if each.name == CLIENT)
        asked = json.loads(messages[at].text)
        since = messages[at + 1 :]
        done = {json.loads(each.text)["intent"] for each in since if isinstance(each, ToolMessage)}
        done |= {receipt.result["name"] for receipt in receipts}
        if self._kind == "told" and self._heeds:
            done |= set(_noted(messages))
        mused = sum(isinstance(each, AIMessage) and not each.tool_calls for each in since)
        if mused < MUSED_MOST and self._chance.random() < MUSES:
            return AIMessage("Let me see.")
        intents = [Intent(**each) for each in asked["intents"]]
        if asked["asks"] and not any(each.name == WORD for each in since):
            if intents[0].name in done:
                return AIMessage(MAY_I)
            intents = intents[:1]
        wanted = [each for each in intents if each.name not in done]
        if self._repeats and done and self._chance.random() < ASKS_AGAIN:
            wanted.append(next(each for each in intents if each.name in done))
        if not wanted:
            return AIMessage(answer_to(asked["turn"]))
        return AIMessage("I shall see to that.", tool_calls=self._calls(wanted))

    def _calls(self, wanted: list[Intent]) -> list[ToolCall]:
        self._chance.shuffle(wanted)
        chosen = wanted[: self._chance.randint(1, len(wanted))]
        if self._repeats and self._chance.random() < ASKS_TWICE:
            chosen.append(chosen[0])
        return [self._call(each) for each in chosen]

    def _call(self, intent: Intent) -> ToolCall:
        key = intent.name if self._kind == "careful" else f"{self._chance.getrandbits(64):016x}"
        call_id = f"call_{self._chance.getrandbits(48):012x}"
        return ToolCall(name=OP, args={**intent.data, "key": key}, id=call_id)

    def way(self, state: State) -> str | list[Send]:
        """Where to go from the message it gave."""
        last = state["messages"][-1]
        calls = last.tool_calls if isinstance(last, AIMessage) else []
        if not calls:
            if last.text == MAY_I:
                return "ask"
            return END if last.text.startswith("All is done") else "think"
        ways = ["tools", "desk", [Send("one", call) for call in calls]]
        return self._chance.choice(ways)  # type: ignore[return-value]

    def pause_s(self) -> float:
        """How long to dawdle."""
        return self._chance.uniform(0, PAUSE_S)


class Agent:
    """An agent of a crew, with its nodes on both faces.

    Args:
        kind: Which keys its model chooses.
        tiers: What its graph stores to, and its tools commit to.
        trace: Where its steps are noted.
        heeds, is_sure: See `Model`.
    """

    def __init__(
        self,
        kind: Kind,
        tiers: Tiers,
        trace: Trace,
        *,
        heeds: bool = True,
        is_sure: bool = False,
    ) -> None:
        self._model = Model(kind, heeds=heeds, is_sure=is_sure)
        self._asks = kind == "asking" and heeds
        self._tiers = tiers
        self._trace = trace
        self._tool = StructuredTool.from_function(
            self._transfer, self._atransfer, name=OP, description="Move money."
        )

    def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Its graph."""
        desk = StateGraph(MessagesState)
        desk.add_node("serve", RunnableLambda(self._serve, self._aserve))
        desk.add_edge(START, "serve")
        desk.add_conditional_edges("serve", lambda state: "serve" if _unserved(state) else END)
        whole = StateGraph(State)
        whole.add_node("think", RunnableLambda(self._think, self._athink))
        whole.add_node("tools", ToolNode([self._tool]))
        whole.add_node("one", RunnableLambda(self._one, self._aone))
        whole.add_node("desk", desk.compile())
        whole.add_edge(START, "think")
        whole.add_node("ask", _ask)
        ways = ["ask", "tools", "one", "desk"]
        whole.add_conditional_edges("think", self._model.way, ["think", *ways, END])
        for each in ways:
            whole.add_edge(each, "think")
        return whole.compile(checkpointer=self._tiers.saver)

    # --- the model's node ---------------------------------------------------------

    def _think(self, state: State, config: RunnableConfig) -> dict[str, Any]:
        self._note(config, "think")
        time.sleep(self._model.pause_s())
        return self._thought(state, config, self._tiers.receipts() if self._asks else [])

    async def _athink(self, state: State, config: RunnableConfig) -> dict[str, Any]:
        self._note(config, "think")
        await asyncio.sleep(self._model.pause_s())
        return self._thought(state, config, await self._tiers.areceipts() if self._asks else [])

    def _thought(
        self, state: State, config: RunnableConfig, receipts: Iterable[Receipt]
    ) -> dict[str, Any]:
        reply = self._model.reply(state["messages"], receipts)
        opened = {} if state.get("opened") else {"opened": turn_of(config).thread_id}
        return {"messages": [reply], "thoughts": 1, **opened}

    def _note(self, config: RunnableConfig | None, node: str) -> tuple[str, int]:
        turn = turn_of(config)
        fence = turn.fence or Fence(turn.turn_id, 0)
        self._trace.note(fence.run_id, fence.attempt, node)
        return turn.turn_id, fence.attempt

    # --- the tool, and two more ways to call it --------------------------------------

    def _transfer(self, name: str, source: int, target: int, amount: int, key: str) -> str:
        intent, noted = Intent(name, source, target, amount), self._note(None, OP)
        time.sleep(self._model.pause_s())
        receipt = self._tiers.commit(
            OP, key=key, payload=intent.data, fn=transfer(intent, noted[0], key, noted[1])
        )
        time.sleep(self._model.pause_s())
        self._note(None, "committed")
        return _said(receipt)

    async def _atransfer(self, name: str, source: int, target: int, amount: int, key: str) -> str:
        intent, noted = Intent(name, source, target, amount), self._note(None, OP)
        await asyncio.sleep(self._model.pause_s())
        receipt = await self._tiers.acommit(
            OP, key=key, payload=intent.data, fn=atransfer(intent, noted[0], key, noted[1])
        )
        await asyncio.sleep(self._model.pause_s())
        self._note(None, "committed")
        return _said(receipt)

    def _one(self, call: ToolCall) -> dict[str, Any]:
        return {"messages": [self._tool.invoke({**call, "type": "tool_call"})]}

    async def _aone(self, call: ToolCall) -> dict[str, Any]:
        return {"messages": [await self._tool.ainvoke({**call, "type": "tool_call"})]}

    def _serve(self, state: MessagesState) -> dict[str, Any]:
        return self._one(_unserved(state)[0])

    async def _aserve(self, state: MessagesState) -> dict[str, Any]:
        return await self._aone(_unserved(state)[0])


def _ask(state: State) -> dict[str, Any]:
    """Wait for the client's word."""
    asked = next(each for each in reversed(state["messages"]) if each.name == CLIENT)
    return {"messages": [HumanMessage(interrupt(json.loads(asked.text)["turn"]), name=WORD)]}


def _noted(messages: Iterable[AnyMessage]) -> Iterator[str]:
    """Names of intents in what a re-run was told of its turn."""
    for each in messages:
        if (each.id or "").startswith(NOTE):
            for line in each.text.splitlines():
                if line.startswith(f"- {OP} "):
                    yield json.loads(line[line.index("{") :])["name"]


def _said(receipt: Receipt) -> str:
    return json.dumps({"intent": receipt.result["name"], "key": receipt.key})


def _unserved(state: MessagesState) -> list[ToolCall]:
    """Calls that have no answer yet."""
    messages = state["messages"]
    served = {each.tool_call_id for each in messages if isinstance(each, ToolMessage)}
    calls = [call for each in messages if isinstance(each, AIMessage) for call in each.tool_calls]
    return [call for call in calls if call["id"] not in served]
