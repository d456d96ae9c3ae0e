"""What type checkers infer of the loading engine and the patterns. Checked by mypy and pyright, never run."""

from collections.abc import Mapping
from typing import assert_type

import fastcache
from fastcache import (
    AsyncCacheAside,
    AsyncMemoryCache,
    AsyncSingleFlight,
    AsyncWriteThroughCache,
    CacheAside,
    MemoryCache,
    Policy,
    RedisCache,
    SingleFlight,
    SingleFlightCache,
    WriteThroughCache,
)


class User:
    name: str


def load(id: str) -> User:
    return User()


async def aload(id: str) -> User:
    return User()


def save(id: str, user: User) -> None: ...


async def asave(id: str, user: User) -> None: ...


def load_many(ids: list[str]) -> Mapping[str, User]:
    return {}


def sync(cache: MemoryCache[str, User], redis: RedisCache) -> None:
    assert_type(cache.get("a"), User | None)
    assert_type(cache.get("a", User()), User)
    assert_type(cache.get("a", 0), User | int)
    assert_type(cache.get_or_load("a", load), User)
    assert_type(cache.get_or_load("a", load, 0), User | int)
    assert_type(cache.get_or_load("a", load, ttl=5, policy=Policy(60)), User)
    assert_type(cache.get_or_load_many(["a"], load_many), dict[str, User])
    assert_type(redis.get_or_load("a", load), User)
    cache.get_or_load(5, load)  # type: ignore[call-overload]  # pyright: ignore
    cache.get_or_load("a", load, 0, 5)  # type: ignore[call-overload]  # pyright: ignore

    aside = CacheAside(cache, load, save)
    assert_type(aside, CacheAside[str, User])
    assert_type(aside.get("a"), User)
    assert_type(aside.get("a", None), User | None)
    aside.update("a", User())
    aside.update("a", 5)  # type: ignore[arg-type]  # pyright: ignore
    aside.get(5)  # type: ignore[call-overload]  # pyright: ignore
    through = WriteThroughCache(cache, load, save, key="user:{}")
    assert_type(through, WriteThroughCache[str, User])
    through.set("a", User())
    assert_type(SingleFlightCache(cache, load).get("a"), User)
    assert_type(SingleFlight().do("a", lambda: 5), int)


async def asynchronous(cache: AsyncMemoryCache[str, User]) -> None:
    assert_type(await cache.get("a"), User | None)
    assert_type(await cache.get("a", User()), User)
    assert_type(await cache.get("a", 0), User | int)
    assert_type(await cache.get_or_load("a", aload), User)
    assert_type(await cache.get_or_load("a", aload, None), User | None)
    aside = AsyncCacheAside(cache, aload, asave)
    assert_type(aside, AsyncCacheAside[str, User])
    assert_type(await aside.get("a"), User)
    await AsyncWriteThroughCache(cache, aload, asave).set("a", User())

    async def five() -> int:
        return 5

    assert_type(await AsyncSingleFlight().do("a", five), int)


misspelt = fastcache.LRUCach  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
