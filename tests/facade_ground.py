"""What tests of `StateTiers` share: tiers on a real server and SQLite, and a small agent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, StateGraph
from sqlalchemy import text

from langgraph_valkey.local import LocalValkey
from langgraph_valkey.settings import Settings
from langgraph_valkey.tiers.settings import TierSettings
from langgraph_valkey.tiers.state_tiers import StateTiers
from tests.failover_ground import new_prefix

CHARGE = text("INSERT INTO charges VALUES (:order_id)")


class State(TypedDict, total=False):
    """What the agent keeps."""

    order_id: str
    steps: Annotated[list[str], add]


class Ground:
    """A server and a database file, with a table of the user's."""

    def __init__(self, valkey: LocalValkey, folder: Path) -> None:
        self.valkey = valkey
        self.path = folder / "primary.db"
        self.transient = Settings.from_url(valkey.url, key_prefix=new_prefix())
        with sqlite3.connect(self.path) as database:
            database.execute("CREATE TABLE charges (order_id TEXT)")
        database.close()

    def settings(self, **options: Any) -> TierSettings:
        """Settings of tiers here."""
        given: dict[str, Any] = {"transient": self.transient, "primary": f"sqlite:///{self.path}"}
        return TierSettings(**(given | options))

    def tiers(self, *, settings: dict[str, Any] | None = None, **options: Any) -> StateTiers:
        """Tiers here."""
        return StateTiers(self.settings(**(settings or {})), **options)

    @property
    def charges(self) -> list[str]:
        """What was charged, by the books."""
        database = sqlite3.connect(self.path)
        found = [row[0] for row in database.execute("SELECT order_id FROM charges")]
        database.close()
        return found

    @property
    def tables(self) -> set[str]:
        """The tables in the database."""
        database = sqlite3.connect(self.path)
        found = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        database.close()
        return found

    def keys(self, pattern: str = "*") -> list[str]:
        """The keys of the transient cluster that match, without their prefix."""
        prefix = self.transient.key_prefix
        found: Any = self.valkey.command("KEYS", f"{prefix}{pattern}")
        return sorted(key.decode().removeprefix(prefix) for key in found)

    def lose(self, pattern: str = "*") -> None:
        """Have the transient cluster lose what matches."""
        for key in self.keys(pattern):
            self.valkey.command("DEL", self.transient.key_prefix + key)


def agent(tiers: StateTiers, then: Callable[[State], None] = lambda _: None, **options: Any) -> Any:
    """An agent that charges an order, does something, and ends; on both faces."""

    def pay(state: State, config: RunnableConfig) -> State:
        order_id = state["order_id"]
        receipt = tiers.commit(
            "charge",
            key=order_id,
            payload=order_id,
            fn=lambda connection: charge(connection, order_id),
            **options,
        )
        return {"steps": [f"{receipt.result}{' again' if receipt.replayed else ''}"]}

    async def apay(state: State, config: RunnableConfig) -> State:
        order_id = state["order_id"]

        async def fn(connection: Any) -> str:
            await connection.execute(CHARGE, {"order_id": order_id})
            return f"charged {order_id}"

        receipt = await tiers.acommit("charge", key=order_id, payload=order_id, fn=fn, **options)
        return {"steps": [f"{receipt.result}{' again' if receipt.replayed else ''}"]}

    def end(state: State) -> State:
        then(state)
        return {"steps": ["done"]}

    builder = StateGraph(State)
    builder.add_node("pay", RunnableLambda(pay, afunc=apay))
    builder.add_node("end", end)
    builder.add_edge(START, "pay")
    builder.add_edge("pay", "end")
    return builder.compile(checkpointer=tiers.saver, name="agent")


def charge(connection: Any, order_id: str) -> str:
    """Enter a charge in the books."""
    connection.execute(CHARGE, {"order_id": order_id})
    return f"charged {order_id}"
