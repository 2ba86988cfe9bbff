"""An order agent that is killed anywhere, run again, and charges once.

A customer orders three lamps. The agent reserves them, charges the card and confirms;
its model is not deterministic: it thinks for a while, and makes up new tool call ids
each time. Each tool is a commit: its change to the shop's database, and the row that
says that it was made, are one transaction.

``python -m examples.committed_order`` runs the agent in a process of its own, kills
that with SIGKILL at random moments, and starts it again, until the order is confirmed.
Then it shows the shop's books. A random seed is printed; ``--seed`` repeats it.
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import SecretStr
from sqlalchemy import Connection, create_engine, text

from langgraph_valkey import Settings, StateTiers, TierSettings
from langgraph_valkey.local import LocalValkey

DATA = Path("demo-data/committed-order")
ORDER, SKU, COUNT, CENTS = "1001", "lamp", 3, 4500
THREAD, REQUEST = "customer-7", "request-1001"
STEPS = ("reserve_stock", "charge_card", "confirm_order")

SHOP = """
CREATE TABLE stock (sku TEXT PRIMARY KEY, left_over INTEGER);
CREATE TABLE charges (order_id TEXT, cents INTEGER);
CREATE TABLE confirmations (order_id TEXT);
INSERT INTO stock VALUES ('lamp', 10)
"""

BOOKS = {
    "stock": "SELECT sku, left_over FROM stock",
    "charges": "SELECT order_id, cents FROM charges",
    "confirmations": "SELECT order_id FROM confirmations",
}


def think(state: MessagesState) -> dict[str, Any]:
    """The model: asks for the next tool that has not answered yet, or says that it is done."""
    time.sleep(0.02 + secrets.randbelow(130) / 1000)
    done = {message.name for message in state["messages"] if isinstance(message, ToolMessage)}
    missing = [step for step in STEPS if step not in done]
    if not missing:
        return {"messages": [AIMessage(f"Order {ORDER} is confirmed.")]}
    arguments: dict[str, dict[str, Any]] = {
        "reserve_stock": {"sku": SKU, "count": COUNT},
        "charge_card": {"cents": CENTS},
    }
    call = {
        "name": missing[0],
        "args": {"order_id": ORDER, **arguments.get(missing[0], {})},
        "id": secrets.token_hex(8),  # Another one at each execution.
    }
    print(f"the agent calls {missing[0]}", flush=True)
    return {"messages": [AIMessage("", tool_calls=[call])]}


def build_agent(tiers: StateTiers) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The agent; what its tools do to the shop's database, they do once an order."""

    @tool
    @tiers.committed(op="reserve", key="order_id")
    def reserve_stock(connection: Connection, order_id: str, sku: str, count: int) -> str:
        """Put goods aside for an order."""
        taken = text("UPDATE stock SET left_over = left_over - :count WHERE sku = :sku")
        connection.execute(taken, {"count": count, "sku": sku})
        return f"{count} x {sku} reserved for order {order_id}"

    @tool
    @tiers.committed(op="charge", key="order_id")
    def charge_card(connection: Connection, order_id: str, cents: int) -> str:
        """Charge the customer's card."""
        charged = text("INSERT INTO charges VALUES (:order_id, :cents)")
        connection.execute(charged, {"order_id": order_id, "cents": cents})
        return f"{cents} cents charged for order {order_id}"

    @tool
    @tiers.committed(op="confirm", key="order_id")
    def confirm_order(connection: Connection, order_id: str) -> str:
        """Confirm the order to the customer."""
        confirmed = text("INSERT INTO confirmations VALUES (:order_id)")
        connection.execute(confirmed, {"order_id": order_id})
        return f"order {order_id} confirmed"

    builder = StateGraph(MessagesState)
    builder.add_node("model", think)
    builder.add_node("tools", ToolNode([reserve_stock, charge_card, confirm_order]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=tiers.saver)


def serve(url: str, primary: str) -> None:
    """One life of the agent's process: begins the order, or goes on with it."""
    settings = TierSettings(
        transient=Settings.from_url(url), primary=SecretStr(primary), owner_alive_s=1.0
    )
    with StateTiers(settings) as tiers:
        # The same request again: it is recorded, so it goes on where it was, or tells
        # what came of it. Without a client that asks again, `recover` does this.
        order: Any = {"messages": [HumanMessage(f"I'd like {COUNT} of these: {SKU}")]}
        agent = build_agent(tiers)
        state = tiers.run(agent, order, thread_id=THREAD, run_id=REQUEST, wait_s=10.0)
        print(f"the agent says: {state['messages'][-1].text}", flush=True)


def main() -> None:
    """Kill it until it is done, then look at the books."""
    parser = argparse.ArgumentParser(prog="python -m examples.committed_order")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--kills", type=int, default=5, help="how often it is killed at most")
    parser.add_argument("--serve", nargs=2, metavar=("URL", "PRIMARY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
        return
    print(f"Seed {given.seed}")
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    shop = create_engine(f"sqlite:///{DATA}/shop.db")
    with shop.begin() as connection:
        for statement in SHOP.split(";"):
            connection.execute(text(statement))
    with LocalValkey(DATA / "valkey") as valkey:
        kill_until_done(valkey.url, f"sqlite:///{DATA}/shop.db", given.seed, given.kills)
    with shop.begin() as connection:
        for name, query in BOOKS.items():
            rows = [tuple(row) for row in connection.execute(text(query))]
            print(f"  {name}: {rows}")
    shop.dispose()


def kill_until_done(url: str, primary: str, seed: int, kills: int) -> None:
    """Start the agent's process again and again; kill it shortly after it called a tool."""
    chance = random.Random(seed)  # noqa: S311 - it says when to kill
    command = [sys.executable, "-m", "examples.committed_order", "--serve", url, primary]
    for life in range(1, kills + 2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            for line in process.stdout or ():
                print(f"  life {life}: {line}", end="")
                if life <= kills and "calls" in line:
                    time.sleep(chance.uniform(0.0, 0.1))
                    process.kill()
        if process.returncode == 0:
            return
        print(f"  life {life} was killed")


if __name__ == "__main__":
    main()
