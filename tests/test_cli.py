"""The command line, as an operator calls it: in a process of its own, on real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from langgraph_valkey import Unreachable, cli
from langgraph_valkey.cli.naming import named
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.primary.records import Message, Outgoing
from tests.facade_ground import Ground, agent

SECRET = "4711-secret-body"

SHOP = """
from tests.facade_ground import State, agent
from langgraph.graph import START, StateGraph
from langgraph_valkey.tiers.state_tiers import StateTiers

make_agent = agent  # A function of the tiers.

plain = StateGraph(State)
plain.add_node("end", lambda state: {"steps": ["ended"]})
plain.add_edge(START, "end")

def fails(state):
    raise KeyError("as it does")

failing = StateGraph(State)
failing.add_node("end", fails)
failing.add_edge(START, "end")

tiers = StateTiers()
compiled = agent(tiers)
not_tiers = 7
"""


class Shop:
    """A folder with a program, and its environment."""

    def __init__(self, valkey: LocalValkey, folder: Path) -> None:
        self.ground = Ground(valkey, folder)
        self.folder = folder
        (folder / "shop.py").write_text(SHOP)
        self.environ = {
            "LANGGRAPH_VALKEY_URL": valkey.url,
            "LANGGRAPH_VALKEY_KEY_PREFIX": self.ground.transient.key_prefix,
            "LANGGRAPH_VALKEY_PRIMARY": f"sqlite:///{self.ground.path}",
        }

    def call(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Call the command line in a process of its own."""
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        return subprocess.run(
            [sys.executable, "-m", "langgraph_valkey", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths, **self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def leave_undone(self, name: str, thread_id: str, run_id: str) -> None:
        """Begin a turn, and have the process and the thread lost amid it."""

        def cut_off(_: Any) -> None:
            raise Unreachable("the server went away")

        tiers = self.ground.tiers()
        graph = agent(tiers, cut_off)
        tiers.register(graph, name)
        with pytest.raises(Unreachable):
            tiers.run(graph, {"order_id": run_id}, thread_id=thread_id, run_id=run_id)
        tiers.close(drain_s=0)
        self.ground.lose(f"*{thread_id}*")


@pytest.fixture
def shop(valkey: LocalValkey, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(valkey, tmp_path)
    yield made
    made.ground.lose()


class Done(NamedTuple):
    """What a call in this process came to."""

    status: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the command line in this process, which is quicker."""
    monkeypatch.chdir(shop.folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    capsys.readouterr()

    def in_this_process(*arguments: str, **environ: str) -> Done:
        for name, value in {**shop.environ, **environ}.items():
            monkeypatch.setenv(name, value)
        try:
            status = cli.main(arguments)
        finally:
            loaded = sys.modules.pop("shop", None)
            if loaded is not None:
                loaded.tiers.close(drain_s=0)
        return Done(status, *capsys.readouterr())

    return in_this_process


def test_setup_makes_the_tables(shop: Shop, call: Call) -> None:
    done = call("setup")
    assert (done.status, done.out) == (0, "ready\n"), done.err
    assert "lgv_commits" in shop.ground.tables


def test_a_cluster_that_is_not_fit_is_said_without_a_traceback(shop: Shop, call: Call) -> None:
    done = call("setup", LANGGRAPH_VALKEY_COORDINATION_URL=shop.ground.valkey.url)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("ConfigurationError: ")
    assert "coordination cluster" in done.err


def test_health_is_json(shop: Shop, call: Call) -> None:
    early = call("health")
    assert early.status == 1
    assert "call setup()" in json.loads(early.out)["primary_trouble"]
    assert "lgv_commits" not in shop.ground.tables
    assert call("setup").status == 0
    done = call("health")
    assert done.status == 0
    found = json.loads(done.out)
    assert found["primary_trouble"] == ""
    assert found["saver"]["journal_entries"] == 0
    (shop.folder / "broken.db").write_bytes(b"no database" * 1000)
    bad = call("health", LANGGRAPH_VALKEY_PRIMARY=f"sqlite:///{shop.folder}/broken.db")
    assert bad.status == 1
    assert json.loads(bad.out)["primary_trouble"]


def test_recover_tells_as_json(shop: Shop, call: Call) -> None:
    shop.leave_undone("agent", "t", "r")
    shop.leave_undone("other", "u", "s")
    done = call("recover", "--graph", "shop:make_agent", "--json")
    assert done.status == 1
    told = json.loads(done.out)
    assert (told["fine"], told["rerun"], told["failed"]) == ([], ["r"], [])
    [unknown] = told["unknown_graphs"]
    assert (unknown["run_id"], unknown["thread_id"]) == ("s", "u")
    assert set(unknown) == {"run_id", "thread_id", "why"}


def test_recover_runs_again_what_was_lost(shop: Shop) -> None:
    shop.leave_undone("agent", "t", "r")
    shop.leave_undone("other", "u", "s")
    done = shop.call("recover", "--graph", "shop:make_agent")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[:3] == ["fine: 0", "rerun: 1", "  r"]
    assert "unknown graphs: 1\n  s (thread u): " in done.stdout
    assert shop.ground.charges == ["r", "s"]


def test_recover_takes_graphs_by_other_names(shop: Shop, call: Call) -> None:
    shop.leave_undone("other", "u", "s")
    done = call("recover", "--graph", "shop:make_agent", "--graph", "other=shop:plain")
    assert done.status == 0
    assert done.out.splitlines()[:3] == ["fine: 0", "rerun: 1", "  s"]


def test_recover_by_the_tiers_of_a_program(shop: Shop, call: Call) -> None:
    shop.leave_undone("agent", "t", "r")
    done = call("--tiers", "shop:tiers", "recover", "--graph", "shop:compiled")
    assert done.status == 0
    assert "rerun: 1\n  r\n" in done.out
    assert shop.ground.charges == ["r"]


def test_recover_tells_of_failures(shop: Shop, call: Call) -> None:
    shop.leave_undone("agent", "t", "r")
    done = call("recover", "--graph", "agent=shop:failing")
    assert done.status == 1
    assert "failed: 1\n  r (thread t): " in done.out


def test_dead_letters_are_shown_without_bodies_and_revived(shop: Shop, call: Call) -> None:
    def fail(_: Message) -> None:
        raise OSError("no route")

    with shop.ground.tiers(settings={"outbox_attempts_most": 1}) as tiers:
        tiers.outbox.handle("invoice", fail)
        for key in ("1", "2"):
            outbox = [Outgoing("invoice", SECRET)]
            tiers.commit("charge", key=key, fn=lambda _: None, scope="global", outbox=outbox)
        assert tiers.outbox.drain().dead == 2
        done = call("dead-letters")
        assert done.status == 0
        assert SECRET not in done.out
        letters = [json.loads(line) for line in done.out.splitlines()]
        assert [each["key"] for each in letters] == ["1", "2"]
        expected = {"topic": "invoice", "op": "charge", "attempts": 1, "error": "OSError: no route"}
        assert letters[0] | expected == letters[0]
        assert len(call("dead-letters", "--limit", "1").out.splitlines()) == 1
        assert call("revive", letters[0]["id"])[:2] == (0, "revived: 1\n")
        assert call("revive", *(each["id"] for each in letters))[:2] == (1, "revived: 1\n")
        assert tiers.outbox.dead_letters() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recover", "--graph", "shop"], "module:attribute"),
        (["recover", "--graph", "no_such_module:x"], "no module 'no_such_module'"),
        (["recover", "--graph", "shop:no_such"], "no attribute 'no_such'"),
        (["recover", "--graph", "shop:compiled"], "not compiled with the saver"),
        (["--tiers", "shop:not_tiers", "setup"], "is a int, not a StateTiers"),
    ],
)
def test_names_that_name_nothing_are_said(call: Call, arguments: list[str], said: str) -> None:
    done = call(*arguments)
    assert done.status == 2
    assert said in done.err


def test_a_module_that_does_not_import_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_shop.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        named("broken_shop:agent")


def test_without_settings_it_says_which_are_missing(
    call: Call,
) -> None:
    done = call("setup", LANGGRAPH_VALKEY_URL="")
    assert done.status == 2
    assert "LANGGRAPH_VALKEY_URL" in done.err


@pytest.mark.parametrize("arguments", [[], ["recover"], ["revive"], ["no-such"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: python -m langgraph_valkey" in capsys.readouterr().err.lower()
