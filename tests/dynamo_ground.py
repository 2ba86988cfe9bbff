"""What tests of DynamoDB stand on: a server that plays it, and tables in it.

The server (moto) runs in this process, on a port of 127.0.0.1. boto3 checks each request
against the service's own model before it is sent, here as anywhere. What moto does
not play: transactions side by side (it runs them unguarded, so requests are put in a
row here), conflicts between them, `ClientRequestToken`, the limit of 4 MB, an index
that follows later, throttling, and reserved words in places.
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias
from unittest import mock

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from langgraph_valkey.dynamodb.store import DynamoStore

REGION = "eu-west-1"

_numbers = itertools.count(1)


class _InARow:
    """A WSGI application that handles one request at a time."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], respond: Any) -> list[bytes]:
        with self._lock:
            answer = self._application(environ, respond)
            try:
                return list(answer)
            finally:
                getattr(answer, "close", lambda: None)()


_transact_copying = DynamoDBBackend.transact_write_items


def _transact(backend: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
    """As moto does it, but keeping aside what is touched, not the table once an action."""
    requests = [request for action in transact_items for request in action.values()]
    kept = []
    for request in requests:
        table: Any = backend.get_table(request["TableName"])
        item = request.get("Key") or request["Item"]
        places = [DynamoType(item[name]) for name in table.table_key_attrs]
        kept.append((table, places, copy.deepcopy(table.get_item(*places))))
    try:
        _transact_copying(backend, transact_items)
    except Exception:
        for table, places, item in kept:
            if item is None:
                table.delete_item(*places, *([None] * (2 - len(places))))
            elif len(places) == 1:
                table.items[places[0]] = item
            else:
                table.items[places[0]][places[1]] = item
        raise


@contextmanager
def dynamo_server() -> Iterator[str]:
    """A server that plays DynamoDB; its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with (
        mock.patch.object(DynamoDBBackend, "transact_write_items", _transact),
        mock.patch.object(Table, "__deepcopy__", lambda table, _memo: table, create=True),
        _served() as address,
    ):
        yield address


@contextmanager
def _served() -> Iterator[str]:
    application = _InARow(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def made_up_session() -> Session:
    """A session whose credentials are made up."""
    return Session("made-up", "made-up", region_name=REGION)


def new_table() -> str:
    """The name of a table that no other test has."""
    return f"agents-{os.getpid()}-{next(_numbers)}"


def new_store(address: str, **arguments: Any) -> DynamoStore:
    """A store in a table of its own, to be set up; clocks are those of one machine."""
    given = {"patience_s": 2.0, "skew_s": 0.0, "session": made_up_session(), **arguments}
    return DynamoStore(new_table(), endpoint_url=address, **given)


class Wire:
    """A client between which and the server things happen, as planned by a test.

    Args:
        client: The client.

    Attributes:
        plan: What happens to the next calls: by the name of the method, functions that
            get the call, to make or not, and its parameters; each is used once.
        sent: Names and parameters of all calls, in their order.
        always: The same as `plan`, for each call that nothing else is planned for.
    """

    def __init__(self, client: Any) -> None:
        self.meta = client.meta
        self.plan: dict[str, list[Happening]] = {}
        self.always: dict[str, Happening] = {}
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**parameters: Any) -> Any:
            self.sent.append((name, dict(parameters)))
            planned = self.plan.get(name) or [self.always.get(name, _nothing_happens)]
            return planned.pop(0)(getattr(self._client, name), parameters)

        return call


Happening: TypeAlias = Callable[[Callable[..., Any], dict[str, Any]], Any]


def _nothing_happens(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return call(**parameters)


def answer_lost(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """It arrives and is done; the answer does not arrive."""
    with suppress(ClientError):
        call(**parameters)
    raise ReadTimeoutError(endpoint_url="http://127.0.0.1")


def refused(code: str, *reasons: str, status: int = 400) -> Happening:
    """It is refused with this code, and these reasons of a cancelled transaction."""

    def happen(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        response: Any = {
            "Error": {"Code": code, "Message": "made up"},
            "ResponseMetadata": {"HTTPStatusCode": status},
            "CancellationReasons": [{"Code": reason} for reason in reasons],
        }
        raise ClientError(response, call.__name__)

    return happen


def made_up_client(address: str, **arguments: Any) -> Any:
    """A boto3 client that sends each request once."""
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, **arguments)
    return made_up_session().client("dynamodb", endpoint_url=address, config=config)
