"""An asyncio cache asked in one event loop for what is to be done in another one, which is busy and then ends or stops."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import pytest
from test_asyncio import connections
from test_tiered import trusted, until
from test_tiered_lines import until_trusted

from fastcache import AsyncRedisCache, AsyncTieredCache, MemoryCache, RedisCache, TieredCache

SECONDS = 5  # for what is to be done at once


@contextmanager
def busy_loop(begin, end, told=None):
    """Another thread's event loop that has run a coroutine and is busy, until something is asked of it; then it ends.

    Or it stops, to be closed after the block. Or it is busy until it is told.
    """
    ready, asked, over = threading.Event(), threading.Event(), threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        await begin()
        post = loop.call_soon_threadsafe

        def note(*args, **kwargs):
            handle = post(*args, **kwargs)
            asked.set()
            return handle

        loop.call_soon_threadsafe = note
        ready.set()
        assert (told or asked).wait(10)

    def work():
        if end == "ends":
            asyncio.run(main())
            return
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        over.wait(20)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        asked.set()
        over.set()
        if told is not None:
            told.set()
        thread.join()


ends = pytest.mark.parametrize("end", ["ends", "stops"])


@ends
def test_sync_while_the_loop_that_listens_goes(server, monkeypatch, end):
    """Its end is no cancellation of who waits, and isn't waited for; from then on no copy is relied on."""
    monkeypatch.setattr("fastcache.coherence.TRUST", 60)
    cache = AsyncTieredCache(MemoryCache(), AsyncRedisCache.from_url(server.url, "p", ttl=60))

    async def listen():
        await until_trusted(cache)
        await cache.set("k", 1)
        assert await cache.get("k") == 1

    async def main():
        with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60), coherence=None) as two:
            two.set("k", 2)
        async with asyncio.timeout(SECONDS):
            await cache.sync()
        assert asyncio.current_task().cancelling() == 0
        assert not trusted(cache)
        assert await cache.get("k") == 2
        await until_trusted(cache)  # this loop listens now
        await cache.close()

    with busy_loop(listen, end):
        asyncio.run(main())


def made(kind, server, name):
    remote = AsyncRedisCache.from_url(server.url, "p", ttl=60, client_name=name)
    return remote if kind == "redis" else AsyncTieredCache(MemoryCache(), remote)


kinds = pytest.mark.parametrize("kind", ["redis", "tiered"])


@kinds
@pytest.mark.parametrize("face", ["asyncio"], indirect=True)
def test_close_ends_what_another_loop_has_connected(face, server, kind):
    """That is done in that loop, which goes on."""
    cache = made(kind, server, kind)
    face.run(cache.set, "k", 1)
    assert connections(server, kind)
    asyncio.run(cache.close())
    until(lambda: not connections(server, kind))


@ends
@kinds
def test_close_while_another_loop_goes(server, monkeypatch, kind, end):
    """It returns, neither cancelled nor after a long time, and what was connected there ends with that loop."""
    monkeypatch.setattr("fastcache.link.CLOSE_SECONDS", 60, raising=False)
    name = f"{kind}-{end}"
    cache = made(kind, server, name)

    async def main():
        async with asyncio.timeout(SECONDS):
            await cache.close()
        assert asyncio.current_task().cancelling() == 0

    with busy_loop(lambda: cache.set("k", 1), end):
        assert connections(server, name)
        asyncio.run(main())
    until(lambda: not connections(server, name))


@kinds
def test_close_while_another_loop_is_busy(server, monkeypatch, kind):
    """It doesn't wait for as long as that takes; the connections end when the loop gets to it."""
    monkeypatch.setattr("fastcache.link.CLOSE_SECONDS", 0.1, raising=False)
    name = f"{kind}-busy"
    cache = made(kind, server, name)
    told = threading.Event()

    async def main():
        async with asyncio.timeout(SECONDS):
            await cache.close()

    with busy_loop(lambda: cache.set("k", 1), "ends", told):
        asyncio.run(main())
        assert not told.is_set()
        assert connections(server, name)
    until(lambda: not connections(server, name))
