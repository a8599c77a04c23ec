-- The board on Redis: one script, so that every operation is one atomic step and one round trip.
-- All input of a caller is in ARGV and stays data. All keys have one hash tag, hence one cluster slot.
--
-- KEYS  1 life     hash    the incarnation, its server, the counter of all versions, and the incarnation that holds
--                          all values that earlier ones acknowledged (`complete`)
--       2 changes  stream  id = counter: the changed key, for `watch`
--       3 index    zset    keys with a value
--       4 past     stream  id = counter: every value of this key, the newest last; the newest is the value
--       5 answers  hash    op_id -> the answer to the first call
--       6 order    list    the op_ids in `answers`, newest first
-- ARGV  1 operation  2 key  3 op_id  4 writer  5… arguments of the operation
--
-- adapters/redis/board.py puts the limits (HISTORY_MAX and so on) before this text, from core/board/rules.py.
--
-- Returns {'entry', value, version, at_ms, by}, {'answer', …}, {'absent'}, {'conflict', current version},
-- {'incomplete'} or {'invalid', reason, …}. The answer of each write is kept under its op_id; that of a refused write
-- is not.

local life, changes, index, past, answers, order = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local key, op_id, by = ARGV[2], ARGV[3], ARGV[4]

local function whole(number) return string.format('%.0f', number) end

-- The incarnation changes with the server's replication id: at a restart, a failover, a wipe. So a version that the
-- store has lost is never mistaken for one that it writes later.
local function incarnation()
  local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  local known = redis.call('HMGET', life, 'server', 'incarnation', 'since', 'complete')
  if known[1] and known[1] == server then return known[2], known[3], known[4] == known[2] end
  local seq = tonumber(redis.call('HGET', life, 'seq') or '0')
  local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
  if newest then seq = math.max(seq, tonumber(string.match(newest[1], '^%d+'))) end
  local time = redis.call('TIME')
  local id = string.sub(redis.sha1hex(server .. ':' .. time[1] .. ':' .. time[2]), 1, 12)
  local before = known[2] and known[4] == known[2] and known[2] or ''
  redis.call('HSET', life, 'server', server, 'incarnation', id, 'seq', whole(seq), 'since', whole(seq),
    'before', before, 'complete', '')
  return id, whole(seq), false
end

local function read(found)
  if not found then return nil end
  local f = found[2]
  return {
    seq = string.match(found[1], '^%d+'), value = f[2], incarnation = f[4], at = f[6], by = f[8],
    gone = f[10] == '1', items = tonumber(f[12]), total = tonumber(f[14]),
  }
end

local function latest() return read(redis.call('XREVRANGE', past, '+', '-', 'COUNT', 1)[1]) end

local function version_of(entry, id)
  if not entry or entry.gone then return '' end
  return id .. ':' .. entry.seq
end

local function trim(total)
  while true do
    local oldest = read(redis.call('XRANGE', past, '-', '+', 'COUNT', 1)[1])
    if total - oldest.total + #oldest.value <= HISTORY_BYTES_MAX then return end -- a single value always fits
    redis.call('XDEL', past, oldest.seq .. '-0')
  end
end

local function remember(answer)
  if op_id == '' then return end
  redis.call('HSET', answers, op_id, cmsgpack.pack(answer))
  redis.call('LPUSH', order, op_id)
  if redis.call('LLEN', order) > OPS_MAX then redis.call('HDEL', answers, redis.call('RPOP', order)) end
  redis.call('PEXPIRE', answers, OPS_TTL_MS)
  redis.call('PEXPIRE', order, OPS_TTL_MS)
end

local function write(id, before, value, gone, items)
  local seq = whole(redis.call('HINCRBY', life, 'seq', 1))
  local time = redis.call('TIME')
  local at = whole(time[1] * 1000 + math.floor(time[2] / 1000))
  local total = (before and before.total or 0) + #value
  redis.call('XADD', past, 'MAXLEN', HISTORY_MAX, seq .. '-0', 'value', value, 'incarnation', id, 'at', at, 'by', by,
    'gone', gone and '1' or '0', 'items', items or '', 'total', whole(total))
  redis.call('XADD', changes, 'MAXLEN', '~', CHANGES_MAX, seq .. '-0', 'key', key)
  if gone then redis.call('ZREM', index, key) else redis.call('ZADD', index, 0, key) end
  trim(total)
  return {'entry', value, id .. ':' .. seq, at, by}
end

local function wrote(id, before, value, gone, items)
  local entry = write(id, before, value, gone, items)
  remember({ARGV[1], entry[3], entry[4], entry[5]})
  return entry
end

-- Returns the first answer to this op_id, with the current value if the history has dropped the old one.
local function repeated()
  local packed = op_id ~= '' and redis.call('HGET', answers, op_id)
  if not packed then return nil end
  local first = cmsgpack.unpack(packed)
  if first[1] ~= ARGV[1] then return {'invalid', 'op_id_reused', first[1]} end
  if first[1] == 'add' or first[1] == 'delete' then return {'answer', unpack(first, 2)} end
  local seq = string.match(first[2], '%d+$')
  local entry = read(redis.call('XRANGE', past, seq, seq)[1]) or latest()
  return {'entry', entry and entry.value or 'null', first[2], first[3], first[4]}
