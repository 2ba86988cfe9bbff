"""The bank: accounts, and a ledger of what was really done, in the primary store."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Executable,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

ACCOUNTS = 20
OPENED_WITH = 1000

_META = MetaData()
_ACCOUNTS = Table(
    "bank_accounts", _META, Column("id", Integer, primary_key=True), Column("balance", Integer)
)
_LEDGER = Table(
    "bank_ledger",
    _META,
    Column("id", Integer, primary_key=True),
    Column("intent", String(60)),
    Column("turn", String(60)),
    Column("key", String(80)),
    Column("amount", Integer),
    Column("attempt", Integer),
    Column("at", Float),
)


@dataclass(frozen=True, slots=True)
class Intent:
    """What a user wants done, once.

    Attributes:
        name: Unique.
        source: Account that pays.
        target: Account that gets it.
        amount: How much.
    """

    name: str
    source: int
    target: int
    amount: int

    @property
    def data(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


class Line(NamedTuple):
    """A line of the ledger: an intent, applied in a turn under a key."""

    intent: str
    turn: str
    key: str


def draw_intent(chance: random.Random, name: str) -> Intent:
    """An intent between two accounts."""
    source, target = chance.sample(range(ACCOUNTS), 2)
    return Intent(name, source, target, chance.randint(1, 50))


# --- what a commit does -------------------------------------------------------------


def _moves(intent: Intent, turn: str, key: str, attempt: int) -> Iterable[Executable]:
    """The statements of a transfer. Accounts in order, so that no two wait for each other."""
    changes = sorted([(intent.source, -intent.amount), (intent.target, intent.amount)])
    for account, change in changes:
        yield (
            update(_ACCOUNTS)
            .where(_ACCOUNTS.c.id == account)
            .values(balance=_ACCOUNTS.c.balance + change)
        )
    yield insert(_LEDGER).values(
        intent=intent.name,
        turn=turn,
        key=key,
        amount=intent.amount,
        attempt=attempt,
        at=time.time(),
    )


def transfer(
    intent: Intent, turn: str, key: str, attempt: int
) -> Callable[[Connection], dict[str, Any]]:
    """The blocking function of a commit."""

    def move(connection: Connection) -> dict[str, Any]:
        for statement in _moves(intent, turn, key, attempt):
            connection.execute(statement)
        return intent.data

    return move


def atransfer(
    intent: Intent, turn: str, key: str, attempt: int
) -> Callable[[AsyncConnection], Awaitable[dict[str, Any]]]:
    """The async function of a commit."""

    async def move(connection: AsyncConnection) -> dict[str, Any]:
        for statement in _moves(intent, turn, key, attempt):
            await connection.execute(statement)
        return intent.data

    return move


# --- for whoever judges ---------------------------------------------------------------


def engine_of(url: str) -> Engine:
    """A blocking engine; `url` is what `StateTiers` is given as its primary."""
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed)


def open_bank(engine: Engine) -> None:
    """Make the tables, and give each account its money."""
    with engine.begin() as connection:
        _META.create_all(connection)
        connection.execute(
            insert(_ACCOUNTS),
            [{"id": number, "balance": OPENED_WITH} for number in range(ACCOUNTS)],
        )


def missing_money(engine: Engine) -> int:
    """What the accounts hold less than at first, all together; below 0 if they hold more."""
    with engine.connect() as connection:
        total = connection.scalar(select(func.sum(_ACCOUNTS.c.balance)))
    return ACCOUNTS * OPENED_WITH - int(total or 0)


def ledger(engine: Engine) -> list[Line]:
    """All that was done, in order."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(_LEDGER.c.intent, _LEDGER.c.turn, _LEDGER.c.key).order_by(_LEDGER.c.id)
        )
        return [Line(*row) for row in rows]
