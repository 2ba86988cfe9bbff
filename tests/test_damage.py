"""Damaged, foreign and half-lost threads: an error that names the place, never part of a state."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ormsgpack
import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from langgraph_valkey.errors import ConfigurationError, CorruptState
from langgraph_valkey.keys import namespace_field, thread_keys
from langgraph_valkey.stored import records
from langgraph_valkey.stored.codec import Codec, checksum
from tests.every_call import LAST, MARK, Calls, assert_silent, fill, outcomes, reads, told, writes
from tests.faces import FACES, Face, Twin, config, numbered_id, open_face
from tests.raw_server import RawServer, raw_server

HEADER = 27
"""Bytes of a record in front of its parent's id."""


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def raw(valkey: Any) -> Iterator[RawServer]:
    with raw_server(valkey.url) as server:
        yield server


class Thread:
    """Thread ``t`` of a saver, as the server keeps it."""

    def __init__(self, raw: RawServer, prefix: str) -> None:
        self.raw = raw
        self.keys = thread_keys(prefix, "t")

    def record_field(self, number: int = LAST) -> bytes:
        return b"r" + namespace_field("") + b"\0" + numbered_id(number).encode()

    def get(self, field: bytes) -> bytes:
        found: bytes = self.raw.do("HGET", self.keys.state, field)
        return found

    def set(self, field: bytes, value: bytes) -> None:
        self.raw.do("HSET", self.keys.state, field, value)

    def fields(self, kind: bytes) -> list[bytes]:
        every: list[bytes] = self.raw.do("HKEYS", self.keys.state)
        return sorted(field for field in every if field.startswith(kind))


@pytest.fixture
def prefix() -> str:
    return f"t{os.urandom(6).hex()}"


@pytest.fixture
def thread(raw: RawServer, prefix: str) -> Thread:
    return Thread(raw, prefix)


@pytest.fixture
async def twin(kind: str, valkey: Any, prefix: str) -> AsyncIterator[Twin]:
    """A saver that has filled the thread."""
    async with open_face(kind, valkey.url, key_prefix=prefix) as face:
        yield await fill(face)


@pytest.fixture
async def stranger(kind: str, valkey: Any, prefix: str) -> AsyncIterator[Face]:
    """A saver that knows nothing of it."""
    async with open_face(kind, valkey.url, key_prefix=prefix) as face:
        yield face


def corrupt(name: str, result: Any, key: bytes, checkpoint_id: str | None = None) -> CorruptState:
    assert type(result) is CorruptState, f"{name}: {result!r}"
    assert result.thread_id == "t"
    assert result.key == key.decode()
    assert repr("t") in str(result)
    assert result.key in str(result)
    if checkpoint_id is not None:
        assert result.checkpoint_id == checkpoint_id, name
        assert checkpoint_id in str(result)
    return result


async def all_corrupt(
    calls: Calls, key: bytes, checkpoint_id: str | None = None
) -> list[CorruptState]:
    found = await outcomes(calls)
    errors = [corrupt(name, result, key, checkpoint_id) for name, (result, _) in found.items()]
    assert errors
    assert_silent(errors)
    return errors


def without(calls: Calls, *names: str) -> Calls:
    return {name: call for name, call in calls.items() if name not in names}


# --- records ------------------------------------------------------------------


async def test_a_record_cut_short_anywhere(twin: Twin, stranger: Face, thread: Thread) -> None:
    """At each length, and under each read: damage is told, or what is asked for is whole."""
    field = thread.record_field()
    whole = thread.get(field)
    cuts = [*range(80), *range(80, len(whole), 37), len(whole) - 1]
    for length in cuts:
        thread.set(field, whole[:length])
        await all_corrupt(
            without(reads(stranger), "list some"), thread.keys.state, numbered_id(LAST)
        )
        try:
            found = await stranger.listed(config("t"), filter={"step": 2})
        except CorruptState as error:
            corrupt("list some", error, thread.keys.state, numbered_id(LAST))
            assert_silent([error])
        else:
            assert [one.metadata["step"] for one in found] == [2]


