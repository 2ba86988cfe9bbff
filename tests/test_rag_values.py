"""Values as bytes: what comes back, what is refused, and what is corrupt."""

from __future__ import annotations

import datetime
import decimal
import enum
import pathlib
import pickle
import random
import uuid
from collections import OrderedDict, deque, namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import ormsgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    ToolMessage,
    UsageMetadata,
)
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
    LLMResult,
)
from langgraph.checkpoint.serde import jsonplus
from pydantic import BaseModel

from rag_cache import values
from rag_cache.entries import Corrupt
from rag_cache.values import (
    COMPRESS_BYTES,
    VALUE_BYTES_MAX,
    allow,
    decode,
    decode_whole,
    digest,
    encode,
)

# --- there and back ----------------------------------------------------------------

USAGE = UsageMetadata(input_tokens=7, output_tokens=3, total_tokens=10)
CALLING = AIMessage(
    [{"type": "text", "text": "let me see"}],
    tool_calls=[{"name": "search", "args": {"q": [1, None]}, "id": "call-1"}],
    usage_metadata=USAGE,
    response_metadata={"model": "m"},
    id="run-1",
)
PART = AIMessageChunk(
    content="he",
    tool_call_chunks=[{"name": "search", "args": '{"q"', "id": "call-1", "index": 0}],
    usage_metadata=USAGE,
)
VALUES: list[Any] = [
    *(
        "",
        "text",
        "\0",
        "日本",
        "x" * 100_000,
        b"",
        b"\0\xff",
        bytearray(b"a"),
        None,
        True,
        0,
        -1.5,
    ),
    *(2**63, float("inf"), [], {}, [[], {}], {"a": {"b": [1, 2.5, None, b"c"]}}, {1: "a", None: 2}),
    *({1, 2}, frozenset({"a"}), deque([1, [2]]), uuid.UUID(int=7), decimal.Decimal("1.50")),
    *(datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC), datetime.date(2024, 2, 29)),
    *(pathlib.Path("a/b"), datetime.timedelta(seconds=1)),
    *(CALLING, PART, HumanMessage("hi", name="anna"), ChatMessage(content="x", role="critic")),
    ToolMessage("found", tool_call_id="call-1", artifact={"rows": [1]}),
    Document("page", id="d1", metadata={"source": "a.md", "page": 3, "tags": ["x"]}),
    [Document("one"), Document("two", metadata={"seen": datetime.date(2024, 1, 1)})],
    Generation(text="x", generation_info={"finish_reason": "stop"}),
    GenerationChunk(text="x"),
    ChatGeneration(message=CALLING, generation_info={"logprobs": [0.5]}),
    ChatGenerationChunk(message=PART),
    {"generations": [[ChatGeneration(message=CALLING)], [Generation(text="x")]]},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_come_back_as_they_were(value: Any) -> None:
    encoded = encode(value)
    back = decode(encoded)
    assert back == value
    assert type(back) is type(value)
    assert encode(back) == encoded
    assert digest(encode(back)) == digest(encoded)
    assert len(digest(encoded)) == 32


def test_a_generation_keeps_its_message_whole() -> None:
    for value in (ChatGeneration(message=CALLING), [ChatGenerationChunk(message=PART)]):
        back = decode(encode(value))
        message = (back[0] if isinstance(back, list) else back).message
        assert type(message) in (AIMessage, AIMessageChunk)
        assert message.usage_metadata == USAGE
        assert message.tool_calls or message.tool_call_chunks


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(PLAIN)
def test_plain_data_comes_back(value: Any) -> None:
    assert decode(encode(value)) == value


def test_what_is_not_a_number_comes_back() -> None:
    [back] = decode(encode([float("nan")]))
    assert back != back


def test_arrays_come_back() -> None:
    for array in (np.arange(6, dtype="<f4").reshape(2, 3), np.eye(3).T, np.arange(9)[::2]):
        back = decode(encode({"vectors": [array]}))["vectors"][0]
        assert back.dtype == array.dtype
        assert np.array_equal(back, array)


