"""`AsyncTieredCache`: `TieredCache` for asyncio. The other face of the plans in `tierplans.py`.

This file must never decide anything twice: a branch that both faces need belongs into a plan.
Importing it imports redis and msgspec: the extra `fastcache-tiers[redis]`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

from fastcache.arguments import refuse_copy
from fastcache.asyncmemory import AsyncMemoryCache
from fastcache.backends import MemoryCache
from fastcache.errors import MissingType
from fastcache.events import OnEvent
from fastcache.memory import NOTHING, Entry
from fastcache.methods import declare_keywords, lookup_first
from fastcache.plan import arun
from fastcache.policy import Policy
from fastcache.redis import AsyncRedisCache
from fastcache.stats import AwaitableStats
from fastcache.tierplans import Tiers

if TYPE_CHECKING:
    from fastcache.entries import Key

__all__ = ["AsyncTieredCache"]

T = TypeVar("T")
D = TypeVar("D")
Coherence: TypeAlias = Literal["pubsub", "tracking"] | None

_type = type  # where a parameter has that name


class AsyncTieredCache(Tiers):
    """`TieredCache` for asyncio: the same methods, awaitable; `async with cache.writing(key):`.

    local: a MemoryCache or AsyncMemoryCache; remote: an AsyncRedisCache. It may be used from several event loops if `remote`
    was made by `from_url`; a task of one of them listens for all. A copy in memory is looked up when `get` or
    `get_or_load` is called, not when it is awaited.
    """

    _memories = (MemoryCache, AsyncMemoryCache)
    _wanted = AsyncRedisCache
    __contains__ = None
    __iter__ = None

    def __init__(
        self,
        local: MemoryCache[Any, Any] | AsyncMemoryCache[Any, Any],
        remote: AsyncRedisCache,
        *,
        policy: Policy | None = None,
        coherence: Coherence = "pubsub",
        isolate: bool = False,
        on_event: OnEvent | None = None,
    ) -> None:
        self._set_up(local, remote, policy, coherence, isolate, on_event)

    @lookup_first(1)
    async def get(self, key: Key, default: Any = None, type: Any = None) -> Any:  # `type` by keyword: see get_or_load
        """See `TieredCache.get`."""
        value = self._lookup(key, NOTHING) if type is None else self._typed(key, type)
        if _type(value) is not Entry:
            return value
        return await arun(self._get_plan(key, value, default, type))

    async def set(self, key: Key, value: Any, ttl: float | None = None, *, tags: Iterable[str] = ()) -> None:
        """See `TieredCache.set`."""
        await arun(self._set_plan({key: value}, ttl, tags))

    async def delete(self, key: Key) -> bool:
        """See `TieredCache.delete`."""
        return bool(await arun(self._delete_many_plan([key])))

    async def invalidate(self, key: Key) -> None:
        """See `TieredCache.invalidate`."""
        await arun(self._delete_many_plan([key]))

    async def invalidate_tags(self, *tags: str) -> None:
        """See `TieredCache.invalidate_tags`."""
        await arun(self._invalidate_tags_plan(tags))

    @asynccontextmanager
    async def writing(self, key: Key) -> AsyncGenerator[None, None]:
        """See `TieredCache.writing`. The end is reached also when the task is cancelled."""
        held = await arun(self._loading.hold_plan(key))
        driver: Any = self._loading.driver
        try:
            yield
        except BaseException:
            await driver.finish(lambda: self._loading.abandon_plan(key, held))
            raise
        await driver.finish(lambda: self._loading.invalidate_plan(key, held=held))

    async def exists(self, key: Key) -> bool:
        """See `TieredCache.exists`."""
        return await arun(self._exists_plan(key))

    async def remaining(self, key: Key) -> float | None:
        """See `TieredCache.remaining`."""
        return await arun(self._remaining_plan(key))

    async def get_many(self, keys: Iterable[Key], *, type: Any = None) -> dict[Any, Any]:
        """See `TieredCache.get_many`."""
        return await arun(self._get_many_plan(keys, type))

    async def set_many(self, mapping: Mapping[Any, Any], ttl: float | None = None, *, tags: Iterable[str] = ()) -> None:
        """See `TieredCache.set_many`."""
        await arun(self._set_plan(mapping, ttl, tags))

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """See `TieredCache.delete_many`."""
        return await arun(self._delete_many_plan(keys))

    async def delete_pattern(self, glob: Key) -> int:
        """See `TieredCache.delete_pattern`."""
        return await arun(self._delete_pattern_plan(glob))

    async def clear(self) -> None:
        """See `TieredCache.clear`."""
        await arun(self._clear_plan())

    @overload
    async def get_or_load(
        self,
        key: Key,
        loader: Callable[[Any], Awaitable[T]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
        tags: Iterable[str] = (),
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
        tags: Iterable[str] = (),
    ) -> T | D: ...
    @lookup_first(2)
    async def get_or_load(
        self,
        key: Key,
        loader: Any,
        default: Any = None,
        ttl: float | None = None,  # by keyword: see MemoryCache.get_or_load
        policy: Policy | None = None,
        type: Any = None,
        tags: Iterable[str] = (),
    ) -> Any:
        """See `TieredCache.get_or_load`. The loader is an `async def` (or a plain function)."""
        value = self._lookup(key, NOTHING) if type is None else self._typed(key, type)
        if _type(value) is not Entry:
            return value
        return await arun(self._load_plan(key, value, loader, default, ttl, policy, type, tags))

    async def get_or_load_many(
        self,
        keys: Iterable[Key],
        loader: Callable[[list[Any]], Awaitable[Mapping[Any, T | MissingType]]],
        *,
        ttl: float | None = None,
        policy: Policy | None = None,
        type: Any = None,
        tags: Iterable[str] = (),
    ) -> dict[Any, T]:
        """See `TieredCache.get_or_load_many`."""
        found: dict[Any, T] = await arun(self._load_many_plan(keys, loader, ttl, policy, type, tags))
        return found

    async def sync(self) -> None:
        """See `TieredCache.sync`."""
        await arun(self._sync_plan())

    async def explain(self, key: Key) -> str:
        """See `TieredCache.explain`."""
        return await arun(self._explain_plan(key))

    async def drain(self, timeout: float | None = None) -> bool:
        """See `TieredCache.drain`. It waits for the tasks of the running event loop."""
        driver: Any = self._loading.driver
        done: bool = await driver.drain(timeout)
        return done

    def stats(self) -> AwaitableStats:
        """See `TieredCache.stats`. Asks nobody, so it needs no `await`, and allows one."""
        return AwaitableStats(**self._snapshot())

    async def close(self) -> None:
        """See `TieredCache.close`."""
        driver: Any = self._loading.driver
        if self._listener is not None:
            self._listener.leave()
        await driver.close()
        await arun(self._loading.last_plan())
        if isinstance(self.local, AsyncMemoryCache):
            await self.local.close()
        else:
            self.local.close()
        await self.remote.close()

    aclose = close

    __reduce__ = refuse_copy

    async def __getitem__(self, key: Key) -> Any:
        """The value of a key: `await cache[key]`. Raises CacheMiss (a KeyError) if there is none."""
        return await arun(self._item_plan(key))

    async def __aenter__(self) -> AsyncTieredCache:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


declare_keywords(AsyncTieredCache.get)
declare_keywords(AsyncTieredCache.get_or_load)