async def test_any_byte_of_a_record_changed(twin: Twin, stranger: Face, thread: Thread) -> None:
    field = thread.record_field()
    whole = thread.get(field)
    expected = await stranger.aget_tuple(config("t"))
    for at in [0, *range(17, len(whole), 7)]:
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        thread.set(field, bytes(damaged))
        with pytest.raises(CorruptState) as caught:
            await stranger.aget_tuple(config("t"))
        assert_silent([corrupt(f"byte {at}", caught.value, thread.keys.state, numbered_id(LAST))])
    for at in range(1, 17):  # The number of the call that put it may be another.
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        thread.set(field, bytes(damaged))
        assert await stranger.aget_tuple(config("t")) == expected


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x01", b"hello", os.urandom(400), b"\x01" * 400],
    ids=["empty", "short", "text", "noise", "ones"],
)
async def test_a_record_of_garbage(
    garbage: bytes, twin: Twin, stranger: Face, thread: Thread
) -> None:
    thread.set(thread.record_field(), garbage)
    for face in (twin.face, stranger):
        await all_corrupt(without(reads(face), "list some"), thread.keys.state, numbered_id(LAST))
    calls = {"copy": lambda: stranger.acopy_thread("t", "copy"),
             "prune": lambda: stranger.aprune(["t"])}  # fmt: skip
    await all_corrupt(calls, thread.keys.state, numbered_id(LAST))
    assert await stranger.aget_tuple(config("t", "", numbered_id(1))) is not None
    await stranger.adelete_thread("t")
    assert await stranger.aget_tuple(config("t")) is None


# --- formats ------------------------------------------------------------------


def of_next_format(raw: bytes, codec: Codec) -> bytes:
    """The record as the next release may write it: each manifest entry has one element more."""
    parent_size = int.from_bytes(raw[17:19], "big")
    digests = int.from_bytes(raw[19:23], "big")
    begin = HEADER + parent_size + 16 * digests + int.from_bytes(raw[23:27], "big")
    end = begin + 4 + int.from_bytes(raw[begin : begin + 4], "big")
    entries = ormsgpack.unpackb(codec.open(raw[begin + 4 : end]))
    manifest = codec.seal(ormsgpack.packb([[*entry, "more"] for entry in entries]))
    made = b"".join(
        (
            bytes([records.FORMAT + 1]),
            raw[1:begin],
            len(manifest).to_bytes(4, "big"),
            manifest,
            raw[end:-8],
        )
    )
    return made + checksum(memoryview(made)[17:])


async def test_records_of_the_next_format_are_read(
    twin: Twin, stranger: Face, thread: Thread
) -> None:
    for number in range(1, LAST + 1):
        field = thread.record_field(number)
        thread.set(field, of_next_format(thread.get(field), Codec(stranger.serde)))
    for field in thread.fields(b"w"):
        stored = thread.get(field)
        thread.set(field, stored[:16] + bytes([records.FORMAT + 1]) + stored[17:])
    await twin.check("t")
    await Twin.check(_as_seen_by(stranger, twin), "t")
    await twin.step("t", LAST + 1, short="this release goes on")
    await twin.copy("t", "copy")
    await twin.prune("t")
    await twin.check()


def _as_seen_by(face: Face, twin: Twin) -> Twin:
    other = Twin(face)
    other.oracle = twin.oracle
    return other


async def test_what_is_of_a_format_beyond_the_next_asks_for_an_upgrade(
    twin: Twin, stranger: Face, thread: Thread
) -> None:
    field = thread.record_field()
    whole = thread.get(field)
    thread.set(field, bytes([records.NEWEST_READ + 1]) + whole[1:])
    calls = without(reads(stranger), "list some")
    for error in await all_corrupt(calls, thread.keys.state, numbered_id(LAST)):
        assert "upgrade" in str(error)
    thread.set(field, whole)
    entry = thread.get(b"x" + field[1:])[:16]
    stored = thread.get(b"w" + entry)
    thread.set(b"w" + entry, stored[:16] + bytes([records.NEWEST_READ + 1]) + stored[17:])
    for error in await all_corrupt(without(calls, "history"), thread.keys.state, numbered_id(LAST)):
        assert "upgrade" in str(error)


