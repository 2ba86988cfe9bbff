"""How records stand in the table: keys, lists, and values in DynamoDB's typed form.

One table holds everything. An item is found by its key: what it is, and a digest of
what it is about, so that ids may be of any length and hold any characters::

    pk                    sk           what
    store                 version      which form the table has
    commit#<commit id>    commit       a commit
    commit#<commit id>    message#000  a message of its outbox, until it was sent
    turn#<digest>         turn         ids of the commits of a turn, in their order
    run#<digest>          run          a run
    thread#<digest>       thread       a thread's number of runs, and those unsettled
    owner#<digest>        owner        until when a process is believed to live
    lease#<digest>        lease        who holds it until when, and its last token
    tombstone#<digest>    tombstone    that a thread was deleted
    corpus#<digest>       corpus       the number of the corpus' last change
    corpus#<digest>       version#...  a mark's version (a digest of the mark)
    corpus#<digest>       partition#.. the primary whose copy of the versions counts
    corpus#<digest>       change#00..  a change that is pending
    corpus#<digest>       memory#...   a memory (a digest of its name)

What has to be found by its age stands in one *list* besides, by the attributes
`list` and `at`: they are the key of the index ``by_time``, which holds only the keys
of items. An item is in one list at most, so changing the two moves it (a run from
those unsettled to those settled). The index follows the table, usually within a
second: what it names is read again from the table before it is believed.

Texts of users are kept as JSON: DynamoDB takes UTF-8 only, and no lone surrogates.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from langgraph_valkey.primary.records import digest_of

Item: TypeAlias = dict[str, dict[str, Any]]
"""An item, or its key, as DynamoDB's low-level client takes and gives it."""

INDEX = "by_time"

SPREAD = {"commits": 4, "turns": 4, "unsettled": 4, "settled": 4, "memories": 4}
"""Over how many partitions of the index a list is spread, where each turn of an agent
adds to it: a partition takes 1,000 writes of 1 KB a second."""

_AFTER_ALL = "~"
"""Comes after whatever may follow the time in `at`."""


def key_of(kind: str, *ids: str) -> Item:
    """The key of what these ids name."""
    return _key(f"{kind}#{digest_of(*ids)}", kind)


def commit_key(commit_id: str) -> Item:
    """The key of a commit."""
    return _key(f"commit#{commit_id}", "commit")


def message_id(commit_id: str, number: int) -> str:
    """The id of one of a commit's messages."""
    return f"{commit_id}-{number:03}"


def message_key(message: str) -> Item | None:
    """The key of a message; None if this can't be a message's id."""
    parts = re.fullmatch(r"([0-9a-f]{64})-(\d{3})", message, re.ASCII)
    return _key(f"commit#{parts[1]}", f"message#{parts[2]}") if parts else None


def corpus_key(corpus: str, sk: str) -> Item:
    """The key of something of a corpus."""
    return _key(f"corpus#{digest_of(corpus)}", sk)


VERSION_KEY: Item = {"pk": {"S": "store"}, "sk": {"S": "version"}}


def _key(pk: str, sk: str) -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def key_in(item: Item) -> Item:
    """The key of an item."""
    return {"pk": item["pk"], "sk": item["sk"]}


def digest_in(key: Item) -> str:
    """The digest of which a key is made."""
    _, _, digest = key["pk"]["S"].partition("#")
    return str(digest)


# --- lists -----------------------------------------------------------------------


def in_list(name: str, at_s: float, key: Item) -> Item:
    """The attributes by which an item stands in a list.

    Args:
        name: Of the list.
        at_s: Its place there, in seconds since 1970.
        key: The item's key.
    """
    partition = int(digest_in(key)[0], 16) % SPREAD.get(name, 1)
    return {"list": {"S": f"{name}#{partition}"}, "at": {"S": place_of(at_s, key)}}


def place_of(at_s: float, key: Item) -> str:
    """An item's place in a list: its time, and what tells equal times apart."""
    return f"{since(at_s)}#{digest_in(key)}#{key['sk']['S']}"


def partitions(name: str) -> list[str]:
    """The partitions of a list."""
    return [f"{name}#{place}" for place in range(SPREAD.get(name, 1))]


def due(topic: str) -> str:
    """The list of a topic's messages, by the time from which on they may be taken."""
    return f"due#{digest_of(topic)}"


def since(at_s: float) -> str:
    """Comes before all that stands in a list at this time or later."""
    return f"{max(at_s, 0):017.6f}"


def until(at_s: float) -> str:
    """Comes after all that stands in a list at this time or earlier."""
    return since(at_s) + _AFTER_ALL


# --- values ----------------------------------------------------------------------


def text(value: str) -> dict[str, Any]:
    """A user's text; see `untext`."""
    return {"S": json.dumps(value)}


def untext(value: str) -> str:
    """The text that `text` made this of."""
    found: str = json.loads(value)
    return found


def word(value: str) -> dict[str, Any]:
    """One of our own words, or JSON: ASCII as it is."""
    return {"S": value}


def number(value: float) -> dict[str, Any]:
    """A whole number, or a time in seconds, to the microsecond."""
    return {"N": str(value) if isinstance(value, int) else f"{value:.6f}"}


def plain(item: Item) -> dict[str, Any]:
    """An item without its types: numbers as int, times as float, binary as bytes."""
    return {name: _plain(value) for name, value in item.items()}


def _plain(value: dict[str, Any]) -> Any:
    [(kind, held)] = value.items()
    if kind == "N":
        return float(held) if "." in held else int(held)
    if kind == "B":
        return bytes(held)
    if kind == "L":
        return [_plain(each) for each in held]
    if kind == "BS":
        return {bytes(each) for each in held}
    return held


def nonce() -> str:
    """A name for one call, drawn at random: 32 hex digits."""
    return os.urandom(16).hex()


# --- expressions -----------------------------------------------------------------


def expressed(values: Item, **expressions: str) -> dict[str, Any]:
    """Parameters for expressions whose names begin with ``#`` and values with ``:``.

    Names stand for themselves (``#list`` for the attribute ``list``): DynamoDB has some
    600 reserved words.

    Args:
        values: What the values are, by their names without the colon.
        **expressions: Such as ``ConditionExpression``; empty ones are left out.
    """
    given = {name: each for name, each in expressions.items() if each}
    whole = " ".join(given.values())
    named = {f"#{name}": name for name in re.findall(r"#(\w+)", whole)}
    valued = {f":{name}": values[name] for name in re.findall(r":(\w+)", whole)}
    parameters: dict[str, Any] = dict(given)
    if named:
        parameters["ExpressionAttributeNames"] = named
    if valued:
        parameters["ExpressionAttributeValues"] = valued
    return parameters


def setting(names: Iterable[str]) -> str:
    """An update that sets each attribute to the value of its own name."""
    return "SET " + ", ".join(f"#{name} = :{name}" for name in names)
