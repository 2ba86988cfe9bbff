"""What the store does on a real Valkey, on both faces, with one shard and with three."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.store import base
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)

from langgraph_valkey import ConfigurationError, CorruptState, ValkeySaver, ValkeyStore
from langgraph_valkey.items.names import (
    bucket_keys,
    bucket_of,
    item_name,
    pack_namespace,
)
from langgraph_valkey.local import LocalValkey
from tests.faces import checkpoint, config, metadata, numbered_id
from tests.store_ground import NS, Opener, StoreFace, opened

ODD_LABELS = ["{}", "*", "[a-c]", "a:b", "%7B", " ", "\x01", "\x01\x01", "\x010", "ü", "\ud800"]
ODD_LABELS.append("a\0b")


# --- items -----------------------------------------------------------------------------


async def test_an_item_is_there_until_it_is_deleted(store: StoreFace) -> None:
    assert await store.get(NS, "likes") is None
    await store.put(NS, "likes", {"food": "figs", "rank": [1, {"two": None}]})
    found = await store.get(NS, "likes")
    assert (found.namespace, found.key) == (NS, "likes")
    assert found.value == {"food": "figs", "rank": [1, {"two": None}]}
    await store.delete(NS, "likes")
    await store.delete(NS, "never there")
    assert await store.get(NS, "likes") is None
    assert await store.keys() == []


async def test_an_update_keeps_when_it_was_created(store: StoreFace) -> None:
    await store.put(NS, "k", {"n": 1})
    first = await store.get(NS, "k")
    await store.put(NS, "k", {"n": 2})
    second = await store.get(NS, "k")
    assert second.value == {"n": 2}
    assert first.created_at == first.updated_at == second.created_at < second.updated_at
    assert abs(datetime.now(UTC) - first.created_at) < timedelta(minutes=1)
    await store.delete(NS, "k")
    await store.put(NS, "k", {"n": 3})
    assert (await store.get(NS, "k")).created_at > second.updated_at


async def test_what_is_returned_is_the_callers(store: StoreFace) -> None:
    """Changing it changes nothing in the store, nor in what others are given."""
    given = {"list": [1]}
    await store.put(NS, "k", given)
    given["list"].append(2)
    (await store.get(NS, "k")).value["list"].append(3)
    for _ in range(2):
        [found] = await store.search(NS)
        assert found.value == {"list": [1]}
        found.value["list"].append(4)
    assert await store.value("k") == {"list": [1]}


async def test_namespaces_and_keys_may_hold_anything(store: StoreFace) -> None:
    """No two are taken for one another, and no prefix reaches beyond its own."""
    deep = tuple(f"level {n}" for n in range(50))
    places = [(label,) for label in ODD_LABELS] + [("a", "b"), ("ab",), ("a", "b", "c"), deep, ()]
    names = [(place, key) for place in places for key in ("k", "", "\x01/", "a\0b")]
    ops = [PutOp(*name, {"n": n}) for n, name in enumerate(names)]
    await store.batch(ops)
    found = await store.batch([GetOp(op.namespace, op.key) for op in ops])
    assert [each.value for each in found] == [op.value for op in ops]
    for place in places:
        there = await store.batch([SearchOp(place, limit=1000)])
        assert {each.namespace for each in there[0]} == {
            other for other in places if other[: len(place)] == place
        }
    [listed] = await store.batch([ListNamespacesOp(limit=1000)])
    assert listed == sorted(places)


async def test_a_large_value_and_many_items(store: StoreFace) -> None:
    text = os.urandom(400_000).hex()
    await store.put(NS, "large", {"text": text})
    assert await store.value("large") == {"text": text}
    many = [PutOp((*NS, f"{n % 3}"), str(n), {"n": n, "text": "word " * 200}) for n in range(700)]
    await store.batch(many)
    gets = await store.batch([GetOp(op.namespace, op.key) for op in many])
    assert [each.value["n"] for each in gets] == list(range(700))
    assert len(await store.search(NS, limit=1000)) == 701
    await store.batch([op._replace(value=None) for op in many])
    assert await store.keys() == ["large"]
    assert await store.list_namespaces() == [NS]


# --- batches ---------------------------------------------------------------------------


async def test_a_batch_reads_what_was_there_before_it(store: StoreFace) -> None:
    other = ("elsewhere",)
    await store.batch([PutOp(NS, "k", {"n": 1}), PutOp(other, "k", {"n": 1})])
    ops = [
        GetOp(NS, "k"),
        PutOp(NS, "k", {"n": 2}),
        PutOp(other, "k", None),
        GetOp(other, "k"),
        PutOp(("new",), "k", {"n": 1}),
        SearchOp(NS),
        GetOp(("new",), "k"),
        ListNamespacesOp(match_conditions=(MatchCondition("suffix", ("*",)),)),
        GetOp(NS, "k"),
    ]
    before = [{"n": 1}, None, None, {"n": 1}, None, [{"n": 1}], None, [other, NS], {"n": 1}]
    assert list(map(plain, await store.batch(ops))) == before
    after = [{"n": 2}, None, None, None, None, [{"n": 2}], {"n": 1}, [NS, ("new",)], {"n": 2}]
    assert list(map(plain, await store.batch(ops))) == after
    assert await store.batch([]) == []


async def test_of_several_puts_to_one_item_the_last_one_wins(store: StoreFace) -> None:
    """In the place of the first."""
    ops = [PutOp(NS, key, {"n": n}) for n, key in enumerate(["a", "b", "a", "c", "b"])]
    await store.batch([*ops, PutOp(NS, "c", None), PutOp(NS, "d", None), PutOp(NS, "d", {"n": 9})])
    found = await store.search(NS)
    assert [(each.key, each.value["n"]) for each in found] == [("a", 2), ("b", 4), ("d", 9)]


async def test_results_come_in_the_order_of_the_first_puts(store: StoreFace) -> None:
    """Also of one batch over all buckets; an update changes nothing, a new beginning does."""
    places = [("p", str(n)) for n in (3, 1, 4, 5, 9, 2, 6)]
    await store.batch([PutOp(place, str(n), {}) for n in range(2) for place in places])
    order = [(place, str(n)) for place in places for n in range(2)]
    assert [(r.namespace, r.key) for r in await store.search(("p",), limit=99)] == order
    await store.put(places[3], "0", {"changed": True})
    await store.delete(places[4], "0")
    await store.put(places[4], "0", {})
    order[8:10] = [(places[4], "1"), (places[4], "0")]
    assert [(r.namespace, r.key) for r in await store.search(("p",), limit=99)] == order
    pages = [await store.search(("p",), limit=3, offset=at) for at in range(0, 14, 3)]
    assert [(r.namespace, r.key) for page in pages for r in page] == order


async def test_two_processes_see_what_each_other_does(stores: Opener) -> None:
    """Their mirrors, too: every search asks what is new."""
    one, two = stores(), stores()
    for n in range(3):
        await one.put(NS, f"one {n}", {})
        assert len(await two.keys()) == 2 * n + 1
        await two.put(NS, f"two {n}", {})
        assert len(await one.keys()) == 2 * n + 2
    await two.delete(NS, "one 1")
    assert await one.keys() == ["one 0", "two 0", "two 1", "one 2", "two 2"]
    assert await one.list_namespaces() == await two.list_namespaces() == [NS]
    await two.batch([PutOp(NS, key, None) for key in await two.keys()])
    assert await one.keys() == []
    assert await one.list_namespaces() == []


async def test_many_at_once(stores: Opener) -> None:
    """Nobody's write is lost, and each item is as somebody has put it."""
    faces = [stores(), stores()]
    await asyncio.gather(
        *(face.put((*NS, str(n % 7)), str(n), {"n": n}) for n in range(60) for face in faces)
    )
    found = await faces[0].search(NS, limit=99)
    assert sorted(each.value["n"] for each in found) == list(range(60))
    await asyncio.gather(*(faces[n % 2].delete((*NS, str(n % 7)), str(n)) for n in range(60)))
    assert await faces[1].search(NS, limit=99) == []


