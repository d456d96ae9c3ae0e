"""Redis as the loading engine sees it: reading a value with what is left of its life, storing it unless somebody else did.

A loaded value is stored with SET NX where there was nothing, and by a script that compares what is there with what was read
where there was something; so a value that another process wrote during the load stays. What is sent goes through
`Commands`, hence through the breaker. This file must never decide whether something is loaded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastcache.entries import Key
from fastcache.envelope import is_enveloped, seal
from fastcache.errors import MISSING, SerializationError
from fastcache.expiry import milliseconds
from fastcache.outage import is_outage
from fastcache.policy import Policy
from fastcache.scripts import Script
from fastcache.storing import Errand, Found, Landed

if TYPE_CHECKING:
    from fastcache.commands import Commands

__all__ = ["RemoteStore"]

_REPLACE = Script(
    "replace",
    """
local stored = {}
for i, key in ipairs(KEYS) do
    local there = redis.call('GET', key)
    stored[i] = 0
    if there and redis.sha1hex(there) == ARGV[3 * i - 2] then
        if ARGV[3 * i] == '' then
            redis.call('SET', key, ARGV[3 * i - 1])
        else
            redis.call('SET', key, ARGV[3 * i - 1], 'PX', ARGV[3 * i])
        end
        stored[i] = 1
    end
