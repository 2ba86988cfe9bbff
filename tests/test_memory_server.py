"""The server in memory compared with a real one.

Random sequences of our scripts, and of a saver's methods (`test_memory_commands`
has the commands one by one). Both sides get the same calls and
must give the same replies and end with the same keys. What differs by nature is
masked: stamps, and the primary's identity.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langgraph_valkey import ReplayIncomplete, Settings, ThreadDeleted, ValkeySaver, operations
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import Call, Link, Reply, Script, finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.operations import Standing, Status, Stored
from langgraph_valkey.testing import MemoryLink
from tests.faces import checkpoint, config, metadata, numbered_id

STAMP = re.compile(rb"\d{16}")


@pytest.fixture(scope="module")
def real(valkey: LocalValkey) -> Iterator[BlockingLink]:
    link = BlockingLink(Settings.from_url(valkey.url))
    yield link
    link.close()


@pytest.fixture
def prefix() -> str:
    return f"m{os.urandom(6).hex()}"


def probe(link: Link, source: str, keys: Sequence[bytes]) -> Any:
    return finish(link.send([Call(Script("probe", source), tuple(keys), [], writes=True)]))[0]


# --- scripts --------------------------------------------------------------------

DIGESTS = [bytes([n]) * 16 for n in range(1, 5)]
IDS = ["1", "2", "3", "3x"]
SPACES = ["", "child", "\0\1"]

numbers = st.integers(0, 3)
picks = st.sampled_from
STEPS = st.one_of(
    st.tuples(
        st.just("put"), numbers, picks(SPACES), picks(IDS), picks(["", *IDS]),
        st.sets(picks(DIGESTS)), st.sets(picks(DIGESTS)), st.booleans(), st.booleans(), numbers,
    ),
    st.tuples(st.just("put_writes"), numbers, picks(SPACES), picks(IDS), numbers),
    st.tuples(st.just("get"), picks(SPACES), picks(["", *IDS]), st.booleans()),
    st.tuples(
        st.just("page"), picks(["all", "meta", "ids"]), picks([None, *SPACES]),
        picks(["", *IDS]), picks(["", *IDS]), st.integers(1, 3), st.booleans(),
    ),
    st.tuples(st.just("history"), picks(SPACES), picks(["", *IDS]), st.integers(1, 3)),
    st.tuples(st.just("chunks")),
    st.tuples(st.just("delete")),
    st.tuples(st.just("remove"), picks(SPACES), st.lists(picks(IDS), max_size=2)),
    st.tuples(st.just("mend")),
    st.tuples(st.just("sweep"), picks(["open", "scan", "drop", "close"]), picks(DIGESTS)),
    st.tuples(st.just("evict"), picks([b"state", b"index", b"graves"])),
)  # fmt: skip


def record(entry: bytes, parent: str, digests: Sequence[bytes], tag: int) -> bytes:
    """A record as the scripts see it; its body is anything."""
    name, about = parent.encode(), b"meta%d" % tag
    return b"".join(
        [
            b"\x01",
            entry,
            len(name).to_bytes(2, "big"),
            len(digests).to_bytes(4, "big"),
            len(about).to_bytes(4, "big"),
            name,
            *digests,
            about,
            b"body",
        ]
    )


class Side:
    """One of the two servers, with what its writers know."""

    def __init__(self, link: Link, prefix: str) -> None:
        self.link = link
        self.keys = thread_keys(prefix, "t")
        self.known = [
            Standing(),
            Standing(b"?" * 16, b"%016d" % 1, b"%016d" % 1),
            Standing(),
            Standing(),
        ]

    def call(self, step: Sequence[Any], serial: int) -> Call:
        """The call of a step. `serial` numbers it, so that both sides name it alike."""
        keys, (kind, *rest) = self.keys, step
        # Two writers; at times a number comes again, or an older one after a newer.
        number = serial - (serial % 3)
        entry = b"writer %d" % (serial % 2) + number.to_bytes(8, "big")
        if kind == "put":
            known, space, at, parent, digests, sent, trusted, complete, tag = rest
            chunks = [d + b"chunk" + d for d in sorted(sent)]
            stored = Stored(
                record(entry, parent, sorted(digests), tag),
                chunks,
                trusted=entry if trusted else bytes(16),
                complete=complete,
                root=not parent,
                leans=tag == 2,
            )
            ttl_ms = 10**7 if tag == 3 else None
            return operations.put(keys, entry, ttl_ms, space, at, stored, self.known[known])
        if kind == "put_writes":
            known, space, at, tag = rest
            where = keys, entry, None, space, at
            return operations.put_writes(*where, b"writes%d" % tag, self.known[known])
        if kind == "get":
            return operations.get(keys, rest[0], rest[1], slide_ttl_ms=10**7 if rest[2] else None)
        if kind == "page":
            what, space, before, only, most, up = rest
            return operations.page(
                keys, what, namespace=space, before=before, only=only, limit=most, ascending=up
            )
        if kind == "history":
            return operations.history(keys, rest[0], rest[1], limit=rest[2])
        if kind == "sweep":
            return {
                "open": lambda: operations.open_sweep(keys),
                "scan": lambda: operations.scan_sweep(keys, b"0"),
                "drop": lambda: operations.drop_chunks(keys, [rest[1]]),
                "close": lambda: operations.close_sweep(keys),
            }[rest[0]]()
        if kind == "chunks":
            return operations.chunks(keys, DIGESTS)
        if kind == "remove":
            return operations.remove(keys, rest[0], rest[1])
        if kind == "delete":
            return operations.delete(keys, self.known[2])
        return operations.mend(keys)

    def run(self, step: Sequence[Any], serial: int) -> Any:
        if step[0] == "evict":
            key = self.keys.state.removesuffix(b"state") + step[1]
            return probe(self.link, "#!lua\nreturn redis.call('DEL', KEYS[1])", [key])
        call = self.call(step, serial)
        reply = finish(self.link.send([call]))[0]
        answer = operations.read(reply)
        self.known[2:] = [answer.standing, self.known[2]]
        return masked(call, reply)

    def stored(self) -> Any:
        """All that is there, and which of it has a deadline."""
        source = """#!lua
            local function sorted(flat, step)
              local out = {}
              for i = 1, #flat, step do
                out[#out + 1] = flat[i] .. '=' .. (step == 2 and flat[i + 1] or '')
              end
              table.sort(out)
              return out
            end
            local out = {}
            for i = 1, 3 do
              local kind = redis.call('TYPE', KEYS[i]).ok
              out[i] = {kind, redis.call('PTTL', KEYS[i]) > 0 and 1 or 0,
                kind == 'hash' and sorted(redis.call('HGETALL', KEYS[i]), 2)
                or kind == 'zset' and sorted(redis.call('ZRANGEBYLEX', KEYS[i], '-', '+'), 1) or {}}
            end
            return out"""
        keys = self.keys
        return without_stamps(probe(self.link, source, [keys.state, keys.index, keys.graves]))


def without_stamps(reply: Any) -> Any:
    if isinstance(reply, list):
        return [without_stamps(item) for item in reply]
    return STAMP.sub(b"#", reply) if isinstance(reply, bytes) else reply


def masked(call: Call, reply: list[Any]) -> Any:
    """A reply without what two servers can't agree on."""
    answer = operations.read(reply)
    rest, at = list(answer.rest), answer.standing
    if call.script.name == "sweep" and len(rest) == 2:
        rest[1:] = [sorted(text[i : i + 16] for i in range(0, len(text), 16)) for text in rest[1:]]
    deadline_at = {"put": 0, "put_writes": 0, "get": 4, "history": 3}.get(call.script.name)
    if deadline_at is not None and answer.status is Status.OK:
        rest[deadline_at] = int(rest[deadline_at] or 0) > 0
    known = int(at.stamp) > 0, int(at.gen) > 1, at.nonce
    return answer.status, len(answer.identity), known, without_stamps(rest)


@given(st.lists(STEPS, min_size=1, max_size=30))
@settings(
    derandomize=True,
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_scripts_do_what_they_do_on_the_server(real: BlockingLink, steps: list[Any]) -> None:
    prefix = f"m{os.urandom(6).hex()}"
    sides = Side(real, prefix), Side(MemoryLink(), prefix)
    for serial, step in enumerate(steps, 1):
        expected, found = (side.run(step, serial) for side in sides)
        assert found == expected
    assert sides[1].stored() == sides[0].stored()
    for side in sides:
        side.run(("delete",), 0)


# --- a saver --------------------------------------------------------------------


class Recording:
    """A link that notes what came back."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.replies: list[Any] = []
        self.now, self.scan = link.now, link.scan

    async def sleep(self, delay_s: float) -> None:
        """No other writer is there that a pause could wait for."""

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        replies = await self.link.send(calls)
        self.replies += map(masked, calls, replies)
        return replies


THREADS = ["t", "u{}"]
SAVER_STEPS = st.one_of(
    st.tuples(st.just("put"), picks(THREADS), picks(["", "c"]), st.integers(1, 20), st.booleans()),
    st.tuples(st.just("write"), picks(THREADS), picks(["a", "__interrupt__"]), numbers),
    st.tuples(st.just("read"), picks(THREADS)),
    st.tuples(st.just("delete"), picks(THREADS)),
    st.tuples(st.just("prune"), picks(THREADS)),
    st.tuples(st.just("copy")),
)


def step_of(saver: ValkeySaver, step: Sequence[Any], serial: int, last: dict[Any, Any]) -> Any:
    kind, *rest = step
    if kind == "put":
        thread, space, size, forget = rest
        parent = None if forget else last.get((thread, space))
        grown = list(parent["channel_values"]["messages"]) if parent else []
        grown += [f"{serial} {n} " + "word " * 20 for n in range(size)]
        made, new = checkpoint(
            numbered_id(serial), {"messages": grown, "count": serial}, parent=parent
        )
        last[thread, space] = made
        where = config(thread, space, parent["id"] if parent else None)
        return saver.put(where, made, metadata(serial), new)
    if kind == "write":
        thread, channel, task = rest
        head = last.get((thread, ""))
        at = head["id"] if head else numbered_id(0)
        return saver.put_writes(config(thread, "", at), [(channel, serial)], f"task {task}")
    if kind == "read":
        return saver.get_tuple(config(rest[0])), list(saver.list(config(rest[0])))
    if kind == "delete":
        last.clear()  # Also of the other thread: its next put has no parent here.
        return saver.delete_thread(rest[0])
    if kind == "prune":
        return saver.prune(rest)
    return saver.copy_thread(*THREADS)


def outcome(saver: ValkeySaver, step: Sequence[Any], serial: int, last: dict[Any, Any]) -> Any:
    try:
        return step_of(saver, step, serial, last)
    except (ReplayIncomplete, ThreadDeleted) as error:
        return type(error)


@given(st.lists(SAVER_STEPS, min_size=1, max_size=20), st.integers(0, 2))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_saver_does_what_it_does_on_the_server(
    real: BlockingLink, steps: list[Any], forgetful: int
) -> None:
    prefix = f"m{os.urandom(6).hex()}"
    links = Recording(real), Recording(MemoryLink())
    savers = [ValkeySaver.over(link, key_prefix=prefix) for link in links]
    lasts: list[dict[Any, Any]] = [{}, {}]
    for serial, step in enumerate(steps, 1):
        for saver in savers:
            saver._writer._name = b"8 bytes!"
            if forgetful and serial % 5 == forgetful:
                saver._known.forget("t")
        expected, found = (outcome(s, step, serial, d) for s, d in zip(savers, lasts, strict=True))
        assert found == expected
        assert links[1].replies == links[0].replies
    for thread in THREADS:
        sides = [Side(link.link, prefix) for link in links]
        for side in sides:
            side.keys = thread_keys(prefix, thread)
        assert sides[1].stored() == sides[0].stored()
        savers[0].delete_thread(thread)
