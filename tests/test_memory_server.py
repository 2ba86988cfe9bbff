"""The server in memory compared with a real one.

Three ways, from the bottom up: each command at its edges, random sequences of our
scripts, random sequences of a saver's methods. Both sides get the same calls and
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

from langgraph_valkey import (
    LanggraphValkeyError,
    Settings,
    ValkeySaver,
    operations,
)
from langgraph_valkey.glide_link import BlockingLink
from langgraph_valkey.keys import thread_keys
from langgraph_valkey.link import Call, Link, Reply, Script, finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.operations import Standing, Stored
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


# --- commands at their edges ----------------------------------------------------

TRY = """#!lua
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return {'error', reply.err} end
  if type(reply) == 'table' and reply.ok then return {'status', reply.ok} end
  return {type(reply), reply}
end
local K, L = KEYS[1], KEYS[2]
redis.call('DEL', K, L)
"""

PROBES = {
    "hash": "return {try('HSET', K, 'a', 1, 'b', 2.5, 'a', 'x'), try('HGET', K, 'a'), "
    "try('HGET', K, 'b'), try('HGET', K, 'c'), try('HGET', L, 'a'), try('HEXISTS', K, 'a'), "
    "try('HEXISTS', K, 'z'), try('HLEN', K), try('HLEN', L)}",
    "numbers": "try('HSET', K, 'a', 1e15, 'b', 0.1, 'c', 1e17, 'd', -3, 'e', 12345678901234567) "
    "return try('HMGET', K, 'a', 'b', 'c', 'd', 'e')",
    "hmget": "try('HSET', K, '', '\\0\\255') return {try('HMGET', K, '', 'none', ''), "
    "try('HMGET', L, 'x', 'y')}",
    "odd pairs": "return {try('HSET', K, 'a'), try('HSET', K, 'a', 1, 'b'), try('HLEN', K)}",
    "hdel": "try('HSET', K, 'a', 1, 'b', 2) return {try('HDEL', K, 'a', 'a', 'x'), "
    "try('EXISTS', K), try('HDEL', K, 'b'), try('EXISTS', K), try('HDEL', K, 'b')}",
    "hincrby": "try('HSET', K, 'text', 'x', 'zeros', '007') return {try('HINCRBY', K, 'n', 1), "
    "try('HINCRBY', K, 'n', -3), try('HINCRBY', K, 'text', 1), try('HINCRBY', K, 'n', '1.5'), "
    "try('HINCRBY', K, 'zeros', 1), try('HGET', K, 'n')}",
    "hscan": "try('HSET', K, 'one', 1) return {try('HSCAN', K, '0'), try('HSCAN', K, 0, "
    "'NOVALUES'), "
    "try('HSCAN', K, '0', 'MATCH', 'o?e', 'COUNT', 5), try('HSCAN', K, '0', 'MATCH', 'x*'), "
    "try('HSCAN', L, '0'), try('HSCAN', K, '0', 'COUNT', 0), try('HSCAN', K, '0', 'COUNT'), "
    "try('HSCAN', K, '0', 'COUNT', 'x'), try('HSCAN', K, 'x'), try('HSCAN', K, '0', 'FOO', 1)}",
    "zadd": "return {try('ZADD', K, 0, 'a', 1.5, 'b', 0, 'a'), try('ZADD', K, 3, 'a'), "
    "try('ZSCORE', K, 'a'), try('ZSCORE', K, 'b'), try('ZSCORE', K, 'c'), try('ZSCORE', L, 'a'), "
    "try('ZADD', K, 'x', 'a'), try('ZADD', K, 0, 'a', 1), try('ZCARD', K), "
    "try('ZADD', K, '0001767225600000', 'c'), try('ZSCORE', K, 'c')}",
    "zincrby": "return {try('ZINCRBY', K, 1, 'a'), try('ZINCRBY', K, '-1.5', 'a'), "
    "try('ZINCRBY', K, 'x', 'a'), try('ZINCRBY', K, -1, 'b'), try('ZSCORE', K, 'a'), "
    "try('ZREMRANGEBYSCORE', K, -1, -1), try('ZCARD', K)}",
    "zmscore": "try('ZADD', K, 7, '', 1767225600123456, 'b') return {try('ZMSCORE', K, '', 'x', "
    "'b'), "
    "try('ZMSCORE', L, 'a', 'b'), try('ZMSCORE', K)}",
    "zrem": "try('ZADD', K, 0, 'a', 0, 'b') return {try('ZREM', K, 'a', 'x', 'a'), "
    "try('ZREM', K, 'b'), try('EXISTS', K), try('ZREM', K, 'b')}",
    "lex": "for _, m in ipairs{'=1a', '=1b', '=1\\255', '=2a', '!n', '=1', '=1\\0'} do "
    "try('ZADD', K, 0, m) end return {try('ZRANGEBYLEX', K, '-', '+'), "
    "try('ZRANGEBYLEX', K, '[=1', '(=1\\255'), try('ZRANGEBYLEX', K, '(=1', '[=1\\255'), "
    "try('ZREVRANGEBYLEX', K, '(=1\\255', '[=1'), try('ZREVRANGEBYLEX', K, '+', '-'), "
    "try('ZRANGEBYLEX', K, '+', '-'), try('ZRANGEBYLEX', K, '[=2', '[=1'), "
    "try('ZRANGEBYLEX', K, '=1', '+'), try('ZRANGEBYLEX', L, '-', '+')}",
    "limit": "for i = 1, 5 do try('ZADD', K, 0, tostring(i)) end return {"
    "try('ZRANGEBYLEX', K, '-', '+', 'LIMIT', 1, 2), try('ZRANGEBYLEX', K, '-', '+', 'LIMIT', "
    "0, 0), "
    "try('ZRANGEBYLEX', K, '-', '+', 'LIMIT', 0, -1), try('ZRANGEBYLEX', K, '-', '+', 'limit', "
    "3, 9), "
    "try('ZRANGEBYLEX', K, '-', '+', 'LIMIT', -1, 2), try('ZREVRANGEBYLEX', K, '+', '-', "
    "'LIMIT', 1, 2), "
    "try('ZRANGEBYLEX', K, '-', '+', 'LIMIT', 1), try('ZRANGEBYLEX', K, '-', '+', 'LIMIT', 'x', "
    "1)}",
    "by score": "for i = 1, 6 do try('ZADD', K, i, tostring(i)) end return {"
    "try('ZREMRANGEBYSCORE', K, '-inf', '0002'), try('ZREMRANGEBYSCORE', K, '(3', 4), "
    "try('ZREMRANGEBYSCORE', K, 'x', 4), try('ZRANGEBYLEX', K, '-', '+'), "
    "try('ZREMRANGEBYSCORE', K, 0, '+inf'), try('EXISTS', K)}",
    "keys": "try('HSET', K, 'a', 1) try('ZADD', L, 1, 'a') return {try('EXISTS', K, L, K), "
    "try('TYPE', K), try('TYPE', L), try('UNLINK', K, L, K), try('EXISTS', K, L), try('TYPE', K), "
    "try('DEL', K)}",
    "wrong type": "try('HSET', K, 'a', 1) try('ZADD', L, 1, 'a') return {try('ZADD', K, 0, 'a'), "
    "try('ZSCORE', K, 'a'), try('HGET', L, 'a'), try('HSET', L, 'a', 1), try('HDEL', L, 'a'), "
    "try('ZREM', K, 'a'), try('HSCAN', L, '0'), try('ZRANGEBYLEX', K, '-', '+'), "
    "try('HINCRBY', L, 'a', 1)}",
    "expire": "try('HSET', K, 'a', 1) return {try('PTTL', K), try('PTTL', L), "
    "try('PEXPIRE', K, 100000), try('PTTL', K), try('PEXPIRE', L, 5), "
    "try('PEXPIREAT', K, '0001990000000000'), try('PEXPIREAT', K, ' 1'), try('PEXPIREAT', K, 1), "
    "try('EXISTS', K), try('PEXPIREAT', K, 1)}",
    "kept deadline": "try('HSET', K, 'a', 1) try('PEXPIRE', K, 100000) try('HSET', K, 'b', 1) "
    "local before = try('PTTL', K) try('DEL', K) try('HSET', K, 'a', 1) "
    "return {before, try('PTTL', K)}",
    "options": "try('HSET', K, 'a', 1) return {try('PEXPIRE', K, 100000, 'GT'), try('PTTL', K), "
    "try('PEXPIRE', K, 100000, 'XX'), try('PEXPIRE', K, 100000, 'lt'), try('PTTL', K), "
    "try('PEXPIRE', K, 200000, 'NX'), try('PEXPIRE', K, 50000, 'GT'), "
    "try('PEXPIRE', K, 200000, 'GT'), try('PEXPIRE', K, 1, 'FOO'), "
    "try('PEXPIREAT', K, '1990000000000', 'GT'), try('PEXPIRE', L, 1, 'GT')}",
    "arguments": "return {try('HGET', K), try('HGET', K, 'a', 'b'), try('HGET', K, true), "
    "try('HGET', K, {}), try('ZADD', K, 0), try('NOSUCH', K), try('TIME', 1)}",
    "replies": "return {1.9, -1.9, true, false, '', {}, {1, {2}}, redis.status_reply('FINE'), 'a', "
    "nil, 'b'}",
    "info": "return {type(redis.call('INFO', 'replication')), "
    "#string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)'), "
    "#redis.call('TIME'), type(redis.call('TIME')[1])}",
    "many": "local pairs_ = {} for i = 1, 2000 do pairs_[i] = tostring(i) end "
    "redis.call('HSET', K, unpack(pairs_)) local seen, cursor = {}, '0' "
    "repeat local page = redis.call('HSCAN', K, cursor, 'COUNT', 100, 'NOVALUES', 'MATCH', '1*') "
    "cursor = page[1] for _, f in ipairs(page[2]) do seen[f] = true end until cursor == '0' "
    "local n = 0 for _ in pairs(seen) do n = n + 1 end return {n, redis.call('HLEN', K)}",
}  # fmt: skip

FAILING = {
    "raised": ("error('CORRUPT it')", "CORRUPT it"),
    "returned": ("return redis.error_reply('MINE and more')", "MINE"),
    "table": ("return {err = 'MINE and more'}", "MINE"),
    "called": ("return redis.call('HGET')", "Wrong number of args"),
    "unknown": ("return redis.call('NOSUCH')", "Unknown command"),
    "global set": ("x = 1", "readonly table"),
    "global read": ("return nothing", "nonexistent global"),
    "no code": ("return redis.error_reply('gone')", "gone"),
}


def probe(link: Link, source: str, keys: Sequence[bytes]) -> Any:
    return finish(link.send([Call(Script("probe", source), tuple(keys), [], writes=True)]))[0]


@pytest.mark.parametrize("name", PROBES)
def test_a_command_does_what_the_server_does(name: str, real: BlockingLink, prefix: str) -> None:
    keys = [f"{{{prefix}}}{end}".encode() for end in "kl"]
    expected = probe(real, TRY + PROBES[name], keys)
    assert probe(MemoryLink(), TRY + PROBES[name], keys) == expected


@pytest.mark.parametrize("name", FAILING)
def test_a_script_fails_as_on_the_server(name: str, real: BlockingLink, prefix: str) -> None:
    source, said = FAILING[name]
    for link in (real, MemoryLink()):
        with pytest.raises(LanggraphValkeyError, match=said) as raised:
            probe(link, "#!lua\n" + source, [prefix.encode()])
        assert type(raised.value) is LanggraphValkeyError


@given(st.text("ab*?[]^-\\", max_size=6), st.text("ab*[]^-\\", max_size=5))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_a_glob_matches_what_the_server_matches(
    real: BlockingLink, pattern: str, name: str
) -> None:
    # In brackets only what cannot be read two ways: ranges in order, nothing escaped.
    if "[" in pattern and not re.fullmatch(r"([^\[\]\\]|\\.|\[\^?(a|b|a-b|ab)\])*", pattern):
        pattern = pattern.replace("[", "").replace("]", "")
    source = (
        "#!lua\nredis.call('DEL', KEYS[1]) redis.call('HSET', KEYS[1], ARGV[1], 1) "
        "return redis.call('HSCAN', KEYS[1], '0', 'MATCH', ARGV[2], 'NOVALUES')[2]"
    )
    args = [name.encode(), pattern.encode()]
    call = Call(Script("glob", source), (b"{glob}",), args, writes=True)
    assert finish(MemoryLink().send([call])) == finish(real.send([call]))


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
            chunks = [part for d in sorted(sent) for part in (d, b"chunk" + d)]
            stored = Stored(
                record(entry, parent, sorted(digests), tag),
                chunks,
                trusted=trusted,
                complete=complete,
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
        return {"delete": operations.delete, "mend": operations.mend}[kind](keys)

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
    if call.script.name == "sweep" and len(rest) == 3:
        rest[1:] = [sorted(text[i : i + 16] for i in range(0, len(text), 16)) for text in rest[1:]]
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
        self.sleep, self.now, self.scan = link.sleep, link.now, link.scan

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
        expected, found = (step_of(s, step, serial, d) for s, d in zip(savers, lasts, strict=True))
        assert found == expected
        assert links[1].replies == links[0].replies
    for thread in THREADS:
        sides = [Side(link.link, prefix) for link in links]
        for side in sides:
            side.keys = thread_keys(prefix, thread)
        assert sides[1].stored() == sides[0].stored()
        savers[0].delete_thread(thread)
