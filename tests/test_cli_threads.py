"""The command on threads: what it shows, what it writes, and what it takes away."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from langgraph_valkey import ValkeySaver
from langgraph_valkey.cli.showing import Change, differences
from langgraph_valkey.cli.threads import made_at
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.moving import thread_file
from langgraph_valkey.moving.opaque import NotCarried
from tests.failover_ground import new_prefix
from tests.moving_ground import (
    Call,
    Places,
    fill,
    fresh,
    head_of,
    home,
    keys_of,
    turn,
    whole,
)

PASSWORD = "4711-secret"


class Ground:
    """Two threads on a server, and where that is."""

    def __init__(self, places: Places, call: Call, folder: Path) -> None:
        self.place = places.make("ours")
        self.saver = places.saver(self.place)
        self.folder = folder
        self._call = call
        fill(self.saver, "one", "two {x}")

    def call(self, *arguments: str) -> Any:
        """Call a command on it."""
        return self._call(*arguments, LANGGRAPH_VALKEY_URL=self.place)

    def told(self, *arguments: str) -> list[Any]:
        """What a command prints as JSON lines."""
        done = self.call(*arguments, "--json")
        assert done.status == 0, done.err
        return [json.loads(line) for line in done.out.splitlines()]


@pytest.fixture
def ground(places: Places, call_cli: Call, tmp_path: Path) -> Ground:
    return Ground(places, call_cli, tmp_path)


# --- what is there ---------------------------------------------------------------------------


def test_threads(ground: Ground) -> None:
    found = {each["thread"]: each for each in ground.told("threads")}
    assert set(found) == {"one", "two {x}"}
    head = head_of(ground.saver, "one")
    one = found["one"]
    assert (one["checkpoints"], one["namespaces"]) == (len(whole(ground.saver, "one")), 2)
    assert (one["step"], one["source"]) == (head.metadata["step"], "loop")
    assert one["last"] == made_at(head.checkpoint["id"])
    assert one["last"][:16] == head.checkpoint["ts"][:16]
    assert len(ground.told("threads", "--limit", "1")) == 1
    table = ground.call("threads").out
    assert re.search(r"^two \{x\} +\d+ +2 +20", table, re.M)


def test_ids_that_would_move_the_cursor(ground: Ground) -> None:
    ground.saver.copy_thread("one", "\x1b[2J\ud800")
    assert r"\x1b[2J\ud800" in ground.call("threads").out
    assert "\x1b[2J\ud800" in {each["thread"] for each in ground.told("threads")}
    assert r"no thread '\x1b'" in ground.call("history", "\x1b").err


def test_no_threads(ground: Ground, valkey: LocalValkey) -> None:
    done = ground.call("threads", "--at", keys_of(valkey.url, new_prefix()))
    assert (done.status, done.out) == (0, "")
    assert "no threads at valkey://127.0.0.1" in done.err


def test_history(ground: Ground) -> None:
    found = ground.told("history", "one")
    ids = [each["checkpoint"] for each in found]
    assert ids == sorted(ids, reverse=True)
    assert {each["namespace"] for each in found} == {"", "inner"}
    head = head_of(ground.saver, "one")
    [root] = [each for each in found if each["head"] and not each["namespace"]]
    assert root["checkpoint"] == head.checkpoint["id"]
    assert root["writes"] == len(head.pending_writes or [])
    assert head.parent_config is not None
    assert root["parent"] == head.parent_config["configurable"]["checkpoint_id"]
    assert len(ground.told("history", "one", "--limit", "2")) == 2
    roots = ground.told("history", "one", "--namespace", "")
    assert len(roots) == sum(1 for each in found if not each["namespace"])
    missing = ground.call("history", "nobody")
    assert missing.status == 2
    assert "there is no thread 'nobody'" in missing.err


def test_show(ground: Ground) -> None:
    head = head_of(ground.saver, "two {x}")
    name = head.checkpoint["id"]
    done = ground.call("show", name)
    assert done.status == 0
    told = json.loads(done.out)
    assert (told["thread"], told["checkpoint"], told["namespace"]) == ("two {x}", name, "")
    assert told["values"]["plain"] == "text"
    order = {"number": "1001", "cents": 4500}
    assert told["values"]["order"] == {"tests.moving_ground.Order": order}
    message = told["values"]["messages"][0]["langchain_core.messages.human.HumanMessage"]
    assert message["content"] == "hello"
    shown = {w["channel"] for task in told["writes"] for w in task["writes"]}
    assert shown == {channel for _, channel, _ in head.pending_writes or []}
    assert json.loads(ground.call("show", name, "--thread", "two {x}", "--json").out) == told
    for options in ([], ["--thread", "two {x}"]):
        missing = ground.call("show", "no-such", *options)
        assert missing.status == 2
        assert "there is no checkpoint 'no-such'" in missing.err


def test_differences_of_two_checkpoints(ground: Ground) -> None:
    ids = sorted(each["checkpoint"] for each in ground.told("history", "one", "--namespace", ""))
    changes = {each["path"]: each for each in ground.told("show", ids[0], "--diff", ids[-1])}
    assert changes["values.plain"] == {
        "kind": "added", "path": "values.plain", "before": None, "after": "text",
    }  # fmt: skip
    assert changes["metadata.step"]["kind"] == "changed"
    text = ground.call("show", ids[0], "--diff", ids[-1]).out
    assert 'added    values.plain\n  + "text"\n' in text
    assert "changed  metadata.step\n  - -1\n  + 2\n" in text
    assert ground.told("show", ids[0], "--diff", ids[0]) == []


def test_how_values_differ() -> None:
    one = {"a": [1, {"x": 1}], "b": 1, "same": [1], "gone": 0}
    other = {"a": [1, {"x": 2}, 3], "b": True, "same": [1], "new": None}
    assert list(differences("", one, other)) == [
        Change("changed", "a[1].x", 1, 2),
        Change("added", "a[2]", None, 3),
        Change("changed", "b", 1, True),
        Change("removed", "gone", 0, None),
        Change("added", "new", None, None),
    ]


def test_other_places(ground: Ground, places: Places) -> None:
    """A database, and a program's own saver with its keys."""
    database = places.make("sqlite")
    fill(places.saver(database), "theirs")
    assert [each["thread"] for each in ground.told("threads", "--at", database)] == ["theirs"]
    assert len(ground.told("history", "theirs", "--at", database)) > 3
    place = places.make("ours")
    (ground.folder / "own.py").write_text(
        "from langgraph.checkpoint.serde.encrypted import EncryptedSerializer\n"
        "from langgraph_valkey import ValkeySaver\n"
        "def saver():\n"
        "    serde = EncryptedSerializer.from_pycryptodome_aes(key=b'0123456789abcdef')\n"
        f"    return ValkeySaver.from_url({place!r}, serde=serde, digest_key=b'k' * 32)\n"
    )
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    with ValkeySaver.from_url(place, serde=serde, digest_key=b"k" * 32) as saver:
        fill(saver, "hidden")
        name = head_of(saver, "hidden").checkpoint["id"]
    [without] = ground.told("threads", "--at", place)
    assert (without["thread"], without["step"]) == ("hidden", None)
    sealed = ground.call("show", name, "--at", place)
    assert (sealed.status, sealed.out) == (2, "")
    assert "encrypted" in sealed.err
    told = json.loads(ground.call("show", name, "--at", "own:saver").out)
    assert told["values"]["plain"] == "text"


