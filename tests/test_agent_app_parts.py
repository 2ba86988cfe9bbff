"""Parts of the demo's app: its model's rules, its witness, its books, and its hub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from examples.agent_app import books
from examples.agent_app.agent.help_pages import passages_of, version_of
from examples.agent_app.agent.scripted import GREETING, NOTE, next_message
from examples.agent_app.agent.showing import message_shown, turns_of
from examples.agent_app.agent_process import AgentAwayError
from examples.agent_app.books import Books
from examples.agent_app.hub import BEHIND_MOST, Hub
from examples.agent_app.stage import Options, Stage
from examples.agent_app.tally import Tally
from examples.agent_app.timeline import Timeline, counted, size
from examples.agent_app.witness import Witness

TOOLS = ("search_help", "reserve_stock", "charge_card", "my_orders")
RESERVED = {"order_id": 1001, "product": "desk lamp", "count": 3, "cents": 13500}


def called(message: AIMessage) -> tuple[str, dict[str, Any]]:
    [call] = message.tool_calls
    return call["name"], call["args"]


def result(name: str, value: Any) -> ToolMessage:
    return ToolMessage(json.dumps(value), name=name, tool_call_id=name)


# --- the model's rules -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sku", "count"),
    [
        ("I'd like three desk lamps", "lamp", 3),
        ("Please order 2 office chairs", "chair", 2),
        ("I need a standing desk", "desk", 1),
        ("Send me a dozen monitor arms!", "arm", 12),
        ("I'll take 500 lamps", "lamp", 20),
        ("I want to buy a desk lamp for my 2 kids", "lamp", 1),
    ],
)
def test_an_order_is_understood(text: str, sku: str, count: int) -> None:
    assert called(next_message([HumanMessage(text)], TOOLS)) == (
        "reserve_stock",
        {"sku": sku, "count": count},
    )


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("How long does delivery take?", "search_help"),
        ("Is there a warranty on the standing desk?", "search_help"),
        ("What did I order?", "my_orders"),
        ("Where is my order?", "my_orders"),
    ],
)
def test_a_question_goes_to_who_knows(text: str, tool: str) -> None:
    assert called(next_message([HumanMessage(text)], TOOLS))[0] == tool


@pytest.mark.parametrize("text", ["Hello", "Thanks!"])
def test_all_else_is_greeted(text: str) -> None:
    assert next_message([HumanMessage(text)], TOOLS).text == GREETING
    assert next_message([], TOOLS).text == GREETING


def test_an_order_goes_on_from_what_tools_answered() -> None:
    talk: list[AnyMessage] = [HumanMessage("I'd like three desk lamps")]
    talk += [next_message(talk, TOOLS), result("reserve_stock", RESERVED)]
    asks = next_message(talk, TOOLS)
    assert called(asks) == ("charge_card", {"order_id": 1001, "cents": 13500})
    for answer, said in [
        ({"order_id": 1001, "charged": 13500}, "is paid"),
        ({"order_id": 1001, "cancelled": True}, "nothing was charged"),
        ({"order_id": 1001, "cancelled": False}, "was paid before"),
    ]:
        last = next_message([*talk, asks, result("charge_card", answer)], TOOLS)
        assert said in last.text
        assert not last.tool_calls


def test_a_refusal_is_handed_on() -> None:
    refused = result("reserve_stock", {"refused": "only 2 x desk lamp are left"})
    talk = [HumanMessage("I'd like three desk lamps"), refused]
    assert "only 2 x desk lamp are left" in next_message(talk, TOOLS).text


def test_a_note_of_what_was_done_is_heeded() -> None:
    """Wherever it stands; and only that of this turn."""
    done = f'Already done:\n- reserve "lamp": {json.dumps(RESERVED)}'
    question = HumanMessage("I'd like three desk lamps", id="turn-2")
    note = HumanMessage(done, id=f"{NOTE}turn-2")
    for talk in ([note, question], [question, note, AIMessage("Let me see.")]):
        assert called(next_message(talk, TOOLS))[0] == "charge_card"
    before = [HumanMessage("I'd like three desk lamps", id="turn-1"), note, AIMessage("Done.")]
    assert called(next_message([*before, question], TOOLS))[0] == "reserve_stock"


def test_each_call_has_another_id() -> None:
    ids = {next_message([HumanMessage("Give me a lamp")], TOOLS).tool_calls[0]["id"] for _ in "ab"}
    assert len(ids) == 2


# --- what is shown -----------------------------------------------------------------------


def test_turns_are_answered_by_what_asks_for_nothing_more() -> None:
    talk = [
        HumanMessage("One", id="1"),
        AIMessage("", tool_calls=[{"name": "my_orders", "args": {}, "id": "a"}]),
        result("my_orders", []),
        AIMessage("None."),
        HumanMessage("A note", id=f"{NOTE}2"),
        HumanMessage("Two", id="2"),
        AIMessage("Wait", tool_calls=[{"name": "my_orders", "args": {}, "id": "b"}]),
    ]
    assert turns_of(talk) == {"1": True, "2": False}
    roles = [message_shown(each)["role"] for each in talk]
    assert roles == ["customer", "agent", "tool", "agent", "note", "customer", "agent"]


def test_pages_are_cut_and_versioned() -> None:
    text = "# Returns\n\nOne.\nTwo.\n\nThree.\n"
    assert [(each.heading, each.text) for each in passages_of("returns.md", text)] == [
        ("Returns", "One.\nTwo."),
        ("Returns", "Three."),
    ]
    assert version_of(text) != version_of(text.replace("Two", "2"))


# --- the witness -------------------------------------------------------------------------


def witness(*turns: tuple[str, bool]) -> Witness:
    """One that saw turns of one conversation: their runs, and whether they were answered."""
    made = Witness()
    for run, answered in turns:
        made.said("c", run, f"text of {run}")
        made.accepted("c", run)
        if answered:
            made.answered("c", run)
    return made


@pytest.mark.parametrize(
    ("found", "gone", "unanswered"),
    [
        ({"1": True, "2": False}, [], []),
        ({"1": True, "2": True}, [], []),
        ({"1": True}, ["text of 2"], []),
        ({"1": False, "2": False}, [], ["text of 1"]),
        ({}, ["text of 1", "text of 2"], []),
    ],
)
def test_what_was_told_is_compared(
    found: Mapping[str, bool], gone: list[str], unanswered: list[str]
) -> None:
    seen = witness(("1", True), ("2", False))
    verdict = seen.compare({"c": found})
    assert (verdict.gone, verdict.unanswered) == (gone, unanswered)
    assert verdict.is_right is (not gone and not unanswered)
    assert (verdict.accepted, verdict.answered) == (2, 1)
    assert seen.compare({"c": found}).is_right  # What is gone is told once.


def test_what_was_not_accepted_may_be_gone() -> None:
    seen = Witness()
    seen.said("c", "1", "Hello")
    assert seen.threads == []
    assert seen.compare({"c": {}}).is_right


def test_an_answer_to_a_question_in_between_is_one_to_its_turn() -> None:
    seen = witness(("1", False))
    seen.answered("c", "word-of-approval")
    assert seen.compare({"c": {"1": False}}).unanswered == ["text of 1"]


def test_what_was_left_on_another_branch_is_not_missing() -> None:
    seen = witness(("1", True), ("2", True))
    seen.travelled("c", {"1": False})
    assert seen.compare({"c": {"1": False}}).is_right


# --- books, tally, timeline ---------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Books:
    opened = Books(tmp_path / "shop.db")
    opened.open_shop()
    return opened


def test_books_that_are_right_and_wrong(shop: Books) -> None:
    with shop.engine.begin() as connection:
        made = books.reserve(connection, "lamp", 3, thread="c", request="1")
        other = books.reserve(connection, "chair", 1, thread="c", request="2")
        assert made["order_id"] == books.FIRST_ORDER
        assert other["order_id"] == books.FIRST_ORDER + 1
        books.charge(connection, made["order_id"], made["cents"])
        assert books.cancel(connection, other["order_id"])["cancelled"]
        assert not books.cancel(connection, other["order_id"])["cancelled"]
        assert not books.cancel(connection, made["order_id"])["cancelled"]
    ledger = shop.ledger()
    assert ledger["wrong"] == []
    assert [(each["state"], each["charges"]) for each in ledger["orders"]] == [
        ("paid", 1),
        ("cancelled", 0),
    ]
    with shop.engine.begin() as connection:
        books.charge(connection, made["order_id"], made["cents"])
    [wrong] = shop.ledger()["wrong"]
    assert "charged 2 times" in wrong
    with shop.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE stock SET left_over = 0 WHERE sku = 'arm'")
    assert len(shop.ledger()["wrong"]) == 2
    shop.close()


def test_more_than_there_is_can_not_be_had(shop: Books) -> None:
    with shop.engine.begin() as connection:
        refused = books.reserve(connection, "desk", 31, thread="c", request="1")
        assert refused == {"refused": "only 30 x standing desk are left"}
        assert "refused" in books.reserve(connection, "sofa", 1, thread="c", request="1")
        assert "refused" in books.reserve(connection, "desk", 0, thread="c", request="1")
    assert shop.ledger()["orders"] == []
    shop.close()


def test_counts_go_on_with_another_process() -> None:
    tally = Tally()
    counts = {**tally.total, "hits": {"exact": 2}, "saved_s": 0.5}
    assert tally.counted(counts)
    assert not tally.counted(counts)
    tally.ended()
    assert tally.total["hits"] == {"exact": 2}
    tally.counted({**counts, "hits": {"exact": 1, "process": 1}})
    assert tally.total["hits"] == {"exact": 3, "process": 1}
    assert tally.total["saved_s"] == 1.0


def test_words_for_numbers() -> None:
    assert [counted(1, "turn"), counted(1200, "turn")] == ["1 turn", "1,200 turns"]
    assert [size(1), size(1023), size(2048)] == ["1 byte", "1,023 bytes", "2.0 KiB"]


async def test_a_page_that_is_too_far_behind_is_cut_off() -> None:
    hub = Hub()
    timeline = Timeline(hub)
    events = hub.events("state", {})
    assert "event: state" in await anext(events)
    timeline.add("held", "A title", "A text.")
    told = await anext(events)
    assert told.startswith("event: timeline\n")
    assert json.loads(told.partition("data: ")[2])["title"] == "A title"
    for _ in range(BEHIND_MOST + 1):
        hub.tell("cluster", {})
    heard = [each async for each in events]  # It ends, and the page asks anew.
    assert len(heard) == BEHIND_MOST
    hub.close()
    assert [each async for each in hub.events("state", {})] == []


async def test_a_request_that_a_dying_agent_took_is_sent_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(Options(tmp_path, "offline", 0.0))
    stage.books.open_shop()
    asked: list[tuple[str, Any]] = []

    async def dies(what: str, about: Any, **_: Any) -> None:
        asked.append((what, about))
        raise AgentAwayError("it ended")

    async def lives(what: str, about: Any, **_: Any) -> None:
        asked.append((what, about))

    monkeypatch.setattr(stage.agent, "ask", dies)
    run = await stage.say("c", "Hello")
    monkeypatch.setattr(stage.agent, "ask", lives)
    up = {"event": "up", "pid": 1, "replays": True}
    told = {"event": "run", "thread": "c", "run": run, "state": "accepted", "why": ""}
    for _ in range(2):
        stage._heard(dict(up))
        await asyncio.sleep(0.01)
        stage._heard(dict(told))  # From now on it is recorded.
    assert asked == [("say", {"thread": "c", "run": run, "text": "Hello"})] * 2

    monkeypatch.setattr("examples.agent_app.stage.SEND_AGAIN_S", 0.0)
    run = await stage.say("c", "And now?")
    left = {"event": "run", "thread": "c", "run": run, "state": "left", "why": "Unreachable"}
    stage._heard(dict(left))  # Before it began: nobody has recorded it.
    await asyncio.sleep(0.01)
    assert stage.timeline.entries[-1]["kind"] == "not_taken"
    assert [about["run"] for _, about in asked[2:]] == [run, run]
    stage._heard({**left, "state": "accepted"})
    assert not stage.is_waiting
    stage._heard(dict(left))  # Recorded: the registry brings it to its end.
    await asyncio.sleep(0.01)
    assert stage.timeline.entries[-1]["kind"] == "left"
    assert len(asked) == 4

    stage.agent.place["replay"] = False  # A plain agent has nobody who would send it again.
    monkeypatch.setattr(stage.agent, "ask", dies)
    with pytest.raises(AgentAwayError):
        await stage.say("c", "Hello?")
    stage.books.close()


async def test_closing_lets_pages_go() -> None:
    hub = Hub()
    events = hub.events("state", {})
    await anext(events)
    waiting = asyncio.ensure_future(anext(events, "the end"))
    await asyncio.sleep(0)
    hub.close()
    assert await waiting == "the end"
