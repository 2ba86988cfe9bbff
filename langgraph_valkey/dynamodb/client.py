"""The boto3 client, and where its blocking calls are made.

A client may be used by any number of threads, but not by a child process: its
connections are its parent's. So it is made at its first use, and again in each child.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.fork import renew_after_fork

T = TypeVar("T")

CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 5
"""Bounds of one request. DynamoDB answers within some 10 ms, a transaction that has to
be recovered after 5 s."""

CONNECTIONS_MOST = 50
"""Connections at once: more than the 40 threads that anyio has for an event loop."""


class Client:
    """A client that is made when it is first used.

    Args:
        given: A client to use instead; it is not closed, and not renewed in a child.
        session: The boto3 session to make it from.
        **arguments: For the session's `client`: `region_name`, `endpoint_url`.

    Raises:
        ConfigurationError: boto3 is not installed.
    """

    def __init__(self, given: Any, session: Any, **arguments: Any) -> None:
        self._given = given
        self._session = session
        self._arguments = arguments
        self._own: Any = None
        self._lock = threading.Lock()
        if given is None:
            _check_installed()
        renew_after_fork(self)

    @property
    def sends_once(self) -> bool:
        """Whether it sends each request once only, so that its error tells all."""
        if self._given is None:
            return True
        retries = getattr(self._given.meta.config, "retries", None) or {}
        return bool(retries.get("total_max_attempts") == 1)

    def get(self) -> Any:
        """The client.

        Raises:
            ConfigurationError: boto3 knows no region, or can't use what it was given.
        """
        if self._given is not None:
            return self._given
        with self._lock:
            if self._own is None:
                self._own = _opened(self._session, self._arguments)
            return self._own

    def send(self, operation: str, parameters: dict[str, Any]) -> Any:
        """Call one of the client's methods."""
        return getattr(self.get(), operation)(**parameters)

    def close(self) -> None:
        """Close its connections. It may be used again, and opens new ones then."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    def after_fork(self) -> None:
        """Leave the connections to the parent."""
        self._lock = threading.Lock()
        self._own = None


def _check_installed() -> None:
    try:
        import boto3.session  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "DynamoDB needs the `aws` extra: pip install 'langgraph-valkey[aws]'"
        ) from error


def _opened(session: Any, arguments: dict[str, Any]) -> Any:
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=CONNECTIONS_MOST,
    )
    try:
        return (session or Session()).client("dynamodb", config=config, **arguments)
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"no client for DynamoDB can be made ({type(error).__name__}): give this process a "
            "region, and look at the profile and the endpoint_url if one is set"
        ) from error


class Here:
    """The blocking face: calls are made where they stand."""

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that blocks."""
        return function()

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        time.sleep(delay_s)

    async def called(self, fn: Callable[[Any], Any], argument: Any, what: str) -> Any:
        """Call a user's function; TypeError if it is async."""
        answer = fn(argument)
        if not inspect.isawaitable(answer):
            return answer
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"{what} is async, and was called from blocking code: use the async face")


class InThread:
    """The async face: calls are made in a thread, on any event loop."""

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that blocks."""
        return await anyio.to_thread.run_sync(function)

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        await anyio.sleep(delay_s)

    async def called(self, fn: Callable[[Any], Any], argument: Any, what: str) -> Any:  # noqa: ARG002
        """Call a user's function: in a thread, unless it is async."""
        if inspect.iscoroutinefunction(fn):
            return await fn(argument)
        answer = await self.run(lambda: fn(argument))
        return await answer if inspect.isawaitable(answer) else answer
