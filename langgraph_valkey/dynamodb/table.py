"""The table as the parts of the store see it: requests, sent again while that helps.

All logic is async code over a `Port`: the blocking face's port calls boto3 where it
stands and never suspends, the async face's calls it in a thread.

botocore's own retries are off, since it tells of the last try only: whether an earlier
one may have been applied decides between `Unreachable` and `OutcomeUnknown`. Here each
request is sent again for `patience_s`, with pauses drawn at random (full jitter), so
that two who are in each other's way part.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from langgraph_valkey.dynamodb.client import Client
from langgraph_valkey.dynamodb.errors import Cancelled, failure_of, raised
from langgraph_valkey.dynamodb.items import (
    INDEX,
    Item,
    expressed,
    key_in,
    nonce,
    partitions,
    word,
)
from langgraph_valkey.errors import ConfigurationError, OutcomeUnknown, Unreachable

T = TypeVar("T")

PAUSE_FIRST_S = 0.02
PAUSE_MOST_S = 1.0
"""Bounds of the pause before a request is sent again; the bound doubles each time."""

KEYS_MOST = 100
"""Items that one BatchGetItem takes."""

DELETES_MOST = 25
"""Items that one BatchWriteItem takes."""


class Port(Protocol):
    """Where blocking calls are made."""

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that blocks."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        ...

    async def called(self, fn: Callable[[Any], Any], argument: Any, what: str) -> Any:
        """Call a user's function, which may be async if this face is."""
        ...


class Patience:
    """Pauses before further tries, until the time is over.

    Args:
        port: Where to sleep.
        for_s: How long there is.
    """

    def __init__(self, port: Port, for_s: float) -> None:
        self._port = port
        self._until = time.monotonic() + for_s
        self._bound_s = PAUSE_FIRST_S

    async def pause(self) -> bool:
        """Wait before the next try; False at once if there is no time left."""
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            return False
        await self._port.sleep(min(random.uniform(0, self._bound_s), left_s))  # noqa: S311
        self._bound_s = min(self._bound_s * 2, PAUSE_MOST_S)
        return True


class Place(NamedTuple):
    """Where an item stands in a list: `at` as it is kept, and the item's key."""

    at: str
    key: Item


