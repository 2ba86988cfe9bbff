"""Stored bytes: what is opened takes no more memory than a value may."""

from __future__ import annotations

import pytest
import zstandard
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_valkey import limits
from langgraph_valkey.stored.codec import Codec, Damaged, is_plain

CODEC = Codec(JsonPlusSerializer())


def test_what_is_sealed_can_be_opened() -> None:
    for size in (0, 1, limits.COMPRESS_BYTES, 100_000):
        assert CODEC.open(CODEC.seal(b"x" * size)) == b"x" * size
    assert not is_plain(CODEC.seal(b"x" * limits.COMPRESS_BYTES))


def test_a_few_bytes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 10_000
    monkeypatch.setattr(limits, "PLAIN_BYTES_MAX", most)
    assert CODEC.open(CODEC.seal(b"x" * most)) == b"x" * most
    assert is_plain(CODEC.seal(b"x" * (most + 1)))
    assert CODEC.open(CODEC.seal(b"x" * (most + 1))) == b"x" * (most + 1)
    bomb = b"\2" + zstandard.compress(b"x" * (most + 1))
    with pytest.raises(Damaged, match="too large"):
        CODEC.open(bomb)


def test_what_does_not_tell_its_size_is_refused() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 5_000)
    with pytest.raises(Damaged, match="does not tell its size"):
        CODEC.open(b"\2" + silent)
    for rubbish in (b"", b"\2", b"\2no zstd", b"\2" + zstandard.compress(b"x" * 5_000)[:-3]):
        with pytest.raises(Damaged):
            CODEC.open(rubbish)
