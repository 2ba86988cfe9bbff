-- What every script of a thread shares, after ``identity.lua`` (ME: which primary this is).
--
-- KEYS   1 state, 2 index, 3 graves (see keys.py); readers are given the first two
-- state  'm'                nonce(16) gen(16) stamp(16) dead(16) namespaces(6) scarred(1)
--        'H'namespace       ordinal(6) head
--        'p'namespace       the head, if a replay set it and no put has moved it since
--        'k'namespace       the highest id that a replay kept beside the head
--        'O'ordinal         namespace
--        'g'                there are such fields: 'g'namespace\0id  the creation of
--                           an earlier life of the thread, which that one is of
--        'r'namespace\0id   record             'c'digest  chunk
--        'x'namespace\0id   entry(16)*         'w'entry   stamp(16) writes
-- index  '!'nonce, '='ordinal id
-- graves ''  when the thread was deleted, namespace\0id  when that checkpoint was,
--        '\1' how many sweeps are open, '\2' until when they are honoured,
--        '\3'digest  a chunk they must keep (score -1)
--        A thread is scarred once a checkpoint was removed or a sweep opened, so
--        that nobody need look there before. Dead is the deletion that was known
--        when it was made, so that whoever knows the thread knows of it, too.
--
-- An entry is the writer and sequence number of a call; a nonce is the entry that
-- made the thread. Stamps are microseconds of the server's clock in 16 digits,
-- and never repeat or go back within a thread: they are its sequence numbers too.
-- A namespace's ordinal tells which came when, and keeps the index in that order.

local STATE, INDEX, GRAVES = KEYS[1], KEYS[2], KEYS[3]
local call, sub, byte, format = redis.call, string.sub, string.byte, string.format
local MOST = 1000 -- arguments of one command: Lua's stack ends at 8000
local HEADER = 27
local NEVER = '0000000000000000'
local NOBODY = string.rep('\0', 16)
local ANYONE = string.rep('0', 40)

-- Whether the caller takes another primary for this one. What it then sends must
-- wait until it has replayed what the change may have cost.
local function moved(expected)
  return expected ~= ANYONE and ME ~= '' and ME ~= expected
end

local function clock()
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end

local function whole(m)
  if m and (#m ~= 71 or string.find(m, '%X', 17)) then error('CORRUPT identity of the thread') end
  return m
end

-- Every reply begins so.
local function reply(status, m, ...)
  return {status, ME, m, ...}
end

-- The identity of a thread that is not there, at a stamp.
local function nothing(stamp)
  return NOBODY .. format('%032.0f%023d', stamp, 0)
end

-- An index that bears a nonce had a thread, which did not expire with it.
local function absent()
  if #call('ZRANGEBYLEX', INDEX, '[!', '("', 'LIMIT', 0, 1) > 0 then return reply('torn', nothing(0)) end
  return reply('none', nothing(clock()))
end

-- Byte order. Lua's < on strings follows the server's locale.
local function above(a, b)
  for i = 1, math.max(#a, #b), 8 do
    local x, y = sub(a, i, i + 7), sub(b, i, i + 7)
    if x ~= y then
      for j = 1, 8 do
        local p, q = byte(x, j) or -1, byte(y, j) or -1
        if p ~= q then return p > q end
      end
    end
  end
  return false
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
  return at
end
