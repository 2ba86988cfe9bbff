-- A page of what is new beneath a prefix of namespaces since a stamp: the watermark.
-- ARGV  1 prefix 2 watermark(16) 3 where to go on, '' at first 4 bytes and 5 items that a
--         page may hold
-- Reply: the server's clock in ms; the next watermark; where to go on, '' at the end; 1 if
--        all is told anew; for each namespace its name, and its keys and items in turn
--
-- Namespaces are walked by their names and keys by their stamps, so that what is changed
-- meanwhile is met once more, and never missed; last come those that are gone.

local PREFIX, ROOM, LEFT = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5])
local CHUNK = 200
local FEW = 50 -- changed namespaces that are not worth counting those beneath the prefix
local LOOKS = 2000 -- namespaces that a page may look at
local i = bucket()
if not i then return nobody(ARGV[2] ~= NEVER or ARGV[3] ~= '') end
local at = whence(i, ARGV[2], ARGV[3])
if is_quiet(at) then return reply('ok', i, NOW_MS, at.upto, '', 0, {}) end
local found, held, stopped = {}, {}, false

-- Whether the page can't take another item; then the next one begins at this place.
local function full(stage, score, ns, key)
  if ROOM > 0 and LEFT > 0 then return false end
  stopped = whereto(i, at, stage, score, ns, key)
  return true
end

local function tell(ns, key, told)
  if not held[ns] then
    held[ns] = {}
    found[#found + 1] = ns
    found[#found + 1] = held[ns]
  end
  local here = held[ns]
  here[#here + 1] = key
  here[#here + 1] = told
  ROOM = ROOM - #key - (told and #told or 0)
  LEFT = LEFT - 1
end

-- The items of a namespace, from a place among them on.
local function of_namespace(ns, score, key)
  local born = call('HGET', STATE, 'b' .. ns) or NEVER
  local skipping, from = score ~= nil, 0
  local least = score and digits(score) or '(' .. at.since
  repeat
    local page = call('ZRANGEBYSCORE', members(ns), least, '+inf', 'WITHSCORES', 'LIMIT', from, CHUNK)
    for n = 1, #page, 2 do
      local this, its = page[n], tonumber(page[n + 1])
      skipping = skipping and its == score and not above(this, key)
      if not skipping then
        local name = ns .. '\1/' .. this
        local here = find(name)
        if here then
          tell(ns, this, as_told(name, here, born))
        elseif at.since ~= NEVER then
          tell(ns, this, false)
        end
        if full('n', its, ns, this) then return end
      end
    end
    from = from + CHUNK
  until #page < 2 * CHUNK
end

-- The items that are gone, from a place among those on.
local function of_the_gone(score, last)
  local skipping, from = score ~= nil, 0
  local least = score and digits(score) or '(' .. at.since
  repeat
    local page = call('ZRANGEBYSCORE', GRAVES, least, '+inf', 'WITHSCORES', 'LIMIT', from, CHUNK)
    for n = 1, #page, 2 do
      local this = page[n]
      if sub(this, 1, #PREFIX) == PREFIX then -- Mostly it is not.
        local its = tonumber(page[n + 1])
        skipping = skipping and its == score and not above(this, last)
        local ns, key = split(this)
        if ns and not skipping then
          tell(ns, key, false)
          if full('g', its, '', this) then return end
        end
      end
    end
    from = from + CHUNK
  until #page < 2 * CHUNK
end

-- The namespaces to look at after this one, in their order; whether these are the last ones.
local BELOW = PREFIX == '' and '+' or '(' .. sub(PREFIX, 1, -2) .. '\1'

local function few_changed(after)
  if at.since == NEVER then return nil end
  local changed = call('ZRANGEBYSCORE', NAMES, '(' .. at.since, '+inf', 'LIMIT', 0, MOST + 1)
  if #changed > MOST then return nil end
  if #changed > FEW and #changed > call('ZLEXCOUNT', INDEX, '[' .. PREFIX, BELOW) then return nil end
  local these = {}
  for _, ns in ipairs(changed) do
    if sub(ns, 1, #PREFIX) == PREFIX and (not after or above(ns, after)) then these[#these + 1] = ns end
  end
  table.sort(these, function(a, b) return above(b, a) end)
  return these
end

local function next_namespaces(after)
  local few = few_changed(after)
  if few then return few, true end
  local least = after and '(' .. after or '[' .. PREFIX
  local all = call('ZRANGEBYLEX', INDEX, least, BELOW, 'LIMIT', 0, CHUNK)
  if at.since == NEVER or #all == 0 then return all, #all < CHUNK, all[#all] end
  local these, stamps = {}, call('ZMSCORE', NAMES, unpack(all))
  for n = 1, #all do
    if tonumber(stamps[n] or 0) > tonumber(at.since) then these[#these + 1] = all[n] end
  end
  return these, #all < CHUNK, all[#all]
end

local function of_the_living()
  local after = nil
  if at.stage == 'n' then
    of_namespace(at.ns, at.score, at.key)
    if stopped then return end
  end
  if at.stage ~= '' then after = at.ns end
  while true do
    local these, are_last, last = next_namespaces(after)
    for _, ns in ipairs(these) do
      of_namespace(ns)
      if stopped then return end
      after, LOOKS = ns, LOOKS - 1
    end
    if are_last then return end
    after, LOOKS = last, LOOKS - CHUNK
    if LOOKS < 0 then
      stopped = whereto(i, at, 'a', 0, after, '')
      return
    end
  end
end

if at.stage ~= 'g' then of_the_living() end
if not stopped and at.since ~= NEVER then
  if at.stage == 'g' then of_the_gone(at.score, at.key) else of_the_gone() end
end
return reply('ok', i, NOW_MS, at.upto, stopped or '', at.anew and 1 or 0, found)
