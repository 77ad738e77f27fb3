-- Sessions: one record each, deadlines in one sorted set, what they hold in another, and the
-- settles that counted in short pages. Mirrors `sessions.rs`, `exchange.rs` and `phase.rs`.

local EXPIRED, REPLACED, REVOKED, LEFT = 0, 1, 2, 3
local ENDINGS_MAX, REMEMBERED_MAX = 1024, 8192
-- What a session remembers of settles: how many, in pages of how many, of how many bytes each.
-- (In a table, since Lua takes no more than 200 locals in one function.)
local ANSWERS = { max = 2048, page = 64, bytes = 15, pages = 2048 / 64 + 1 }
local SESSION_LEASES_MAX = 1024
local REVOKED_MS, ASK_AGAIN_MS = 60000, 1000
local NO_REQUEST = '00000000000000000000'

local sessions, sessions_changed
local answers, answers_changed
local lost, lost_changed

resets[#resets + 1] = function()
  sessions, sessions_changed = {}, {}
  answers, answers_changed = {}, {}
  lost, lost_changed = {}, {}
end

-- Returns an open session, or false.
local function session_of(id)
  local session = sessions[id]
  if session == nil then
    local packed = call('HGET', K.sessions, id)
    session = packed and cmsgpack.unpack(packed) or false
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

local function set_lost(session, id, is_lost)
  if session.lost == 0 and not is_lost then return end
  local set = lost_of(session)
  if set[id] ~= is_lost then
    set[id] = is_lost
    session.lost = session.lost + (is_lost and 1 or -1)
    sessions_changed[session.id] = session
    lost_changed[session.id] = true
  end
end

local function sorted_lost(session)
  local ids = {}
  if session.lost > 0 then
    for id in pairs(lost_of(session)) do ids[#ids + 1] = id end
    table.sort(ids)
  end
  return ids
end

-- What a session holds, by id.
local function held_by(session)
  write_pending(K.holds)
  local ids = call('ZRANGEBYSCORE', K.holds, session.no, session.no)
  for at = 1, #ids do ids[at] = tonumber(ids[at]) end
  table.sort(ids)
  prefetch(ids)
  return ids
end

dropped_by_holder = function(item)
  local session = session_of(item.session)
  if not session then return end
  later(K.holds, item.id, false)
  session.holds = session.holds - 1
  if is_suspect(item) then session.suspects = session.suspects - 1 end
  if session.holds == 0 then session.idle = q.stepped end
  sessions_changed[session.id] = session
end

local function extend(session, deadline)
  session.deadline = deadline
  sessions_changed[session.id] = session
  later(K.expires, session.id, deadline)
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

local function answer_page(session, number) return session.no .. ':' .. number end

-- A page of answers that is being written, as one text.
local function answer_text(field)
  local page = answers[field]
  if page then
    answers[field] = { table.concat(page) }
    return answers[field][1]
  end
  return call('HGET', K.answers, field) or ''
end

-- Notes a settle of this session that counted.
local function remember(session, id, lease, outcome)
  local number = floor(session.answers / ANSWERS.page)
  local field = answer_page(session, number)
  local page = answers[field]
  if not page then
    page = { session.answers % ANSWERS.page > 0 and answer_text(field) or nil }
    answers[field], answers_changed[field] = page, true
    if session.answers % ANSWERS.page == 0 and number >= ANSWERS.pages then
      call('HDEL', K.answers, answer_page(session, number - ANSWERS.pages))
    end
  end
  page[#page + 1] = pack('>I6I8B', id, lease, outcome)
  session.answers = session.answers + 1
  sessions_changed[session.id] = session
end

-- Tells whether this very settle of this session counted before.
local function remembers(session, id, lease, outcome)
  local wanted = pack('>I6I8B', id, lease, outcome)
  local oldest = max(session.answers - ANSWERS.max, 0)
  for number = floor((session.answers - 1) / ANSWERS.page), floor(oldest / ANSWERS.page), -1 do
    local page = answer_text(answer_page(session, number))
    local at = string.find(page, wanted, 1, true)
    while at do
      local slot = (at - 1) / ANSWERS.bytes
      if slot == floor(slot) and number * ANSWERS.page + slot >= oldest then return true end
      at = string.find(page, wanted, at + 1, true)
    end
  end
  return false
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
  if session.answers > 0 then
    local last, fields = floor((session.answers - 1) / ANSWERS.page), {}
    for number = max(last - ANSWERS.pages, 0), last do
      local field = answer_page(session, number)
      fields[#fields + 1] = field
      answers_changed[field] = nil
    end
    call('HDEL', K.answers, unpack(fields))
  end
  q.endings = q.endings + 1
  local order = q.endings * 4 + how
  call('ZADD', K.ended, order, session.id)
  if session.nonce then
    call('ZADD', K.ended, order, first_call(session.worker, session.nonce))
  end
  local forgotten = q.endings - ENDINGS_MAX
  if forgotten > 0 then call('ZREMRANGEBYSCORE', K.ended, '-inf', forgotten * 4 + 3) end
  call('ZADD', K.remembered, q.endings, session.worker)
  if q.endings > REMEMBERED_MAX then
    call('ZREMRANGEBYRANK', K.remembered, 0, -REMEMBERED_MAX - 1)
  end
  local text = 'the session of worker ' .. session.worker .. ' was lost'
  for _, id in ipairs(ids) do
    local item = items[id]
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
  lose_lease(item, true, 'the attempt took longer than its time limit')
  if session then set_lost(session, item.id, true) end
  news[#news + 1] = item.session
end

-- Ends what time has ended; a bounded part of it, the rest is due at once.
sweep = function()
  local touched = 0
  if q.sessions > 0 then
    local due = call('ZRANGEBYSCORE', K.expires, '-inf', q.time, 'LIMIT', 0, SWEEP_SESSIONS)
    for _, id in ipairs(due) do
      if touched >= SWEEP_ITEMS then break end
      touched = touched + end_session(session_of(id), EXPIRED, true)
    end
  end
  if q.ended then return end
  if q.idle and S.idle and q.idle + S.idle <= q.time then q.sealed = true end
  if q.limits > 0 then
    write_pending(K.limits)
    local due = call('ZRANGEBYSCORE', K.limits, '-inf', q.time, 'LIMIT', 0, SWEEP_ITEMS)
    for at = 1, #due do due[at] = tonumber(due[at]) end
    prefetch(due)
    for _, id in ipairs(due) do time_out(items[id]) end
  end
  if q.counts[DELAYED] > 0 then
    local due = call('ZRANGEBYSCORE', K.delayed, '-inf', now_ms, 'LIMIT', 0, SWEEP_ITEMS)
    for at = 1, #due do due[at] = tonumber(due[at]) end
    prefetch(due)
    for _, id in ipairs(due) do
      withdraw(items[id])
      make_ready(items[id])
    end
  end
end

-- Ends the queue: what is left is abandoned, and every session holds nothing.
end_queue = function(phase, cause, outcome, reason, by)
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
  q.ended = {
    phase = phase, cause = cause, outcome = outcome, reason = reason, by = by, at = now_ms,
  }
end

complete_sessions = function()
  local written = {}
  for id, session in pairs(sessions_changed) do
    written[#written + 1] = id
    written[#written + 1] = cmsgpack.pack(session)
    if lost_changed[id] and lost[id] then
      local ids = sorted_lost(session)
      for at = 1, #ids do ids[at] = digits(ids[at]) end
      call('HSET', K.lost, id, table.concat(ids, ' '))
    end
  end
  in_parts('HSET', K.sessions, written)
  local pages_written = {}
  for field in pairs(answers_changed) do
    pages_written[#pages_written + 1] = field
    pages_written[#pages_written + 1] = table.concat(answers[field])
  end
  in_parts('HSET', K.answers, pages_written)
end
