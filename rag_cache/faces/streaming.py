"""Chat models that use a cache while they are streamed.

LangChain's ``stream`` goes straight to a model's ``_stream``. So the copy of a model is of a
class of its own, which is the model's in all but that: what is found in the cache is replayed
as chunks, and what the model streams is kept once it is whole. All else, from callbacks to
bound tools, is left to LangChain.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation

from rag_cache.faces.generations import at_no_cost

if TYPE_CHECKING:
    from rag_cache.faces.llm_cache import LLMCache

M = TypeVar("M", bound=BaseChatModel)

_STATE = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
"""What pydantic keeps of an object beside its attributes."""

_PIECE = re.compile(r".{1,24}\S*\s*", re.DOTALL)
"""What one chunk says: a few words. Pieces together are the text."""


def streaming(model: M, cache: LLMCache) -> M:
    """A copy of a chat model that uses a cache; see `LLMCache.for_streaming`.

    Raises:
        TypeError: It is no chat model; tools are bound to the copy, not before.
    """
    if not isinstance(model, BaseChatModel):
        raise TypeError(
            f"a {type(model).__name__} is no chat model: give the model itself, and bind tools "
            "to what comes back"
        )
    copied = model.model_copy(update={"cache": cache})
    object.__setattr__(copied, "__class__", _replaying(type(model)))
    return copied


@lru_cache(maxsize=256)
def _replaying(kind: type[BaseChatModel]) -> type[BaseChatModel]:
    """A model's class, that looks into the cache before it streams.

    It has the same names, since the cache's keys are made of them. What the class does not
    stream by itself, LangChain answers by ``invoke``, which asks the cache already.
    """
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    methods: dict[str, Any] = {}
    if kind._stream is not BaseChatModel._stream:  # noqa: SLF001 - what a subclass overrides
        methods["_stream"] = _stream_of(kind)
    if kind._astream is not BaseChatModel._astream:  # noqa: SLF001 - as above
        methods["_astream"] = _astream_of(kind)
    make: Any = type(kind)
    made: type[BaseChatModel] = make(kind.__name__, (kind,), {**names, **methods})
    return made


def _stream_of(kind: type[BaseChatModel]) -> Any:
    def _stream(
        self: Any,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **given: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = _asked(self, messages, stop, given)
        answer = None if self.cache.is_streamed_for(*asked) else self.cache.begin(*asked)
        if isinstance(answer, list):
            yield from _chunks(answer)
            return
        whole = []
        plain = _plain(self, kind)
        for chunk in plain._stream(messages, stop, run_manager, **given):  # noqa: SLF001
            whole.append(chunk)  # LangChain completes it when it gets it.
            yield chunk
        if answer is not None and whole:
            self.cache.keep(answer, generate_from_stream(iter(whole)).generations)

    return _stream


def _astream_of(kind: type[BaseChatModel]) -> Any:
    async def _astream(
        self: Any,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **given: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked = _asked(self, messages, stop, given)
        answer = None if self.cache.is_streamed_for(*asked) else await self.cache.abegin(*asked)
        if isinstance(answer, list):
            for chunk in _chunks(answer):
                yield chunk
            return
        whole = []
        plain = _plain(self, kind)
        async for chunk in plain._astream(messages, stop, run_manager, **given):  # noqa: SLF001
            whole.append(chunk)  # LangChain completes it when it gets it.
            yield chunk
        if answer is not None and whole:
            await self.cache.akeep(answer, generate_from_stream(iter(whole)).generations)

    return _astream


def _plain(model: Any, kind: type[BaseChatModel]) -> Any:
    """The same model in its own class, for which the cache was asked already.

    It has the very attributes of the other, so it is one model with two classes. Its methods
    call each other without coming back here.
    """
    plain: Any = object.__new__(kind)
    for name in ("__dict__", *_STATE):
        object.__setattr__(plain, name, getattr(model, name))
    return plain


def _asked(
    model: Any, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
) -> tuple[str, str]:
    """What LangChain's ``invoke`` would look up."""
    return dumps(messages), model._get_llm_string(stop=stop, **given)  # noqa: SLF001


def _chunks(answers: list[Generation]) -> Iterator[ChatGenerationChunk]:
    """An answer from the cache, as a model would stream it."""
    [answer, *_] = answers
    message: BaseMessage = (
        answer.message if isinstance(answer, ChatGeneration) else AIMessage(answer.text)
    )
    if isinstance(message, AIMessage):
        message = at_no_cost(message)
    content = message.content
    pieces: list[Any] = _PIECE.findall(content) if isinstance(content, str) else [content]
    for piece in pieces:
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    calls = [
        tool_call_chunk(
            name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index
        )
        for index, call in enumerate(getattr(message, "tool_calls", []))
    ]
    # What chunks add up must stand in one of them alone.
    last = AIMessageChunk(
        content="" if isinstance(content, str) else [],
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=getattr(message, "usage_metadata", None),
        tool_call_chunks=calls,
        chunk_position="last",
    )
    yield ChatGenerationChunk(message=last)
