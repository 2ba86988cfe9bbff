"""Walks: what changes while threads are moved, and what is at the target already."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from langgraph_valkey.errors import ConfigurationError, Unreachable
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.moving.ledger import Ledger
from langgraph_valkey.moving.our_homes import RawHome
from tests.faces import checkpoint, config, metadata, numbered_id
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
    fill(before, "deleted", "pruned")
    turn(before, "pruned", approved=True)
    move = Move(origin, goal)
    assert sorted(move.copying.catch_up().copied) == ["deleted", "pruned", "t"]
    assert move.copying.catch_up().is_quiet
    turn(before, "t", approved=True)
    turn(before, "new")
    before.delete_thread("deleted")
    long = len(move.ends[0].addresses("pruned"))
    before.prune(["pruned"])
    assert len(move.ends[0].addresses("pruned")) < long
    before.put_writes(head_of(before, "pruned").config, [("plain", "late")], "task", "path")
    walk = move.copying.catch_up()
    assert sorted(walk.copied) == ["new", "pruned", "t"]
    assert walk.deleted == ["deleted"]
    assert set(move.ends[1].addresses("pruned")) == set(move.ends[0].addresses("pruned"))
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


def test_a_target_that_would_go_on_from_another_checkpoint_is_told(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, goal, before = fresh(places)
    move = Move(origin, goal)
    monkeypatch.setattr(move.ends[1], "heads", lambda _: {"": "another"})
    walk = move.copying.verify()
    move.close()
    head = head_of(before, "t").checkpoint["id"]
    assert f"would go on from 'another', and goes on from {head!r}" in walk.failed["t"]


# --- what else may happen ----------------------------------------------------------------------


def test_writes_on_the_last_checkpoint_come_with_the_next_walk(places: Places) -> None:
    origin, goal, before = fresh(places, "sqlite")
    move = Move(origin, goal)
    move.copying.catch_up()
    before.put_writes(head_of(before, "t").config, [("plain", "late")], "task", "path")
    assert move.copying.catch_up().copied == ["t"]
    move.close()
    assert whole(places.saver(goal), "t") == whole(before, "t")


def test_what_others_changed_is_not_copied_over(places: Places) -> None:
    origin, goal, before = fresh(places)
    move = Move(origin, goal)
    move.copying.catch_up()
    after = places.saver(goal)
    for saver in (before, after):
        turn(saver, "t")
    theirs = whole(after, "t")
    assert move.copying.catch_up().taken == ["t"]
    assert move.copying.verify().taken == ["t"]
    move.close()
    assert whole(after, "t") == theirs


def test_what_others_changed_is_not_deleted_with_the_source(places: Places) -> None:
    origin, goal, before = fresh(places)
    move = Move(origin, goal)
    move.copying.catch_up()
    after = places.saver(goal)
    turn(after, "t")
    before.delete_thread("t")
    walk = move.copying.catch_up()
    move.close()
    assert (walk.taken, walk.deleted) == (["t"], [])
    assert whole(after, "t")


def test_a_thread_that_was_cut_off_in_the_middle_goes_on(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands at the target then is this migration's own."""
    origin, goal, before = fresh(places, "sqlite")
    move = Move(origin, goal)
    put: Callable[..., Any] = SqliteSaver.put
    left = [3]

    def breaking(self: Any, *given: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise sqlite3.OperationalError("disk I/O error")
        return put(self, *given)

    monkeypatch.setattr(SqliteSaver, "put", breaking)
    with pytest.raises(Unreachable, match="OperationalError"):
        move.copying.catch_up()
    assert move.ends[1].addresses("t")
    assert move.copying.verify().verified == ["t"]
    move.close()
    assert whole(places.saver(goal), "t") == whole(before, "t")


def test_damage_at_the_source_is_no_reason_to_stop(places: Places, valkey: LocalValkey) -> None:
    origin, goal, before = fresh(places)
    fill(before, "fine", "torn")
    prefix = origin.partition("key_prefix=")[2]
    states = {thread: thread_keys(prefix, thread).state for thread in ("t", "torn")}
    fields: Any = {thread: valkey.command("HKEYS", state) for thread, state in states.items()}
    valkey.command("HDEL", states["t"], *(name for name in fields["t"] if name[:1] == b"c"))
    record = next(name for name in fields["torn"] if name[:1] == b"r")
    valkey.command("HSET", states["torn"], record, b"\x01" * 80)
    walk = Move(origin, goal).whole()
    assert walk.verified == ["fine"]
    assert "its chunk" in walk.failed["t"]
    assert "checksum does not fit" in walk.failed["torn"]


def test_aws_s_saver_lists_nothing_twice(places: Places) -> None:
    origin, goal, before = fresh(places, "aws")
    move = Move(origin, goal)
    move.copying.catch_up()
    before.put_writes(head_of(before, "t").config, [("plain", "late")], "task")
    assert move.copying.catch_up().copied == ["t"]
    move.close()
    saver: Any = places.saver(goal)
    ids = saver.client.lrange("thread:{t}:", 0, -1)
    assert len(ids) == len(set(ids)) > 3
    assert head_of(saver, "t").checkpoint["id"] == head_of(before, "t").checkpoint["id"]


def test_the_head_of_aws_s_saver_is_what_was_put_last(places: Places) -> None:
    origin, goal = places.make("aws"), places.make("ours")
    saver = places.saver(origin)
    parent, _ = checkpoint(numbered_id(1), {"plain": "1"})
    for number in (1, 3, 2):
        made, versions = checkpoint(numbered_id(number), {"plain": str(number)}, parent=parent)
        saver.put(config("t", "", numbered_id(1)), made, metadata(number), versions)
    assert Move(origin, goal).whole().verified == ["t"]
    assert head_of(places.saver(goal), "t").checkpoint["id"] == numbered_id(2)


def test_a_database_that_is_copied_from_is_not_changed(places: Places) -> None:
    origin, goal = places.make("sqlite"), places.make("ours")
    path = Path(origin.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path, check_same_thread=False)) as database:
        fill(SqliteSaver(database), "t")
        database.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    assert Move(origin, goal).whole().verified == ["t"]
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.glob(f"{path.name}*")] == [path.name]


def test_writes_count_by_their_stamps(places: Places, valkey: LocalValkey) -> None:
    """A replay that came late restored an earlier one behind a later one."""
    origin, goal, before = fresh(places)
    head = head_of(before, "t")
    for answer in ("first", "second"):
        before.put_writes(head.config, [("__resume__", answer)], "task")
    state = thread_keys(origin.partition("key_prefix=")[2], "t").state
    field = b"x\0" + head.checkpoint["id"].encode()
    entries: Any = valkey.command("HGET", state, field)
    swapped = entries[:-32] + entries[-16:] + entries[-32:-16]
    # Of another writer, whose number does not tell which of the two was earlier.
    stranger = b"\xff" * 8 + swapped[-8:]
    stored: Any = valkey.command("HGET", state, b"w" + swapped[-16:])
    valkey.command("HSET", state, b"w" + stranger, stored, field, swapped[:-16] + stranger)
    assert ("task", "__resume__", "second") in (head_of(before, "t").pending_writes or [])
    assert Move(origin, goal).whole().verified == ["t"]
    after = places.saver(goal)
    assert ("task", "__resume__", "second") in (head_of(after, "t").pending_writes or [])
    before.copy_thread("t", "copy")
    assert ("task", "__resume__", "second") in (head_of(before, "copy").pending_writes or [])
