-- Claims queues that nobody has looked after for a while: returns them with the score that they
-- have from now on. A queue that turns out to be gone is removed under that score only, so that
-- one made anew meanwhile stays.
--
-- KEYS: the sorted set of queues. ARGV: how many at most, for how long they are claimed.

do
local function claim(keys, arguments)
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local claimed_until = now_ms + tonumber(arguments[2])
  local names = redis.call('ZRANGEBYSCORE', keys[1], '-inf', now_ms, 'LIMIT', 0, arguments[1])
  for _, name in ipairs(names) do redis.call('ZADD', keys[1], claimed_until, name) end
  return { claimed_until, names }
end

-- Sessions end and queues go when memory has run out, too.
redis.register_function{
  function_name = LIBRARY .. '_claim', callback = claim, flags = { 'allow-oom' },
}
end
