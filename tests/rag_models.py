"""What tests of the cache's faces share: models that count, and both ways to ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

from rag_cache.questions import text_of

USAGE = UsageMetadata(input_tokens=7, output_tokens=3, total_tokens=10)


class Chat(BaseChatModel):
    """A chat model that counts its calls, and answers by number, or as it is told.

    Attributes:
        asked: The messages of each call.
        answer: Makes an answer from messages, if it is told how.
        temperature: A parameter.
    """

    asked: list[Sequence[BaseMessage]] = Field(default_factory=list)
    answer: Callable[[Sequence[BaseMessage]], BaseMessage] | None = None
    temperature: float = 0.0

    @property
    def times(self) -> int:
        return len(self.asked)

    @property
    def _llm_type(self) -> str:
        return "counting"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[str(each) for each in tools], **kwargs)

    def say(self, messages: Sequence[BaseMessage]) -> BaseMessage:
        self.asked.append(messages)
        if self.answer is not None:
            return self.answer(messages)
        return AIMessage(
            f"answer {self.times} to: {text_of(messages[-1])}",
            id=f"id-{self.times}",
            usage_metadata=USAGE,
            response_metadata={"finish_reason": "stop", "number": self.times},
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.say(messages))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(0)
        return self._generate(messages, stop)


class StreamingChat(Chat):
    """One that streams a word at a time, with its usage at the end.

    Attributes:
        breaks_at: Before which word it breaks.
    """

    breaks_at: int | None = None

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self.say(messages)
        for at, word in enumerate(text_of(message).split(" ")):
            if at == self.breaks_at:
                raise ConnectionError("the model has gone")
            text = word if at == 0 else f" {word}"
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        last = AIMessageChunk(
            content="", usage_metadata=USAGE, response_metadata={"finish_reason": "stop"}
        )
        yield ChatGenerationChunk(message=last)


class AsyncStreamingChat(StreamingChat):
    """One that streams by itself on both faces."""

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, stop):
            await asyncio.sleep(0)
            yield chunk


async def ask(kind: str, model: Runnable[Any, Any], asked: Any, config: Any = None) -> Any:
    """Invoke it, on one of its faces."""
    if kind == "async":
        return await model.ainvoke(asked, config)
    return await asyncio.to_thread(model.invoke, asked, config)


async def streamed(kind: str, model: Runnable[Any, Any], asked: Any, most: int = 10**9) -> Any:
    """Stream it, on one of its faces: the chunks, until there are enough of them."""
    found = []
    if kind == "async":
        stream = model.astream(asked)
        async for chunk in stream:
            found.append(chunk)
            if len(found) == most:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return found

    def collect() -> None:
        stream = model.stream(asked)
        for chunk in stream:
            found.append(chunk)
            if len(found) == most:
                break
        stream.close()  # type: ignore[attr-defined]

    await asyncio.to_thread(collect)
    return found
