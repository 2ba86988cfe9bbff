"""How the model that needs no network decides: a conversation in, a message out.

It is no transcript. What it does next depends on what the customer asked last and on
which tools have answered since, and what it says is put together from those answers.
Like a real model it makes up another tool call id each time, so that nothing but the
business keys of its calls is the same when it is run again. A note on what was done
already, which a turn that is run again is given, it heeds.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from examples.agent_app.books import PRODUCTS

NOTE = "receipts-"
"""Where the id of a note begins that tells what was done already."""

_NUMBERS = {
    "a": 1,
    "an": 1,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "dozen": 12,
}
_COUNT_MOST = 20
_WANTS = re.compile(
    r"\b(order|buy|purchase|i'?d like|i would like|i want|i'?ll take|i need|give me|get me|send me)"
    r"\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\?\s*$|^\s*(how|what|when|where|which|who|can|could|do|does|is|are|may)\b", re.IGNORECASE
)
_OWN_ORDERS = re.compile(
    r"\b(my|the) (last |latest )?orders?\b|\bdid i (order|buy)\b|\bhave i (ordered|bought)\b",
    re.IGNORECASE,
)
_PRODUCTS = {
    "arm": re.compile(r"\b(monitor arms?|arms?)\b", re.IGNORECASE),
    "lamp": re.compile(r"\b(desk lamps?|lamps?)\b", re.IGNORECASE),
    "chair": re.compile(r"\b(office chairs?|chairs?)\b", re.IGNORECASE),
    "desk": re.compile(r"\b(standing desks?|desks?)\b(?! lamp)", re.IGNORECASE),
}
_RECEIPT = re.compile(r'^- (\w+) "[^"]*": (.*)$', re.MULTILINE)
_TOOLS = {"reserve": "reserve_stock", "charge": "charge_card", "cancel": "charge_card"}
"""Which tool makes which commit."""

GREETING = (
    "Hello! I can look things up in our help pages, take an order for desk lamps, office "
    "chairs, standing desks and monitor arms, and tell you about your orders. "
    "I never charge a card without asking you."
)


def next_message(messages: Sequence[BaseMessage], tools: Collection[str]) -> AIMessage:
    """What the model says next.

    Args:
        messages: The conversation so far.
        tools: The names of the tools that it may call.
    """
    at = max(
        (n for n, each in enumerate(messages) if is_question(each)),
        default=-1,
    )
    if at < 0:
        return AIMessage(GREETING)
    question = str(messages[at].text)
    done = _done(messages, at)
    wanted = _wanted(question)
    if wanted is not None and "reserve_stock" in tools:
        return _ordering(wanted, done)
    if _OWN_ORDERS.search(question) and "my_orders" in tools:
        return _about_orders(done)
    if _ASKS.search(question) and "search_help" in tools:
        return _helping(question, done)
    return AIMessage(GREETING)


def is_question(message: BaseMessage) -> bool:
    """Whether a message is the customer's, rather than a note of the system."""
    return isinstance(message, HumanMessage) and not str(message.id or "").startswith(NOTE)


def _done(messages: Sequence[BaseMessage], at: int) -> dict[str, Any]:
    """What came of this turn's tools so far, by their names; also of lives before this one."""
    done: dict[str, Any] = {}
    # A note stands right before the question, or amid what was said since.
    for message in [*messages[max(0, at - 1) : at], *messages[at + 1 :]]:
        if str(message.id or "").startswith(NOTE):
            for op, result in _RECEIPT.findall(str(message.text)):
                done[_TOOLS.get(op, op)] = json.loads(result)
        elif isinstance(message, ToolMessage) and message.name:
            done[message.name] = _read(str(message.text))
    return done


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _wanted(question: str) -> tuple[str, int] | None:
    """Which product is wanted, and how many; None if none is."""
    if not _WANTS.search(question) or _OWN_ORDERS.search(question):
        return None
    found = {sku: match for sku, each in _PRODUCTS.items() if (match := each.search(question))}
    if not found:
        return None
    sku = min(found, key=lambda each: found[each].start())
    before = question[: found[sku].start()].lower()
    counts = [
        int(word) if word.isdigit() else _NUMBERS[word]
        for word in re.findall(r"\d+|[a-z]+", before)
        if word.isdigit() or word in _NUMBERS
    ]
    return sku, min(max(1, counts[-1] if counts else 1), _COUNT_MOST)


def _ordering(wanted: tuple[str, int], done: dict[str, Any]) -> AIMessage:
    sku, count = wanted
    name = PRODUCTS[sku].name
    if "reserve_stock" not in done:
        say = f"Let me put {count} x {name} aside for you."
        return _call(say, "reserve_stock", {"sku": sku, "count": count})
    reserved = done["reserve_stock"]
    if not isinstance(reserved, dict) or "order_id" not in reserved:
        why = reserved.get("refused", "") if isinstance(reserved, dict) else str(reserved)
        return AIMessage(f"I am sorry, I can't do that: {why}.")
    order_id, cents = reserved["order_id"], reserved["cents"]
    if "charge_card" not in done:
        say = (
            f"They are yours: order {order_id} comes to {money(cents)}. "
            "Before I charge your card I need your approval."
        )
        return _call(say, "charge_card", {"order_id": order_id, "cents": cents})
    charged = done["charge_card"]
    if isinstance(charged, dict) and "charged" in charged:
        return AIMessage(
            f"Thank you! Order {order_id} is paid: {count} x {name}, {money(cents)}. "
            "It leaves our warehouse today if it is before 15:00, and tomorrow otherwise."
        )
    if isinstance(charged, dict) and not charged.get("cancelled"):
        return AIMessage(f"Order {order_id} was paid before, so I can't cancel it any more.")
    return AIMessage(f"All right: order {order_id} is cancelled, and nothing was charged.")


def _about_orders(done: dict[str, Any]) -> AIMessage:
    if "my_orders" not in done:
        return _call("I'll look that up.", "my_orders", {})
    orders = done["my_orders"]
    if not isinstance(orders, list) or not orders:
        return AIMessage("There is no order of yours in this conversation yet.")
    told = "; ".join(
        f"order {each['order_id']}, {each['count']} x {each['product']}, {money(each['cents'])}, "
        f"is {each['state']}"
        for each in orders
    )
    return AIMessage(f"This is what I find: {told}.")


def _helping(question: str, done: dict[str, Any]) -> AIMessage:
    if "search_help" not in done:
        return _call("", "search_help", {"question": question})
    return AIMessage(str(done["search_help"]))


def _call(say: str, name: str, arguments: dict[str, Any]) -> AIMessage:
    call = {"name": name, "args": arguments, "id": f"call_{secrets.token_hex(6)}"}
    return AIMessage(say, tool_calls=[call])


def money(cents: int) -> str:
    """An amount as one reads it."""
    return f"{cents / 100:,.2f}"
