"""LangGraph's node cache: as graphs use it, and beyond what they check."""

from __future__ import annotations

import asyncio
import logging
import random
import string
from collections import deque
from typing import Annotated, Any, TypedDict

import pytest
import zstandard
from langchain_core.messages import AIMessage
from langgraph.cache.base import BaseCache
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import CachePolicy, Send

from langgraph_valkey.local import LocalValkey
from rag_cache import SemanticCache
from rag_cache.faces import CachedEmbeddings, NodeCache
from rag_cache.values import VALUE_BYTES_MAX
from tests.rag_ground import Bag, Caches
from tests.rag_models import ask

KEY = (("__pregel_ns_writes", "module.node", "node"), "abc")


async def call(kind: str, cache: BaseCache[Any], method: str, *args: Any) -> Any:
    if kind == "async":
        return await getattr(cache, f"a{method}")(*args)
    return await asyncio.to_thread(getattr(cache, method), *args)


class State(TypedDict, total=False):
    asked: str
    said: Annotated[list[Any], add_messages]


def graph_of(kind: str, cache: BaseCache[Any] | None, **policy: Any) -> tuple[Any, list[str]]:
    """A graph of one node, and what the node was asked."""
    asked: list[str] = []

    def node(state: State) -> Any:
        asked.append(state["asked"])
        return {"said": [AIMessage(f"{len(asked)}", id=f"m{len(asked)}")]}

    async def anode(state: State) -> Any:
        await asyncio.sleep(0)
        return node(state)

    builder = StateGraph(State)
    chosen: Any = anode if kind == "async" else node
    builder.add_node("node", chosen, cache_policy=CachePolicy(**policy))
    return builder.add_edge(START, "node").compile(cache=cache), asked


async def test_a_graph_runs_a_node_once(caches: Caches, kind: str) -> None:
    cache = caches()
    graph, asked = graph_of(kind, NodeCache(cache))
    first = await ask(kind, graph, {"asked": "a"})
    assert await ask(kind, graph, {"asked": "a"}) == first
    assert type(first["said"][0]) is AIMessage
    await ask(kind, graph, {"asked": "b"})
    assert asked == ["a", "b"]
    # Another process finds it, too.
    other, again = graph_of(kind, NodeCache(caches()))
    assert await ask(kind, other, {"asked": "a"}) == first
    assert again == []
    if kind == "async":
        await graph.aclear_cache()
    else:
        await asyncio.to_thread(graph.clear_cache)
    await ask(kind, other, {"asked": "a"})
    assert again == ["a"]


async def test_a_node_ends_with_its_time(caches: Caches, kind: str) -> None:
    graph, asked = graph_of(kind, NodeCache(caches()), ttl=1)
    await ask(kind, graph, {"asked": "a"})
    await ask(kind, graph, {"asked": "a"})
    assert len(asked) == 1
    await asyncio.sleep(1.1)
    await ask(kind, graph, {"asked": "a"})
    assert len(asked) == 2


async def test_a_node_sent_many_times(caches: Caches, kind: str) -> None:
    class Total(TypedDict, total=False):
        numbers: list[int]
        squares: Annotated[list[int], lambda a, b: sorted(a + b)]

    computed: list[int] = []

    def square(number: int) -> Any:
        computed.append(number)
        return {"squares": [number * number]}

    chosen: Any = square
    builder = StateGraph(Total)
    builder.add_node("begin", lambda _: {})
    builder.add_node("square", chosen, cache_policy=CachePolicy())
    builder.add_edge(START, "begin")
    builder.add_conditional_edges(
        "begin", lambda state: [Send("square", number) for number in state["numbers"]], ["square"]
    )
    graph = builder.compile(cache=NodeCache(caches()))
    for numbers in ([1, 2, 3], [2, 3, 4, 5]):
        found = await ask(kind, graph, {"numbers": numbers, "squares": []})
        assert found["squares"] == [number * number for number in numbers]
    assert sorted(computed) == [1, 2, 3, 4, 5]


async def test_tasks_of_the_functional_api(caches: Caches, kind: str) -> None:
    asked: list[int] = []

    async def both(number: int) -> int:
        return twice(number)

    def twice(number: int) -> int:
        asked.append(number)
        return 2 * number

    policy: Any = CachePolicy()
    adouble: Any = task(both, cache_policy=policy)  # type: ignore[call-overload]
    double: Any = task(twice, cache_policy=policy)  # type: ignore[call-overload]

    @entrypoint(cache=NodeCache(caches()))
    async def aflow(numbers: list[int]) -> list[int]:
        return [await each for each in [adouble(number) for number in numbers]]

    @entrypoint(cache=NodeCache(caches()))
    def flow(numbers: list[int]) -> list[int]:
        return [each.result() for each in [double(number) for number in numbers]]

    for numbers in ([1, 2], [2, 3]):
        found = await ask(kind, aflow if kind == "async" else flow, numbers)
        assert found == [2 * number for number in numbers]
    assert sorted(asked) == [1, 2, 3]


