"""What DynamoDB takes at most, counted before anything is sent.

It would refuse what is larger, too, but by words that don't say which part of a commit
is to blame. Sizes are counted as DynamoDB documents it: names and values in UTF-8, a
few bytes for each level; numbers rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph_valkey.primary.memories import MEMORIES_MOST
from langgraph_valkey.primary.records import Room

ACTIONS_MOST = 100
"""Actions of one transaction."""

TRANSACTION_BYTES_MAX = 4 * 1024 * 1024
"""Its items in all."""

ITEM_BYTES_MAX = 400 * 1024
"""One item, with the names of its attributes."""

ROOM = Room(
    result_bytes_max=300 * 1024,
    input_bytes_max=300 * 1024,
    outbox_most=40,
    message_bytes_max=300 * 1024,
    memory_bytes_max=ITEM_BYTES_MAX - 1024,
    memories_bytes_max=TRANSACTION_BYTES_MAX - MEMORIES_MOST * 2 * 1024,
)
"""A quarter of an item is left for what stands beside: names, keys, a run's context. Of
the 100 actions three are our own, and half are left to the caller. Beside a memory stands
what is always of some 400 bytes, and half as much in the item that numbers its bucket."""

_KINDS = ("Put", "Update", "Delete", "ConditionCheck")


def checked(writes: Any, op: str) -> list[dict[str, Any]]:
    """What a commit's function wants to be written, in the form of TransactWriteItems.

    Raises:
        TypeError, ValueError: It is not of that form.
    """
    if not isinstance(writes, Sequence) or isinstance(writes, str | bytes):
        raise TypeError(f"the writes of commit {op!r} must be a list")
    for place, write in enumerate(writes):
        if not isinstance(write, dict) or len(write) != 1 or next(iter(write)) not in _KINDS:
            raise ValueError(
                f"write {place} of commit {op!r} must be a dict with one key, one of "
                f"{', '.join(_KINDS)}, as in TransactWriteItems"
            )
    return list(writes)


def check_transaction(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], op: str
) -> None:
    """Raise if a commit is larger than a transaction may be.

    Args:
        ours: Our own actions.
        theirs: Those of the commit's function.
        op: What is committed.

    Raises:
        ValueError: It is.
    """
    if len(ours) + len(theirs) > ACTIONS_MOST:
        raise ValueError(
            f"commit {op!r} takes {len(theirs)} writes and {len(ours)} for its record, turn, "
            f"run and outbox, and DynamoDB takes {ACTIONS_MOST} in one transaction: write less at "
            "once"
        )
    total = 0
    named = [(f"write {place} of", each) for place, each in enumerate(theirs)]
    for what, action in [*[("the record or a message of", each) for each in ours], *named]:
        size = action_bytes(action)
        if size > ITEM_BYTES_MAX:
            raise ValueError(
                f"{what} commit {op!r} takes {size} bytes, and an item of DynamoDB at most "
                f"{ITEM_BYTES_MAX}: store it elsewhere, and commit its name"
            )
        total += size
    if total > TRANSACTION_BYTES_MAX:
        raise ValueError(
            f"commit {op!r} takes {total} bytes, and a transaction of DynamoDB at most "
            f"{TRANSACTION_BYTES_MAX}: write less at once"
        )


def check_item(item: dict[str, Any], what: str) -> None:
    """Raise if an item is too large.

    Raises:
        ValueError: It is.
    """
    size = item_bytes(item)
    if size > ITEM_BYTES_MAX:
        raise ValueError(
            f"{what} takes {size} bytes, and an item of DynamoDB at most {ITEM_BYTES_MAX}: "
            "store parts of it elsewhere"
        )


def action_bytes(action: dict[str, Any]) -> int:
    """About how many bytes an action writes: an item, or the values of an update."""
    [(kind, request)] = action.items()
    if kind == "Put":
        return item_bytes(request.get("Item"))
    size = item_bytes(request.get("Key"))
    if kind == "Update":
        size += item_bytes(request.get("ExpressionAttributeValues"))
    return size


def item_bytes(item: Any) -> int:
    """Size of an item, as DynamoDB counts it; 0 for what is none."""
    if not isinstance(item, dict):
        return 0
    return sum(len(str(name).encode(errors="replace")) + _bytes(v) for name, v in item.items())


def _bytes(value: Any) -> int:
    """Size of a typed value; what is not of that form is left for boto3 to refuse."""
    if not isinstance(value, dict) or len(value) != 1:
        return 0
    [(kind, held)] = value.items()
    if kind == "S":
        return len(str(held).encode(errors="replace"))
    if kind == "B":
        return len(held) if isinstance(held, bytes | bytearray) else 0
    if kind == "N":
        return len(str(held)) // 2 + 2
    if kind == "L" and isinstance(held, list):
        return 3 + sum(1 + _bytes(each) for each in held)
    if kind == "M" and isinstance(held, dict):
        return 3 + sum(
            1 + len(str(name).encode(errors="replace")) + _bytes(v) for name, v in held.items()
        )
    if kind in ("SS", "NS", "BS") and isinstance(held, list | tuple | set):
        return sum(_bytes({kind[0]: each}) for each in held)
    return 1
