"""What the page asks for: JSON over HTTP, and one stream of events."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.agent.models import DemoError
from examples.agent_app.agent_process import AgentAwayError, OutageError
from examples.agent_app.faults import BusyError, Faults
from examples.agent_app.stage import TEXT_LENGTH_MAX, Stage
from langgraph_valkey import LanggraphValkeyError

PAGE = Path(__file__).parent / "page"

HEADERS = {
    # The page needs nothing from elsewhere, and gets nothing.
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}

DOCUMENT_LENGTH_MAX = 20_000
_THREAD = re.compile(r"[a-z0-9-]{1,40}")


class AskedWrongly(Exception):
    """A request can't be answered; the text says why."""


class Page:
    """The routes.

    Args:
        stage: What stands behind them.

    Attributes:
        trouble: Why it could not start; "" if it could.
    """

    def __init__(self, stage: Stage) -> None:
        self.trouble = ""
        self._stage = stage
        self._faults = Faults(stage)

    def application(self) -> Starlette:
        """The application; it starts and stops what stands behind it."""

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            try:
                await self._stage.start()
                yield
            except (LanggraphValkeyError, DemoError, AgentAwayError) as error:
                self.trouble = str(error)
                raise
            finally:
                await self._stage.stop()

        def route(path: str, answer: Callable[[Request], Awaitable[Any]], method: str) -> Route:
            async def asked(request: Request) -> Response:
                return await _answered(answer, request)

            return Route(path, asked, methods=[method])

        thread = "/api/threads/{thread}"
        routes = [
            Route("/", self._index),
            Route("/events", self._events),
            route("/api/state", self._state, "GET"),
            route("/api/threads", self._threads, "GET"),
            route(thread, self._thread, "GET"),
            route(f"{thread}/history", self._history, "GET"),
            route(f"{thread}/messages", self._say, "POST"),
            route(f"{thread}/approval", self._decide, "POST"),
            route(f"{thread}/travel", self._travel, "POST"),
            route("/api/faults/{name}", self._break, "POST"),
            route("/api/replay", self._replay, "POST"),
            route("/api/documents/{name}", self._document, "GET"),
            route("/api/documents/{name}", self._edit, "PUT"),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]
        # A page of another site must not reach this one by a name of its own.
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
        return Starlette(routes=routes, middleware=[hosts, Middleware(_Guard)], lifespan=lifespan)

    # --- reading --------------------------------------------------------------------------

    async def _index(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def _events(self, _: Request) -> Response:
        events = self._stage.hub.events("state", await self._stage.state())
        return StreamingResponse(events, media_type="text/event-stream")

    async def _state(self, _: Request) -> Any:
        return await self._stage.state()

    async def _threads(self, _: Request) -> Any:
        return await self._stage.threads()

    async def _thread(self, request: Request) -> Any:
        return await self._stage.thread(_thread_of(request))

    async def _history(self, request: Request) -> Any:
        return await self._stage.history(_thread_of(request))

    async def _document(self, request: Request) -> Any:
        name = request.path_params["name"]
        return {"name": name, "text": self._stage.document(name)}

    # --- doing ----------------------------------------------------------------------------

    async def _say(self, request: Request) -> Any:
        text = await _field(request, "text", str)
        if not text.strip() or len(text) > TEXT_LENGTH_MAX:
            raise AskedWrongly(f"text must have 1 to {TEXT_LENGTH_MAX} characters")
        return {"run": await self._stage.say(_thread_of(request), text.strip())}

    async def _decide(self, request: Request) -> Any:
        thread, approve = _thread_of(request), await _field(request, "approve", bool)
        pending = (await self._stage.thread(thread))["pending"]
        if not pending:
            raise AskedWrongly("nothing waits for approval in this conversation")
        return {"run": await self._stage.decide(thread, pending[0]["id"], approve=approve)}

    async def _travel(self, request: Request) -> Any:
        checkpoint = await _field(request, "checkpoint_id", str)
        return await self._stage.travel(_thread_of(request), checkpoint)

    async def _break(self, request: Request) -> Any:
        given = await _body(request)
        shard = given.get("shard", 0)
        if not isinstance(shard, int):
            raise AskedWrongly("shard must be a number")
        return await self._faults.do(request.path_params["name"], shard)

    async def _replay(self, request: Request) -> Any:
        await self._stage.keep_by(replay=await _field(request, "on", bool))
        return self._stage.agent_told()

    async def _edit(self, request: Request) -> Any:
        text = await _field(request, "text", str)
        if not text.strip() or len(text) > DOCUMENT_LENGTH_MAX:
            raise AskedWrongly(f"text must have 1 to {DOCUMENT_LENGTH_MAX} characters")
        return {"version": await self._stage.edit(request.path_params["name"], text)}


class _Guard:
    """Lets no page of another site do anything, and puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_foreign(Headers(scope=scope)):
            refusal = JSONResponse({"error": "this page is for itself alone"}, 403)
            await refusal(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *ours]}
            await send(message)

        await self._app(scope, receive, sent)


def _is_foreign(headers: Headers) -> bool:
    origin = headers.get("origin")
    return origin is not None and origin != f"http://{headers.get('host')}"


async def _answered(answer: Callable[[Request], Awaitable[Any]], request: Request) -> Response:
    try:
        return JSONResponse(await answer(request))
    except (AgentAwayError, OutageError, TimeoutError) as error:
        return JSONResponse({"error": str(error)}, 503)
    except BusyError as error:
        return JSONResponse({"error": str(error)}, 409)
    except (AskedWrongly, ValueError) as error:
        return JSONResponse({"error": str(error)}, 400)
    except KeyError:
        return JSONResponse({"error": "there is nothing of this name"}, 404)


async def _body(request: Request) -> dict[str, Any]:
    raw = await request.body()
    if not raw:
        return {}
    # A form of another site can't send this type without asking first.
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise AskedWrongly("the body must be application/json")
    given = json.loads(raw)
    if not isinstance(given, dict):
        raise AskedWrongly("the body must be a JSON object")
    return given


async def _field(request: Request, name: str, kind: type[Any]) -> Any:
    value = (await _body(request)).get(name)
    if not isinstance(value, kind):
        raise AskedWrongly(f"{name} is missing, or no {kind.__name__}")
    return value


def _thread_of(request: Request) -> str:
    thread: str = request.path_params["thread"]
    if not _THREAD.fullmatch(thread):
        raise AskedWrongly("a conversation's id has letters, digits and dashes only")
    return thread
