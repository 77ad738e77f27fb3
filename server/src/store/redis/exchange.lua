-- What workers say: settles, started, lease and leave, in this order.
--
-- ARGV after the common ones: worker, session, nonce, uid, draws, lease number, max, starting,
-- waitMs, leave, count of started, count of settles and of runs of them, progress; then started ids; then for
-- each settle its fixed part, its result or error, and the items it spawns, or for a run of `done`
-- of consecutive items, which come with nothing besides, its fixed part, lengths, and results.

do
local END_DONE, page_of, record, prefetch, slots_set, shares_of, prefetch_shares, find, set_ends,
  set_end, attempts_max, is_suspect, must_run_alone, make_ready, make_delayed, bury, leave_share,
  unshare, withdraw, start_shared =
  Items.END_DONE, Items.page_of, Items.record, Items.prefetch, Items.slots_set, Items.shares_of,
  Items.prefetch_shares, Items.find, Items.set_ends, Items.set_end, Items.attempts_max,
  Items.is_suspect, Items.must_run_alone, Items.make_ready, Items.make_delayed, Items.bury,
  Items.leave_share, Items.unshare, Items.withdraw, Items.start_shared
local END, ASK_AGAIN_MS, NO_REQUEST, session_of, session_of_worker, set_lost, sorted_lost,
  held_page, held_by, extend, end_of_session, end_of_first_call, remember, remembers, end_session,
  end_queue =
  Sessions.END, Sessions.ASK_AGAIN_MS, Sessions.NO_REQUEST, Sessions.session_of,
  Sessions.session_of_worker, Sessions.set_lost, Sessions.sorted_lost, Sessions.held_page,
  Sessions.held_by, Sessions.extend, Sessions.end_of_session, Sessions.end_of_first_call,
  Sessions.remember, Sessions.remembers, Sessions.end_session, Sessions.end_queue

local STATUS = { ok = 0, already_settled = 1, stale = 2, cancelled = 3, unknown = 4, over = 5 }
local OUTCOME = { done = 0, retry = 1, dead = 2 }
local worker, draws, draws_used, nonce
local ask -- the other arguments
local new_results, sums

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

local settle_all
do
local SETTLE = '>BBBI2I6I8I6'
local SETTLE_BYTES = 25
-- A run of settles: what marks it, how many, first id, lease; then the sum of the hashes and these.
local RUN, RUN_OF = '>BI2I6I8', 255
local RUN_BYTES = 17
local TOOK_ROWS = 32
local NO_KEY = '\255\255'
-- After so many results, or bytes of them, it is noted how many came before.
local MARK = { results = 256, bytes = 65536 }

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
  if why == 'unknown' then return STATUS.unknown end
  if why == 'done' then return STATUS.already_settled end
  if why == 'cancelled' then return STATUS.cancelled end
  if item.lease ~= settle.lease or settle.lease == 0 then return STATUS.stale end
  if item.place == PLACE.leased then return STATUS.ok end
  if not item.lost then return STATUS.already_settled end
  if settle.outcome == OUTCOME.done or settle.outcome == OUTCOME.dead then return STATUS.ok end
  return STATUS.stale
end

-- The key of an item as it stands before its result.
local function key_before_result(id)
  local text = record(id)
  local first, at = byte(text), 2
  if band(first, HAS.key) == 0 then return NO_KEY end
  -- The key stands behind the fixed fields of the record.
  if band(first, HAS.time_limit) > 0 then at = at + 6 end
  if band(first, HAS.max_attempts) > 0 then at = at + 2 end
  return sub(text, at, at + 1 + parse('>I2', text, at))
end

