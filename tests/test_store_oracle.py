"""Random batches, beside InMemoryStore: every result is the same but for times.

Two stores stand for two processes, and each batch goes through one of them. In some runs
no mirror has room for what is searched. The examples are the same on every run.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, Op, PutOp, SearchOp

from langgraph_valkey import limits
from langgraph_valkey.glide.link import BlockingLink, LoopLink
from langgraph_valkey.local import LocalCluster, LocalValkey
from langgraph_valkey.store import ValkeyStore
from tests.faces import FACES
from tests.failover_ground import new_prefix
from tests.store_ground import opened
from tests.store_oracle import DIMENSION, Counting, Oracle, seen

NAMESPACES = st.sampled_from([("a",), ("a", "b"), ("a", "{b}"), ("a", "b", "*"), ("b", "\0", "é")])
LABELS = st.sampled_from(["a", "a", "b", "{b}", "*", "\0", "é"])
PREFIXES = st.sampled_from([(), (), ("a",), ("a", "b")]) | NAMESPACES
PATHS = st.lists(LABELS, min_size=1, max_size=3).map(tuple) | NAMESPACES
KEYS = st.sampled_from(["k", "{k}", "k\0", "ключ", ""])
TEXTS = st.sampled_from(["red", "red", "green", "blue and", "red and green", "and", ""])
PLAIN = st.sampled_from([1, 1, 2, 2, None, True, 1.5, "2", "red"])
VALUES = st.fixed_dictionaries(
    {"n": PLAIN},
    optional={
        "text": TEXTS,
        "more": st.lists(TEXTS, max_size=2),
        "deep": st.dictionaries(st.sampled_from(["x", "y"]), PLAIN | st.lists(PLAIN, max_size=2)),
    },
)
COMPARISONS = st.dictionaries(
    st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers(0, 3), min_size=1, max_size=2
)
CONDITIONS = (
    PLAIN | COMPARISONS | st.dictionaries(st.sampled_from(["$eq", "$ne"]), PLAIN, min_size=1)
)
FILTERS = (
    st.fixed_dictionaries({"n": CONDITIONS})
    | st.fixed_dictionaries({"n": COMPARISONS, "text": TEXTS})
    | st.fixed_dictionaries({"text": TEXTS | st.fixed_dictionaries({"$ne": TEXTS})})
    | st.fixed_dictionaries({"more": st.lists(TEXTS | CONDITIONS, max_size=2)})
    | st.fixed_dictionaries({"deep": st.fixed_dictionaries({}, optional={"x": CONDITIONS})})
)
INDEXES = st.sampled_from([None, None, False, ["more[*]", "n"]])
STORES = st.builds(PutOp, NAMESPACES, KEYS, VALUES, INDEXES, ttl=st.none())
DELETES = st.builds(PutOp, NAMESPACES, KEYS, st.none(), ttl=st.none())
SEARCHES = st.builds(
    SearchOp,
    PREFIXES,
    st.none() | FILTERS,
    st.sampled_from([100, 100, 10, 3, 1, 0]),
    st.sampled_from([0, 0, 0, 1, 3]),
    st.sampled_from([None, None, "red", "green blue", "and and red", ""]),
)
MATCHES = st.builds(MatchCondition, st.sampled_from(["prefix", "suffix"]), PATHS)
LISTINGS = st.builds(
    ListNamespacesOp,
    st.none() | st.lists(MATCHES, max_size=2).map(tuple),
    st.sampled_from([None, None, 1, 2, 0]),
    st.sampled_from([100, 100, 2, 1, 0]),
    st.sampled_from([0, 0, 0, 1, 2]),
)
GETS = st.builds(GetOp, NAMESPACES, KEYS)
BATCHES = st.lists(STORES | DELETES | GETS | SEARCHES | LISTINGS, min_size=2, max_size=10)
FILLINGS = st.lists(STORES, min_size=15, max_size=30)


class Beside(RuleBasedStateMachine):
    """Two stores and InMemoryStore, led through the same batches."""

    def __init__(self, kind: str, url: str) -> None:
        super().__init__()
        self.kind, self.url = kind, url
        self.runner = asyncio.Runner()
        self.stores: list[ValkeyStore] = []

    @initialize(
        index=st.booleans(),
        fields=st.sampled_from([None, ["text"], ["text", "more[*]"]]),
        filling=FILLINGS,
    )
    def begin(self, index: bool, fields: list[str] | None, filling: list[Op]) -> None:
        config: Any = {"dims": DIMENSION, "embed": Counting(), "fields": fields} if index else None
        self.oracle = Oracle(index=config)
        prefix = new_prefix()
        self.stores = [ValkeyStore(self.url, index=config, key_prefix=prefix) for _ in range(2)]
        self.batch(filling, 0)

    @rule(ops=BATCHES, which=st.integers(0, 1))
    def batch(self, ops: list[Op], which: int) -> None:
        store = self.stores[which]
        found = self.runner.run(store.abatch(ops)) if self.kind == "async" else store.batch(ops)
        assert seen(found) == seen(self.oracle.batch(ops))

    def teardown(self) -> None:
        with self.runner:  # Whatever ends this: an open loop's threads keep the process alive.
            for store in self.stores:
                self.runner.run(store.aclose(0))


@pytest.mark.parametrize("room", ["room", "no room"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", FACES)
def test_batches_have_the_results_of_in_memory(
    kind: str,
    shards: int,
    room: str,
    valkey: LocalValkey,
    three_shards: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if room == "no room":
        monkeypatch.setattr(limits, "MIRROR_ROWS", 3)
    url = valkey.url if shards == 1 else three_shards.url
    run_state_machine_as_test(
        lambda: Beside(kind, url),  # type: ignore[arg-type]
        settings=settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def test_a_batch_that_only_reads_takes_one_round_trip(
    kind: str, valkey: LocalValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops: list[Op] = [
        SearchOp(("a",)),
        GetOp(("a", "1"), "k1"),
        ListNamespacesOp(),
        SearchOp(("a", "2"), {"n": 2}),
        GetOp(("a", "2"), "none"),
    ]
    sent: list[int] = []
    for link in (BlockingLink, LoopLink):
        monkeypatch.setattr(link, "send", counted(sent, link.send))
    async with opened(kind, valkey.url, key_prefix=prefix) as store:
        await store.batch([PutOp(("a", str(n % 3)), f"k{n}", {"n": n}) for n in range(6)])
        first = await store.batch(ops)
        sent.clear()
        assert seen(await store.batch(ops)) == seen(first)
        assert sent == [limits.STORE_BUCKETS]  # One call a bucket, whatever it is asked.
        assert [len(first[0]), first[1].value, len(first[2]), len(first[3])] == [6, {"n": 1}, 3, 1]
        sent.clear()
        await store.batch([*ops, PutOp(("a", "1"), "k1", {"n": 9})])
        assert len(sent) == 2
        assert await store.value("k1", ("a", "1")) == {"n": 9}


def counted(sent: list[int], original: Any) -> Any:
    async def send(self: Any, calls: Any) -> Any:
        sent.append(len(calls))
        return await original(self, calls)

    return send
