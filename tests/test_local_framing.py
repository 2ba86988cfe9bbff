"""Requests and replies are cut where they end, however the network cuts them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_valkey.local.framing import Replies, Requests
from langgraph_valkey.local.resp import encode

words = st.lists(st.binary(max_size=12), min_size=1, max_size=5)


def line(kind: bytes, value: object) -> bytes:
    return kind + str(value).encode() + b"\r\n"


def sized(kind: bytes, data: bytes) -> bytes:
    return line(kind, len(data)) + data + b"\r\n"


flat = st.one_of(
    st.integers().map(lambda n: line(b":", n)),
    st.sampled_from([b"+OK\r\n", b"-ERR no\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"(99\r\n"]),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"%0\r\n"]),
    st.binary(max_size=12).map(lambda data: sized(b"$", data)),
    st.binary(max_size=12).map(lambda data: sized(b"=", b"txt:" + data)),
)


def listed(kind: bytes) -> Callable[[list[bytes]], bytes]:
    return lambda values: line(kind, len(values)) + b"".join(values)


def holding(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    values = st.lists(inner, max_size=4)
    pairs = st.lists(st.tuples(inner, inner).map(b"".join), max_size=3)
    return st.one_of(
        values.map(listed(b"*")),
        values.map(listed(b"~")),
        pairs.map(listed(b"%")),
        st.tuples(pairs.map(listed(b"|")), inner).map(b"".join),
    )


replies = st.recursive(flat, holding, max_leaves=10)
pushes = st.lists(flat, min_size=1, max_size=3).map(listed(b">"))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


places = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.lists(words, min_size=1, max_size=6), places)
def test_requests_come_out_as_they_went_in(requests: list[list[bytes]], at: list[int]) -> None:
    raw = [encode(tuple(request)) for request in requests]
    framing = Requests()
    found = [each for piece in cut(b"".join(raw), at) for each in framing.feed(piece)]
    named = [(words[0].upper(), each) for words, each in zip(requests, raw, strict=True)]
    # A command without a name is none; the server would refuse it.
    assert [(each.name, each.raw) for each in found] == [pair for pair in named if pair[0]]


@given(st.lists(st.one_of(replies, pushes), min_size=1, max_size=6), places)
def test_replies_come_out_as_they_went_in(sent: list[bytes], at: list[int]) -> None:
    framing = Replies()
    found = [each for piece in cut(b"".join(sent), at) for each in framing.feed(piece)]
    assert found == sent


def test_a_request_typed_by_hand() -> None:
    framing = Requests()
    assert framing.feed(b"ping\r\n\r\nset a") == [(b"PING", b"ping\r\n")]
    assert framing.feed(b" 1\r\n") == [(b"SET", b"set a 1\r\n")]


def test_what_is_no_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Requests().feed(b"*x\r\n$1\r\na\r\n")
    with pytest.raises(ValueError, match="invalid literal"):
        Replies().feed(b"$x\r\n")
