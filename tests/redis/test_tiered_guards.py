"""Guards of the two-level cache: kept as long as their owners live, and not for those who have ended."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from conftest import LoopThread
from test_tiered import heard, inner, slow, until

from fastcache import (
    AsyncRedisCache,
    AsyncTieredCache,
    AsyncWriteThroughCache,
    MemoryCache,
    RedisCache,
    TieredCache,
    WriteThroughCache,
)
from fastcache.scripts import RENEW
from fastcache.sidekeys import guard_name


@pytest.fixture
def other(server):
    with server.client() as client:
        yield client


@pytest.fixture
def renewed_often(monkeypatch):
    """Leases and holds are renewed all the time."""
    monkeypatch.setattr("fastcache.guards.RENEW_EVERY", 0.05)


def is_kept(other, guard):
    """Whether a lease or hold goes on being renewed."""
    lives: list[int] = []
    until(lambda: lives.append(other.pttl(guard)) or min(lives) < 0 or sum(b > a for a, b in pairwise(lives)) >= 8)
    return min(lives) > 0


@pytest.mark.parametrize("most", [2, 500])
def test_leases_of_many_keys_are_renewed_together(face, server, other, renewed_often, monkeypatch, most):
    """Some hundred in one round trip: else the first would have lapsed when the last one's turn comes."""
    monkeypatch.setattr("fastcache.guards.BATCH", most, raising=False)
    cache = heard(face.tiered(server.url))
    commands = inner(cache)._store._commands
    scripts_plan = commands._scripts_plan
    renewed: list[int] = []

    def note(script, calls):
        if script is RENEW:
            renewed.append(len(calls))
        return scripts_plan(script, calls)

    monkeypatch.setattr(commands, "_scripts_plan", note)

    def load(keys):
        renewed.clear()
        assert all(is_kept(other, guard_name(f"p:{key}".encode())) for key in keys)
        return dict.fromkeys(keys, 1)

    assert cache.get_or_load_many(list("abcde"), slow(face, load)) == dict.fromkeys("abcde", 1)
    assert {2, 1} <= set(renewed) if most == 2 else 5 in renewed
    assert max(renewed) <= most
    assert cache.stats().lease_refused == 0


def test_lease_is_renewed_in_the_loop_of_its_load(server, other, renewed_often):
    """Though there was another loop first, in which leases were renewed, and which has ended meanwhile."""
    cache = AsyncTieredCache(MemoryCache(), AsyncRedisCache.from_url(server.url, "p", ttl=60))
    first, second = LoopThread(), LoopThread()
    kept: list[bool] = []

    async def load(key):
        await asyncio.to_thread(first.close)
        kept.append(await asyncio.to_thread(is_kept, other, guard_name(b"p:k")))
        return "slow"

    first.run(cache.get_or_load("another", lambda key: 1))
    assert second.run(cache.get_or_load("k", load)) == "slow"
    assert kept == [True]
    assert cache.stats().lease_refused == 0
    second.run(cache.close())
    second.close()


def test_hold_of_a_loop_that_was_closed_ends(server, other, renewed_often, monkeypatch):
    """Who was writing there never says that he has ended; nobody keeps the guard for him."""
    monkeypatch.setattr("fastcache.guards.HOLD_LIFE", 1000)
    cache = AsyncTieredCache(MemoryCache(), AsyncRedisCache.from_url(server.url, "p", ttl=60), coherence=None)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # it says that tasks were pending
    block = cache.writing("k")

    async def begin():
        await block.__aenter__()
        await cache.remote.client.connection_pool.disconnect()

    loop.run_until_complete(begin())
    assert other.get(guard_name(b"p:k")).startswith(b"W")
    loop.close()

    async def main():
        async with cache:
            async with cache.writing("l"):
                await asyncio.to_thread(until, lambda: not other.exists(guard_name(b"p:k")))
                assert await asyncio.to_thread(is_kept, other, guard_name(b"p:l"))
            assert await cache.get_or_load("k", lambda key: "value") == "value"
            assert not cache._store._guards._held

    asyncio.run(main())
    assert other.exists("p:k")


@pytest.mark.parametrize("how", ["writing", "set"])
def test_hold_ends_though_nobody_can_be_told(face, server, other, proxy, renewed_often, monkeypatch, how):
    """Redis went away while the program wrote: when it is back, the key is cached as soon as after a writer's death."""
    monkeypatch.setattr("fastcache.guards.HOLD_LIFE", 1000)
    cache = heard(face.tiered(proxy.url, redis={"socket_timeout": 5}))
    reader = heard(face.tiered(server.url))

    def go_away(*_):
        assert other.get(guard_name(b"p:k")).startswith(b"W")
        proxy.refuse()

    if how == "set":
        face.pattern(WriteThroughCache, AsyncWriteThroughCache, cache, lambda key: 0, go_away).set("k", 1)
    elif face.name == "sync":
        with cache.writing("k"):
            go_away()
    else:

        async def write():
            async with cache.cache.writing("k"):
                go_away()

        face._runner.run(write())
    assert not inner(cache)._store._guards._held
    proxy.listen()
    until(lambda: reader.get_or_load("k", lambda key: 2) == 2 == reader.get("k"))


def test_guard_that_comes_as_who_renews_is_about_to_end_is_renewed(server, monkeypatch):
    """He had nothing to do for too long, and looks once more when he has gone."""
    monkeypatch.setattr("fastcache.guards.IDLE_SECONDS", -1.0)
    with TieredCache(MemoryCache(), RedisCache.from_url(server.url, "p", ttl=60)) as cache:
        guards, begun = cache._store._guards, []
        monkeypatch.setattr(cache._loading.driver, "keep", lambda plan: begun.append(plan) or True)
        guards.keep("token", b"guard", 1000)
        assert len(begun) == 1
        assert list(begun[0]) == []
        assert len(begun) == 2
        guards.forget("token")
        assert list(begun[1]) == []
        assert len(begun) == 2
        assert not guards._renewing
