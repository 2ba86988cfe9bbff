"""Puts of memories whose answers are lost, while others put the same; and DynamoDB's bounds.

What is special: a put that is tried again may have been recorded, and replaced since. It
must not come back over what is newer. See `test_primary_memories`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from langgraph_valkey.dynamodb.memories import memory_key
from langgraph_valkey.dynamodb.sizes import (
    ACTIONS_MOST,
    ITEM_BYTES_MAX,
    TRANSACTION_BYTES_MAX,
    action_bytes,
)
from langgraph_valkey.dynamodb.store import DynamoStore
from langgraph_valkey.errors import OutcomeUnknown, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.memories import (
    MEMORIES_MOST,
    UNTIL_MS_MAX,
    BucketStanding,
    NewMemory,
    Recorded,
    bucket_key,
)
from langgraph_valkey.sql.store import SqlStore
from tests.dynamo_ground import Wire, answer_lost, new_store, refused
from tests.postgres_wire import PostgresWire
from tests.primary_ground import FACES, DynamoGround, Ground, Postgres, SqlGround, new_name

SPACE, HERE, THERE = "agents:store", "3.16", "7.16"
CONFLICT = refused("TransactionCanceledException", "None", "TransactionConflict")


def new(name: bytes, record: bytes | None = b"1", bucket: str = HERE) -> NewMemory:
    return NewMemory(bucket, name, record)


class Rough:
    """A store on one face, whose next put loses its answer or does not arrive.

    Attributes:
        other: Another process's way to the same store, on the blocking face.
    """

    def __init__(self, ground: Ground, other: Primary, lose: Callable[[str, Any], None]) -> None:
        self.ground = ground
        self.other = other
        self._lose = lose

    async def put(
        self, *items: NewMemory, lost: str, meanwhile: Sequence[NewMemory] = ()
    ) -> Recorded:
        """Put them; before it is tried again, the other one puts something."""

        def putting() -> None:
            for item in meanwhile:
                finish(self.other.put_memories(SPACE, [item]))

        self._lose(lost, putting)
        recorded = await self.ground.call("put_memories", SPACE, items)
        assert isinstance(recorded, Recorded)
        return recorded

    def known(self, bucket: str = HERE) -> dict[bytes, tuple[bytes | None, int]]:
        found = finish(self.other.memories(SPACE, bucket, limit=100))
        return {each.name: (each.record, each.change) for each in found}


@asynccontextmanager
async def _postgresql(
    request: pytest.FixtureRequest, face: str, threads: ThreadPoolExecutor
) -> AsyncIterator[Rough]:
    postgres: Postgres = request.getfixturevalue("postgres")
    schema = new_name()
    with PostgresWire(postgres.socket) as wire:
        store, other = SqlStore(wire.url, schema=schema), SqlStore(postgres.url, schema=schema)
        finish(other.blocking.setup())
        ground = SqlGround(store, face, threads, schema=schema)
        surface: Any = getattr(store, f"_{face}")
        sleep = surface.sleep

        def lose(what: str, then: Callable[[], None]) -> None:
            async def sleeping(delay_s: float) -> None:
                if face == "loops":
                    await asyncio.to_thread(then)
                else:
                    then()
                surface.sleep = sleep
                await sleep(delay_s)

            surface.sleep = sleeping
            setattr(wire, f"lose_{what}s", 1)

        try:
            yield Rough(ground, other.blocking, lose)
        finally:
            await store.aclose()
            await other.aclose()


@asynccontextmanager
async def _dynamodb(
    request: pytest.FixtureRequest, face: str, threads: ThreadPoolExecutor
) -> AsyncIterator[Rough]:
    client: Any = request.getfixturevalue("dynamo")
    wire = Wire(client)
    store: DynamoStore = new_store(client.meta.endpoint_url, client=wire, session=None)
    finish(store.blocking.setup())
    other = DynamoStore(store.table, client=client, skew_s=0.0)

    def lose(what: str, then: Callable[[], None]) -> None:
        def losing(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            if what == "request":
                call = lambda **_: None  # noqa: E731 - it does not arrive
            try:
                return answer_lost(call, parameters)
            finally:
                then()

        wire.plan["transact_write_items"] = [losing]

    yield Rough(DynamoGround(store, face, threads, client=client), other.blocking, lose)


@pytest.fixture(
    params=[f"{store}-{face}" for store in ("postgresql", "dynamodb") for face in FACES]
)
async def rough(
    request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> AsyncIterator[Rough]:
    store, face = str(request.param).split("-")
    opening = {"postgresql": _postgresql, "dynamodb": _dynamodb}[store]
    async with opening(request, face, threads) as opened:
        yield opened


# --- answers that are lost -------------------------------------------------------------


@pytest.mark.parametrize("lost", ["answer", "request"])
async def test_a_put_whose_answer_is_lost_is_recorded_once(rough: Rough, lost: str) -> None:
    recorded = await rough.put(new(b"a"), new(b"b", None), new(b"a", bucket=THERE), lost=lost)
    assert recorded == Recorded((1, 1, 1), {HERE: "", THERE: ""})
    assert rough.known() == {b"a": (b"1", 1), b"b": (None, 1)}
    standing = await rough.ground.call("memory_standing", SPACE, [HERE, THERE])
    assert standing == [BucketStanding("", 1)] * 2
    again = await rough.ground.call("put_memories", SPACE, [new(b"a", b"2")])
    assert again.changes == (2,)


async def test_it_does_not_come_back_over_what_is_newer(rough: Rough) -> None:
    recorded = await rough.put(
        *(new(b"a"), new(b"b"), new(b"a", bucket=THERE)),
        lost="answer",
        meanwhile=[new(b"a", b"newer"), new(b"a", None, THERE)],
    )
    assert recorded.changes == (0, 1, 0)
    assert rough.known() == {b"a": (b"newer", 2), b"b": (b"1", 1)}
    assert rough.known(THERE) == {b"a": (None, 2)}


async def test_nor_if_all_of_it_was_replaced(rough: Rough) -> None:
    recorded = await rough.put(new(b"a"), lost="answer", meanwhile=[new(b"a", b"newer")])
    assert recorded == Recorded((0,), {HERE: ""})
    assert rough.known() == {b"a": (b"newer", 2)}


async def test_what_did_not_arrive_is_put_where_nobody_else_has(rough: Rough) -> None:
    """It can't be told from one that arrived and was replaced: so the others come after it."""
    recorded = await rough.put(
        new(b"a"), new(b"b"), lost="request", meanwhile=[new(b"a", b"newer"), new(b"c", b"other")]
    )
    assert recorded.changes == (0, 3)
    assert rough.known() == {b"a": (b"newer", 1), b"b": (b"1", 3), b"c": (b"other", 2)}


