"""The primary store on DynamoDB: one table, transactions of up to 100 writes.

Unlike a database that runs a commit's function within a transaction, DynamoDB takes a
transaction whole. So the function gets the boto3 client to read with, and returns what
is to be written::

    def charge(client):
        return Items(
            writes=[{"Update": {
                "TableName": "accounts",
                "Key": {"id": {"S": "A17"}},
                "UpdateExpression": "SET balance = balance - :n",
                "ConditionExpression": "balance >= :n",
                "ExpressionAttributeValues": {":n": {"N": "25"}},
            }}],
            result={"charged": 25},
        )

**Consistency.** What decides is read from the table, consistently, or is a condition of
a write. Only walks over all runs, tombstones, dead letters and due messages begin at
the index, which follows within about a second: they miss what is newer, and find it
the next time.

**Time.** DynamoDB tells no time, so times are those of the machines that write. `skew_s`
says by how much they may differ. Clocks decide only when something is tried (a lease
taken, a run claimed, a message sent): what is applied is decided by numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from langgraph_valkey.dynamodb.client import Client, Here, InThread
from langgraph_valkey.dynamodb.commits import Commits, Items
from langgraph_valkey.dynamodb.leases import Leases, Tombstones
from langgraph_valkey.dynamodb.memories import Memories
from langgraph_valkey.dynamodb.outbox import Messages
from langgraph_valkey.dynamodb.runs import RunRegistry
from langgraph_valkey.dynamodb.schema import Schema
from langgraph_valkey.dynamodb.sizes import ROOM
from langgraph_valkey.dynamodb.table import Table
from langgraph_valkey.dynamodb.upkeep import Upkeep
from langgraph_valkey.dynamodb.versions import Versions
from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.primary.records import Room

__all__ = ["DynamoFace", "DynamoStore", "Items"]

PATIENCE_S = 10.0
"""For how long a request is sent again: a transaction whose coordinator died is
recovered by the first request that comes 5 s after it."""

SKEW_S = 0.5
"""By how much clocks of machines may differ. Time services keep them within
milliseconds; half a second delays a takeover by no more than that."""

_IN_URLS: dict[str, Callable[[str], Any]] = {
    "region": str,
    "endpoint_url": str,
    "patience_s": float,
    "skew_s": float,
}


class DynamoFace(
    Schema, Commits, RunRegistry, Leases, Tombstones, Messages, Versions, Memories, Upkeep
):
    """One face of the store: a `contract.Primary`."""

    @property
    def room(self) -> Room:
        """What the store takes at most."""
        return ROOM

    async def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        self._table.client.close()


class DynamoStore:
    """A store of record in a DynamoDB table; see `contract.PrimaryStore`.

    Both faces share one client, made at the first call.

    Args:
        table: The table's name; it may hold nothing else.
        region: The AWS region; by default as set up for AWS in general (environment,
            profile, machine).
        endpoint_url: Where to find DynamoDB, if not at AWS.
        session: A boto3 session to make the client from: it brings credentials.
        client: A boto3 client to use instead of a new one. It is not closed, and must
            not be used in a child process that was forked. With retries of its own
            (`total_max_attempts` other than 1) more errors are `OutcomeUnknown`.
        patience_s: For how long a request that fails is sent again.
        skew_s: By how much clocks of machines may differ.

    Raises:
        ConfigurationError: boto3 is not installed.

    Attributes:
        table: As given.
        blocking: The blocking face: its coroutines never suspend.
        loops: The async face, for any number of event loops; it calls boto3 in threads.
    """

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        session: Any = None,
        client: Any = None,
        patience_s: float = PATIENCE_S,
        skew_s: float = SKEW_S,
    ) -> None:
        self.table = table
        self._client = Client(client, session, region_name=region, endpoint_url=endpoint_url)
        self.blocking = DynamoFace(Table(table, self._client, Here(), patience_s, skew_s))
        self.loops = DynamoFace(Table(table, self._client, InThread(), patience_s, skew_s))

    def __repr__(self) -> str:
        return f"DynamoStore({self.table!r})"

    @classmethod
    def from_url(cls, url: str, **overrides: Any) -> Self:
        """Read a URL such as ``dynamodb://agents?region=eu-west-1``.

        Args:
            url: The table's name, and as parameters `region`, `endpoint_url` (percent
                encoded), `patience_s`, `skew_s`. Credentials have no place in it.
            **overrides: Arguments of the class, stronger than the URL's.

        Raises:
            ConfigurationError: The URL is not valid.
        """
        hint = "expected dynamodb://table?region=eu-west-1, without user or password"
        try:
            parts = urlsplit(url)
            given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
        except ValueError:
            # What is wrong with it is not repeated: it might hold a secret.
            raise ConfigurationError(
                f"the URL of the DynamoDB table can't be read: {hint}"
            ) from None
        name = unquote(parts.netloc)
        if parts.scheme != "dynamodb" or not name or "@" in name or parts.path.strip("/"):
            raise ConfigurationError(f"the URL of the DynamoDB table is not valid: {hint}")
        unknown = sorted(set(given) - set(_IN_URLS))
        if unknown:
            raise ConfigurationError(
                f"the URL of the DynamoDB table has {len(unknown)} unknown parameters: those known "
                f"are {', '.join(_IN_URLS)}"
            )
        try:
            arguments = {field: _IN_URLS[field](value) for field, value in given.items()}
        except ValueError:
            raise ConfigurationError(
                "patience_s and skew_s in the URL of the DynamoDB table must be seconds"
            ) from None
        return cls(name, **{**arguments, **overrides})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Close the connections."""
        self._client.close()
