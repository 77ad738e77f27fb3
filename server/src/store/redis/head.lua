-- The head of a queue: what every step reads first and writes last, and what it tells others.
--
-- Every step is `begin`, what was asked, `complete`. All that can fail (arguments, types, bounds)
-- fails while reading; sorted sets and records are written together in `complete`, the head last.
-- This is a library of functions: it is run once, and `run` sets all of its state anew for a call.
-- Mirrors `server/src/queue/queues.rs` and `phase.rs`; the layout is described in `keys.rs`.

local call, KEYS, ARGV -- of the call that is carried out
-- There are no libraries yet while this one is loaded.
local floor, min, max, byte, sub, pack, parse

local names = {
  'meta', 'pages', 'blobs', 'ends', 'live', 'back', 'alone', 'delayed', 'dead', 'dedupe',
  'sessions', 'expires', 'workers', 'holds', 'answers', 'lost', 'revoked', 'limits', 'ended',
  'results', 'gone', 'remembered',
}
local K = { fresh = {} }

local LAYOUT = 1
local READY, DELAYED, LEASED, DONE, DEAD, CANCELLED, ABANDONED = 1, 2, 3, 4, 5, 6, 7
-- Certificates of deleted queues of a name that are kept, and for how many seconds.
local TOMBSTONES = { max = 64, seconds = 7 * 24 * 3600 }
local FOREVER = 2 ^ 52

local now_us, now_ms, replica, epoch, queue_name, channel
local q -- the head; nil while there is no such queue
local S -- its settings as numbers
local leasable_before, over_before, created
local news -- sessions that want to know
local pending -- changes of sorted sets, the last one of a member counts
local resets = {} -- what the other files do before a call

local function digits(number) return string.format('%.0f', number) end

-- The settings that stand in the arguments of a call, from this one on.
local SETTINGS = 10
local function settings_at(first)
  local settings = {}
  for at = 1, SETTINGS do settings[at] = ARGV[first + at - 1] end
  return settings
end

local function read_settings()
  local s = q.settings
  -- Older heads have fewer.
  for at = #s + 1, SETTINGS do s[at] = '' end
  S = {
    attempts = tonumber(s[1]), session = tonumber(s[2]), heartbeat = tonumber(s[3]),
    base = tonumber(s[4]), cap = tonumber(s[5]), leased = tonumber(s[6]) or math.huge,
    retention = min(tonumber(s[7]), FOREVER),
    idle = tonumber(s[8]), limit = tonumber(s[9]) or 0, results = tonumber(s[10]) or math.huge,
  }
end

