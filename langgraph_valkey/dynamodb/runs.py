"""The run registry in DynamoDB.

A thread is an item that numbers its runs and names those that are not settled. Who
begins or claims a run changes the thread's `version` in the same transaction, on the
condition that it is the one he read: so of several who begin at once, each sees what
the one before him began.

A claim and a commit of the attempt before meet at the run's item, which both
transactions touch: one comes first, and DynamoDB lets neither wait, but sends the
other one back to try again.

There is no server's clock here: an owner lives until a time that its own machine
chose, and others compare it with theirs. An owner counts as dead only `skew_s` later.
If clocks differ by more, a living process's run may be claimed: its commits are then
refused by the fence, and no harm is done but that the work is done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from langgraph_valkey.dynamodb.errors import Cancelled, Refused
from langgraph_valkey.dynamodb.items import (
    Item,
    digest_in,
    in_list,
    key_in,
    key_of,
    nonce,
    number,
    place_of,
    plain,
    setting,
    text,
    untext,
    word,
)
from langgraph_valkey.dynamodb.run_items import (
    Thread,
    end_values,
    run_digest,
    run_item,
    run_key,
    run_of,
    thread_of,
)
from langgraph_valkey.dynamodb.sizes import ACTIONS_MOST, ROOM, check_item
from langgraph_valkey.dynamodb.table import Part
from langgraph_valkey.errors import Unreachable
from langgraph_valkey.primary.records import (
    Fence,
    NewRun,
    Run,
    RunEnd,
    Settling,
    Started,
)

OPEN_MOST = 5_000
"""Unsettled runs of one thread: 170 KB of digests in the thread's item."""

_THREAD_UPDATE = "SET #version = :next, #last = :last ADD #open :open"
_SAME_THREAD = "#version = :version"
_NEW_THREAD = "attribute_not_exists(#pk)"
_LAST_ATTEMPT = "#attempt = :attempt AND #state <> :settled"
_SETTLE = "#state = :settled, #list = :list, #at = :at REMOVE #input"
_CLAIM = (
    "SET #attempt = :next, #owner = :owner, #state = :running, #outcome = :empty, "
    "#head = :no_head, #writes = :zero, #by = :by REMOVE #ended_s"
)


