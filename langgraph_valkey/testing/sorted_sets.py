"""The server's commands on sorted sets, as far as the scripts use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langgraph_valkey.testing.keyspace import SYNTAX, Keyspace, Scores, ServerError, integer

MANY = 1_000_000
"""In place of a bound on how many arguments a command takes."""


def _score(raw: bytes) -> float:
    try:
        value = float(raw)
    except ValueError:
        value = float("nan")
    if value != value or b"_" in raw or raw != raw.strip():
        raise ServerError("ERR value is not a valid float")
    return value


def _double(value: float) -> bytes:
    """A score as the server spells it in RESP2."""
    return b"%d" % int(value) if value == int(value) else repr(value).encode()


def _zadd(on: Keyspace, key: bytes, *pairs: bytes) -> int:
    if len(pairs) % 2:
        raise ServerError(SYNTAX)
    scores = [_score(raw) for raw in pairs[::2]]
    on.scores(key)
    return sum(
        on.set(key, member, score, Scores)
        for score, member in zip(scores, pairs[1::2], strict=True)
    )


def _zincrby(on: Keyspace, key: bytes, step: bytes, member: bytes) -> bytes:
    score = on.scores(key).get(member, 0.0) + _score(step)
    on.set(key, member, score, Scores)
    return _double(score)


def _zrem(on: Keyspace, key: bytes, *members: bytes) -> int:
    on.scores(key)
    return sum(on.drop(key, member) for member in members)


def _zcard(on: Keyspace, key: bytes) -> int:
    return len(on.scores(key))


def _zscore(on: Keyspace, key: bytes, member: bytes) -> bytes | None:
    score = on.scores(key).get(member)
    return None if score is None else _double(score)


def _zmscore(on: Keyspace, key: bytes, *members: bytes) -> list[bytes | None]:
    return [_zscore(on, key, member) for member in members]


def _above_lex(bound: bytes) -> Callable[[bytes], bool]:
    if bound in {b"-", b"+"}:
        return lambda _: bound == b"-"
    if bound[:1] not in {b"[", b"("}:
        raise ServerError("ERR min or max not valid string range item")
    edge = bound[1:]
    return (lambda m: m > edge) if bound[:1] == b"(" else (lambda m: m >= edge)


def _below_lex(bound: bytes) -> Callable[[bytes], bool]:
    if bound in {b"-", b"+"}:
        return lambda _: bound == b"+"
    if bound[:1] not in {b"[", b"("}:
        raise ServerError("ERR min or max not valid string range item")
    edge = bound[1:]
    return (lambda m: m < edge) if bound[:1] == b"(" else (lambda m: m <= edge)


def _lex(
    on: Keyspace, key: bytes, low: bytes, high: bytes, rest: Sequence[bytes], down: bool
) -> list[bytes]:
    """Members between two bounds; all scores are equal, as in our index."""
    above, below = _above_lex(low), _below_lex(high)
    found = sorted(m for m in on.scores(key) if above(m) and below(m))
    if down:
        found.reverse()
    if not rest:
        return found
    if len(rest) != 3 or rest[0].upper() != b"LIMIT":
        raise ServerError(SYNTAX)
    offset, count = integer(rest[1]), integer(rest[2])
    if offset < 0:
        return []
    return found[offset:] if count < 0 else found[offset : offset + count]


def _zrangebylex(on: Keyspace, key: bytes, low: bytes, high: bytes, *rest: bytes) -> list[bytes]:
    return _lex(on, key, low, high, rest, False)


def _zrevrangebylex(on: Keyspace, key: bytes, high: bytes, low: bytes, *rest: bytes) -> list[bytes]:
    return _lex(on, key, low, high, rest, True)


def _bound(raw: bytes) -> tuple[float, bool]:
    try:
        return _score(raw.removeprefix(b"(")), raw.startswith(b"(")
    except ServerError:
        raise ServerError("ERR min or max is not a float") from None


def _between(on: Keyspace, key: bytes, low: bytes, high: bytes) -> list[tuple[float, bytes]]:
    """Scores and members between two bounds, in order."""
    least, above = _bound(low)
    most, below = _bound(high)
    return sorted(
        (score, member)
        for member, score in on.scores(key).items()
        if (score > least if above else score >= least)
        and (score < most if below else score <= most)
    )


def _zrangebyscore(
    on: Keyspace, key: bytes, low: bytes, high: bytes, *options: bytes
) -> list[bytes]:
    rest = [option.upper() for option in options]
    with_scores = rest[:1] == [b"WITHSCORES"]
    rest = rest[with_scores:]
    found = _between(on, key, low, high)
    if rest:
        if len(rest) != 3 or rest[0] != b"LIMIT":
            raise ServerError(SYNTAX)
        offset, count = integer(rest[1]), integer(rest[2])
        found = found[max(0, offset) :] if offset >= 0 else []
        found = found if count < 0 else found[:count]
    if not with_scores:
        return [member for _, member in found]
    return [part for score, member in found for part in (member, _double(score))]


def _zcount(on: Keyspace, key: bytes, low: bytes, high: bytes) -> int:
    return len(_between(on, key, low, high))


def _zlexcount(on: Keyspace, key: bytes, low: bytes, high: bytes) -> int:
    return len(_lex(on, key, low, high, (), False))


def _zremrangebyscore(on: Keyspace, key: bytes, low: bytes, high: bytes) -> int:
    return sum(on.drop(key, member) for _, member in _between(on, key, low, high))


TABLE: dict[str, tuple[int, int, Callable[..., Any]]] = {
    # Name: fewest arguments, most arguments, what runs it on a keyspace.
    "ZADD": (3, MANY, _zadd),
    "ZINCRBY": (3, 3, _zincrby),
    "ZREM": (2, MANY, _zrem),
    "ZCARD": (1, 1, _zcard),
    "ZSCORE": (2, 2, _zscore),
    "ZMSCORE": (2, MANY, _zmscore),
    "ZRANGEBYLEX": (3, MANY, _zrangebylex),
    "ZREVRANGEBYLEX": (3, MANY, _zrevrangebylex),
    "ZLEXCOUNT": (3, 3, _zlexcount),
    "ZRANGEBYSCORE": (3, MANY, _zrangebyscore),
    "ZCOUNT": (3, 3, _zcount),
    "ZREMRANGEBYSCORE": (3, 3, _zremrangebyscore),
}
