"""The `Cache` protocol, and `MemoryCache`, its form in the process's own memory.

A hit in memory is one call into the compiled map. This file must never import Redis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from fastcache._ttl import TTLCache, check_ttl
from fastcache.errors import CacheMiss, ConfigurationError
from fastcache.keys import glob_matcher
from fastcache.stats import CacheStats

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
    from typing import Literal, Self

    Cause = Literal["evicted", "expired", "replaced", "deleted", "cleared"]

__all__ = ["Cache", "MemoryCache"]

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
T = TypeVar("T")

_ABSENT: Any = object()


class Cache(Protocol):
    """What every cache of this package can do. The asynchronous ones have the same methods, awaitable."""

    def get(self, key: Any, default: Any = None, *, type: Any = None) -> Any: ...
    def set(self, key: Any, value: Any, ttl: float | None = None) -> None: ...
    def delete(self, key: Any) -> bool: ...
    def exists(self, key: Any) -> bool: ...
    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]: ...
    def set_many(self, mapping: Mapping[Any, Any], ttl: float | None = None) -> None: ...
    def delete_many(self, keys: Iterable[Any]) -> int: ...
    def delete_pattern(self, glob: str) -> int: ...
    def clear(self) -> None: ...
    def remaining(self, key: Any) -> float | None: ...
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

    Keys are any hashable objects. Every reader gets the very object that was stored: who changes it changes it for all.
    `None` is a value like any other. All methods may be called from any thread; those
    for a single key are atomic, and O(1) expected.

    Raises ConfigurationError (a ValueError) for a ttl or an interval that isn't greater than 0, and for a `maxsize` below 0.

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
    ) -> None:
        if maxsize is not None and not maxsize > 0:
            raise ConfigurationError(f"maxsize must be at least 1, or None for no bound, not {maxsize!r}")
        ttl = math.inf if ttl is None else check_ttl(ttl)
        interval = math.inf if cleanup_interval is None else check_ttl(cleanup_interval, "cleanup_interval")
        self._map: TTLCache[K, V] = TTLCache(maxsize, ttl, timer, on_evict=on_evict)
        self._interval = interval
        self._swept = interval == math.inf  # or nothing has to be done about it
        self._lookup = self._map.get

    def get(self, key: K, default: Any = None, *, type: Any = None) -> Any:
        """The value of a key, now most recently used; `default` where there is none or it has expired.

        `type` is there for caches that decode; here the object that was stored is returned as it is.
        """
        return self._lookup(key, default)

    def set(self, key: K, value: V, ttl: float | None = None) -> None:
        """Store a value. `ttl` in seconds, `math.inf` for ever; None: the cache's own."""
        self._map.set(key, value, ttl)
        if not self._swept:
            self._have_swept(ttl)

    def delete(self, key: K) -> bool:
        """Remove a key; whether it was there."""
        return self._map.pop(key, _ABSENT) is not _ABSENT

    def exists(self, key: K) -> bool:
        """Whether there is a value; doesn't count as use."""
        return key in self._map

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those keys that are there."""
        lookup: Any = self._lookup
        return {key: value for key in keys if (value := lookup(key, _ABSENT)) is not _ABSENT}

    def set_many(self, mapping: Mapping[K, V], ttl: float | None = None) -> None:
        """Store each pair, with the same ttl. A wrong ttl stores nothing."""
        if ttl is not None:
            ttl = check_ttl(ttl)
        for key, value in mapping.items():
            self.set(key, value, ttl)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove keys; how many of them were there."""
        return sum(self.delete(key) for key in keys)

    def delete_pattern(self, glob: str) -> int:
        """Remove the str keys that match a pattern of Redis (`user:*`, `[^x]?`, case counts); how many. O(all entries)."""
        if not isinstance(glob, str):
            raise TypeError(f"a pattern is a str, not {glob!r}")
        matches = glob_matcher(glob)
        return self.delete_many([key for key in self._keys() if isinstance(key, str) and matches(key)])

    def clear(self) -> None:
        """Remove everything."""
        self._map.clear()

    def remaining(self, key: K) -> float | None:
        """Seconds until a key expires, `math.inf` if it never does; None where there is no value."""
        return self._map.remaining(key)

    def stats(self) -> CacheStats:
        """The counters since the cache was made."""
        hits, misses, evictions, expirations = self._map._counters()
        return CacheStats(hits=hits, l1_hits=hits, misses=misses, evictions=evictions, expirations=expirations)

    def close(self) -> None:
        """End the background sweeps for this cache. It keeps its entries and can still be used. May be called twice."""
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
        value = self._lookup(key, _ABSENT)
        if value is _ABSENT:
            raise CacheMiss(key)
        return value  # type: ignore[no-any-return]

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        if not self.delete(key):
            raise CacheMiss(key)

    def __contains__(self, key: object) -> bool:
        return key in self._map

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._map)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} entries, maxsize={self._map.maxsize!r}, ttl={self._map.ttl!r}>"

    def _keys(self) -> list[K]:
        return [key for key, _ in self._map._entries()]

    def _have_swept(self, ttl: float | None) -> None:
        """Have the janitor look after the cache, now that it holds something that can expire."""
        if (self._map.ttl if ttl is None else ttl) != math.inf:
            self._swept = True
            _janitor_do("take_on", self._map, self._interval)


def _janitor_do(what: str, *args: Any) -> None:
    try:
        from fastcache.janitor import janitor
    except ImportError:
        return  # a finalizer at the very end of the interpreter: no module can be imported, and nothing will be swept
    getattr(janitor, what)(*args)
