"""A tool, or a node, whose whole work is one commit.

::

    @tool
    @tiers.committed(op="charge", key="order_id")
    def charge(connection: Connection, order_id: str, cents: int) -> str:
        '''Charge the customer's card.'''
        connection.execute(...)
        return "charged"

What is written takes the open transaction first. What is called does not: its signature
has the other parameters alone, so a model is shown nothing of it. LangChain's ``tool``,
agents and ``ToolNode`` find what they are to put in (state, store, config, runtime) by
its annotations as ever.

The payload, by which two calls under one key are told apart, is made of the arguments
that are data. What is put in from outside differs between two executions of the same
work, so it is not part of it. Nor would a graph's state be a good one, with messages
whose ids are drawn at random: give a node a ``payload`` of its own.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, cast
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolArg
from langgraph.store.base import BaseStore
from pydantic import BaseModel, TypeAdapter

from langgraph_valkey.commits.commit import OnMismatch
from langgraph_valkey.primary.records import Outgoing, Receipt, Scope

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)

P = ParamSpec("P")
R = TypeVar("R")

Arguments: TypeAlias = Mapping[str, Any]
"""What a call was given, by the parameters' names, defaults included."""

Key: TypeAlias = str | Callable[[Arguments], Any]
"""The name of the parameter that is the key, or a function of the arguments."""

Payload: TypeAlias = Callable[[Arguments], Any]
Outbox: TypeAlias = Sequence[Outgoing] | Callable[[Arguments], Sequence[Outgoing]]

_RUNTIME = "runtime"
"""LangGraph puts in its runtime by this name, whatever the annotation."""

_RUNTIMES = {"ToolRuntime", "Runtime"}
"""Classes of LangGraph that it puts in: told by name, since LangGraph need not be there."""

_DATA = (BaseModel, Enum, Decimal, UUID, date, time, timedelta)
"""Values that have one way of being JSON."""


class Commit(Protocol):
    """How a commit is made: `StateTiers.commit`, or `acommit`, which gives an awaitable."""

    def __call__(
        self,
        op: str,
        *,
        key: str,
        payload: Any,
        fn: Callable[..., Any],
        scope: Scope,
        on_mismatch: OnMismatch,
        outbox: Sequence[Outgoing],
        config: RunnableConfig | None,
    ) -> Any:
        """Make it."""
        ...


