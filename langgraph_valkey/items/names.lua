-- A page of the namespaces that are new, or gone, since a stamp: the watermark.
-- ARGV  1 watermark(16) 2 where to go on, '' at first 3 how many a page may hold
-- Reply: the server's clock in ms; the next watermark; where to go on, '' at the end; 1 if
--        all is told anew; those that have items; those that have none any more; how many
--        items have expired that are not taken out yet: some of the first may be of the second

local i = bucket()
if not i then return nobody(ARGV[1] ~= NEVER or ARGV[2] ~= '') end
local at = whence(i, ARGV[1], ARGV[2])
local due = call('ZCOUNT', ENDS, '-inf', '(' .. digits(NOW_MS))
if is_quiet(at) then return reply('ok', i, NOW_MS, at.upto, '', 0, {}, {}, due) end
local LEFT, CHUNK = tonumber(ARGV[3]), 500
local stopped = ''

-- The namespaces in a sorted set from a place on: by their stamps, so that one which is
-- changed meanwhile is met once more.
local function walk(set, stage, score, last)
  local found, skipping, from = {}, score ~= nil, 0
  local least = score and digits(score) or '(' .. at.since
  repeat
    local page = call('ZRANGEBYSCORE', set, least, '+inf', 'WITHSCORES', 'LIMIT', from, CHUNK)
    for n = 1, #page, 2 do
      local this, its = page[n], tonumber(page[n + 1])
      skipping = skipping and its == score and not above(this, last)
      if not skipping then
        if not string.find(this, '\1/', 1, true) then found[#found + 1] = this end
        LEFT = LEFT - 1
        if LEFT <= 0 then
          stopped = whereto(i, at, stage, its, '', this)
          return found
        end
      end
    end
    from = from + CHUNK
  until #page < 2 * CHUNK
  return found
end

local born, gone = {}, {}
if at.stage == 'n' then
  born = walk(NAMES, 'n', at.score, at.key)
elseif at.stage ~= 'g' then
  born = walk(NAMES, 'n')
end
if stopped == '' and at.since ~= NEVER then
  if at.stage == 'g' then gone = walk(GRAVES, 'g', at.score, at.key) else gone = walk(GRAVES, 'g') end
end
return reply('ok', i, NOW_MS, at.upto, stopped, at.anew and 1 or 0, born, gone, due)
