-- Sessions: one record each, deadlines in one sorted set, what they hold in another, and the
-- settles that counted in short pages. Mirrors `sessions.rs`, `exchange.rs` and `phase.rs`.

local sessions, sessions_changed -- of this call

do
local prefetch, prefetch_shares, shared_item, is_suspect, make_ready, withdraw, lose_lease =
  Items.prefetch, Items.prefetch_shares, Items.shared_item, Items.is_suspect, Items.make_ready,
  Items.withdraw, Items.lose_lease

local ENDING = Attempts.ENDING
local END = { expired = 0, replaced = 1, revoked = 2, left = 3 }
-- What a session remembers of settles: how many, in pages of how many, of how many bytes each.
-- Each is of consecutive items that were settled alike.
local ANSWERS = { max = 2048, page = 16, bytes = 17, pages = 2048 / 16 + 1 }
local REVOKED_MS, ASK_AGAIN_MS = 60000, 1000
local NO_REQUEST = '00000000000000000000'

local answers_of -- what sessions remember of settles, once it was asked for
local lost, lost_changed

resets[#resets + 1] = function()
  sessions, sessions_changed = {}, {}
  answers_of = {}
  lost, lost_changed = {}, {}
end

local unpack_session, pack_session
do
-- A session: serial number, deadline, until when it waits, how many items it holds, how many of
-- them are suspects, how many it lost, last request, its lease, settles that counted, in how many
-- entries, how many items it has done, when it was opened, since when it holds nothing, bytes of
-- nonce and of name; then these, and the newest entries of settles.
local SESSION = '>I6I6I6I2I2I4c20I8I6I6I6I6I6BB'
local SESSION_BYTES = 18 + 8 + 20 + 8 + 30 + 2

unpack_session = function(id, packed)
  local no, deadline, waits, holds, suspects, lost_count, request, lease, counted, entries, done,
    opened, idle, nonce, name = parse(SESSION, packed)
  local at = SESSION_BYTES + nonce
  return {
    id = id, no = no, deadline = deadline, waits = waits, holds = holds, suspects = suspects,
    lost = lost_count, request = request, lease = lease, answers = counted, entries = entries,
    done = done, opened = opened, idle = idle,
    nonce = nonce > 0 and sub(packed, SESSION_BYTES + 1, at) or nil,
    worker = sub(packed, at + 1, at + name), recent = sub(packed, at + name + 1),
  }
end

pack_session = function(session)
  local nonce, worker = session.nonce or '', session.worker
  return pack(SESSION, session.no, session.deadline, session.waits, session.holds,
    session.suspects, session.lost, session.request, session.lease, session.answers,
    session.entries, session.done, session.opened, session.idle, #nonce, #worker)
    .. nonce .. worker .. session.recent
end
end

-- Returns an open session, or false.
local function session_of(id)
  local session = sessions[id]
  if session == nil then
    local packed = call('HGET', K.sessions, id)
    session = packed and unpack_session(id, packed) or false
    if session and q.ended then
      -- The end has taken everything from every session; it did not visit them.
      session.holds, session.suspects, session.lost, session.idle = 0, 0, 0, q.ended.at
    end
    sessions[id] = session
  end
  return session
end

local function worker_of(id)
  local session = session_of(id)
  return session and session.worker
end

local function session_of_worker(worker)
  local id = call('HGET', K.workers, worker)
  return id and session_of(id)
end

local set_lost, sorted_lost
do
local function lost_of(session)
  local set = lost[session.id]
  if not set then
    set = {}
    if session.lost > 0 then
      for id in string.gmatch(call('HGET', K.lost, session.id) or '', '%d+') do
        set[tonumber(id)] = true
      end
    end
    lost[session.id] = set
  end
  return set
end

set_lost = function(session, id, is_lost)
  if session.lost == 0 and not is_lost then return end
  local set = lost_of(session)
  if set[id] ~= is_lost then
    set[id] = is_lost
    session.lost = session.lost + (is_lost and 1 or -1)
    sessions_changed[session.id] = session
    lost_changed[session.id] = true
  end
end

sorted_lost = function(session)
  local ids = {}
  if session.lost > 0 then
    for id in pairs(lost_of(session)) do ids[#ids + 1] = id end
    table.sort(ids)
  end
  return ids
end
end

-- A page in the set of what is held: those of its items that share a lease of this session.
local function held_page(number, session) return format('%d:%d', number, session.no) end

local held_by, all_held
do
-- The ids behind members of that set, of a session or of all, sorted; not many more than so many.
local function held_ids(members, session_id, most)
  local ids, numbers, seen = {}, {}, {}
  for _, member in ipairs(members) do
    local id = tonumber(member)
    if id then
      ids[#ids + 1] = id
    else
      local number = tonumber(string.match(member, '^%d+'))
      if not seen[number] then numbers[#numbers + 1] = number end
      seen[number] = true
    end
  end
  prefetch(ids)
  prefetch_shares(numbers)
  for _, number in ipairs(numbers) do
    if #ids >= most then break end
    for _, share in ipairs(shares[number]) do
      if not session_id or share.session == session_id then
        for slot = 1, PAGE do
          local id = number * PAGE + slot
          if band(share.set, 2 ^ (slot - 1)) ~= 0 then
            ids[#ids + 1] = id
            if not items[id] or not items[id].share then shared_item(id, share) end
          end
        end
      end
    end
  end
  table.sort(ids)
  return ids
end

-- What a session holds, by id.
held_by = function(session)
  write_pending(K.holds)
  local members = call('ZRANGEBYSCORE', K.holds, session.no, session.no)
  return held_ids(members, session.id, math.huge)
end

-- What all sessions hold, by id, so many at most.
all_held = function(most)
  local ids = held_ids(call('ZRANGE', K.holds, 0, most - 1), nil, most)
  ids[most + 1] = nil
  return ids
end
end

local function holds_no_more(number, session_id)
  local session = session_of(session_id)
  if session then later(K.holds, held_page(number, session), false) end
end

local function dropped_by_holder(item, was_shared)
  local session = session_of(item.session)
  if not session then return end
  if not was_shared then later(K.holds, item.id, false) end
  session.holds = session.holds - 1
  if is_suspect(item) then session.suspects = session.suspects - 1 end
  if session.holds == 0 then session.idle = q.stepped end
  sessions_changed[session.id] = session
end

local function extend(session, deadline)
  session.deadline = deadline
  sessions_changed[session.id] = session
  later(K.expires, session.id, deadline)
  q.earliest = min(q.earliest, deadline)
end

-- How a session that is not open ended.
local function end_of_session(id)
  local score = call('ZSCORE', K.ended, id)
  return score and tonumber(score) % 4 or -1
end

-- The first call of a session, beside the ids of those that have ended: these have no colon.
local function first_call(worker, nonce) return nonce .. ':' .. worker end

-- How the session ended that this first call had opened, or false.
local function end_of_first_call(worker, nonce)
  local score = call('ZSCORE', K.ended, first_call(worker, nonce))
  return score and tonumber(score) % 4
end

local function answer_page(session, number) return format('%d:%d', session.no, number) end

local remember, remembers
do
local ANSWER = '>I6I8BI2'

local function answer_key(id, lease, outcome) return pack('>I6I8B', id, lease, outcome) end

-- Notes settles of this session that counted: consecutive items, and alike.
remember = function(session, id, lease, outcome, count)
  local recent = session.recent .. pack(ANSWER, id, lease, outcome, count)
  local entries = session.entries + 1
  if entries % ANSWERS.page == 0 then
    local number = entries / ANSWERS.page - 1
    call('HSET', K.answers, answer_page(session, number), recent)
    if number >= ANSWERS.pages then
      call('HDEL', K.answers, answer_page(session, number - ANSWERS.pages))
    end
    recent = ''
  end
  session.recent, session.entries = recent, entries
  local known = answers_of[session.id]
  if known then
    for n = 1, count do
      known[answer_key(id + n - 1, lease, outcome)] = session.answers + n
    end
  end
  session.answers = session.answers + count
  sessions_changed[session.id] = session
end

-- What a session remembers: the order of each settle among all of them.
local function answers_known(session)
  local known = answers_of[session.id]
  if known then return known end
  known = {}
  answers_of[session.id] = known
  local order, number, text = session.answers, floor(session.entries / ANSWERS.page), session.recent
  local oldest = session.answers - ANSWERS.max
  while order > 0 and order > oldest do
    for at = #text - ANSWERS.bytes + 1, 1, -ANSWERS.bytes do
      local id, lease, outcome, count = parse(ANSWER, text, at)
      for n = count, 1, -1 do
        local key = answer_key(id + n - 1, lease, outcome)
        known[key] = known[key] or order
        order = order - 1
      end
    end
    number = number - 1
    text = order > 0 and call('HGET', K.answers, answer_page(session, number)) or nil
    if not text then break end
  end
  return known
end

-- Tells whether this very settle of this session counted before.
remembers = function(session, id, lease, outcome)
  local order = answers_known(session)[answer_key(id, lease, outcome)]
  return order ~= nil and order > session.answers - ANSWERS.max
end
end

-- Ends a session; what it held goes back, or is dead.
local function end_session(session, how, counted)
  local ids = session.holds > 0 and held_by(session) or {}
  if #ids > 0 then call('ZREMRANGEBYSCORE', K.holds, session.no, session.no) end
  sessions[session.id], sessions_changed[session.id] = false, nil
  q.sessions = q.sessions - 1
  call('HDEL', K.sessions, session.id)
  call('HDEL', K.workers, session.worker)
  later(K.expires, session.id, false)
  if session.lost > 0 then call('HDEL', K.lost, session.id) end
  local last, fields = floor(session.entries / ANSWERS.page) - 1, { Progress.field(session) }
  for number = max(last - ANSWERS.pages, 0), last do
    fields[#fields + 1] = answer_page(session, number)
  end
  call('HDEL', K.answers, unpack(fields))
  q.endings = q.endings + 1
  local order = q.endings * 4 + how
  call('ZADD', K.ended, order, session.id)
  if session.nonce then
    call('ZADD', K.ended, order, first_call(session.worker, session.nonce))
  end
  local forgotten = q.endings - MOST.endings
  if forgotten > 0 then call('ZREMRANGEBYSCORE', K.ended, '-inf', forgotten * 4 + 3) end
  call('ZADD', K.remembered, q.endings, session.worker)
  if q.endings > MOST.remembered then
    call('ZREMRANGEBYRANK', K.remembered, 0, -MOST.remembered - 1)
  end
  local text = 'the session of worker ' .. session.worker .. ' was lost'
  for _, id in ipairs(ids) do
    local item = items[id]
    local ending = how == END.revoked and not counted and ENDING.disrupted or ENDING.session + how
    Attempts.note(item, ending, session.worker)
    local counts = counted and item.started or false
    if counts then item.lost_attempts = item.lost_attempts + 1 end
    lose_lease(item, counts, text)
  end
  news[#news + 1] = session.id
  return #ids
end

-- Ends a single lease that took longer than its item's time limit.
local function time_out(item)
  local session = session_of(item.session)
  Attempts.note(item, ENDING.time_limit, session and session.worker)
  lose_lease(item, true, 'the attempt took longer than its time limit')
  if session then set_lost(session, item.id, true) end
  news[#news + 1] = item.session
end

-- The first items of a set that are due, a bounded number: by time, then by id.
local function first_due(key, time)
  local most = MOST.swept_items
  local due = call('ZRANGEBYSCORE', key, '-inf', time, 'WITHSCORES', 'LIMIT', 0, most)
  local ids, last = {}, due[#due]
  for at = 1, #due, 2 do ids[(at + 1) / 2] = tonumber(due[at]) end
  if #ids == most then
    -- Redis has those of one time by their digits: of the last one the least ids are taken.
    while due[2 * #ids] == last do ids[#ids] = nil end
    local ties = call('ZRANGEBYSCORE', key, last, last)
    for at = 1, #ties do ties[at] = tonumber(ties[at]) end
    table.sort(ties)
    for at = 1, most - #ids do ids[#ids + 1] = ties[at] end
  end
  prefetch(ids)
  return ids
end

-- Ends what time has ended; a bounded part of it, the rest is due at once.
local function sweep()
  local touched = 0
  if q.sessions > 0 and q.earliest <= q.time then
    local due = call('ZRANGEBYSCORE', K.expires, '-inf', q.time, 'LIMIT', 0, MOST.swept_sessions)
    for _, id in ipairs(due) do
      if touched >= MOST.swept_items then break end
      touched = touched + end_session(session_of(id), END.expired, true)
    end
  end
  if q.ended then return end
  if q.idle and S.idle and q.idle + S.idle <= q.time then q.sealed = true end
  if q.limits > 0 then
    write_pending(K.limits)
    for _, id in ipairs(first_due(K.limits, q.time)) do time_out(items[id]) end
  end
  if q.counts[DELAYED] > 0 then
    for _, id in ipairs(first_due(K.delayed, now_ms)) do
      withdraw(items[id])
      make_ready(items[id])
    end
  end
end

-- Ends the queue: what is left is abandoned, and every session holds nothing.
local function end_queue(phase, cause, outcome, reason, by)
  q.counts[ABANDONED] = q.counts[ABANDONED] + left()
  q.counts[READY], q.counts[DELAYED], q.counts[LEASED] = 0, 0, 0
  for _, key in ipairs({ K.back, K.alone, K.delayed, K.holds, K.limits, K.lost }) do
    pending[key] = nil
    call('UNLINK', key)
  end
  for priority = 0, 9 do
    if q.fresh[priority + 1] > 0 then call('UNLINK', K.fresh[priority]) end
    q.fresh[priority + 1], q.ghosts[priority + 1] = 0, 0
  end
  q.back, q.alone, q.limits = 0, 0, 0
  for _, session in pairs(sessions) do
    if session then
      session.holds, session.suspects, session.lost, session.idle = 0, 0, 0, now_ms
    end
  end
  lost = {}
  q.cold = nil
  q.ended = {
    phase = phase, cause = cause, outcome = outcome, reason = reason, by = by, at = now_ms,
  }
end

local function complete()
  local written = {}
  for id, session in pairs(sessions_changed) do
    written[#written + 1] = id
    written[#written + 1] = pack_session(session)
    if lost_changed[id] and lost[id] then
      local ids = sorted_lost(session)
      for at = 1, #ids do ids[at] = digits(ids[at]) end
      call('HSET', K.lost, id, table.concat(ids, ' '))
    end
  end
  in_parts('HSET', K.sessions, written)
end

-- What the other files use.
Sessions = {
  END = END, REVOKED_MS = REVOKED_MS, ASK_AGAIN_MS = ASK_AGAIN_MS, NO_REQUEST = NO_REQUEST,
  session_of = session_of, worker_of = worker_of, session_of_worker = session_of_worker,
  set_lost = set_lost, sorted_lost = sorted_lost, held_page = held_page, held_by = held_by,
  all_held = all_held, holds_no_more = holds_no_more, dropped_by_holder = dropped_by_holder,
  extend = extend, end_of_session = end_of_session, end_of_first_call = end_of_first_call,
  remember = remember, remembers = remembers, end_session = end_session, sweep = sweep,
  end_queue = end_queue, complete = complete,
}
end