end

-- Returns the end of the first `count` items of the text between an array's brackets (count 0: the number of commas).
local function comma(body, count)
  local depth, seen, from = 0, 0, 1
  while true do
    local at = string.find(body, '[%[%]{},"]', from)
    if not at then return seen end
    local char = string.byte(body, at)
    from = at + 1
    if char == 34 then -- a string: skip to its closing quote
      local quote = string.find(body, '["\\]', from)
      while string.byte(body, quote) == 92 do quote = string.find(body, '["\\]', quote + 2) end
      from = quote + 1
    elseif char == 91 or char == 123 then
      depth = depth + 1
    elseif char == 93 or char == 125 then
      depth = depth - 1
    elseif depth == 0 then
      seen = seen + 1
      if seen == count then return at end
    end
  end
end

local function pushed(before, item, items_max)
  local body = ''
  if before and not before.gone then
    local first = string.find(before.value, '%S')
    if string.byte(before.value, first) ~= 91 then return nil end
    body = string.sub(before.value, first + 1, string.find(before.value, '%]%s*$') - 1)
  end
  if not string.find(body, '%S') then return '[' .. item .. ']', 1 end
  local count = before.items or comma(body, 0) + 1
  local surplus = count + 1 - items_max
  if surplus >= count then return '[' .. item .. ']', 1 end
  if surplus > 0 then body = string.match(body, '^%s*(.*)$', comma(body, surplus) + 1) end
  return '[' .. body .. ',' .. item .. ']', count + 1 - math.max(surplus, 0)
end

local function counter(before)
  if not before or before.gone then return 0 end
  local digits = string.match(before.value, '^%s*(%-?%d+)%s*$')
  if not digits or math.abs(tonumber(digits)) > COUNTER_MAX then return nil end
  return tonumber(digits)
end

local act = {}

function act.life()
  local id, since, complete = incarnation()
  local more = redis.call('HMGET', life, 'seq', 'before')
  return {'answer', id, since, more[1], complete and '1' or '0', more[2] or ''}
end

function act.complete()
  local id = incarnation()
  if id ~= ARGV[5] then return {'answer', '0'} end
  redis.call('HSET', life, 'complete', id)
  return {'answer', '1'}
end

function act.get()
  local id, entry = incarnation(), latest()
  if not entry or entry.gone then return {'absent'} end
  return {'entry', entry.value, version_of(entry, id), entry.at, entry.by}
end

function act.put()
  local id, _, complete = incarnation()
  local before, value, expect = latest(), ARGV[5], ARGV[6]
  -- "No value yet" is unknown before the store is complete. Writes that restore missing values make it complete.
  if expect == '' and not complete and string.sub(op_id, 1, #RESTORE_OP) ~= RESTORE_OP then return {'incomplete'} end
  if expect ~= '*' and expect ~= version_of(before, id) then return {'conflict', version_of(before, id)} end
  return wrote(id, before, value)
end

function act.delete()
  local id, before = incarnation(), latest()
  local expect = ARGV[5]
  if expect ~= '*' and expect ~= version_of(before, id) then return {'conflict', version_of(before, id)} end
  local had = before and not before.gone
  if had then write(id, before, 'null', true) end
  remember({'delete', had and '1' or '0', ''})
  return {'answer', had and '1' or '0'}
end

function act.append()
  local id, _, complete = incarnation()
  if not complete then return {'incomplete'} end
  local before = latest()
  local array, items = pushed(before, ARGV[5], tonumber(ARGV[6]))
  if not array then return {'invalid', 'not_an_array'} end
  if #array > VALUE_BYTES_MAX then return {'invalid', 'too_large', whole(#array)} end
  return wrote(id, before, array, false, items)
end

function act.add()
  local id, _, complete = incarnation()
  if not complete then return {'incomplete'} end
  local before = latest()
  local value = counter(before)
  if not value then return {'invalid', 'not_a_counter'} end
  local sum = value + tonumber(ARGV[5])
  local applied = sum >= tonumber(ARGV[6]) and sum <= tonumber(ARGV[7])
  local answer = {'add', whole(value), '0', '', '0'}
  if applied then
    local entry = write(id, before, whole(sum))
    answer = {'add', whole(sum), '1', entry[3], entry[4]}
  end
  remember(answer)
  return {'answer', unpack(answer, 2)}
end

function act.lease()
  local stands = redis.call('GET', past) or ''
  if stands ~= ARGV[5] then return {'answer', stands} end
  redis.call('SET', past, ARGV[6], 'PX', ARGV[7])
  return {'answer', ARGV[6]}
end

return repeated() or act[ARGV[1]]()
