"""A step as one Lua script for Redis, in two forms.

Rules:
- Both keep the books that a pool of ours keeps: a table for each sequence, named by pool, engine
  and sequence id; each block's owner and since when; the blocks that each engine holds; the
  counters of the pool (allocated, freed, refused by reason); and the session: its epoch, until when
  its lease lasts, and its last step.
- Both do what a step of a session does: an id that comes twice is an error, frees come first, and
  then each sequence gets one block, all of them or none, in the order of the contract. The last
  step_id once more with the same content gets the same answer and changes nothing; any other
  step_id but the next one is an error, and so is any other epoch but the session's. Each step
  renews the lease.
- ARGV: pool, engine, epoch, step_id, the number of ids to free, and the ids. The answer is JSON:
  blocks, freed counts, free blocks, and for a refusal the reason and the blocks needed.
- TUNED is the fastest of those that were tried. Ids cross as one string of 8-byte words, which end
  the keys. A table is a string, since many strings are read, written and deleted by one command;
  a block number is text throughout, so that nothing is converted. Blocks that a step frees and
  takes again do not pass through the list. The answer is the text that is kept for the next time.
  Tables as fields of one hash, owners as words of one string, and shorter batches gained nothing.
- PLAIN is what one writes first: ids as numbers, one command for each thing that changes.
- `POOL:free` is the list of free blocks, the next one at its right end; `POOL:counters` has
  `total`, from the beginning.
"""

TUNED = """
local call, sub, least, concat = redis.call, string.sub, math.min, table.concat
local pool, engine, ids, num_free = ARGV[1], ARGV[2], ARGV[6], tonumber(ARGV[5])
local prefix, counters = pool .. ':' .. engine .. ':', pool .. ':counters'
local session, content = prefix .. 'session', ARGV[5] .. ':' .. ids
local state = call('HMGET', session, 'epoch', 'step_id', 'ttl')
if state[1] ~= ARGV[3] then return redis.error_reply('STEP is of a stale epoch') end
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
call('HSET', session, 'deadline', now + state[3])
local expected = (tonumber(state[2]) or 0) + 1
if tonumber(ARGV[4]) ~= expected then
  if expected > 1 and tonumber(ARGV[4]) == expected - 1 then
    local last = call('HMGET', session, 'request', 'answer')
    if last[1] == content then return last[2] end
    return redis.error_reply('STEP was sent before with other content')
  end
  return redis.error_reply('STEP expected ' .. expected)
end
local keys, pairs, seen, wanted = {}, {}, {}, #ids / 8 - num_free
for i = 1, num_free do
  local id = sub(ids, 8 * i - 7, 8 * i)
  if seen[id] then return redis.error_reply('STEP has an id twice') end
  seen[id] = true
  keys[i] = prefix .. id
end
seen = {}
for i = 1, wanted do
  local last = 8 * (num_free + i)
  local id = sub(ids, last - 7, last)
  if seen[id] then return redis.error_reply('STEP has an id twice') end
  seen[id] = true
  pairs[2 * i - 1] = prefix .. id
end
local counts, back, n = {}, {}, 0
for first = 1, num_free, 4000 do
  local last = least(first + 3999, num_free)
  local tables = call('MGET', unpack(keys, first, last))
  for i = first, last do
    local blocks = tables[i - first + 1]
    if not blocks then
      counts[i] = 0
    elseif string.find(blocks, ',', 1, true) then
      local before = n
      for block in string.gmatch(blocks, '[^,]+') do
        n = n + 1
        back[n] = block
      end
      counts[i] = n - before
    else
      n = n + 1
      back[n] = blocks
      counts[i] = 1
    end
  end
  call('DEL', unpack(keys, first, last))
end
local list = pool .. ':free'
local freed, taken, refusal, free = n, {}, '', call('LLEN', list) + n
if wanted > free then
  local total = tonumber(call('HGET', counters, 'total'))
  local reason = wanted > total and 'EXCEEDS_POOL' or 'POOL_EXHAUSTED'
  call('HINCRBY', counters, 'refused:' .. reason, 1)
  refusal = ',"' .. reason .. '",' .. wanted
  wanted = 0
end
local reused = least(n, wanted)
for i = 1, reused do
  taken[i] = back[n]
  n = n - 1
end
for i = 1, n, 4000 do call('RPUSH', list, unpack(back, i, least(i + 3999, n))) end
if reused < wanted then
  local fresh = call('RPOP', list, wanted - reused)
  for i = 1, #fresh do taken[reused + i] = fresh[i] end
end
local owned, owner = {}, engine .. ' ' .. string.format('%.0f', now)
for i = 1, wanted do
  local block = taken[i]
  pairs[2 * i] = block
  owned[2 * i - 1] = block
  owned[2 * i] = owner
end
for i = 1, #owned, 4000 do
  call('HSET', pool .. ':owners', unpack(owned, i, least(i + 3999, #owned)))
end
for first = 1, 2 * wanted, 4000 do
  local last = least(first + 3999, 2 * wanted)
  if call('MSETNX', unpack(pairs, first, last)) == 0 then
    for i = first, last, 2 do
      if call('SETNX', pairs[i], pairs[i + 1]) == 0 then
        call('APPEND', pairs[i], ',' .. pairs[i + 1])
      end
    end
  end
end
call('HINCRBY', pool .. ':held', engine, wanted - freed)
call('HINCRBY', counters, 'allocated', wanted)
call('HINCRBY', counters, 'freed', freed)
local answer = '[[' .. concat(taken, ',') .. '],[' .. concat(counts, ',') .. '],'
  .. free - wanted .. refusal .. ']'
call('HSET', session, 'step_id', ARGV[4], 'request', content, 'answer', answer)
return answer
"""

