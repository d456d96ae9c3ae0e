"""`AsyncMemoryCache`: `MemoryCache` with the names of an asyncio cache, and loads that are tasks.

A hit returns before anything is awaited. This file must never decide anything: it hands calls to a `MemoryCache` whose
engine runs tasks, and its plans to `arun`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from fastcache.arguments import refuse_copy, several
from fastcache.backends import MemoryCache
from fastcache.background import Tasks
from fastcache.memory import NOTHING, Entry
from fastcache.methods import declare_keywords, lookup_first
from fastcache.plan import arun
from fastcache.stats import AwaitableStats

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
    from typing import Self

    from fastcache._gate import GatedLookup
    from fastcache.backends import Cause
    from fastcache.background import Threads
    from fastcache.errors import MissingType
    from fastcache.events import OnEvent
    from fastcache.policy import Policy

__all__ = ["AsyncMemoryCache"]

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
T = TypeVar("T")
D = TypeVar("D")

_type = type  # where a parameter has that name


class AsyncMemoryCache(Generic[K, V]):
    """`MemoryCache` for asyncio: the same methods, awaitable, with loaders that are `async def` (or plain functions).

    `await cache[key]` raises CacheMiss, like `cache[key]`. It may be used from several event loops and threads; loads are
    shared within one loop. A load is a task of its own: a caller's cancellation concerns that caller, and with the last
    of them gone it is cancelled, too. The parameters are those of `MemoryCache`.
    A hit of `get` or `get_or_load` is looked up when it is called, not when it is awaited.
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
        self._cache: _OfTasks[K, V] = _OfTasks(
            maxsize,
            ttl,
            cleanup_interval=cleanup_interval,
            on_evict=on_evict,
            timer=timer,
            policy=policy,
            on_event=on_event,
        )
        self._lookup, self._gated = self._cache._lookup, self._cache._gated
        self._loading = self._cache._loading

    def _gated_lookup(self, type: Any) -> GatedLookup | None:
        return self._cache._gated_lookup(type) if _type(self).get_or_load is AsyncMemoryCache.get_or_load else None

    @overload
    async def get(self, key: K, default: None = None, *, type: Any = None) -> V | None: ...
    @overload
    async def get(self, key: K, default: V, *, type: Any = None) -> V: ...
    @overload
    async def get(self, key: K, default: D, *, type: Any = None) -> V | D: ...
    @lookup_first(1)
    async def get(self, key: K, default: Any = None, *, type: Any = None) -> Any:
        """See `MemoryCache.get`."""
        return self._cache.get(key, default)

    @overload
    async def get_or_load(
        self,
        key: K,
        loader: Callable[[K], Awaitable[T]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> T: ...
    @overload
    async def get_or_load(
        self,
        key: K,
        loader: Callable[[K], Awaitable[T | MissingType]],
        default: D,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> T | D: ...
    @lookup_first(2)
    async def get_or_load(
        self,
        key: K,
        loader: Any,
        default: Any = None,
        ttl: float | None = None,  # by keyword: see MemoryCache.get_or_load
        policy: Policy | None = None,
        type: Any = None,
    ) -> Any:
        """See `MemoryCache.get_or_load`."""
        value = self._lookup(key, NOTHING)
        if _type(value) is not Entry:
            return value
        if value is NOTHING:
            plan = self._loading.one_plan(key, loader, default, ttl, policy, type)
        else:
            plan = self._cache._beyond_entry(key, value, loader, default, ttl, policy, type)
        return value.value if plan is None else await arun(plan)

    async def get_or_load_many(
        self,
        keys: Iterable[K],
        loader: Callable[[list[K]], Awaitable[Mapping[K, T | MissingType]]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> dict[K, T]:
        """See `MemoryCache.get_or_load_many`."""
        keys = list(several(keys))
        found = self._cache._many(keys)
        if found is None:
            return await arun(self._loading.many_plan(keys, loader, ttl, policy, type))
        return found

    async def set(self, key: K, value: V, ttl: float | None = None) -> None:
        """See `MemoryCache.set`."""
        self._cache.set(key, value, ttl)

    async def delete(self, key: K) -> bool:
        """See `MemoryCache.delete`."""
        return self._cache.delete(key)

    async def exists(self, key: K) -> bool:
        """See `MemoryCache.exists`."""
        return self._cache.exists(key)

    async def get_many(self, keys: Iterable[K], *, type: Any = None) -> dict[K, V]:
        """See `MemoryCache.get_many`."""
        return self._cache.get_many(keys)

    async def set_many(self, mapping: Mapping[K, V], ttl: float | None = None) -> None:
        """See `MemoryCache.set_many`."""
        self._cache.set_many(mapping, ttl)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """See `MemoryCache.delete_many`."""
        return self._cache.delete_many(keys)

    async def delete_pattern(self, glob: str) -> int:
        """See `MemoryCache.delete_pattern`."""
        return self._cache.delete_pattern(glob)

    async def clear(self) -> None:
        """See `MemoryCache.clear`."""
        self._cache.clear()

    async def remaining(self, key: K) -> float | None:
        """See `MemoryCache.remaining`."""
        return self._cache.remaining(key)

    async def drain(self, timeout: float | None = None) -> bool:
        """See `MemoryCache.drain`. It waits for the tasks of the running event loop."""
        driver: Any = self._loading.driver
        return await driver.drain(timeout)  # type: ignore[no-any-return]

    def stats(self) -> AwaitableStats:
        """See `MemoryCache.stats`. Asks nobody, so it needs no `await`, and allows one."""
        return AwaitableStats(**self._cache._snapshot())

    async def close(self) -> None:
        """See `MemoryCache.close`."""
        self._cache._end_sweeps()
        driver: Any = self._loading.driver
        await driver.close()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def __getitem__(self, key: K) -> V:
        """The value of a key: `await cache[key]`; CacheMiss (a KeyError) where there is none."""
        return self._cache[key]

    __reduce__ = refuse_copy

    def __contains__(self, key: Any) -> bool:
        return key in self._cache

    def __iter__(self) -> Iterator[K]:
        return iter(self._cache)

    def __len__(self) -> int:
        return len(self._cache)

    def __repr__(self) -> str:
        return repr(self._cache).replace(type(self._cache).__name__, type(self).__name__, 1)


class _OfTasks(MemoryCache[K, V]):
    """The cache behind an AsyncMemoryCache: its loads are tasks."""

    def _driver(self) -> Threads | Tasks:
        return Tasks()


declare_keywords(AsyncMemoryCache.get_or_load)