async def test_a_node_that_fails_or_waits_is_not_kept(caches: Caches, kind: str) -> None:
    times = 0

    def node(state: State) -> Any:
        nonlocal times
        times += 1
        if times < 3:
            raise RuntimeError("not yet")
        return {"said": [AIMessage("done")]}

    builder = StateGraph(State)
    builder.add_node("node", node, cache_policy=CachePolicy())
    graph = builder.add_edge(START, "node").compile(cache=NodeCache(caches()))
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await ask(kind, graph, {"asked": "a"})
    for _ in range(2):
        await ask(kind, graph, {"asked": "a"})
    assert times == 3


def drawn(draw: random.Random) -> str:
    return "".join(draw.choices(string.printable + "{}*\0é", k=draw.randrange(6)))


def keys_of(valkey: LocalValkey, pattern: str) -> list[bytes]:
    found = valkey.command("KEYS", pattern)
    assert isinstance(found, list)
    return [key for key in found if isinstance(key, bytes)]


async def test_writes_of_a_node_that_has_not_ended_well_are_not_kept(
    caches: Caches, kind: str
) -> None:
    """Whatever LangGraph hands over: some of its versions would skip a node that had failed."""
    cache = NodeCache[Any](caches())
    for writes in (deque([("__error__", "x")]), [("n", 1), ("__interrupt__", ())]):
        await call(kind, cache, "set", {KEY: (writes, None)})
        assert await call(kind, cache, "get", [KEY]) == {}
    await call(kind, cache, "set", {KEY: (deque([["n", "__error__"]]), None)})
    assert await call(kind, cache, "get", [KEY]) == {KEY: deque([["n", "__error__"]])}


async def test_it_does_what_langgraphs_own_does(caches: Caches, kind: str) -> None:
    """The same calls at random, on both: what they answer is equal."""
    draw, ours, theirs = random.Random(4), NodeCache[Any](caches()), InMemoryCache[Any]()
    spaces = [(), ("",), ("a",), ("a", ""), ("", "a"), ("a", "b"), ("ab",), ("a:b",), ("é\0{}*",)]
    names = ["", "k", "k2", "\ud800"]
    keys = [(space, name) for space in spaces for name in names]
    for _ in range(150):
        some = draw.sample(keys, draw.randrange(1, 8))
        act = draw.choice(["set", "set", "get", "get", "clear"])
        if act == "set":
            pairs = {key: ({"v": draw.random(), "t": drawn(draw)}, 100) for key in some}
            for each in (ours, theirs):
                await call(kind, each, "set", pairs)
        elif act == "get":
            found = [await call(kind, each, "get", some) for each in (ours, theirs)]
            assert found[0] == found[1]
        elif draw.random() < 0.3:
            which = draw.choice([None, [space for space, _ in some], []])
            for each in (ours, theirs):
                await call(kind, each, "clear", which)
    assert await call(kind, ours, "get", keys) == await call(kind, theirs, "get", keys)
    assert await call(kind, ours, "get", []) == {}


async def test_clearing_all_leaves_all_else(caches: Caches, kind: str) -> None:
    cache = caches()
    ours, other = NodeCache[Any](cache), NodeCache[Any](cache, label="other")
    bag = Bag()
    embeddings = CachedEmbeddings(bag, cache)
    embeddings.embed_query("a")
    cache.put_many("mine", {"k": b"v"})
    for each in (ours, other):
        await call(kind, each, "set", {KEY: (1, None)})
    await call(kind, ours, "clear")
    assert await call(kind, ours, "get", [KEY]) == {}
    assert await call(kind, other, "get", [KEY]) == {KEY: 1}
    embeddings.embed_query("a")
    assert (bag.times, cache.get_many("mine", ["k"])) == (1, {"k": b"v"})
    cache.clear_namespace(None)
    assert await call(kind, other, "get", [KEY]) == {KEY: 1}
    for label in ("", "a b", "a/b", "{}"):
        with pytest.raises(ValueError, match="name"):
            NodeCache(cache, label=label)


async def test_lives(caches: Caches, kind: str, valkey: LocalValkey, prefix: str) -> None:
    cache = caches(ttl_s={"node": 1000}, ttl_jitter=0)

    async def left_s(ttl: int | None, **given: Any) -> float | None:
        each = NodeCache[Any](cache, label="one", **given)
        await call(kind, each, "clear")
        before = set(keys_of(valkey, f"{prefix}/one:k:*"))
        await call(kind, each, "set", {KEY: ("x", ttl)})
        made = set(keys_of(valkey, f"{prefix}/one:k:*")) - before
        if not made:
            return None
        left_ms = valkey.command("PTTL", made.pop())
        assert isinstance(left_ms, int)
        return left_ms / 1000

    assert 995 < (await left_s(None) or 0) <= 1000
    assert 45 < (await left_s(None, ttl_s=50) or 0) <= 50
    assert 5 < (await left_s(10, ttl_s=50) or 0) <= 10
    assert await left_s(0) is None
    assert await left_s(-5) is None
    # Longer than anything lives here: as long as that.
    assert (await left_s(10**9) or 0) > 29 * 24 * 3600
    with pytest.raises(ValueError, match="ttl_s"):
        NodeCache(cache, ttl_s=0)


