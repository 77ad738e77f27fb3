-- What workers say: settles, started, lease and leave, in this order.
--
-- ARGV after the common ones: worker, session, nonce, uid, draws, lease number, max, starting,
-- waitMs, leave, count of started, count of settles; then started ids; then for each settle its
-- fixed part, its result or error, and the items it spawns.

do
local OK, ALREADY_SETTLED, STALE, IS_CANCELLED, UNKNOWN, OVER = 0, 1, 2, 3, 4, 5
local IS_DONE, RETRY, BURIED, RELEASE = 0, 1, 2, 3
local SETTLE = '>BBBI2I6I8I6'
local SETTLE_BYTES = 25

local worker, session_id, nonce, uid, draws, draws_used
local number, lease_max, starting, wait_ms, leave, started_count, settle_count
local new_results

-- The next random number of this step, as 8 bytes.
local function draw()
  draws_used = draws_used + 1
  return string.sub(draws, draws_used * 8 - 7, draws_used * 8)
end

-- A random number from 0 to `most`, both included. Sixteen bits at a time: doubles hold 53.
local function draw_up_to(most)
  local limbs, rest = { struct.unpack('>I2I2I2I2', draw()) }, 0
  for at = 1, 4 do rest = math.fmod(rest * 65536 + limbs[at], most + 1) end
  return rest
end

local function parse_settles()
  local settles, at = {}, 17 + started_count
  for n = 1, settle_count do
    local settle, fixed, flags = {}, ARGV[at], nil
    settle.outcome, settle.stop, flags, settle.spawned, settle.id, settle.lease, settle.delay =
      struct.unpack(SETTLE, fixed)
    settle.has_delay, settle.has_error = flags % 2 == 1, floor(flags / 2) % 2 == 1
    settle.hash, settle.text = string.sub(fixed, SETTLE_BYTES + 1), ARGV[at + 1]
    settle.spawn_at = at + 2
    settles[n] = settle
    at = at + 2 + settle.spawned
  end
  return settles
end

-- Decides whether a settle that was not seen before may count.
local function judge(settle)
  local item, why = find(settle.id)
  if why == 'unknown' then return UNKNOWN end
  if why == 'done' then return ALREADY_SETTLED end
  if why == 'cancelled' then return IS_CANCELLED end
  if item.lease ~= settle.lease or settle.lease == 0 then return STALE end
  if item.place == IS_LEASED then return OK end
  if not item.lost then return ALREADY_SETTLED end
  if settle.outcome == IS_DONE or settle.outcome == BURIED then return OK end
  return STALE
end

