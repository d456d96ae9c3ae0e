"""The Lua scripts of the two-level cache: each one step that nobody else can come between.

KEYS[1] is a value, KEYS[2] its guard, both in one slot. A guard is a string: `L<token>`, somebody loads the value and may
store it as long as the guard is his; or `W<token>,<token>,`, somebody is writing what the value is made from, and nothing
may be stored. It expires by itself if he dies. Tokens are random and are compared, nothing more; there are no wall clocks.

What changes a value publishes a message from within the script, so there is no change without one. Sources: leases after
Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013; the rest is docs/coherence.md.
"""

from __future__ import annotations

import hashlib

__all__ = ["FILL", "HOLD", "INVALIDATE", "LEASE", "PUT", "READ", "RELEASE", "RENEW", "RETAG", "RETIRE", "Script"]


class Script:
    """A script and the digest by which Redis knows it."""

    __slots__ = ("digest", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Script {self.name}>"


# On the shard channel where there is one and this node has its slot; else on the plain one, which all nodes pass on. Who may
# not publish has made his change all the same: its outcome comes with the error.
_PUBLISH = """
local function told(outcome, shard, channel, message)
    if shard ~= '' then
        local sent = redis.pcall('SPUBLISH', shard, message)
        if type(sent) ~= 'table' or not sent.err then return outcome end
    end
    local sent = redis.pcall('PUBLISH', channel, message)
    if type(sent) == 'table' and sent.err then return {outcome, sent.err} end
    return outcome
end
local function store(key, value, px)
    if px == '' then
        redis.call('SET', key, value)
    else
        redis.call('SET', key, value, 'PX', px)
    end
end
local function without(guard, token)
    return (string.gsub(guard, token .. ',', '', 1))
end
"""

READ = Script(
    "read",
    """
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]), KEYS[2] and redis.call('GET', KEYS[2])}
""",
)
"""A value and its life, and a token where it is asked for (not in a cluster: it may be elsewhere). One command is cheaper to
send, and to have answered, than a pipeline of three."""

LEASE = Script(
    "lease",
    """
-- token, life of the lease, digest of the value that is to be replaced ('': of none), whether to take it away ('': no)
local value = redis.call('GET', KEYS[1])
if value and (ARGV[3] == '' or redis.sha1hex(value) ~= ARGV[3]) then
    return {'hit', value, redis.call('PTTL', KEYS[1])}
end
local guard = redis.call('GET', KEYS[2])
if guard and string.sub(guard, 1, 1) == 'W' then return {'writer', guard} end
if guard and ARGV[4] == '' then return {'wait', guard} end
redis.call('SET', KEYS[2], 'L' .. ARGV[1], 'PX', ARGV[2])
return {'load'}
""",
)
"""`hit` with the value and its life; `load`: the lease is yours; `wait`: somebody loads; `writer`: load, and don't store.
From whom a lease is taken, nothing is stored."""

FILL = Script(
    "fill",
    _PUBLISH
    + """
-- token of the lease ('': none was taken), value, life, digest of the value that is replaced ('': of none); and where
-- copies of that are out of date, shard channel, channel, message
local guard = redis.call('GET', KEYS[2])
if ARGV[1] ~= '' then
    if guard ~= 'L' .. ARGV[1] then return 0 end
    redis.call('DEL', KEYS[2])
elseif guard and string.sub(guard, 1, 1) == 'W' then
    return 0
end
local there = redis.call('GET', KEYS[1])
if there and (ARGV[4] == '' or redis.sha1hex(there) ~= ARGV[4]) then
    if not ARGV[5] then return 0 end
    redis.call('UNLINK', KEYS[1])  -- of somebody who takes no leases: nobody knows which of the two is newer
    return told(0, ARGV[5], ARGV[6], ARGV[7])
end
store(KEYS[1], ARGV[2], ARGV[3])
return ARGV[5] and told(1, ARGV[5], ARGV[6], ARGV[7]) or 1
""",
)
"""Store a loaded value, unless somebody else wrote, invalidated or is writing. Whether it was stored."""

PUT = Script(
    "put",
    _PUBLISH
    + """
-- token of the writer ('': none), value, life, shard channel, channel, message
local guard = redis.call('GET', KEYS[2])
local stored = 1
if guard then
    local rest = 'W'
    if string.sub(guard, 1, 1) == 'W' then
        rest = ARGV[1] == '' and guard or without(guard, ARGV[1])
    end
    if rest == 'W' then
        redis.call('DEL', KEYS[2])
    else
        redis.call('SET', KEYS[2], rest, 'KEEPTTL')
        stored = 0
    end
end
if stored == 1 then
    store(KEYS[1], ARGV[2], ARGV[3])
else
    redis.call('UNLINK', KEYS[1])
end
return told(stored, ARGV[4], ARGV[5], ARGV[6])
""",
)
"""Store what the program wrote, and let nobody store what he loaded before. 0: not stored, since another one is writing."""

INVALIDATE = Script(
    "invalidate",
    _PUBLISH
    + """
-- token of the writer who has ended ('': none), shard channel, channel, message
local there = redis.call('UNLINK', KEYS[1])
local guard = redis.call('GET', KEYS[2])
if guard then
    if string.sub(guard, 1, 1) == 'L' then
        redis.call('DEL', KEYS[2])
    elseif ARGV[1] ~= '' then
        local rest = without(guard, ARGV[1])
        if rest == 'W' then
            redis.call('DEL', KEYS[2])
        else
            redis.call('SET', KEYS[2], rest, 'KEEPTTL')
        end
    end
end
return told(there, ARGV[2], ARGV[3], ARGV[4])
""",
)
"""Remove a value, and let nobody store what he loaded before. Whether there was one. A writer's guard stays until he
ends."""

RETIRE = Script(
    "retire",
    _PUBLISH
    + """
-- digest of the value, shard channel, channel, message
local there = redis.call('GET', KEYS[1])
if not there or redis.sha1hex(there) ~= ARGV[1] then return 0 end
return told(redis.call('UNLINK', KEYS[1]), ARGV[2], ARGV[3], ARGV[4])
""",
)
"""Remove a value unless it has been replaced. Who loads or writes it may store it all the same."""

HOLD = Script(
    "hold",
    _PUBLISH
    + """
-- token of the writer, life of the guard, shard channel, channel, message
redis.call('UNLINK', KEYS[1])
local guard = redis.call('GET', KEYS[2])
local held = 'W'
local life = tonumber(ARGV[2])
if guard and string.sub(guard, 1, 1) == 'W' then
    held = guard
    life = math.max(life, redis.call('PTTL', KEYS[2]))
end
redis.call('SET', KEYS[2], held .. ARGV[1] .. ',', 'PX', life)
return told(1, ARGV[3], ARGV[4], ARGV[5])
""",
)
"""Begin to write: remove the value, and let nobody store one until all writers have ended or died."""

RENEW = Script(
    "renew",
    """
-- token, life
local guard = redis.call('GET', KEYS[1])
if not guard then return 0 end
if guard ~= 'L' .. ARGV[1] and not string.find(guard, ARGV[1] .. ',', 1, true) then return 0 end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
""",
)
"""Keep a guard (here KEYS[1]) for one who is still loading or writing. Whether it is his."""

RELEASE = Script(
    "release",
    """
-- token
if redis.call('GET', KEYS[1]) == 'L' .. ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
""",
)
"""Give a lease back (its guard is KEYS[1]), the value having not been loaded."""

RETAG = Script(
    "retag",
    _PUBLISH
    + """
-- token, its life, shard channel, channel, message
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return told(1, ARGV[3], ARGV[4], ARGV[5])
""",
)
"""Give a tag or a namespace (whose token is KEYS[1]) a new token, so that no value has the right one any more."""
