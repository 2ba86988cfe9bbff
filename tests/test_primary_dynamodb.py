"""What is special to the primary store on DynamoDB; what all stores do is tested with all.

`dynamo_ground` says what its server does not play. What it does not check, such as the
4 MB of a transaction, is checked at our own door; conflicts, throttling, lost answers
and an index that lags are played by a wire between the client and the server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from langgraph_valkey.dynamodb import commits as dynamodb_commits
from langgraph_valkey.dynamodb import runs as dynamodb_runs
from langgraph_valkey.dynamodb.store import DynamoFace, DynamoStore, Items
from langgraph_valkey.errors import (
    OutcomeUnknown,
    RunTakenOver,
    Unreachable,
)
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
    Fence,
    NewRun,
    Receipt,
)
from tests.dynamo_ground import (
    Happening,
    Wire,
    answer_lost,
    dynamo_server,
    made_up_client,
    new_store,
    new_table,
    refused,
)

CONFLICT = refused("TransactionCanceledException", "None", "TransactionConflict")
FOREVER_S = 1_000.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with dynamo_server() as served:
        yield served


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    """A client, and the users' own table ``accounts``."""
    with closing(made_up_client(address)) as opened:
        opened.create_table(
            TableName="accounts",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        yield opened


@pytest.fixture
def wire(client: Any) -> Wire:
    return Wire(client)


@pytest.fixture
def store(address: str, wire: Wire) -> DynamoStore:
    """A store whose wire a test may break, in a table of its own."""
    made = new_store(address, client=wire, session=None)
    finish(made.blocking.setup())
    return made


@pytest.fixture
def face(store: DynamoStore) -> DynamoFace:
    return store.blocking


def request(key: str = "A17", **given: Any) -> CommitRequest:
    named = CommitKey("charge", key, "turn", "thread", "turn")
    return CommitRequest(named, "0" * 64, "thread", "turn", **given)


def adding(account: str, amount: int = 1, condition: str = "") -> dict[str, Any]:
    update = {
        "TableName": "accounts",
        "Key": {"id": {"S": account}},
        "UpdateExpression": "ADD amount :amount",
        "ExpressionAttributeValues": {":amount": {"N": str(amount)}},
    }
    return {"Update": update | ({"ConditionExpression": condition} if condition else {})}


def putting(account: str, size: int) -> dict[str, Any]:
    return {
        "Put": {"TableName": "accounts", "Item": {"id": {"S": account}, "b": {"B": b"x" * size}}}
    }


def amount_of(client: Any, account: str) -> int:
    found = client.get_item(TableName="accounts", Key={"id": {"S": account}})
    return int(found.get("Item", {}).get("amount", {"N": "0"})["N"])


def contents(client: Any, *tables: str) -> list[Any]:
    """All items of tables, but not the version."""
    items = [item for table in tables for item in client.scan(TableName=table)["Items"]]
    return [item for item in items if item.get("pk") != {"S": "store"}]


def new_run(run_id: str, thread_id: str = "thread", **given: Any) -> NewRun:
    fields = {"graph": "agent", "face": "sync", "input": b"in", "context": "{}", "owner": "me"}
    return NewRun(run_id, thread_id, f"turn of {run_id}", **{**fields, **given})


def commit(face: DynamoFace, items: Items, key: str = "A17", **given: Any) -> Receipt:
    return finish(face.commit(request(key, **given), lambda _client: items))


# --- limits ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "given", "says"),
    [
        (Items([adding(f"a{n}") for n in range(99)]), {}, "99 writes and 2 .* takes 100"),
        (Items([adding(f"a{n}") for n in range(98)]), {"fence": Fence("r", 1)}, "98 writes and 3"),
        (Items([adding("a"), putting("b", 410_000)]), {}, "write 1 of commit 'charge'"),
        (Items([adding("c" * 410_000)]), {}, "write 0 of commit 'charge'"),
        (Items([putting(f"b{n}", 400_000) for n in range(11)]), {}, "a transaction of DynamoDB"),
        (Items([]), {"outbox": (("mail", "1" * 300_000),) * 15}, "a transaction of DynamoDB"),
        (Items([], "x" * 308_000), {}, "the result of commit 'charge' takes"),
        (Items([]), {"outbox": (("mail", "1" * 500_000),)}, "the record or a message"),
        (Items([{"Put": {}, "Delete": {}}]), {}, "write 0 of commit 'charge' must be"),
        (Items([{"Get": {}}]), {}, "write 0 of commit 'charge' must be"),
    ],
)
def test_limits(
    face: DynamoFace, client: Any, store: DynamoStore, items: Items, given: Any, says: str
) -> None:
    if "fence" in given:
        finish(face.start_run(new_run("r")))
    before = contents(client, store.table, "accounts")
    with pytest.raises(ValueError, match=says):
        commit(face, items, **given)
    assert contents(client, store.table, "accounts") == before


