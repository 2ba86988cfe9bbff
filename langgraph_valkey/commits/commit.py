"""Commits: doing something exactly once, although a graph's steps may run again.

An agent's step is run again after a crash, a failover, or an interrupt. What it did in
the meantime to a database stays done. So each commit has a key, and the row of that
key is written in the same transaction as the caller's own changes: a second execution
finds the row and gets the first one's receipt instead of doing it again.

The promise is once per *key*. Two things make keys of two executions equal: that the
turn's id comes from outside the graph (see `turns`), and that the caller's key names
the business matter (an order's number, say), not something made up on the way: task
ids, steps and tool call ids differ from one execution to the next.

What happens outside the database can't be part of its transaction. It goes to the
outbox: messages that are stored with the commit and sent afterwards, at least once,
each with an idempotency key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

from langgraph_valkey import limits
from langgraph_valkey.commits.turns import Turn
from langgraph_valkey.errors import CommitConflict
from langgraph_valkey.primary import json_text
from langgraph_valkey.primary.contract import Primary
from langgraph_valkey.primary.records import (
    CommitKey,
    CommitRequest,
    Outgoing,
    Receipt,
    Scope,
)

OnMismatch: TypeAlias = Literal["raise", "return_first"]
"""What to do if the key was committed with another payload."""


async def commit(
    primary: Primary,
    turn: Turn,
    op: str,
    key: str,
    payload: Any,
    fn: Callable[..., Any],
    scope: Scope,
    on_mismatch: OnMismatch,
    outbox: Sequence[Outgoing],
) -> Receipt:
    """Do something exactly once.

    Args:
        primary: Where.
        turn: In which thread and turn it is asked for.
        op: What is done.
        key: To what.
        payload: What it is about: equal for equal commits; anything that JSON can hold.
        fn: What to do; see `Primary.commit`.
        scope: Within what the two are unique.
        on_mismatch: What to do if that was committed with another payload.
        outbox: What is to be sent once it is committed.

    Raises:
        ValueError, TypeError: An argument can't be used; nothing was done.
        CommitConflict: It was committed with another payload.
        RunTakenOver: Another process has taken the run over; nothing was done.
        Unreachable: The primary store can't be reached; nothing was done.
        OutcomeUnknown: It may have been done: call again with the same key.
    """
    if on_mismatch not in get_args(OnMismatch):
        raise ValueError(f"on_mismatch must be 'raise' or 'return_first', not {on_mismatch!r}")
    if not callable(fn):
        raise TypeError(f"fn of commit {op!r} must be a function that gets the transaction")
    request = request_of(turn, op, key, payload, scope, outbox, primary)
    receipt = await primary.commit(request, fn)
    if receipt.payload_sha256 != request.payload_sha256 and on_mismatch == "raise":
        raise CommitConflict(
            f"commit {op!r} was made before under this key (scope {scope!r}), with another "
            "payload, and was not made again: use a key that tells the two apart, or "
            "on_mismatch='return_first' to take the first one's result",
            op=op,
            key=key,
        )
    return receipt


def request_of(
    turn: Turn,
    op: str,
    key: str,
    payload: Any,
    scope: Scope,
    outbox: Sequence[Outgoing],
    primary: Primary,
) -> CommitRequest:
    """The request for a commit; see `commit`.

    Raises:
        ValueError, TypeError: An argument can't be used.
    """
    named = _key_of(turn, op, key, scope)
    what = f"of commit {op!r}"
    text = json_text.encode(payload, f"the payload {what}", limits.PAYLOAD_BYTES_MAX)
    room = primary.room
    if len(outbox) > room.outbox_most:
        raise ValueError(
            f"the outbox {what} has {len(outbox)} messages, and at most {room.outbox_most} can "
            "be stored in one transaction: put them together"
        )
    messages = [
        (
            _checked(each.topic, f"the topic of a message {what}", limits.OP_LENGTH_MAX),
            json_text.encode(each.body, f"a message {what}", room.message_bytes_max),
        )
        for each in outbox
    ]
    return CommitRequest(
        key=named,
        payload_sha256=json_text.sha256_of(text),
        thread_id=turn.thread_id,
        turn_id=turn.turn_id,
        fence=turn.fence,
        outbox=tuple(messages),
    )


def _key_of(turn: Turn, op: str, key: str, scope: Scope) -> CommitKey:
    _checked(op, "op of a commit", limits.OP_LENGTH_MAX)
    if key is None:
        raise TypeError(
            f"commit {op!r} has no key: give one that names the business matter and is the same "
            "when the step runs again, such as an order's number; not a task id, a tool call id "
            "or anything drawn at random"
        )
    _checked(key, f"the key of commit {op!r}", limits.KEY_LENGTH_MAX)
    if scope == "global":
        return CommitKey(op, key, scope)
    if not turn.thread_id:
        raise ValueError(
            f"commit {op!r} has scope {scope!r}, and the config names no thread: call it within a "
            "node or tool, pass config=..., or use scope='global'"
        )
    if scope == "thread":
        return CommitKey(op, key, scope, turn.thread_id)
    if scope != "turn":
        raise ValueError(f"scope must be 'turn', 'thread' or 'global', not {scope!r}")
    if not turn.turn_id:
        raise ValueError(
            f"commit {op!r} has scope 'turn', and the config names no turn: start the graph by "
            "run() of this package, or put an id into the config that stays the same when the "
            "turn is run again or resumed, as in config={'configurable': {'thread_id': ..., "
            "'turn_id': request_id}}"
        )
    return CommitKey(op, key, scope, turn.thread_id, turn.turn_id)


def _checked(text: str, what: str, length_max: int) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a text, not a {type(text).__name__}")
    if not text:
        raise ValueError(f"{what} is empty")
    if len(text) > length_max:
        raise ValueError(f"{what} has {len(text)} characters, and at most {length_max} are kept")
    return text
