"""The demo's app over HTTP: real servers, a real agent's process, and what breaks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.agent.documents import REPOSITORY
from examples.agent_app.rounds import Rounds
from examples.agent_app.visitor import RefusedError, Visitor
from tests.agent_app_ground import (
    app,
    new_thread,
    second,
    shard_of,
    visitor,
    wait_begun,
    wait_persisted,
    wait_whole,
)

__all__ = ["app", "second", "visitor"]

ORDER = "I'd like three desk lamps"
QUESTION = "How many days do I have to return something?"


def orders_of(visitor: Visitor, thread: str) -> list[dict[str, Any]]:
    return [each for each in visitor.orders() if each["thread"] == thread]


def charges(visitor: Visitor, thread: str) -> list[tuple[str, int]]:
    """Of each order of a conversation, its state and how often its card was charged."""
    return [(each["state"], each["charges"]) for each in orders_of(visitor, thread)]


def last_said(found: dict[str, Any]) -> str:
    return str(found["messages"][-1]["text"])


def order(visitor: Visitor, thread: str) -> dict[str, Any]:
    """Order something, and wait until the agent asks for approval."""
    found = visitor.settled(thread, visitor.say(thread, ORDER))
    assert found["pending"][0]["product"] == "desk lamp"
    return found


def test_a_chat_ends_with_an_order_that_is_charged_once(visitor: Visitor) -> None:
    thread = new_thread()
    assert order(visitor, thread)["pending"][0]["cents"] == 13500
    assert charges(visitor, thread) == [("reserved", 0)]
    assert visitor.decide(thread, approve=True).startswith("word-")
    found = visitor.settled(thread)
    assert "is paid" in last_said(found)
    assert charges(visitor, thread) == [("paid", 1)]
    with pytest.raises(RefusedError, match="nothing waits"):
        visitor.decide(thread, approve=True)
    visitor.settled(thread, visitor.say(thread, "What did I order?"))
    assert "3 x desk lamp" in last_said(visitor.settled(thread))


def test_an_order_that_is_declined_goes_back_to_the_shelf(visitor: Visitor) -> None:
    def lamps() -> int:
        stock = visitor.state()["ledger"]["stock"]
        return next(int(each["left"]) for each in stock if each["sku"] == "lamp")

    thread, before = new_thread(), lamps()
    order(visitor, thread)
    visitor.decide(thread, approve=False)
    assert "nothing was charged" in last_said(visitor.settled(thread))
    assert charges(visitor, thread) == [("cancelled", 0)]
    assert lamps() == before


def test_a_primary_that_is_killed_in_the_middle_of_a_turn(visitor: Visitor) -> None:
    thread = new_thread()
    visitor.settled(thread, visitor.say(thread, "Hello"))
    shard, mark = shard_of(visitor, thread), visitor.mark()
    visitor.press("hold_log", shard)
    run = visitor.say(thread, ORDER)
    wait_begun(visitor, thread, run)
    assert visitor.press("kill_primary", shard)["pid"] > 0
    assert visitor.judged(mark)["kind"] == "kept"
    assert visitor.entry("lost", mark)["numbers"]["bytes"] > 0
    assert visitor.entry("replayed", mark)["numbers"]["replayed"] > 0
    assert visitor.settled(thread, run)["pending"]
    visitor.decide(thread, approve=True)
    visitor.settled(thread)
    assert charges(visitor, thread) == [("paid", 1)]


def test_agent_and_primary_that_die_together(visitor: Visitor) -> None:
    thread = new_thread()
    order(visitor, thread)
    shard, mark = shard_of(visitor, thread), visitor.mark()
    wait_persisted(visitor, shard)
    visitor.press("hold_log", shard)
    visitor.decide(thread, approve=True)
    assert "is paid" in last_said(visitor.settled(thread))
    struck = visitor.press("kill_both", shard)
    assert visitor.judged(mark)["kind"] == "kept"
    assert visitor.entry("lost", mark)["numbers"]["bytes"] > 0
    assert visitor.entry("recovered", mark)["numbers"]["runs"] >= 1
    assert visitor.state()["agent"]["pid"] != struck["agent"]
    found = visitor.settled(thread)
    assert "is paid" in last_said(found)
    assert charges(visitor, thread) == [("paid", 1)]


def test_an_agent_that_is_killed_in_the_middle_of_a_turn(visitor: Visitor) -> None:
    thread, mark = new_thread(), visitor.mark()
    run = visitor.say(thread, ORDER)
    wait_begun(visitor, thread, run)
    visitor.press("kill_agent")
    assert visitor.judged(mark)["kind"] == "kept"
    assert visitor.entry("agent_up", mark)
    assert visitor.settled(thread, run)["pending"]
    assert [each["request"] for each in orders_of(visitor, thread)] == [run]
    visitor.decide(thread, approve=True)
    visitor.settled(thread)
    assert charges(visitor, thread) == [("paid", 1)]


def test_a_primary_that_is_frozen_and_goes_on(visitor: Visitor) -> None:
    thread = new_thread()
    visitor.settled(thread, visitor.say(thread, "Hello"))
    shard, mark = shard_of(visitor, thread), visitor.mark()
    run = visitor.say(thread, ORDER)
    wait_begun(visitor, thread, run)
    visitor.press("freeze_primary", shard)
    assert visitor.judged(mark)["kind"] == "kept"
    roles = {node["role"] for node in visitor.state()["cluster"]["shards"][shard]["nodes"]}
    assert roles == {"primary", "frozen"}
    with pytest.raises(RefusedError, match="no replica that runs"):
        visitor.ask("POST", "faults/kill_primary", {"shard": shard})
    assert visitor.settled(thread, run)["pending"]
    visitor.press("resume", shard)
    visitor.entry("resumed", mark)
    wait_whole(visitor)


def test_refused_writes_are_waited_for(visitor: Visitor) -> None:
    thread = new_thread()
    order(visitor, thread)
    shard, mark = shard_of(visitor, thread), visitor.mark()
    visitor.press("reject_writes", shard)
    visitor.decide(thread, approve=True)
    visitor.entry("refusing", mark)

    def is_refused() -> float | None:
        told: dict[str, Any] = visitor.state()["cluster"]["shards"][shard]
        return told.get("rejecting_s") if told["rejecting"] == "NOREPLICAS" else None

    visitor.until(is_refused, "the agent notices")
    found = visitor.thread(thread)  # Reads go on.
    assert found is not None
    assert found["running"]
    visitor.press("accept_writes", shard)
    assert "is paid" in last_said(visitor.settled(thread))
    visitor.entry("accepting", mark)
    assert charges(visitor, thread) == [("paid", 1)]


def test_a_page_that_is_edited_makes_its_answers_stale(visitor: Visitor) -> None:
    thread, mark = new_thread(), visitor.mark()

    def ask(question: str) -> tuple[str, dict[str, Any]]:
        found = visitor.settled(thread, visitor.say(thread, question))
        tool = next(each for each in reversed(found["messages"]) if each["role"] == "tool")
        return last_said(found), tool["details"]

    answer, details = ask(QUESTION)
    assert "14 days" in answer
    assert details["source"] == "model"
    answer, details = ask("How many days do I have to return things?")
    assert "14 days" in answer
    assert details["source"] == "process"
    page = visitor.ask("GET", "documents/returns.md")["text"]
    edited = visitor.ask(
        "PUT", "documents/returns.md", {"text": page.replace("14 days", "30 days")}
    )
    answer, details = ask(QUESTION)
    assert "30 days" in answer
    assert details["missed"] == "stale"
    assert details["evidence"]["returns.md"] == edited["version"]
    visitor.entry("stale_refused", mark)
    cache = visitor.state()["cache"]
    assert cache["hits"]["process"] >= 1
    assert cache["saved_s"] > 0


def test_going_back_in_time_does_not_charge_twice(visitor: Visitor) -> None:
    thread = new_thread()
    order(visitor, thread)
    visitor.decide(thread, approve=True)
    visitor.settled(thread)
    history = visitor.ask("GET", f"threads/{thread}/history")
    asked = next(each for each in history if "waits for approval" in each["summary"])
    went = visitor.ask("POST", f"threads/{thread}/travel", {"checkpoint_id": asked["id"]})
    assert went["goes_on"]
    found = visitor.settled(thread)
    assert found["pending"]
    assert len(found["messages"]) == 4
    visitor.decide(thread, approve=True)
    assert "is paid" in last_said(visitor.settled(thread))
    assert charges(visitor, thread) == [("paid", 1)]
    branches = visitor.ask("GET", f"threads/{thread}/history")
    assert any(not each["on_line"] for each in branches)
    assert len(branches) > len(history)
    begun = next(each for each in branches if not each["can_travel"])
    with pytest.raises(RefusedError, match="choose the step after it"):
        visitor.ask("POST", f"threads/{thread}/travel", {"checkpoint_id": begun["id"]})


def approve_and_lose(visitor: Visitor) -> tuple[str, int]:
    """Approve an order, and have the store forget that; the conversation, and where it began."""
    thread = new_thread()
    order(visitor, thread)
    shard, mark = shard_of(visitor, thread), visitor.mark()
    wait_persisted(visitor, shard)
    visitor.press("hold_log", shard)
    visitor.decide(thread, approve=True)
    assert "is paid" in last_said(visitor.settled(thread))
    visitor.press("kill_primary", shard)
    return thread, mark


def test_what_is_lost_without_replay_is_not_lost_with_it(second: Visitor) -> None:
    """The same clicks: an approval that the store forgets is asked for, and charged, again."""
    thread, mark = approve_and_lose(second)
    assert second.judged(mark)["kind"] == "kept"
    assert not second.settled(thread)["pending"]
    assert charges(second, thread) == [("paid", 1)]
    assert second.state()["ledger"]["wrong"] == []

    assert second.ask("POST", "replay", {"on": False})["replay"] is False
    thread, mark = approve_and_lose(second)
    assert second.judged(mark)["kind"] == "missing"
    assert second.settled(thread)["pending"]
    second.decide(thread, approve=True)
    second.settled(thread)
    assert charges(second, thread) == [("paid", 2)]
    second.entry("wrong", mark)

    assert second.ask("POST", "replay", {"on": True})["replay"] is True
    wait_whole(second)
    assert "is paid" in last_said(second.settled(thread))


def test_random_faults_leave_right_books_and_whole_conversations(visitor: Visitor) -> None:
    assert Rounds(visitor, seed=5, say=print).run(2) == []


# --- the server --------------------------------------------------------------------------


def test_what_happens_is_told_live(visitor: Visitor) -> None:
    thread, heard = new_thread(), dict[str, list[Any]]()
    with httpx.stream("GET", f"{visitor.url}/events", timeout=30) as stream:
        kind = ""
        for line in stream.iter_lines():
            name, _, rest = line.partition(": ")
            if name == "event":
                kind = rest
            elif name == "data":
                heard.setdefault(kind, []).append(json.loads(rest))
                if kind == "state":
                    visitor.say(thread, ORDER)
                if kind == "ledger" and "run" in heard and heard["run"][-1]["state"] == "waiting":
                    break
                if kind == "run" and heard["run"][-1]["state"] == "waiting" and "ledger" in heard:
                    break
    said = "".join(each["text"] for each in heard["token"])
    assert "Before I charge your card" in said
    assert [each["state"] for each in heard["run"]] == ["started", "accepted", "waiting"]
    assert heard["run"][-1]["pending"][0]["cents"] == 13500
    assert [each["message"]["role"] for each in heard["message"]] == ["agent", "tool", "agent"]
    assert heard["cluster"][-1]["shards"][0]["nodes"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "faults/no_such_button", {"shard": 0}, 404),
        ("POST", "faults/kill_primary", {"shard": 3}, 400),
        ("POST", "faults/kill_primary", {"shard": "0"}, 400),
        ("POST", "threads/Not A Thread/messages", {"text": "Hello"}, 400),
        ("POST", "threads/c-1/messages", {"text": " "}, 400),
        ("POST", "threads/c-1/messages", {"text": "x" * 2001}, 400),
        ("POST", "threads/c-1/messages", [], 400),
        ("POST", "replay", {"on": "yes"}, 400),
        ("GET", "documents/shop.db", None, 404),
        ("PUT", "documents/new.md", {"text": "New."}, 404),
    ],
)
def test_what_makes_no_sense_is_refused(
    visitor: Visitor, method: str, path: str, body: Any, status: int
) -> None:
    with pytest.raises(RefusedError) as raised:
        visitor.ask(method, path.replace(" ", "%20"), body)
    assert raised.value.status == status


def test_other_sites_can_do_nothing(visitor: Visitor) -> None:
    url = f"{visitor.url}/api/faults/kill_agent"
    by_name = httpx.post(url, json={}, headers={"host": "evil.example"})
    by_form = httpx.post(url, content=b'{"shard": 0}', headers={"content-type": "text/plain"})
    by_origin = httpx.post(url, headers={"origin": "http://evil.example"})
    assert [each.status_code for each in (by_name, by_form, by_origin)] == [400, 400, 403]
    assert visitor.state()["agent"]["up"]
    page = httpx.get(visitor.url)
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


def test_it_leaves_nothing_behind(second: Visitor) -> None:
    spare = second.until(lambda: second.state()["agent"]["spare"] or None, "a stand-by")
    state = second.state()
    pids = [node["pid"] for shard in state["cluster"]["shards"] for node in shard["nodes"]]
    pids += [state["agent"]["pid"], spare]
    with httpx.stream("GET", f"{second.url}/events", timeout=30) as stream:
        assert stream.status_code == 200  # A page that is open does not hold it up.
        code, told = second.leave()
    assert code == 0
    assert told.strip() == "Stopped: nothing still runs."
    assert len(pids) == 8
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "no-such-provider:x"], "the chat model no-such-provider:x can't be made"),
        (["--data-dir", "{mine}"], "choose another --data-dir"),
    ],
)
def test_what_keeps_it_from_starting_is_told_in_a_sentence(
    tmp_path: Path, options: list[str], told: str
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letters").write_text("Dear ...")
    given = ["--data-dir", str(tmp_path / "data"), *(each.format(mine=mine) for each in options)]
    done = subprocess.run(
        [sys.executable, "-m", "examples.agent_app", *given],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert (mine / "letters").exists()


def test_a_port_that_is_taken_is_told_in_a_sentence(visitor: Visitor, tmp_path: Path) -> None:
    port = visitor.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "examples.agent_app", "--port", port, "--data-dir", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"Port {port} can't be used" in done.stderr
    assert "Traceback" not in done.stderr
