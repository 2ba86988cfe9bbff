"""Walks: what changes while threads are moved, and what is at the target already."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.moving.ledger import Ledger
from langgraph_valkey.moving.our_homes import RawHome
from tests.moving_ground import (
    Move,
    Places,
    fill,
    fresh,
    head_of,
    turn,
    whole,
)

# --- what is at the target already -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "sqlite"])
def test_what_others_put_there_is_not_touched(places: Places, kind: str) -> None:
    origin, goal, before = fresh(places, kind)
    after = places.saver(goal)
    turn(after, "t")
    theirs = whole(after, "t")
    walk = Move(origin, goal).whole()
    assert (walk.taken, walk.verified) == (["t"], [])
    assert whole(after, "t") == theirs
    assert Move(origin, goal, overwrite=True).whole().verified == ["t"]
    assert whole(after, "t") == whole(before, "t")


@pytest.mark.parametrize("kind", ["ours", "postgres"])
def test_a_thread_that_went_on_at_the_target_is_not_turned_back(places: Places, kind: str) -> None:
    """Somebody calls it again after the cut-over."""
    origin, goal, _ = fresh(places, kind)
    assert Move(origin, goal).whole().verified == ["t"]
    after = places.saver(goal)
    turn(after, "t")
    gone_on = whole(after, "t")
    assert Move(origin, goal).whole().taken == ["t"]
    assert whole(after, "t") == gone_on


def test_what_is_the_same_already_is_taken_for_copied(places: Places) -> None:
    """The ledger of an earlier migration is gone."""
    origin, goal, _ = fresh(places)
    Move(origin, goal).whole()
    move = Move(origin, goal)
    assert move.copying.catch_up().copied == []
    assert move.copying.verify().verified == ["t"]
    move.close()


# --- while it goes on ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "sqlite"])
def test_a_walk_brings_what_changed_since_the_last(places: Places, kind: str) -> None:
    origin, goal, before = fresh(places, kind)
    fill(before, "pruned", "deleted")
    move = Move(origin, goal)
    assert sorted(move.copying.catch_up().copied) == ["deleted", "pruned", "t"]
    assert move.copying.catch_up().is_quiet
    turn(before, "t", approved=True)
    turn(before, "new")
    before.delete_thread("deleted")
    before.prune(["pruned"])
    before.put_writes(head_of(before, "pruned").config, [("plain", "late")], "task", "path")
    walk = move.copying.catch_up()
    assert sorted(walk.copied) == ["new", "pruned", "t"]
    assert walk.deleted == ["deleted"]
    assert sorted(move.copying.verify().verified) == ["new", "pruned", "t"]
    move.close()
    after = places.saver(goal)
    assert after.get_tuple({"configurable": {"thread_id": "deleted"}}) is None
    for thread in ("t", "new", "pruned"):
        assert whole(after, thread) == whole(before, thread)


def test_writes_on_an_old_checkpoint_are_found_by_verifying(places: Places) -> None:
    origin, goal, before = fresh(places)
    move = Move(origin, goal)
    move.copying.catch_up()
    oldest = min(
        before.list({"configurable": {"thread_id": "t"}}), key=lambda c: c.checkpoint["id"]
    )
    before.put_writes(oldest.config, [("plain", "late")], "task", "path")
    move.copying.catch_up()
    assert move.copying.verify().verified == ["t"]
    move.close()
    assert whole(places.saver(goal), "t") == whole(before, "t")


def test_what_is_sent_twice_is_stored_once(places: Places, valkey: LocalValkey) -> None:
    """The last checkpoints go again with each walk, with their writes."""
    origin, goal, before = fresh(places)
    move = Move(origin, goal)
    move.copying.catch_up()
    turn(before, "t", approved=True)
    for _ in range(3):
        move.ledger.note("t", "begun")
        move.copying.catch_up()
    assert isinstance(move.ends[0], RawHome)
    assert move.ends[1].prints("t") == move.ends[0].prints("t")
    move.close()


def test_a_thread_that_is_being_written_is_not_called_verified(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, goal, before = fresh(places)
    move = Move(origin, goal)
    move.copying.catch_up()
    prints = move.ends[1].prints

    def meanwhile(thread: str) -> Any:
        turn(before, thread)
        return prints(thread)

    monkeypatch.setattr(move.ends[1], "prints", meanwhile)
    walk = move.copying.verify()
    assert (walk.changing, walk.verified) == (["t"], [])
    move.close()


def test_a_target_that_gives_something_else_back_is_told(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, goal, _ = fresh(places, "sqlite")
    move = Move(origin, goal)
    put: Callable[..., Any] = SqliteSaver.put

    def forgetful(self: Any, config: Any, checkpoint: Any, *rest: Any) -> Any:
        checkpoint["channel_values"].pop("plain", None)
        return put(self, config, checkpoint, *rest)

    monkeypatch.setattr(SqliteSaver, "put", forgetful)
    walk = move.copying.verify()
    move.close()
    assert "not the same on both sides" in walk.failed["t"]
    assert walk.verified == []


# --- the ledger --------------------------------------------------------------------------------


def test_a_ledger_is_of_one_migration_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, ("a", "b"))
    ledger.note("t\ud800", "copied", "mark", "goal")
    with pytest.raises(ConfigurationError, match="another migration uses it"):
        Ledger(path, ("a", "b"))
    ledger.close()
    with pytest.raises(ConfigurationError, match="between other places"):
        Ledger(path, ("a", "c"))
    again = Ledger(path, ("a", "b"))
    assert (again.threads(), again.get("t\ud800")) == (["t\ud800"], ("copied", "mark", "goal"))
    again.close(done=True)
    assert not path.exists()
    path.write_bytes(os.urandom(4096))
    with pytest.raises(ConfigurationError, match="something else"):
        Ledger(path, ("a", "b"))
