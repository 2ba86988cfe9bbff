"""`migrate`, as it is called: killed and called again, beside writers, and where it can't go on."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from langgraph_valkey import ValkeySaver
from langgraph_valkey.local import LocalCluster, LocalValkey
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.failover_ground import FAST_MS, LAG_BOUND_S, replace_killed
from tests.moving_ground import (
    Call,
    Places,
    ended,
    fill,
    fresh,
    head_of,
    home,
    started,
    turn,
    whole,
)

STEPS = 2


def seed(saver: BaseCheckpointSaver[Any], count: int) -> list[str]:
    """Many small threads."""
    names = [f"thread {number}" for number in range(count)]
    for name in names:
        parent = None
        for number in range(STEPS):
            made, versions = checkpoint(numbered_id(number), {"words": [name] * 3}, parent=parent)
            where = config(name, "", parent["id"] if parent else None)
            stored = saver.put(where, made, metadata(number), versions)
            saver.put_writes(stored, [("words", [number])], f"task {number}")
            parent = made
    return names


def moved(call: Call, origin: str, goal: str, *options: str, status: int = 0) -> Any:
    """What a migration reports, which must come to this exit status."""
    done = call("migrate", "--from", origin, "--to", goal, "--json", "--yes", *options)
    assert done.status == status, done.err
    return json.loads(done.out)


# --- once --------------------------------------------------------------------------------------


def test_a_migration_is_told(places: Places, call_cli: Call, tmp_path: Path) -> None:
    origin, goal = places.make("ours"), places.make("sqlite")
    before = places.saver(origin)
    fill(before, "one", "two")
    told = moved(call_cli, origin, goal)
    assert (told["seen"], sorted(told["copied"])) == (2, ["one", "two"])
    assert sorted(told["verified"]) == ["one", "two"]
    assert (told["failed"], told["taken"], told["changing"], told["deleted"]) == ({}, [], [], [])
    assert list(tmp_path.glob("langgraph-valkey-migrate-*")) == []
    after = places.saver(goal)
    assert all(whole(after, each) == whole(before, each) for each in ("one", "two"))
    done = call_cli("migrate", "--from", origin, "--to", goal, "--yes")
    assert done.out.splitlines()[1] == "copied: 0, verified: 2 of 2"


def test_some_threads_alone(places: Places, call_cli: Call) -> None:
    origin, goal = places.make("sqlite"), places.make("ours")
    fill(places.saver(origin), "one", "two", "three")
    options = ("--thread", "one", "--thread", "three", "--thread", "nobody")
    assert sorted(moved(call_cli, origin, goal, *options)["verified"]) == ["one", "three"]
    with closing(home(goal)) as opened:
        assert sorted(opened.threads()) == ["one", "three"]


def test_somebody_has_to_say_that_writers_are_stopped(places: Places, call_cli: Call) -> None:
    origin, goal, _ = fresh(places)
    done = call_cli("migrate", "--from", origin, "--to", goal)
    assert done.status == 2
    assert "--until-quiet" in done.err
    with closing(home(goal)) as opened:
        assert list(opened.threads()) == []
    assert moved(call_cli, origin, goal, "--until-quiet", "0.1")["verified"] == ["t"]


def test_what_is_there_already_is_replaced_only_if_said(places: Places, call_cli: Call) -> None:
    origin, goal, before = fresh(places)
    after = places.saver(goal)
    turn(after, "t")
    assert moved(call_cli, origin, goal, status=1)["taken"] == ["t"]
    done = call_cli("migrate", "--from", origin, "--to", goal, "--overwrite", "--until-quiet", "0")
    assert done.status == 2
    assert "Replace threads at the target" in done.err
    assert moved(call_cli, origin, goal, "--overwrite")["verified"] == ["t"]
    assert whole(after, "t") == whole(before, "t")


def test_a_thread_that_can_t_be_carried_is_no_reason_to_stop(
    places: Places, call_cli: Call
) -> None:
    """PostgreSQL keeps no NUL characters; what it says of that quotes the state."""
    origin, goal = places.make("ours"), places.make("postgres")
    before = places.saver(origin)
    fill(before, "fine")
    for name, value, about in (
        ("odd", "4711-secret \0", metadata(0)),
        ("strange", "fine", metadata(0, note={"4711-secret"})),
    ):
        made = {**empty_checkpoint(), "channel_values": {"plain": value}}
        made["channel_versions"] = {"plain": "1"}
        before.put(config(name), made, about, {"plain": "1"})  # type: ignore[arg-type]
    told = moved(call_cli, origin, goal, status=1)
    assert (told["verified"], sorted(told["failed"])) == (["fine"], ["odd", "strange"])
    assert "no NUL characters" in told["failed"]["odd"]
    assert told["failed"]["strange"] == "it can't be stored there as it is (TypeError)"
    done = call_cli("migrate", "--from", origin, "--to", goal, "--yes")
    assert "not carried: 2\n" in done.out
    assert "\n  odd: the database does not keep it" in done.out
    assert "4711-secret" not in json.dumps(told) + done.out + done.err


def test_an_outage_ends_it_and_it_goes_on_afterwards(
    places: Places, call_cli: Call, tmp_path: Path
) -> None:
    origin = places.make("ours")
    names = seed(places.saver(origin), 5)
    with LocalValkey(tmp_path / "data") as other:
        goal = other.url + "?read_deadline_s=0&reject_deadline_s=0&unknown_retry_deadline_s=0"
        assert len(moved(call_cli, origin, goal, "--thread", names[0])["verified"]) == 1
        other.kill()
        done = call_cli("migrate", "--from", origin, "--to", goal, "--yes")
        assert done.status == 2
        assert "Unreachable: " in done.err
        other.restart()
        assert sorted(moved(call_cli, origin, goal)["verified"]) == sorted(names)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (("{ours}", "{ours}"), "the same place"),
        (("mysql://h", "{ours}"), "a place is written as"),
        (("no_such_module:saver", "{ours}"), "no module 'no_such_module'"),
        (("sqlite:///no-such.db", "{ours}"), "can't be opened"),
    ],
)
def test_places_that_can_t_be_used(
    places: Places, call_cli: Call, ends: tuple[str, str], said: str
) -> None:
    ours = places.make("ours")
    one, other = (end.format(ours=ours) for end in ends)
    done = call_cli("migrate", "--from", one, "--to", other, "--yes")
    assert done.status == 2
    assert said in done.err


# --- killed ------------------------------------------------------------------------------------


@contextmanager
def migrating(origin: str, goal: str, folder: Path) -> Iterator[Any]:
    """A migration in a process of its own, which is gone at the end."""
    arguments = ("migrate", "--from", origin, "--to", goal, "--yes", "--state", "state.db")
    process = started(*arguments, folder=folder)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("source", "killed_at"), [("ours", (0.1, 0.5)), ("sqlite", (0.3,))])
def test_a_migration_that_was_killed_goes_on(
    places: Places, call_cli: Call, tmp_path: Path, source: str, killed_at: tuple[float, ...]
) -> None:
    origin, goal = places.make(source), places.make("ours")
    before, after = places.saver(origin), places.saver(goal)
    if isinstance(before, SqliteSaver):
        before.conn.execute("PRAGMA synchronous = OFF")
    names = seed(before, 200)
    with closing(home(goal, writes=False)) as opened:
        for part in killed_at:
            with migrating(origin, goal, tmp_path) as process:
                until_s = time.monotonic() + 60
                while len(list(opened.threads())) < part * len(names):
                    assert process.poll() is None, "it had ended before it could be killed"
                    assert time.monotonic() < until_s
                    time.sleep(0.01)
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
            there = list(opened.threads())
            assert 0 < len(there) < len(names), "it was killed too late"
    told = moved(call_cli, origin, goal, "--state", "state.db")
    assert sorted(told["verified"]) == sorted(names)
    assert 0 < len(told["copied"]) < len(names), "it began anew"
    for name in names[::40]:
        assert list(after.list(config(name))) == list(before.list(config(name)))
    assert not (tmp_path / "state.db").exists()


# --- live --------------------------------------------------------------------------------------


class Writer(threading.Thread):
    """Goes on with its threads, begins others and deletes some, until it is told to stop.

    Attributes:
        stored: Of each thread, the values of all checkpoints that were acknowledged, by id.
        deleted: Threads that it deleted last.
        failure: What it raised.
    """

    def __init__(self, saver: ValkeySaver, number: int) -> None:
        super().__init__()
        self.stored: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.failure: BaseException | None = None
        self.stop = threading.Event()
        self._saver = saver
        self._number = number

    def run(self) -> None:
        try:
            step = 0
            while not self.stop.is_set():
                step += 1
                self._go_on(f"writer {self._number} thread {step % 5}", step)
                if step % 7 == 0:
                    self._go_on(f"writer {self._number} new {step}", step)
                if step % 21 == 0:
                    self._drop(f"writer {self._number} new {step - 7}")
                time.sleep(0.005)
        except BaseException as error:
            self.failure = error

    def _go_on(self, name: str, step: int) -> None:
        found = self._saver.get_tuple(config(name))
        parent = None if found is None else found.checkpoint
        words = [*(parent["channel_values"]["words"] if parent else ()), f"{name} {step}"]
        made, versions = checkpoint(numbered_id(step), {"words": words}, parent=parent)
        where = config(name, "", parent["id"] if parent else None)
        stored = self._saver.put(where, made, metadata(step), versions)
        self._saver.put_writes(stored, [("words", [step])], f"task {step}")
        self.stored.setdefault(name, {})[made["id"]] = words

    def _drop(self, name: str) -> None:
        self._saver.delete_thread(name)
        self.stored.pop(name, None)
        self.deleted.add(name)


def test_a_live_cut_over_from_async_to_sync_loses_nothing(tmp_path: Path) -> None:
    """Also while the source fails over, and loses what its writers then replay.

    They all stand still meanwhile, which must not be taken for the end.
    """
    given: dict[str, Any] = {"lag_bound_s": LAG_BOUND_S, "node_timeout_ms": FAST_MS}
    with (
        LocalCluster(durability="async", **given) as origin,
        LocalCluster(shards=1, durability="sync", **given) as goal,
    ):
        said = f"lag_bound_s={LAG_BOUND_S}"
        one, other = f"{origin.url}?durability=async&{said}", f"{goal.url}?durability=sync&{said}"
        saver = ValkeySaver.from_url(one)
        writers = [Writer(saver, number) for number in range(3)]
        for writer in writers:
            writer.start()
        arguments = ("migrate", "--from", one, "--to", other, "--until-quiet", "4", "--json")
        process = started(*arguments, folder=tmp_path)
        try:
            with closing(home(other, writes=False)) as opened:
                while not list(opened.threads()):
                    assert process.poll() is None
            origin.hold_log(0)
            time.sleep(0.3)
            origin.kill_primary(0)
            replace_killed(origin)
            time.sleep(0.2)
            assert process.poll() is None, "it did not wait for the writers"
        finally:
            for writer in writers:
                writer.stop.set()
            for writer in writers:
                writer.join()
            done = ended(process)
            saver.close(0)
        assert [writer.failure for writer in writers] == [None] * 3
        assert done.status == 0, done
        told = json.loads(done.out)
        expected = {name: found for writer in writers for name, found in writer.stored.items()}
        assert sorted(told["verified"]) == sorted(expected)
        with ValkeySaver.from_url(other) as after:
            for name, found in expected.items():
                listed = list(after.list(config(name)))
                there = {
                    c.checkpoint["id"]: c.checkpoint["channel_values"]["words"] for c in listed
                }
                assert there == found
                assert all(c.pending_writes for c in listed)
                assert head_of(after, name).checkpoint["id"] == max(found)
            for writer in writers:
                for name in writer.deleted:
                    assert after.get_tuple(config(name)) is None


def test_writers_that_go_on_are_noticed(
    places: Places, call_cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said that they had stopped."""
    origin, goal, before = fresh(places)
    from langgraph_valkey.moving.copying import Copying

    verify: Callable[[Any], Any] = Copying.verify

    def meanwhile(copying: Copying) -> Any:
        walk = verify(copying)
        turn(before, "t")
        return walk

    monkeypatch.setattr(Copying, "verify", meanwhile)
    told = moved(call_cli, origin, goal, status=1)
    assert (told["changing"], told["verified"]) == (["t"], [])
    done = call_cli("migrate", "--from", origin, "--to", goal, "--yes")
    assert "still being written: stop the writers, and call again: 1\n  t" in done.out