def test_as_much_as_there_is_room_for(face: DynamoFace, client: Any) -> None:
    room = face.room
    finish(face.start_run(new_run("r", input=b"x" * room.input_bytes_max)))
    outbox = tuple(("mail", f'"{n}"') for n in range(room.outbox_most))
    items = Items(
        [adding(f"room {n}") for n in range(100 - 3 - len(outbox))],
        "x" * (room.result_bytes_max - 2),
    )
    key = "\0" * 1_000
    receipt = commit(face, items, key, fence=Fence("r", 1), outbox=outbox)
    assert receipt == replace(commit(face, items, key), replayed=False)
    assert amount_of(client, "room 0") == 1
    assert len(finish(face.take_messages(["mail"], limit=100, for_s=9))) == room.outbox_most


@pytest.mark.parametrize("wrong", [[adding("a")], None, {"writes": []}])
def test_a_function_that_returns_no_items(face: DynamoFace, wrong: Any) -> None:
    with pytest.raises(TypeError, match="must return Items on DynamoDB"):
        finish(face.commit(request(), lambda _client: wrong))
    with pytest.raises(TypeError, match="must be a list"):
        commit(face, Items("Put"))  # type: ignore[arg-type]


def test_what_boto3_refuses_is_raised_as_it_is(face: DynamoFace) -> None:
    with pytest.raises(ParamValidationError):
        commit(face, Items([{"Put": {"TableName": "accounts", "Item": {"id": "A17"}}}]))
    with pytest.raises(ClientError, match="ValidationException"):
        commit(face, Items([adding("twice"), adding("twice")]))
    assert finish(face.receipt(request().key)) is None


def test_limits_of_runs(face: DynamoFace, client: Any, store: DynamoStore) -> None:
    too_much: list[tuple[dict[str, Any], str]] = [
        ({"input": b"x" * 310_000}, "the input of run 'r' takes 310000 bytes"),
        ({"context": '"' * 410_000}, "the record of run 'r' with its input and context"),
    ]
    for given, says in too_much:
        with pytest.raises(ValueError, match=says):
            finish(face.start_run(new_run("r", **given)))
    assert contents(client, store.table) == []


def test_a_turn_and_a_thread_are_bounded(face: DynamoFace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamodb_commits, "TURN_COMMITS_MOST", 2)
    for key in ("1", "2"):
        commit(face, Items([]), key)
    with pytest.raises(ValueError, match="the turn has 2 commits"):
        commit(face, Items([]), "3")
    assert [each.key for each in finish(face.receipts("thread", "turn"))] == ["1", "2"]

    monkeypatch.setattr(dynamodb_runs, "OPEN_MOST", 1)
    finish(face.start_run(new_run("r")))
    with pytest.raises(ValueError, match="1 unsettled runs"):
        finish(face.start_run(new_run("another")))


# --- what a commit's function does -----------------------------------------------


def test_a_condition_of_the_user_fails(face: DynamoFace, client: Any, store: DynamoStore) -> None:
    items = Items([adding("there", 5), adding("poor", -1, "attribute_exists(amount)")])
    before = contents(client, store.table, "accounts")
    with pytest.raises(ClientError) as caught:
        commit(face, items, outbox=(("mail", "1"),))
    assert caught.value.response["Error"]["Code"] == "TransactionCanceledException"
    assert contents(client, store.table, "accounts") == before

    client.transact_write_items(TransactItems=[adding("poor", 3)])
    assert not commit(face, items).replayed
    assert (amount_of(client, "there"), amount_of(client, "poor")) == (5, 2)


async def test_functions_of_both_kinds(store: DynamoStore, client: Any) -> None:
    loop, threads = asyncio.get_running_loop(), []

    def blocking(_client: Any) -> Items:
        threads.append(threading.current_thread())
        return Items([adding("kinds")])

    async def awaited(given: Any) -> Items:
        assert asyncio.get_running_loop() is loop
        assert given.get_item(TableName="accounts", Key={"id": {"S": "kinds"}})["Item"]
        return Items([adding("kinds")], "done")

    await store.loops.commit(request("1"), blocking)
    receipt = await store.loops.commit(request("2"), awaited)
    assert (receipt.result, amount_of(client, "kinds")) == ("done", 2)
    assert threads != [threading.main_thread()]
    with pytest.raises(TypeError, match="fn of commit 'charge' is async"):
        finish(store.blocking.commit(request("3"), awaited))


async def test_a_function_that_raises_or_is_cancelled(store: DynamoStore) -> None:
    def failing(_client: Any) -> Items:
        raise LookupError("no such account")

    async def hanging(_client: Any) -> Items:
        await asyncio.sleep(FOREVER_S)
        raise AssertionError

    for face in (store.blocking, store.loops):
        with pytest.raises(LookupError, match="no such account"):
            await face.commit(request(), failing)
    task = asyncio.create_task(store.loops.commit(request(), hanging))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.loops.receipt(request().key) is None