@pytest.mark.parametrize(
    "value",
    [deque([["said", [AIMessage("x", id="1")]], ["n", None]]), "x" * 5000, b"\0" * 5000, None],
    ids=["writes", "long", "bytes", "none"],
)
async def test_values_come_back_as_they_were(caches: Caches, kind: str, value: Any) -> None:
    key = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    for serde in (None, key):
        cache = NodeCache[Any](caches(), serde=serde, label="plain" if serde is None else "secret")
        await call(kind, cache, "set", {KEY: (value, None)})
        assert await call(kind, cache, "get", [KEY]) == {KEY: value}


async def test_who_has_another_key_sees_nothing(
    caches: Caches, kind: str, valkey: LocalValkey, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    serdes = [EncryptedSerializer.from_pycryptodome_aes(key=k * 16) for k in (b"a", b"b")]
    mine, theirs = (NodeCache[Any](caches(), serde=serde) for serde in serdes)
    await call(kind, mine, "set", {KEY: ("a secret", None)})
    [raw] = [valkey.command("GET", key) for key in keys_of(valkey, f"{prefix}/nodes:k:*")]
    assert isinstance(raw, bytes)
    assert b"secret" not in raw
    with caplog.at_level(logging.WARNING):
        assert await call(kind, theirs, "get", [KEY]) == {}
    assert "can't be read" in caplog.text
    assert await call(kind, mine, "get", [KEY]) == {KEY: "a secret"}


async def test_a_damaged_value_is_not_there(
    caches: Caches, kind: str, valkey: LocalValkey, prefix: str
) -> None:
    cache, draw = NodeCache[Any](caches()), random.Random(8)
    for value in ("x", ["long"] * 2000):
        await call(kind, cache, "set", {KEY: (value, None)})
        [stored] = keys_of(valkey, f"{prefix}/nodes:k:*")
        raw = valkey.command("GET", stored)
        assert isinstance(raw, bytes)
        for damaged in (b"", b"z", b"p", b"q" + raw[1:], raw[:-3], raw[:1] + draw.randbytes(40)):
            valkey.command("SET", stored, damaged)
            assert await call(kind, cache, "get", [KEY]) == {}
        too_large = zstandard.compress(b"bytes" + b"\0" * (VALUE_BYTES_MAX + 9))
        valkey.command("SET", stored, b"z" + too_large)
        assert await call(kind, cache, "get", [KEY]) == {}
        valkey.command("DEL", stored)


async def test_what_can_not_be_kept_costs_no_result(
    caches: Caches, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    class State(TypedDict, total=False):
        made: Any

    builder = StateGraph(State)
    made: list[Any] = []

    def returns(_: State) -> Any:
        made.append(object() if not made else "x" * (VALUE_BYTES_MAX + 1))
        return {"made": made[-1]}

    node: Any = returns
    builder.add_node("node", node, cache_policy=CachePolicy())
    serde = JsonPlusSerializer(pickle_fallback=False)
    cache = NodeCache[Any](caches(), serde=serde)
    graph = builder.add_edge(START, "node").compile(cache=cache)
    for _ in range(2):
        found = await ask(kind, graph, {})
        assert found["made"] is made[-1]
    assert len(made) == 2
    assert caplog.text.count("can't be kept") == 2


async def test_a_server_that_is_away_costs_no_result(kind: str, tmp_path: Any) -> None:
    with LocalValkey() as server:
        url = server.url
    with SemanticCache(url, embedder=Bag(), primary=f"sqlite:///{tmp_path}/p.db") as cache:
        graph, asked = graph_of(kind, NodeCache(cache))
        for _ in range(2):
            await ask(kind, graph, {"asked": "a"})
        assert asked == ["a", "a"]


async def test_the_event_loop_runs_while_it_waits(valkey: LocalValkey, caches: Caches) -> None:
    """Async for real: the server is held, and the loop goes on."""
    cache = NodeCache[Any](caches(lookup_deadline_ms=9000, request_timeout_ms=9000))
    await cache.aset({KEY: (1, None)})
    assert await cache.aget([KEY]) == {KEY: 1}  # It is connected now.
    valkey.command("CLIENT", "PAUSE", 1000, "ALL")
    looking = asyncio.create_task(cache.aget([KEY]))
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not looking.done()
    assert await looking == {KEY: 1}
