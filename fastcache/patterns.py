"""The caching patterns: `CacheAside`, `WriteThroughCache`, `SingleFlightCache`, on any cache, and their Async twins.

Each is a thin face on the loading engine of the cache that it is given. This file must never decide what is stored, served
or loaded: where two patterns need the same decision, it belongs into the engine.

With the backend away every pattern serves from the loader and raises nothing but the loader's and the saver's own errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, overload

from fastcache.errors import MISSING, ConfigurationError
from fastcache.keys import key_maker
from fastcache.plan import Call, Plan, arun, run
from fastcache.policy import Policy

__all__ = [
    "AsyncCacheAside",
    "AsyncSingleFlightCache",
    "AsyncWriteThroughCache",
    "CacheAside",
    "SingleFlightCache",
    "WriteThroughCache",
]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class _Pattern:
    """What the patterns have in common. `cache`: any cache of this package, sync or async as the pattern is."""

    _asynchronous = False

    def __init__(self, cache: Any, loader: Any, saver: Any, ttl: float | None, policy: Policy | None, key: Any) -> None:
        loading = getattr(cache, "_loading", None)
        name = type(self).__name__
        if loading is None:
            raise TypeError(f"{name} needs a cache of this package (MemoryCache, RedisCache ...), not {cache!r}")
        if loading.driver.asynchronous is not self._asynchronous:
            other = f"Async{name}" if loading.driver.asynchronous else name.removeprefix("Async")
            raise TypeError(f"{name} doesn't take {type(cache).__name__}: use {other}")
        for what, function in (("loader", loader), ("saver", saver)):
            if not callable(function) and (function is not None or what == "loader"):
                raise TypeError(f"{what} must be a function, not {function!r}")
        self.cache = cache
        self._loading = loading
        self._loader = loader
        self._saver = saver
        self._policy: Policy = loading.policy_for(ttl, policy)
        self._key = key_maker(key)
        self._plain = key is None
        self._get_or_load = cache.get_or_load

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.cache!r}>"

    def _fetch(self, key: Any, default: Any) -> Any:
        """Through the cache's own `get_or_load`, whose hit in memory makes no plan."""
        loader = self._loader
        if self._plain:
            return self._get_or_load(key, loader, default, policy=self._policy)
        return self._get_or_load(self._key(key), lambda _: loader(key), default, policy=self._policy)

    def _save_plan(self, key: Any, value: Any) -> Plan[str]:
        """Run the saver while nobody may store the key. Returns what is to be given to who ends that.

        If the saver raises, what it did before isn't known: better no value in the cache than an old one.
        """
        held: str = yield from self._loading.hold_plan(self._key(key))
        try:
            yield Call(self._loading.driver.save, self._saver, key, value)
        except BaseException:
            yield from self._loading.abandon_plan(self._key(key), held)
            raise
        return held

    def _update_plan(self, key: Any, value: Any) -> Plan[None]:
        if self._saver is None:
            raise ConfigurationError(f"{type(self).__name__}.update needs a saver: give one to the constructor")
        hash(self._loading.store.identity(self._key(key)))  # a key that the cache refuses isn't saved

        def plan() -> Plan[None]:
            held = yield from self._save_plan(key, value)
            yield from self._loading.invalidate_plan(self._key(key), held=held)

        yield Call(self._loading.driver.finish, plan)

    def _set_plan(self, key: Any, value: Any) -> Plan[None]:
        if value is MISSING:
            raise TypeError("MISSING says that there is no value: a loader returns it, it can't be written")

        def plan() -> Plan[None]:
            held = yield from self._save_plan(key, value)
            yield from self._loading.put_plan({self._key(key): value}, self._policy, held)

        yield Call(self._loading.driver.finish, lambda: self._loading.exclusive_plan(self._key(key), plan()))

    def _invalidate_plan(self, key: Any) -> Plan[None]:
        return self._loading.invalidate_plan(self._key(key))  # type: ignore[no-any-return]


class CacheAside(_Pattern, Generic[K, V]):
    """Reads go to the cache, else to the loader; writes go to the saver, then the key is invalidated.

    loader: `loader(key)` returns the value, or MISSING. saver: `saver(key, value)` writes it where it belongs.
    ttl, policy: as for `get_or_load`. key: how a key is called in the cache, a template such as "user:{}" or a function;
    by default the key itself. Loader and saver always get the key that the caller gave.

    >>> from fastcache import CacheAside, MemoryCache
    >>> users = CacheAside(MemoryCache(ttl=60), loader=lambda id: {"id": id}, key="user:{}")
    >>> users.get(7)
    {'id': 7}
    """

    def __init__(
        self,
        cache: Any,
        loader: Callable[[K], V],
        saver: Callable[[K, V], object] | None = None,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        key: str | Callable[[K], Any] | None = None,
    ) -> None:
        super().__init__(cache, loader, saver, ttl, policy, key)

    @overload
    def get(self, key: K) -> V: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The cached value, else what the loader returns, which is stored; `default` where that is MISSING."""
        return self._fetch(key, default)

    def update(self, key: K, value: V) -> None:
        """Write a value with the saver, then invalidate the key: the next `get` loads it.

        A load that began before isn't stored. What the saver raises is raised here, the key invalidated all the same.
        """
        run(self._update_plan(key, value))

    def invalidate(self, key: K) -> None:
        """Have the next `get` load the value. With the backend away the key isn't read from it until it has heard so."""
        run(self._invalidate_plan(key))