# --- chunks and writes --------------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "empty", "another's"])
async def test_a_damaged_chunk(damage: str, twin: Twin, stranger: Face, thread: Thread) -> None:
    whole = thread.get(thread.record_field())
    parent_size = int.from_bytes(whole[17:19], "big")
    digest = whole[HEADER + parent_size :][:16]
    stored = thread.get(b"c" + digest)
    other = next(thread.get(f) for f in thread.fields(b"c") if f != b"c" + digest)
    if damage == "gone":
        thread.raw.do("HDEL", thread.keys.state, b"c" + digest)
    else:
        thread.set(b"c" + digest, {
            "cut": stored[:-1], "changed": stored[:-1] + bytes([stored[-1] ^ 1]),
            "empty": b"", "another's": other,
        }[damage])  # fmt: skip
    calls = {
        "get_tuple": lambda: stranger.aget_tuple(config("t")),
        "by the writer": lambda: twin.face.aget_tuple(config("t")),
        "list": lambda: stranger.listed(config("t")),
        "list some": lambda: stranger.listed(config("t"), filter={"step": LAST}),
    }
    for error in await all_corrupt(calls, thread.keys.state):
        assert error.checkpoint_id is not None
        named = digest.hex() in str(error)
        assert named if damage in ("gone", "empty") else named or "messages" in str(error)
    history = await stranger.aget_delta_channel_history(config=config("t"), channels=["short"])
    assert history["short"]["seed"] == f"{MARK} short {LAST - 1}"


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "empty"])
async def test_damaged_writes(damage: str, twin: Twin, stranger: Face, thread: Thread) -> None:
    """Of the last checkpoint, then of its parent, whose writes a history needs."""
    for number in (LAST, LAST - 1):
        entry = thread.get(b"x" + thread.record_field(number)[1:])[:16]
        stored = thread.get(b"w" + entry)
        if damage == "gone":
            thread.raw.do("HDEL", thread.keys.state, b"w" + entry)
        else:
            thread.set(b"w" + entry, {
                "cut": stored[:-1], "empty": b"", "changed": stored[:-1] + bytes([stored[-1] ^ 1]),
            }[damage])  # fmt: skip
        needing = ("history", "list") if number < LAST else tuple(reads(stranger))
        calls: Calls = {name: call for name, call in reads(stranger).items() if name in needing}
        if number == LAST:
            calls = without(calls, "history", "list some")
        errors = await all_corrupt(calls, thread.keys.state, numbered_id(number))
        assert all(entry.hex() in str(error) for error in errors)
        thread.set(b"w" + entry, stored)
    await twin.check("t")


# --- foreign keys and lost ones -----------------------------------------------


@pytest.mark.parametrize("type_", ["string", "list"])
async def test_a_foreign_key_in_place_of_the_state(
    type_: str, twin: Twin, stranger: Face, thread: Thread
) -> None:
    thread.raw.do("DEL", thread.keys.state)
    thread.raw.do("SET" if type_ == "string" else "RPUSH", thread.keys.state, f"{MARK} foreign")
    for face in (twin.face, stranger):
        calls = {**reads(face), **without(writes(face, twin), "delete_thread", "prune all")}
        await all_corrupt(calls, thread.keys.state)
    await stranger.adelete_thread("t")
    assert await stranger.aget_tuple(config("t")) is None