@pytest.mark.parametrize(
    ("checkpoint_id", "made"),
    [
        ("1f1ebc43-9880-6dd8-8001-fe2d8517e08f", "2026-11-29T07:12:23.653Z"),
        ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", None),
        ("checkpoint 1", None),
    ],
)
def test_when_a_checkpoint_was_made(checkpoint_id: str, made: str | None) -> None:
    assert made_at(checkpoint_id) == made


# --- files -----------------------------------------------------------------------------------


def exported(ground: Ground, thread: str = "two {x}") -> Path:
    file = ground.folder / "thread.jsonl"
    assert ground.call("export", thread, "--output", str(file), "--yes").status == 0
    return file


def test_a_thread_goes_through_a_file(ground: Ground, places: Places) -> None:
    file = exported(ground)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    goal = places.make("ours")
    done = ground.call("import", str(file), "--at", goal, "--json")
    assert done.status == 0, done.err
    expected = whole(ground.saver, "two {x}")
    assert json.loads(done.out) == {
        "thread": "two {x}", "checkpoints": len(expected), "verified": True,
    }  # fmt: skip
    after = places.saver(goal)
    assert whole(after, "two {x}") == expected
    assert ground.call("import", str(file), "--at", goal, "--as", "other").status == 0
    assert len(whole(after, "other")) == len(expected)
    gone_on = [turn(saver, "two {x}", approved=True)["log"] for saver in (ground.saver, after)]
    assert gone_on[0] == gone_on[1]


