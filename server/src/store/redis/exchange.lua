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
local TOOK_ROWS = 32
local LIMBS = '>I4I4I4I4I4I4I4I4'

local worker, draws, draws_used, nonce
local ask -- the other arguments
local new_results, held_no_more

-- The next random number of this step, as 8 bytes.
local function draw()
  draws_used = draws_used + 1
  return sub(draws, draws_used * 8 - 7, draws_used * 8)
end

-- A random number from 0 to `most`, both included. Sixteen bits at a time: doubles hold 53.
local function draw_up_to(most)
  local limbs, rest = { parse('>I2I2I2I2', draw()) }, 0
  for at = 1, 4 do rest = math.fmod(rest * 65536 + limbs[at], most + 1) end
  return rest
end

-- The settle whose fixed part stands at this argument.
local function settle_at(at)
  local settle, fixed, flags = {}, ARGV[at], nil
  settle.outcome, settle.stop, flags, settle.spawned, settle.id, settle.lease, settle.delay =
    parse(SETTLE, fixed)
  settle.has_delay, settle.has_error = flags % 2 == 1, floor(flags / 2) % 2 == 1
  settle.hash, settle.text = sub(fixed, SETTLE_BYTES + 1), ARGV[at + 1]
  settle.spawn_at = at + 2
  return settle
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

