"""Questions: when two are the same, and how one that leans on a conversation is made whole."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, convert_to_messages

from rag_cache.scope import digest_of

_REWRITE = (
    "Rewrite the last question of this conversation so that it can be understood without the "
    "rest: put in what it refers to, change nothing else, and answer with the question alone."
)

_OF_MODELS = frozenset({"tool_use", "tool_call", "function_call", "reasoning"})
_DRAWN = frozenset({"id", "call_id", "index"})
"""What is another one each time in blocks of those types."""


def normalized(question: str) -> str:
    """A question as it is compared exactly.

    Only what never changes a meaning is levelled: how characters are composed, and white
    space. Not upper and lower case: "US" is not "us".

    Args:
        question: The question.
    """
    return " ".join(unicodedata.normalize("NFC", question).split())


def history_digest(messages: Sequence[BaseMessage | Any]) -> str:
    """A digest of the conversation before a question, for `Scope.history`.

    Args:
        messages: Messages, as LangChain takes them: who said what counts, and which tools
            were called; ids don't.

    Returns:
        32 hex digits; "" if there are none.
    """
    if not messages:
        return ""
    told = [part for each in as_messages(messages) for part in _told_by(each)]
    return digest_of("history", *told).hex()


def as_messages(messages: Sequence[BaseMessage | Any]) -> list[AnyMessage]:
    """Messages in any of the forms that LangChain takes, as objects."""
    return list(convert_to_messages(messages))  # type: ignore[arg-type]


def text_of(message: BaseMessage) -> str:
    """What a message says; blocks that are no text are named by their contents."""
    content = message.content
    if isinstance(content, str):
        return content
    parts = [each if isinstance(each, str) else _text_of_block(each) for each in content]
    return "\n".join(parts)


def _text_of_block(block: dict[str, Any]) -> str:
    text = block.get("text")
    if isinstance(text, str):
        return text
    if block.get("type") in _OF_MODELS:
        block = {name: each for name, each in block.items() if name not in _DRAWN}
    return _as_text(block)


def _told_by(message: BaseMessage) -> tuple[str, str, str, str]:
    """Who says what, and which tools it calls."""
    calls = [[each["name"], each["args"]] for each in getattr(message, "tool_calls", None) or ()]
    role = getattr(message, "role", message.type)
    return role, message.name or "", text_of(message), _as_text(calls)


def _as_text(found: Any) -> str:
    """It in one way of writing, in whatever order its keys came."""
    if isinstance(found, dict):
        items = [f"{name!r}: {_as_text(each)}" for name, each in found.items()]
        return "{" + ", ".join(sorted(items)) + "}"
    if isinstance(found, list):
        return "[" + ", ".join(map(_as_text, found)) + "]"
    return repr(found)


def standalone(
    question: str,
    history: Sequence[BaseMessage | Any],
    rewrite: Callable[[str, Sequence[BaseMessage]], str] | BaseChatModel,
) -> str:
    """A question that can be understood without the conversation it was asked in.

    "And in winter?" must not hit what another conversation asked so. Either the history is
    part of the scope, then only the same conversation hits; or the question is rewritten
    first, then it can be shared.

    Args:
        question: As it was asked.
        history: The messages before it.
        rewrite: A function of both, or a chat model that is asked to do it.

    Returns:
        The question as it was if there is no history.

    Raises:
        ValueError: The rewrite is empty.
    """
    if not history:
        return question
    messages = as_messages(history)
    if isinstance(rewrite, BaseChatModel):
        asked = [("system", _REWRITE), *messages, ("human", question)]
        found = str(rewrite.invoke(asked).text)
    else:
        found = rewrite(question, messages)
    if not found.strip():
        raise ValueError("the question was rewritten to nothing: check what rewrites it")
    return found.strip()


async def astandalone(
    question: str, history: Sequence[BaseMessage | Any], model: BaseChatModel
) -> str:
    """The same with a chat model that is awaited; see `standalone`."""
    if not history:
        return question
    messages = as_messages(history)
    answer = await model.ainvoke([("system", _REWRITE), *messages, ("human", question)])
    return standalone(question, messages, lambda *_: str(answer.text))