class Committed:
    """The decorator.

    Args:
        commit: Makes a commit on the blocking face.
        acommit: Makes one on the async face.
        op: What is done.
        key: To what; see `Key`.
        scope: Within what the two are unique.
        on_mismatch: What to do if that was committed with another payload.
        payload: A function of the arguments, instead of all of them that are data.
        outbox: What is to be sent, or a function of the arguments that says so.
    """

    def __init__(
        self,
        commit: Commit,
        acommit: Commit,
        *,
        op: str,
        key: Key,
        scope: Scope,
        on_mismatch: OnMismatch,
        payload: Payload | None,
        outbox: Outbox,
    ) -> None:
        self._commit = functools.partial(commit, op, scope=scope, on_mismatch=on_mismatch)
        self._acommit = functools.partial(acommit, op, scope=scope, on_mismatch=on_mismatch)
        self._op = op
        self._key = key
        self._payload = payload
        self._outbox = outbox

    def __call__(self, fn: Callable[Concatenate[Any, P], R]) -> Callable[P, R]:
        """Decorate a function, blocking or async, whose first parameter is the transaction.

        Returns:
            A function of the other parameters, which returns what the first call under
            the same key returned.

        Raises:
            TypeError: It has no such parameter, or the key names none of the others.
        """
        signature = _without_transaction(fn)
        self._check(signature, fn)
        call = (self._async_call if inspect.iscoroutinefunction(fn) else self._call)(fn, signature)
        functools.update_wrapper(call, fn)
        annotations = {each.name: each.annotation for each in signature.parameters.values()}
        annotations["return"] = signature.return_annotation
        call.__annotations__ = {
            name: each for name, each in annotations.items() if each is not inspect.Signature.empty
        }
        call.__signature__ = signature  # type: ignore[attr-defined]
        return cast("Callable[P, R]", call)

    def _call(self, fn: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)

            def work(transaction: Any) -> Any:
                return fn(transaction, *bound.args, **bound.kwargs)

            receipt: Receipt = self._commit(fn=work, **self._about(bound))
            return receipt.result

        return call

    def _async_call(
        self, fn: Callable[..., Any], signature: inspect.Signature
    ) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)

            async def work(transaction: Any) -> Any:
                return await fn(transaction, *bound.args, **bound.kwargs)

            receipt: Receipt = await self._acommit(fn=work, **self._about(bound))
            return receipt.result

        return call

    def _about(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        """What there is to say of one call."""
        bound.apply_defaults()
        given = bound.arguments
        key = given[self._key] if isinstance(self._key, str) else self._key(given)
        if isinstance(key, int | UUID) and not isinstance(key, bool):
            key = str(key)
        parameters = bound.signature.parameters
        if self._payload is not None:
            payload = self._payload(given)
        else:
            payload = {name: given[name] for name in given if not _is_put_in(parameters[name])}
        return {
            "key": key,
            "payload": _plain(payload),
            "outbox": self._outbox(given) if callable(self._outbox) else self._outbox,
            "config": next(
                (each for name, each in given.items() if _is_config(parameters[name])), None
            ),
        }

    def _check(self, signature: inspect.Signature, fn: Callable[..., Any]) -> None:
        """Find at decoration what would fail at each call."""
        if callable(self._key):
            return
        names = list(signature.parameters)
        if self._key not in names:
            raise TypeError(
                f"commit {self._op!r} takes its key from parameter {self._key!r}, which "
                f"{fn.__qualname__} does not have (it has {', '.join(names) or 'none'}): name one "
                "of these that is the same when the step runs again, or give a function of the "
                "arguments, as in key=lambda arguments: arguments['state']['order_id']"
            )


def _without_transaction(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature without the first parameter, its annotations read as far as they can be."""
    signature = inspect.signature(fn)
    parameters = list(signature.parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        raise TypeError(
            f"{fn.__qualname__} must take the transaction as its first parameter, as in "
            "def charge(connection, order_id: str)"
        )
    return signature.replace(
        parameters=[each.replace(annotation=_read(each.annotation, fn)) for each in parameters[1:]],
        return_annotation=_read(signature.return_annotation, fn),
    )


def _read(annotation: Any, fn: Callable[..., Any]) -> Any:
    """An annotation, read if it is a text; one that names what is not there stays as it is."""
    if not isinstance(annotation, str):
        return annotation
    bearer = types.SimpleNamespace(__annotations__={"read": annotation})
    try:
        return typing.get_type_hints(bearer, fn.__globals__, include_extras=True)["read"]
    except NameError:
        return annotation


def _is_put_in(parameter: inspect.Parameter) -> bool:
    """Whether LangChain or LangGraph puts this argument in: it is no data of the caller's."""
    if parameter.name == _RUNTIME or _is_config(parameter):
        return True
    for each in _alternatives(parameter.annotation):
        marks = getattr(each, "__metadata__", ())
        if any(isinstance(m, InjectedToolArg) or _is_kind(m, InjectedToolArg) for m in marks):
            return True
        bare = typing.get_origin(each) or each
        if _is_kind(bare, BaseStore) or getattr(bare, "__name__", "") in _RUNTIMES:
            return True
    return False


def _is_config(parameter: inspect.Parameter) -> bool:
    return RunnableConfig in _alternatives(parameter.annotation)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or what is none alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _is_kind(each: Any, kind: type) -> bool:
    return isinstance(each, type) and issubclass(each, kind)


def _plain(value: Any) -> Any:
    """A value with models, dates and the like as JSON has them.

    Not messages: they carry ids that are drawn at random. JSON refuses them then.
    """
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, _DATA) and not isinstance(value, BaseMessage):
        return _ANYTHING.dump_python(value, mode="json")
    return value