-- Carries out a call.
local function run(act, keys, arguments)
  call, KEYS, ARGV = redis.call, keys, arguments
  floor, min, max = math.floor, math.min, math.max
  byte, sub, pack, parse = string.byte, string.sub, struct.pack, struct.unpack
  for at, name in ipairs(names) do K[name] = keys[at] end
  for priority = 0, 9 do K.fresh[priority] = keys[#names + 1 + priority] end
  -- Redis' clock, unless a test drives the time.
  now_us = tonumber(ARGV[1])
  if not now_us then
    local time = call('TIME')
    now_us = time[1] * 1000000 + time[2]
  end
  now_ms = floor(now_us / 1000)
  replica, epoch = string.match(ARGV[2], '^(%S+) (%S*)$')
  queue_name, channel = ARGV[3], ARGV[4]
  q, created, news, pending = nil, false, {}, {}
  for _, reset in ipairs(resets) do reset() end
  local head = call('GET', K.meta)
  if head then
    q = cmsgpack.unpack(head)
    if q.layout ~= LAYOUT then
      return redis.error_reply('LAYOUT queue ' .. queue_name .. ' has stored layout '
        .. tostring(q.layout) .. ', and this service knows ' .. LAYOUT)
    end
    -- Heads of before it was counted have none.
    q.took, q.bytes = q.took or {}, q.bytes or 0
    read_settings()
  end
  return act()
end

local function register(name, act, flags)
  redis.register_function{
    function_name = LIBRARY .. '_' .. name,
    callback = function(keys, arguments) return run(act, keys, arguments) end,
    flags = flags,
  }
end

-- Calls a command with many arguments in parts that fit on Lua's stack.
local function in_parts(command, key, arguments)
  for from = 1, #arguments, 1000 do
    call(command, key, unpack(arguments, from, min(from + 999, #arguments)))
  end
end

-- Reads many fields of a hash.
local function read_fields(key, fields)
  local values = {}
  for from = 1, #fields, 1000 do
    local part = call('HMGET', key, unpack(fields, from, min(from + 999, #fields)))
    for at = 1, #part do values[from + at - 1] = part[at] end
  end
  return values
end

-- Changes a sorted set; written at the end, or before the set is read.
local function later(key, member, score)
  local changes = pending[key]
  if not changes then
    changes = {}
    pending[key] = changes
  end
  changes[member] = score
end

local function write_pending(key)
  local changes = pending[key]
  if not changes then return end
  pending[key] = nil
  local added, removed = {}, {}
  for member, score in pairs(changes) do
    if score then
      added[#added + 1] = score
      added[#added + 1] = member
    else
      removed[#removed + 1] = member
    end
  end
  in_parts('ZREM', key, removed)
  in_parts('ZADD', key, added)
end

-- The head as the service decodes it (`head.rs`).
local function view(of)
  local ended = of.ended
  local digest = {}
  for at = 1, 8 do digest[at] = string.format('%08x', of.digest[at]) end
  return {
    of.uid, of.created, of.sealed and 1 or 0, of.paused and 1 or 0, of.counts, of.retried,
    of.sessions, of.first_lease or false, of.last_done or false, of.settings,
    table.concat(digest), of.uncertain and 1 or 0,
    ended and {
      ended.phase, ended.cause, ended.outcome, ended.reason or false, ended.by or false, ended.at,
    } or false,
  }
end

-- The certificate of a queue that is gone, if it is still known.
local function tombstone(uid)
  for _, packed in ipairs(call('LRANGE', K.gone, 0, -1)) do
    local found = cmsgpack.unpack(packed)
    if found.uid == uid then return view(found) end
  end
  return false
end

-- Makes the queue.
local function create(uid, settings)
  local all = {}
  for at = 1, #names + 10 do
    if KEYS[at] ~= K.gone then all[#all + 1] = KEYS[at] end
  end
  if call('EXISTS', unpack(all)) > 0 then
    error('LAYOUT queue ' .. queue_name .. ' has no head, but other keys of it exist')
  end
  local before = call('LINDEX', K.gone, 0)
  q = {
    layout = LAYOUT, uid = uid, epoch = epoch, created = now_ms, sealed = false, paused = false,
    settings = settings, counts = { 0, 0, 0, 0, 0, 0, 0 }, digest = { 0, 0, 0, 0, 0, 0, 0, 0 },
    -- Entries of the lanes of fresh items, and how many of those are cancelled, a lane each.
    fresh = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, ghosts = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
    back = 0, alone = 0, blobs = 0,
    len = 0, results = 0, retried = 0, time = 0, stepped = now_ms, limits = 0,
    sessions = 0, serial = 0, endings = 0,
    -- How many results took so many binary digits of milliseconds, from none on.
    took = {},
    -- Bytes of all results.
    bytes = 0,
    -- No lease number of an older queue of this name may come again.
    lease = before and cmsgpack.unpack(before).lease or 0,
  }
  read_settings()
  created = true
end

local function leasable()
  if q.paused or q.ended or q.bytes >= S.results then return 0 end
  return min(q.counts[READY], max(S.leased - q.counts[LEASED], 0))
end

local function left()
  return q.counts[READY] + q.counts[DELAYED] + q.counts[LEASED]
end

-- When time alone may change the queue, or nil.
local function next_due()
  local deadline, due
  for key, count in pairs({ [K.expires] = q.sessions, [K.limits] = q.limits }) do
    if count > 0 then
      write_pending(key)
      local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
      if first[2] then deadline = min(deadline or FOREVER, tonumber(first[2])) end
    end
  end
  if q.idle and S.idle then deadline = min(deadline or FOREVER, q.idle + S.idle) end
  if deadline then due = q.stepped + min(max(deadline - q.time, 0), S.heartbeat) end
  if q.counts[DELAYED] > 0 then
    write_pending(K.delayed)
    local first = call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')
    if first[2] then due = min(due or FOREVER, tonumber(first[2])) end
  end
  if q.ended then due = min(due or FOREVER, q.ended.at + S.retention) end
  return due
end

-- How long until then, in milliseconds; -1 for never.
local function delay_of(due) return due and max(due - now_ms, 0) or -1 end

-- Tells the other replicas.
local function publish(more, over)
  if more ~= '0' or over or #news > 0 then
    call('PUBLISH', channel, table.concat(
      { replica, queue_name, more, over and '1' or '0', table.concat(news, ',') }, ' '))
  end
end

local complete_items, complete_sessions, sweep, end_queue -- below, and in the other files

-- Lets time pass: queue time, by at most one heartbeat interval, then what it has ended.
local function begin()
  q.time = q.time + min(max(now_ms - q.stepped, 0), S.heartbeat)
  q.stepped = max(q.stepped, now_ms)
  -- Redis has been restarted or replaced in a way that may have lost what was acknowledged.
  if q.epoch ~= epoch and not q.ended then q.epoch, q.uncertain = epoch, true end
  leasable_before, over_before = leasable(), q.ended ~= nil
  sweep()
end

-- Writes what has changed and returns the frame of the reply.
local function complete(tag, ...)
  if q.sealed and not q.ended and left() == 0 then end_queue('drained', 'drained', 'success') end
  -- Since when there has been nothing to do, though items have come.
  if q.sealed or q.ended or q.len == 0 or left() > 0 then
    q.idle = nil
  else
    q.idle = q.idle or q.time
  end
  local more = leasable() - leasable_before
  more = created and '18446744073709551615' or more > 0 and digits(more) or '0'
  local over = q.ended ~= nil and not over_before
  complete_items()
  complete_sessions()
  local due = next_due()
  for key in pairs(pending) do write_pending(key) end
  call('SET', K.meta, cmsgpack.pack(q))
  publish(more, over)
  return { delay_of(due), more, news, over and 1 or 0, tag, ... }
end

-- Removes a queue that is over; its certificate stays for late workers.
local function remove()
  call('LPUSH', K.gone, cmsgpack.pack(q))
  call('LTRIM', K.gone, 0, TOMBSTONES.max - 1)
  call('EXPIRE', K.gone, TOMBSTONES.seconds)
  for at = 1, #names + 10 do
    if KEYS[at] ~= K.gone then call('UNLINK', KEYS[at]) end
  end
end
