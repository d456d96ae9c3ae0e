"""What a two-level cache is made of, and the plans of its operations, written once for both faces.

The faces look for a copy first and come here with what they got: a copy that isn't a plain value, or none. With Redis away
nothing here raises for that: reading finds nothing, and what was to be written or invalidated waits in the outbox.
This file must never send anything itself, nor know whether it runs in a thread or in a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakSet

from fastcache._gate import GatedLookup
from fastcache.arguments import check_mapping, check_values
from fastcache.asyncmemory import AsyncMemoryCache
from fastcache.backends import MemoryCache
from fastcache.background import Tasks, Threads
from fastcache.coherence import hub_of
from fastcache.entries import Key
from fastcache.envelope import LONGEST_TAG, MOST_TAGS
from fastcache.errors import MISSING, BackendError, CacheMiss, ConfigurationError
from fastcache.events import OnEvent, Reporter
from fastcache.expiry import check_ttl
from fastcache.front import Front
from fastcache.guards import Guards
from fastcache.keys import glob_matcher
from fastcache.listener import Listener
from fastcache.loading import Loading
from fastcache.memory import NOTHING, Entry
from fastcache.news import News
from fastcache.plan import Plan
from fastcache.policy import Policy
from fastcache.sidekeys import Names
from fastcache.storing import Found
from fastcache.tiers import TierStore
from fastcache.wires import database

__all__ = ["Tiers"]

_COHERENCE = ("pubsub", "tracking", None)
_ABSENT: Any = object()

_claimed: WeakSet[Any] = WeakSet()


class Tiers:
    """What `TieredCache` and `AsyncTieredCache` are made of. Not public."""

    supports_tags = True
    _memories: tuple[type[Any], ...]
    _wanted: type[Any]

    def _set_up(
        self, local: Any, remote: Any, policy: Policy | None, coherence: Any, isolate: bool, on_event: OnEvent | None
    ) -> None:
        name = type(self).__name__
        if not isinstance(local, self._memories):
            raise ConfigurationError(f"{name}: the first tier is a {self._memories[-1].__name__}, not {local!r}")
        if not isinstance(remote, self._wanted):
            raise ConfigurationError(f"{name}: the second tier is a {self._wanted.__name__}, not {remote!r}")
        if coherence not in _COHERENCE:
            raise ConfigurationError(f"coherence={coherence!r}: must be 'pubsub', 'tracking' or None")
        memory = _memory_of(local)
        if memory in _claimed or len(memory):
            raise ConfigurationError(
                f"{local!r} has entries or is the first tier of another cache: each needs an empty one of its own"
            )
        self.local: Any = local
        self.remote: Any = remote
        entries, link = remote._entries, remote._link
        if policy is None:
            policy = remote._loading.policy or memory._loading.policy
        if on_event is None:
            on_event = remote._loading.reporter.observer or memory._loading.reporter.observer
        driver = Tasks() if link.asynchronous else Threads()
        reporter = Reporter(f"{entries.prefix} at {link.breaker.server}", on_event)
        self._front = Front(memory, entries.prefix_bytes, coherence is not None)
        self._lookup = self._gated = self._front.lookup
        news = News(Names(entries.prefix_bytes, database(link)), link)
        guards = Guards(remote, driver)
        self._store = TierStore(remote, self._front, news, guards, driver.flights, bool(isolate), reporter)
        self._loading = Loading(self._store, driver, policy, reporter)
        self._isolate = bool(isolate)
        self._coherence = coherence
        self._listener: Listener | None = None
        if coherence is not None:
            tracking = coherence == "tracking"
            self._listener = Listener(self._front, news, link, tracking, self._forget, reporter, hub_of)
        _claimed.add(memory)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.local!r} and {self.remote!r}, coherence={self._coherence!r}>"

    def _forget(self, changed: bytes | Callable[[bytes], object] | None) -> None:
        """It was heard that a key changed, or those for which a function is true (None: any may have): who asks for it now
        isn't to get what was loaded before."""
        flights = self._loading.flights
        if changed is None:
            flights.unshare_all()  # whether it may be stored is for its lease to say, and served, for its tokens
        elif callable(changed):
            flights.forget_where(changed)
        else:
            flights.forget(changed)

    def _attend(self) -> None:
        """At the beginning of each operation that goes beyond the memory."""
        self._loading.deliver()
        if self._listener is not None and not self._front.gate.is_open():
            self._listener.attend()

    @staticmethod
    def encode_tags(tags: Iterable[str]) -> tuple[bytes, ...]:
        """Tags as the engine takes them."""
        return _tags(tags)

    def _gated_lookup(self, type: Any) -> GatedLookup | None:
        """The lookup that begins `get_or_load`, for compiled code; None where there are no plain copies."""
        return None if self._isolate or type is not None else self._lookup

    # -- copies ----------------------------------------------------------------------------------------------------

    def _typed(self, key: Key, type: Any) -> Any:
        """The copy for readers who name a type, as the lookup of a plain one."""
        place = key if self._isolate else self._front.place(key, type)
        return NOTHING if place is None else self._lookup(place, NOTHING)

    def _copy(self, key: Key, entry: Entry, type: Any) -> Found | None:
        """What a copy is worth that isn't a plain value: None where it has to be looked for in Redis."""
        if entry is NOTHING:
            return None
        found = self._store.copy(key, type)
        if found is None or found.stale or found.value is MISSING:
            self._front.disguised += 1
        return None if found is not None and found.stale else found

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read_plan(self, keys: Mapping[bytes, Key], type: Any, look: bool = False) -> Plan[dict[bytes, Found]]:
        """What Redis has that may be served; nothing where it is away.

        `look`: only whether there is a value. One that can't be decoded is one, and nothing is counted.
        """
        self._attend()
        loading, store, outbox = self._loading, self._store, self._loading.outbox
        wanted = {identity: key for identity, key in keys.items() if identity not in outbox}
        if not look:
            store.misses += len(keys) - len(wanted)
        if not wanted:
            return {}
        try:
            refused = store.something if look else store.raised
            found = yield from store.read_redis_plan(wanted, type, self._beside, refused, counted=not look)
        except BackendError as error:
            if not look:
                store.misses += len(wanted)
            loading.reporter.backend_failed(next(iter(keys.values())), error, loading.store.unreachable(error))
            return {}
        loading.reporter.backend_answered()
        return {
            identity: one
            for identity, one in found.items()
            if not (one.broken or one.stale or one.value is MISSING)
        }

    @property
    def _beside(self) -> bool:
        return self._loading.policy is not None and self._loading.policy.refresh_ahead is not None

    def _get_plan(self, key: Key, entry: Entry, default: Any, type: Any) -> Plan[Any]:
        found = self._copy(key, entry, type)
        if found is None:
            identity = self._store.identity(key)
            found = (yield from self._read_plan({identity: key}, type)).get(identity)
        return default if found is None or found.value is MISSING else found.value

    def _item_plan(self, key: Key) -> Plan[Any]:
        value = yield from self._get_plan(key, self._typed(key, None), _ABSENT, None)
        if value is _ABSENT:
            raise CacheMiss(key)
        return value

    def _exists_plan(self, key: Key) -> Plan[bool]:
        copy = self._store.copy(key, None)
        if copy is not None and not copy.stale:
            return copy.value is not MISSING
        return (yield from self._remaining_plan(key)) is not None

    def _remaining_plan(self, key: Key) -> Plan[float | None]:
        identity = self._store.identity(key)
        found = (yield from self._read_plan({identity: key}, None, look=True)).get(identity)
        return None if found is None else found.remaining

    def _get_many_plan(self, keys: Iterable[Key], type: Any) -> Plan[dict[Any, Any]]:
        names = self.remote._entries.names(keys)
        values: dict[Any, Any] = {}
        rest: dict[bytes, Key] = {}
        for key, name in names.items():
            value: Any = self._lookup(key, NOTHING) if type is None else self._typed(key, type)
            if value.__class__ is Entry:
                found = self._copy(key, value, type)
                if found is None:
                    rest[name] = key
                    continue
                value = found.value
            if value is not MISSING:
                values[key] = value
        if rest:
            there = yield from self._read_plan(rest, type)
            values.update({key: there[name].value for key, name in names.items() if name in there})
        return {key: values[key] for key in names if key in values}

    # -- loading ---------------------------------------------------------------------------------------------------

    def _load_plan(
        self,
        key: Key,
        entry: Entry,
        loader: Any,
        default: Any,
        ttl: float | None,
        policy: Policy | None,
        type: Any,
        tags: Iterable[str],
    ) -> Plan[Any]:
        found = self._copy(key, entry, type)
        settled = policy or self._loading.policy
        if found is not None and found.value is not MISSING and (settled is None or settled.refresh_ahead is None):
            return found.value
        self._attend()
        return (yield from self._loading.one_plan(key, loader, default, ttl, policy, type, _tags(tags)))

    def _load_many_plan(
        self, keys: Iterable[Key], loader: Any, ttl: float | None, policy: Policy | None, type: Any, tags: Iterable[str]
    ) -> Plan[dict[Any, Any]]:
        self._attend()
        return (yield from self._loading.many_plan(keys, loader, ttl, policy, type, _tags(tags)))

    # -- writing ---------------------------------------------------------------------------------------------------

    def _set_plan(self, mapping: Mapping[Any, Any], ttl: float | None, tags: Iterable[str]) -> Plan[None]:
        check_mapping(mapping)
        check_values(mapping.values())
        if ttl is not None:
            ttl = check_ttl(ttl)
        elif self.remote.ttl is None:
            raise ConfigurationError(
                "no ttl: give the Redis cache one, or this set; ttl=math.inf stores an entry that never expires"
            )
        lifetime = Policy(self.remote.ttl if ttl is None else ttl, jitter=0.0)
        self._attend()
        if mapping:
            yield from self._loading.put_plan(mapping, lifetime, tags=_tags(tags), strict=True)

    def _delete_many_plan(self, keys: Iterable[Key]) -> Plan[int]:
        names = self.remote._entries.names(keys)
        self._attend()
        return (yield from self._loading.invalidate_plan(*names)) if names else 0

    def _delete_pattern_plan(self, glob: Key) -> Plan[int]:
        if not isinstance(glob, str | bytes):
            raise TypeError(f"a pattern is a str (or bytes), not {type(glob).__name__}: {glob!r}")
        try:
            pattern = glob.encode() if isinstance(glob, str) else glob
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"pattern {glob!r} has no UTF-8 form: {error}") from error
        text = glob_matcher(pattern.decode("utf-8", "surrogateescape"))
        skip = len(self.remote._entries.prefix_bytes)

        def matches(name: bytes) -> object:
            return text(name[skip:].decode("utf-8", "surrogateescape"))

        def forget() -> list[Any]:
            return self._loading.flights.forget_where(matches)

        yield from self._loading.await_plan(forget())
        self._front.drop_where(matches)
        removed = yield from self._all_plan(self._store.sweep_plan(pattern), forget, thorough=True)
        self._front.drop_where(matches)
        return removed or 0

    def _invalidate_tags_plan(self, tags: Iterable[str]) -> Plan[None]:
        for tag in _tags(tags):
            # What is being loaded may have the tag or not. It is stored with the tokens of before, so it is only not shared.
            yield from self._all_plan(self._store.retag_plan(tag), self._loading.flights.unshare_all)

    def _clear_plan(self) -> Plan[None]:
        forget = self._loading.flights.forget_all
        yield from self._loading.await_plan(forget())
        yield from self._all_plan(self._store.clear_plan(), forget)

    def _all_plan(self, plan: Plan[Any], forget: Callable[[], object], thorough: bool = False) -> Plan[Any]:
        """Invalidate what can't be named; with Redis away, all when it is back (`thorough`: see `Store.clear_plan`).

        `forget`: the loads of it.
        """
        self._attend()
        loading = self._loading
        try:
            outcome = yield from plan
        except BackendError as error:
            loading.reporter.backend_failed(None, error, loading.store.unreachable(error))
            loading.post_all(error, thorough)
            return None
        except BaseException:
            loading.post_all(thorough=thorough)
            raise
        finally:
            forget()
        loading.reporter.backend_answered()
        return outcome

    # -- coherence -------------------------------------------------------------------------------------------------

    def _sync_plan(self) -> Plan[None]:
        if self._listener is None:
            return
        if self._front.gate.is_open():
            yield from self._listener.hub.sync_plan(self._loading.driver)
        if not self._front.gate.is_open():
            self._loading.flights.unshare_all()  # nothing is heard: a load that callers could join may be older

    def _explain_plan(self, key: Key) -> Plan[str]:
        identity = self._store.identity(key)
        lines = [self._explain_copy(key)]
        if identity in self._loading.outbox:
            lines.append("outbox: an invalidation that Redis didn't take waits; until it does, the loader is asked")
        try:
            lines += yield from self._store.explain_plan(identity, key)
        except BackendError as error:
            lines.append(f"redis: away: {error}")
        return "\n".join(lines)

    def _explain_copy(self, key: Key) -> str:
        gate = self._front.gate
        copy = self._front.find(key, None, trusted=False)
        if copy is None:
            place = "no copy"
        elif copy.value is MISSING:
            place = f"remembered as missing for {copy.remaining:.3g} s more"
        else:
            place = f"a copy, {'stale' if copy.stale else f'fresh for {copy.remaining:.3g} s more'}"
        if copy is not None and gate.is_open() and self._front.find(key, None) is None:
            trust = "not relied on: Redis didn't take it; it is served under stale_for while Redis is away"
        elif gate.is_open():
            trust = "it may be relied on" if copy is not None else "one may be kept"
        elif self._listener is None or self._listener._hub is None:
            trust = "not relied on: nobody listens yet"
        else:
            trust = f"not relied on: {self._listener.hub.state()}"
        return f"memory: {place}; {trust}"

    def _snapshot(self) -> dict[str, Any]:
        map_hits, _, evictions, expirations = _memory_of(self.local)._map._counters()
        counters = self._loading.reporter.counters()
        near = map_hits - self._front.disguised
        far = self._store.hits
        return {
            "hits": near + far, "l1_hits": near, "l2_hits": far,
            "misses": max(0, self._store.misses - counters["stale_hits"]),
            "evictions": evictions, "expirations": expirations, "coherence_lost": self._front.lost,
            "backend_errors": self.remote._backend_errors, "breaker": self.remote._link.state(), **counters,
        }  # fmt: skip


def _memory_of(local: Any) -> MemoryCache[Any, Any]:
    return local._cache if isinstance(local, AsyncMemoryCache) else local


def _tags(tags: Iterable[str]) -> tuple[bytes, ...]:
    """Tags as they stand in Redis. Raises TypeError and ConfigurationError for what can't be one."""
    if isinstance(tags, str | bytes) or not hasattr(tags, "__iter__"):
        raise TypeError(f"tags must be a sequence of str, such as ('users',), not {tags!r}")
    encoded: dict[bytes, None] = {}
    for tag in tags:
        if not isinstance(tag, str):
            raise TypeError(f"a tag is a str, not {type(tag).__name__}: {tag!r}")
        try:
            data = tag.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"tag {tag!r} has no UTF-8 form: {error}") from error
        if not 1 <= len(data) <= LONGEST_TAG:
            raise ConfigurationError(f"a tag takes 1 to {LONGEST_TAG} bytes, not {len(data)}: {tag[:60]!r}")
        encoded[data] = None
    if len(encoded) > MOST_TAGS:
        raise ConfigurationError(f"a value has at most {MOST_TAGS} tags, not {len(encoded)}")
    return tuple(encoded)