# --- bad input -------------------------------------------------------------------------


odd: Any = base
"""For what type checkers would refuse."""


class _Odd:
    """Something that no serializer takes."""

    def __reduce__(self) -> Any:
        raise ValueError("never")


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (odd.PutOp(("a", 1), "k", {}), InvalidNamespaceError),
        (odd.GetOp("abc", "k"), InvalidNamespaceError),
        (odd.GetOp(None, "k"), InvalidNamespaceError),
        (odd.SearchOp(("a", None)), InvalidNamespaceError),
        (odd.ListNamespacesOp((odd.MatchCondition("prefix", (1,)),)), InvalidNamespaceError),
        (odd.ListNamespacesOp((odd.MatchCondition("infix", ("a",)),)), ValueError),
        (odd.GetOp(NS, 7), TypeError),
        (odd.PutOp(NS, "k", [1]), TypeError),
        (odd.PutOp(NS, "k", {1: 2}), TypeError),
        (odd.PutOp(NS, "k", {"odd": _Odd()}), TypeError),
        (odd.PutOp(NS, "k", {}, index="text"), TypeError),
        (odd.PutOp(NS, "k", {}, ttl="1"), TypeError),
        (odd.PutOp(NS, "k", {}, ttl=True), TypeError),
        (odd.PutOp(NS, "k", {}, ttl=0), ValueError),
        (odd.PutOp(NS, "k", {}, ttl=-1), ValueError),
        (odd.PutOp(NS, "k", {}, ttl=float("nan")), ValueError),
        (odd.PutOp(NS, "k", {}, ttl=float("inf")), ValueError),
        (odd.PutOp(NS, "k", {}, ttl=1e15), ValueError),
        (odd.SearchOp(NS, filter={"a": {"$like": 1}}), ValueError),
        ("put", ValueError),
    ],
)
async def test_bad_input_is_refused_before_anything_is_done(
    store: StoreFace, op: Any, error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        await store.batch([PutOp(NS, "beside", {}), op])
    assert "figs" not in str(raised.value)
    assert await store.keys() == []


@pytest.mark.parametrize("namespace", [(), ("",), ("a.b",), ("langgraph", "a")])
async def test_methods_check_namespaces_as_langgraph_does(
    store: StoreFace, namespace: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidNamespaceError):
        await store.put(namespace, "k", {})


@pytest.mark.parametrize("default", [0, -1, "5", True, float("inf")])
def test_a_ttl_config_that_cant_be_meant(default: Any) -> None:
    with pytest.raises(ConfigurationError, match="default_ttl"):
        ValkeyStore("valkey://127.0.0.1:1", ttl={"default_ttl": default}, replay=False)


# --- what stands on the server ------------------------------------------------------------


async def test_another_number_of_buckets_is_noticed(stores: Opener) -> None:
    """It would look for everything in another place, and find nothing."""
    await stores().put(NS, "k", {})
    for number in (15, 17):
        other = stores(store_buckets=number)
        for ops in ([GetOp(NS, "k")], [SearchOp(())], [PutOp(NS, "k", {})]):
            with pytest.raises(ConfigurationError, match="store_buckets=16"):
                await other.batch(ops)
    assert await stores().keys() == ["k"]


async def test_a_saver_beside_it_keeps_its_threads(
    stores: Opener, server_url: str, prefix: str
) -> None:
    """The same URL and prefix: neither sees the other's."""
    store = stores()
    bucket = bucket_of(pack_namespace(NS), 16)
    made, new = checkpoint(numbered_id(1), {"n": 1})
    with ValkeySaver.from_url(server_url, key_prefix=prefix, replay=False) as saver:
        await store.put(NS, "k", {"n": 1})
        saver.put(config(bucket), made, metadata(1), new)
        assert [each.config["configurable"]["thread_id"] for each in saver.list(None)] == [bucket]
        saver.delete_thread(bucket)
    assert await store.value("k") == {"n": 1}


async def test_an_encrypting_serializer_hides_values_and_vectors(
    valkey: LocalValkey, prefix: str, near: Opener
) -> None:
    index: Any = {"dims": 2, "embed": lambda texts: [[0.5, 0.25] for _ in texts]}
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0" * 16)
    face = near(serde=serde, index=index)
    await face.put(NS, "k", {"food": "figs"})
    [found] = await face.search(NS, query="fruit")
    assert (found.value, found.score) == ({"food": "figs"}, pytest.approx(1.0))
    key = item_key(prefix, NS, "k")
    stored = stored_at(valkey, key)
    assert b"figs" not in stored
    assert b"\x00\x00\x00\x3f\x00\x00\x80\x3e" not in stored
    other = EncryptedSerializer.from_pycryptodome_aes(key=b"1" * 16)
    for stranger, error in ((other, CorruptState), (None, ConfigurationError)):
        with pytest.raises(error):
            await near(serde=stranger).get(NS, "k")


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "of another type"])
async def test_damage_is_told_and_can_be_mended(
    valkey: LocalValkey, prefix: str, near: Opener, damage: str
) -> None:
    face = near()
    await face.batch([PutOp(NS, "bad", {"food": "figs"}), PutOp(NS, "good", {})])
    key = item_key(prefix, NS, "bad")
    stored = stored_at(valkey, key)
    if damage == "cut":
        valkey.command("SET", key, stored[:-1])
    elif damage == "changed":
        valkey.command("SET", key, stored[:-3] + b"???")
    elif damage == "emptied":
        valkey.command("SET", key, b"")
    else:
        valkey.command("DEL", key)
        valkey.command("HSET", key, "a", "b")
    for ops in (
        [GetOp(NS, "good"), GetOp(NS, "bad")],
        [GetOp(NS, "bad"), PutOp(NS, "never there", None)],
        [SearchOp(NS, filter={"food": "figs"})],
    ):
        with pytest.raises(CorruptState) as raised:
            await face.batch(ops)
        assert "figs" not in str(raised.value)
        assert prefix in raised.value.key
    assert await face.value("good") == {}
    if damage in ("cut", "changed"):
        await face.put(NS, "bad", {"n": 1})
    else:
        valkey.command("DEL", key)
        await face.delete(NS, "bad")
    assert await face.keys() == (["bad", "good"] if damage in ("cut", "changed") else ["good"])


