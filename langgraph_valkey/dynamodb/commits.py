"""Commits in DynamoDB: one conditional transaction.

The commit's function writes nothing itself: it returns `Items`, and they go in one
TransactWriteItems with the record (on the condition that there is none), the check of
the run's attempt, the turn's list of commits, and the outbox. Who comes second fails at
the record, and is told what stands there.

`ClientRequestToken` makes DynamoDB take a transaction that is sent twice for one, for
10 minutes. Nothing here relies on it: the record is what decides.

The turn's list is an item of its own rather than a query, for two reasons: it keeps the
order in which the commits were made, whatever the clocks of their processes say; and
it can be read by TransactGetItems, which waits for a transaction under way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph_valkey.dynamodb.errors import Cancelled
from langgraph_valkey.dynamodb.items import (
    Item,
    commit_key,
    digest_in,
    due,
    in_list,
    key_of,
    message_id,
    message_key,
    nonce,
    number,
    plain,
    text,
    untext,
    word,
)
from langgraph_valkey.dynamodb.sizes import ROOM, check_transaction, checked
from langgraph_valkey.dynamodb.table import Part, Table
from langgraph_valkey.errors import RunTakenOver
from langgraph_valkey.primary import json_text
from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
    Fence,
    Receipt,
    moment,
)

TURN_COMMITS_MOST = 2_000
"""Commits of one turn: their list is read and written whole, and takes 70 KB then."""


@dataclass(frozen=True, slots=True)
class Items:
    """What a commit's function returns on DynamoDB.

    Attributes:
        writes: Actions as TransactWriteItems takes them, such as
            ``{"Put": {"TableName": "orders", "Item": {"id": {"S": "A17"}}}}``. If one of
            their conditions does not hold, botocore's TransactionCanceledException is
            raised, whose reasons begin with those of our own actions, and nothing is
            written.
        result: The commit's result; anything that JSON can hold.
    """

    writes: Sequence[dict[str, Any]]
    result: Any = None


class Commits(Part):
    """The commits of a store; see `contract.Primary`."""

    async def commit(self, request: CommitRequest, fn: Callable[..., Any]) -> Receipt:
        """Do something exactly once, by the key; see `contract.Primary.commit`."""
        by = nonce()
        found = await self._found(request, by)
        if found is not None:
            return found
        draft = _Draft(self._table, request, await self._asked(request, fn), by)
        try:
            await self._table.transact(draft.actions)
        except Cancelled as cancelled:
            return await self._instead(request, draft, cancelled)
        return receipt_of(draft.record, by)

    async def receipt(self, key: CommitKey) -> Receipt | None:
        """The receipt of a commit; None if there is none."""
        found = await self._table.get_settled(commit_key(key.id))
        return None if found is None else receipt_of(found)

    async def receipts(self, thread_id: str, turn_id: str) -> list[Receipt]:
        """What was committed in a turn, in the order in which it was."""
        turn = await self._table.get_settled(key_of("turn", thread_id, turn_id))
        if turn is None:
            return []
        keys = [commit_key(each.hex()) for each in plain(turn)["commits"]]
        rows = {digest_in(row): row for row in await self._table.get_sure(keys)}
        there = [rows[digest_in(key)] for key in keys if digest_in(key) in rows]
        return [receipt_of(row) for row in there]

    async def _found(self, request: CommitRequest, by: str) -> Receipt | None:
        """What was committed under this key.

        Raises:
            RunTakenOver: The fence does not hold.
        """
        keys = [commit_key(request.key.id)]
        if request.fence is not None:
            keys.append(key_of("run", request.fence.run_id))
        rows = {row["sk"]["S"]: row for row in await self._table.get_each(keys)}
        if "commit" in rows:
            return receipt_of(rows["commit"], by)
        run = plain(rows.get("run", {}))
        if request.fence is not None and run.get("attempt") != request.fence.attempt:
            raise _taken_over(request.fence)
        return None

    async def _asked(self, request: CommitRequest, fn: Callable[..., Any]) -> Items:
        """What the caller's function returns."""
        client = await self._table.port.run(self._table.client.get)
        items = await self._table.port.called(fn, client, f"fn of commit {request.key.op!r}")
        if not isinstance(items, Items):
            raise TypeError(
                f"fn of commit {request.key.op!r} must return Items on DynamoDB, "
                f"not a {type(items).__name__}"
            )
        return items

    async def _instead(
        self, request: CommitRequest, draft: _Draft, cancelled: Cancelled
    ) -> Receipt:
        """What to return, or raise, for a transaction that was cancelled."""
        if cancelled.failed(0):
            return receipt_of(cancelled.old(0), draft.by)
        if request.fence is not None and cancelled.failed(draft.places.get("fence")):
            raise _taken_over(request.fence)
        if cancelled.failed(draft.places.get("turn")):
            raise ValueError(
                f"the turn has {TURN_COMMITS_MOST} commits, and no more are kept: begin another "
                "turn, or do more in one commit"
            )
        # The condition may fail because somebody else just made this very commit.
        found = await self._found(request, draft.by)
        if found is not None:
            return found
        raise cancelled.error