class RunRegistry(Part):
    """The runs of a store; see `contract.Primary`."""

    # --- beginning and ending ------------------------------------------------------

    async def start_run(self, new: NewRun) -> Started:
        """Record a run before it starts; see `Started`."""
        if len(new.input) > ROOM.input_bytes_max:
            raise ValueError(
                f"the input of run {new.run_id!r} takes {len(new.input)} bytes, and at most "
                f"{ROOM.input_bytes_max} are kept: store it elsewhere, and pass its name"
            )
        by, patience = nonce(), self._table.patience()
        while True:
            started = await self._started(new, by)
            if started is not None:
                return started
            if not await patience.pause():
                raise Unreachable(
                    f"others kept beginning runs of thread {new.thread_id!r}: call again"
                )

    async def _started(self, new: NewRun, by: str) -> Started | None:
        """Begin a run, as things stand; None if others changed them meanwhile."""
        thread_key = key_of("thread", new.thread_id)
        thread = thread_of(await self._table.get(thread_key))
        wanted = key_of("run", new.run_id)
        rows = {digest_in(row): row for row in await self._open_rows(thread)}
        rows |= {digest_in(row): row for row in await self._table.get_each([wanted])}
        runs = await self._runs(rows.values())
        before = tuple(
            sorted((run for run in runs if _is_before(run, new)), key=lambda run: run.number)
        )
        for run in runs:
            if run.run_id == new.run_id:
                is_ours = rows[digest_in(wanted)]["by"]["S"] == by
                older = tuple(each for each in before if each.number < run.number)
                return Started(run, is_ours, older)
        if any(run.state == "running" and run.owner_alive for run in before):
            return Started(None, False, before)
        item = run_item(new, thread.last + 1, self._table.now(), by)
        check_item(item, f"the record of run {new.run_id!r} with its input and context")
        try:
            await self._table.transact(
                [self._counting(thread_key, thread, item), self._table.putting(item, is_new=True)]
            )
        except Cancelled:
            return None
        [run] = await self._runs([item])
        return Started(run, True, before)

    def _counting(self, key: Item, thread: Thread, run: Item) -> dict[str, Any]:
        """The action that counts a new run in its thread."""
        if len(thread.open) >= OPEN_MOST:
            raise ValueError(
                f"the thread has {len(thread.open)} unsettled runs, and no more are kept: "
                "settle or recover them first"
            )
        values: Item = {
            "version": number(thread.version),
            "next": number(thread.version + 1),
            "last": number(thread.last + 1),
            "open": {"BS": [run_digest(run)]},
        }
        condition = _SAME_THREAD if thread.version else _NEW_THREAD
        return self._table.updating(key, values, _THREAD_UPDATE, condition)

    async def end_run(self, fence: Fence, end: RunEnd) -> bool:
        """An attempt has ended; whether it still was the run's last one."""
        key, now = key_of("run", fence.run_id), self._table.now()
        values = end_values(end.outcome, end.head, end.writes, now)
        bounds = {"attempt": number(fence.attempt), "settled": word("settled")}
        try:
            if end.outcome in ("failed", "cancelled"):
                await self._give_up(key, values | bounds, now)
            else:
                values["state"] = word("ended")
                await self._table.update(key, values | bounds, setting(values), _LAST_ATTEMPT)
        except (Cancelled, Refused):
            # Another attempt has begun; or nothing is left to be done.
            row = await self._table.get(key)
            return row is not None and plain(row)["attempt"] == fence.attempt
        return True

    async def _give_up(self, key: Item, values: Item, now: float) -> None:
        """End a run and settle it."""
        row = await self._table.get(key)
        if row is None:
            raise Refused({})
        values |= in_list("settled", now, key)
        update = f"{setting(['outcome', 'head', 'writes', 'ended_s'])}, {_SETTLE}"
        await self._table.transact(
            [
                self._table.updating(key, values, update, _LAST_ATTEMPT),
                self._closing(untext(row["thread_id"]["S"]), [row]),
            ]
        )

    async def release_run(self, fence: Fence) -> None:
        """The attempt was given up half-way; whoever recovers may run it again."""
        values = {
            "owner": text(""),
            "attempt": number(fence.attempt),
            "settled": word("settled"),
        }
        try:
            await self._table.update(
                key_of("run", fence.run_id), values, setting(["owner"]), _LAST_ATTEMPT
            )
        except Refused:
            return

    async def claim_run(self, fence: Fence, owner: str) -> Run | None:
        """Take a run over; see `contract.Primary.claim_run`."""
        by, patience = nonce(), self._table.patience()
        while True:
            run, claimed_by = await self._run(fence.run_id)
            if run is None or claimed_by == by:
                return run
            if run.state == "settled" or run.attempt != fence.attempt:
                return None
            if run.owner != owner and run.owner_alive:
                return None
            try:
                await self._table.transact(self._claiming(run, owner, by))
            except Cancelled:
                # By whom, tells another look: by the owner, who lives, or one of us.
                if not await patience.pause():
                    raise Unreachable(f"run {fence.run_id!r} kept changing: call again") from None

    def _claiming(self, run: Run, owner: str, by: str) -> list[dict[str, Any]]:
        values = {
            "attempt": number(run.attempt),
            "next": number(run.attempt + 1),
            "owner": text(owner),
            "before": text(run.owner),
            "running": word("running"),
            "settled": word("settled"),
            "empty": word(""),
            "no_head": text(""),
            "zero": number(0),
            "by": word(by),
        }
        actions = [
            self._table.updating(
                key_of("run", run.run_id), values, _CLAIM, f"{_LAST_ATTEMPT} AND #owner = :before"
            ),
            self._table.updating(
                key_of("thread", run.thread_id), {"one": number(1)}, "ADD #version :one"
            ),
        ]
        if run.owner not in ("", owner):
            dead = {"now": number(self._table.now() - self._table.skew_s)}
            actions.append(
                self._table.checking(
                    key_of("owner", run.owner),
                    dead,
                    "attribute_not_exists(#pk) OR #until <= :now",
                )
            )
        return actions

    # --- settling ------------------------------------------------------------------

    async def settle_runs(self, fences: Settling) -> int:
        """Nobody will run these again; how many there were, as far as the answers tell."""
        attempts = {digest_in(key_of("run", fence.run_id)): fence.attempt for fence in fences}
        keys = [run_key(bytes.fromhex(digest)) for digest in attempts]
        rows = await self._table.get_each(keys, ("thread_id", "attempt", "state"))
        ready = [
            row
            for row in rows
            if row["state"]["S"] == "ended" and plain(row)["attempt"] == attempts[digest_in(row)]
        ]
        return sum([await self._settle(chunk) for chunk in _chunks(ready)])

    async def _settle(self, rows: Sequence[Item]) -> int:
        """Settle runs that have ended, unless there was another attempt meanwhile."""
        while rows:
            actions = [self._settling(row) for row in rows]
            actions += [self._closing(thread, done) for thread, done in _by_thread(rows)]
            try:
                await self._table.transact(actions)
            except Cancelled as cancelled:
                left = [row for place, row in enumerate(rows) if not cancelled.failed(place)]
                if len(left) == len(rows):
                    raise cancelled.error from None
                rows = left
            else:
                break
        return len(rows)

    def _settling(self, row: Item) -> dict[str, Any]:
        key = key_in(row)
        values = {
            **in_list("settled", self._table.now(), key),
            "settled": word("settled"),
            "ended": word("ended"),
            "attempt": row["attempt"],
        }
        return self._table.updating(
            key, values, f"SET {_SETTLE}", "#attempt = :attempt AND #state = :ended"
        )

    def _closing(self, thread_id: str, rows: Sequence[Item]) -> dict[str, Any]:
        digests: Item = {"open": {"BS": [run_digest(row) for row in rows]}}
        return self._table.updating(key_of("thread", thread_id), digests, "DELETE #open :open")

    # --- looking -------------------------------------------------------------------

    async def run(self, run_id: str) -> Run | None:
        """A run; None if there is none of this id."""
        found, _ = await self._run(run_id)
        return found

    async def _run(self, run_id: str) -> tuple[Run | None, str]:
        """A run, and the name of the call that began this attempt."""
        row = await self._table.get(key_of("run", run_id))
        if row is None:
            return None, ""
        [run] = await self._runs([row])
        return run, row["by"]["S"]

    async def unsettled_runs(
        self, *, thread_id: str | None = None, after: tuple[float, str] | None = None, limit: int
    ) -> list[Run]:
        """Runs that are not settled; see `contract.Primary.unsettled_runs`.

        Those of one thread are read from the thread, and none is missing. Those of all
        come from the index: one begun within the last second may not be there yet.
        """
        if thread_id is not None:
            return await self._unsettled_of(thread_id, after, limit)
        at = place_of(after[0], key_of("run", after[1])) if after else ""
        rows: list[Item] = []
        while len(rows) < limit:
            places = await self._table.listed("unsettled", after=at, limit=limit)
            found = {
                digest_in(row): row for row in await self._table.get_each([p.key for p in places])
            }
            there = (found.get(digest_in(place.key)) for place in places)
            rows += [row for row in there if row and row["state"]["S"] != "settled"]
            if len(places) < limit:
                break
            at = places[-1].at
        return await self._runs(rows[:limit])

    async def _unsettled_of(
        self, thread_id: str, after: tuple[float, str] | None, limit: int
    ) -> list[Run]:
        thread = thread_of(await self._table.get(key_of("thread", thread_id)))
        rows = await self._open_rows(thread)
        runs = [run for run in await self._runs(rows) if run.state != "settled"]
        last = 0
        if after is not None:
            former = await self.run(after[1])
            last = former.number if former else 0
        runs.sort(key=lambda run: run.number)
        return [run for run in runs if run.number > last][:limit]

    async def _open_rows(self, thread: Thread) -> list[Item]:
        return await self._table.get_sure([run_key(digest) for digest in thread.open])

    async def _runs(self, rows: Iterable[Item]) -> list[Run]:
        """Runs as these items say, and as their owners said of themselves."""
        rows = list(rows)
        owners = {owner for row in rows if (owner := untext(row["owner"]["S"]))}
        found = await self._table.get_each([key_of("owner", owner) for owner in owners])
        alive = {untext(row["owner"]["S"]): plain(row)["until"] for row in found}
        now = self._table.now() - self._table.skew_s
        return [run_of(row, alive, now) for row in rows]

    # --- owners --------------------------------------------------------------------

    async def alive(self, owner: str, for_s: float) -> None:
        """A process says that it lives; believed for so long. 0 says that it leaves."""
        key, now = key_of("owner", owner), self._table.now()
        values = {
            **in_list("owners", now, key),
            "owner": text(owner),
            "until": number(now + for_s if for_s > 0 else 0.0),
        }
        await self._table.update(
            key,
            values,
            "SET #owner = :owner, #until = :until, #list = if_not_exists(#list, :list), "
            "#at = if_not_exists(#at, :at)",
        )


def _is_before(run: Run, new: NewRun) -> bool:
    return run.thread_id == new.thread_id and run.run_id != new.run_id and run.state != "settled"


def _by_thread(rows: Sequence[Item]) -> Iterator[tuple[str, list[Item]]]:
    """Items of runs, by their threads."""
    found: dict[str, list[Item]] = {}
    for row in rows:
        found.setdefault(untext(row["thread_id"]["S"]), []).append(row)
    yield from found.items()


def _chunks(rows: Sequence[Item]) -> Iterator[list[Item]]:
    """Runs that one transaction can settle: an action a run, and one a thread."""
    chunk: list[Item] = []
    threads = set[str]()
    for row in sorted(rows, key=lambda row: str(row["thread_id"]["S"])):
        thread = row["thread_id"]["S"]
        if len(chunk) + len(threads | {thread}) + 1 > ACTIONS_MOST:
            yield chunk
            chunk, threads = [], set()
        chunk.append(row)
        threads.add(thread)
    if chunk:
        yield chunk
