"""What models answer, in the form in which it is kept.

Of a generation its message is kept, and what LangChain tells with it. Ids are not: LangGraph
takes two messages of one id for one, so an answer that is served twice in a conversation
would replace its first occurrence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    BaseMessageChunk,
    message_chunk_to_message,
)
from langchain_core.outputs import ChatGeneration, Generation


def kept(generations: Sequence[Generation]) -> list[dict[str, Any]]:
    """Generations as plain data and messages."""
    return [
        {"message": without_id(each.message), "info": each.generation_info}
        if isinstance(each, ChatGeneration)
        else {"text": each.text, "info": each.generation_info}
        for each in generations
    ]


def served(value: Any) -> list[Generation] | None:
    """Generations again; None if the value is something else."""
    if not isinstance(value, list) or not value:
        return None
    found: list[Generation] = []
    for each in value:
        match each:
            case {"message": BaseMessage() as message, "info": dict() | None as info}:
                found.append(ChatGeneration(message=message, generation_info=info))
            case {"text": str() as text, "info": dict() | None as info}:
                found.append(Generation(text=text, generation_info=info))
            case _:
                return None
    return found


def without_id(message: BaseMessage) -> BaseMessage:
    """A whole message, without its id."""
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    return message.model_copy(update={"id": None})


def at_no_cost(message: AIMessage) -> AIMessage:
    """A message that comes from the cache; its usage is marked as LangChain marks it."""
    if not message.usage_metadata:
        return message  # A mark alone would be no usage that can be read back.
    usage = {**message.usage_metadata, "total_cost": 0}
    return message.model_copy(update={"usage_metadata": usage})


def usage_of(generations: Sequence[Generation]) -> dict[str, int]:
    """The tokens that generations took, as far as their messages tell."""
    total: Counter[str] = Counter()
    for each in generations:
        usage = getattr(getattr(each, "message", None), "usage_metadata", None) or {}
        total.update({name: count for name, count in usage.items() if isinstance(count, int)})
    return dict(total)


def is_final(message: BaseMessage) -> bool:
    """Whether a message is a whole answer: it says something, and calls no tool."""
    return (
        isinstance(message, AIMessage | AIMessageChunk)
        and bool(message.content)
        and not message.tool_calls
        and not message.invalid_tool_calls
    )
