-- What every script of a thread shares.
--
-- KEYS   1 state, 2 index, 3 graves, 4 sweep (see keys.py)
-- state  'm'           nonce(16) gen(16) stamp(16) namespaces(6)
--        'H'namespace  ordinal(6) head
--        'O'ordinal    namespace
--        'r'ordinal id record          'c'digest  chunk
--        'x'ordinal id writer+seq(16)* 'w'writer+seq  stamp(16) writes
-- index  '!'nonce, '='ordinal id
-- A nonce is the writer+seq of the call that made the thread.
-- Stamps are microseconds of the server's clock in 16 digits, and never repeat
-- or go back within a thread: they are its sequence numbers too.

local STATE, INDEX, GRAVES, SWEEP = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call, sub = redis.call, string.sub

local function clock()
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end

local function digits(stamp)
  return string.format('%016.0f', stamp)
end

-- Which primary answers. A failover changes it, whatever the reply says.
local function identity()
  local info = redis.pcall('INFO', 'replication')
  if type(info) ~= 'string' then return '' end
  return string.match(info, 'master_replid:(%w+)') or ''
end

local function thread()
  local m = call('HGET', STATE, 'm')
  if not m then return nil end
  if #m ~= 54 then error('CORRUPT identity of the thread') end
  return {
    nonce = sub(m, 1, 16), gen = tonumber(sub(m, 17, 32)),
    stamp = tonumber(sub(m, 33, 48)), namespaces = tonumber(sub(m, 49, 54), 16),
  }
end

-- Eviction takes whole keys: a thread is whole when both bear the same nonce.
local function whole(t)
  return call('ZSCORE', INDEX, '!' .. t.nonce)
end

local function reply(status, t, ...)
  return {status, identity(), digits(t.stamp), digits(t.gen), t.nonce, ...}
end

local NOTHING = {nonce = '', gen = 0, stamp = 0}

local function namespace(ns)
  local h = call('HGET', STATE, 'H' .. ns)
  if not h then return nil, '' end
  return sub(h, 1, 6), sub(h, 7)
end

-- Namespaces are numbered as they come, which keeps names short and `list` in order.
local function ordinal_text(n) return string.format('%06x', n) end

local function u16(s, at)
  local a, b = string.byte(s, at, at + 1)
  return a * 256 + b
end

local function u32(s, at)
  local a, b, c, d = string.byte(s, at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

local HEADER = 27

-- A record begins: format(1) writer+seq(16) parent length(2) digests(4)
-- metadata length(4) parent digests metadata.
local function parent_of(record)
  if #record <= HEADER then return '' end
  return sub(record, 28, 27 + u16(record, 18))
end

local function digests_of(record, into, seen)
  if #record <= HEADER then return into end
  local at, many = 28 + u16(record, 18), u32(record, 20)
  if at + 16 * many > #record then return into end -- torn: the reader will say so
  for _ = 1, many do
    local digest = sub(record, at, at + 15)
    at = at + 16
    if not seen[digest] then
      seen[digest] = true
      into[#into + 1] = digest
    end
  end
  return into
end

local function metadata_of(record)
  if #record <= HEADER then return '' end
  local at = 28 + u16(record, 18) + 16 * u32(record, 20)
  return sub(record, at, at + u32(record, 24) - 1)
end

local MOST = 1000 -- arguments of one command: Lua's stack ends at 8000
local BYTES_MOST = 1048576 -- of a page, so that no script runs for long

local function hmget(names, prefix)
  local out = {}
  for from = 1, #names, MOST do
    local fields = {}
    for i = from, math.min(from + MOST - 1, #names) do
      fields[#fields + 1] = prefix .. names[i]
    end
    local values = call('HMGET', STATE, unpack(fields))
    for i = 1, #fields do out[from + i - 1] = values[i] end
  end
  return out
end

-- The writes on a checkpoint, in the order of their arrival: {name, value, ...}
local function writes_on(ordinal, id)
  local list = call('HGET', STATE, 'x' .. ordinal .. id)
  if not list then return {} end
  local names = {}
  for at = 1, #list, 16 do names[#names + 1] = sub(list, at, at + 15) end
  local values, out = hmget(names, 'w'), {}
  for i = 1, #names do
    out[#out + 1] = names[i]
    out[#out + 1] = values[i] or ''
  end
  return out
end

-- One deadline for all keys: a thread never expires in pieces.
local function expire(ttl_ms)
  if ttl_ms == '' then return end
  local at = string.format('%.0f', math.floor(clock() / 1000) + tonumber(ttl_ms))
  call('PEXPIREAT', STATE, at)
  call('PEXPIREAT', INDEX, at)
end