PLAIN = """
local pool, engine, epoch = ARGV[1], ARGV[2], ARGV[3]
local step_id, num_free = tonumber(ARGV[4]), tonumber(ARGV[5])
local prefix = pool .. ':' .. engine .. ':'
local session = prefix .. 'session'
local content = cjson.encode(ARGV)
if redis.call('HGET', session, 'epoch') ~= epoch then
  return redis.error_reply('STEP is of a stale epoch')
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('HSET', session, 'deadline', now + redis.call('HGET', session, 'ttl'))
local last = redis.call('HMGET', session, 'step_id', 'request', 'answer')
local before = tonumber(last[1]) or 0
if step_id == before and before > 0 then
  if content == last[2] then return last[3] end
  return redis.error_reply('STEP was sent before with other content')
end
if step_id ~= before + 1 then return redis.error_reply('STEP expected ' .. before + 1) end
for _, column in ipairs({{6, 5 + num_free}, {6 + num_free, #ARGV}}) do
  local seen = {}
  for i = column[1], column[2] do
    if seen[ARGV[i]] then return redis.error_reply('STEP has an id twice') end
    seen[ARGV[i]] = true
  end
end
local answer = {{}, {}, 0}
for i = 1, num_free do
  local key = prefix .. ARGV[5 + i]
  local blocks = redis.call('LRANGE', key, 0, -1)
  for _, block in ipairs(blocks) do
    redis.call('RPUSH', pool .. ':free', block)
    redis.call('HDEL', pool .. ':owners', block)
  end
  redis.call('DEL', key)
  redis.call('HINCRBY', pool .. ':held', engine, 0 - #blocks)
  redis.call('HINCRBY', pool .. ':counters', 'freed', #blocks)
  answer[2][i] = #blocks
end
local wanted = #ARGV - 5 - num_free
local free = redis.call('LLEN', pool .. ':free')
if wanted > free then
  local total = tonumber(redis.call('HGET', pool .. ':counters', 'total'))
  local reason = wanted > total and 'EXCEEDS_POOL' or 'POOL_EXHAUSTED'
  redis.call('HINCRBY', pool .. ':counters', 'refused:' .. reason, 1)
  answer[4], answer[5] = reason, wanted
  wanted = 0
end
for i = 1, wanted do
  local block = redis.call('RPOP', pool .. ':free')
  redis.call('RPUSH', prefix .. ARGV[5 + num_free + i], block)
  redis.call('HSET', pool .. ':owners', block, engine .. ' ' .. string.format('%.0f', now))
  redis.call('HINCRBY', pool .. ':held', engine, 1)
  redis.call('HINCRBY', pool .. ':counters', 'allocated', 1)
  answer[1][i] = tonumber(block)
end
answer[3] = free - wanted
local text = cjson.encode(answer)
redis.call('HSET', session, 'step_id', step_id, 'request', content, 'answer', text)
return text
"""
