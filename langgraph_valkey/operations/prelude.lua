-- What every script of a thread shares.
--
-- KEYS   1 state, 2 index, 3 graves (see keys.py); readers are given the first two
-- state  'm'                nonce(16) gen(16) stamp(16) namespaces(6) scarred(1)
--        'H'namespace       ordinal(6) head
--        'O'ordinal         namespace
--        'r'namespace\0id   record             'c'digest  chunk
--        'x'namespace\0id   entry(16)*         'w'entry   stamp(16) writes
-- index  '!'nonce, '='ordinal id
-- graves ''  when the thread was deleted, namespace\0id  when that checkpoint was,
--        '\1' how many sweeps are open, '\2' until when they are honoured,
--        '\3'digest  a chunk they must keep (score -1)
--        A thread is scarred once a checkpoint was removed or a sweep opened, so
--        that nobody need look there before.
--
-- An entry is the writer and sequence number of a call; a nonce is the entry that
-- made the thread. Stamps are microseconds of the server's clock in 16 digits,
-- and never repeat or go back within a thread: they are its sequence numbers too.
-- A namespace's ordinal tells which came when, and keeps the index in that order.

local STATE, INDEX, GRAVES = KEYS[1], KEYS[2], KEYS[3]
local call, sub, byte, format = redis.call, string.sub, string.byte, string.format
local MOST = 1000 -- arguments of one command: Lua's stack ends at 8000
local HEADER = 27

local function clock()
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end

local function whole(m)
  if m and (#m ~= 55 or string.find(m, '%X', 17)) then error('CORRUPT identity of the thread') end
  return m
end

-- Every reply begins so. Which primary answers is told by its replication id: a
-- failover changes it, whatever else the reply says.
local function reply(status, m, ...)
  local info, at = redis.pcall('INFO', 'replication'), nil
  if type(info) == 'string' then at = string.find(info, 'master_replid:', 1, true) end
  return {status, at and sub(info, at + 14, at + 53) or '', m, ...}
end

-- The identity of a thread that is not there, at a stamp.
local function nothing(stamp)
  return string.rep('\0', 16) .. format('%032.0f0000000', stamp)
end

-- An index that bears a nonce had a thread, which did not expire with it.
local function absent()
  if #call('ZRANGEBYLEX', INDEX, '[!', '("', 'LIMIT', 0, 1) > 0 then return reply('torn', nothing(0)) end
  return reply('none', nothing(clock()))
end

-- A record begins: format(1) entry(16) parent length(2) digests(4)
-- metadata length(4) parent digests metadata.
local function parent_of(record)
  if #record <= HEADER then return '' end
  local a, b = byte(record, 18, 19)
  return sub(record, 28, 27 + a * 256 + b)
end

-- Adds the names of a record's chunks to `into`, each behind `kind`.
local function digests_of(record, kind, into)
  if #record <= HEADER then return into end
  local p, q, a, b, c, d = byte(record, 18, 23)
  local at, many = 28 + p * 256 + q, ((a * 256 + b) * 256 + c) * 256 + d
  if at + 16 * many > #record then return into end -- torn: the reader will say so
  local n = #into
  for i = at, at + 16 * (many - 1), 16 do
    n = n + 1
    into[n] = kind .. sub(record, i, i + 15)
  end
  return into
end

-- Adds the fields of the writes on a checkpoint, as they came.
local function writes_of(entries, into)
  for at = 1, #entries, 16 do into[#into + 1] = 'w' .. sub(entries, at, at + 15) end
  return into
end

local function hmget(fields)
  if #fields == 0 then return {} end
  if #fields <= MOST then return call('HMGET', STATE, unpack(fields)) end
  local out = {}
  for from = 1, #fields, MOST do
    local to = math.min(from + MOST - 1, #fields)
    local values = call('HMGET', STATE, unpack(fields, from, to))
    for i = from, to do out[i] = values[i - from + 1] end
  end
  return out
end

-- One deadline for all keys: a thread never expires in pieces.
local function expire(ttl_ms)
  local at = format('%.0f', math.floor(clock() / 1000) + ttl_ms)
  call('PEXPIREAT', STATE, at)
  call('PEXPIREAT', INDEX, at)
end