# --- trouble on the wire -----------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        CONFLICT,
        refused("TransactionCanceledException", "ThrottlingError"),
        refused("ThrottlingException"),
        refused("ProvisionedThroughputExceededException"),
        refused("TransactionInProgressException"),
        refused("InternalServerError", status=500),
        answer_lost,
    ],
)
def test_a_commit_is_sent_again(face: DynamoFace, wire: Wire, client: Any, trouble: Any) -> None:
    account = new_table()
    wire.plan["transact_write_items"] = [trouble] * 3
    receipt = commit(face, Items([adding(account)], "done"), outbox=(("mail", "1"),))
    assert (receipt.replayed, receipt.result, amount_of(client, account)) == (False, "done", 1)
    assert commit(face, Items([adding(account)])).replayed
    assert amount_of(client, account) == 1
    assert len(finish(face.take_messages(["mail"], limit=9, for_s=9))) == 1


def test_tokens(face: DynamoFace, wire: Wire) -> None:
    """After a refusal it is another request; while its end is unknown, it is the same."""
    wire.plan["transact_write_items"] = [CONFLICT, answer_lost, CONFLICT]
    commit(face, Items([]))
    first, second, third, fourth = (
        given["ClientRequestToken"] for name, given in wire.sent if name == "transact_write_items"
    )
    assert first != second == third == fourth


def test_twenty_lost_answers(face: DynamoFace, wire: Wire, client: Any) -> None:
    account = new_table()
    for number in range(20):
        wire.plan["transact_write_items"] = [answer_lost]
        assert not commit(face, Items([adding(account)]), str(number)).replayed
    assert amount_of(client, account) == 20
    assert len(finish(face.receipts("thread", "turn"))) == 20


def test_a_conflict_that_does_not_end(address: str, wire: Wire, client: Any) -> None:
    store = new_store(address, client=wire, session=None, patience_s=0.2)
    finish(store.blocking.setup())
    wire.always["transact_write_items"] = CONFLICT
    with pytest.raises(Unreachable, match="others change the same items"):
        commit(store.blocking, Items([adding("never")]))
    wire.always["transact_write_items"] = answer_lost
    with pytest.raises(OutcomeUnknown, match="it may have been done; call again"):
        commit(store.blocking, Items([adding("once")]))
    del wire.always["transact_write_items"]
    assert commit(store.blocking, Items([adding("once")])).replayed
    assert (amount_of(client, "never"), amount_of(client, "once")) == (0, 1)


def meanwhile(happening: Callable[[], Any], *, then: Happening | None = None) -> Happening:
    """Something is done by others between a look and the transaction."""

    def happen(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        happening()
        return then(call, parameters) if then else call(**parameters)

    return happen


@pytest.mark.parametrize(
    "told",
    [None, refused("TransactionCanceledException", "None", "None", "ConditionalCheckFailed")],
)
def test_a_condition_fails_since_another_one_just_did_it(
    address: str, face: DynamoFace, store: DynamoStore, wire: Wire, client: Any, told: Any
) -> None:
    """DynamoDB looks at items one by one: it may tell of the user's condition alone."""
    account = new_table()
    items = Items([adding(account, 1, "attribute_not_exists(amount)")], "first")
    other = DynamoStore(store.table, client=client)
    first = meanwhile(lambda: commit(other.blocking, items), then=told)
    wire.plan["transact_write_items"] = [first]
    receipt = commit(face, Items(items.writes, "second"))
    assert (receipt.result, receipt.replayed, amount_of(client, account)) == ("first", True, 1)


def test_a_run_taken_over_while_its_commit_is_on_the_way(
    face: DynamoFace, store: DynamoStore, wire: Wire, client: Any
) -> None:
    finish(face.start_run(new_run("r")))
    other = DynamoStore(store.table, client=client).blocking
    wire.plan["transact_write_items"] = [
        meanwhile(lambda: finish(other.claim_run(Fence("r", 1), "another")))
    ]
    with pytest.raises(RunTakenOver, match="'r' was taken over"):
        commit(face, Items([adding("taken")]), fence=Fence("r", 1))
    with pytest.raises(RunTakenOver):
        commit(face, Items([adding("taken")]), fence=Fence("r", 1))
    assert amount_of(client, "taken") == 0
    assert not commit(face, Items([adding("taken")]), fence=Fence("r", 2)).replayed
    assert commit(face, Items([adding("taken")]), fence=Fence("r", 1)).replayed


def test_receipts_wait_for_a_commit_that_becomes_visible(face: DynamoFace, wire: Wire) -> None:
    """The turn's list may be there a moment before the record that it names."""
    for key in ("1", "2"):
        commit(face, Items([], key), key)

    def without_the_last(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        answer = call(**parameters)
        [found] = answer["Responses"].values()
        found.pop()
        return answer

    wire.plan["batch_get_item"] = [without_the_last] * 2
    assert [each.result for each in finish(face.receipts("thread", "turn"))] == ["1", "2"]
