"""How prompts are taken apart: nothing of them is lost, and nothing in them is run."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)

from rag_cache.faces.prompts import QUESTION_CHARS_MOST, WHOLE, Prompt, take_apart


def of(*messages: BaseMessage) -> Prompt:
    return take_apart(dumps(list(messages)))


def test_the_last_human_message_is_the_question_wherever_it_stands() -> None:
    system, before, asked = SystemMessage("s"), HumanMessage("before"), HumanMessage(" what now ")
    after = AIMessage("a")
    assert of(system, before, asked, after).question == " what now "
    assert of(asked).question == " what now "
    assert of(system, asked).system == of(before, system, asked, after).system != ""
    assert of(asked).system == ""
    for none in ([], [system], [system, after], [HumanMessage("")], [HumanMessage("  ")]):
        assert of(*none).question in (WHOLE, "[]")
    picture = {"type": "image_url", "image_url": {"url": "u"}}
    blocks = HumanMessage(["a text", {"type": "text", "text": "the question"}, picture])
    assert of(blocks).question == "the question"
    assert of(HumanMessage([picture])).question == WHOLE
    assert of(HumanMessage("x" * QUESTION_CHARS_MOST)).question != WHOLE
    assert of(HumanMessage("x" * (QUESTION_CHARS_MOST + 1))).question == WHOLE


def test_chunks_and_whole_messages_are_the_same() -> None:
    whole = of(HumanMessage("q"), AIMessage("a"), HumanMessage("q"))
    chunks = of(
        HumanMessageChunk(content="q"), AIMessageChunk(content="a"), HumanMessageChunk(content="q")
    )
    assert (whole.question, whole.rest) == (chunks.question, chunks.rest)


def test_text_with_roles_and_without() -> None:
    text = take_apart("System: be brief\nHuman: hi\nAI: hello\nHuman: and in winter?")
    assert text.question == "and in winter?"
    other = take_apart("System: be brief\nHuman: hi\nAI: good day\nHuman: and in winter?")
    assert (other.question, other.rest != text.rest) == (text.question, True)
    followed = take_apart("Human: and in winter?\nAI: ")
    assert (followed.question.strip(), followed.rest != text.rest) == ("and in winter?", True)
    bare = take_apart("what is this? Human: no")
    assert bare.question == "what is this? Human: no"
    assert take_apart("who says\nHuman: no").question == "who says\nHuman: no"
    assert take_apart("AI: hello").question == "AI: hello"


def places(value: Any) -> list[tuple[Any, ...]]:
    """Paths to all texts and numbers in it."""
    if isinstance(value, dict):
        return [(name, *rest) for name, inner in value.items() for rest in places(inner)]
    if isinstance(value, list):
        return [(at, *rest) for at, inner in enumerate(value) for rest in places(inner)]
    return [()]


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return f"{value}'" if isinstance(value, str) else (value or 0) + 1
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = changed(copied[path[0]], path[1:])
    return copied


UNSEEN = {"id", "usage_metadata", "response_metadata", "artifact"}


def test_whatever_a_model_sees_changes_the_question_or_the_rest() -> None:
    call = {"name": "f", "args": {"deep": [{"x": 1}]}, "id": "c1", "type": "tool_call"}
    picture = {"type": "image_url", "image_url": {"url": "u"}}
    messages: list[BaseMessage] = [
        SystemMessage("s"),
        HumanMessage(["one", picture, "two"], name="ann", additional_kwargs={"k": ["v"]}),
        AIMessage(
            "a",
            tool_calls=[call],
            usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
        ),
        ToolMessage("found", tool_call_id="c1", name="f", artifact={"z": 1}),
        HumanMessage([picture, "the question"]),
        AIMessage("prefix"),
    ]
    whole = json.loads(dumps(messages))
    first = take_apart(json.dumps(whole))
    seen = set()
    for at in range(len(whole)):
        for path in places(whole[at]["kwargs"]):
            other = changed(whole, (at, "kwargs", *path))
            taken = take_apart(json.dumps(other))
            is_same = (taken.question, taken.rest) == (first.question, first.rest)
            assert is_same == (path[0] in UNSEEN), path
            seen.add(is_same)
    assert seen == {True, False}
    for at in range(len(whole)):
        shorter = take_apart(json.dumps(whole[:at] + whole[at + 1 :]))
        assert (shorter.question, shorter.rest) != (first.question, first.rest)
        twice = take_apart(json.dumps(whole[: at + 1] + whole[at:]))
        assert (twice.question, twice.rest) != (first.question, first.rest)


def test_where_a_prompt_is_cut_never_lets_two_pass_for_one() -> None:
    draw = random.Random(5)
    seen: dict[tuple[str, str], str] = {}
    for _ in range(3000):
        text = "".join(draw.choice(["a", "b", '"', "Human: ", "\n", "AI: "]) for _ in range(6))
        part = draw.choice(["a", "b", "ab", text])
        taken = take_apart(text, lambda some, part=part: part if part in some else None)  # type: ignore[misc]
        assert seen.setdefault((taken.question, taken.rest), text) == text
    assert len(seen) > 1000


@pytest.mark.parametrize(
    "text",
    [
        '[{"lc":1,"type":"constructor","id":["os","system"],"kwargs":{"command":"exit"}}]',
        '[{"lc":1,"type":"secret","id":["PATH"]}]',
        '[{"lc":1,"type":"not_implemented","id":["x"],"repr":"X()"}]',
        '[{"lc":1,"type":[],"kwargs":7}]',
        '[{"lc":1,"type":"constructor","kwargs":7}]',
        '[{"lc":1,"type":"constructor","kwargs":{"tool_calls":5,"type":["human"]}}]',
        '[{"lc":1,"type":"constructor","kwargs":{"type":"human","content":[{"text":5},7,null]}}]',
        '[{"lc":1}, 5]',
        '[{"lc":',
        '[{"lc":1,"type":"constructor","kwargs":{"type":"human","content":'
        + "[" * 100_000
        + "]" * 100_000
        + "}}]",
        '[{"lc":1,"type":"constructor","kwargs":{"type":"ai","content":'
        + '[{"x":' * 300
        + "1"
        + "}]" * 300
        + "}}]",
        "[" * 100_000,
        "\0\ud800",
        "",
    ],
    ids=range(14),
)
def test_a_hostile_text_is_only_text(text: str) -> None:
    found = take_apart(text)
    assert found == take_apart(text)
    other = take_apart("x" + text)
    assert (found.question, found.rest) != (other.question, other.rest)
