"""Each command of the server in memory, at its edges, compared with a real server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langgraph_valkey import LanggraphValkeyError, Settings
from langgraph_valkey.glide.link import BlockingLink
from langgraph_valkey.link import Call, Script, finish
from langgraph_valkey.local import LocalValkey
from langgraph_valkey.testing import MemoryLink
from tests.test_memory_server import probe


@pytest.fixture(scope="module")
def real(valkey: LocalValkey) -> Iterator[BlockingLink]:
    link = BlockingLink(Settings.from_url(valkey.url))
    yield link
    link.close()


@pytest.fixture
def prefix() -> str:
    return f"m{os.urandom(6).hex()}"


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
    "range by score": "for i = 1, 6 do try('ZADD', K, math.floor(i / 2), tostring(i)) end "
    "try('ZADD', K, 1767225600123456, 'late') return {"
    "try('ZRANGEBYSCORE', K, '-inf', '+inf'), try('ZRANGEBYSCORE', K, '(1', '0003'), "
    "try('ZRANGEBYSCORE', K, '0000000000000001', '+inf', 'WITHSCORES', 'LIMIT', 1, 3), "
    "try('ZRANGEBYSCORE', K, 1, 2, 'LIMIT', 0, -1), try('ZRANGEBYSCORE', K, 1, 2, 'LIMIT', -1, 2), "
    "try('ZRANGEBYSCORE', K, 1, 2, 'limit', 1, 0), try('ZRANGEBYSCORE', K, 'x', 2), "
    "try('ZRANGEBYSCORE', K, 1, 2, 'LIMIT', 1), try('ZRANGEBYSCORE', K, 1, 2, 'FOO'), "
    "try('ZRANGEBYSCORE', L, 1, 2), try('ZRANGEBYSCORE', K, 3, 1)}",
    "counts": "for i = 1, 6 do try('ZADD', K, i, tostring(i)) end return {"
    "try('ZCOUNT', K, '-inf', '(3'), try('ZCOUNT', K, '0002', 9), try('ZCOUNT', K, 'x', 9), "
    "try('ZCOUNT', L, 1, 9), try('ZCOUNT', K, 5, 1)}",
    "lex counts": "for i = 1, 6 do try('ZADD', K, 0, tostring(i)) end return {"
    "try('ZLEXCOUNT', K, '-', '+'), try('ZLEXCOUNT', K, '[2', '(4'), "
    "try('ZLEXCOUNT', K, '[', '+'), try('ZLEXCOUNT', K, '2', '+'), try('ZLEXCOUNT', L, '-', '+'), "
    "try('ZLEXCOUNT', K, '[4', '[2')}",
    "strings": "try('HSET', L, 'a', 1) return {try('GET', K), try('SET', K, '\\0\\255'), "
    "try('GET', K), try('TYPE', K), try('EXISTS', K), try('HGET', K, 'a'), try('ZADD', K, 1, 'a'), "
    "try('GET', L), try('SET', L, ''), try('GET', L), try('UNLINK', K, L), try('GET', K)}",
    "mset": "try('SET', K, 'x', 'PXAT', '1990000000000') try('HSET', L, 'a', 1) return {"
    "try('MSET', K, 'y', L, 'z'), try('MGET', K, L), try('PEXPIRETIME', K), try('MSET', K), "
    "try('MSET', K, 'a', L), try('MSET')}",
    "mget": "try('HSET', L, 'a', 1) try('SET', K, 'x') return {try('MGET', K, L, K), "
    "try('UNLINK', K), try('MGET', K, L), try('MGET')}",
    "strings that end": "return {try('SET', K, 'a', 'PXAT', '1990000000000'), "
    "try('PEXPIRETIME', K), try('SET', K, 'b', 'pxat', '1990000000001'), try('PEXPIRETIME', K), "
    "try('PEXPIREAT', K, '1990000000002'), try('GET', K), try('PEXPIRETIME', K), "
    "try('SET', K, 'c'), try('PEXPIRETIME', K), try('SET', K, 'd', 'PXAT', '01990000000000'), "
    "try('GET', K), try('SET', K, 'e', 'PXAT', 0), try('SET', K, 'f', 'PXAT'), "
    "try('SET', K, 'g', 'FOO', 1), "
    "try('SET', K, 'h', 'PXAT', 1), try('GET', K), try('EXISTS', K), try('PEXPIRETIME', K)}",
    "hsetnx": "return {try('HSETNX', K, 'a', 1), try('HSETNX', K, 'a', 2), try('HGET', K, 'a'), "
    "try('ZADD', L, 1, 'a'), try('HSETNX', L, 'a', 1)}",
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
