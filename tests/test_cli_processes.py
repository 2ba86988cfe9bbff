"""The command as people start it: processes of its own, at terminals, and without them."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from langgraph_valkey import cli
from langgraph_valkey.cli import output
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.local.node import free_ports
from tests.failover_ground import new_prefix
from tests.moving_ground import ROOT, Call, Done, Places, ended, fill, keys_of, started, whole

PASSWORD = "4711-secret"


# --- at a terminal -----------------------------------------------------------------------------


class Terminal:
    """The command at a terminal."""

    def __init__(self, *arguments: str, folder: Path, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "langgraph_valkey", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, words: str | None) -> str:
        """What it printed, up to these words; or to its end."""
        until_s = time.monotonic() + 30
        while words is None or words not in self.text:
            assert time.monotonic() < until_s, self.text
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                self.text += os.read(self._ours, 65_536).decode()
            except OSError:  # It has ended.
                break
        return self.text

    def answer(self, words: str) -> None:
        """Type a line."""
        os.write(self._ours, f"{words}\n".encode())

    def end(self) -> int:
        """Its status, once it has ended."""
        self.read_until(None)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


@contextmanager
def terminal(*arguments: str, folder: Path, **environ: str) -> Iterator[Terminal]:
    with closing(Terminal(*arguments, folder=folder, **environ)) as made:
        yield made


def test_a_question_is_asked_where_somebody_can_answer(places: Places, tmp_path: Path) -> None:
    place = places.make("ours")
    saver = places.saver(place)
    fill(saver, "t")
    with terminal("delete", "t", "--at", place, folder=tmp_path) as at:
        at.read_until("can't be undone. [y/N]")
        assert whole(saver, "t")
        at.answer("y")
        assert at.end() == 0
    assert not whole(saver, "t")


@pytest.mark.parametrize(("answer", "done"), [("yes", True), ("", False), ("n", False)])
def test_answers(monkeypatch: pytest.MonkeyPatch, answer: str, done: bool) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: answer)
    with nullcontext() if done else pytest.raises(output.Refused, match="nothing was done"):
        output.ask("Delete it?", yes=False)


def test_nobody_answers(places: Places, call_cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", gone)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    done = call_cli("delete", "t", "--at", places.make("ours"))
    assert done.status == 2
    assert "nobody answered" in done.err


def test_a_migration_asks_for_a_stop_and_shows_how_far_it_is(
    places: Places, tmp_path: Path
) -> None:
    origin, goal = places.make("ours"), places.make("sqlite")
    before = places.saver(origin)
    fill(before, "one", "two")
    with terminal("migrate", "--from", origin, "--to", goal, folder=tmp_path) as at:
        at.read_until("then press Enter")
        fill(before, "three")  # Before the writers stopped.
        at.answer("")
        status = at.end()
    assert status == 0, at.text
    assert "copying" in at.text
    assert "2/2" in at.text
    assert "3/3" in at.text
    assert "copied: 3, verified: 3 of 3" in at.text
    after = places.saver(goal)
    assert all(whole(after, each) == whole(before, each) for each in ("one", "two", "three"))
    assert list(tmp_path.glob("langgraph-valkey-migrate-*")) == []


# --- servers -----------------------------------------------------------------------------------


def test_a_local_server_until_it_is_told_to_stop(call_cli: Call, tmp_path: Path) -> None:
    process = started("local", str(tmp_path / "data"), "--json", folder=tmp_path)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert (told["shards"], told["durability"]) == (1, "none")
    assert call_cli("threads", "--at", told["url"]).status == 0
    process.send_signal(signal.SIGTERM)
    assert ended(process).status == 0
    gone = call_cli("threads", "--at", f"{told['url']}?read_deadline_s=0")
    assert gone.status == 2
    assert "Unreachable: " in gone.err


def test_a_local_cluster_until_ctrl_c(call_cli: Call, tmp_path: Path) -> None:
    arguments = ("local", "--durability", "async", "--lag-bound", "2", "--shards", "1")
    process = started(*arguments, entry=True, folder=tmp_path)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.endswith("?durability=async&lag_bound_s=2")
    found = call_cli("doctor", url, "--json")
    assert json.loads(found.out)["verdict"] == "note", found
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.status == 0
    assert f"export LANGGRAPH_VALKEY_URL='{url}'" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--durability", "strong"], "durability must be"),
        (["data", "--shards", "3"], "leave the folder out"),
    ],
)
def test_servers_that_can_t_be(call_cli: Call, arguments: list[str], said: str) -> None:
    done = call_cli("local", *arguments)
    assert done.status == 2
    assert said in done.err


# --- watching ------------------------------------------------------------------------------------


def test_watching_a_cluster(failover_cluster: LocalCluster, call_cli: Call, tmp_path: Path) -> None:
    failover_cluster.wait_healthy()
    environ = {
        "LANGGRAPH_VALKEY_URL": failover_cluster.url,
        "LANGGRAPH_VALKEY_PRIMARY": f"sqlite:///{tmp_path}/primary.db",
    }
    watch = ("health", "--watch", "--every", "0.1", "--count", "2")
    assert call_cli(*watch, **environ).status == 1, "the tables are not there yet"
    assert call_cli("setup", **environ).status == 0
    done = call_cli(*watch, "--json", **environ)
    assert done.status == 0, done.out
    looks = [json.loads(line) for line in done.out.splitlines()]
    assert len(looks) == 2
    assert [shard["slots"] for shard in looks[0]["shards"]] == [
        "0-5460", "5461-10921", "10922-16383",
    ]  # fmt: skip
    assert {shard["replicas"] for shard in looks[0]["shards"]} == {1}
    failover_cluster.reject_writes(1)
    try:
        done = call_cli(*watch, **environ)
    finally:
        failover_cluster.accept_writes(1)
    assert done.status == 1
    assert done.out.count("refused: ") == 1
    assert done.out.count("accepted") == 2


def test_watching_goes_on_while_nobody_answers(call_cli: Call, tmp_path: Path) -> None:
    environ = {
        "LANGGRAPH_VALKEY_URL": f"valkey://127.0.0.1:{free_ports(1)[0]}",
        "LANGGRAPH_VALKEY_PRIMARY": f"sqlite:///{tmp_path}/primary.db",
    }
    done = call_cli("health", "--watch", "--every", "0.1", "--count", "2", "--json", **environ)
    assert done.status == 1
    looks = [json.loads(line) for line in done.out.splitlines()]
    assert [each["cluster_trouble"].partition(":")[0] for each in looks] == ["Unreachable"] * 2


def test_a_cluster_alone_is_watched_without_a_primary_store(
    valkey: LocalValkey, call_cli: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"LANGGRAPH_VALKEY_URL": valkey.url}
    done = call_cli("health", **environ)
    assert done.status == 0, done.out
    assert list(json.loads(done.out)) == ["saver"]
    done = call_cli("health", "--watch", "--count", "1", **environ)
    assert done.status == 0, done.out
    assert done.out.count("accepted") == 1
    assert list(tmp_path.iterdir()) == []  # Whoever only looks leaves nothing behind.
    Path("langgraph-valkey.db").touch()  # An agent has run here, with all as it is by default.
    assert "tables are missing" in json.loads(call_cli("health", **environ).out)["primary_trouble"]


def test_tiers_without_langgraph() -> None:
    program = (
        "import sys; sys.modules['langgraph.errors'] = None\n"
        "from langgraph_valkey.cli import main; sys.exit(main(['setup']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "pip install langgraph\n" in done.stderr


# --- each command once ---------------------------------------------------------------------------


def test_each_command_in_a_process_of_its_own(places: Places, tmp_path: Path) -> None:
    """Those that no other test here starts so."""
    place = places.make("ours")
    fill(places.saver(place), "t", "gone")
    environ = {
        "LANGGRAPH_VALKEY_URL": place,
        "LANGGRAPH_VALKEY_PRIMARY": f"sqlite:///{tmp_path}/primary.db",
    }
    file = str(tmp_path / "t.jsonl")

    def run(*arguments: str) -> Done:
        entry = len(arguments) % 2 == 0
        return ended(started(*arguments, entry=entry, folder=tmp_path, **environ))

    def ok(*arguments: str, status: int = 0) -> str:
        done = run(*arguments)
        assert done.status == status, f"{arguments}: {done}"
        assert "Traceback" not in done.err
        return done.out

    with ThreadPoolExecutor(4) as side_by_side:
        commands = {
            name: side_by_side.submit(ok, *arguments)
            for name, arguments in {
                "setup": ("setup",),
                "threads": ("threads", "--json"),
                "history": ("history", "t", "--json"),
                "export": ("export", "t", "-o", file),
                "letters": ("dead-letters",),
                "prune": ("prune", "gone", "--yes"),
            }.items()
        }
        found = {name: each.result() for name, each in commands.items()}
        newest = json.loads(found["history"].splitlines()[0])["checkpoint"]
        later = [
            side_by_side.submit(ok, "health"),
            side_by_side.submit(ok, "show", newest, "--json"),
            side_by_side.submit(ok, "import", file, "--as", "again"),
            side_by_side.submit(ok, "revive", "no-such", status=1),
        ]
        health, shown, imported, revived = [each.result() for each in later]
    assert found["setup"] == "ready\n"
    assert json.loads(health)["primary_trouble"] == ""
    assert {json.loads(line)["thread"] for line in found["threads"].splitlines()} == {"t", "gone"}
    assert json.loads(shown)["checkpoint"] == newest
    assert "verified" in imported
    assert revived == "revived: 0\n"


# --- what it keeps to itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor", "valkey://a", f"valkey://u:{PASSWORD}@b"],
        ["threads", f"--no-such=valkey://u:{PASSWORD}@b"],
        [f"valkey://u:{PASSWORD}@b"],
    ],
)
def test_usage_repeats_no_password(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert PASSWORD not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "arguments",
    [
        ["threads", "--at", "{url}"],
        ["doctor", "{url}"],
        ["migrate", "--from", "{url}", "--to", "{database}", "--yes"],
        ["migrate", "--from", "{database}", "--to", "{url}", "--yes"],
    ],
)
def test_places_are_shown_without_passwords(
    valkey: LocalValkey, call_cli: Call, places: Places, arguments: list[str]
) -> None:
    database = places.make("sqlite")
    fill(places.saver(database), "t")
    url = keys_of(valkey.url, new_prefix()).replace("valkey://", f"valkey://app:{PASSWORD}@")
    valkey.command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "+@all", "~*")
    try:
        done = call_cli(*(each.format(url=url, database=database) for each in arguments))
    finally:
        valkey.command("ACL", "DELUSER", "app")
    assert done.status in (0, 1), done.err
    assert PASSWORD not in done.out + done.err


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no typer', name='typer')\n")
    program = [sys.executable, "-m", "langgraph_valkey", "threads"]
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(program, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "the command needs typer, of the extra `cli`: pip install 'langgraph-valkey[cli]'\n"
    )


def test_what_else_is_missing_is_not_taken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langgraph_valkey.cli.program", None)
    with pytest.raises(ModuleNotFoundError, match="program"):
        cli.main(["threads"])
