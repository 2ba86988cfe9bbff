"""Commits at the door: what is refused says why, and nothing is written by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from sqlalchemy import Connection, text

from langgraph_valkey import CommitConflict, limits
from langgraph_valkey.commits.commit import commit
from langgraph_valkey.commits.turns import Turn, config_of, turn_of
from langgraph_valkey.link import finish
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.records import Fence, Outgoing, Receipt, Run
from langgraph_valkey.sql.store import SqlStore

TURN = Turn("thread", "turn", None, "sync", "")
NOWHERE = Turn("", "", None, "", "")


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    """An embedded store, with a table of the caller's."""
    store = SqlStore(f"sqlite:///{tmp_path}/primary.db")
    finish(store.blocking.setup())
    store.engine.dispose()
    yield store.blocking
    store.close()


def committed(
    primary: Primary,
    turn: Turn = TURN,
    op: Any = "charge",
    key: Any = "1001",
    payload: Any = None,
    fn: Any = lambda _: "done",
    **given: Any,
) -> Receipt:
    """Commit, with what a test leaves out filled in."""
    asked = {"scope": "turn", "on_mismatch": "raise", "outbox": ()} | given
    return finish(commit(primary, turn, op, key, payload, fn, **asked))


def never(_: Connection) -> None:
    """A function that must not be called."""
    raise AssertionError("it was called")


def test_the_second_time_gives_the_first_ones_receipt(primary: Primary) -> None:
    first = committed(primary, payload={"cents": 5}, fn=lambda _: {"charged": 5})
    again = committed(primary, payload={"cents": 5}, fn=never)
    assert (first.replayed, again.replayed) == (False, True)
    assert first.result == again.result == {"charged": 5}
    assert first.committed_at == again.committed_at
    assert first.committed_at.tzinfo is not None


@pytest.mark.parametrize(
    ("scope", "same", "another"),
    [
        ("turn", TURN, [TURN._replace(turn_id="next"), TURN._replace(thread_id="other")]),
        ("thread", TURN._replace(turn_id="next"), [TURN._replace(thread_id="other")]),
        ("global", NOWHERE, []),
    ],
)
def test_a_key_is_one_within_its_scope(
    primary: Primary, scope: str, same: Turn, another: list[Turn]
) -> None:
    assert not committed(primary, scope=scope).replayed
    assert committed(primary, same, scope=scope).replayed
    for turn in another:
        assert not committed(primary, turn, scope=scope).replayed
    assert not committed(primary, op="refund", scope=scope).replayed
    assert not committed(primary, key="1002", scope=scope).replayed


def test_another_payload_is_a_conflict(primary: Primary) -> None:
    committed(primary, payload={"cents": 5}, fn=lambda _: "first")
    with pytest.raises(CommitConflict, match="return_first") as caught:
        committed(primary, payload={"cents": 6}, fn=never)
    assert (caught.value.op, caught.value.key) == ("charge", "1001")
    taken = committed(primary, payload={"cents": 6}, fn=never, on_mismatch="return_first")
    assert (taken.result, taken.replayed) == ("first", True)


def test_equal_payloads_are_equal_however_they_are_written(primary: Primary) -> None:
    committed(primary, payload={"a": 1, "b": [1, 2]})
    assert committed(primary, payload={"b": (1, 2), "a": 1}).replayed


@pytest.mark.parametrize(
    ("given", "kind", "hint"),
    [
        ({"key": None}, TypeError, "order's number"),
        ({"key": 17}, TypeError, "must be a text"),
        ({"key": ""}, ValueError, "is empty"),
        ({"key": "k" * (limits.KEY_LENGTH_MAX + 1)}, ValueError, "at most 1024"),
        ({"op": ""}, ValueError, "is empty"),
        ({"turn": TURN._replace(turn_id="")}, ValueError, "'turn_id': request_id"),
        ({"turn": NOWHERE, "scope": "thread"}, ValueError, "scope='global'"),
        ({"scope": "run"}, ValueError, "'turn', 'thread' or 'global'"),
        ({"on_mismatch": "ignore"}, ValueError, "return_first"),
        ({"fn": "charge"}, TypeError, "gets the transaction"),
        ({"payload": {1: 2}}, TypeError, "a key that is no text"),
        ({"payload": float("nan")}, TypeError, "NaN"),
        ({"payload": [b"secret"]}, TypeError, "holds a bytes"),
        ({"payload": "x" * limits.PAYLOAD_BYTES_MAX}, ValueError, "takes 1048578 bytes"),
        ({"outbox": [Outgoing("", 1)]}, ValueError, "topic"),
        ({"outbox": [Outgoing("mail", object())]}, TypeError, "a message of commit 'charge'"),
        ({"outbox": [Outgoing("mail", 1)] * 10_000}, ValueError, "10000 messages"),
    ],
)
def test_what_can_not_be_used_is_refused_at_the_door(
    primary: Primary, given: dict[str, Any], kind: type[Exception], hint: str
) -> None:
    with pytest.raises(kind, match=hint) as caught:
        committed(primary, **{"fn": never, **given})
    assert "secret" not in str(caught.value)
    assert not committed(primary).replayed  # Nothing was written.