async def test_graves_are_not_looked_for_in_a_list(
    valkey: LocalValkey, prefix: str, near: Opener
) -> None:
    """Up to 512 fields, the server keeps small ones as a list."""
    await near().put(NS, "k", {})
    state = item_key(prefix, NS, "k").partition(b"}")[0] + b"}:state"
    assert valkey.command("OBJECT", "ENCODING", state) == b"hashtable"


def stored_at(valkey: LocalValkey, key: bytes) -> bytes:
    """What a key holds."""
    found = valkey.command("GET", key)
    assert isinstance(found, bytes)
    return found


def item_key(prefix: str, namespace: tuple[str, ...], key: str) -> bytes:
    """The key of an item on the server."""
    name = pack_namespace(namespace)
    keys = bucket_keys(f"{prefix}:store", bucket_of(name, 16))
    return keys.state.removesuffix(b"state") + b"i:" + item_name(name, key.encode())


async def test_what_is_emptied_behind_its_back_is_gone(
    valkey: LocalValkey, prefix: str, near: Opener
) -> None:
    """Nobody failed over, so it was someone's wish: it can be written to again."""
    face = near()
    await face.put(NS, "old", {})
    assert await face.keys() == ["old"]
    stem = bucket_keys(f"{prefix}:store", bucket_of(pack_namespace(NS), 16)).state[:-5]
    names = [b"state", b"index", b"names", b"n:" + pack_namespace(NS)]
    for key in [*(stem + name for name in names), item_key(prefix, NS, "old")]:
        assert valkey.command("DEL", key) == 1
    assert await face.value("old") is None
    assert await face.keys() == []
    await face.put(NS, "new", {})
    assert await face.keys() == ["new"]


def plain(result: Any) -> Any:
    """What a result says."""
    if isinstance(result, list):
        return [plain(each) for each in result]
    return result.value if hasattr(result, "value") else result


async def test_a_server_that_may_evict_items_is_warned_of(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalValkey(options={"maxmemory-policy": "volatile-lru"}) as server:
        with caplog.at_level(logging.WARNING, "langgraph_valkey"):
            async with opened(kind, server.url, durability="none") as face:
                await face.setup()
        assert len(caplog.records) == 1
        assert "items of stores can vanish" in caplog.text
