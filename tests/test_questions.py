"""Questions: which are the same, what a conversation is known by, and what makes one whole."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from rag_cache.questions import astandalone, history_digest, normalized, standalone

# --- the same question -------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("how  do I\treset\nit", "how do I reset it"),
        ("  how do I reset it\u00a0", "how do I reset it"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u212bngstr\u00f6m", "\u00c5ngstro\u0308m"),
        ("", " \u2003\r\n"),
    ],
)
def test_what_never_changes_a_meaning_is_levelled(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("is it in US", "is it in us"),
        ("what is x\u00b2", "what is x2"),
        ("is it so", "is it so?"),
        ("ab", "a b"),
        ("don't", "don\u2019t"),
        ("\ufb01ne", "fine"),
    ],
)
def test_what_may_change_it_is_not(one: str, other: str) -> None:
    assert normalized(one) != normalized(other)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text())
def test_a_normalized_question_stays_as_it_is(text: str) -> None:
    found = normalized(text)
    assert normalized(found) == found
    assert normalized(f" {unicodedata.normalize('NFD', text)}\n") == found


# --- the conversation before -------------------------------------------------------

CALL = {"name": "search", "args": {"q": "x", "n": {"a": 1, "b": [2]}}, "id": "call-1"}
HISTORY: list[Any] = [
    SystemMessage("be brief"),
    HumanMessage("hello"),
    AIMessage("", tool_calls=[CALL]),
    ToolMessage("found", tool_call_id="call-1"),
    AIMessage("hello, you"),
]


def test_a_conversation_is_known_by_what_was_said() -> None:
    digest = history_digest(HISTORY)
    assert len(digest) == 32
    assert int(digest, 16)
    assert history_digest(tuple(HISTORY)) == digest
    assert history_digest([]) == ""


@pytest.mark.parametrize(
    "same",
    [
        ("user", "hello"),
        {"role": "user", "content": "hello"},
        "hello",
        HumanMessage("hello", id="m-1"),
        HumanMessage([{"type": "text", "text": "hello"}]),
        HumanMessage(["hello"]),
        HumanMessage("hello", additional_kwargs={"seen": True}),
    ],
    ids=repr,
)
def test_neither_the_form_of_a_message_nor_its_id_counts(same: Any) -> None:
    assert history_digest([HISTORY[0], same, *HISTORY[2:]]) == history_digest(HISTORY)


def image(url: str, detail: str) -> HumanMessage:
    return HumanMessage([{"type": "image_url", "image_url": {"url": url, "detail": detail}}])


OTHERS: list[list[Any]] = [
    HISTORY[1:],
    [*HISTORY[:1], HumanMessage("Hello"), *HISTORY[2:]],
    [*HISTORY[:1], AIMessage("hello"), *HISTORY[2:]],
    [*HISTORY[:1], HumanMessage("hello", name="anna"), *HISTORY[2:]],
    [*HISTORY[:1], HumanMessage("hello", name="peter"), *HISTORY[2:]],
    [*HISTORY[:1], ChatMessage(content="hello", role="critic"), *HISTORY[2:]],
    [*HISTORY[:1], ChatMessage(content="hello", role="editor"), *HISTORY[2:]],
    [*HISTORY[:2], AIMessage("", tool_calls=[{**CALL, "name": "find"}]), *HISTORY[3:]],
    [*HISTORY[:2], AIMessage("", tool_calls=[{**CALL, "args": {"q": "y"}}]), *HISTORY[3:]],
    [*HISTORY[:2], AIMessage(""), *HISTORY[3:]],
    [*HISTORY[:3], ToolMessage("nothing", tool_call_id="call-1"), HISTORY[4]],
    HISTORY[::-1],
    [*HISTORY, HISTORY[4]],
    [HumanMessage("a"), HumanMessage("b")],
    [HumanMessage("ab")],
    [HumanMessage("a\0b")],
    [HumanMessage('a", "b')],
    [image("one", "low")],
    [image("other", "low")],
    [image("one", "high")],
]


def test_whatever_else_was_said_makes_another_conversation() -> None:
    digests = [history_digest(each) for each in [HISTORY, *OTHERS]]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("sort", ["tool_use", "tool_call", "function_call", "reasoning"])
def test_ids_that_a_model_draws_do_not_count(sort: str) -> None:
    """Those of files do."""

    def said(sort: str, told: str, **drawn: Any) -> str:
        return history_digest([AIMessage([{"type": sort, "told": told, **drawn}])])

    assert said(sort, "x", id="1", call_id="2", index=0) == said(sort, "x", id="3", index=1)
    assert said(sort, "x", id="1") != said(sort, "y", id="1")
    assert said("image", "x", id="1") != said("image", "x", id="2")


def test_the_order_of_keys_does_not_count() -> None:
    turned = {"id": "call-2", "args": {"n": {"b": [2], "a": 1}, "q": "x"}, "name": "search"}
    calls = [[AIMessage("", tool_calls=[each])] for each in (CALL, turned)]
    assert history_digest(calls[0]) == history_digest(calls[1])
    block = {"image_url": {"detail": "low", "url": "one"}, "type": "image_url"}
    assert history_digest([HumanMessage([block])]) == history_digest([image("one", "low")])


# --- made whole --------------------------------------------------------------------


class Model(GenericFakeChatModel):
    """A chat model that keeps what it was asked."""

    asked: list[list[BaseMessage]]

    def _generate(self, messages: list[BaseMessage], *args: Any, **given: Any) -> Any:
        self.asked.append(messages)
        return super()._generate(messages, *args, **given)


def model(answer: str | list[Any]) -> Model:
    return Model(messages=iter([AIMessage(answer)]), asked=[])


async def rewritten(face: str, question: str, history: Sequence[Any], by: Model) -> str:
    if face == "async":
        return await astandalone(question, history, by)
    return standalone(question, history, by)


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "answer",
    [
        " What is Paris like in winter?\n",
        [
            {"type": "reasoning", "reasoning": "They mean Paris."},
            {"type": "text", "text": "What is Paris like in winter?"},
        ],
    ],
)
async def test_a_model_is_asked_to_make_it_whole(face: str, answer: Any) -> None:
    by = model(answer)
    history = [("user", "What is Paris like in spring?"), {"role": "ai", "content": "Mild."}]
    found = await rewritten(face, "And in winter?", history, by)
    assert found == "What is Paris like in winter?"
    assert type(found) is str
    [[system, *told]] = by.asked
    assert "Rewrite the last question" in system.text
    assert [each.text for each in told] == [
        "What is Paris like in spring?",
        "Mild.",
        "And in winter?",
    ]
    assert [each.type for each in told] == ["human", "ai", "human"]


async def test_a_first_question_is_whole(face: str) -> None:
    by = model("something else")
    assert await rewritten(face, "And in winter?", [], by) == "And in winter?"
    assert by.asked == []


@pytest.mark.parametrize("answer", ["", " \n", [{"type": "reasoning", "reasoning": "hm"}]])
async def test_a_rewrite_to_nothing_is_refused(face: str, answer: Any) -> None:
    with pytest.raises(ValueError, match="rewritten to nothing"):
        await rewritten(face, "And in winter?", [("user", "hello")], model(answer))


def test_a_function_may_make_it_whole() -> None:
    def rewrite(question: str, history: Sequence[BaseMessage]) -> str:
        return f" {history[-1].text}: {question} "

    assert standalone("and?", [("user", "hello"), ("ai", "you")], rewrite) == "you: and?"
    assert standalone("and?", [], rewrite) == "and?"
    with pytest.raises(ValueError, match="rewritten to nothing"):
        standalone("and?", ["hello"], lambda *_: " ")