local function record_result(item, settle)
  local key = ''
  if item.key then
    -- The key stands behind the fixed fields of the record.
    local text = record(item.id)
    local first, at = string.byte(text), 2
    if floor(first / 32) % 2 == 1 then at = at + 6 end
    if floor(first / 64) % 2 == 1 then at = at + 2 end
    local bytes = struct.unpack('>I2', text, at)
    key = string.sub(text, at + 2, at + 1 + bytes)
  end
  new_results[#new_results + 1] = struct.pack('>I6I2I6BI2', item.id, item.attempt,
    max(now_ms - item.leased, 0), item.key and 1 or 0, #key) .. key .. settle.text
  q.results = q.results + 1
  set_end(item, q.results)
  local limbs = { struct.unpack('>I4I4I4I4I4I4I4I4', settle.hash) }
  local carry = 0
  for at = 8, 1, -1 do
    local sum = q.digest[at] + limbs[at] + carry
    carry = floor(sum / 4294967296)
    q.digest[at] = sum % 4294967296
  end
  q.counts[DONE] = q.counts[DONE] + 1
  q.last_done = now_ms
end

local function backoff(failures)
  local doublings = min(max(failures - 1, 0), 32)
  return draw_up_to(min(S.base * 2 ^ doublings, S.cap))
end

-- Settles one lease; returns what became of it, and whether it changed anything.
local function settle_one(session, settle)
  local status = judge(settle)
  if status ~= OK then
    if session then
      if remembers(session, settle.id, settle.lease, settle.outcome) then return OK, false end
      set_lost(session, settle.id, nil)
    end
    return status, false
  end
  if q.ended then return OVER, false end
  local item, outcome, delay = items[settle.id], settle.outcome, settle.delay
  local exhausted = false
  if outcome == RETRY then
    local failures = item.attempts + 1
    if failures >= attempts_max(item) then
      exhausted = true
    elseif not settle.has_delay then
      delay = backoff(failures)
    end
  end
  local text = settle.has_error and settle.text or nil
  withdraw(item)
  if outcome == IS_DONE then
    record_result(item, settle)
  elseif outcome == BURIED or exhausted then
    -- A late settle names an attempt that its loss may have counted already.
    item.attempts, item.error, item.lost = max(item.attempts, item.attempt), text, false
    bury(item)
  elseif outcome == RETRY then
    item.attempts, item.error = item.attempts + 1, text
    q.retried = q.retried + 1
    if delay > 0 then make_delayed(item, now_ms + delay) else make_ready(item) end
  else
    make_ready(item)
  end
  if session then
    -- What was sent, exhausted or not: its repeat says the same.
    remember(session, settle.id, settle.lease, outcome)
    set_lost(session, settle.id, nil)
    if outcome == IS_DONE then session.done = session.done + 1 end
  end
  if outcome == IS_DONE and settle.spawned > 0 then
    local spawn = {}
    for n = 1, settle.spawned do spawn[n] = ARGV[settle.spawn_at + n - 1] end
    local _, fresh = sort_out(spawn)
    add(fresh)
  end
  return OK, true
end

local function settle_all(session, settles)
  local ids, statuses, stop = {}, {}, 0
  for n, settle in ipairs(settles) do ids[n] = settle.id end
  prefetch(ids)
  for n, settle in ipairs(settles) do
    local counted
    statuses[n], counted = settle_one(session, settle)
    if counted and stop == 0 then stop = settle.stop end
  end
  in_parts('RPUSH', K.results, new_results)
  if stop ~= 0 and not q.ended then
    end_queue('stopped', 'worker', stop == 1 and 'success' or 'failure', nil, worker)
  end
  return statuses
end

-- Notes that a leased item runs; its time limit begins now.
local function start_item(item)
  if item.started then return end
  item.started = true
  if item.limit > 0 then
    item.deadline = q.time + item.limit + S.session
    later(K.limits, item.id, item.deadline)
    q.limits = q.limits + 1
  end
  changed[item.id] = item
end

local function start_all(session)
  if q.ended then return end
  local ids = {}
  for n = 1, started_count do ids[n] = tonumber(ARGV[16 + n]) end
  prefetch(ids)
  for _, id in ipairs(ids) do
    local item = find(id)
    if item and item.place == IS_LEASED and item.session == session.id then start_item(item) end
  end
end

-- Opens a session; an older one of the same name ends in the same step. Returns nil and how long
-- to wait when the name is revoked.
local function open_session()
  local revoked_until = tonumber(call('ZSCORE', K.revoked, worker) or 0)
  if revoked_until > now_ms then
    return nil, { 'revoked', min(revoked_until - now_ms, ASK_AGAIN_MS), false }
  end
  local older = session_of_worker(worker)
  if older then end_session(older, REPLACED, true) end
  local id = string.format('%04x%04x%04x%04x', struct.unpack('>I2I2I2I2', draw()))
  q.serial, q.sessions = q.serial + 1, q.sessions + 1
  local session = {
    id = id, worker = worker, nonce = nonce ~= '' and nonce or nil, no = q.serial,
    deadline = 0, waits = 0, holds = 0, suspects = 0, lost = 0, request = NO_REQUEST, lease = 0,
    answers = 0, done = 0, opened = now_ms, idle = now_ms,
  }
  sessions[id] = session
  call('HSET', K.workers, worker, id)
  extend(session, q.time + S.session)
  return session
end

-- Extends a session. One that holds nothing may wait as long as its call is held.
local function keep_alive(session, waits)
  if waits then session.waits = q.time + waits end
  local alive_until = session.holds == 0 and max(q.time, session.waits) or q.time
  extend(session, alive_until + S.session)
end

local function wait(reason, retry_ms)
  local due = false
  if q.counts[DELAYED] > 0 then
    write_pending(K.delayed)
    due = tonumber(call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2])
  end
  local until_due = due and max(due - now_ms, 0) or 5000
  return { reason, retry_ms or min(until_due, 5000), due }
end

