-- Run several scripts that read a bucket, one after the other. They stand above as functions.
-- ARGV  1 of each its number, how many arguments(2) it has, and those, each after its length(6):
--         one argument, since each costs the client time
-- Reply: the reply of each

local ASKED = ARGV[1]
local replies, at = {}, 1
while at <= #ASKED do
  local run, args = RUN[tonumber(sub(ASKED, at, at))], {}
  local count = tonumber(sub(ASKED, at + 1, at + 2))
  at = at + 3
  for n = 1, count do
    local ends = at + 5 + tonumber(sub(ASKED, at, at + 5))
    args[n] = sub(ASKED, at + 6, ends)
    at = ends + 1
  end
  replies[#replies + 1] = run(args)
end
return replies
