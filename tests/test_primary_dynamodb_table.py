"""The table of the primary store on DynamoDB: making it, what lags, what goes wrong.

See `test_primary_dynamodb`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from boto3.session import Session
from botocore.credentials import CredentialResolver
from botocore.session import Session as BotocoreSession

from langgraph_valkey.dynamodb.store import DynamoFace, DynamoStore, Items
from langgraph_valkey.errors import ConfigurationError, OutcomeUnknown, Unreachable
from langgraph_valkey.link import finish
from langgraph_valkey.local.node import free_ports
from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
)
from tests.dynamo_ground import (
    Wire,
    answer_lost,
    dynamo_server,
    made_up_client,
    made_up_session,
    new_store,
    new_table,
    refused,
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with dynamo_server() as served:
        yield served


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with closing(made_up_client(address)) as opened:
        yield opened


@pytest.fixture
def wire(client: Any) -> Wire:
    return Wire(client)


@pytest.fixture
def face(address: str, wire: Wire) -> DynamoFace:
    """The blocking face of a store whose wire a test may break."""
    made = new_store(address, client=wire, session=None, patience_s=0.3)
    finish(made.blocking.setup())
    return made.blocking


def commit(face: DynamoFace, key: str) -> None:
    request = CommitRequest(CommitKey("charge", key, "global"), "0" * 64)
    finish(face.commit(request, lambda _client: Items([])))


# --- making the table --------------------------------------------------------------


def test_setup_twice_and_side_by_side(address: str) -> None:
    with closing(new_store(address)) as store:
        setups = [threading.Thread(target=lambda: finish(store.blocking.setup())) for _ in range(5)]
        for each in setups:
            each.start()
        for each in setups:
            each.join()
        finish(store.blocking.setup())
        commit(store.blocking, "A17")


def schema(pk: str = "pk", pk_type: str = "S", index: str = "by_time") -> dict[str, Any]:
    names = {pk: pk_type, "sk": "S", "list": "S", "at": "S"}

    def keys(first: str, second: str) -> list[dict[str, str]]:
        named = ((first, "HASH"), (second, "RANGE"))
        return [{"AttributeName": name, "KeyType": kind} for name, kind in named]

    projection = {"ProjectionType": "ALL"}
    return {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind} for name, kind in names.items()
        ],
        "KeySchema": keys(pk, "sk"),
        "GlobalSecondaryIndexes": [
            {"IndexName": index, "KeySchema": keys("list", "at"), "Projection": projection}
        ],
    }


def test_a_table_made_beforehand(address: str, client: Any) -> None:
    with closing(new_store(address)) as store:
        client.create_table(TableName=store.table, **schema())
        finish(store.blocking.setup())
        commit(store.blocking, "A17")


@pytest.mark.parametrize("other", [{"pk": "id"}, {"pk_type": "B"}, {"index": "by_age"}])
def test_a_table_of_another_form(address: str, client: Any, other: Any) -> None:
    with closing(new_store(address)) as store:
        client.create_table(TableName=store.table, **schema(**other))
        with pytest.raises(ConfigurationError, match="there, but not of this store"):
            finish(store.blocking.setup())


def test_a_table_of_a_newer_version(address: str, face: DynamoFace, client: Any) -> None:
    with closing(new_store(address)) as store:
        finish(store.blocking.setup())
        version = {"pk": {"S": "store"}, "sk": {"S": "version"}, "version": {"N": "2"}}
        client.put_item(TableName=store.table, Item=version)
        with pytest.raises(ConfigurationError, match=r"version 2.*install a newer release"):
            finish(store.blocking.setup())


def test_a_table_that_takes_its_time(face: DynamoFace, wire: Wire) -> None:
    def making(call: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        answer = call(**parameters)
        answer["Table"]["GlobalSecondaryIndexes"][0]["IndexStatus"] = "CREATING"
        return answer

    wire.sent.clear()
    wire.plan["describe_table"] = [making] * 3
    finish(face.setup())
    assert [name for name, _ in wire.sent] == ["describe_table"] * 4 + ["update_item"]


# --- what can't be reached, or may not be ------------------------------------------


def test_nobody_listens() -> None:
    [port] = free_ports(1)
    with closing(new_store(f"http://127.0.0.1:{port}", patience_s=0.2)) as store:
        for asked in (store.blocking.setup(), store.blocking.bury("thread")):
            with pytest.raises(Unreachable, match="EndpointConnectionError"):
                finish(asked)


async def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with closing(made_up_client(address, read_timeout=0.1)) as client:
            loops = DynamoStore("agents", client=client, patience_s=0.2).loops
            with pytest.raises(Unreachable, match="ReadTimeoutError, get_item"):
                await loops.tombstone("thread")
            with pytest.raises(OutcomeUnknown, match="ReadTimeoutError, update_item"):
                await loops.bury("thread")


def test_a_client_that_tries_again_by_itself() -> None:
    """Its last try did not arrive; those before may have."""
    [port] = free_ports(1)
    client = made_up_session().client("dynamodb", endpoint_url=f"http://127.0.0.1:{port}")
    with closing(client):
        store = DynamoStore("agents", client=client, patience_s=0)
        with pytest.raises(OutcomeUnknown, match="EndpointConnectionError"):
            finish(store.blocking.bury("thread"))


def test_no_table(address: str) -> None:
    with closing(new_store(address)) as store:
        with pytest.raises(ConfigurationError, match=r"ResourceNotFound.*call setup\(\)"):
            finish(store.blocking.bury("thread"))
        with pytest.raises(ConfigurationError, match=r"ResourceNotFound.*call setup\(\)"):
            commit(store.blocking, "A17")


def test_no_leave(face: DynamoFace, wire: Wire) -> None:
    wire.plan["update_item"] = [refused("AccessDeniedException")]
    with pytest.raises(ConfigurationError, match=r"AccessDeniedException.*allow it in IAM"):
        finish(face.bury("thread"))
    wire.plan["update_item"] = [answer_lost, refused("ExpiredTokenException")]
    with pytest.raises(OutcomeUnknown):
        finish(face.bury("thread"))


def test_not_done_for_certain_the_second_time_only(face: DynamoFace, wire: Wire) -> None:
    wire.plan["update_item"] = [answer_lost]
    wire.always["update_item"] = refused("ThrottlingException")
    with pytest.raises(OutcomeUnknown):
        finish(face.bury("thread"))
    with pytest.raises(Unreachable):
        finish(face.bury("thread"))


def test_no_credentials(address: str) -> None:
    nobody = BotocoreSession()
    nobody.register_component("credential_provider", CredentialResolver([]))
    session = Session(botocore_session=nobody, region_name="eu-west-1")
    with (
        closing(new_store(address, session=session)) as store,
        pytest.raises(ConfigurationError, match=r"NoCredentialsError.*AWS credentials"),
    ):
        finish(store.blocking.bury("thread"))


def test_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(ConfigurationError, match=r"NoRegionError.*a region"):
        finish(DynamoStore("agents").blocking.bury("thread"))


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'langgraph-valkey\[aws\]'"):
        DynamoStore("agents")


def test_boto3_is_imported_only_when_used() -> None:
    program = "import sys, langgraph_valkey.dynamodb.store; sys.exit('boto3' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_urls(address: str) -> None:
    url = f"dynamodb://{new_table()}?region=eu-west-1&endpoint_url={address}&patience_s=1&skew_s=0"
    with closing(DynamoStore.from_url(url, session=made_up_session())) as store:
        finish(store.blocking.setup())
        assert repr(store) == f"DynamoStore({store.table!r})"


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://",
        "dynamodb://secret@agents",
        "dynamodb://agents/secret",
        "sqlite://agents",
        "dynamodb://agents?secret",
        "dynamodb://agents?secret=secret",
        "dynamodb://agents?skew_s=secret",
        "dynamodb://[secret",
    ],
)
def test_urls_that_are_not_valid(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DynamoStore.from_url(url)
    assert "secret" not in str(caught.value)


def test_a_child_process_opens_connections_of_its_own(address: str) -> None:
    with closing(new_store(address)) as store:
        parents = store._client.get()
        store._client.after_fork()  # As it is called in a child.
        assert store._client.get() is not parents
        parents.close()