-- What is left of the items that the last request got.
local function repeat_last(session)
  local rows = {}
  if session.holds > 0 then
    for _, id in ipairs(held_by(session)) do
      local item = items[id]
      if item.lease == session.lease then
        rows[#rows + 1], rows[#rows + 2], rows[#rows + 3] = id, item.attempt, record(id)
      end
    end
  end
  if #rows == 0 then return { 'nothing_ready', 0, false } end
  return { false, digits(session.lease), rows }
end

-- Chooses at least one item, or says why there is none.
local function choose(session)
  if q.paused then return nil, 'paused' end
  if session.suspects > 0 then
    for _, id in ipairs(held_by(session)) do
      if must_run_alone(items[id]) then return nil, 'last_attempt_alone' end
    end
  end
  local room = max(S.leased - q.counts[LEASED], 0)
  local wanted = min(lease_max, SESSION_LEASES_MAX - session.holds, room)
  if wanted == 0 then return nil, 'limit_reached' end
  local alone = session.holds == 0 and next_alone()
  if alone then return { alone } end
  local chosen = take_first(min(wanted, LEASES_A_STEP))
  if #chosen > 0 then return chosen end
  -- Only cancelled items were looked at: the rest comes with the next call.
  if q.counts[READY] > q.alone then return nil, 'nothing_ready', 0 end
  if q.alone > 0 then return nil, 'last_attempt_alone' end
  if q.counts[DELAYED] > 0 and q.counts[LEASED] == 0 then return nil, 'delayed' end
  return nil, 'nothing_ready'
end

local function lease(session)
  if number == session.request then return repeat_last(session) end
  local chosen, reason, retry_ms = choose(session)
  if not chosen then return wait(reason, retry_ms) end
  local token = max(now_us, q.lease + 1)
  q.lease = token
  local rows = {}
  for n, item in ipairs(chosen) do
    withdraw(item)
    item.place, item.session, item.started, item.lost = IS_LEASED, session.id, false, false
    item.lease, item.attempt, item.leased = token, item.attempts + 1, now_ms
    q.counts[LEASED] = q.counts[LEASED] + 1
    if is_suspect(item) then session.suspects = session.suspects + 1 end
    later(K.holds, item.id, session.no)
    -- What it has again is not lost to it any more.
    set_lost(session, item.id, nil)
    if n <= starting then start_item(item) end
    rows[3 * n - 2], rows[3 * n - 1], rows[3 * n] = item.id, item.attempt, item.text
  end
  q.first_lease = q.first_lease or now_ms
  session.holds = session.holds + #chosen
  session.request, session.lease = number, token
  sessions_changed[session.id] = session
  return { false, digits(token), rows }
end

local function exchange()
  worker, session_id, nonce, uid, draws = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
  number, lease_max, starting = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
  wait_ms, leave = tonumber(ARGV[13]), ARGV[14] == '1'
  started_count, settle_count = tonumber(ARGV[15]), tonumber(ARGV[16])

  if not q then
    return { -1, '0', {}, 0, 'absent', uid ~= '' and tombstone(uid) or false }
  end
  if uid ~= '' and uid ~= q.uid then return { -1, '0', {}, 0, 'gone', tombstone(uid) } end
  draws_used, new_results = 0, {}

  local settles = parse_settles()
  begin()

  local open, session_end = nil, false
  if session_id ~= '' then
    local session = session_of(session_id)
    if session and session.worker == worker then
      open = session
    else
      session_end = end_of_session(session_id)
    end
  elseif nonce ~= '' then
    local session = session_of_worker(worker)
    if session and session.nonce == nonce then
      open = session
    else
      session_end = end_of_first_call(worker, nonce)
    end
  end
  if number ~= '' then
    local last = open and open.request or NO_REQUEST
    if number == NO_REQUEST or number < last then
      return complete('out_of_order', last)
    end
  end
  local statuses = settle_all(open, settles)
  if open then start_all(open) end
  local session, answer = open, false
  local opening = not open and session_id == '' and not session_end
  if opening and number ~= '' and not leave and not q.ended then
    local revoked
    session, revoked = open_session()
    answer = revoked or false
  end
  local lost_ids, session_shown = {}, false
  if session then
    session_shown = session.id
    if number ~= '' and not q.ended and not leave then answer = lease(session) end
    local waits = nil
    if answer then waits = answer[1] and wait_ms or 0 end
    keep_alive(session, waits)
    lost_ids = sorted_lost(session)
    if leave then
      end_session(session, LEFT, false)
      session_shown, session_end = false, LEFT
    end
  end
  local reply = complete('exchange', q.uid, S.heartbeat, statuses, session_end, session_shown,
    lost_ids, answer)
  if q.ended then
    reply[12] = false
    reply[13] = view(q)
  end
  return reply
end

-- What ends items makes room; it must not be refused when memory runs out.
register('exchange', exchange, { 'allow-oom' })
end
