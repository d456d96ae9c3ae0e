"""Reading the two tiers of a cache: the copy in memory if it may be relied on, else the value in Redis, in one round trip.

What comes from Redis is kept as a copy unless something was heard against it meanwhile. A value holds only as long as the
tokens do that were current when its load began: one of the namespace, one of each of its tags. They are known from before
while the process hears of changes, else asked for, after the value: one that still held then is right.
This file must never decide whether something is loaded, and never removes or stores a value in Redis.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from fastcache.entries import Key
from fastcache.envelope import Envelope
from fastcache.errors import MISSING, BackendError, SerializationError
from fastcache.events import Reporter
from fastcache.front import NAMESPACE, Front, Marker, Packed
from fastcache.news import News
from fastcache.policy import Policy
from fastcache.remote import RemoteStore
from fastcache.replies import batches
from fastcache.scripts import READ
from fastcache.sending import Steps
from fastcache.sidekeys import guard_name
from fastcache.storing import Found, Landed

if TYPE_CHECKING:
    from fastcache.commands import Commands

__all__ = ["TOKEN_LIFE", "TierReading"]

TOKEN_LIFE = 30 * 24 * 3600 * 1000
"""Milliseconds. A tag for which no new token was needed for so long gets one: its values become misses, once. Without an
end, a tag for each user of each day would stay in Redis for ever."""

Refused: TypeAlias = Callable[[Key, bytes, int, SerializationError], Found]

_BATCH = 5_000  # values, each with its life, in one pipeline


class TierReading(RemoteStore):
    """The half of a `TierStore` that reads. Identities are the names in Redis. `hits` and `misses` are those of Redis."""

    def __init__(self, commands: Commands[Any], front: Front, news: News, isolate: bool, reporter: Reporter) -> None:
        super().__init__(commands)
        self._front = front
        self._news = news
        self._isolate = isolate
        self._reporter = reporter
        self.hits = 0
        self.misses = 0

    # -- reading ---------------------------------------------------------------------------------------------------

    def copy(self, key: Key, type: Any, trusted: bool = True) -> Found | None:
        """The copy of a key, decoded."""
        found = self._front.find(key, None if self._isolate else type, trusted)
        if found is None or found.value.__class__ is not Packed:
            return found
        name = self._entries.name(key)
        try:
            found.value = self._entries.decode(key, name, found.value.data, type)
        except SerializationError:
            return None  # as Redis will say in its own way
        return found

    def read_plan(self, keys: Mapping[bytes, Key], type: Any, policy: Policy) -> Steps[dict[bytes, Found]]:
        found: dict[bytes, Found] = {}
        stale: dict[bytes, Found] = {}
        for identity, key in keys.items():
            copy = self.copy(key, type)
            if copy is not None:
                (stale if copy.stale else found)[identity] = copy
        rest = {identity: key for identity, key in keys.items() if identity not in found}
        if rest:
            there = yield from self.read_redis_plan(rest, type, policy.refresh_ahead is not None)
            found.update({**stale, **there})
        return found

    def read_redis_plan(
        self,
        keys: Mapping[bytes, Key],
        type: Any,
        beside: bool = False,
        refused: Refused | None = None,
        counted: bool = True,
    ) -> Steps[dict[bytes, Found]]:
        """What Redis has, in one round trip per 5,000 (per node in a cluster), and keep copies.

        `refused`: what to make of a value that can't be decoded. `counted`: as hits and misses.
        """
        names = list(keys)
        found: dict[bytes, Found] = {}
        markers = self._front.begin(names)
        try:
            for batch in batches(names, _BATCH):
                unknown = [] if self._front.known([NAMESPACE]) else [NAMESPACE]
                replies = yield from self._fetch_plan(batch, [self._news.names.token(tag) for tag in unknown])
                tokens = dict(zip(unknown, replies[2 * len(batch) :], strict=True))
                there = {
                    name: (replies[2 * place], replies[2 * place + 1])
                    for place, name in enumerate(batch)
                    if replies[2 * place] is not None and replies[2 * place + 1] != -2
                }
                found.update((yield from self._judge_plan(there, keys, type, markers, tokens, beside, refused)))
        finally:
            self._front.end(markers)
        if counted:
            good = sum(not (one.broken or one.stale or one.value is MISSING) for one in found.values())
            self.hits += good
            self.misses += len(names) - good
        return found

    def _fetch_plan(self, names: Sequence[bytes], tokens: Sequence[bytes]) -> Steps[list[Any]]:
        """Each value and its life, then the tokens, which are asked for after the values."""
        if len(names) == 1 and not (tokens and self._commands._link.cluster):
            answer: list[Any] = yield from self._commands._script_plan(READ, [*names, *tokens], ())
            return answer[: 2 + len(tokens)]
        asked = [command for name in names for command in (("GET", name), ("PTTL", name))]
        return (yield from self._ask_plan(asked + [("GET", token) for token in tokens]))

    def _ask_plan(self, asked: Sequence[tuple[Any, ...]]) -> Steps[list[Any]]:
        replies = yield from self._commands._pipeline_plan(asked)
        for command, reply in zip(asked, replies, strict=True):
            if isinstance(reply, Exception):
                raise self._commands._failure(command[0], reply, self._commands._link) from reply
        return replies

    def _judge_plan(
        self,
        there: Mapping[bytes, tuple[bytes, int]],
        keys: Mapping[bytes, Key],
        type: Any,
        markers: Mapping[bytes, Marker],
        tokens: dict[bytes, Any],
        beside: bool,
        refused: Refused | None = None,
    ) -> Steps[dict[bytes, Found]]:
        """What stored bytes are worth; keeps copies of those that hold."""
        refused = refused or self._broken
        found: dict[bytes, Found] = {}
        envelopes: dict[bytes, Envelope | None] = {}
        for name, (data, left) in there.items():
            try:
                envelopes[name] = self._entries.opened(keys[name], data)
            except SerializationError as error:
                found[name] = refused(keys[name], data, left, error)
        wanted = {tag for envelope in envelopes.values() if envelope is not None for tag in envelope.tokens}
        known = self._front.known(wanted)
        tokens = {**tokens, **known}
        yield from self._learn_plan(tokens, wanted - tokens.keys(), markers)
        if known and any(not _holds(envelope, tokens) for envelope in envelopes.values()):
            # What was known may have been lost in Redis, and made anew by another process.
            yield from self._learn_plan(tokens, wanted, markers)
        for name, envelope in envelopes.items():
            data, left = there[name]
            if not _holds(envelope, tokens):
                found[name] = Found(None, broken=True, token=(data, None))
                continue
            found[name] = self._found(name, keys[name], data, envelope, left, type, markers[name], beside, refused)
        return found

    # What may be made of a value that can't be decoded: a miss, which is reported; the reader's error; or something that is
    # there all the same.

    def _broken(self, key: Key, data: bytes, left: int, error: SerializationError) -> Found:
        self._reporter.tell("backend_error", key, error=error)
        return Found(None, broken=True, token=(data, None))

    def raised(self, key: Key, data: bytes, left: int, error: SerializationError) -> Found:
        raise error

    def something(self, key: Key, data: bytes, left: int, error: SerializationError) -> Found:
        found = Found(None, token=(data, None))
        self._age(found, left)
        return found

    def _found(
        self,
        name: bytes,
        key: Key,
        data: bytes,
        envelope: Envelope | None,
        left: int,
        type: Any,
        marker: Marker,
        beside: bool,
        refused: Refused,
    ) -> Found:
        stale_for, load_seconds, payload = 0, 0.0, data
        tags: tuple[bytes, ...] = ()
        if envelope is not None:
            stale_for, load_seconds, payload = envelope.stale_for, envelope.load_seconds, envelope.payload
            tags = tuple(envelope.tokens)
        try:
            missing = envelope is not None and envelope.missing
            value = MISSING if missing else self._entries.decode(key, name, payload, type)
        except SerializationError as error:
            return refused(key, data, left, error)
        found = Found(value, load_seconds=load_seconds, token=(data, stale_for))
        self._age(found, left)
        if not found.stale:
            kept = (key, type, value, payload, found.remaining, marker, tags, stale_for / 1000, load_seconds, beside)
            self._keep(*kept)
        return found

    def _keep(
        self,
        key: Key,
        type: Any,
        value: Any,
        payload: bytes,
        life: float,
        marker: Marker,
        tags: Iterable[bytes],
        stale_for: float,
        load_seconds: float,
        beside: bool,
        only: bool = False,
    ) -> bool:
        if self._isolate:
            type = None
            value = value if value is MISSING else Packed(payload)
        return self._front.keep(key, type, value, life, marker, tags, stale_for, load_seconds, beside, only)

    def share(self, key: Key, value: Any) -> Any:
        if not self._isolate or value is MISSING:
            return value
        try:
            return Packed(self._entries.payload(key, self._entries.name(key), value))
        except SerializationError:
            return value  # it has no other form

    def own(self, key: Key, landed: Landed, type: Any) -> Any:
        if landed.shared.__class__ is not Packed:
            return super().own(key, landed, type)
        try:
            return self._entries.decode(key, self._entries.name(key), landed.shared.data, type)
        except SerializationError:
            return landed.value

    def rescue(self, keys: Mapping[bytes, Key], type: Any, policy: Policy) -> dict[bytes, Found]:
        """Copies that can't be relied on, where the policy prefers an old value to none."""
        found: dict[bytes, Found] = {}
        if policy.stale_for:
            for identity, key in keys.items():
                copy = self.copy(key, type, trusted=False)
                if copy is not None and copy.value is not MISSING:
                    copy.stale = True
                    found[identity] = copy
        return found

    def explain_plan(self, identity: bytes, key: Key) -> Steps[list[str]]:
        """What Redis has of a key, in words."""
        guard = guard_name(identity)
        data, left, held, life = yield from self._ask_plan(
            [("GET", identity), ("PTTL", identity), ("GET", guard), ("PTTL", guard)]
        )
        if data is None:
            lines = ["redis: no value; get_or_load would call the loader"]
        else:
            spoilt = Marker(-1, writes=False)  # so that no copy is kept
            there, keys = {identity: (data, left)}, {identity: key}
            found = (yield from self._judge_plan(there, keys, None, {identity: spoilt}, {}, False))[identity]
            if found.broken:
                lines = ["redis: a value that can't be read, or was invalidated by its tags or by clear(); a miss"]
            elif found.value is MISSING:
                lines = [f"redis: remembered as missing for {found.remaining:.3g} s more"]
            elif found.stale:
                lines = ["redis: a stale value; get misses, get_or_load serves it under stale_for and has it refreshed"]
            else:
                lines = [f"redis: a value, fresh for {found.remaining:.3g} s more; get would serve it"]
        if held is not None:
            who = "is being written: nothing is stored" if held.startswith(b"W") else "is being loaded: others wait"
            lines.append(f"guard: the key {who}, for {life / 1000:.3g} s at most unless renewed")
        return lines

    # -- tokens ----------------------------------------------------------------------------------------------------

    def _learn_plan(self, tokens: dict[bytes, Any], tags: Iterable[bytes], markers: Mapping[bytes, Marker]) -> Steps[None]:
        """Ask for the tokens of tags; None: there is none, so no value has the right one."""
        tags = list(tags)
        if tags:
            replies = yield from self._ask_plan([("GET", self._news.names.token(tag)) for tag in tags])
            tokens.update(zip(tags, replies, strict=True))
        self._front.learn({tag: token for tag, token in tokens.items() if token is not None}, markers)

    def _current_plan(self, tags: Iterable[bytes], markers: Mapping[bytes, Marker]) -> Steps[dict[bytes, bytes]]:
        """The tokens of a namespace and tags, for a value that is to be stored; made where there are none."""
        tags = [NAMESPACE, *tags]
        tokens: dict[bytes, Any] = dict(self._front.known(tags))
        unknown = [tag for tag in tags if tag not in tokens]
        if unknown:
            asked: list[tuple[Any, ...]] = []
            for tag in unknown:
                name = self._news.names.token(tag)
                asked += [("SET", name, os.urandom(8), b"PX", TOKEN_LIFE, b"NX"), ("GET", name)]
            replies = yield from self._ask_plan(asked)
            tokens.update(zip(unknown, replies[1::2], strict=True))
            if any(token is None for token in tokens.values()):
                raise BackendError("a token that was just stored is gone: Redis is out of memory, or was emptied")
            self._front.learn(tokens, markers)
        return tokens


def _holds(envelope: Envelope | None, tokens: Mapping[bytes, Any]) -> bool:
    return envelope is None or all(tokens.get(tag) == token for tag, token in envelope.tokens.items())
