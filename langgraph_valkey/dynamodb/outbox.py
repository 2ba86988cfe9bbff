"""The outbox in DynamoDB.

A message stands in the list of its topic, at the time from which on it may be taken.
Taking it moves it on by the time of the lease, on the condition that it has not been
moved: of several who take, one gets it. A sent message is deleted, and its id stays
used, since it is made of the commit's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from langgraph_valkey.dynamodb.errors import Refused
from langgraph_valkey.dynamodb.items import (
    Item,
    digest_in,
    due,
    in_list,
    message_id,
    message_key,
    number,
    place_of,
    plain,
    text,
    untext,
    until,
    word,
)
from langgraph_valkey.dynamodb.table import Part
from langgraph_valkey.primary.records import Message

DEAD = "dead"
"""The list of messages that were given up."""

LOOK_MOST = 20
"""How many messages are looked at together: the first ones may be another worker's, or
be gone and still in the index."""


class Messages(Part):
    """The outbox of a store; see `contract.Primary`."""

    async def take_messages(
        self, topics: Sequence[str], *, limit: int, for_s: float
    ) -> list[Message]:
        """Take messages that are due, the oldest first; nobody else gets them for `for_s`."""
        now = self._table.now()
        taken: list[Message] = []
        after = ""
        page = max(limit, LOOK_MOST)
        while True:
            places = [
                place
                for topic in dict.fromkeys(topics)
                for place in await self._table.listed(
                    due(topic), after=after, until=until(now), limit=page
                )
            ]
            places.sort(key=lambda place: place.at)
            for place in places[:page]:
                if len(taken) == limit:
                    return taken
                message = await self._take(place.key, now, for_s)
                if message is not None:
                    taken.append(message)
            if len(places) < page:
                return taken
            after = places[page - 1].at

    async def _take(self, key: Item, now: float, for_s: float) -> Message | None:
        """Take one message; None if another one did, or it is gone."""
        values = {
            "at": word(place_of(now + for_s, key)),
            "one": number(1),
            "due": word("due#"),
            "until": word(until(now)),
        }
        try:
            row = await self._table.update(
                key,
                values,
                "SET #at = :at ADD #attempts :one",
                "begins_with(#list, :due) AND #at <= :until",
            )
        except Refused:
            return None
        return _message_of(row)

    async def sent_messages(self, ids: Sequence[str]) -> None:
        """These were sent."""
        keys = {each: key for each in ids if (key := message_key(each)) is not None}
        await self._table.delete_each(list(keys.values()))

    async def failed_message(self, message_id: str, error: str, again_in_s: float | None) -> None:
        """It could not be sent: to be tried again then, or a dead letter (None)."""
        key = message_key(message_id)
        row = None if key is None else await self._table.get(key)
        if key is None or row is None:
            return
        message = _message_of(row)
        listed = in_list(DEAD, message.created_s, key)
        if again_in_s is not None:
            listed = in_list(due(message.topic), self._table.now() + again_in_s, key)
        await self._relisted(key, {**listed, "error": text(error)}, "attribute_exists(#pk)")

    async def dead_letters(self, *, limit: int) -> list[Message]:
        """Messages that were given up, the oldest first.

        They come from the index: one of the last second may not be there yet.
        """
        places = await self._table.listed(DEAD, limit=limit)
        rows = await self._table.get_each([place.key for place in places])
        dead = sorted((row for row in rows if _is_dead(row)), key=lambda row: row["at"]["S"])
        return [_message_of(row) for row in dead]

    async def revive_messages(self, ids: Sequence[str]) -> int:
        """Send dead letters again, from the first attempt on; how many there were."""
        keys = {each: key for each in ids if (key := message_key(each)) is not None}
        revived = 0
        for row in await self._table.get_each(list(keys.values())):
            if not _is_dead(row):
                continue
            key = {"pk": row["pk"], "sk": row["sk"]}
            listed = in_list(due(untext(row["topic"]["S"])), self._table.now(), key)
            values = {**listed, "attempts": number(0), "former": row["list"]}
            revived += await self._relisted(key, values, "#list = :former")
        return revived

    async def _relisted(self, key: Item, values: Item, condition: str) -> bool:
        """Move a message to another list; whether it still was where it is moved from."""
        names = [name for name in values if name != "former"]
        update = "SET " + ", ".join(f"#{name} = :{name}" for name in names)
        try:
            await self._table.update(key, values, update, condition)
        except Refused:
            return False
        return True


def _is_dead(row: Item) -> bool:
    return str(row["list"]["S"]).partition("#")[0] == DEAD


def _message_of(item: Item) -> Message:
    row = plain(item)
    name = message_id(digest_in(item), int(row["sk"].partition("#")[2]))
    return Message(
        id=name,
        topic=untext(row["topic"]),
        body=json.loads(row["body"]),
        op=untext(row["op"]),
        key=untext(row["key"]),
        idempotency_key=name,
        attempts=row["attempts"],
        created_s=row["created_s"],
        error=untext(row["error"]) if "error" in row else "",
    )