class WriteThroughCache(_Pattern, Generic[K, V]):
    """Reads go to the cache, else to the loader; writes go to the saver, then into the cache.

    After `set` returned, no reader of this process gets an older value through this pattern, another one, or
    `get_or_load` of the same cache: if the cache didn't take the new value the key is invalidated, and if that fails too it
    is read from the loader until the cache has heard of it. Sets of one key run one after the other (in this process). The
    parameters are those of `CacheAside`.
    """

    def __init__(
        self,
        cache: Any,
        loader: Callable[[K], V],
        saver: Callable[[K, V], object],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        key: str | Callable[[K], Any] | None = None,
    ) -> None:
        if saver is None:
            raise TypeError("WriteThroughCache needs a saver; without one there is CacheAside")
        super().__init__(cache, loader, saver, ttl, policy, key)

    @overload
    def get(self, key: K) -> V: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The cached value, else what the loader returns, which is stored; `default` where that is MISSING."""
        return self._fetch(key, default)

    def set(self, key: K, value: V) -> None:
        """Write a value with the saver, then into the cache. What the saver raises is raised here, the key invalidated."""
        run(self._set_plan(key, value))


class SingleFlightCache(_Pattern, Generic[K, V]):
    """Reads go to the cache, else to the loader, which runs once for all concurrent callers of a key, whatever the policy.

    The parameters are those of `CacheAside`.
    """

    def __init__(
        self,
        cache: Any,
        loader: Callable[[K], V],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        key: str | Callable[[K], Any] | None = None,
    ) -> None:
        super().__init__(cache, loader, None, ttl, policy, key)
        _require_single_flight(self._policy)

    @overload
    def get(self, key: K) -> V: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The cached value, else what the loader returns, which is stored; `default` where that is MISSING."""
        return self._fetch(key, default)


class AsyncCacheAside(_Pattern, Generic[K, V]):
    """`CacheAside` for asyncio, on an asynchronous cache; loader and saver are `async def`s (or plain functions)."""

    _asynchronous = True

    def __init__(
        self,
        cache: Any,
        loader: Callable[[K], Awaitable[V]],
        saver: Callable[[K, V], Awaitable[object]] | None = None,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        key: str | Callable[[K], Any] | None = None,
    ) -> None:
        super().__init__(cache, loader, saver, ttl, policy, key)

    @overload
    async def get(self, key: K) -> V: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: Any = None) -> Any:
        """See `CacheAside.get`."""
        return await self._fetch(key, default)

    async def update(self, key: K, value: V) -> None:
        """See `CacheAside.update`. Once begun it runs to its end, also when the caller is cancelled."""
        await arun(self._update_plan(key, value))

    async def invalidate(self, key: K) -> None:
        """See `CacheAside.invalidate`."""
        await arun(self._invalidate_plan(key))


class AsyncWriteThroughCache(_Pattern, Generic[K, V]):
    """`WriteThroughCache` for asyncio, on an asynchronous cache; loader and saver are `async def`s (or plain functions)."""

    _asynchronous = True

    def __init__(
        self,
        cache: Any,
        loader: Callable[[K], Awaitable[V]],
        saver: Callable[[K, V], Awaitable[object]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        key: str | Callable[[K], Any] | None = None,
    ) -> None:
        if saver is None:
            raise TypeError("AsyncWriteThroughCache needs a saver; without one there is AsyncCacheAside")
        super().__init__(cache, loader, saver, ttl, policy, key)

    @overload
    async def get(self, key: K) -> V: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: Any = None) -> Any:
        """See `WriteThroughCache.get`."""
        return await self._fetch(key, default)

    async def set(self, key: K, value: V) -> None:
        """See `WriteThroughCache.set`. Once begun it runs to its end, also when the caller is cancelled."""
        await arun(self._set_plan(key, value))


class AsyncSingleFlightCache(_Pattern, Generic[K, V]):
    """`SingleFlightCache` for asyncio, on an asynchronous cache; the loader is an `async def` (or a plain function)."""

    _asynchronous = True

    def __init__(
        self,
        cache: Any,
        loader: Callable[[K], Awaitable[V]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        key: str | Callable[[K], Any] | None = None,
    ) -> None:
        super().__init__(cache, loader, None, ttl, policy, key)
        _require_single_flight(self._policy)

    @overload
    async def get(self, key: K) -> V: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: Any = None) -> Any:
        """See `SingleFlightCache.get`."""
        return await self._fetch(key, default)


def _require_single_flight(policy: Policy) -> None:
    if not policy.single_flight:
        raise ConfigurationError("single_flight=False: a SingleFlightCache shares runs; without that there is CacheAside")
