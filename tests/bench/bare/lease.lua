-- Moves items into the hash of those that are leased, each with its deadline.
local items = redis.call('RPOP', KEYS[1], ARGV[1])
local leased = {}
for i, item in ipairs(items or {}) do
  leased[2 * i - 1] = string.sub(item, 1, 8)
  leased[2 * i] = ARGV[2] .. string.sub(item, 9)
end
if items then redis.call('HSET', KEYS[2], unpack(leased)) end
return items or {}
