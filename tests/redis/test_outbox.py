"""Who delivers what waits in the outbox, when the one who would have is gone: with his loop, with the cache, or not here."""

from __future__ import annotations

import asyncio

import pytest
from test_processes import in_child
from test_tiered import heard, inner, until

from fastcache import AsyncCacheAside, AsyncRedisCache, AsyncTieredCache, CacheAside, MemoryCache, RedisCache, TieredCache


@pytest.fixture(autouse=True)
def by_operations(monkeypatch):
    """The attempts in the background take their time: whoever waits for one waits for too long."""
    monkeypatch.setattr("fastcache.writing.FLUSH_INTERVAL", 60)


def waits(cache):
    return bool(inner(cache)._loading.outbox)


def test_forked_child_delivers_what_waited_in_its_parent(server, other, proxy):
    """The thread that would have done it is the parent's."""
    with TieredCache(MemoryCache(), RedisCache.from_url(proxy.url, "p", ttl=60, socket_timeout=5)) as cache:
        heard(cache).set("k", "old")
        proxy.refuse()
        cache.invalidate("k")
        assert waits(cache)
        proxy.listen()

        def child():
            cache.get("another")
            until(lambda: not waits(cache))

        assert in_child(child) == 0
        assert not other.exists("p:k")
        assert waits(cache)


OPERATIONS = {
    "get": lambda cache: cache.get("another"),
    "get_many": lambda cache: cache.get_many(["another"]),
    "set": lambda cache: cache.set("another", 1),
    "delete": lambda cache: cache.delete("another"),
    "tags": lambda cache: cache.invalidate_tags("t"),
    "remaining": lambda cache: cache.remaining("another"),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_next_event_loop_delivers(server, other, proxy, operation):
    """Whatever is asked of the cache there. The task that would have done it ended with the loop before."""
    remote = AsyncRedisCache.from_url(proxy.url, "p", ttl=60, socket_timeout=5)
    cache = AsyncTieredCache(MemoryCache(), remote, coherence=None)

    async def first():
        await cache.set("k", "old")
        proxy.refuse()
        await cache.invalidate("k")

    async def second():
        await operation(cache)
        await asyncio.to_thread(until, lambda: not waits(cache))
        assert not other.exists("p:k")
        await cache.close()

    asyncio.run(first())
    assert waits(cache)
    proxy.listen()
    asyncio.run(second())


@pytest.mark.parametrize("kind", ["tiered", "cache-aside"])
def test_closing_delivers(face, server, other, proxy, kind):
    """Once: what Redis doesn't take then is lost."""
    if kind == "tiered":
        cache = face.tiered(proxy.url, coherence=None, redis={"socket_timeout": 5})
        invalidate = cache.invalidate
    else:
        cache = face.from_url(proxy.url, "p", ttl=60, socket_timeout=5)
        invalidate = face.pattern(CacheAside, AsyncCacheAside, cache, {}.get, {}.__setitem__).invalidate
    cache.set("k", "old")
    proxy.refuse()
    invalidate("k")
    proxy.listen()
    assert waits(cache)
    cache.close()
    assert not waits(cache)
    assert not other.exists("p:k")
    cache.close()


def test_closing_with_redis_away_loses_what_waits(face, server, other, proxy):
    """One attempt, no error."""
    cache = face.tiered(proxy.url, coherence=None, redis={"socket_timeout": 5})
    cache.set("k", "old")
    proxy.refuse()
    cache.invalidate("k")
    cache.close()
    assert waits(cache)
    cache.close()
    assert other.exists("p:k")
