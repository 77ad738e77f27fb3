-- Phases, settings, and what people and the controller do to a queue or an item.
--
-- ARGV after the common ones: what to do, then its arguments.

do
local CANCELLED_END, prefetch, find, set_end, make_ready, withdraw, item_row =
  Items.CANCELLED_END, Items.prefetch, Items.find, Items.set_end, Items.make_ready, Items.withdraw,
  Items.item_row
local END, REVOKED_MS, session_of, worker_of, session_of_worker, set_lost, end_session, end_queue =
  Sessions.END, Sessions.REVOKED_MS, Sessions.session_of, Sessions.worker_of,
  Sessions.session_of_worker, Sessions.set_lost, Sessions.end_session, Sessions.end_queue

local function show(id)
  local row = item_row(id, worker_of)
  if not row then return complete('item_not_found') end
  return complete('item', row)
end

local acts = {}

acts.configure = function()
  if not q.ended then
    configure(settings_of(ARGV[8]))
    return complete('status')
  end
  return complete('over', q.uid)
end

acts.seal = function()
  if not q.ended then q.sealed = true end
  return complete('status')
end

acts.pause = function()
  if q.ended then return complete('over', q.uid) end
  q.paused = ARGV[6] == '1'
  return complete('status')
end

-- Ends the queue, unless it is over already: then its end stays what it was.
acts.stop = function()
  if not q.ended then
    local reason, by = ARGV[8] == '1' and ARGV[9] or nil, ARGV[10] == '1' and ARGV[11] or nil
    end_queue('stopped', ARGV[6], ARGV[7], reason, by)
  end
  return complete('status')
end

acts.delete = function()
  if not q.ended then end_queue('stopped', 'deleted', 'failure') end
  local reply = complete('status')
  reply[4] = 1
  reply[6] = view(q)
  remove()
  return reply
end

acts.cancel = function()
  local id = tonumber(ARGV[6])
  local item, why = find(id)
  if why == 'unknown' then return complete('item_not_found') end
  if not item then return show(id) end
  if q.ended then return complete('over', q.uid) end
  local holder = item.place == PLACE.leased and session_of(item.session)
  -- A fresh item stays in its lane, where it is skipped.
  if item.place == PLACE.fresh then
    q.ghosts[item.priority + 1] = q.ghosts[item.priority + 1] + 1
  end
  withdraw(item)
  set_end(id, item, CANCELLED_END)
  q.counts[CANCELLED] = q.counts[CANCELLED] + 1
  if holder then
    set_lost(holder, id, true)
    news[#news + 1] = holder.id
  end
  return show(id)
end

acts.redrive = function()
  if q.ended then return complete('over', q.uid) end
  local wanted, count, ids = tonumber(ARGV[6]), 0, {}
  if wanted > 0 then
    -- The sweep of this very step may have left some.
    write_pending(K.dead)
    ids = call('ZRANGE', K.dead, 0, wanted - 1)
  else
    for at = 7, #ARGV do ids[at - 6] = ARGV[at] end
  end
  for at = 1, #ids do ids[at] = tonumber(ids[at]) end
  prefetch(ids)
  for _, id in ipairs(ids) do
    local item = find(id)
    if item and item.place == PLACE.dead then
      withdraw(item)
      item.attempts, item.lost_attempts = 0, 0
      make_ready(item)
      count = count + 1
    end
  end
  return complete('redriven', count)
end

acts.revoke = function()
  local worker, counted = ARGV[6], ARGV[7] == '1'
  local session = session_of_worker(worker)
  if session then end_session(session, END.revoked, counted) end
  local revoked_until = tonumber(call('ZSCORE', K.revoked, worker) or 0)
  if session or revoked_until <= now_ms then
    call('ZREMRANGEBYSCORE', K.revoked, '-inf', now_ms)
    call('ZADD', K.revoked, now_ms + REVOKED_MS, worker)
  end
  return complete('revoked', session and session.id or false)
end

acts.tick = function() return complete('ticked') end

local function control()
  local act = ARGV[5]

  if not q then
    local may_create = (act == 'seal' or act == 'configure')
    if not may_create then return { -1, '0', {}, 0, act == 'tick' and 'ticked' or 'not_found' } end
    if ARGV[7] ~= '1' then return { -1, '0', {}, 0, 'too_many' } end
    if act == 'configure' and ARGV[9] ~= '' then return { -1, '0', {}, 0, 'changed' } end
    create(ARGV[6], settings_of(ARGV[8]))
  elseif act == 'configure' and ARGV[9] ~= table.concat(q.settings, ' ') .. ' ' then
    -- The new settings were made from others than these.
    return { -1, '0', {}, 0, 'changed' }
  end

  if act == 'tick' then
    local due = next_due(true)
    if not is_behind() and (not due or due > now_ms) then
      return { delay_of(due), '0', {}, 0, 'ticked' }
    end
    if q.ended and now_ms >= q.ended.at + S.retention then
      remove()
      return { -1, '0', {}, 1, 'ticked' }
    end
  end

  begin()
  local reply = acts[act]()
  if reply[5] == 'status' or reply[5] == 'over' then
    reply[6] = reply[6] or view(q)
    if reply[5] == 'over' then reply[6], reply[7] = q.uid, view(q) end
  end
  return reply
end

register('control', control, { 'allow-oom' })
end