class _Draft:
    """The transaction of one commit.

    Args:
        table: Where it will be written.
        request: What is asked for.
        items: What its function returned.
        by: The name of this call.

    Attributes:
        by: As given.
        record: The commit's record.
        actions: All actions, the record's first.
        places: Where among them the "fence" and the "turn" stand.

    Raises:
        TypeError, ValueError: It can't be written.
    """

    def __init__(self, table: Table, request: CommitRequest, items: Items, by: str) -> None:
        op = request.key.op
        self._table = table
        self._request = request
        self.by = by
        self._now = self._table.now()
        theirs = checked(items.writes, op)
        result = json_text.encode(
            items.result, f"the result of commit {op!r}", ROOM.result_bytes_max
        )
        self.record = self._record(result)
        self.places: dict[str, int] = {}
        self.actions = [self._table.putting(self.record, is_new=True)]
        if request.fence is not None:
            self._add("fence", self._fence(request.fence))
        if request.turn_id:
            self._add("turn", self._turn())
        self.actions += [self._table.putting(message) for message in self._messages()]
        check_transaction(self.actions, theirs, op)
        self.actions += theirs

    def _add(self, name: str, action: dict[str, Any]) -> None:
        self.places[name] = len(self.actions)
        self.actions.append(action)

    def _record(self, result: str) -> Item:
        key = commit_key(self._request.key.id)
        turn = {
            "thread_id": text(self._request.thread_id),
            "turn_id": text(self._request.turn_id),
        }
        return {
            **key,
            **(turn if self._request.turn_id else {}),
            **in_list("commits", self._now, key),
            "op": text(self._request.key.op),
            "key": text(self._request.key.key),
            "payload_sha256": word(self._request.payload_sha256),
            "result": word(result),
            "committed_s": number(self._now),
            "messages": number(len(self._request.outbox)),
            "by": word(self.by),
        }

    def _fence(self, fence: Fence) -> dict[str, Any]:
        run = key_of("run", fence.run_id)
        values = {"attempt": number(fence.attempt)}
        return self._table.checking(run, values, "#attempt = :attempt")

    def _turn(self) -> dict[str, Any]:
        turn = key_of("turn", self._request.thread_id, self._request.turn_id)
        values: Item = {
            **in_list("turns", self._now, turn),
            "commit": {"L": [{"B": bytes.fromhex(self._request.key.id)}]},
            "none": {"L": []},
            "last_s": number(self._now),
            "most": number(TURN_COMMITS_MOST),
        }
        return self._table.updating(
            turn,
            values,
            "SET #commits = list_append(if_not_exists(#commits, :none), :commit), "
            "#last_s = :last_s, #list = if_not_exists(#list, :list), "
            "#at = if_not_exists(#at, :at)",
            "attribute_not_exists(#commits) OR size(#commits) < :most",
        )

    def _messages(self) -> list[Item]:
        messages = []
        for place, (topic, body) in enumerate(self._request.outbox):
            name = message_id(self._request.key.id, place)
            key = message_key(name)
            assert key is not None
            messages.append(
                {
                    **key,
                    **in_list(due(topic), self._now, key),
                    "topic": text(topic),
                    "body": word(body),
                    "op": text(self._request.key.op),
                    "key": text(self._request.key.key),
                    "attempts": number(0),
                    "created_s": number(self._now),
                }
            )
        return messages


def _taken_over(fence: Fence) -> RunTakenOver:
    return RunTakenOver(
        f"run {fence.run_id!r} was taken over by another process, or is not there any more "
        f"(this is attempt {fence.attempt}): nothing was committed; stop",
        run_id=fence.run_id,
    )


def receipt_of(record: Item, by: str = "") -> Receipt:
    """A receipt as its record says.

    Args:
        record: The commit's record.
        by: The name of this call: what it committed itself, is not replayed.
    """
    row = plain(record)
    return Receipt(
        op=untext(row["op"]),
        key=untext(row["key"]),
        result=json.loads(row["result"]),
        replayed=row["by"] != by,
        committed_at=moment(row["committed_s"]),
        payload_sha256=row["payload_sha256"],
    )
