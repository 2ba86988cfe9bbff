"""What the agent can do. What changes the shop's books is one transaction a tool."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.types import interrupt
from sqlalchemy import text

from examples.agent_app import books
from examples.agent_app.agent.help_pages import HelpPages
from examples.agent_app.books import PRODUCTS, Books

Work: TypeAlias = Callable[..., dict[str, Any]]
"""Changes the books, given an open transaction."""

Commit: TypeAlias = Callable[[str, str, Work, dict[str, Any], RunnableConfig], dict[str, Any]]
"""Does some work in a transaction, given its name, its business key, and its arguments."""

TURN = "turn_id"
"""Where a graph's config names the customer's request."""


def make_tools(shop: Books, pages: HelpPages, commit: Commit) -> list[BaseTool]:
    """The agent's tools.

    Args:
        shop: To be looked at.
        pages: What it knows.
        commit: How it changes the books.
    """

    @tool(response_format="content_and_artifact")
    def search_help(question: str) -> tuple[str, dict[str, Any]]:
        """Look for an answer in the shop's help pages: shipping, returns, warranty, payment.

        Args:
            question: The customer's question, in words that stand alone.
        """
        found = pages.ask(question)
        return found.answer, {"source": found.source, **found.details}

    @tool
    def reserve_stock(sku: str, count: int, config: RunnableConfig) -> str:  # noqa: D417
        """Put goods aside under a new order; returns the order's number and price in cents.

        Args:
            sku: One of: lamp, chair, desk, arm.
            count: How many.
        """
        named = config["configurable"]
        about = {"thread": named["thread_id"], "request": named.get(TURN, "")}
        given = {"sku": sku, "count": count, **about}
        return json.dumps(commit("reserve", sku, books.reserve, given, config))

    @tool
    def charge_card(  # noqa: D417
        order_id: int, cents: int, config: RunnableConfig
    ) -> str:
        """Charge the customer's card for an order. The customer is asked first, and may decline.

        Args:
            order_id: As reserve_stock gave it.
            cents: As reserve_stock gave it.
        """
        with shop.engine.connect() as connection:
            ordered = books.order(connection, order_id)
        if ordered is None or ordered["cents"] != cents:
            return json.dumps({"refused": f"there is no order {order_id} over {cents} cents"})
        # All above runs again when the customer has answered, all below only then.
        product = PRODUCTS[ordered["sku"]].name
        asked = {"order_id": order_id, "cents": cents, "count": ordered["count"]}
        answer: Any = interrupt({**asked, "product": product})
        key = str(order_id)
        if not answer["approved"]:
            return json.dumps(commit("cancel", key, books.cancel, {"order_id": order_id}, config))
        given = {"order_id": order_id, "cents": cents}
        return json.dumps(commit("charge", key, books.charge, given, config))

    @tool
    def my_orders(config: RunnableConfig) -> str:
        """List the orders of this conversation."""
        query = text("SELECT * FROM orders WHERE thread = :thread ORDER BY order_id")
        thread = {"thread": config["configurable"]["thread_id"]}
        with shop.engine.connect() as connection:
            found = [row._mapping for row in connection.execute(query, thread)]  # noqa: SLF001
        return json.dumps(
            [
                {
                    **{name: each[name] for name in ("order_id", "count", "cents", "state")},
                    "product": PRODUCTS[each["sku"]].name,
                }
                for each in found
            ]
        )

    return [search_help, reserve_stock, charge_card, my_orders]