-- Takes a result; `item` says how the item was leased.
local function record_result(id, item, hash, result)
  q.bytes = q.bytes + #result
  local head = item.result_head
  if not head then
    local took = max(now_ms - item.leased, 0)
    head = pack('>I2I6', item.attempt, took)
    local _, digits_of_it = math.frexp(took)
    item.result_head, item.took_row = head, min(digits_of_it, TOOK_ROWS - 1) + 1
  end
  local rows = q.took
  for n = #rows + 1, item.took_row do rows[n] = 0 end
  rows[item.took_row] = rows[item.took_row] + 1
  if item.key then
    -- The key stands behind the fixed fields of the record.
    local text = record(id)
    local first, at = byte(text), 2
    if floor(first / 32) % 2 == 1 then at = at + 6 end
    if floor(first / 64) % 2 == 1 then at = at + 2 end
    result = '\1' .. sub(text, at, at + 1 + parse('>I2', text, at)) .. result
  else
    result = '\0\0\0' .. result
  end
  new_results[#new_results + 1] = pack('>I6', id) .. head .. result
  q.results = q.results + 1
  set_end(id, item, q.results)
  -- Summed up limb by limb; the carries come at the end of the step.
  local d, a, b, c, e, f, g, h, i = q.digest, parse(LIMBS, hash)
  d[1], d[2], d[3], d[4] = d[1] + a, d[2] + b, d[3] + c, d[4] + e
  d[5], d[6], d[7], d[8] = d[5] + f, d[6] + g, d[7] + h, d[8] + i
  q.counts[DONE] = q.counts[DONE] + 1
  q.last_done = now_ms
end

local function carry_digest()
  local carry = 0
  for at = 8, 1, -1 do
    local total = q.digest[at] + carry
    carry = floor(total / 4294967296)
    q.digest[at] = total % 4294967296
  end
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
    record_result(item.id, item, settle.hash, settle.text)
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

-- What most settles are: a `done` of what this session holds, with nothing besides. `like` is how
-- the item was leased, which all of its lease have in common. Mirrors `settle_one`.
local function settle_plain(session, id, like, at)
  held_no_more[#held_no_more + 1] = id
  session.holds = session.holds - 1
  if session.holds == 0 then session.idle = q.stepped end
  q.counts[LEASED] = q.counts[LEASED] - 1
  record_result(id, like, sub(ARGV[at], SETTLE_BYTES + 1), ARGV[at + 1])
  remember(session, id, like.lease, IS_DONE)
  session.done = session.done + 1
end

local function is_plain(session, lease, like)
  return like.place == IS_LEASED and like.lease == lease and like.session == session.id
    and like.deadline == 0 and not is_suspect(like)
end

local function settle_all(session)
  local places, ids, leases, statuses, stop = {}, {}, {}, {}, 0
  local at = 17 + ask.started
  for n = 1, ask.settles do
    local outcome, stops, _, spawned, id, lease = parse(SETTLE, ARGV[at])
    places[n], ids[n] = at, id
    if outcome == IS_DONE and stops == 0 and spawned == 0 then leases[n] = lease end
    at = at + 2 + spawned
  end
  local stored = fetch(ids)
  local likes = {}
  local may_be_plain = session and session.lost == 0 and not q.ended
  for n = 1, ask.settles do
    local id, lease, packed, like = ids[n], leases[n], stored[n], nil
    if may_be_plain and lease and packed and not items[id] and not gone_items[id] then
      like = likes[packed]
      if like == nil then
        like = unpack_item(id, packed)
        likes[packed] = like
      end
    end
    if like and is_plain(session, lease, like) then
      settle_plain(session, id, like, places[n])
      statuses[n] = OK
    else
      if packed and not items[id] and not gone_items[id] then
        items[id] = unpack_item(id, packed)
      end
      local settle, counted = settle_at(places[n]), nil
      statuses[n], counted = settle_one(session, settle)
      if counted and stop == 0 then stop = settle.stop end
      may_be_plain = may_be_plain and session.lost == 0
    end
  end
  in_parts('ZREM', K.holds, held_no_more)
  in_parts('RPUSH', K.results, new_results)
  carry_digest()
  if stop ~= 0 and not q.ended then
    end_queue('stopped', 'worker', stop == 1 and 'success' or 'failure', nil, worker)
  end
  return statuses
end

-- Notes that a leased item runs; its time limit begins now.
local function start_item(item)
  if item.started then return end
  item.started = true
  local limit = item.limit > 0 and item.limit or S.limit
  if limit > 0 then
    item.deadline = q.time + limit + S.session
    later(K.limits, item.id, item.deadline)
    q.limits = q.limits + 1
  end
  changed[item.id] = item
end

local function start_all(session)
  if q.ended then return end
  local ids = {}
  for n = 1, ask.started do ids[n] = tonumber(ARGV[16 + n]) end
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
  local id = string.format('%04x%04x%04x%04x', parse('>I2I2I2I2', draw()))
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
  return { false, digits(session.lease), S.limit, rows }
end

-- Chooses at least one item, or says why there is none.
local function choose(session)
  if q.paused then return nil, 'paused' end
  if q.bytes >= S.results then return nil, 'results_full' end
  if session.suspects > 0 then
    for _, id in ipairs(held_by(session)) do
      if must_run_alone(items[id]) then return nil, 'last_attempt_alone' end
    end
  end
  local room = max(S.leased - q.counts[LEASED], 0)
  local wanted = min(ask.max, SESSION_LEASES_MAX - session.holds, room)
  if wanted == 0 then return nil, 'limit_reached' end
  local alone = session.holds == 0 and next_alone()
  if alone then return alone end
  local chosen = take_first(min(wanted, LEASES_A_STEP))
  if #chosen.ids > 0 then return chosen end
  -- Only cancelled items were looked at: the rest comes with the next call.
  if q.counts[READY] > q.alone then return nil, 'nothing_ready', 0 end
  if q.alone > 0 then return nil, 'last_attempt_alone' end
  if q.counts[DELAYED] > 0 and q.counts[LEASED] == 0 then return nil, 'delayed' end
  return nil, 'nothing_ready'
end

local function lease(session)
  local number, starting = ask.number, ask.starting
  if number == session.request then return repeat_last(session) end
  local chosen, reason, retry_ms = choose(session)
  if not chosen then return wait(reason, retry_ms) end
  local token = max(now_us, q.lease + 1)
  q.lease = token
  local rows, written, held, packed_as = {}, {}, {}, {}
  for n, id in ipairs(chosen.ids) do
    local item, text, attempt = chosen[n], chosen.texts[n], 1
    if item then
      withdraw(item)
      item.place, item.session, item.started, item.lost = IS_LEASED, session.id, false, false
      item.lease, item.attempt, item.leased = token, item.attempts + 1, now_ms
      if is_suspect(item) then session.suspects = session.suspects + 1 end
      later(K.holds, id, session.no)
      -- What it has again is not lost to it any more.
      set_lost(session, id, nil)
      if n <= starting then start_item(item) end
      attempt = item.attempt
    else
      -- Of these all with the same first byte are kept alike.
      local kind = byte(text) * 2 + (n <= starting and 1 or 0)
      local packed = packed_as[kind]
      if not packed then
        local like = new_item(id, text)
        like.place, like.session, like.started = IS_LEASED, session.id, n <= starting
        like.lease, like.attempt, like.leased = token, 1, now_ms
        packed = pack_item(like)
        packed_as[kind] = packed
      end
      if items[id] then items[id] = nil end
      local at = #written
      written[at + 1], written[at + 2] = id, packed
      held[at + 1], held[at + 2] = session.no, id
    end
    rows[3 * n - 2], rows[3 * n - 1], rows[3 * n] = id, attempt, text
  end
  in_parts('HSET', K.live, written)
  in_parts('ZADD', K.holds, held)
  q.counts[READY] = q.counts[READY] - #written / 2
  q.counts[LEASED] = q.counts[LEASED] + #chosen.ids
  q.first_lease = q.first_lease or now_ms
  session.holds = session.holds + #chosen.ids
  session.request, session.lease = number, token
  sessions_changed[session.id] = session
  return { false, digits(token), S.limit, rows }
end

local function exchange()
  worker, nonce, draws = ARGV[5], ARGV[7], ARGV[9]
  local session_id, uid, number, leave = ARGV[6], ARGV[8], ARGV[10], ARGV[14] == '1'
  ask = {
    number = number, max = tonumber(ARGV[11]), starting = tonumber(ARGV[12]),
    wait_ms = tonumber(ARGV[13]), started = tonumber(ARGV[15]), settles = tonumber(ARGV[16]),
  }

  if not q then
    return { -1, '0', {}, 0, 'absent', uid ~= '' and tombstone(uid) or false }
  end
  if uid ~= '' and uid ~= q.uid then return { -1, '0', {}, 0, 'gone', tombstone(uid) } end
  draws_used, new_results, held_no_more = 0, {}, {}

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
  local statuses = settle_all(open)
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
    if answer then waits = answer[1] and ask.wait_ms or 0 end
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
