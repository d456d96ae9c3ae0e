"""`RedisCache` and `AsyncRedisCache`: the two faces of one set of plans.

A method here hands a plan to its driver, nothing else: what is sent is in `commands.py`, how it fails in `breaker.py`
and `connection.py`. This file must never decide anything twice: a branch that both faces need belongs into a plan.
Importing it imports redis and msgspec: the extra `fastcache-tiers[redis]`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, overload

try:
    import msgspec as _msgspec  # noqa: F401  (the default serializer's)
    import redis as _redis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "RedisCache needs redis-py and msgspec: pip install 'fastcache-tiers[redis]'", name=error.name
    ) from error

from fastcache.arguments import refuse_copy
from fastcache.commands import Commands
from fastcache.entries import MAX_KEY_LENGTH, MAX_VALUE_SIZE, Key
from fastcache.errors import MissingType
from fastcache.events import OnEvent
from fastcache.link import AsyncLink, SyncLink
from fastcache.plan import arun, run
from fastcache.policy import Policy
from fastcache.serializers import Serializer
from fastcache.stats import AwaitableStats, CacheStats

__all__ = ["MAX_KEY_LENGTH", "MAX_VALUE_SIZE", "AsyncRedisCache", "RedisCache"]


T = TypeVar("T")
D = TypeVar("D")


class RedisCache(Commands[SyncLink]):
    """A cache in Redis: `prefix:key` holds the serialised value, with an expiry. Thread-safe.

    `client` is any client of redis-py (Redis, RedisCluster, a Sentinel's master) and stays the program's to close;
    `from_url` makes one that fails fast. `ttl` is in seconds, the default of `set`; without one, each `set` must give
    its own (`math.inf` for never). `serializer` is "json", "msgpack", "raw" or an object of `fastcache.serializers`.
    `type` is what `get` decodes into unless it is told otherwise.

    Keys are str, at most 1,024 characters (bytes too, unless the client has decode_responses=True); anything else is a
    TypeError, a longer one a ConfigurationError. A value that takes more than 1 MiB is refused (SerializationError).
    Redis away or saying no is a BackendError, a reply that doesn't come in time a BackendTimeout.
    """

    __contains__ = None  # `key in cache` would walk `cache[0]`, `cache[1]` ...; there is `exists(key)`
    __iter__ = None

    def __init__(
        self,
        client: Any,
        prefix: str = "fastcache",
        *,
        ttl: float | None = None,
        serializer: str | Serializer = "json",
        type: Any = None,
        policy: Policy | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._set_up(SyncLink.to(client), prefix, ttl, serializer, type, policy, on_event)

    @classmethod
    def from_url(
        cls,
        url: str,
        prefix: str = "fastcache",
        *,
        ttl: float | None = None,
        serializer: str | Serializer = "json",
        type: Any = None,
        policy: Policy | None = None,
        on_event: OnEvent | None = None,
        **client_options: Any,
    ) -> RedisCache:
        """A cache with a client of its own, made for `redis://`, `rediss://` (TLS) or `unix://`. Connects at first use.

        `client_options` are redis-py's (`username`, `password`, `socket_timeout`, `ssl_ca_certs`, `protocol` ...) and
        its BlockingConnectionPool's (`max_connections`, `timeout`: seconds to wait for a free connection); what the URL
        says wins. By default: 0.25 s to connect and 0.25 s for a reply, no retries, 50 connections. `close()` it.
        """
        cache = cls.__new__(cls)
        cache._set_up(SyncLink.open(url, client_options), prefix, ttl, serializer, type, policy, on_event)
        return cache

    def get(self, key: Key, default: Any = None, *, type: Any = None) -> Any:
        """Return the value of `key`, decoded (into `type`, if given), or `default`. One round trip."""
        return run(self._get_plan(key, default, type))

    def set(self, key: Key, value: Any, ttl: float | None = None) -> None:
        """Store a value for `ttl` seconds (the cache's default if None; `math.inf`: for ever). One round trip."""
        run(self._set_plan(key, value, ttl))

    def delete(self, key: Key) -> bool:
        """Remove a key (UNLINK); whether it was there. One round trip."""
        return run(self._delete_plan(key))

    def exists(self, key: Key) -> bool:
        """Whether the key is there. One round trip."""
        return run(self._exists_plan(key))

    def get_many(self, keys: Iterable[Key], *, type: Any = None) -> dict[Any, Any]:
        """Return the `keys` that are there with their values. One round trip per 10,000 (per node in a cluster)."""
        return run(self._get_many_plan(keys, type))

    def set_many(self, mapping: Mapping[Any, Any], ttl: float | None = None) -> None:
        """Store all of `mapping`, each key as `set` would; nothing is sent unless all can be encoded.

        One round trip per 10,000 (in a cluster, per node). Not atomic: after a BackendError some may be stored.
        """
        run(self._set_many_plan(mapping, ttl))

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove keys; how many were there. One round trip per 500."""
        return run(self._delete_many_plan(keys))

    def delete_pattern(self, glob: Key) -> int:
        """Remove the keys that match a Redis glob (`user:*`, `[^x]`, `?`, backslash escapes), how many.

        O(all keys in the database), by SCAN and UNLINK in small steps. A key set meanwhile may be removed or not.
        """
        return run(self._delete_pattern_plan(glob))

    def clear(self) -> None:
        """Remove all keys under this prefix, nothing else. Costs what `delete_pattern("*")` costs."""
        run(self._delete_pattern_plan("*"))

    def remaining(self, key: Key) -> float | None:
        """Seconds until the key expires; None if it isn't there, `math.inf` if it never does. One round trip."""
        return run(self._remaining_plan(key))

    @overload
    def get_or_load(
        self,
        key: Key,
        loader: Callable[[Any], T],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> T: ...
    @overload
    def get_or_load(
        self,
        key: Key,
        loader: Callable[[Any], T | MissingType],
        default: D,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> T | D: ...
    def get_or_load(
        self,
        key: Key,
        loader: Any,
        default: Any = None,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> Any:
        """The value of `key`; where there is none, what `loader(key)` returns, which is stored. One round trip on a hit.

        Concurrent callers in this process share one run of the loader. What it raises reaches all of them and is not stored.
        If it returns MISSING, the callers get `default`. A key that is deleted or set during a load: the loaded value goes
        to those who wait for it and is not stored. `policy` (see `Policy`) says the rest, `ttl` overrides the policy's.
        With Redis away, silent or unreadable the loader is asked: nothing but its own errors is raised.
        """
        return run(self._loading.one_plan(key, loader, default, ttl, policy, type))

    def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Any]], Mapping[Any, T | MissingType]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> dict[Any, T]:
        """The values of `keys`, the missing ones by one call of `loader(list of missing keys)`, which returns a mapping.

        A key that the mapping leaves out, or maps to MISSING, is absent from the result; what else it holds is ignored.
        Keys that are being loaded already are waited for. One round trip if all are there; see `get_or_load`.
        """
        found: dict[Any, T] = run(self._loading.many_plan(keys, loader, ttl, policy, type))
        return found

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the work in the background is done, at most `timeout` seconds; whether it is."""
        driver: Any = self._loading.driver
        done: bool = driver.drain(timeout)
        return done

    def stats(self) -> CacheStats:
        """The counters of this object (not of the server) since it was made. O(1), asks nobody."""
        return CacheStats(**self._snapshot())

    def close(self) -> None:
        """Close the connections that the cache made itself; a client that was given stays open. May be called again.

        Waits for what is loaded in the background first, for 5 s at most. Invalidations that the server hasn't heard of are
        sent before, if it is back.
        """
        driver: Any = self._loading.driver
        driver.close()
        run(self._loading.last_plan())
        self._link.close()

    __reduce__ = refuse_copy

    def __getitem__(self, key: Key) -> Any:
        """Return the value of `key`. Raises CacheMiss (a KeyError) if there is none."""
        return run(self._item_plan(key))

    def __enter__(self) -> RedisCache:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncRedisCache(Commands[AsyncLink]):
    """`RedisCache` for asyncio: the same methods, awaitable. `await cache[key]` raises CacheMiss, like `cache[key]`.

    One made by `from_url` may be used from several event loops, with a pool for each; their connections are closed with
    `close()`, or when their loop shuts down. A given client belongs to the loop that it was first used in.
    """

    __contains__ = None
    __iter__ = None

    def __init__(
        self,
        client: Any,
        prefix: str = "fastcache",
        *,
        ttl: float | None = None,
        serializer: str | Serializer = "json",
        type: Any = None,
        policy: Policy | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._set_up(AsyncLink.to(client), prefix, ttl, serializer, type, policy, on_event)

    @classmethod
    def from_url(
        cls,
        url: str,
        prefix: str = "fastcache",
        *,
        ttl: float | None = None,
        serializer: str | Serializer = "json",
        type: Any = None,
        policy: Policy | None = None,
        on_event: OnEvent | None = None,
        **client_options: Any,
    ) -> AsyncRedisCache:
        """A cache with clients of its own, one per event loop; see `RedisCache.from_url`. Connects when first used."""
        cache = cls.__new__(cls)
        cache._set_up(AsyncLink.open(url, client_options), prefix, ttl, serializer, type, policy, on_event)
        return cache

    async def get(self, key: Key, default: Any = None, *, type: Any = None) -> Any:
        """See `RedisCache.get`."""
        return await arun(self._get_plan(key, default, type))

    async def set(self, key: Key, value: Any, ttl: float | None = None) -> None:
        """See `RedisCache.set`."""
        await arun(self._set_plan(key, value, ttl))

    async def delete(self, key: Key) -> bool:
        """See `RedisCache.delete`."""
        return await arun(self._delete_plan(key))

    async def exists(self, key: Key) -> bool:
        """See `RedisCache.exists`."""
        return await arun(self._exists_plan(key))

    async def get_many(self, keys: Iterable[Key], *, type: Any = None) -> dict[Any, Any]:
        """See `RedisCache.get_many`."""
        return await arun(self._get_many_plan(keys, type))

    async def set_many(self, mapping: Mapping[Any, Any], ttl: float | None = None) -> None:
        """See `RedisCache.set_many`."""
        await arun(self._set_many_plan(mapping, ttl))

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """See `RedisCache.delete_many`."""
        return await arun(self._delete_many_plan(keys))

    async def delete_pattern(self, glob: Key) -> int:
        """See `RedisCache.delete_pattern`."""
        return await arun(self._delete_pattern_plan(glob))

    async def clear(self) -> None:
        """See `RedisCache.clear`."""
        await arun(self._delete_pattern_plan("*"))

    async def remaining(self, key: Key) -> float | None:
        """See `RedisCache.remaining`."""
        return await arun(self._remaining_plan(key))

    @overload
    async def get_or_load(
        self,
        key: Key,
        loader: Callable[[Any], Awaitable[T]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> T: ...
    @overload
    async def get_or_load(
        self,
        key: Key,
        loader: Callable[[Any], Awaitable[T | MissingType]],
        default: D,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> T | D: ...
    async def get_or_load(
        self,
        key: Key,
        loader: Any,
        default: Any = None,
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> Any:
        """See `RedisCache.get_or_load`. The loader is an `async def` (or a plain function)."""
        return await arun(self._loading.one_plan(key, loader, default, ttl, policy, type))

    async def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Any]], Awaitable[Mapping[Any, T | MissingType]]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
    ) -> dict[Any, T]:
        """See `RedisCache.get_or_load_many`."""
        found: dict[Any, T] = await arun(self._loading.many_plan(keys, loader, ttl, policy, type))
        return found

    async def drain(self, timeout: float | None = None) -> bool:
        """See `RedisCache.drain`. It waits for the tasks of the running event loop."""
        driver: Any = self._loading.driver
        done: bool = await driver.drain(timeout)
        return done

    def stats(self) -> AwaitableStats:
        """See `RedisCache.stats`. Asks nobody, so it needs no `await`, and allows one."""
        return AwaitableStats(**self._snapshot())

    async def close(self) -> None:
        """See `RedisCache.close`."""
        driver: Any = self._loading.driver
        await driver.close()
        await arun(self._loading.last_plan())
        await self._link.close()

    aclose = close

    __reduce__ = refuse_copy

    async def __getitem__(self, key: Key) -> Any:
        """Return the value of `key`: `await cache[key]`. Raises CacheMiss (a KeyError) if there is none."""
        return await arun(self._item_plan(key))

    async def __aenter__(self) -> AsyncRedisCache:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
