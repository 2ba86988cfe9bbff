"""The server's commands, as far as the scripts use them.

Each takes byte strings and gives what the server replies: bytes, an int, None,
a list of these, or a `StatusReply`. Errors are worded as the server words them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from langgraph_valkey.testing import sorted_sets
from langgraph_valkey.testing.keyspace import (
    NO_INTEGER,
    SYNTAX,
    Keyspace,
    Scores,
    ServerError,
    glob,
    integer,
    walk,
)

Args: TypeAlias = Sequence[bytes]


@dataclass(frozen=True)
class StatusReply:
    """A reply such as ``OK``, which scripts see as a table."""

    text: bytes


class Commands:
    """Runs commands on a keyspace.

    Attributes:
        keyspace: What they work on.
        now_us: The server's clock, in microseconds since 1970.
        identity: The primary's `master_replid`.
        page_most: The most that a page of a walk holds, whatever COUNT says.
    """

    def __init__(self, identity: str, page_most: int) -> None:
        self.keyspace = Keyspace()
        self.now_us = 0
        self.identity = identity
        self.page_most = page_most

    def run(self, args: Args) -> Any:
        """Run one command.

        Raises:
            ServerError: The server would answer with this error.
        """
        if not args:
            raise ServerError("ERR Please specify at least one argument for this call")
        name = args[0].upper().decode("latin-1")
        known = _TABLE.get(name)
        if known is None:
            raise ServerError("ERR Unknown command called from script")
        least, most, run = known
        if not least <= len(args) - 1 <= most:
            raise ServerError("ERR Wrong number of args calling command from script")
        return run(self, *args[1:])


# --- any key ------------------------------------------------------------------


def _exists(on: Commands, *keys: bytes) -> int:
    return sum(on.keyspace.value(key) is not None for key in keys)


def _del(on: Commands, *keys: bytes) -> int:
    return sum(on.keyspace.remove(key) for key in keys)


def _pexpire(on: Commands, key: bytes, ttl_ms: bytes, *options: bytes) -> int:
    return _expire_at(on, key, on.keyspace.now_ms + integer(ttl_ms), options)


def _pexpiretime(on: Commands, key: bytes) -> int:
    if on.keyspace.value(key) is None:
        return -2
    deadline_ms = on.keyspace.deadline_ms(key)
    return -1 if deadline_ms is None else deadline_ms


def _pexpireat(on: Commands, key: bytes, deadline_ms: bytes, *options: bytes) -> int:
    return _expire_at(on, key, integer(deadline_ms), options)


def _expire_at(on: Commands, key: bytes, deadline_ms: int, options: Args) -> int:
    here = on.keyspace.deadline_ms(key)
    for option in options:
        if option.upper() not in {b"NX", b"XX", b"GT", b"LT"}:
            raise ServerError(f"ERR Unsupported option {option.decode('latin-1')}")
        wanted = {
            b"NX": here is None,
            b"XX": here is not None,
            b"GT": here is not None and deadline_ms > here,
            b"LT": here is None or deadline_ms < here,
        }[option.upper()]
        if not wanted:
            return 0
    return int(on.keyspace.expire_at(key, deadline_ms))


def _pttl(on: Commands, key: bytes) -> int:
    if on.keyspace.value(key) is None:
        return -2
    deadline_ms = on.keyspace.deadline_ms(key)
    return -1 if deadline_ms is None else deadline_ms - on.keyspace.now_ms


def _type(on: Commands, key: bytes) -> StatusReply:
    found = on.keyspace.value(key)
    if found is None:
        return StatusReply(b"none")
    if isinstance(found, bytes):
        return StatusReply(b"string")
    return StatusReply(b"zset" if isinstance(found, Scores) else b"hash")


def _time(on: Commands) -> list[bytes]:
    return [b"%d" % part for part in divmod(on.now_us, 1_000_000)]


def _info(on: Commands, section: bytes) -> bytes:
    if section.lower() != b"replication":
        raise ServerError("ERR only INFO replication is emulated")
    return f"# Replication\r\nrole:master\r\nmaster_replid:{on.identity}\r\n".encode()


# --- strings ------------------------------------------------------------------


def _get(on: Commands, key: bytes) -> bytes | None:
    return on.keyspace.text(key)


def _mget(on: Commands, *keys: bytes) -> list[bytes | None]:
    found = [on.keyspace.value(key) for key in keys]
    return [each if isinstance(each, bytes) else None for each in found]


def _mset(on: Commands, *pairs: bytes) -> StatusReply:
    if len(pairs) % 2:
        raise ServerError("ERR wrong number of arguments for 'mset' command")
    for at in range(0, len(pairs), 2):
        on.keyspace.write(pairs[at], pairs[at + 1])
    return StatusReply(b"OK")


def _set(on: Commands, key: bytes, text: bytes, *options: bytes) -> StatusReply:
    deadline_ms = None
    if options:
        if len(options) != 2 or options[0].upper() != b"PXAT":
            raise ServerError(SYNTAX)
        deadline_ms = integer(options[1])
        if deadline_ms <= 0:
            raise ServerError("ERR invalid expire time in 'set' command")
    on.keyspace.write(key, text)
    if deadline_ms is not None:
        on.keyspace.expire_at(key, deadline_ms)
    return StatusReply(b"OK")


# --- hashes -------------------------------------------------------------------


def _hget(on: Commands, key: bytes, field: bytes) -> bytes | None:
    return on.keyspace.hash(key).get(field)


def _hmget(on: Commands, key: bytes, *fields: bytes) -> list[bytes | None]:
    found = on.keyspace.hash(key)
    return [found.get(field) for field in fields]


def _hgetall(on: Commands, key: bytes) -> list[bytes]:
    return [part for pair in on.keyspace.hash(key).items() for part in pair]


def _hlen(on: Commands, key: bytes) -> int:
    return len(on.keyspace.hash(key))


def _hexists(on: Commands, key: bytes, field: bytes) -> int:
    return int(field in on.keyspace.hash(key))


def _hset(on: Commands, key: bytes, *pairs: bytes) -> int:
    if len(pairs) % 2:
        raise ServerError("ERR wrong number of arguments for 'hset' command")
    on.keyspace.hash(key)
    fresh = 0
    for at in range(0, len(pairs), 2):
        fresh += on.keyspace.set(key, pairs[at], pairs[at + 1], dict)
    return fresh


def _hsetnx(on: Commands, key: bytes, field: bytes, value: bytes) -> int:
    return 0 if _hexists(on, key, field) else _hset(on, key, field, value)


def _hdel(on: Commands, key: bytes, *fields: bytes) -> int:
    on.keyspace.hash(key)
    return sum(on.keyspace.drop(key, field) for field in fields)


def _hincrby(on: Commands, key: bytes, field: bytes, step: bytes) -> int:
    by = integer(step)
    try:
        value = integer(on.keyspace.hash(key).get(field, b"0")) + by
    except ServerError as error:
        if str(error) != NO_INTEGER:
            raise
        raise ServerError("ERR hash value is not an integer") from None
    on.keyspace.set(key, field, b"%d" % value, dict)
    return value


def _hscan(on: Commands, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:
    found = on.keyspace.hash(key)
    match, count, values, at = b"*", 10, True, 0
    while at < len(options):
        option = options[at].upper()
        if option == b"NOVALUES":
            values, at = False, at + 1
            continue
        if at + 1 == len(options) or option not in {b"MATCH", b"COUNT"}:
            raise ServerError(SYNTAX)
        if option == b"MATCH":
            match = options[at + 1]
        else:
            count = integer(options[at + 1])
            if count < 1:
                raise ServerError(SYNTAX)
        at += 2
    following, page = walk(found, cursor, min(count, on.page_most))
    fields = [field for field in page if glob(match).fullmatch(field)]
    if values:
        fields = [part for field in fields for part in (field, found[field])]
    return [following, fields]


def _of_set(run: Callable[..., Any]) -> Callable[..., Any]:
    """A command on sorted sets as one of these."""
    return lambda on, *args: run(on.keyspace, *args)


_MANY = sorted_sets.MANY

_TABLE: dict[str, tuple[int, int, Callable[..., Any]]] = {
    # Name: fewest arguments, most arguments, what runs it.
    "EXISTS": (1, _MANY, _exists),
    "DEL": (1, _MANY, _del),
    "UNLINK": (1, _MANY, _del),
    "PEXPIRE": (2, 3, _pexpire),
    "PEXPIREAT": (2, 3, _pexpireat),
    "PEXPIRETIME": (1, 1, _pexpiretime),
    "PTTL": (1, 1, _pttl),
    "TYPE": (1, 1, _type),
    "TIME": (0, 0, _time),
    "INFO": (1, 1, _info),
    "GET": (1, 1, _get),
    "MGET": (1, _MANY, _mget),
    "MSET": (2, _MANY, _mset),
    "SET": (2, _MANY, _set),
    "HGET": (2, 2, _hget),
    "HMGET": (2, _MANY, _hmget),
    "HGETALL": (1, 1, _hgetall),
    "HLEN": (1, 1, _hlen),
    "HEXISTS": (2, 2, _hexists),
    "HSET": (3, _MANY, _hset),
    "HSETNX": (3, 3, _hsetnx),
    "HDEL": (2, _MANY, _hdel),
    "HINCRBY": (3, 3, _hincrby),
    "HSCAN": (2, _MANY, _hscan),
    **{name: (least, most, _of_set(run)) for name, (least, most, run) in sorted_sets.TABLE.items()},
}
