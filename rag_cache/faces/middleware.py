"""What an agent's model answers, cached: LangChain's agent middleware.

Written for ``langchain`` 1.3 and newer: `langchain.agents.middleware.AgentMiddleware`, its
``wrap_model_call`` and ``awrap_model_call`` with `ModelRequest` and `ModelResponse`; tested
with 1.3.0 and 1.5.2.

```python
agent = create_agent(
    model, tools, context_schema=Context,
    middleware=[..., CacheMiddleware(cache, tenant=lambda request: request.runtime.context.user)],
)
```

**It stands last in the list**: then it sees what the model is really asked. A middleware after
it could still change the system prompt, the messages or the model, unseen by the cache.

The question is the last human message, compared by its meaning. The rest has to be exactly
the same: model and parameters, tools, system prompt, the conversation before the question,
and after it the calls of tools with their results. So an answer made from what tools found
is served only where they found the same. Ids and versions of documents that tools return as
artifacts (as LangChain's retriever tools do) are its evidence besides: `invalidate` makes it
stale while such results are still around.

Only final answers are kept: one message, that says something and calls no tool. Of many
equal requests at once one asks the model. Agents with a ``response_format`` go past the
cache, and so do models that are chosen by a run's configuration.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from langgraph_valkey.errors import ConfigurationError
from rag_cache.faces.evidence import documents_in, evidence_of
from rag_cache.faces.generations import at_no_cost, is_final, without_id
from rag_cache.faces.once import Once
from rag_cache.faces.owner import Owner, Tenant
from rag_cache.faces.prompts import QuestionIn, if_short, take_apart
from rag_cache.results import Computed, Hit
from rag_cache.scope import digest_of
from rag_cache.settings import check_ttl

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as failure:
    raise ConfigurationError(
        "the agent middleware needs langchain 1.3 or newer: pip install 'langgraph-valkey[agents]'"
    ) from failure

if TYPE_CHECKING:
    from rag_cache.semantic_cache import SemanticCache

_log = logging.getLogger("rag_cache")

Request: TypeAlias = ModelRequest[Any]
Response: TypeAlias = ModelResponse[Any]

Evidence: TypeAlias = Callable[[Request, Response], Mapping[str, str | None] | None]
"""Ids and versions of the documents that an answer was made from; None if it must not be
kept."""


def evidence_of_artifacts(request: Request, response: Response) -> dict[str, str | None] | None:
    """The documents that tools of this conversation have returned as artifacts.

    Only of documents that have an id: what a tool said is compared exactly anyway.
    """
    del response  # Others may need it.
    found: dict[str, str | None] = {}
    for message in request.messages:
        if isinstance(message, ToolMessage):
            for document in documents_in(message.artifact):
                told = evidence_of([document])
                for name, version in (told or {}).items():
                    # One that changed under way counts with what is known of both: nothing.
                    found[name] = version if found.get(name, version) == version else None
    return found


class CacheMiddleware(AgentMiddleware[Any, Any, Any]):
    """A semantic cache of an agent's model calls; see the module for how it is used.

    Args:
        cache: The semantic cache; whoever made it closes it.
        tenant: Whose answers these are, or a function that tells it for a request (its
            ``runtime`` has the run's context); None from it means that nothing is cached.
        corpus: Name of the collection of documents that answers are made from.
        label: Middlewares with different ones share no answers.
        question_in: Which part of the last human message is the question.
        evidence: Tells what an answer was made from.
        tags: Names by which answers can be invalidated.
        keeps: Whether a response may be kept, besides being one final message.
        ttl_s: How long answers are kept; as the cache's settings say for "answer" if None.

    Raises:
        ConfigurationError: ``langchain`` is not installed.
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
        evidence: Evidence = evidence_of_artifacts,
        tags: Sequence[str] = (),
        keeps: Callable[[Request, Response], bool] | None = None,
        ttl_s: float | None = None,
    ) -> None:
        super().__init__()
        if isinstance(tags, str):
            raise TypeError("tags must be a sequence of strings, not one string")
        self._cache = cache
        self._owner = Owner(f"agent {label}", tenant, corpus)
        self._question_in = question_in
        self._evidence = evidence
        self._tags = tuple(tags)
        self._keeps = keeps
        self._ttl_s = None if ttl_s is None else check_ttl(ttl_s)

    # --- as LangChain calls it -------------------------------------------------------------

    def wrap_model_call(
        self, request: Request, handler: Callable[[Request], Response]
    ) -> Response | AIMessage:
        """Serve an answer, or ask the model; see `AgentMiddleware`."""
        once = self._once(request)
        found = None if once is None else _answer(once.run(lambda: handler(request)))
        return handler(request) if found is None else found

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> Response | AIMessage:
        """Serve an answer, or ask the model; see `AgentMiddleware`."""
        once = self._once(request)
        found = None if once is None else _answer(await once.arun(lambda: handler(request)))
        return await handler(request) if found is None else found

    # --- more ------------------------------------------------------------------------------

    def clear(self, tenant: str | None = None) -> None:
        """Forget answers, in all processes.

        Args:
            tenant: Whose. Not given: those of its own tenant, or of all tenants if each call
                tells its own.

        Raises:
            InvalidationPending: See `SemanticCache.invalidate`.
        """
        self._owner.clear(self._cache, tenant)

    async def aclear(self, tenant: str | None = None) -> None:
        """Forget answers; see `clear`."""
        await self._owner.aclear(self._cache, tenant)

    # --- what is asked, and what is kept ---------------------------------------------------

    def _once(self, request: Request) -> Once[Response] | None:
        """The model call for all who ask the same; None if nothing is cached for it."""
        if request.response_format is not None or not isinstance(request.model, BaseChatModel):
            return None
        tenant = self._owner.tenant_now(request)
        if tenant is None:
            return None
        system = [] if request.system_message is None else [request.system_message]
        try:
            tools = [_digest_of_tool(tool) for tool in request.tools]
        except Exception:  # noqa: BLE001 - whatever a tool's schema raises
            _log.exception("a tool can't be told from others, so nothing is cached with it")
            return None
        taken = take_apart(dumps([*system, *request.messages]), self._question_in)
        # What LangChain's own cache tells models apart by.
        model = request.model._get_llm_string(**request.model_settings)  # noqa: SLF001
        scope = self._owner.scope(
            tenant,
            {"choice": str(request.tool_choice)},
            system_prompt=taken.system,
            history=taken.rest,
            tools=tools,
            model=digest_of("model", model).hex(),
        )

        def describe(response: Response) -> Computed | None:
            if not self._may_keep(request, response):
                return None
            evidence = self._evidence(request, response)
            if evidence is None:
                return None
            [message] = response.result
            usage = getattr(message, "usage_metadata", None) or {}
            return Computed(
                without_id(message), evidence, self._owner.tags(tenant, self._tags), usage
            )

        return Once(self._cache, taken.question, scope, describe, kind="answer", ttl_s=self._ttl_s)

    def _may_keep(self, request: Request, response: Response) -> bool:
        if not isinstance(response, ModelResponse) or len(response.result) != 1:
            return False
        if not is_final(response.result[0]) or response.structured_response is not None:
            return False
        return self._keeps is None or self._keeps(request, response)


def _answer(found: Response | Hit) -> Response | None:
    """The response of a hit; None if it is something else."""
    if not isinstance(found, Hit):
        return found
    if not isinstance(found.value, AIMessage) or isinstance(found.value, AIMessageChunk):
        return None
    return ModelResponse(result=[at_no_cost(found.value)])


def _digest_of_tool(tool: Any) -> str:
    """What a model is told of a tool."""
    told = tool if isinstance(tool, dict) else convert_to_openai_tool(tool)
    return digest_of("tool", json.dumps(told, sort_keys=True)).hex()
