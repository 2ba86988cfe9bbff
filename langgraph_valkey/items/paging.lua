-- What the scripts share that tell page by page what is new.
--
-- The watermark to be is the bucket's stamp when the first page was made: what came since
-- will be told again. It stands in the place to go on from, with all that has to be the same
-- then: upto(16) since(16) the bucket's creation(16) stage(1) score(16) length(6) of a
-- namespace, that, and a key.

-- The answer of a bucket that is not there.
local function nobody(known)
  return reply('none', nothing(NOW), NOW_MS, NEVER, '', known and 1 or 0, {}, {}, 0)
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

-- Where a page begins. All is told anew to whoever asks by a stamp that this bucket was
-- rewound behind, or since which graves were levelled.
local function whence(i, since, place)
  local gen, upto = sub(i, 17, 32), sub(i, 33, 48)
  local levelled = tonumber(KNOWN[3] or 0)
  local function is_void(stamp) return stamp > tonumber(upto) end
  if place ~= '' then
    local from = {upto = sub(place, 1, 16), since = sub(place, 17, 32), anew = false}
    local of_now = gen == sub(place, 33, 48) and not is_void(tonumber(from.upto))
    if of_now and (from.since == NEVER or tonumber(from.since) >= levelled) then
      local ends = 71 + tonumber(sub(place, 66, 71))
      from.stage, from.score = sub(place, 49, 49), tonumber(sub(place, 50, 65))
      from.ns, from.key = sub(place, 72, ends), sub(place, ends + 1)
      return from
    end
    return {upto = upto, since = NEVER, anew = true, stage = ''}
  end
  local stamp = tonumber(since)
  local anew = stamp > 0 and (is_void(stamp) or stamp < levelled)
  return {upto = upto, since = anew and NEVER or since, anew = anew, stage = ''}
end

-- Whether nothing has changed since: each change gives the bucket a stamp above all before.
local function is_quiet(at) return at.stage == '' and at.since == at.upto end

-- The place to go on from.
local function whereto(i, at, stage, score, ns, key)
  return at.upto .. at.since .. sub(i, 17, 32) .. stage .. digits(score)
    .. format('%06d', #ns) .. ns .. key
end
