"""The semantic cache: what hits, what does not, and what is refused at the door."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest

from langgraph_valkey.errors import ConfigurationError
from langgraph_valkey.local import LocalValkey
from rag_cache import CacheSettings, Computed, Hit, Miss, Scope, SemanticCache
from rag_cache.asking import Asking
from rag_cache.guards.guard import Asked, Candidate
from tests.rag_ground import SCOPE, Bag, Caches, Caller

QUESTION, SIMILAR = "how do i reset my password", "my password how do i reset"


def entry_key(asking: Asking) -> bytes:
    return asking.home.entries(asking.within.key) + asking.entry_id.encode()


async def test_the_very_question_hits_without_embedding_it(call: Caller) -> None:
    miss = await call("lookup", QUESTION, SCOPE)
    assert (bool(miss), miss.reason) == (False, "absent")
    stored = await call(
        *("store", QUESTION, SCOPE, "click"), evidence={"d1": "v1"}, fence=miss.fence, took_s=2.5
    )
    assert stored
    embedder = call.cache._embedder._embeddings
    assert isinstance(embedder, Bag)
    times = embedder.times
    hit = await call("lookup", f"  {QUESTION} ", SCOPE)
    assert embedder.times == times
    assert (hit.value, hit.tier, hit.score, hit.evidence) == ("click", "exact", 1.0, {"d1": "v1"})
    assert hit.saved_s == 2.5
    assert 0 <= hit.age_s < 60


async def test_a_question_of_the_same_meaning_hits(call: Caller) -> None:
    await call("store", QUESTION, SCOPE, "click")
    hit = await call("lookup", SIMILAR, SCOPE)
    assert (hit.value, hit.tier, hit.question) == ("click", "process", QUESTION)
    miss = await call("lookup", "what is the weather in paris", SCOPE)
    assert miss.reason == "below_threshold"


@pytest.mark.parametrize(
    "other",
    [
        Scope(tenant="other", corpus="handbook"),
        Scope(tenant="acme", corpus="another"),
        Scope(tenant="acme", corpus="handbook", model="m"),
        Scope(tenant="acme", corpus="handbook", system_prompt="be brief"),
        Scope(tenant="acme", corpus="handbook", history="h"),
        Scope(tenant="acme", corpus="handbook", tools=["search"]),
        Scope(tenant="acme", corpus="handbook", extra={"locale": "de"}),
    ],
)
async def test_nothing_crosses_scopes(call: Caller, other: Scope) -> None:
    await call("store", QUESTION, SCOPE, "click")
    assert (await call("lookup", QUESTION, other)).reason == "absent"
    assert (await call("lookup", SIMILAR, other)).reason == "absent"


def test_an_entry_under_anothers_key_is_not_served(caches: Caches, valkey: LocalValkey) -> None:
    """As after a bug, or an attack: the tenant is compared with the entry itself."""
    cache = caches()
    theirs = Scope(tenant="other", corpus="handbook")
    assert cache.store(QUESTION, theirs, "secret")
    mine, key = [cache._answers.asking(cache._blocking, QUESTION, s, None) for s in (SCOPE, theirs)]
    assert cache.store(QUESTION, SCOPE, "mine")
    source, target = [entry_key(each) for each in (key, mine)]
    dumped = valkey.command("DUMP", source)
    assert isinstance(dumped, bytes)
    valkey.command("RESTORE", target, 0, dumped, "REPLACE")
    assert not cache.lookup(QUESTION, SCOPE)
    # Neither when the digests were forged as well.
    valkey.command("HSET", target, "s", mine.within.key, "t", mine.home.tenant)
    assert not cache.lookup(QUESTION, SCOPE)


async def test_entries_of_other_processes_are_found(caches: Caches, kind: str) -> None:
    one, other = Caller(caches(), kind), Caller(caches(), kind)
    assert (await other("lookup", SIMILAR, SCOPE)).reason == "absent"
    assert await one("store", QUESTION, SCOPE, "click")
    assert (await other("lookup", SIMILAR, SCOPE)).value == "click"
    assert await one("delete", QUESTION, SCOPE)
    assert not await one("delete", QUESTION, SCOPE)
    assert not await other("lookup", SIMILAR, SCOPE)
    assert not await other("lookup", QUESTION, SCOPE)


async def test_more_entries_than_one_reply_tells_of(caches: Caches, kind: str) -> None:
    one, other = Caller(caches(), kind), Caller(caches(), kind)
    for n in range(700):
        await one("store", f"question about subject{n} number{n * 7}", SCOPE, n)
    assert (await other("lookup", "subject650 number4550 question about", SCOPE)).value == 650
    assert (await other("lookup", "subject3 number21 question about", SCOPE)).value == 3


async def test_entries_end_with_their_time_whether_or_not_they_are_hit(call: Caller) -> None:
    await call("store", QUESTION, SCOPE, "click", ttl_s=0.4)
    hits = 0
    for _ in range(100):
        if not await call("lookup", QUESTION, SCOPE):
            break
        hits += 1
        await asyncio.sleep(0.02)
    assert 1 <= hits < 60
    assert (await call("lookup", SIMILAR, SCOPE)).reason in ("absent", "below_threshold")


def test_lives_are_jittered_and_by_kind(caches: Caches, valkey: LocalValkey) -> None:
    cache = caches(ttl_s={"answer": 1000, "news": 10}, ttl_jitter=0.2)

    def left_s(question: str, **given: Any) -> float:
        assert cache.store(question, SCOPE, "x", **given)
        asking = cache._answers.asking(cache._blocking, question, SCOPE, None)
        left_ms = valkey.command("PTTL", entry_key(asking))
        assert isinstance(left_ms, int)
        return left_ms / 1000

    lives = [left_s(f"question {n}") for n in range(20)]
    assert 795 < min(lives) < max(lives) <= 1000
    assert max(lives) - min(lives) > 20
    assert 7 < left_s("news", kind="news") <= 10
    assert 399 < left_s("own", ttl_s=500) <= 500
    with pytest.raises(ConfigurationError, match="kind"):
        cache.store("x", SCOPE, "x", kind="unheard-of")
    for ttl_s in (0, -1, 1e9, float("nan")):
        with pytest.raises(ValueError, match="ttl_s"):
            cache.store("x", SCOPE, "x", ttl_s=ttl_s)


async def test_the_oldest_make_room(caches: Caches, kind: str) -> None:
    call = Caller(caches(entries_most=5), kind)
    for n in range(12):
        await call("store", f"word{n}", SCOPE, n)
    found = [n for n in range(12) if await call("lookup", f"word{n}", SCOPE)]
    assert found == [7, 8, 9, 10, 11]


async def test_a_corpus_may_be_spread(caches: Caches, kind: str) -> None:
    one, other = Caller(caches(spread=4), kind), Caller(caches(spread=4), kind)
    for n in range(40):
        await one("store", f"tell me about subject{n}", SCOPE, n, evidence={f"d{n}": "1"})
    hits = [(await other("lookup", f"subject{n} tell me about", SCOPE)) for n in range(40)]
    assert [hit.value for hit in hits] == list(range(40))
    await one("invalidate", "d7", corpus="handbook")
    assert not await other("lookup", "subject7 tell me about", SCOPE)
    assert await other("lookup", "subject8 tell me about", SCOPE)


class Fussy:
    """A guard that refuses what holds a word, and breaks on another one."""

    name = "fussy"

    def refusal(self, asked: Asked, candidate: Candidate) -> str | None:
        if "break" in asked.question:
            raise RuntimeError
        return "it says no" if "no" in asked.question.split() else None


async def test_guards_refuse_and_say_why(caches: Caches, kind: str) -> None:
    call = Caller(caches(guards=[Fussy()], threshold=0.5), kind)
    await call("store", "do i reset", SCOPE, "yes")
    assert await call("lookup", "reset i do", SCOPE)
    for question in ("reset i do no", "reset i do break"):
        miss = await call("lookup", question, SCOPE)
        assert (miss.reason, miss.refusals[0].guard) == ("refused", "fussy")
    explained = str(await call("explain", "reset i do no", SCOPE))
    assert "refused by fussy: it says no" in explained
    assert "served" in str(await call("explain", "reset i do", SCOPE))
    assert call.cache.stats().refused == {"fussy": 2}


class Verdict:
    """A verifier that says what it is told, or raises it."""

    def __init__(self, says: Any) -> None:
        self.says = says

    def verify(self, asked: str, cached_question: str, cached_value: Any) -> bool:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says  # type: ignore[no-any-return]


@pytest.mark.parametrize("says", [False, None, "yes", RuntimeError("away")])
async def test_a_verifier_fails_closed(caches: Caches, kind: str, says: Any) -> None:
    verdict = Verdict(True)
    call = Caller(caches(verifier=verdict), kind)
    await call("store", QUESTION, SCOPE, "click")
    assert await call("lookup", SIMILAR, SCOPE)
    verdict.says = says
    miss = await call("lookup", SIMILAR, SCOPE)
    assert (miss.reason, miss.refusals[0].guard) == ("refused", "verifier")
    assert await call("lookup", QUESTION, SCOPE)  # The very question needs no second opinion.


async def test_a_second_best_is_served_where_the_best_is_stale(call: Caller) -> None:
    await call("store", "a b c d e f g", SCOPE, "best", evidence={"d1": "1"})
    await call("store", "a b c d e f h", SCOPE, "second", evidence={"d2": "1"})
    assert (await call("lookup", "g f e d c b a", SCOPE)).value == "best"
    await call("invalidate", "d1", corpus="handbook")
    assert (await call("lookup", "g f e d c b a", SCOPE)).value == "second"


@pytest.mark.parametrize("value", ["text", 7, {"a": [1, None, 2.5]}, b"\0\xff", ["x" * 100_000]])
async def test_values_come_back_as_they_were(call: Caller, value: Any) -> None:
    assert await call("store", QUESTION, SCOPE, value)
    assert (await call("lookup", QUESTION, SCOPE)).value == value


async def test_what_can_not_be_right_is_refused_at_the_door(call: Caller) -> None:
    miss = await call("lookup", QUESTION, SCOPE)
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (TypeError, {"question": 7}),
        (ValueError, {"question": "  "}),
        (TypeError, {"scope": "acme"}),
        (TypeError, {"value": object()}),
        (TypeError, {"value": lambda: 1}),
        (TypeError, {"evidence": {"d": 1}}),
        (TypeError, {"tags": "tag"}),
        (ValueError, {"tags": [str(n) for n in range(300)]}),
        (ValueError, {"question": "another", "fence": miss.fence}),
        (ValueError, {"value": b"x" * (9 * 1024 * 1024)}),
        *((ValueError, {"took_s": took_s}) for took_s in (math.inf, -math.inf, math.nan)),
    ]
    for kind, fields in wrong:
        given: dict[str, Any] = {"question": QUESTION, "scope": SCOPE, "value": "x", **fields}
        with pytest.raises(kind):
            await call("store", **given)
    changes: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {}),
        (ValueError, {"version": "1"}),
        (ValueError, {"scope": SCOPE, "corpus": "another"}),
        (TypeError, {"tag": 1}),
        (TypeError, {"document": ["d1"]}),
    ]
    for kind, given in changes:
        with pytest.raises(kind):
            await call("invalidate", **given)
    with pytest.raises(TypeError):
        await call("lookup", QUESTION, SCOPE, documents="d1")
    assert call.cache.stats().stored == 0


async def test_any_characters(call: Caller) -> None:
    for text in ("{}", "a}b{c", "*?[x]", "\0", "\ud800", "日本", "%7B", ":"):
        scope = Scope(tenant=text, corpus=text, system_prompt=text)
        assert await call("store", f"q {text}", scope, "x", evidence={text: text}, tags=[text])
        assert await call("lookup", f"q {text}", scope)
        await call("invalidate", text, corpus=text)
        assert not await call("lookup", f"q {text}", scope)


async def test_an_embedder_that_fails_is_a_miss(caches: Caches, kind: str) -> None:
    class Broken(Bag):
        def embed_query(self, text: str) -> list[float]:
            raise RuntimeError("no quota")

    call = Caller(caches(embedder=Broken()), kind)
    miss = await call("lookup", QUESTION, SCOPE)
    assert miss.reason == "embedder_failed"
    stored = await call("store", QUESTION, SCOPE, "x", fence=miss.fence)
    assert (stored.accepted, stored.reason) == (False, "embedder_failed")
    assert (await call.computed(QUESTION, "x")).value == "x"


async def test_what_another_embedder_stored_is_not_found(caches: Caches, kind: str) -> None:
    class Other(Bag):
        id = "other"

    one, other = Caller(caches(), kind), Caller(caches(embedder=Other()), kind)
    await one("store", QUESTION, SCOPE, "click")
    assert not await other("lookup", QUESTION, SCOPE)


async def test_a_damaged_entry_is_a_miss_and_can_be_stored_anew(
    caches: Caches, kind: str, valkey: LocalValkey
) -> None:
    call, draw = Caller(caches(), kind), random.Random(3)
    for field in ("x", "c", "f", "m", "s", "t"):
        await call("store", QUESTION, SCOPE, "click", evidence={"d1": "1"})
        asking = call.cache._answers.asking(call.cache._blocking, QUESTION, SCOPE, None)
        damaged = entry_key(asking)
        valkey.command("HSET", damaged, field, draw.randbytes(40))
        found = await call("lookup", QUESTION, SCOPE)
        assert isinstance(found, Miss) or field in "fm"
        assert isinstance(await call("lookup", SIMILAR, SCOPE), Hit | Miss)
    await call("store", QUESTION, SCOPE, "click")
    assert await call("lookup", QUESTION, SCOPE)


async def test_plain_keys(call: Caller) -> None:
    values = {f"key {n}": b"%d" % n for n in range(100)}
    assert await call("put_many", "one", values)
    assert await call("put_many", "two", {"key 1": b"other"})
    assert await call("get_many", "one", [*values, "absent"]) == values
    assert await call("get_many", "two", ["key 1"]) == {"key 1": b"other"}
    await call("clear_namespace", "one")
    assert await call("get_many", "one", list(values)) == {}
    assert await call("get_many", "two", ["key 1"]) == {"key 1": b"other"}
    await call("clear_namespace", None)
    assert await call("get_many", "two", ["key 1"]) == {}
    with pytest.raises(TypeError):
        await call("put_many", "one", {"a": "text"})


def test_computed_tells_what_a_value_was_made_from(caches: Caches) -> None:
    cache = caches()
    made = Computed("v", {"d1": "1"}, tags=["t"], usage={"input_tokens": 7, "output_tokens": 3})
    assert cache.get_or_compute(QUESTION, SCOPE, lambda: made).tier == "computed"
    hit = cache.get_or_compute(QUESTION, SCOPE, lambda: 1 / 0)
    assert (hit.tier, hit.evidence, hit.usage["input_tokens"]) == ("exact", {"d1": "1"}, 7)
    assert cache.stats().tokens_in == 7
    cache.invalidate(tag="t", corpus="handbook")
    assert cache.get_or_compute(QUESTION, SCOPE, lambda: "new").value == "new"


def test_a_secret_is_never_shown() -> None:
    settings = CacheSettings.from_url(
        "valkey://user:hidden@127.0.0.1:1", primary="postgresql://u:hidden@h/d"
    )
    assert "hidden" not in repr(settings)
    with SemanticCache(
        CacheSettings.from_url("valkey://user:hidden@127.0.0.1:1"), embedder=Bag()
    ) as cache:
        assert "hidden" not in repr(cache)
