"""Threads moved from each kind of checkpointer to each other one, and compared by hand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.checkpoint.sqlite import SqliteSaver

from langgraph_valkey import ValkeySaver
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.moving import opaque
from langgraph_valkey.moving.copying import Copying
from langgraph_valkey.moving.ledger import Ledger
from langgraph_valkey.moving.opaque import NotCarried, Opaque
from langgraph_valkey.moving.opening import home_of
from tests.moving_ground import (
    KINDS,
    THREADS,
    Move,
    Order,
    Places,
    builder,
    fill,
    fresh,
    head_of,
    home,
    log_of,
    turn,
    whole,
)

# --- from each to each ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target"),
    [(one, other) for one in KINDS for other in KINDS if "ours" in (one, other) or one == "aws"],
)
def test_threads_are_the_same_on_both_sides(places: Places, source: str, target: str) -> None:
    origin, goal = places.make(source), places.make(target)
    before = places.saver(origin)
    fill(before, *THREADS)
    walk = Move(origin, goal).whole()
    assert (sorted(walk.verified), walk.failed) == (sorted(THREADS), {})
    after = places.saver(goal)
    for thread in THREADS:
        expected = whole(before, thread)
        assert whole(after, thread) == expected
        assert len({namespace for namespace, _ in expected}) == 2
        assert isinstance(head_of(after, thread).checkpoint["channel_values"]["order"], Order)
        assert log_of(after, thread) == log_of(before, thread) != []
        # And it goes on where it was: the interrupt is answered, and another turn follows.
        # AWS's saver orders parallel writes as they came, which differs from run to run.
        in_order = sorted if "aws" in (source, target) else list
        gone_on = [turn(saver, thread, approved=True)["log"] for saver in (before, after)]
        assert in_order(gone_on[0]) == in_order(gone_on[1])


def test_between_databases(places: Places) -> None:
    origin, middle, goal = places.make("postgres"), places.make("sqlite"), places.make("postgres")
    before = places.saver(origin)
    fill(before, *THREADS)
    for one, other in ((origin, middle), (middle, goal)):
        assert len(Move(one, other).whole().verified) == 2
    after = places.saver(goal)
    assert all(whole(after, thread) == whole(before, thread) for thread in THREADS)


def paths_of(place: str, thread: str) -> set[str]:
    with closing(home(place, writes=False)) as opened:
        return {task.path for cargo in opened.cargoes(thread) for task in cargo.tasks}


def test_paths_of_tasks_are_kept(places: Places) -> None:
    """By which what comes later is put in order beside what was moved."""
    origin, middle, goal = places.make("ours"), places.make("postgres"), places.make("sqlite")
    fill(places.saver(origin), "t")
    expected = paths_of(origin, "t")
    assert any("first" in path for path in expected)
    for one, other in ((origin, middle), (middle, goal)):
        Move(one, other).whole()
        assert paths_of(other, "t") == expected


# --- objects -------------------------------------------------------------------------------


def test_objects_are_carried_without_their_classes(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangGraph's serializer alone would make a dict of an object that it can't import."""
    origin, goal = places.make("ours"), places.make("sqlite")
    fill(places.saver(origin), "t")
    plain = JsonPlusSerializer()
    stored = plain.dumps_typed(Order("1", 2))
    monkeypatch.delattr("tests.moving_ground.Order")
    assert plain.loads_typed(stored) == {"number": "1", "cents": 2}
    assert len(Move(origin, goal).whole().verified) == 1
    monkeypatch.undo()
    order = head_of(places.saver(goal), "t").checkpoint["channel_values"]["order"]
    assert order == Order("1001", 4500)


def test_nothing_is_imported_for_what_is_read() -> None:
    stored = JsonPlusSerializer().dumps_typed([Order("1", 2), {"a": {Order("3", 4).number}}])
    serde = Opaque()
    assert serde.loads_typed(serde.dumps_typed(_DeltaSnapshot([1]))) == _DeltaSnapshot([1])
    held = serde.loads_typed(stored)
    assert not isinstance(held[0], Order)
    assert serde.dumps_typed(held) == stored
    assert opaque.shown(serde, held) == [
        {"tests.moving_ground.Order": {"number": "1", "cents": 2}},
        {"a": {"builtins.set": ["3"]}},
    ]


@pytest.mark.parametrize(
    "serde",
    [
        JsonPlusSerializer(pickle_fallback=True),
        type("Theirs", (JsonPlusSerializer,), {"dumps_typed": lambda *_: ("x", b"")})(),
    ],
)
def test_serializers_that_only_the_program_knows(serde: Any) -> None:
    assert opaque.opaque(serde) is None