@pytest.mark.parametrize(
    "identity",
    [b"", b"x", b"?" * 54, b"?" * 56, b"?" * 55],
    ids=["empty", "short", "shorter", "longer", "garbled"],
)
async def test_a_thread_identity_of_garbage(
    identity: bytes, twin: Twin, stranger: Face, thread: Thread
) -> None:
    thread.set(b"m", identity)
    for face in (twin.face, stranger):
        calls = {**reads(face), **without(writes(face, twin), "delete_thread", "prune all")}
        await all_corrupt(calls, thread.keys.state)
    await stranger.adelete_thread("t")
    assert await stranger.aget_tuple(config("t")) is None


@pytest.mark.parametrize("head", [b"", b"?", b"?" * 40])
async def test_a_head_of_garbage(head: bytes, twin: Twin, stranger: Face, thread: Thread) -> None:
    thread.set(b"H", head)
    for face in (twin.face, stranger):
        calls: Calls = {name: reads(face)[name] for name in ("get_tuple", "history")}
        if len(head) > 6:  # An id that is not there has no history.
            calls = without(calls, "history")
        await all_corrupt(calls, thread.keys.state)


async def test_a_thread_that_lost_its_state_key_is_never_none(
    twin: Twin, stranger: Face, thread: Thread
) -> None:
    thread.raw.do("DEL", thread.keys.state)
    for face in (twin.face, stranger):
        # A walk over all threads looks for this very key.
        calls = without(reads(face), "list all threads")
        await all_corrupt({**calls, "copy": lambda: stranger.acopy_thread("t", "copy")},
                          thread.keys.state)  # fmt: skip
    # Whoever runs the thread still has all of its state, and makes it whole.
    await twin.step("t", LAST + 1, short="after")
    expected = twin.oracle.get_tuple(config("t"))
    for face in (twin.face, stranger):
        assert await face.aget_tuple(config("t")) == expected
        assert [found.checkpoint["id"] for found in await face.listed(config("t"))] == [
            numbered_id(LAST + 1)
        ]


async def test_a_lost_index_is_made_anew(twin: Twin, stranger: Face, thread: Thread) -> None:
    for face in (twin.face, stranger):
        thread.raw.do("DEL", thread.keys.index)
        assert len(await face.listed(config("t"))) == LAST
    thread.raw.do("DEL", thread.keys.index)
    await twin.step("t", LAST + 1, short="after")
    await twin.check("t")


async def test_a_foreign_key_in_place_of_the_index(
    twin: Twin, stranger: Face, thread: Thread
) -> None:
    thread.raw.do("DEL", thread.keys.index)
    thread.raw.do("SET", thread.keys.index, f"{MARK} foreign")
    walks = ("list", "list some", "list all threads")
    calls = {name: call for name, call in reads(stranger).items() if name in walks}
    found = await outcomes(calls)
    assert_silent([error for error, _ in found.values()])
    for name, (error, _) in found.items():
        assert type(error) is CorruptState, name
    await twin.get(config("t"))  # What can be read without it is.
    await stranger.adelete_thread("t")
    assert await stranger.aget_tuple(config("t")) is None


# --- encryption ---------------------------------------------------------------


async def test_a_wrong_or_missing_cipher(
    kind: str, valkey: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, other = b"0123456789abcdef", b"another key 1234"
    keyed: dict[str, Any] = {"key_prefix": prefix, "digest_key": b"k" * 32}
    right = EncryptedSerializer.from_pycryptodome_aes(key=key)
    wrong = EncryptedSerializer.from_pycryptodome_aes(key=other)
    async with open_face(kind, valkey.url, serde=right, **keyed) as face:
        await fill(face)
    async with open_face(kind, valkey.url, **keyed) as face:
        for name, (error, _) in (await outcomes(reads(face))).items():
            assert type(error) is ConfigurationError, name
            assert "serde" in str(error)
            assert_silent([error], caplog.text)
    async with open_face(kind, valkey.url, serde=wrong, **keyed) as face:
        for error in await all_corrupt(reads(face), thread_keys(prefix, "t").state):
            assert "another key" in str(error)
            for secret in (key, other, b"k" * 32):
                assert secret.decode() not in told(error) + caplog.text
