"""What a model is asked, taken apart: a question, and all else.

Only the question is compared by its meaning. All else stands in two digests and has to be
exactly the same: what the system says, the conversation before the question, and what came
after it, such as results of tools. Nothing of a prompt is lost between the two, so where it
is cut decides what may be alike, and never lets two contexts pass for one.

Chat models hand prompts over as LangChain serializes messages. They are read as the plain
data they are: no class is looked up, and no object is made from a text that users wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rag_cache.questions import normalized
from rag_cache.scope import digest_of

QUESTION_CHARS_MOST = 1000
"""A longer text is hardly a question alone: documents or instructions stand in it, which
make all questions alike, and an embedder may not even read to its end."""

WHOLE = "the whole prompt"
"""Stands for the question where all of a prompt is compared exactly."""

QuestionIn: TypeAlias = Callable[[str], str | None]

_VOLATILE = {"id", "response_metadata", "usage_metadata", "artifact"}
"""Fields of messages that no model sees, or that differ with every answer."""

_ROLE = re.compile(r"^(System|Human|AI|Tool|Function|Chat): ", re.MULTILINE)
"""How LangChain writes messages down for a model that takes text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, taken apart.

    Attributes:
        text: As LangChain gave it.
        messages: The fields of each message; none if it was given as text.
        question: What is compared by its meaning; `WHOLE` if nothing is.
        system: Digest of what the system says; "" if it says nothing.
        rest: Digest of all that is not the question.
    """

    text: str = field(repr=False)
    messages: tuple[Mapping[str, Any], ...] = field(repr=False)
    question: str
    system: str
    rest: str


def if_short(text: str) -> str | None:
    """The whole text is the question, unless it is too long for one."""
    return text if len(text) <= QUESTION_CHARS_MOST else None


def take_apart(text: str, question_in: QuestionIn = if_short) -> Prompt:
    """Take a prompt apart.

    Args:
        text: As LangChain gives it to caches: messages as JSON, or plain text.
        question_in: Which part of the last human message, or of the plain text, is the
            question; None if none is: then all of the prompt has to be exactly the same.

    Raises:
        ValueError: `question_in` returned what does not stand in its text.
    """
    messages = _messages(text)
    if messages is None:
        return _of_text(text, question_in)
    try:
        return _of_messages(text, messages, question_in)
    except RecursionError:  # Something in it is nested too deeply to be looked at.
        return _of_messages(text, (), question_in)


def _of_messages(
    text: str, messages: tuple[Mapping[str, Any], ...], question_in: QuestionIn
) -> Prompt:
    """A prompt of messages; if there are none, nothing is told apart."""
    told = _told(messages)
    humans = [at for at, each in enumerate(told) if each.get("type") == "human"]
    question = ""
    if humans:
        question, told[humans[-1]] = _cut_message(told[humans[-1]], question_in)
    system = [each for each in told if each.get("type") == "system"]
    return Prompt(
        *(text, messages, question or WHOLE, _digest(system) if system else ""),
        rest=_digest(told if messages else text),
    )


def _of_text(text: str, question_in: QuestionIn) -> Prompt:
    """A prompt that is plain text, perhaps with the roles that LangChain writes before it."""
    first, last = 0, len(text)
    roles = list(_ROLE.finditer(text))
    if roles and roles[0].start() == 0:
        humans = [at for at, each in enumerate(roles) if each[1] == "Human"]
        if humans:
            first = roles[humans[-1]].end()
            following = roles[humans[-1] + 1 : humans[-1] + 2]
            last = following[0].start() if following else last
    question, around = _cut(text[first:last], question_in)
    rest = [text[:first], around, text[last:]] if question else text
    return Prompt(text, (), question or WHOLE, "", _digest(rest))


def _messages(text: str) -> tuple[Mapping[str, Any], ...] | None:
    """Fields of the messages; None if it is plain text, none if they can't be told apart."""
    if not text.startswith('[{"lc":'):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    except RecursionError:
        return ()
    for each in found:
        is_one = isinstance(each, dict) and each.get("type") == "constructor"
        if not is_one or not isinstance(each.get("kwargs"), dict):
            return ()  # It is of a class that can't be serialized.
    return tuple(each["kwargs"] for each in found)


def _told(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a model sees of messages, written the same way each time."""
    names: dict[str, int] = {}
    for message in messages:
        for kind in ("tool_calls", "invalid_tool_calls"):
            calls = message.get(kind)
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict) and isinstance(call.get("id"), str):
                    names.setdefault(call["id"], len(names))
    told = []
    for message in messages:
        fields = {
            name: _renamed(value, names)
            for name, value in message.items()
            if name not in _VOLATILE and value not in (None, [], {}, "")
        }
        role = message.get("type")
        if isinstance(role, str) and role.endswith("MessageChunk"):
            fields["type"] = role.removesuffix("MessageChunk").lower()
        told.append(fields)
    return told


def _renamed(value: Any, names: Mapping[str, int]) -> Any:
    """The same with calls of tools by number: their ids are drawn anew for each answer."""
    if isinstance(value, str):
        return {"call": names[value]} if value in names else value
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    if isinstance(value, dict):
        return {name: _renamed(each, names) for name, each in value.items()}
    return value


def _cut_message(message: dict[str, Any], question_in: QuestionIn) -> tuple[str, dict[str, Any]]:
    """The question of a message, and the message without it."""
    content = message.get("content")
    if isinstance(content, str):
        question, around = _cut(content, question_in)
        return question, {**message, "content": around} if question else message
    blocks: list[Any] = list(content) if isinstance(content, list) else []
    for at in range(len(blocks) - 1, -1, -1):
        block = blocks[at]
        text = block.get("text") if isinstance(block, dict) else block
        if isinstance(text, str):  # The last text; pictures and other texts stay around it.
            question, around = _cut(text, question_in)
            if question:
                blocks[at] = {**block, "text": around} if isinstance(block, dict) else around
                return question, {**message, "content": blocks}
            break
    return "", message


def _cut(text: str, question_in: QuestionIn) -> tuple[str, Any]:
    """The question in a text, and what stands around it, which no other text can look like."""
    part = question_in(text)
    if part is None or not normalized(part):
        return "", None
    at = text.rfind(part)
    if at < 0:
        raise ValueError("question_in must return a part of the text it was given, or None")
    return part, {"before": text[:at], "after": text[at + len(part) :]}


def _digest(told: Any) -> str:
    return digest_of("prompt", json.dumps(told, sort_keys=True)).hex()