class Text(str):
    """A text of a class of its own, as `AIMessage.text` is."""


class Level(enum.IntEnum):
    LOW = 1


def test_what_msgpack_levels_is_levelled() -> None:
    for value, expected in [
        ((1, (2,)), [1, [2]]),
        (Text("x"), "x"),
        (Level.LOW, 1),
        (OrderedDict(a=1), {"a": 1}),
        (AIMessage("x").text, "x"),
    ]:
        back = decode(encode(value))
        assert back == expected
        assert type(back) is type(expected)


@dataclass
class Point:
    x: int
    of: Any = None


class Model(BaseModel):
    x: int
    of: Any = None


class Colour(enum.Enum):
    RED = "red"


Named = namedtuple("Named", "x")
STRUCTURED = np.array([(1, 2)], dtype=[("a", "<i4"), ("b", "<i4")])
DEEP: Any = []
for _ in range(5_000):
    DEEP = [DEEP]
OWN: list[Any] = [Point(1), Model(x=1), Colour.RED, Named(1), ValueError("x")]
REFUSED: list[Any] = [
    *OWN,
    *(object(), len, Point, iter(()), range(3), 1j, 2**70, memoryview(b"a"), DEEP),
    *({Colour.RED: 1}, {Colour.RED}, deque([[Point(1)]]), {(1, 2)}, "\ud800", {"\ud800": 1}),
    *([[Point(1)]], {"a": {"b": Point(1)}}, STRUCTURED, np.array([None]), np.float32(1)),
    *(LLMResult(generations=[[Generation(text="x")]]),),
    *(Document("x", metadata={"of": each}) for each in OWN),
    *(AIMessage("x", additional_kwargs={"of": [each]}) for each in OWN),
    *(ChatGeneration(message=AIMessage("x", response_metadata={"of": each})) for each in OWN),
    *(Generation(text="x", generation_info={"of": each}) for each in OWN),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="tore text, messages, documents"):
        encode(value)


def test_refusals_tell_nothing_of_the_value() -> None:
    for value in (Point(1, "secret"), {"secret": object()}, "secret\ud800"):
        with pytest.raises(TypeError) as refused:
            encode(value)
        assert "secret" not in str(refused.value)
        assert refused.value.__cause__ is None


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_allowed", set(values._allowed))
    monkeypatch.setattr(values, "_serde", values._serde)


@pytest.mark.usefixtures("_as_before")
def test_classes_can_be_allowed() -> None:
    allow(Point, Model)
    for value in (Point(1, [2]), Point(1, Point(2)), Model(x=1, of=[2]), {"a": [Point(1)]}):
        assert decode(encode([value])) == [value]
    # What a pydantic model holds, it writes as plain data, whatever is allowed.
    for value in (Point(1, Colour.RED), Model(x=1, of=Point(2)), Model(x=1, of=Colour.RED)):
        with pytest.raises(TypeError, match="something else"):
            encode(value)
    allow(Colour)
    assert decode(encode(Point(1, Colour.RED))) == Point(1, Colour.RED)


def test_a_value_may_be_too_large() -> None:
    largest = b"x" * (VALUE_BYTES_MAX - len(b"bytes\0"))
    assert decode(encode(largest)) == largest
    for value in (largest + b"x", ["x" * VALUE_BYTES_MAX]):
        with pytest.raises(ValueError, match=f"at most {VALUE_BYTES_MAX} bytes"):
            encode(value)


