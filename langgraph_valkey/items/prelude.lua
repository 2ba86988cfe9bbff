-- What every script of a bucket shares, after ``identity.lua`` (ME: which primary this is).
--
-- KEYS   1 state; the others (see names.py) are named from that: each key costs the client time
-- state  'i'      nonce(16) gen(16) stamp(16) dead(16), as of a saver's threads
--        'b'ns    the birth of a namespace
--        'D'name  an item's grave: why(1) stamp(16) entry(16)*. 'D' if it was deleted; 'E'
--                 if it expires: dug when it is put, so that it lies there when it has
--        'h'      more than 64 bytes, by which the server makes the hash a table
--        'z'      the newest stamp of those graves that were levelled
--        'c'      number(16) epoch(16): of the primary store's changes, all up to that number
--                 are here; and a mark that was drawn when this began to be counted
--        'a'      numbers above that which are here, too, 16 digits each
-- index  ns       the namespaces that have items
-- names  ns       the same, by the stamp of their last change
-- graves name, ns what is gone, by the stamp of that
-- ends   name     what expires, by when, in ms
-- n:ns   key      the items of a namespace, by the stamp of their last change
-- i:name          stamp(16) born(16) created(16) ttl in ms(16) how many(1) entry(16)* body
--
-- A name is that of its namespace, '\1/' and its key. Stamps are microseconds of the server's
-- clock in 16 digits, and never repeat or go back within a bucket. Those by which the sorted
-- sets are ordered tell when something was changed *here*, by a write or by a replay, so that
-- nobody misses what came after a stamp; those within items and graves tell when it was
-- acknowledged, and of two the higher one is right, wherever it comes from.

local STATE = KEYS[1]
local STEM = string.sub(STATE, 1, -6)
local INDEX, NAMES, GRAVES, ENDS = STEM .. 'index', STEM .. 'names', STEM .. 'graves', STEM .. 'ends'
local call, sub, byte, format = redis.call, string.sub, string.byte, string.format
local MOST = 1000 -- arguments of one command: Lua's stack ends at 8000
local NEVER = '0000000000000000'
local NOBODY = string.rep('\0', 16)
local ANYONE = string.rep('0', 40)

-- Whether the caller takes another primary for this one. What it then sends must
-- wait until it has replayed what the change may have cost.
local function moved(expected)
  return expected ~= ANYONE and ME ~= '' and ME ~= expected
end

local TIME = call('TIME')
local NOW = TIME[1] * 1000000 + TIME[2]
local NOW_MS = math.floor(NOW / 1000)

local function digits(number) return format('%016.0f', number) end
local function plain(number) return format('%.0f', number) end

-- What all ask first of the state: its identity, its count, and what was levelled.
local KNOWN = call('HMGET', STATE, 'i', 'c', 'z')

local function whole(i)
  if i and (#i ~= 64 or not tonumber(sub(i, 17))) then error('CORRUPT identity of the bucket') end
  return i
end

-- Every reply begins so.
local function reply(status, i, ...)
  return {status, ME, i .. (KNOWN[2] or ''), ...}
end

-- The identity of a bucket that is not there, at a stamp.
local function nothing(stamp)
  return NOBODY .. NEVER .. digits(stamp) .. NEVER
end

local function bucket() return whole(KNOWN[1]) end

local function item(name) return STEM .. 'i:' .. name end
local function members(ns) return STEM .. 'n:' .. ns end

-- The namespace and the key of an item's name; nil of a namespace's.
local function split(name)
  local at = string.find(name, '\1/', 1, true)
  if at then return sub(name, 1, at - 1), sub(name, at + 2) end
end

-- The item of this name; false if there is none.
local function find(name)
  local here = call('GET', item(name))
  if here and (#here < 65 or not tonumber(sub(here, 1, 64))) then error('CORRUPT item') end
  return here
end

-- The items of these names, in the same order; false where there is none.
local function find_all(names)
  if #names == 0 then return {} end
  local keys, absent = {}, {}
  for n, name in ipairs(names) do keys[n] = item(name) end
  local found = call('MGET', unpack(keys))
  for n, here in ipairs(found) do
    if not here then
      absent[#absent + 1] = keys[n]
    elseif #here < 65 or not tonumber(sub(here, 1, 64)) then
      error('CORRUPT item')
    end
  end
  -- MGET takes what is no text for what is not there.
  if #absent > 0 and call('EXISTS', unpack(absent)) > 0 then
    for _, key in ipairs(absent) do call('GET', key) end
  end
  return found
end

local function stamp_of(here) return tonumber(sub(here, 1, 16)) end

-- Whether it is here for ever: then it has no grave, and no end.
local function lasts(here) return here and sub(here, 49, 64) == NEVER end

local function ttl_of(here) return tonumber(sub(here, 49, 64)) end

-- When it expires, in ms and as digits; zeros for never.
local function deadline_of(name, here)
  if sub(here, 49, 64) == NEVER then return NEVER end
  return digits(math.max(0, call('PEXPIRETIME', item(name))))
end

-- An item as it is told: its deadline, the birth of its namespace, and what is stored.
local function as_told(name, here, born)
  return deadline_of(name, here) .. (born or NEVER) .. here
end