-- Takes results of consecutive items that were leased alike, and may have keys, as one row; returns
-- how they ended.
local function record_results(first, count, like, sum, lengths, text)
  local took = max(now_ms - like.leased, 0)
  local _, digits_of_it = math.frexp(took)
  local at, tooks = 4 * min(digits_of_it, TOOK_ROWS - 1), q.took
  if #tooks <= at then tooks = tooks .. rep('\0', at + 4 - #tooks) end
  q.took = sub(tooks, 1, at) .. pack('>I4', parse('>I4', tooks, at + 1) + count)
    .. sub(tooks, at + 5)
  sums[#sums + 1] = sum
  -- From time to time it is noted how many results come before a row.
  if q.results - q.marked >= MARK.results or q.bytes - q.marked_bytes >= MARK.bytes then
    later(K.marks, digits(q.rows), q.results)
    q.marked, q.marked_bytes = q.results, q.bytes
  end
  q.bytes, q.results, q.rows = q.bytes + #text, q.results + count, q.rows + 1
  q.counts[DONE] = q.counts[DONE] + count
  q.last_done = now_ms
  local keys = 0
  if like.key then
    local texts, lengths_with_keys, from = {}, {}, 1
    for n = 1, count do
      local key, length = key_before_result(first + n - 1), #text
      if count > 1 then length = parse('>I4', lengths, 4 * n - 3) end
      texts[n] = key .. sub(text, from, from + length - 1)
      lengths_with_keys[n] = pack('>I4', #texts[n])
      if key ~= NO_KEY then keys = 1 end
      from = from + length
    end
    if keys == 1 then text, lengths = table.concat(texts), table.concat(lengths_with_keys) end
  end
  new_results[#new_results + 1] = pack('>I2I6I2I6B', count, first, like.attempt, took, keys)
    .. (count > 1 and lengths or '') .. text
  return pack('>I4', END_DONE + q.rows)
end

local function record_result(id, item, hash, result)
  set_end(id, item, record_results(id, 1, item, hash, nil, result))
end

-- Adds up what is to come to the digest, limb by limb; the carries come last.
local function add_digest()
  if #sums == 0 then return end
  local d = { parse(LIMBS, q.digest) }
  for _, sum in ipairs(sums) do
    local a, b, c, e, f, g, h, i = parse(LIMBS, sum)
    d[1], d[2], d[3], d[4] = d[1] + a, d[2] + b, d[3] + c, d[4] + e
    d[5], d[6], d[7], d[8] = d[5] + f, d[6] + g, d[7] + h, d[8] + i
  end
  local carry = 0
  for at = 8, 1, -1 do
    local total = d[at] + carry
    carry = floor(total / 4294967296)
    d[at] = total % 4294967296
  end
  q.digest = pack(LIMBS, unpack(d))
end

local function backoff(failures)
  local doublings = min(max(failures - 1, 0), 32)
  return draw_up_to(min(S.base * 2 ^ doublings, S.cap))
end

-- Settles one lease; returns what became of it, and whether it changed anything.
local function settle_one(session, settle)
  local status = judge(settle)
  if status ~= STATUS.ok then
    if session then
      if remembers(session, settle.id, settle.lease, settle.outcome) then return STATUS.ok, false end
      set_lost(session, settle.id, nil)
    end
    return status, false
  end
  if q.ended then return STATUS.over, false end
  local item, outcome, delay = items[settle.id], settle.outcome, settle.delay
  local exhausted = false
  if outcome == OUTCOME.retry then
    local failures = item.attempts + 1
    if failures >= attempts_max(item) then
      exhausted = true
    elseif not settle.has_delay then
      delay = backoff(failures)
    end
  end
  local is_failed = outcome == OUTCOME.retry or outcome == OUTCOME.dead
  local text = is_failed and settle.has_error and settle.text or nil
  Attempts.note(item, outcome, Sessions.worker_of(item.session), text)
  withdraw(item)
  if outcome == OUTCOME.done then
    record_result(item.id, item, settle.hash, settle.text)
  elseif outcome == OUTCOME.dead or exhausted then
    -- A late settle names an attempt that its loss may have counted already.
    item.attempts, item.error, item.lost = max(item.attempts, item.attempt), text, false
    bury(item)
  elseif outcome == OUTCOME.retry then
    item.attempts, item.error = item.attempts + 1, text
    q.retried = q.retried + 1
    if delay > 0 then make_delayed(item, now_ms + delay) else make_ready(item) end
  else
    make_ready(item)
  end
  if session then
    -- What was sent, exhausted or not: its repeat says the same.
    remember(session, settle.id, settle.lease, outcome, 1)
    set_lost(session, settle.id, nil)
    if outcome == OUTCOME.done then session.done = session.done + 1 end
  end
  if outcome == OUTCOME.done and settle.spawned > 0 then
    local _, fresh = Adding.sort_out(settle.spawn_at, settle.spawn_at + settle.spawned - 1)
    Adding.add(fresh)
  end
  return STATUS.ok, true
end

-- The run of settles whose fixed part stands at this argument.
local function run_at(at)
  local fixed, run = ARGV[at], { fixed = ARGV[at] }
  local _
  _, run.count, run.first, run.lease = parse(RUN, fixed)
  run.last = run.first + run.count - 1
  run.lengths, run.text = ARGV[at + 1], ARGV[at + 2]
  return run
end

-- The items of a run that share a lease of this session, page by page; nil unless all of them do.
local function shared_parts(session, run)
  local parts = {}
  if run.last > q.len or run.first < 1 then return nil end
  for number = page_of(run.first), page_of(run.last) do
    local part = {
      number = number, slot = max(run.first - number * PAGE, 1),
      last_slot = min(run.last - number * PAGE, PAGE),
    }
    local set = slots_set(part.slot, part.last_slot)
    if peeked[number] then return nil end
    for _, share in ipairs(shares_of(number)) do
      if share.lease == run.lease and share.session == session.id
        and bit.tobit(set) == band(share.set, set) then
        part.share, part.set = share, set
      end
    end
    if not part.share then return nil end
    parts[#parts + 1] = part
  end
  return parts
end

-- Settles a run of which all share a lease of this session, which lost nothing: what most settles
-- are. Mirrors `settle_one`.
local function settle_shared(session, run, parts)
  local share = parts[1].share
  local like = { attempt = 1, leased = share.leased, key = false }
  for _, part in ipairs(parts) do like.key = like.key or part.share.kind >= HAS.key end
  local sum = sub(run.fixed, RUN_BYTES + 1, RUN_BYTES + 32)
  local ending = record_results(run.first, run.count, like, sum, run.lengths, run.text)
  for _, part in ipairs(parts) do
    set_ends(part.number, part.slot, part.last_slot, rep(ending, part.last_slot - part.slot + 1))
    leave_share(part.number, part.share, part.set)
  end
  session.holds = session.holds - run.count
  if session.holds == 0 then session.idle = q.stepped end
  q.counts[LEASED] = q.counts[LEASED] - run.count
  remember(session, run.first, run.lease, OUTCOME.done, run.count)
  session.done = session.done + run.count
end

local function settle_each(session, run, statuses)
  local ids, at = {}, 1
  for n = 1, run.count do ids[n] = run.first + n - 1 end
  prefetch(ids)
  for n, id in ipairs(ids) do
    local length = parse('>I4', run.lengths, 4 * n - 3)
    local status = settle_one(session, {
      outcome = OUTCOME.done, stop = 0, spawned = 0, id = id, lease = run.lease, delay = 0,
      hash = sub(run.fixed, RUN_BYTES + 32 * n + 1, RUN_BYTES + 32 * n + 32),
      text = sub(run.text, at, at + length - 1),
    })
    at = at + length
    statuses[#statuses + 1] = string.char(status)
  end
end

settle_all = function(session)
  if ask.settles == 0 then return '' end
  local runs, places, ids, numbers, statuses, stop = {}, {}, {}, {}, {}, 0
  local at = 18 + ask.started
  for n = 1, ask.settles do
    places[n] = at
    if byte(ARGV[at]) == RUN_OF then
      local run = run_at(at)
      runs[n] = run
      for number = page_of(run.first), page_of(run.last) do numbers[#numbers + 1] = number end
      at = at + 3
    else
      local _, _, _, spawned, id = parse(SETTLE, ARGV[at])
      ids[#ids + 1] = id
      at = at + 2 + spawned
    end
  end
  prefetch(ids)
  prefetch_shares(numbers)
  for n = 1, ask.settles do
    local run = runs[n]
    if run then
      local parts = session and session.lost == 0 and not q.ended and shared_parts(session, run)
      if parts then
        settle_shared(session, run, parts)
        statuses[#statuses + 1] = rep('\0', run.count)
      else
        settle_each(session, run, statuses)
      end
    else
      local settle = settle_at(places[n])
      local status, counted = settle_one(session, settle)
      statuses[#statuses + 1] = string.char(status)
      if counted and stop == 0 then stop = settle.stop end
    end
  end
  in_parts('RPUSH', K.results, new_results)
  add_digest()
  if stop ~= 0 and not q.ended then
    end_queue('stopped', 'worker', stop == 1 and 'success' or 'failure', nil, worker)
  end
  return table.concat(statuses)
end
end

-- Notes that a leased item runs; its time limit begins now.
local function start_item(item)
  if item.started then return end
  item.started = true
  local limit = item.limit > 0 and item.limit or S.limit
  if item.share and limit == 0 then return start_shared(item) end
  if unshare(item) then later(K.holds, item.id, session_of(item.session).no) end
  if limit > 0 then
    item.deadline = q.time + limit + S.session
    later(K.limits, item.id, item.deadline)
    q.limits = q.limits + 1
  end
  changed[item.id] = item
end

local function start_all(session)
  if q.ended or ask.started == 0 then return end
  local ids = {}
  for n = 1, ask.started do ids[n] = tonumber(ARGV[17 + n]) end
  prefetch(ids)
  for _, id in ipairs(ids) do
    local item = find(id)
    if item and item.place == PLACE.leased and item.session == session.id then start_item(item) end
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
  if older then end_session(older, END.replaced, true) end
  local id = string.format('%04x%04x%04x%04x', parse('>I2I2I2I2', draw()))
  q.serial, q.sessions = q.serial + 1, q.sessions + 1
  local session = {
    id = id, worker = worker, nonce = nonce ~= '' and nonce or nil, no = q.serial,
    deadline = 0, waits = 0, holds = 0, suspects = 0, lost = 0, request = NO_REQUEST, lease = 0,
    answers = 0, entries = 0, recent = '', done = 0, opened = now_ms, idle = now_ms,
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

-- Items of a lease: the first id, which attempt it is, offsets if there are several, how many bytes
-- stand before the records, records.
local function add_row(rows, id, attempt, offsets, skipped, text)
  local at = #rows
  rows[at + 1], rows[at + 2], rows[at + 3], rows[at + 4] = id, attempt, offsets, skipped
  rows[at + 5] = text
end

-- What is left of the items that the last request got.
local function repeat_last(session)
  local rows = {}
  if session.holds > 0 then
    for _, id in ipairs(held_by(session)) do
      local item = items[id]
      if item.lease == session.lease then
        add_row(rows, id, item.attempt, '', 0, record(id))
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
  local wanted = min(ask.max, MOST.leases - session.holds, room)
  if wanted == 0 then return nil, 'limit_reached' end
  local alone = session.holds == 0 and Lanes.next_alone()
  if alone then return alone end
  local chosen = Lanes.take_first(wanted)
  if #chosen > 0 then return chosen end
  -- Only cancelled items were looked at: the rest comes with the next call.
  if q.counts[READY] > q.alone then return nil, 'nothing_ready', 0 end
  if q.alone > 0 then return nil, 'last_attempt_alone' end
  if q.counts[DELAYED] > 0 and q.counts[LEASED] == 0 then return nil, 'delayed' end
  return nil, 'nothing_ready'
end

-- Leases some fresh items of a page together.
local function share_out(session, part, slot, last_slot, started, token)
  if slot > last_slot then return end
  local list = shares_of(part.number)
  list[#list + 1] = {
    set = slots_set(slot, last_slot), lease = token, leased = now_ms, kind = part.kind,
    started = started, session = session.id,
  }
  shares_changed[part.number] = true
  later(K.holds, held_page(part.number, session), session.no)
end

local function lease(session)
  local number, starting = ask.number, ask.starting
  if number == session.request then return repeat_last(session) end
  local chosen, reason, retry_ms = choose(session)
  if not chosen then return wait(reason, retry_ms) end
  local token = max(now_us, q.lease + 1)
  q.lease = token
  local rows, numbers, count = {}, {}, 0
  for _, part in ipairs(chosen) do
    -- Of a page whose items are all fresh none is leased.
    if part.count == PAGE then shares[part.number] = {} else numbers[#numbers + 1] = part.number end
  end
  prefetch_shares(numbers)
  for _, part in ipairs(chosen) do
    local item = part.item
    if item then
      withdraw(item)
      item.place, item.session, item.started, item.lost = PLACE.leased, session.id, false, false
      item.lease, item.attempt, item.leased = token, item.attempts + 1, now_ms
      if is_suspect(item) then session.suspects = session.suspects + 1 end
      later(K.holds, item.id, session.no)
      -- What it has again is not lost to it any more.
      set_lost(session, item.id, nil)
      count = count + 1
      if count <= starting then start_item(item) end
      add_row(rows, item.id, item.attempt, '', 0, part.text)
    else
      local running = min(max(starting - count, 0), part.count)
      share_out(session, part, part.slot, part.slot + running - 1, 1, token)
      share_out(session, part, part.slot + running, part.last_slot, 0, token)
      count = count + part.count
      q.counts[READY] = q.counts[READY] - part.count
      add_row(rows, part.first, 1, part.offsets, part.skipped, part.text)
    end
  end
  q.counts[LEASED] = q.counts[LEASED] + count
  q.first_lease = q.first_lease or now_ms
  session.holds = session.holds + count
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
  draws_used, new_results, sums = 0, {}, {}

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
  if open then
    start_all(open)
    Progress.note(open, ARGV[17])
  end
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
      end_session(session, END.left, false)
      session_shown, session_end = false, END.left
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