end
return stored
""",
)


class RemoteStore:
    """A `Store` (see `storing.py`) over the commands of one cache. Identities are the names in Redis."""

    local = False
    leases = False

    def __init__(self, commands: Commands[Any]) -> None:
        self._commands = commands
        self._entries = commands._entries
        self.ttl = self._entries.ttl

    def section(self) -> Any:
        raise AssertionError("only a local store is written under a lock")  # pragma: no cover

    def identity(self, key: Key) -> bytes:
        return self._entries.name(key)

    @property
    def closed(self) -> bool:
        return bool(self._commands._link.closed)

    def unreachable(self, error: Exception | None) -> bool:
        link = self._commands._link
        if error is None:
            return not link.cluster and link.breaker.is_open
        cause = error.__cause__
        return cause is None or (isinstance(cause, Exception) and is_outage(cause))

    def read_plan(
        self, keys: Mapping[bytes, Key], type: Any, policy: Policy
    ) -> Generator[Any, Any, dict[bytes, Found]]:
        commands = self._commands
        names = list(keys)
        lives: dict[bytes, Any] = {}
        if len(names) == 1:
            (name,) = names
            if policy.stale_for or policy.refresh_ahead is not None:
                data, lives[name] = yield from commands._pipeline_plan([("GET", name), ("PTTL", name)])
                for reply in (data, lives[name]):
                    if isinstance(reply, Exception):
                        raise commands._failure("GET", reply, commands._link) from reply
            else:
                data = yield from commands._execute_plan("GET", name)
            replies = {name: data}
        else:
            replies = yield from commands._bulk_plan(names)
        found = {}
        for name, data in replies.items():
            if data is not None:
                found[name] = yield from self._open_plan(keys[name], name, data, lives, type)
        wanting = [
            name
            for name, one in found.items()
            if name not in lives and one.token[1] is not None and (one.token[1] or policy.refresh_ahead is not None)
        ]
        if wanting:
            left = yield from commands._pipeline_plan([("PTTL", name) for name in wanting])
            for name, reply in zip(wanting, left, strict=True):
                if isinstance(reply, Exception):
                    raise commands._failure("PTTL", reply, commands._link) from reply
                lives[name] = reply
        for name, left in lives.items():
            if left == -2:
                found.pop(name, None)
            elif name in found:
                self._age(found[name], left)
        good = sum(not (one.broken or one.stale or one.value is MISSING) for one in found.values())
        commands._hits += good
        commands._misses += len(names) - good
        return found

    def _open_plan(
        self, key: Key, name: bytes, data: bytes, lives: dict[bytes, Any], type: Any
    ) -> Generator[Any, Any, Found]:
        """What stored bytes are. The token holds them, and the milliseconds of `stale_for`, None for a plain payload."""
        try:
            envelope = self._entries.opened(key, data)
            if envelope is None:
                return Found(self._entries.decode(key, name, data, type), token=(data, None))
            value = MISSING if envelope.missing else self._entries.decode(key, name, envelope.payload, type)
        except SerializationError as error:
            self._commands._loading.reporter.tell("backend_error", key, error=error)
            return Found(None, broken=True, token=(data, None))
        return Found(value, load_seconds=envelope.load_seconds, token=(data, envelope.stale_for))
        yield

    @staticmethod
    def _age(found: Found, left: int) -> None:
        stale_for = found.token[1] or 0
        if left >= 0:  # -1: never
            found.remaining = (left - stale_for) / 1000
            found.stale = left <= stale_for and bool(stale_for)

    def rescue(self, keys: Mapping[bytes, Key], type: Any, policy: Policy) -> dict[bytes, Found]:
        return {}

    def salvage(self, values: Mapping[bytes, Any], errand: Errand, lives: Mapping[bytes, float]) -> None:
        pass

    def share(self, key: Key, value: Any) -> Any:
        return value

    def own(self, key: Key, landed: Landed, type: Any) -> Any:
        """Who wants another type than the one who loaded gets what a later reader would."""
        value = landed.shared
        if value is MISSING or landed.type == type:
            return value
        name = self._entries.name(key)
        try:
            return self._entries.decode(key, name, self._entries.payload(key, name, value), type)
        except SerializationError:
            return value

    def write_plan(
        self, values: Mapping[bytes, Any], errand: Errand, lives: Mapping[bytes, float]
    ) -> Generator[Any, Any, list[bytes]]:
        commands, policy = self._commands, errand.policy
        data: dict[bytes, bytes] = {}
        expiry: dict[bytes, int | None] = {}
        for name, value in values.items():
            life = lives[name]
            stale_for = 0.0 if life == math.inf or value is MISSING else policy.stale_for
            payload = b"" if value is MISSING else self._entries.payload(errand.keys[name], name, value)
            if stale_for or value is MISSING or policy.refresh_ahead is not None or is_enveloped(payload):
                payload = seal(payload, stale_for, errand.load_seconds, value is MISSING)
            data[name] = payload
            expiry[name] = milliseconds(life + stale_for)
        replaced = [name for name in data if not errand.writes and name in errand.found]
        fresh = [name for name in data if name not in replaced]
        refused: list[bytes] = []
        if fresh:
            only = () if errand.writes else (b"NX",)
            sets = []
            for name in fresh:
                px = expiry[name]
                sets.append(("SET", name, data[name], *(() if px is None else (b"PX", px)), *only))
            if len(sets) == 1:
                replies = [(yield from commands._execute_plan(*sets[0]))]
            else:
                replies = yield from commands._pipeline_plan(sets)
            for name, reply in zip(fresh, replies, strict=True):
                if isinstance(reply, Exception):
                    raise commands._failure("SET", reply, commands._link) from reply
                if not reply:
                    refused.append(name)
        if replaced:
            arguments: dict[bytes, tuple[Any, ...]] = {}
            for name in replaced:
                px = expiry[name]
                digest = hashlib.sha1(errand.found[name].token[0], usedforsecurity=False).hexdigest()
                arguments[name] = (digest, data[name], b"" if px is None else px)
            refused += yield from self._replace_plan(arguments)
        return refused

    def _replace_plan(self, arguments: Mapping[bytes, tuple[Any, ...]]) -> Generator[Any, Any, list[bytes]]:
        """Store where what is there is what was read. Returns the names where it isn't."""
        commands, link = self._commands, self._commands._link
        batches = [[name] for name in arguments] if link.cluster else [list(arguments)]
        refused = []
        for names in batches:
            flat = [argument for name in names for argument in arguments[name]]
            done = yield from commands._script_plan(_REPLACE, names, flat)
            commands._expect(done, names)
            refused += [name for name, stored in zip(names, done, strict=True) if not stored]
        return refused

    def remove_plan(self, identities: Iterable[bytes]) -> Generator[Any, Any, Any]:
        return (yield from self._commands._unlink_plan(list(identities)))

    def clear_plan(self, thorough: bool) -> Generator[Any, Any, Any]:
        return (yield from self._commands._sweep_all_plan("*"))