class Table:
    """One table, for one face.

    Args:
        name: Its name.
        client: The client to send by.
        port: The face's.
        patience_s: For how long a request is sent again.
        skew_s: By how much clocks of machines may differ.

    Attributes:
        name, client, port, skew_s: As given.
    """

    def __init__(
        self, name: str, client: Client, port: Port, patience_s: float, skew_s: float
    ) -> None:
        self.name = name
        self.client = client
        self.port = port
        self.skew_s = skew_s
        self._patience_s = patience_s

    def now(self) -> float:
        """This machine's time, in seconds since 1970, to the microsecond."""
        return round(time.time(), 6)

    def patience(self, for_s: float | None = None) -> Patience:
        """Pauses for as long as a request is sent again, or as long as given."""
        return Patience(self.port, self._patience_s if for_s is None else for_s)

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request; again, while it fails for a reason that may pass.

        Args:
            operation: Name of the client's method.
            **parameters: The request's.

        Raises:
            Refused, Cancelled: A condition does not hold.
            Unreachable, OutcomeUnknown, ConfigurationError: See `contract`.
            ParamValidationError: It is no valid request.
        """
        patience = self.patience()
        unknown: OutcomeUnknown | None = None
        while True:
            try:
                return await self.port.run(partial(self.client.send, operation, parameters))
            except raised() as error:
                failure = failure_of(error, operation, self.name, sent_once=self.client.sends_once)
                if not isinstance(failure, Unreachable | OutcomeUnknown):
                    if failure is error:
                        raise
                    if isinstance(failure, ConfigurationError) and unknown is not None:
                        raise unknown from error
                    if isinstance(failure, Cancelled):
                        failure.may_be_done = unknown is not None
                    raise failure from error
                if isinstance(failure, OutcomeUnknown):
                    unknown = failure
                failure.__cause__ = error
            if not await patience.pause():
                raise unknown or failure
            if unknown is None and "ClientRequestToken" in parameters:
                # It was refused for certain; the token of one that may still be under
                # way is kept, and lets DynamoDB tell the two to be the same.
                parameters["ClientRequestToken"] = nonce()

    # --- reading -------------------------------------------------------------------

    async def get(self, key: Item) -> Item | None:
        """An item as it is now; None if there is none."""
        found = await self.call("get_item", TableName=self.name, Key=key, ConsistentRead=True)
        return found.get("Item")

    async def get_settled(self, key: Item) -> Item | None:
        """An item after all transactions that touch it: those under way are waited for.

        Plain reads don't wait: they give what was there before.
        """
        wanted = [{"Get": {"TableName": self.name, "Key": key}}]
        found = await self.call("transact_get_items", TransactItems=wanted)
        item: Item | None = found["Responses"][0].get("Item")
        return item

    async def get_each(
        self, keys: Sequence[Item], attributes: Sequence[str] | None = None
    ) -> list[Item]:
        """Those of these items that are there, as they are now, in no order.

        Args:
            keys: Their keys, each once.
            attributes: Which ones to get beside the key; all if not given.
        """
        shown: dict[str, Any] = {"ConsistentRead": True}
        if attributes is not None:
            names = [f"#{name}" for name in ("pk", "sk", *attributes)]
            shown |= expressed({}, ProjectionExpression=", ".join(names))
        found: list[Item] = []
        for first in range(0, len(keys), KEYS_MOST):
            wanted: dict[str, Any] = {"Keys": list(keys[first : first + KEYS_MOST]), **shown}
            patience = self.patience()
            while True:
                page = await self.call("batch_get_item", RequestItems={self.name: wanted})
                found += page["Responses"].get(self.name, ())
                rest = page.get("UnprocessedKeys", {}).get(self.name)
                if not rest:
                    break
                if len(rest["Keys"]) == len(wanted["Keys"]) and not await patience.pause():
                    raise Unreachable(f"DynamoDB is too busy for reads of {self.name!r}")
                wanted = rest
        return found

    async def get_sure(
        self, keys: Sequence[Item], attributes: Sequence[str] | None = None
    ) -> list[Item]:
        """These items, which are known to be there; those that are not, are left out.

        An item written by a transaction that has ended may come a moment after another
        one of it that was read.
        """
        found = await self.get_each(keys, attributes)
        patience = self.patience(PAUSE_MOST_S)
        while len(found) < len(keys) and await patience.pause():
            found = await self.get_each(keys, attributes)
        return found

    async def page(
        self,
        key: Item,
        until: str,
        *,
        start: Item | None = None,
        values: Item | None = None,
        condition: str = "",
        limit: int | None = None,
    ) -> tuple[list[Item], Item | None]:
        """Items that stand under one `pk`, in order, as they are now; as many as come at once.

        Args:
            key: Those behind this one.
            until: Those up to this `sk`.
            start: What came with the page before.
            values: What the condition names.
            condition: Only those for which this holds.
            limit: How many are looked at, at most.

        Returns:
            The items, and what the next page starts with; None if there is none.
        """
        places = {"pk": key["pk"], "after": word(key["sk"]["S"] + " "), "until": word(until)}
        asked = expressed(
            {**places, **(values or {})},
            KeyConditionExpression="#pk = :pk AND #sk BETWEEN :after AND :until",
            FilterExpression=condition,
        )
        if start is not None:
            asked["ExclusiveStartKey"] = start
        if limit is not None:
            asked["Limit"] = limit
        found = await self.call("query", TableName=self.name, ConsistentRead=True, **asked)
        return found["Items"], found.get("LastEvaluatedKey")

    async def listed(
        self, name: str, *, after: str = "", until: str = "~", limit: int
    ) -> list[Place]:
        """Items of a list, those first that stand first; what the index knows of them.

        Args:
            name: Of the list.
            after: Only those behind this.
            until: Only those up to this.
            limit: How many at most; there are no more if fewer come.
        """
        found: list[Place] = []
        for partition in partitions(name):
            found += await self._listed(partition, after + " ", until, limit)
        return sorted(found, key=lambda place: place.at)[:limit]

    async def _listed(self, partition: str, after: str, until: str, limit: int) -> list[Place]:
        values = {"list": word(partition), "after": word(after), "until": word(until)}
        asked = expressed(
            values, KeyConditionExpression="#list = :list AND #at BETWEEN :after AND :until"
        )
        found: list[Place] = []
        start: dict[str, Any] = {}
        while len(found) < limit:
            page = await self.call(
                "query",
                TableName=self.name,
                IndexName=INDEX,
                Limit=limit - len(found),
                **asked,
                **start,
            )
            found += [Place(item["at"]["S"], key_in(item)) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        return found

    # --- writing -------------------------------------------------------------------

    async def update(self, key: Item, values: Item, update: str, condition: str = "") -> Item:
        """Change an item, or make it; the item as it is then.

        Args:
            key: Its key.
            values: What the expressions name.
            update: The update expression.
            condition: What must hold.

        Raises:
            Refused: The condition does not hold.
        """
        answer = await self.call(
            "update_item",
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **self._of(key, values, UpdateExpression=update, ConditionExpression=condition),
        )
        return dict(answer["Attributes"])

    async def delete(self, key: Item, values: Item, condition: str) -> None:
        """Delete an item; see `update`."""
        await self.call("delete_item", **self._of(key, values, ConditionExpression=condition))

    async def delete_each(self, keys: Sequence[Item]) -> None:
        """Delete items, whatever they hold."""
        for first in range(0, len(keys), DELETES_MOST):
            wanted = [{"DeleteRequest": {"Key": key}} for key in keys[first : first + DELETES_MOST]]
            patience = self.patience()
            while wanted:
                answer = await self.call("batch_write_item", RequestItems={self.name: wanted})
                wanted = answer.get("UnprocessedItems", {}).get(self.name, [])
                if wanted and not await patience.pause():
                    raise Unreachable(f"DynamoDB is too busy for deletions in {self.name!r}")

    async def transact(self, actions: Sequence[dict[str, Any]]) -> None:
        """Do all of this, or nothing.

        Args:
            actions: As `checking`, `putting` and `updating` make them.

        Raises:
            Cancelled: A condition does not hold.
        """
        await self.call(
            "transact_write_items", TransactItems=list(actions), ClientRequestToken=nonce()
        )

    def checking(self, key: Item, values: Item, condition: str) -> dict[str, Any]:
        """The action that only checks a condition."""
        return {"ConditionCheck": self._of(key, values, ConditionExpression=condition)}

    def putting(self, item: Item, *, is_new: bool = False) -> dict[str, Any]:
        """The action that writes an item; a new one only if there is none."""
        put: dict[str, Any] = {"TableName": self.name, "Item": item}
        if is_new:
            put |= expressed({}, ConditionExpression="attribute_not_exists(#pk)")
            put["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return {"Put": put}

    def updating(self, key: Item, values: Item, update: str, condition: str = "") -> dict[str, Any]:
        """The action that changes an item, or makes it."""
        return {
            "Update": self._of(key, values, UpdateExpression=update, ConditionExpression=condition)
        }

    def _of(self, key: Item, values: Item, **expressions: str) -> dict[str, Any]:
        return {"TableName": self.name, "Key": key, **expressed(values, **expressions)}


class Part:
    """A part of the store's face.

    Args:
        table: Where it keeps its items.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