def test_a_payload_that_holds_itself_is_refused(primary: Primary) -> None:
    payload: list[Any] = []
    payload.append(payload)
    with pytest.raises(ValueError, match="holds itself"):
        committed(primary, payload=payload, fn=never)


@pytest.mark.parametrize("result", [object(), {1: 2}, float("inf"), b"bytes"])
def test_a_result_that_json_can_not_hold_undoes_all(primary: Primary, result: Any) -> None:
    def fn(connection: Connection) -> Any:
        connection.execute(text("CREATE TABLE made (x INTEGER)"))
        return result

    with pytest.raises(TypeError, match="result of commit 'charge'"):
        committed(primary, fn=fn)
    assert committed(primary, fn=tables).result == 0


def tables(connection: Connection) -> Any:
    """How many tables of that name there are."""
    found = "SELECT count(*) FROM sqlite_master WHERE name = 'made'"
    return connection.execute(text(found)).scalar()


AWKWARD = ["a\0b", "\ud800", "'; DROP TABLE lgv_commits; --", "{}*[]:", "ключ", "k" * 1024]


@pytest.mark.parametrize("name", AWKWARD, ids=range(len(AWKWARD)))
@pytest.mark.parametrize("where", ["key", "thread", "turn", "payload"])
def test_any_characters_will_do(primary: Primary, name: str, where: str) -> None:
    given: dict[str, Callable[[], Receipt]] = {
        "key": lambda: committed(primary, key=name),
        "thread": lambda: committed(primary, TURN._replace(thread_id=name)),
        "turn": lambda: committed(primary, TURN._replace(turn_id=name)),
        "payload": lambda: committed(primary, payload=name, fn=lambda _: name),
    }
    first, again = given[where](), given[where]()
    assert (first.replayed, again.replayed) == (False, True)
    assert first.result == again.result


def test_where_one_text_ends_and_the_next_begins_counts(primary: Primary) -> None:
    committed(primary, TURN._replace(thread_id="ab", turn_id="c"))
    assert not committed(primary, TURN._replace(thread_id="a", turn_id="bc")).replayed


RUN = Run(
    run_id="run",
    thread_id="thread",
    turn_id="turn",
    graph="graph",
    face="sync",
    input=b"",
    input_sha256="",
    context="{}",
    number=1,
    attempt=3,
    owner="owner",
    owner_alive=True,
    state="running",
    outcome="",
    head="",
    writes=0,
    started_s=0.0,
    ended_s=None,
)


def test_a_turn_is_read_from_a_config() -> None:
    config = config_of(RUN, {"configurable": {"thread_id": "of another"}, "tags": ["kept"]})
    assert turn_of(config) == Turn("thread", "turn", Fence("run", 3), "", "")
    assert (config["tags"], config["metadata"]["run_id"]) == (["kept"], "run")
    assert turn_of({"configurable": {"thread_id": 0}})[:3] == ("0", "", None)
    assert turn_of(None) == NOWHERE


def test_a_superseded_attempt_is_told_though_a_node_has_metadata_of_its_own() -> None:
    tool: Any = RunnableLambda(lambda _: turn_of())
    node: Any = RunnableLambda(lambda _: tool.invoke(0, {"metadata": {"run_id": "of a trace"}}))
    assert node.invoke(0, config_of(RUN, {})).fence == Fence("run", 3)


@pytest.mark.parametrize(("thread", "fence"), [("thread", Fence("run", 3)), ("other", None)])
def test_a_config_of_the_callers_own_is_still_of_the_run(thread: str, fence: Fence | None) -> None:
    own: Any = {"configurable": {"thread_id": thread, "turn_id": "turn"}}
    node: Any = RunnableLambda(lambda _: turn_of(own))
    assert node.invoke(0, config_of(RUN, {})).fence == fence
