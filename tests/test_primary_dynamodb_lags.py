"""Runs, messages and upkeep on DynamoDB where answers are lost, or an index lags.

See `test_primary_dynamodb`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from langgraph_valkey.dynamodb.items import key_of, plain
from langgraph_valkey.dynamodb.sizes import item_bytes
from langgraph_valkey.dynamodb.store import DynamoFace, DynamoStore, Items
from langgraph_valkey.link import finish
from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
    Fence,
    NewRun,
    Purged,
    RunEnd,
    Started,
)
from tests.dynamo_ground import (
    Happening,
    Wire,
    answer_lost,
    dynamo_server,
    made_up_client,
    new_store,
    refused,
)

CONFLICT = refused("TransactionCanceledException", "TransactionConflict")
FINISHED = RunEnd("finished", "head", 0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with dynamo_server() as served:
        yield served


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with closing(made_up_client(address)) as opened:
        yield opened


@pytest.fixture
def wire(client: Any) -> Wire:
    return Wire(client)


@pytest.fixture
def face(address: str, wire: Wire) -> DynamoFace:
    """The blocking face of a store whose wire a test may break."""
    made = new_store(address, client=wire, session=None)
    finish(made.blocking.setup())
    return made.blocking


def new_run(run_id: str, thread_id: str = "thread", owner: str = "me") -> NewRun:
    return NewRun(run_id, thread_id, "turn", "agent", "sync", b"in", "{}", owner)


def commit(face: DynamoFace, key: str, *topics: str) -> None:
    named = CommitKey("charge", key, "turn", "thread", "turn")
    outbox = tuple((topic, "1") for topic in topics)
    request = CommitRequest(named, "0" * 64, "thread", "turn", outbox=outbox)
    finish(face.commit(request, lambda _client: Items([])))


# --- answers that are lost ---------------------------------------------------------


@pytest.mark.parametrize("trouble", [answer_lost, CONFLICT])
def test_runs_over_a_bad_wire(face: DynamoFace, wire: Wire, trouble: Happening) -> None:
    def bad(method: str = "transact_write_items") -> None:
        wire.plan[method] = [trouble]

    bad()
    started = finish(face.start_run(new_run("1")))
    assert started.is_new
    assert started.run is not None
    bad()
    claimed = finish(face.claim_run(Fence("1", 1), "me"))
    assert claimed is not None
    assert (claimed.attempt, claimed.owner) == (2, "me")
    bad("update_item")
    assert finish(face.end_run(Fence("1", 2), FINISHED))
    bad()
    assert finish(face.start_run(new_run("2"))) == Started(
        finish(face.run("2")),
        True,
        (finish(face.run("1")),),  # type: ignore[arg-type]
    )
    bad()
    assert finish(face.end_run(Fence("2", 1), RunEnd("failed", "", 0)))
    bad()
    finish(face.settle_runs([Fence("1", 2)]))
    assert [finish(face.run(name)).state for name in "12"] == ["settled"] * 2  # type: ignore[union-attr]
    bad("update_item")
    lease = finish(face.acquire("report", "me", 9))
    assert lease is not None
    assert lease.token == 1


def test_begun_by_another_one_meanwhile(face: DynamoFace, wire: Wire) -> None:
    """Each sees what the one before him began, or it would run beside it."""
    finish(face.alive("me", 99))

    def overtaken(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        assert finish(face.start_run(new_run("first"))).is_new
        return call(**parameters)

    wire.plan["transact_write_items"] = [overtaken]
    started = finish(face.start_run(new_run("second")))
    assert (started.run, [run.run_id for run in started.before]) == (None, ["first"])


def test_claimed_by_another_one_meanwhile(face: DynamoFace, wire: Wire) -> None:
    finish(face.start_run(new_run("first", owner="dead")))
    finish(face.alive("other", 99))

    def overtaken(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        assert finish(face.claim_run(Fence("first", 1), "other"))
        return call(**parameters)

    wire.plan["transact_write_items"] = [overtaken]
    assert finish(face.claim_run(Fence("first", 1), "me")) is None


def test_an_owner_comes_back_meanwhile(face: DynamoFace, wire: Wire) -> None:
    finish(face.start_run(new_run("first", owner="silent")))

    def back(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        finish(face.alive("silent", 99))
        return call(**parameters)

    wire.plan["transact_write_items"] = [back]
    assert finish(face.claim_run(Fence("first", 1), "me")) is None


def test_claimed_while_another_run_begins(face: DynamoFace, wire: Wire) -> None:
    """The new run would have gone past one that was dead when it looked."""
    finish(face.start_run(new_run("first", owner="dead")))
    finish(face.alive("me", 99))

    def claimed(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        assert finish(face.claim_run(Fence("first", 1), "me"))
        return call(**parameters)

    wire.plan["transact_write_items"] = [claimed]
    started = finish(face.start_run(new_run("second")))
    assert (started.run, [run.attempt for run in started.before]) == (None, [2])


# --- what lags, and what comes in part ----------------------------------------------


def test_an_index_that_lags(face: DynamoFace, wire: Wire) -> None:
    """It still names what was settled, sent, given up or taken; the table knows better."""
    for name in ("1", "2"):
        finish(face.start_run(new_run(name, f"thread of {name}")))
    commit(face, "A17", "mail", "mail", "mail")
    pages: dict[str, Any] = {}

    def query(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        asked = parameters["ExpressionAttributeValues"][":list"]["S"]
        if parameters["ExpressionAttributeValues"][":after"]["S"] != " ":
            return {"Items": []}
        return pages.setdefault(asked, call(**parameters))

    wire.always["query"] = query
    assert {run.run_id for run in finish(face.unsettled_runs(limit=9))} == {"1", "2"}
    message, dead = finish(face.take_messages(["mail"], limit=2, for_s=99))
    finish(face.end_run(Fence("1", 1), RunEnd("failed", "", 0)))
    finish(face.sent_messages([message.id]))
    finish(face.failed_message(dead.id, "no such address", None))
    assert [run.run_id for run in finish(face.unsettled_runs(limit=9))] == ["2"]
    [other] = finish(face.take_messages(["mail"], limit=9, for_s=99))
    assert other.id not in (message.id, dead.id)
    assert finish(face.take_messages(["mail"], limit=9, for_s=99)) == []


def test_answers_in_part(face: DynamoFace, wire: Wire) -> None:
    for number in range(3):
        finish(face.start_run(new_run(f"{number}", f"thread {number}")))

    def some(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        [(table, wanted)] = parameters["RequestItems"].items()
        rest = {**wanted, "Keys": wanted["Keys"][1:]}
        answer = call(RequestItems={table: {**wanted, "Keys": wanted["Keys"][:1]}})
        return {**answer, "UnprocessedKeys": {table: rest}}

    def none(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        return {"Responses": {}, "UnprocessedKeys": parameters["RequestItems"]}

    def none_deleted(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        return {"UnprocessedItems": parameters["RequestItems"]}

    wire.plan["batch_get_item"] = [some, none, none, some]
    assert len(finish(face.unsettled_runs(limit=9))) == 3
    commit(face, "A17", "mail", "mail")
    ids = [each.id for each in finish(face.take_messages(["mail"], limit=9, for_s=0))]
    wire.plan["batch_write_item"] = [none_deleted] * 2
    finish(face.sent_messages([*ids, "no such message", "0" * 64 + "-999"]))
    assert finish(face.take_messages(["mail"], limit=9, for_s=0)) == []


def test_settling_many(face: DynamoFace, wire: Wire) -> None:
    """More than one transaction takes, of one thread and of many; one has gone on."""
    names = {f"{n}": "thread" if n < 10 else f"thread {n}" for n in range(60)}
    for name, thread in names.items():
        finish(face.start_run(new_run(name, thread)))
        finish(face.end_run(Fence(name, 1), FINISHED))
    fences = [Fence(name, 1) for name in names] + [Fence("no such run", 1)]

    def one_goes_on(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        finish(face.claim_run(Fence("7", 1), "me"))
        return call(**parameters)

    wire.plan["transact_write_items"] = [one_goes_on]
    assert finish(face.settle_runs(fences)) == 59
    assert [run.run_id for run in finish(face.unsettled_runs(limit=300))] == ["7"]
    assert [run.run_id for run in finish(face.unsettled_runs(thread_id="thread", limit=9))] == ["7"]
    assert finish(face.purge(-1)) == Purged(commits=0, runs=59, tombstones=0)


def test_a_thread_counts_on_while_a_run_is_unsettled(face: DynamoFace) -> None:
    finish(face.start_run(new_run("1")))
    finish(face.start_run(new_run("2")))
    finish(face.end_run(Fence("2", 1), RunEnd("failed", "", 0)))
    assert finish(face.purge(-1)).runs == 1
    assert [run.run_id for run in finish(face.unsettled_runs(thread_id="thread", limit=9))] == ["1"]
    started = finish(face.start_run(new_run("3")))
    assert started.run is not None
    assert started.run.number == 3


def test_what_is_dropped_and_what_is_kept(face: DynamoFace, client: Any) -> None:
    commit(face, "sent")
    commit(face, "waiting", "mail")
    finish(face.alive("dead", 0))
    finish(face.alive("me", 99))
    finish(face.start_run(new_run("1")))
    finish(face.end_run(Fence("1", 1), RunEnd("failed", "", 0)))
    finish(face.start_run(new_run("2", "another thread")))
    finish(face.acquire("report", "me", 0))
    finish(face.buried(finish(face.bury("thread")), "1-stamp"))
    assert finish(face.purge(99)) == Purged(commits=0, runs=0, tombstones=0)
    assert finish(face.purge(-1)) == Purged(commits=1, runs=1, tombstones=1)
    items = client.scan(TableName=face._table.name)["Items"]
    kinds = sorted(item["sk"]["S"].partition("#")[0] for item in items)
    assert kinds == ["commit", "lease", "message", "owner", "run", "thread", "turn", "version"]
    [lease] = [finish(face.acquire("report", "another", 9))]
    assert lease is not None
    assert lease.token == 2


@pytest.mark.parametrize("kept", [(), ("mail",)])
def test_a_commit_made_while_lists_are_dropped_is_listed(
    face: DynamoFace, wire: Wire, kept: tuple[str, ...]
) -> None:
    """Its turn had none left, or one that is kept."""
    commit(face, "old")
    if kept:
        commit(face, "kept", *kept)

    def meanwhile(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        commit(face, "new")
        return call(**parameters)

    wire.plan["update_item" if kept else "delete_item"] = [meanwhile]
    assert finish(face.purge(0)).commits == 1
    turn = finish(face._table.get(key_of("turn", "thread", "turn")))
    assert turn is not None
    new = CommitKey("charge", "new", "turn", "thread", "turn")
    assert bytes.fromhex(new.id) in plain(turn)["commits"]
    assert wire.plan == {"update_item" if kept else "delete_item": []}


# --- clocks, and sizes ---------------------------------------------------------------


def test_clocks_that_differ(address: str, face: DynamoFace, client: Any) -> None:
    """What has just run out by this machine's clock may hold by another one's."""
    table = face._table.name
    careful = DynamoStore(table, client=client, skew_s=5).blocking
    assert finish(face.acquire("report", "me", 0))
    assert finish(careful.acquire("report", "another", 9)) is None
    assert finish(face.acquire("report", "another", 9))

    [lease] = [finish(face.acquire("of a moment", "me", 0))]
    assert lease is not None
    assert not finish(face.renew(lease, "me")), "its time had run out"

    finish(face.alive("me", 0.000001))
    finish(face.start_run(new_run("1")))
    assert finish(careful.claim_run(Fence("1", 1), "another")) is None
    assert finish(face.claim_run(Fence("1", 1), "another"))


def test_a_name_that_was_used_up(face: DynamoFace) -> None:
    """A request that comes late must not take what its holder has given back."""
    lease = finish(face.acquire("report", "me", 9))
    assert lease == finish(face.acquire("report", "me", 9))
    assert lease is not None
    finish(face.release(lease, "me"))
    assert finish(face.acquire("report", "me", 9)) is None
    assert finish(face.acquire("report", "another", 9))


def test_all_in_one_moment(face: DynamoFace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face._table, "now", lambda: 1_800_000_000.25)
    commit(face, "A17", *["mail"] * 30)
    taken = [finish(face.take_messages(["mail"], limit=20, for_s=9)) for _ in range(3)]
    assert [len(messages) for messages in taken] == [20, 10, 0]
    for number in range(5):
        finish(face.start_run(new_run(f"{number}", f"thread {number}")))
    after, found = None, []
    while runs := finish(face.unsettled_runs(after=after, limit=2)):
        after = (runs[-1].started_s, runs[-1].run_id)
        found += [run.run_id for run in runs]
    assert sorted(found) == list("01234")
    finish(face.sent_messages([message.id for message in (*taken[0], *taken[1])]))
    assert finish(face.purge(0)).commits == 1


def test_sizes_as_documented() -> None:
    item = {
        "pk": {"S": "tür"},
        "n": {"N": "12345"},
        "b": {"B": b"123"},
        "m": {"M": {"a": {"L": [{"BOOL": True}, {"NULL": True}]}}},
        "s": {"SS": ["ab", "c"]},
    }
    assert item_bytes(item) == (2 + 4) + (1 + 4) + (1 + 3) + (1 + 3 + 2 + 3 + 4) + (1 + 3)
    assert item_bytes({"a": {"B": "no bytes"}, "b": "no value"}) == 1 + 1