def test_only_what_is_large_is_compressed() -> None:
    assert len(encode("x" * (COMPRESS_BYTES // 2))) > COMPRESS_BYTES // 2
    assert len(encode("x" * 10 * COMPRESS_BYTES)) < COMPRESS_BYTES


def test_many_threads_at_once() -> None:
    def there_and_back(seed: int) -> bool:
        value = random.Random(seed).randbytes(100_000) * 3
        return all(decode(encode(value)) == value for _ in range(20))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(there_and_back, range(16)))


# --- corrupt values ----------------------------------------------------------------

called: list[Any] = []


def danger(given: Any) -> Any:
    called.append(given)
    return given


class Dangerous:
    def __reduce__(self) -> Any:
        return danger, ("unpickled",)


def extension(code: int, *parts: Any) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


def test_what_is_read_runs_no_code() -> None:
    here = __name__
    crafted = [
        b"pickle\0" + pickle.dumps(Dangerous()),
        b'json\0{"lc": 2, "type": "constructor", "id": ["%b", "danger"], "args": ["x"]}'
        % here.encode(),
        b'json\0{"lc": 2, "type": "constructor", "id": ["pathlib", "Path"], "args": ["x"]}',
        b'json\0"x"',
        b"msgpack\0" + extension(jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, here, "danger", "x"),
        b"msgpack\0" + extension(jsonplus.EXT_CONSTRUCTOR_POS_ARGS, here, "danger", ["x"]),
        b"msgpack\0" + extension(jsonplus.EXT_CONSTRUCTOR_KW_ARGS, here, "danger", {"given": "x"}),
        b"msgpack\0" + extension(jsonplus.EXT_METHOD_SINGLE_ARG, here, "called", "x", "append"),
        b"msgpack\0" + extension(jsonplus.EXT_PYDANTIC_V2, here, "danger", {"given": "x"}, "x"),
    ]
    for whole in crafted:
        try:
            decode(b"p" + whole)
        except Corrupt:
            continue
        assert whole.startswith(b"msgpack\0")
    assert called == []


@pytest.mark.parametrize("kind", [b"json", b"pickle", b"", b"Msgpack", b"\xff"])
def test_other_kinds_are_corrupt(kind: bytes) -> None:
    with pytest.raises(Corrupt, match="another kind"):
        decode(b"p" + kind + b"\0" + b"{}")


def test_a_bomb_is_not_unpacked() -> None:
    """A few KB that say they are a lot, or that don't say how much they are."""
    lot = b"bytes\0" + b"\0" * (VALUE_BYTES_MAX + 1)
    told = zstandard.ZstdCompressor().compress(lot)
    untold = zstandard.ZstdCompressor(write_content_size=False).compress(lot)
    lying = bytearray(zstandard.ZstdCompressor().compress(b"bytes\0" + b"\0" * 5_000))
    for bomb in (told, untold):
        assert len(bomb) < 5_000
        with pytest.raises(Corrupt, match="too large"):
            decode(b"z" + bomb)
    lying[5:7] = b"\xff\xff"  # Where such a frame tells its size.
    assert zstandard.frame_content_size(bytes(lying)) > 65_000
    with pytest.raises(Corrupt):
        decode(b"z" + lying)


def damaged(raw: bytes, draw: random.Random) -> bytes:
    """Cut short, made longer, or with a byte changed."""
    at = draw.randrange(len(raw))
    return draw.choice(
        [raw[:at], raw + draw.randbytes(3), raw[:at] + draw.randbytes(1) + raw[at + 1 :]]
    )


@pytest.mark.parametrize("value", [*VALUES[::3], "x y " * 5_000], ids=lambda v: type(v).__name__)
def test_damaged_bytes_are_a_value_or_corrupt(value: Any) -> None:
    """And nothing else: no other exception reaches a lookup."""
    raw, draw = encode(value), random.Random(5)
    for _ in range(300):
        try:
            decode(damaged(raw, draw))
        except Corrupt:
            continue


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.binary(), st.sampled_from([b"", b"p", b"z", b"pmsgpack\0", b"pnull\0", b"z(\xb5/\xfd"]))
def test_any_bytes_are_a_value_or_corrupt(raw: bytes, head: bytes) -> None:
    for read in (decode, decode_whole):
        try:
            read(head + raw)
        except Corrupt:
            continue


def test_what_is_not_whole_is_corrupt() -> None:
    large = encode("x y " * 5_000)
    for raw in (b"", b"p", b"z", b"q" + encode("x")[1:], large[:-1], large + b"x", b"pmsgpack\0"):
        with pytest.raises(Corrupt):
            decode(raw)
