"""Runs, threads and owners as items of the table, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph_valkey.dynamodb.items import (
    Item,
    digest_in,
    in_list,
    key_of,
    number,
    plain,
    text,
    untext,
    word,
)
from langgraph_valkey.primary.records import NewRun, Run


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as the store knows it.

    Attributes:
        version: Changes whenever a run of it is begun or claimed; 0 if there is none.
        last: Number of its last run.
        open: Digests of the ids of its runs that are not settled.
    """

    version: int
    last: int
    open: frozenset[bytes]


def thread_of(item: Item | None) -> Thread:
    """A thread as its item says."""
    if item is None:
        return Thread(0, 0, frozenset())
    row = plain(item)
    return Thread(row["version"], row["last"], frozenset(row.get("open", ())))


def run_digest(key: Item) -> bytes:
    """By what a thread knows a run: the digest in the run's key."""
    return bytes.fromhex(digest_in(key))


def run_key(digest: bytes) -> Item:
    """The key of a run, by its digest."""
    return {"pk": {"S": f"run#{digest.hex()}"}, "sk": {"S": "run"}}


def run_item(new: NewRun, run_number: int, now: float, by: str) -> Item:
    """The item of a new run."""
    key = key_of("run", new.run_id)
    return {
        **key,
        **in_list("unsettled", now, key),
        "run_id": text(new.run_id),
        "thread_id": text(new.thread_id),
        "turn_id": text(new.turn_id),
        "graph": text(new.graph),
        "face": word(new.face),
        "input": {"B": new.input},
        "input_sha256": word(new.input_sha256),
        "context": text(new.context),
        "number": number(run_number),
        "attempt": number(1),
        "owner": text(new.owner),
        "state": word("running"),
        "outcome": word(""),
        "head": text(""),
        "writes": number(0),
        "started_s": number(now),
        "by": word(by),
    }


def run_of(item: Item, alive: Mapping[str, float], now: float) -> Run:
    """A run as its item says.

    Args:
        item: The item.
        alive: Until when owners are believed to live, by their names.
        now: The time, less what clocks may differ by.
    """
    row = plain(item)
    owner = untext(row["owner"])
    return Run(
        run_id=untext(row["run_id"]),
        thread_id=untext(row["thread_id"]),
        turn_id=untext(row["turn_id"]),
        graph=untext(row["graph"]),
        face=row["face"],
        input=row.get("input", b""),
        input_sha256=row["input_sha256"],
        context=untext(row["context"]),
        number=row["number"],
        attempt=row["attempt"],
        owner=owner,
        owner_alive=alive.get(owner, 0.0) > now,
        state=row["state"],
        outcome=row["outcome"],
        head=untext(row["head"]),
        writes=row["writes"],
        started_s=row["started_s"],
        ended_s=row.get("ended_s"),
    )


def end_values(outcome: str, head: str, writes: int, ended_s: float) -> dict[str, Any]:
    """What is set when an attempt ends."""
    return {
        "outcome": word(outcome),
        "head": text(head),
        "writes": number(writes),
        "ended_s": number(ended_s),
    }