def test_export_to_standard_output(ground: Ground) -> None:
    done = ground.call("export", "one")
    lines = done.out.splitlines()
    assert json.loads(lines[0])["format"] == thread_file.FORMAT
    assert json.loads(lines[-1])["end"]["checkpoints"] == len(lines) - 2


def test_a_file_is_not_replaced_unasked(ground: Ground) -> None:
    file = exported(ground)
    before = file.read_bytes()
    done = ground.call("export", "one", "-o", str(file))
    assert done.status == 2
    assert "add --yes" in done.err
    missing = ground.call("export", "nobody", "-o", str(file), "--yes")
    assert missing.status == 2
    assert file.read_bytes() == before
    assert sorted(each.name for each in ground.folder.glob("thread*")) == ["thread.jsonl"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[:-40], "none of its lines"),
        (lambda raw: b"".join(raw.splitlines(True)[:-1]), "checksum does not fit"),
        (lambda raw: b"".join(raw.splitlines(True)[:2] + raw.splitlines(True)[3:]), "checksum"),
        (lambda raw: raw.replace(b'"tasks"', b'"Tasks"', 1), "checksum does not fit"),
        (lambda raw: b"no thread\n", "no exported thread"),
        (lambda raw: b'{"format": "other"}\n', "no exported thread"),
        (lambda raw: raw.replace(b'"version": 1', b'"version": 2', 1), "of version 2"),
        (lambda raw: b"", "not whole"),
    ],
)
def test_a_file_that_is_not_whole(ground: Ground, places: Places, damage: Any, said: str) -> None:
    file = exported(ground)
    file.write_bytes(damage(file.read_bytes()))
    goal = places.make("ours")
    done = ground.call("import", str(file), "--at", goal)
    assert done.status == 2
    assert said in done.err
    assert list(places.saver(goal).list(None)) == []


def test_another_thread_of_the_name_is_replaced_only_if_said(
    ground: Ground, places: Places
) -> None:
    file = exported(ground)
    goal = places.make("ours")
    after = places.saver(goal)
    turn(after, "two {x}")
    theirs = whole(after, "two {x}")
    done = ground.call("import", str(file), "--at", goal)
    assert done.status == 2
    assert "Replace it?" in done.err
    assert whole(after, "two {x}") == theirs
    assert ground.call("import", str(file), "--at", goal, "--yes").status == 0
    assert whole(after, "two {x}") == whole(ground.saver, "two {x}")