def test_json_of_early_releases_is_refused() -> None:
    stored = ("json", b'{"lc": 2, "type": "constructor", "id": ["decimal", "Decimal"], "args": []}')
    with pytest.raises(NotCarried, match="early release"):
        Opaque().loads_typed(stored)
    assert Opaque().loads_typed(("json", b'{"plain": [1]}')) == {"plain": [1]}


# --- encrypted -----------------------------------------------------------------------------


def encrypting() -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")


def test_encrypted_threads_are_carried_without_their_keys(places: Places) -> None:
    origin, goal = places.make("ours"), places.make("ours")
    given: dict[str, Any] = {"serde": encrypting(), "digest_key": b"k" * 32}
    with (
        ValkeySaver.from_url(origin, **given) as before,
        ValkeySaver.from_url(goal, **given) as after,
    ):
        fill(before, "t")
        assert len(Move(origin, goal).whole().verified) == 1
        assert whole(after, "t") == whole(before, "t")
        # Into a database its values have to be read: that needs the keys.
        move = Move(origin, places.make("sqlite"))
        with pytest.raises(ConfigurationError, match="encrypted"):
            move.copying.catch_up()
        move.close()
        moved = home_of(before, name="shop:saver", writes=False)
        with closing(moved), closing(home(places.make("sqlite"))) as clear:
            copying = Copying(moved, clear, Ledger(None, ("a", "b")))
            assert len(copying.verify().verified) == 1


# --- forks -----------------------------------------------------------------------------------


def forked(places: Places) -> tuple[str, BaseCheckpointSaver[Any], str, str]:
    """A thread with a branch beside its head, of a higher id: what a failover may leave."""
    twin, origin = places.make("ours"), places.make("ours")
    saver = places.saver(twin)
    fill(saver, "t")
    before = head_of(saver, "t")
    graph = builder().compile(checkpointer=saver)
    assert before.parent_config is not None
    graph.update_state(before.parent_config, {"plain": "branch"}, as_node="take")
    branch = head_of(saver, "t").checkpoint["id"]
    with closing(home(twin)) as source, closing(home(origin)) as goal:
        heads = {**source.heads("t"), "": before.checkpoint["id"]}
        goal.put("t", source.cargoes("t"), heads)
    return origin, places.saver(origin), before.checkpoint["id"], branch


def test_a_fork_is_carried_with_its_head(places: Places) -> None:
    origin, before, head, branch = forked(places)
    assert head_of(before, "t").checkpoint["id"] == head < branch
    goal = places.make("ours")
    assert Move(origin, goal).whole().verified == ["t"]
    after = places.saver(goal)
    assert head_of(after, "t").checkpoint["id"] == head
    assert whole(after, "t") == whole(before, "t")


def test_a_fork_is_not_carried_to_where_it_would_go_on_from_the_branch(places: Places) -> None:
    origin, _, head, branch = forked(places)
    goal = places.make("sqlite")
    walk = Move(origin, goal).whole()
    assert walk.verified == []
    assert head in walk.failed["t"]
    assert branch in walk.failed["t"]
    with closing(home(goal)) as opened:
        assert ("", branch) not in opened.addresses("t")


# --- delta channels ----------------------------------------------------------------------------


def test_a_delta_channel_whose_ancestor_is_gone_is_refused(places: Places) -> None:
    origin, goal = places.make("sqlite"), places.make("ours")
    before = places.saver(origin)
    fill(before, "t")
    oldest = min(found.checkpoint["id"] for found in before.list(None))
    with closing(sqlite3.connect(origin.removeprefix("sqlite:///"))) as database, database:
        database.execute("DELETE FROM checkpoints WHERE checkpoint_id = ?", (oldest,))
    walk = Move(origin, goal).whole()
    assert walk.verified == []
    assert "DeltaChannel (log)" in walk.failed["t"]
    assert oldest in walk.failed["t"]


def test_a_delta_channel_that_the_target_rebuilds_otherwise_is_told(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, goal, before = fresh(places, "sqlite")
    turn(before, "t", approved=True)  # So that something was written since the last snapshot.
    rebuilt = SqliteSaver.get_delta_channel_history

    def longer(self: Any, **given: Any) -> Any:
        found = rebuilt(self, **given)
        more = ("task", "log", ["more"])
        return {name: {**each, "writes": [*each["writes"], more]} for name, each in found.items()}

    monkeypatch.setattr(SqliteSaver, "get_delta_channel_history", longer)
    walk = Move(origin, goal).whole()
    assert "DeltaChannel" in walk.failed["t"]
