"""The shop's database: what is on the shelf, what was ordered, and what was paid.

It lies in the same SQLite file as the primary store, so that a change to it and the
record that it was made are one transaction. Nothing in it keeps a card from being charged
twice: if that happens, it shows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text

BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Product:
    """What can be bought.

    Attributes:
        sku: Its short name.
        name: Its name.
        cents: Its price.
        stock: How many there are when the shop opens.
    """

    sku: str
    name: str
    cents: int
    stock: int


PRODUCTS = {
    each.sku: each
    for each in (
        Product("lamp", "desk lamp", 4500, 60),
        Product("chair", "office chair", 18900, 40),
        Product("desk", "standing desk", 42000, 30),
        Product("arm", "monitor arm", 7900, 50),
    )
}

_TABLES = (
    "CREATE TABLE stock (sku TEXT PRIMARY KEY, left_over INTEGER NOT NULL)",
    "CREATE TABLE orders (order_id INTEGER PRIMARY KEY, thread TEXT NOT NULL, "
    "request TEXT NOT NULL, sku TEXT NOT NULL, count INTEGER NOT NULL, cents INTEGER NOT NULL, "
    "state TEXT NOT NULL)",
    "CREATE TABLE payments (order_id INTEGER NOT NULL, cents INTEGER NOT NULL, paid_at REAL)",
    "CREATE TABLE conversations (thread TEXT PRIMARY KEY, title TEXT NOT NULL, begun_at REAL)",
)

FIRST_ORDER = 1001


def reserve(
    connection: Connection, sku: str, count: int, *, thread: str, request: str
) -> dict[str, Any]:
    """Put goods aside; the order's number and price, or why not."""
    product = PRODUCTS.get(sku)
    if product is None or count < 1:
        return {"refused": f"there is no {sku!r}: we have {', '.join(PRODUCTS)}"}
    taken = connection.execute(
        text(
            "UPDATE stock SET left_over = left_over - :count "
            "WHERE sku = :sku AND left_over >= :count"
        ),
        {"sku": sku, "count": count},
    )
    if not taken.rowcount:
        left = connection.execute(
            text("SELECT left_over FROM stock WHERE sku = :sku"), {"sku": sku}
        ).scalar_one()
        return {"refused": f"only {left} x {product.name} are left"}
    highest = connection.execute(text("SELECT max(order_id) FROM orders")).scalar()
    order_id, cents = (highest or FIRST_ORDER - 1) + 1, count * product.cents
    connection.execute(
        text(
            "INSERT INTO orders VALUES "
            "(:order_id, :thread, :request, :sku, :count, :cents, 'reserved')"
        ),
        {
            "order_id": order_id,
            "thread": thread,
            "request": request,
            "sku": sku,
            "count": count,
            "cents": cents,
        },
    )
    return {"order_id": order_id, "product": product.name, "count": count, "cents": cents}


def charge(connection: Connection, order_id: int, cents: int) -> dict[str, Any]:
    """Charge the card for an order."""
    connection.execute(
        text("INSERT INTO payments VALUES (:order_id, :cents, :paid_at)"),
        {"order_id": order_id, "cents": cents, "paid_at": time.time()},
    )
    connection.execute(
        text("UPDATE orders SET state = 'paid' WHERE order_id = :order_id"), {"order_id": order_id}
    )
    return {"order_id": order_id, "charged": cents}


def cancel(connection: Connection, order_id: int) -> dict[str, Any]:
    """Cancel an order that is not paid, and put its goods back."""
    ended = connection.execute(
        text(
            "UPDATE orders SET state = 'cancelled' WHERE order_id = :order_id "
            "AND state = 'reserved' RETURNING sku, count"
        ),
        {"order_id": order_id},
    ).first()
    if ended is not None:
        connection.execute(
            text("UPDATE stock SET left_over = left_over + :count WHERE sku = :sku"),
            {"sku": ended.sku, "count": ended.count},
        )
    return {"order_id": order_id, "cancelled": ended is not None}


def order(connection: Connection, order_id: int) -> dict[str, Any] | None:
    """An order."""
    found = connection.execute(
        text("SELECT * FROM orders WHERE order_id = :order_id"), {"order_id": order_id}
    ).first()
    return None if found is None else dict(found._mapping)  # noqa: SLF001 - SQLAlchemy's name


def engine_of(file: Path) -> Engine:
    """An engine for the database."""
    made = create_engine(f"sqlite:///{file}", connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(made, "connect")
    def in_wal(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    return made


class Books:
    """The database, as the server and a plain agent use it.

    Args:
        file: Where it is.

    Attributes:
        engine: An engine for it.
    """

    def __init__(self, file: Path) -> None:
        self.engine = engine_of(file)

    def open_shop(self) -> None:
        """Make the tables, and fill the shelf."""
        with self.engine.begin() as connection:
            for table in _TABLES:
                connection.execute(text(table))
            for each in PRODUCTS.values():
                connection.execute(
                    text("INSERT INTO stock VALUES (:sku, :stock)"),
                    {"sku": each.sku, "stock": each.stock},
                )

    def ledger(self) -> dict[str, Any]:
        """Stock, orders and payments, and what is wrong with them."""
        with self.engine.connect() as connection:
            stock = connection.execute(text("SELECT sku, left_over FROM stock"))
            left: dict[str, int] = {each.sku: each.left_over for each in stock}
            orders = connection.execute(
                text(
                    "SELECT orders.*, count(payments.order_id) AS charges, "
                    "coalesce(sum(payments.cents), 0) AS charged FROM orders "
                    "LEFT JOIN payments USING (order_id) GROUP BY order_id ORDER BY order_id"
                )
            )
            rows: list[Mapping[str, Any]] = [dict(each._mapping) for each in orders]  # noqa: SLF001
        return {
            "stock": [
                {"sku": each.sku, "name": each.name, "left": left[each.sku], "of": each.stock}
                for each in PRODUCTS.values()
            ],
            "orders": rows,
            "charges": sum(each["charges"] for each in rows),
            "charged_cents": sum(each["charged"] for each in rows),
            "wrong": wrong_with(left, rows),
        }

    def note_conversation(self, thread: str, title: str) -> None:
        """Note that a conversation was begun; the first title stays."""
        with self.engine.begin() as connection:
            connection.execute(
                text("INSERT OR IGNORE INTO conversations VALUES (:thread, :title, :begun_at)"),
                {"thread": thread, "title": title, "begun_at": time.time()},
            )

    def conversations(self) -> list[dict[str, Any]]:
        """All conversations, the newest first."""
        with self.engine.connect() as connection:
            found = connection.execute(text("SELECT * FROM conversations ORDER BY begun_at DESC"))
            return [dict(each._mapping) for each in found]  # noqa: SLF001

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def wrong_with(left: Mapping[str, int], orders: list[Mapping[str, Any]]) -> list[str]:
    """What can't be right about the books.

    Args:
        left: Of each product, how many are on the shelf.
        orders: Each order, with how often its card was charged.
    """
    wrong = []
    for each in orders:
        expected = 1 if each["state"] == "paid" else 0
        if each["charges"] != expected:
            wrong.append(
                f"order {each['order_id']} is {each['state']}, and its card was charged "
                f"{each['charges']} times"
            )
    for product in PRODUCTS.values():
        taken = sum(
            each["count"]
            for each in orders
            if each["sku"] == product.sku and each["state"] != "cancelled"
        )
        if left[product.sku] + taken != product.stock:
            wrong.append(
                f"{product.name}: {left[product.sku]} left and {taken} ordered, of {product.stock}"
            )
    return wrong
