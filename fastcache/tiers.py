"""Both tiers of a two-level cache as the loading engine sees them: copies in memory, values in Redis, guards beside these.

Owns storing, writing and invalidating, by scripts that tell the other processes, and the leases of what is loaded; reading
is in `tierreading.py`. This file must never decide whether something is loaded, and asks no clock but its own monotonic one.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError

from fastcache.entries import Key
from fastcache.envelope import seal
from fastcache.errors import MISSING, BackendError, SerializationError
from fastcache.events import Reporter
from fastcache.expiry import milliseconds
from fastcache.flights import Flights
from fastcache.front import NAMESPACE, Front, Marker, Packed
from fastcache.guards import Guards
from fastcache.news import News
from fastcache.replies import SCRIPT_BATCH, batches
from fastcache.scripts import FILL, INVALIDATE, LEASE, PUT, RETAG, RETIRE, Script
from fastcache.sending import Steps
from fastcache.sidekeys import guard_name, guard_patterns, value_name
from fastcache.storing import Errand, Found
from fastcache.tierreading import TOKEN_LIFE, TierReading

if TYPE_CHECKING:
    from fastcache.commands import Commands

__all__ = ["TierStore"]


class _Held:
    """What a load has to know again when its value is stored."""

    __slots__ = ("leases", "markers", "tokens")

    def __init__(self, markers: dict[bytes, Marker]) -> None:
        self.markers = markers
        self.leases: dict[bytes, str] = {}
        self.tokens: dict[bytes, dict[bytes, bytes]] = {}
        """Of each key, those that were current before its load began: by tag."""


class TierStore(TierReading):
    """A `LeaseStore` (see `leasing.py`) over the commands of a Redis cache and a front."""

    leases = True

    def __init__(
        self,
        commands: Commands[Any],
        front: Front,
        news: News,
        guards: Guards,
        flights: Flights,
        isolate: bool,
        reporter: Reporter,
    ) -> None:
        super().__init__(commands, front, news, isolate, reporter)
        self._guards = guards
        self._flights = flights

    # -- loading ---------------------------------------------------------------------------------------------------

    def prepare(self, errand: Errand, identities: list[bytes]) -> None:
        errand.held = _Held(self._front.begin(identities))

    def dismiss(self, errand: Errand, identities: Iterable[bytes]) -> None:
        markers = errand.held.markers
        self._front.end({identity: markers[identity] for identity in identities})

    def lease_plan(
        self, errand: Errand, identities: list[bytes]
    ) -> Steps[tuple[dict[bytes, Found], dict[bytes, Any]]]:
        held: _Held = errand.held
        current = yield from self._current_plan(errand.tags, held.markers)
        keys = {identity: errand.keys[identity] for identity in identities}
        beside = errand.policy.refresh_ahead is not None
        if not errand.policy.lease:
            copies = {name for name in identities if errand.early and errand.found[name].token is None}
            again = copies if self._flights.landings == errand.seen else identities
            errand.seen = self._flights.landings
            found: dict[bytes, Found] = {}
            if again:
                found = yield from self.read_redis_plan({name: keys[name] for name in again}, errand.type, beside)
            for name in [name for name in found if name not in copies]:
                one = found[name]
                if one.stale or one.broken or (errand.early and one.token == errand.found[name].token):
                    del found[name]  # it is what is to be replaced
            held.tokens.update(dict.fromkeys(identities, current))
            return found, {}
        calls = []
        tokens = {}
        for identity in identities:
            tokens[identity] = token = self._guards.new()
            wanted = (token, self._guards.lease_life, _digest(errand, identity), "1" if errand.anew else "")
            calls.append(((identity, guard_name(identity)), wanted))
        markers = self._front.begin(identities)
        waiting: dict[bytes, Any] = {}
        there: dict[bytes, tuple[bytes, int]] = {}
        try:
            for batch in batches(list(zip(identities, calls, strict=True)), SCRIPT_BATCH):
                try:
                    answers = yield from self._commands._scripts_plan(LEASE, [call for _, call in batch])
                except Exception:
                    raise
                except BaseException:
                    # Cancelled: whether they were given isn't known, so they are given back.
                    held.leases.update((identity, tokens[identity]) for identity, _ in batch)
                    raise
                for (identity, _), answer in zip(batch, answers, strict=True):
                    what = answer[0]
                    if what == b"hit":
                        there[identity] = answer[1], answer[2]
                    elif what == b"load":
                        held.leases[identity] = tokens[identity]
                        held.tokens[identity] = current
                        self._guards.keep(tokens[identity], guard_name(identity), self._guards.lease_life)
                    elif what == b"writer":
                        errand.unstored.add(identity)
                    else:
                        waiting[identity] = answer[1]
            found = yield from self._judge_plan(there, keys, errand.type, markers, {}, beside)
        finally:
            self._front.end(markers)
        return found, waiting

    def release_plan(self, errand: Errand, identities: Iterable[bytes]) -> Steps[None]:
        held = errand.held.leases
        yield from self._guards.release_plan({held.pop(name): guard_name(name) for name in identities if name in held})

    def abandon(self, errand: Errand, identities: Iterable[bytes]) -> None:
        for identity in identities:
            token = errand.held.leases.pop(identity, None)
            if token is not None:
                self._guards.forget(token)

    # -- storing ---------------------------------------------------------------------------------------------------

    def write_plan(
        self, values: Mapping[bytes, Any], errand: Errand, lives: Mapping[bytes, float]
    ) -> Steps[list[bytes]]:
        writer: str = errand.held if errand.writes else ""  # the token of a hold
        held: _Held | None = None if errand.writes else errand.held
        leases = {} if held is None else {name: held.leases.pop(name) for name in values if name in held.leases}
        load = {} if held is None else held.markers
        markers = self._front.begin(values, writes=True, load=load)
        kept: set[bytes] = set()
        try:
            payloads = {
                name: b"" if value is MISSING else self._entries.payload(errand.keys[name], name, value)
                for name, value in values.items()
            }
            current = {} if held else (yield from self._current_plan(errand.tags, markers))
            tokens = held.tokens if held else dict.fromkeys(values, current)
            stale = {
                name: 0.0 if lives[name] == math.inf or value is MISSING else errand.policy.stale_for
                for name, value in values.items()
            }
            began = monotonic()
            # What was heard during the load may be that a tag got another token; and what wasn't, because the line was lost
            # or came up. Redis, which compares them, may have the value, the memory may not. Without a lease nothing says if
            # it is too old.
            old = {} if held is None else {name: held.markers[name] for name in values}
            missed = {name for name, marker in old.items() if not marker.clean or marker.epoch != markers[name].epoch}
            unheard = {name for name in missed if name not in leases}
            calls = []
            sent = [name for name in values if name not in unheard]
            for name in sent:
                value = values[name]
                data = seal(payloads[name], stale[name], errand.load_seconds, value is MISSING, tokens[name])
                px = milliseconds(lives[name] + stale[name])
                life = b"" if px is None else px
                arguments: tuple[Any, ...]
                if errand.writes:
                    arguments = (writer, data, life)
                else:
                    arguments = (leases.get(name, ""), data, life, _digest(errand, name))
                if errand.writes or errand.anew:
                    arguments += self._news.publication("key", name)
                calls.append(((name, guard_name(name)), arguments))
            stored: list[Any] = []
            for batch in batches(calls, SCRIPT_BATCH):
                stored += yield from self._commands._scripts_plan(PUT if errand.writes else FILL, batch)
            late = monotonic() - began
            beside = errand.policy.refresh_ahead is not None
            refused = list(unheard)
            for name, done in zip(sent, stored, strict=True):
                if not self._outcome(done, errand.keys[name]):
                    refused.append(name)
                elif name not in missed and self._keep(
                    errand.keys[name], errand.type, values[name], payloads[name], lives[name] - late, markers[name],
                    tokens[name], stale[name], errand.load_seconds, beside, only=True,
                ):  # fmt: skip
                    kept.add(name)
            return refused
        except SerializationError:
            yield from self._guards.release_plan({token: guard_name(name) for name, token in leases.items()})
            raise
        finally:
            if errand.writes or errand.anew:
                self._front.drop([name for name in values if name not in kept])
            self._front.end(markers, load)
            for token in (writer, *leases.values()):
                self._guards.forget(token)  # if Redis wasn't told, it ends by itself

    def salvage(self, values: Mapping[bytes, Any], errand: Errand, lives: Mapping[bytes, float]) -> None:
        """Where the policy prefers an old value to none, keep what Redis didn't take: it is newer than what there is."""
        held = errand.held
        if not errand.policy.stale_for or not isinstance(held, _Held):
            return
        for name, value in values.items():
            marker = held.markers.get(name)
            if marker is None or value is MISSING or lives[name] == math.inf:
                continue
            key = errand.keys[name]
            try:
                payload = self._entries.payload(key, name, value) if self._isolate else b""
            except SerializationError:
                continue
            value = Packed(payload) if self._isolate else value
            type = None if self._isolate else errand.type
            self._front.keep_untrusted(key, type, value, lives[name], marker, errand.policy.stale_for, errand.tags)

    # -- invalidating ----------------------------------------------------------------------------------------------

    def remove_plan(self, identities: Iterable[bytes], writer: str = "") -> Steps[int]:
        try:
            return (yield from self._remove_plan(INVALIDATE, dict.fromkeys(identities, writer)))
        finally:
            self._guards.forget(writer)  # if Redis wasn't told, the hold ends by itself

    def retire_plan(self, errand: Errand, identities: Iterable[bytes]) -> Steps[None]:
        seen = {name: _digest(errand, name) for name in identities}
        yield from self._remove_plan(RETIRE, {name: digest for name, digest in seen.items() if digest})

    def _remove_plan(self, script: Script, arguments: Mapping[bytes, str]) -> Steps[int]:
        names = list(arguments)
        markers = self._front.begin(names, writes=True)
        self._front.drop(names)
        try:
            removed = 0
            for batch in batches(names, SCRIPT_BATCH):
                calls = [
                    ((name, guard_name(name)), (arguments[name], *self._news.publication("key", name)))
                    for name in batch
                ]
                removed += sum(map(self._outcome, (yield from self._commands._scripts_plan(script, calls))))
            return removed
        finally:
            self._front.drop(names)  # what was read before Redis heard of it
            self._front.end(markers)

    def hold_plan(self, identity: bytes) -> Steps[str | None]:
        """Begin to write what a key is made from. Returns the writer's token, None if Redis can't be told."""
        markers = self._front.begin([identity], writes=True)
        self._front.drop([identity])
        try:
            return (yield from self._guards.hold_plan(identity, self._news.publication("key", identity)))
        finally:
            self._front.drop([identity])
            self._front.end(markers)

    def clear_plan(self, thorough: bool = False) -> Steps[None]:
        """O(1), but for `thorough`: then values without a token go, too, that other programs stored."""
        yield from self.retag_plan(NAMESPACE)
        if thorough:
            yield from self.sweep_plan(b"*")

    def retag_plan(self, tag: bytes) -> Steps[None]:
        """Have no value of a tag (the empty one: none at all) hold any longer. O(1)."""
        name = self._news.names.token(tag)
        token = os.urandom(8)
        markers = self._front.begin([name], writes=True)
        heard: bytes | None = None
        try:
            call = ((name,), (token, TOKEN_LIFE, *self._news.publication("tag", tag, name)))
            self._outcome((yield from self._commands._script_plan(RETAG, *call)))
            if markers[name].clean:  # else another process did the same, and it isn't known who was last
                heard = token
        finally:
            self._front.end(markers)
            self._front.retag(tag, heard)

    def sweep_plan(self, glob: bytes) -> Steps[int]:
        """Invalidate the keys that match a pattern, those being loaded, too. SCAN, in small steps."""
        pattern = self._news.names.matching(glob)

        def release(guards: Iterable[bytes]) -> Steps[int]:
            return self.remove_plan(value_name(guard) for guard in guards)

        removals: dict[bytes, Any] = {pattern: self.remove_plan, **dict.fromkeys(guard_patterns(pattern), release)}
        removed = yield from self._commands._sweep_nodes_plan(removals)
        # Copies elsewhere of what Redis no longer has; the others were told of one by one.
        _, channel, message = self._news.publication("glob", pattern)
        command, link = ("PUBLISH", channel, message), self._commands._link
        try:
            yield from self._commands._execute_plan(*command, target=link, answers=(NoPermissionError,))
        except NoPermissionError as error:
            self._outcome([removed, str(error).encode()])
        return removed

    def _outcome(self, reply: Any, key: Key | None = None) -> int:
        """What a script that publishes says it did; if it wasn't allowed to publish, that is reported."""
        if reply.__class__ is not list:
            return int(reply)
        done, reason = reply
        commands = self._commands
        commands._backend_errors += 1
        server, reason = commands._link.breaker.server, reason.decode(errors="replace")
        self._reporter.tell(
            "backend_error", key, error=BackendError(f"Redis at {server}: other processes can't be told: {reason}")
        )
        return int(done)


def _digest(errand: Errand, identity: bytes) -> str:
    """Of the stored bytes that are to be replaced: '' where none were seen."""
    found = errand.found.get(identity)
    if found is None or found.token is None:
        return ""
    return hashlib.sha1(found.token[0], usedforsecurity=False).hexdigest()