def test_what_does_not_come_back_whole_is_told(
    ground: Ground, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported(ground)
    monkeypatch.setattr(SqliteSaver, "put_writes", lambda *_: None)
    done = ground.call("import", str(file), "--at", places.make("sqlite"))
    assert (done.status, done.out) == (2, "")
    assert "is not the same on both sides" in done.err


def test_a_delta_channel_that_can_t_be_rebuilt_is_not_exported(
    ground: Ground, places: Places
) -> None:
    place = places.make("sqlite")
    fill(places.saver(place), "t")
    with closing(sqlite3.connect(place.removeprefix("sqlite:///"))) as database, database:
        database.execute(
            "DELETE FROM checkpoints WHERE checkpoint_id IN (SELECT min(checkpoint_id) "
            "FROM checkpoints)"
        )
    done = ground.call("export", "t", "--at", place, "-o", str(ground.folder / "t.jsonl"))
    assert done.status == 2
    assert "DeltaChannel (log)" in done.err
    assert not list(ground.folder.glob("t.jsonl*"))


def test_a_thread_that_is_being_written_is_not_exported(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, _, saver = fresh(places)
    with closing(home(origin, writes=False)) as opened:
        heads = opened.heads

        def meanwhile(thread: str) -> dict[str, str]:
            turn(saver, thread)
            return heads(thread)

        monkeypatch.setattr(opened, "heads", meanwhile)
        with (tmp_path / "t").open("wb") as file, pytest.raises(NotCarried, match="meanwhile"):
            thread_file.write(opened, "t", file)


# --- what takes away -------------------------------------------------------------------------


def test_delete(ground: Ground) -> None:
    refused = ground.call("delete", "one")
    assert refused.status == 2
    assert "Delete thread 'one'?" in refused.err
    assert "add --yes" in refused.err
    assert whole(ground.saver, "one")
    assert ground.call("delete", "one", "--yes").out == "deleted: 1\nnot there: 0\n"
    assert not whole(ground.saver, "one")
    again = ground.call("delete", "one", "two {x}", "-y", "--json")
    assert again.status == 1
    assert json.loads(again.out) == {"deleted": ["two {x}"], "not_there": ["one"]}


def test_delete_for_good(ground: Ground, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/primary.db"
    done = ground._call(
        "delete", "one", "--durable", "--yes",
        LANGGRAPH_VALKEY_URL=ground.place, LANGGRAPH_VALKEY_PRIMARY=url,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert not whole(ground.saver, "one")
    with closing(sqlite3.connect(tmp_path / "primary.db")) as database:
        assert database.execute("SELECT count(*) FROM lgv_tombstones").fetchone() == (1,)
    both = ground.call("delete", "one", "--durable", "--at", ground.place, "--yes")
    assert both.status == 2


def test_prune(ground: Ground) -> None:
    for _ in range(4):  # So that there is a snapshot of the delta channel to lean on.
        turn(ground.saver, "one", approved=True)
    before = len(whole(ground.saver, "one"))
    head = head_of(ground.saver, "one")
    for arguments in ([], ["one", "--all"]):
        assert "name threads, or say --all" in ground.call("prune", *arguments).err
    refused = ground.call("prune", "--all")
    assert (refused.status, len(whole(ground.saver, "one"))) == (2, before)
    assert "Prune all 2 threads" in refused.err
    done = ground.call("prune", "one", "--yes", "--json")
    assert done.status == 0, done.err
    left = len(whole(ground.saver, "one"))
    assert json.loads(done.out) == {"pruned": ["one"], "checkpoints_removed": before - left}
    assert 0 < left < before
    assert head_of(ground.saver, "one").checkpoint["id"] == head.checkpoint["id"]
    assert ground.call("prune", "--all", "--yes").out.startswith("pruned: 2\n")


def test_what_can_t_prune_says_so(ground: Ground, places: Places) -> None:
    place = places.make("sqlite")
    fill(places.saver(place), "t")
    done = ground.call("prune", "t", "--at", place, "--yes")
    assert done.status == 2
    assert "SqliteSaver can't prune thread 't'" in done.err