# --- DynamoDB alone --------------------------------------------------------------------


@pytest.fixture
def wire(dynamo: Any) -> Wire:
    return Wire(dynamo)


@pytest.fixture
def store(dynamo: Any, wire: Wire) -> DynamoStore:
    """A store whose wire a test may break."""
    given = {"client": wire, "session": None, "patience_s": 0.3}
    made = new_store(dynamo.meta.endpoint_url, **given)
    finish(made.blocking.setup())
    return made


def test_others_that_are_always_faster(store: DynamoStore, dynamo: Any, wire: Wire) -> None:
    other = DynamoStore(store.table, client=dynamo).blocking

    def overtaken(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        finish(other.put_memories(SPACE, [new(b"other")]))
        return call(**parameters)

    wire.plan["transact_write_items"] = [overtaken] * 2
    assert finish(store.blocking.put_memories(SPACE, [new(b"a")])).changes == (3,)
    wire.always["transact_write_items"] = overtaken
    with pytest.raises(Unreachable, match="all the time, and nothing was done"):
        finish(store.blocking.put_memories(SPACE, [new(b"b")]))
    turns = itertools.cycle([answer_lost, overtaken])

    def lost_and_overtaken(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        how = next(turns)
        return how((lambda **_: None) if how is answer_lost else call, parameters)

    wire.always["transact_write_items"] = lost_and_overtaken
    with pytest.raises(OutcomeUnknown, match="an answer was lost: call again"):
        finish(store.blocking.put_memories(SPACE, [new(b"c")]))
    assert {each.name for each in finish(other.memories(SPACE, HERE, limit=9))} == {b"a", b"other"}


def test_a_primary_that_is_entered_meanwhile_is_told(
    store: DynamoStore, dynamo: Any, wire: Wire
) -> None:
    """Who entered it may have read all memories before this one could be read."""
    other = DynamoStore(store.table, client=dynamo).blocking

    def entered(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        assert finish(other.enter(bucket_key(SPACE, HERE), "p2")).accepted
        return call(**parameters)

    finish(other.enter(bucket_key(SPACE, HERE), "p1"))
    wire.plan["transact_write_items"] = [entered]
    recorded = finish(store.blocking.put_memories(SPACE, [new(b"a")]))
    assert recorded.identities == {HERE: "p2"}


def test_a_transaction_that_is_in_another_one_s_way(store: DynamoStore, wire: Wire) -> None:
    wire.plan["transact_write_items"] = [CONFLICT] * 2
    assert finish(store.blocking.put_memories(SPACE, [new(b"a")])).changes == (1,)
    wire.plan["transact_write_items"] = [
        refused("TransactionCanceledException", "None", "ItemCollectionSizeLimitExceeded")
    ]
    wire.sent.clear()
    with pytest.raises(ClientError):
        finish(store.blocking.put_memories(SPACE, [new(b"a")]))
    assert [name for name, _ in wire.sent].count("transact_write_items") == 1


def test_what_the_store_takes_dynamodb_takes(store: DynamoStore, wire: Wire) -> None:
    sent: list[list[dict[str, Any]]] = []

    def weigh(_: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        sent.append(parameters["TransactItems"])
        return {}

    room = store.blocking.room
    largest = NewMemory(HERE, b"n", bytes(room.memory_bytes_max - 1), until_ms=UNTIL_MS_MAX)
    each = bytes(room.memories_bytes_max // MEMORIES_MOST - 1)
    most = [NewMemory(f"{n}", b"n", each, until_ms=UNTIL_MS_MAX) for n in range(MEMORIES_MOST)]
    for items in ([largest], most):
        wire.plan["transact_write_items"] = [weigh]
        finish(store.blocking.put_memories(SPACE, items))
    for actions in sent:
        sizes = [action_bytes(action) for action in actions]
        assert len(sizes) <= ACTIONS_MOST
        assert max(sizes) <= ITEM_BYTES_MAX
        assert sum(sizes) <= TRANSACTION_BYTES_MAX
    assert len(sent) == 2


def test_what_is_back_is_not_dropped(store: DynamoStore, dynamo: Any, wire: Wire) -> None:
    """The index still has it among what is gone; or it comes back while others are dropped."""
    face = store.blocking
    names = [b"read", b"dropped", b"gone"]
    finish(face.put_memories(SPACE, [new(name, None) for name in names]))
    pages: dict[str, Any] = {}

    def query(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        of = parameters["ExpressionAttributeValues"][":list"]["S"]
        return pages.setdefault(of, call(**parameters))

    def back(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        if parameters["Key"] == dropped:
            finish(other.put_memories(SPACE, [new(b"dropped")]))
        return call(**parameters)

    other = DynamoStore(store.table, client=dynamo).blocking
    dropped = memory_key(SPACE, HERE, b"dropped")
    wire.always = {"query": query, "delete_item": back}
    assert finish(face.purge(3600.0)).memories == 0
    pages.clear()
    finish(face._table.listed("memories", limit=9))
    finish(other.put_memories(SPACE, [new(b"read")]))
    assert finish(face.purge(-1.0)).memories == 1
    found = finish(other.memories(SPACE, HERE, limit=9))
    assert {each.name: each.record for each in found} == {b"read": b"1", b"dropped": b"1"}
