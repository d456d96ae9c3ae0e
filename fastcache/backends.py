"""The `Cache` protocol, and `MemoryCache`, its form in the process's own memory. (`AsyncMemoryCache`: `asyncmemory.py`.)

A hit in memory is one call into the compiled map: no plan is made, no flight looked for, no lock taken. What a miss of
`get_or_load` does is the engine's (`loading.py`). This file must never import Redis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from fastcache._gate import Gate, GatedLookup
from fastcache._ttl import TTLCache, check_ttl
from fastcache.arguments import check_listener, check_mapping, check_maxsize, refuse_copy, several
from fastcache.background import Threads
from fastcache.errors import MISSING, CacheMiss
from fastcache.events import Reporter
from fastcache.keys import glob_matcher
from fastcache.loading import Loading
from fastcache.memory import NOTHING, Departures, Entry, MemoryStore
from fastcache.methods import declare_keywords, lookup_first
from fastcache.plan import run
from fastcache.policy import Policy
from fastcache.stats import CacheStats

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
    from typing import Literal, Self

    from fastcache.background import Tasks
    from fastcache.errors import MissingType
    from fastcache.events import OnEvent

    Cause = Literal["evicted", "expired", "replaced", "deleted", "cleared"]

__all__ = ["Cache", "MemoryCache"]

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
T = TypeVar("T")
D = TypeVar("D")

_ABSENT: Any = object()
_type = type  # where a parameter has that name


class Cache(Protocol):
    """What every cache of this package can do. The asynchronous ones have the same methods, awaitable."""

    def get(self, key: Any, default: Any = None, *, type: Any = None) -> Any: ...
    def set(self, key: Any, value: Any, ttl: float | None = None) -> None: ...
    def delete(self, key: Any) -> bool: ...
    def exists(self, key: Any) -> bool: ...
    def get_many(self, keys: Iterable[Any], *, type: Any = None) -> dict[Any, Any]: ...
    def set_many(self, mapping: Mapping[Any, Any], ttl: float | None = None) -> None: ...
    def delete_many(self, keys: Iterable[Any]) -> int: ...
    def delete_pattern(self, glob: str) -> int: ...
    def clear(self) -> None: ...
    def remaining(self, key: Any) -> float | None: ...
    def get_or_load(
        self, key: Any, loader: Any, default: Any = None, *, ttl: Any = None, policy: Any = None, type: Any = None
    ) -> Any: ...
    def get_or_load_many(
        self, keys: Iterable[Any], loader: Any, *, ttl: Any = None, policy: Any = None, type: Any = None
    ) -> dict[Any, Any]: ...
    def stats(self) -> CacheStats: ...
    def close(self) -> None: ...


class MemoryCache(Generic[K, V]):
    """A cache in the process's own memory: an LRU map whose entries expire, swept in the background.

    maxsize: entries; storing one more removes what has expired, else the least recently used. None: no bound.
    ttl: seconds until an entry expires that was stored without a ttl of its own; None or `math.inf`: never.
    cleanup_interval: seconds between two sweeps that give the memory of expired entries back. One daemon thread does this
        for all caches of the process; it starts with the first entry that can expire. None or `math.inf`: no such sweeps;
        expired entries are then removed as others are stored. They are never served either way.
    on_evict: called as `on_evict(key, value, cause)` after an entry left, with the cause "evicted", "expired", "replaced",
        "deleted" or "cleared", in the thread that made the change or in the janitor's. What it raises reaches the caller of
        the change, which has taken place; in the janitor, `sys.unraisablehook`.
    timer: a function that tells the time in seconds, for tests; by default the system's monotonic clock.
    policy: what `get_or_load` does with the values it loads (see `Policy`); by default they live for the ttl, no more.
    on_event: called with an `Event` when a loader ran, a stale value was served, and so on.

    Keys are any hashable objects. Every reader gets the very object that was stored: who changes it changes it for all.
    `None` is a value like any other. All methods may be called from any thread; those
    for a single key are atomic, and O(1) expected.

    Raises ConfigurationError (a ValueError) for a ttl or an interval that isn't greater than 0, and for a `maxsize` below 1.

    >>> cache = MemoryCache(maxsize=1000, ttl=300)
    >>> cache.set("user:1", {"name": "Ada"})
    >>> cache.get("user:1")
    {'name': 'Ada'}
    >>> cache.get("user:2") is None
    True
    """

    def __init__(
        self,
        maxsize: int | None = None,
        ttl: float | None = None,
        *,
        cleanup_interval: float | None = 60.0,
        on_evict: Callable[[K, V, Cause], object] | None = None,
        timer: Callable[[], float] | None = None,
        policy: Policy | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        check_maxsize(maxsize)
        check_listener(on_evict)
        ttl = math.inf if ttl is None else check_ttl(ttl)
        interval = math.inf if cleanup_interval is None else check_ttl(cleanup_interval, "cleanup_interval")
        departures = None if on_evict is None else Departures(on_evict)
        self._map: TTLCache[Any, Any] = TTLCache(maxsize, ttl, timer, on_evict=departures)
        self._interval = interval
        self._swept = interval == math.inf  # or nothing has to be done about it
        self._lookup = self._map.get
        self._gated = GatedLookup(self._map, Gate(math.inf))
        self._disguised = 0  # hits of the map that were none: stale, or remembered as missing
        driver = self._driver()
        self._flights = driver.flights
        self._store = MemoryStore(self._map, driver.flights, departures, self._have_swept)
        self._section = self._store.section
        clock = {} if timer is None else {"clock": timer}
        self._loading = Loading(self._store, driver, policy, Reporter("memory", on_event), **clock)

    def _driver(self) -> Threads | Tasks:
        return Threads()

    def _gated_lookup(self, type: Any) -> GatedLookup | None:
        """The lookup that begins `get_or_load`, for compiled code; None where a subclass has it begin otherwise."""
        return self._gated if _type(self).get_or_load is MemoryCache.get_or_load else None

    @overload
    def get(self, key: K, default: None = None, *, type: Any = None) -> V | None: ...
    @overload
    def get(self, key: K, default: V, *, type: Any = None) -> V: ...
    @overload
    def get(self, key: K, default: D, *, type: Any = None) -> V | D: ...
    @lookup_first(1)
    def get(self, key: K, default: Any = None, *, type: Any = None) -> Any:
        """The value of a key, now most recently used; `default` where there is none or it has expired.

        `type` is there for caches that decode; here the object that was stored is returned as it is.
        """
        value = self._lookup(key, default)
        return value if _type(value) is not Entry else self._fresh(key, value, default)

    def _fresh(self, key: K, entry: Entry, default: Any) -> Any:
        """The value of an entry that was looked up; `default` if it is stale, or remembered as missing."""
        found = self._store.find(key, entry)
        if found is None or found.stale or found.value is MISSING:
            with self._flights.lock:
                self._disguised += 1
            return default
        return found.value

    @overload
    def get_or_load(
        self, key: K, loader: Callable[[K], T], *, ttl: float | None = None, policy: Policy | None = None, type: Any = None
    ) -> T: ...
    @overload
    def get_or_load(
        self,
        key: K,
        loader: Callable[[K], T | MissingType],
        default: D,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> T | D: ...
    @lookup_first(2)
    def get_or_load(
        self,
        key: K,
        loader: Any,
        default: Any = None,
        ttl: float | None = None,  # by keyword; declared so, since keyword-only defaults would cost a third of a hit
        policy: Policy | None = None,
        type: Any = None,
    ) -> Any:
        """The value of a key; where there is none, what `loader(key)` returns, which is stored.

        Concurrent callers of one key share one run of the loader. What it raises reaches all of them and is not stored. If
        it returns MISSING, the callers get `default`. A key that is deleted or set during a load: the loaded value goes to
        those who wait for it and is not stored. `policy` (see `Policy`) says the rest, `ttl` overrides the policy's.
        A hit is O(1) and takes no lock.

        Raises what the loader raises; LoadTimeout by the policy's `hard_timeout`; ConfigurationError for a wrong ttl.
        """
        value = self._lookup(key, NOTHING)
        if _type(value) is not Entry:
            return value
        if value is NOTHING:
            return run(self._loading.one_plan(key, loader, default, ttl, policy, type))
        plan = self._beyond_entry(key, value, loader, default, ttl, policy, type)
        return value.value if plan is None else run(plan)

    def _beyond_entry(
        self, key: K, entry: Entry, loader: Any, default: Any, ttl: float | None, policy: Policy | None, type: Any
    ) -> Any:
        """The plan of `get_or_load` where the entry alone doesn't do, else None."""
        left = self._map.remaining(key)
        if left is None or left <= entry.stale_for or entry.value is MISSING:
            with self._flights.lock:
                self._disguised += 1
        elif (policy or self._loading.policy or _PLAIN).refresh_ahead is None:
            return None
        return self._loading.one_plan(key, loader, default, ttl, policy, type)

    def get_or_load_many(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Mapping[K, T | MissingType]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> dict[K, T]:
        """The values of keys, those that are missing by one call of `loader(list of missing keys)`, which returns a mapping.

        A key that the mapping leaves out, or maps to MISSING, is absent from the result; what else it holds is ignored. Keys
        that are being loaded already are waited for. Otherwise as `get_or_load`. O(keys).
        """
        keys = list(several(keys))
        found = self._many(keys)
        if found is None:
            found = run(self._loading.many_plan(keys, loader, ttl, policy, type))
        return found

    def _many(self, keys: list[K]) -> dict[K, Any] | None:
        """The values of the keys, if all are there; else None."""
        found = {}
        for key in keys:
            value = self._lookup(key, _ABSENT)
            if _type(value) is Entry:
                value = self._fresh(key, value, _ABSENT)
            found[key] = value
        if self._store.has_entries or any(value is _ABSENT for value in found.values()):
            return None
        return found

    def set(self, key: K, value: V, ttl: float | None = None) -> None:
        """Store a value. `ttl` in seconds, `math.inf` for ever; None: the cache's own."""
        if value is MISSING:
            raise TypeError("MISSING says that there is no value: a loader returns it, a cache can't store it")
        with self._section():
            self._map.set(key, value, ttl)
            if self._flights.busy:
                self._flights.forget(key)
        if not self._swept:
            self._have_swept(ttl)

    def delete(self, key: K) -> bool:
        """Remove a key; whether it was there. (One whose value is stale, or that is remembered as missing, was there.)"""
        with self._section():
            if self._flights.busy:
                self._flights.forget(key)
            return self._map.pop(key, _ABSENT) is not _ABSENT

    def exists(self, key: K) -> bool:
        """Whether there is a value; doesn't count as use."""
        return key in self

    def get_many(self, keys: Iterable[K], *, type: Any = None) -> dict[K, V]:
        """The values of those keys that are there."""
        get: Any = self.get
        return {key: value for key in several(keys) if (value := get(key, _ABSENT)) is not _ABSENT}

    def set_many(self, mapping: Mapping[K, V], ttl: float | None = None) -> None:
        """Store each pair, with the same ttl. A wrong ttl stores nothing."""
        check_mapping(mapping)
        if ttl is not None:
            ttl = check_ttl(ttl)
        for key, value in mapping.items():
            self.set(key, value, ttl)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove keys; how many of them were there."""
        return sum(self.delete(key) for key in several(keys))

    def delete_pattern(self, glob: str) -> int:
        """Remove the str keys that match a pattern of Redis (`user:*`, `[^x]?`, case counts); how many. O(all entries)."""
        if not isinstance(glob, str):
            raise TypeError(f"a pattern is a str, not {glob!r}")
        matches = glob_matcher(glob)
        self._flights.forget_where(lambda key: isinstance(key, str) and matches(key))
        found: list[Any] = [key for key, _ in self._map._entries() if isinstance(key, str) and matches(key)]
        return self.delete_many(found)

    def clear(self) -> None:
        """Remove everything."""
        with self._section():
            self._flights.forget_all()
            self._map.clear()

    def remaining(self, key: K) -> float | None:
        """Seconds until a key expires, `math.inf` if it never does; None where there is no value."""
        entry = self._map.peek(key, None)
        if _type(entry) is not Entry:
            return self._map.remaining(key)
        found = self._store.find(key, entry)
        return None if found is None or found.stale or found.value is MISSING else found.remaining

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the work in the background is done, at most `timeout` seconds; whether it is."""
        driver: Any = self._loading.driver
        return driver.drain(timeout)  # type: ignore[no-any-return]

    def stats(self) -> CacheStats:
        """The counters since the cache was made."""
        return CacheStats(**self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        hits, misses, evictions, expirations = self._map._counters()
        counters = self._loading.reporter.counters()
        hits -= self._disguised
        misses += self._disguised - counters["stale_hits"]
        return {
            "hits": hits, "l1_hits": hits, "misses": max(0, misses), "evictions": evictions, "expirations": expirations,
            **counters,
        }  # fmt: skip

    def close(self) -> None:
        """End the background sweeps for this cache, and wait for what it loads in the background, for 5 s at most.

        It keeps its entries and can still be used. May be called twice.
        """
        self._end_sweeps()
        driver: Any = self._loading.driver
        driver.close()

    def _end_sweeps(self) -> None:
        if self._interval != math.inf:
            self._interval = math.inf
            self._swept = True
            _janitor_do("give_up", self._map)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @overload
    def __getitem__(self, key: K) -> V: ...
    @overload
    def __getitem__(self, key: Any) -> V: ...
    def __getitem__(self, key: Any) -> V:
        """The value of a key; CacheMiss (a KeyError) where there is none."""
        value = self.get(key, _ABSENT)
        if value is _ABSENT:
            raise CacheMiss(key)
        return value  # type: ignore[no-any-return]

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        if not self.delete(key):
            raise CacheMiss(key)

    __reduce__ = refuse_copy

    def __contains__(self, key: Any) -> bool:
        return key in self._map and (not self._store.has_entries or self.remaining(key) is not None)

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys()) if self._store.has_entries else len(self._map)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} entries, maxsize={self._map.maxsize!r}, ttl={self._map.ttl!r}>"

    def _keys(self) -> list[K]:
        keys = [key for key, _ in self._map._entries()]
        return [key for key in keys if self.remaining(key) is not None] if self._store.has_entries else keys

    def _have_swept(self, ttl: float | None) -> None:
        """Have the janitor look after the cache, now that it holds something that can expire."""
        if not self._swept and (self._map.ttl if ttl is None else ttl) != math.inf:
            self._swept = True
            _janitor_do("take_on", self._map, self._interval)


_PLAIN = Policy(None)
declare_keywords(MemoryCache.get_or_load)


def _janitor_do(what: str, *args: Any) -> None:
    try:
        from fastcache.janitor import janitor
    except ImportError:
        return  # a finalizer at the very end of the interpreter: no module can be imported, and nothing will be swept
    getattr(janitor, what)(*args)
