"""Making the table, and knowing whether a table that is there is one of ours.

A table may also be made beforehand, by whatever makes the rest of an infrastructure:
a partition key ``pk`` and a sort key ``sk``, both text, and an index ``by_time`` of
``list`` and ``at``, both text, that projects the keys. `setup` then only looks at it.
"""

from __future__ import annotations

from typing import Any

from langgraph_valkey.dynamodb.errors import Refused
from langgraph_valkey.dynamodb.items import INDEX, VERSION_KEY, number, plain
from langgraph_valkey.dynamodb.table import Part
from langgraph_valkey.errors import ConfigurationError, Unreachable

VERSION = 1
"""Of the table's form. Raised when an older release could not read it any more."""

TABLE_MADE_S = 60.0
"""How long a new table is waited for: DynamoDB makes one within some 10 s."""

_KEYS = [("pk", "HASH"), ("sk", "RANGE")]
_INDEX_KEYS = [("list", "HASH"), ("at", "RANGE")]


class Schema(Part):
    """The form of a store; see `contract.Primary`."""

    async def setup(self) -> None:
        """Make the table if it is not there; else look whether it is one of ours."""
        status = await self._described()
        if status is None:
            await self._make()
        patience = self._table.patience(TABLE_MADE_S)
        while (status or await self._described()) != "ACTIVE":
            if not await patience.pause():
                raise Unreachable(
                    f"table {self._table.name!r} is still being made: call setup() again"
                )
            status = None
        await self._sign()

    async def _described(self) -> str | None:
        """Its status; None if it is not there.

        Raises:
            ConfigurationError: It is of another form.
        """
        try:
            found = await self._table.call("describe_table", TableName=self._table.name)
        except ConfigurationError as error:
            if code_of(error.__cause__) == "ResourceNotFoundException":
                return None
            raise
        table: dict[str, Any] = found["Table"]
        types = {
            each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]
        }
        indexes = {each["IndexName"]: each for each in table.get("GlobalSecondaryIndexes") or ()}
        index = indexes.get(INDEX, {})
        keys = [*_keys_of(table), *_keys_of(index)]
        if keys != [*_KEYS, *_INDEX_KEYS] or {types[name] for name, _ in keys} != {"S"}:
            raise ConfigurationError(
                f"table {self._table.name!r} is there, but not of this store: it needs the keys "
                f"pk and sk, and an index {INDEX} of list and at, all text. Give another name, "
                "or let setup() make the table"
            )
        statuses = {table["TableStatus"], index.get("IndexStatus", "ACTIVE")}
        return "ACTIVE" if statuses <= {"ACTIVE", "UPDATING"} else "CREATING"

    async def _make(self) -> None:
        names = [name for name, _ in (*_KEYS, *_INDEX_KEYS)]
        try:
            await self._table.call(
                "create_table",
                TableName=self._table.name,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[
                    {"AttributeName": name, "AttributeType": "S"} for name in names
                ],
                KeySchema=_schema(_KEYS),
                GlobalSecondaryIndexes=[
                    {
                        "IndexName": INDEX,
                        "KeySchema": _schema(_INDEX_KEYS),
                        "Projection": {"ProjectionType": "KEYS_ONLY"},
                    }
                ],
            )
        except ConfigurationError as error:
            if code_of(error.__cause__) != "ResourceInUseException":  # Another one makes it.
                raise

    async def _sign(self) -> None:
        """Write down the version, unless there is one; it must be ours."""
        try:
            row = await self._table.update(
                VERSION_KEY,
                {"version": number(VERSION)},
                "SET #version = :version",
                "attribute_not_exists(#pk)",
            )
        except Refused as refused:
            row = refused.old
        found = plain(row).get("version")
        if found != VERSION:
            raise ConfigurationError(
                f"table {self._table.name!r} has version {found}, and this release of "
                f"langgraph-valkey knows version {VERSION}: install a newer release"
            )


def code_of(error: BaseException | None) -> str:
    """By what code DynamoDB refused; "" if it is no refusal."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _keys_of(described: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["AttributeName"], each["KeyType"]) for each in described.get("KeySchema", ())]


def _schema(keys: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in keys]
