"""What close() does to calls in flight and to callers that wait: nothing of the cache stays connected."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from fastcache import AsyncCacheAside, CacheAside
from fastcache.errors import BackendError
from fastcache.redis import AsyncRedisCache, RedisCache

OPTIONS = {"ttl": 60, "max_connections": 2, "socket_timeout": 2}


def check(outcomes, server):
    assert [type(each) for each in outcomes] == [BackendError] * 6
    assert all("the cache is closed" in str(each) for each in outcomes), outcomes
    with server.client() as look:
        end = time.monotonic() + 2
        while len(look.client_list()) > 1:
            assert time.monotonic() < end, look.client_list()
            time.sleep(0.01)


def test_closing_under_threads(own_server):
    """Two in flight, four waiting: all are refused, and no connection is left."""
    cache = RedisCache.from_url(own_server.url, **OPTIONS)
    outcomes = []

    def read():
        try:
            outcomes.append(cache.get("nothing"))
        except BackendError as error:
            outcomes.append(error)

    read()
    outcomes.clear()
    with own_server.client() as admin:
        admin.client_pause(200)
    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    cache.close()
    for thread in threads:
        thread.join()
    check(outcomes, own_server)


def test_closing_under_tasks(own_server):
    """The same in asyncio."""

    async def main():
        cache = AsyncRedisCache.from_url(own_server.url, **OPTIONS)
        await cache.get("nothing")
        with own_server.client() as admin:
            admin.client_pause(200)
        calls = [asyncio.ensure_future(cache.get("nothing")) for _ in range(6)]
        await asyncio.sleep(0.05)
        await cache.close()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.to_thread(check, outcomes, own_server)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["tiered", "cache-aside"])
def test_closed_cache_serves_from_the_loader_and_takes_no_write(face, server, kind):
    """Reading goes on without Redis; a change that nobody would ever hear of is an error."""
    if kind == "tiered":
        cache = face.tiered(server.url)
        writes = [
            lambda: cache.set("k", 2),
            lambda: cache.set_many({"k": 2}),
            lambda: cache.delete("k"),
            lambda: cache.invalidate("k"),
            lambda: cache.invalidate_tags("t"),
            lambda: cache.delete_pattern("*"),
            lambda: cache.clear(),
        ]
        cache.set("k", 1)
        assert cache.get("k") == 1
        cache.close()
        assert cache.get("k") is None
        assert cache.get_or_load("k", lambda key: 3) == 3
    else:
        remote = face.from_url(server.url, "p", ttl=60)
        cache = face.pattern(CacheAside, AsyncCacheAside, remote, {"k": 3}.get, {}.__setitem__)
        writes = [lambda: cache.update("k", 2), lambda: cache.invalidate("k")]
        assert cache.get("k") == 3
        remote.close()
        assert cache.get("k") == 3
    for write in writes:
        with pytest.raises(BackendError, match="closed"):
            write()


def test_error_of_the_program_is_not_hidden_by_a_closed_cache(face, server):
    """In the block of `writing`, and of a saver."""
    cache = face.tiered(server.url)

    def write():
        if face.name == "sync":
            with cache.writing("k"):
                cache.close()
                raise ZeroDivisionError

        async def awrite():
            async with cache.cache.writing("k"):
                await cache.cache.close()
                raise ZeroDivisionError

        cache._runner.run(awrite())

    with pytest.raises(ZeroDivisionError):
        write()
    remote = face.from_url(server.url, "p", ttl=60)
    pattern = face.pattern(CacheAside, AsyncCacheAside, remote, {"k": 3}.get, lambda key, value: 1 / 0)
    remote.close()
    with pytest.raises(ZeroDivisionError):
        pattern.update("k", 1)


def test_change_during_close_is_not_lost_in_silence(face, own_server):
    """Nobody flushes the outbox any more."""
    cache = face.tiered(own_server.url)
    cache.set("k", 1)
    inner = getattr(cache, "cache", cache)
    own_server.kill()
    if face.name == "sync":
        inner._loading.driver._stopped.set()
    else:
        inner._loading.driver.stopped = True
    with pytest.raises(BackendError, match="closed"):
        cache.invalidate("k")
