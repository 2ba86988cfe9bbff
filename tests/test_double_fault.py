"""The double fault in short; ``make failover`` runs it for as long as you like."""

from __future__ import annotations

import math

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage

from tests.double_fault import report
from tests.double_fault.agent import answer_to, question
from tests.double_fault.bank import Intent, Line
from tests.double_fault.books import Entry
from tests.double_fault.crew import Turn
from tests.double_fault.judge import Fine, Verdict, judge_executions, judge_money, whats_wrong
from tests.double_fault.loop import Plan, run
from tests.double_fault.trace import GAVE_UP, Step

SEED = 1


@pytest.mark.timeout(120)
def test_nothing_is_done_twice_or_lost_after_double_faults() -> None:
    plan = Plan(faults=5, seed=SEED)
    result = run(plan)
    figures = report.figures(plan, result)
    print(*report.in_words(result), figures, sep="\n")
    assert not report.is_wrong(figures)
    assert figures["double_faults"] >= 5
    assert figures["rerun"] > 0
    assert figures["turns"] > 20


@pytest.mark.timeout(120)
def test_the_control_shows_what_goes_wrong() -> None:
    """Without a registry, and with the tasks' keys, it does: so it is looked for."""
    plan = Plan(faults=2, seed=SEED, control="registry")
    verdict = run(plan).verdict
    assert verdict.duplicates
    assert verdict.unfinished or verdict.broken


# --- the judge ------------------------------------------------------------------------

PAID = Intent("paid", 1, 2, 10)
TURN = Turn("turn", "talk", "careful", "sync", (PAID,))


@pytest.mark.parametrize(
    ("done", "booked", "duplicates", "missing"),
    [
        (["k"], ["k"], 0, 0),
        (["k", "l"], ["k", "l"], 1, 0),
        (["k", "k"], ["k"], 2, 0),
        ([], [], 0, 1),
        ([], ["k"], 0, 2),
        (["k"], [], 1, 0),
    ],
)
def test_money_is_judged(done: list[str], booked: list[str], duplicates: int, missing: int) -> None:
    verdict = Verdict()
    lines = [Line(PAID.name, TURN.run_id, key) for key in done]
    judge_money(verdict, [TURN], lines, [Entry(TURN.run_id, key) for key in booked])
    assert (len(verdict.duplicates), len(verdict.missing)) == (duplicates, missing)


CALLS = AIMessage("", tool_calls=[ToolCall(name="transfer", args={}, id="c")])
DONE = ToolMessage("{}", tool_call_id="c")
ASKED, ANSWERED = question("turn", [PAID]), AIMessage(answer_to("turn"))
NOTE = HumanMessage("It was done.", id="receipts-turn")


@pytest.mark.parametrize(
    ("messages", "is_whole"),
    [
        ([ASKED, CALLS, DONE, ANSWERED], True),
        ([NOTE, ASKED, CALLS, DONE, ANSWERED], True),
        ([ASKED, CALLS, ANSWERED], False),
        ([ASKED, DONE, ANSWERED], False),
        ([ASKED, CALLS, NOTE, DONE, ANSWERED], False),
        ([ASKED, CALLS, DONE, DONE, ANSWERED], False),
        ([ASKED, ASKED, ANSWERED], False),
        ([ASKED, ANSWERED, ANSWERED], False),
        ([ASKED], False),
        ([ANSWERED], False),
    ],
)
def test_threads_are_judged(messages: list[AnyMessage], is_whole: bool) -> None:
    thoughts = sum(isinstance(each, AIMessage) for each in messages)
    values = {"messages": messages, "opened": "talk", "thoughts": thoughts}
    assert (not whats_wrong("talk", values, ["turn"])) == is_whole
    assert whats_wrong("talk", {**values, "opened": ""}, ["turn"])
    assert whats_wrong("talk", {**values, "thoughts": thoughts + 1}, ["turn"])


FIRST = [Step("r", 1, 10, "think", 1.0), Step("r", 1, 10, "transfer", 2.0)]
AGAIN = Step("r", 2, 20, "think", 5.0)


@pytest.mark.parametrize(
    ("steps", "ended_s", "wrongly"),
    [
        (FIRST, {}, 0),
        ([*FIRST, AGAIN], {10: 3.0}, 0),
        ([*FIRST, AGAIN], {10: 6.0}, 1),
        ([*FIRST, AGAIN], {}, 1),
        ([*FIRST, Step("r", 0, 10, GAVE_UP, 4.0), AGAIN], {}, 0),
        ([*FIRST, AGAIN._replace(process=10)], {}, 0),
    ],
)
def test_executions_are_judged(steps: list[Step], ended_s: dict[int, float], wrongly: int) -> None:
    verdict = Verdict()
    judge_executions(verdict, steps, ended_s, [])
    assert len(verdict.wrongly_rerun) == wrongly


@pytest.mark.parametrize(("until_s", "wrongly"), [(math.inf, 1), (4.5, 0)])
def test_a_run_that_was_fine_must_not_be_done_again(until_s: float, wrongly: int) -> None:
    verdict = Verdict()
    fine = Fine(frozenset({"r"}), 3.0, until_s)
    judge_executions(verdict, [*FIRST, AGAIN], {10: 3.0}, [fine])
    assert len(verdict.wrongly_rerun) == wrongly
