"""What models answer, cached for LangChain: its `BaseCache`, on both of its faces.

```python
model = ChatOpenAI(model="...", cache=LLMCache(cache, tenant=current_tenant))
set_llm_cache(LLMCache(cache))  # Or for all models of the process.
```

The model with all its parameters and tools (``llm_string``), what the system says and the
conversation have to be exactly the same; the last human message is compared by its meaning.
See `prompts` for how a prompt is taken apart, and for `question_in`, which tells the question
from a template around it.

**Answers made from documents.** If they stand in the prompt outside of the question, answers
are reused only with exactly the same documents. To find an answer again whatever stands
there now is not what this cache does; to forget it when a document changes is. Give
`evidence`, which tells the documents of each answer, for instance as a retriever has left
them in a context variable:

```python
found = ContextVar("found", default=())
llm_cache = LLMCache(
    cache, corpus="handbook", evidence=lambda prompt, answers: evidence_of(found.get())
)
cache.invalidate("intro.md", version="8", corpus="handbook")  # After it has changed.
```

An answer whose documents can't be told (None, or an exception) is not kept. One that was on
its way while a document changed is refused: between `lookup` and `update` the fence is kept
where only the same call finds it.

**Many at once.** LangChain gives its caches no way to let others wait for an answer that is on
its way: equal questions that miss at once are all answered by the model. `CacheMiddleware` and
`SemanticCache.get_or_compute` ask it once.

**Streaming.** LangChain asks no cache when a model is streamed with `stream` or `astream`.
`LLMCache.for_streaming` returns a copy of a chat model that does.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from langchain_core.caches import BaseCache
from langchain_core.outputs import ChatGeneration, Generation

from rag_cache.faces.generations import is_final, kept, served, usage_of
from rag_cache.faces.owner import Owner, Tenant
from rag_cache.faces.prompts import Prompt, QuestionIn, if_short, take_apart
from rag_cache.results import Fence, Hit, Miss
from rag_cache.scope import Scope, digest_of
from rag_cache.settings import check_ttl

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from rag_cache.semantic_cache import SemanticCache

M = TypeVar("M", bound="BaseChatModel")

Evidence: TypeAlias = Callable[[Prompt, Sequence[Generation]], Mapping[str, str | None] | None]
"""Ids and versions of the documents that an answer was made from; None if it must not be
kept."""

Tags: TypeAlias = Sequence[str] | Callable[[Prompt, Sequence[Generation]], Sequence[str]]

AWAITED_MOST = 256
"""Misses of one context whose answers are awaited. An answer whose miss is not among them has
no fence: it is kept only if nothing it was made from, or is tagged by, was ever invalidated."""

_log = logging.getLogger("rag_cache")


@dataclass(slots=True)
class Awaited:
    """What was asked, and whose answer may be stored.

    Attributes:
        prompt: What was asked.
        scope: Within what its answer may be reused.
        tenant: Whose it is.
        since_s: When its computation began, by the monotonic clock.
        has_missed: Whether it was looked up, and missed.
        fence: What was current then; None if the server could not be asked.
        is_streamed: Whether the model was seen to be streamed for it.
    """

    prompt: Prompt
    scope: Scope
    tenant: str
    since_s: float
    has_missed: bool = False
    fence: Fence | None = None
    is_streamed: bool = False


_awaited: ContextVar[Mapping[bytes, Awaited]] = ContextVar("rag_cache_awaited")
"""Misses of this context. LangChain looks up and updates in one call of one function, so a
context tells callers apart where a map of prompts would hand the fence of a newer miss to an
older answer."""


class LLMCache(BaseCache):
    """A cache of what models answer; see the module for how it is used.

    Args:
        cache: The semantic cache; whoever made it closes it.
        tenant: Whose answers these are, or a function that tells it for each call; None
            from it means that the call is neither looked up nor kept.
        corpus: Name of the collection of documents that answers are made from.
        label: Caches with different ones share no answers.
        question_in: Which part of the last human message is the question.
        evidence: Tells what an answer was made from.
        tags: Names by which answers can be invalidated, or a function that tells them.
        tool_calls: Whether to keep answers that call tools, too.
        ttl_s: How long answers are kept; as the cache's settings say for "answer" if None.

    Raises:
        TypeError, ValueError: Something is of a wrong type or size.
    """

    def __init__(
        self,
        cache: SemanticCache,
        *,
        tenant: Tenant = "",
        corpus: str = "default",
        label: str = "default",
        question_in: QuestionIn = if_short,
        evidence: Evidence | None = None,
        tags: Tags = (),
        tool_calls: bool = False,
        ttl_s: float | None = None,
    ) -> None:
        if isinstance(tags, str):
            raise TypeError("tags must be a sequence of strings, not one string")
        self._cache = cache
        self._owner = Owner(f"llm {label}", tenant, corpus)
        self._question_in = question_in
        self._evidence = evidence
        self._tags = tags
        self._tool_calls = tool_calls
        self._ttl_s = None if ttl_s is None else check_ttl(ttl_s)
        self._id = os.urandom(8)

    # --- as LangChain calls it -------------------------------------------------------------

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Look for an answer; see `BaseCache`."""
        return self._noted(prompt, llm_string, self.begin(prompt, llm_string))

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """Look for an answer; see `BaseCache`."""
        return self._noted(prompt, llm_string, await self.abegin(prompt, llm_string))

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep an answer, unless what it was made from has changed since its miss."""
        awaited = self._taken(prompt, llm_string)
        if awaited is not None:
            self.keep(awaited, return_val)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep an answer; see `update`."""
        awaited = self._taken(prompt, llm_string)
        if awaited is not None:
            await self.akeep(awaited, return_val)

    def clear(self, *, tenant: str | None = None, **kwargs: Any) -> None:
        """Forget answers, in all processes.

        Args:
            tenant: Whose. Not given: those of the cache's own tenant, or of all tenants if
                each call tells its own.
            **kwargs: There are no others.

        Raises:
            InvalidationPending: See `SemanticCache.invalidate`.
            TypeError: There is another argument.
        """
        _refuse(kwargs)
        self._owner.clear(self._cache, tenant)

    async def aclear(self, *, tenant: str | None = None, **kwargs: Any) -> None:
        """Forget answers; see `clear`."""
        _refuse(kwargs)
        await self._owner.aclear(self._cache, tenant)

    # --- more ------------------------------------------------------------------------------

    def for_streaming(self, model: M) -> M:
        """A copy of a chat model that uses this cache, also when it is streamed.

        A hit is streamed as chunks, what the model streams is kept once it is whole. Tools
        are bound to the copy. It shares its answers with the model's ``invoke``.

        Args:
            model: Any chat model.
        """
        from rag_cache.faces.streaming import streaming

        return streaming(model, self)

    def place(self, prompt: str, llm_string: str) -> tuple[str, Scope]:
        """Under which question, and in which scope, an answer is kept: for `explain`."""
        asked = self._asked(prompt, llm_string)
        if asked is None:
            raise ValueError("the tenant of this call is None: nothing is cached for it")
        return asked.prompt.question, asked.scope

    def begin(self, prompt: str, llm_string: str) -> list[Generation] | Awaited | None:
        """The answer, or what `keep` takes with the one that is made now.

        As `lookup`, for a caller who keeps the fence itself. None if nothing is cached for
        this call.
        """
        asked = self._asked(prompt, llm_string)
        if asked is None:
            return None
        return self._answer(asked, self._cache.lookup(asked.prompt.question, asked.scope))

    async def abegin(self, prompt: str, llm_string: str) -> list[Generation] | Awaited | None:
        """The answer, or what `akeep` takes; see `begin`."""
        asked = self._asked(prompt, llm_string)
        if asked is None:
            return None
        return self._answer(asked, await self._cache.alookup(asked.prompt.question, asked.scope))

    def keep(self, awaited: Awaited, answers: Sequence[Generation]) -> None:
        """Keep what was made after a miss, if it may be."""
        order = self._order(awaited, answers)
        if order is not None:
            try:
                self._cache.store(**order)
            except (TypeError, ValueError) as failure:
                _log.warning("an answer can't be kept: %s", failure)

    async def akeep(self, awaited: Awaited, answers: Sequence[Generation]) -> None:
        """Keep what was made after a miss; see `keep`."""
        order = self._order(awaited, answers)
        if order is not None:
            try:
                await self._cache.astore(**order)
            except (TypeError, ValueError) as failure:
                _log.warning("an answer can't be kept: %s", failure)

    def is_streamed_for(self, prompt: str, llm_string: str) -> bool:
        """Whether LangChain has missed this just now, and streams the model to answer it.

        It will bring the answer to `update` then. Said once a miss.
        """
        awaited = _awaited.get({}).get(self._key(prompt, llm_string))
        if awaited is None or awaited.is_streamed:
            return False
        awaited.is_streamed = True
        return True

    # --- between a miss and its answer -----------------------------------------------------

    def _asked(self, prompt: str, llm_string: str) -> Awaited | None:
        tenant = self._owner.tenant_now()
        if tenant is None:
            return None
        taken = take_apart(prompt, self._question_in)
        scope = self._owner.scope(
            tenant,
            {},
            system_prompt=taken.system,
            history=taken.rest,
            model=digest_of("model", llm_string).hex(),
        )
        return Awaited(taken, scope, tenant, time.monotonic())

    def _answer(self, asked: Awaited, found: Hit | Miss) -> list[Generation] | Awaited:
        if isinstance(found, Hit):
            generations = served(found.value)
            if generations is not None:
                return generations
        else:
            asked.fence = found.fence
        asked.has_missed, asked.since_s = True, time.monotonic()
        return asked

    def _noted(
        self, prompt: str, llm_string: str, answer: list[Generation] | Awaited | None
    ) -> list[Generation] | None:
        """The answer; a miss is noted where only this call finds it."""
        if not isinstance(answer, Awaited):
            return answer
        # A new mapping each time: contexts that began as copies of this one have their own.
        left = {**_awaited.get({}), self._key(prompt, llm_string): answer}
        while len(left) > AWAITED_MOST:
            del left[next(iter(left))]
        _awaited.set(left)
        return None

    def _taken(self, prompt: str, llm_string: str) -> Awaited | None:
        """The miss that an answer belongs to; who never looked up has no fence."""
        left = dict(_awaited.get({}))
        awaited = left.pop(self._key(prompt, llm_string), None)
        if awaited is None:
            return self._asked(prompt, llm_string)
        _awaited.set(left)
        return awaited

    def _key(self, prompt: str, llm_string: str) -> bytes:
        return self._id + digest_of(prompt, llm_string)

    def _order(self, awaited: Awaited, answers: Sequence[Generation]) -> dict[str, Any] | None:
        """What is stored, if it may be: a server that could not be asked is left alone."""
        if (
            (awaited.has_missed and awaited.fence is None)
            or not answers
            or not all(map(self._may_keep, answers))
        ):
            return None
        took_s = time.monotonic() - awaited.since_s
        try:
            evidence = {} if self._evidence is None else self._evidence(awaited.prompt, answers)
            tags = self._tags(awaited.prompt, answers) if callable(self._tags) else self._tags
        except Exception:  # noqa: BLE001 - the caller has its answer: this must not cost it
            _log.exception("what an answer was made from can't be told, so it is not kept")
            return None
        if evidence is None:
            return None
        return {
            "question": awaited.prompt.question,
            "scope": awaited.scope,
            "value": kept(answers),
            "evidence": evidence,
            "tags": self._owner.tags(awaited.tenant, tags),
            "ttl_s": self._ttl_s,
            "fence": awaited.fence,
            "usage": usage_of(answers),
            "took_s": took_s,
        }

    def _may_keep(self, answer: Generation) -> bool:
        if not isinstance(answer, ChatGeneration):
            return bool(answer.text)
        if self._tool_calls and getattr(answer.message, "tool_calls", None):
            return not getattr(answer.message, "invalid_tool_calls", None)
        return is_final(answer.message)


def _refuse(arguments: Mapping[str, Any]) -> None:
    if arguments:
        raise TypeError(f"clear() takes tenant alone, not {', '.join(sorted(arguments))}")
