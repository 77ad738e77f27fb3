-- What became of attempts at items that were not just done at their first: for each such item a
-- field of `live`. Mirrors `attempts.rs` and `note_attempt` of `state.rs`.

do
-- How attempts ended (`Ending`): by a settle, by their time limit, with their session.
local ENDING = {
  done = 0, retry = 1, dead = 2, release = 3, time_limit = 4, session = 5, disrupted = 9,
}
-- An attempt: how it ended, number, when its lease began and ended, bytes of the worker's name, and
-- one more than bytes of the error, 0 for none of them; then these.
local ATTEMPT = '>BI2I6I6BI2'
local ATTEMPT_BYTES = 1 + 2 + 12 + 1 + 2
-- Attempts of an item, bytes of an error, items that are settled for good.
local KEPT = { attempts = 10, error = 512, settled = 1000 }

local histories, histories_changed, settled_now

resets[#resets + 1] = function() histories, histories_changed, settled_now = {}, {}, {} end

local function field(id) return format('h%d', id) end

-- The attempts at an item as packed, or nil.
local function of(id)
  local list = histories[id]
  if list then return table.concat(list) end
  return call('HGET', K.live, field(id))
end

local function attempts_of(item)
  local list = histories[item.id]
  if list then return list end
  list = {}
  local packed, at = item.tried and call('HGET', K.live, field(item.id)) or '', 1
  while at <= #packed do
    local _, _, _, _, worker, error = parse(ATTEMPT, packed, at)
    local next_at = at + ATTEMPT_BYTES + worker + max(error - 1, 0)
    list[#list + 1] = sub(packed, at, next_at - 1)
    at = next_at
  end
  histories[item.id] = list
  return list
end

local function cut(text)
  if #text <= KEPT.error then return text end
  local at = #text - KEPT.error + 1
  -- Not within a character.
  while band(byte(text, at), 192) == 128 do at = at + 1 end
  return sub(text, at)
end

local function note(item, ending, worker, text)
  local is_held, is_settled = item.place == PLACE.leased, ending <= ENDING.dead
  if ending == ENDING.done and not item.tried then return end
  if is_held and not is_settled and not item.started then return end
  local list = attempts_of(item)
  if not is_held then
    -- A late settle: what was noted of this attempt is not how it ended.
    local last = list[#list]
    worker = nil
    if last then
      local how, attempt, leased, _, name = parse(ATTEMPT, last)
      if how > ENDING.release and attempt == item.attempt and leased == item.leased then
        worker = sub(last, ATTEMPT_BYTES + 1, ATTEMPT_BYTES + name)
        list[#list] = nil
      end
    end
  end
  worker, text = worker or '', text and cut(text)
  if #list == KEPT.attempts then table.remove(list, 1) end
  list[#list + 1] = pack(ATTEMPT, ending, item.attempt, item.leased, now_ms, #worker,
    text and #text + 1 or 0) .. worker .. (text or '')
  histories_changed[item.id], item.tried = true, true
end

local function settle(id) settled_now[#settled_now + 1] = id end

local function complete()
  if not next(histories_changed) and #settled_now == 0 then return end
  local written, removed = {}, {}
  for id in pairs(histories_changed) do
    written[#written + 1], written[#written + 2] = field(id), table.concat(histories[id])
  end
  in_parts('HSET', K.live, written)
  -- Those that are settled for good form a ring.
  for _, id in ipairs(settled_now) do
    local place = 's' .. call('HINCRBY', K.live, 'settled', 1) % KEPT.settled
    local oldest = call('HGET', K.live, place)
    if oldest then removed[#removed + 1] = field(oldest) end
    call('HSET', K.live, place, id)
  end
  in_parts('HDEL', K.live, removed)
end

-- What the other files use.
Attempts = { ENDING = ENDING, note = note, of = of, settle = settle, complete = complete }
end
