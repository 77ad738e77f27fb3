-- How far sessions say that they are with what they hold: a field for each session that ever did, beside
-- its answers. Costs nothing as long as nobody says anything. Mirrors `note_progress` of `sessions.rs`.

do
local find, session_of = Items.find, Sessions.session_of
-- What is said: id, lease, fraction as a double, one more than bytes of text, 0 for none.
local SAID = '>I6I8c8B'
local SAID_BYTES = 6 + 8 + 8 + 1
-- What is kept: with the time behind the fraction.
local KEPT = '>I6I8c8I6B'
local KEPT_BYTES = SAID_BYTES + 6
-- What stands before what a look shows of it.
local BEFORE_SHOWN = 6 + 8

local known -- by session, then by item: lease and all of it, packed

resets[#resets + 1] = function() known = {} end

local function field(session) return format('progress:%d', session.no) end

local function known_of(session)
  local list = known[session.id]
  if list then return list end
  list = {}
  local packed, at = call('HGET', K.answers, field(session)) or '', 1
  while at <= #packed do
    local id, lease, _, _, text = parse(KEPT, packed, at)
    local next_at = at + KEPT_BYTES + max(text - 1, 0)
    list[id] = { lease = lease, packed = sub(packed, at, next_at - 1) }
    at = next_at
  end
  known[session.id] = list
  return list
end

-- What a look at a leased item shows, or false.
local function of(item)
  local session = session_of(item.session)
  local one = session and known_of(session)[item.id]
  return one and one.lease == item.lease and sub(one.packed, BEFORE_SHOWN + 1) or false
end

-- Tells whether a session holds an item under this lease.
local function holds(session, id, lease)
  local item = find(id)
  return item and item.place == PLACE.leased and item.session == session.id and item.lease == lease
end

-- Takes in what a session says; what it no longer holds is forgotten.
local function note(session, said)
  if q.ended or said == '' then return end
  local list, at = known_of(session), 1
  while at <= #said do
    local id, lease, fraction, text = parse(SAID, said, at)
    local next_at = at + SAID_BYTES + max(text - 1, 0)
    if holds(session, id, lease) then
      list[id] = {
        lease = lease,
        packed = pack(KEPT, id, lease, fraction, now_ms, text) .. sub(said, at + SAID_BYTES, next_at - 1),
      }
    end
    at = next_at
  end
  local ids, kept_now = {}, {}
  for id, one in pairs(list) do
    if holds(session, id, one.lease) then ids[#ids + 1] = id else list[id] = nil end
  end
  table.sort(ids)
  for n, id in ipairs(ids) do kept_now[n] = list[id].packed end
  call('HSET', K.answers, field(session), table.concat(kept_now))
end

-- What the other files use.
Progress = { field = field, of = of, note = note }
end
