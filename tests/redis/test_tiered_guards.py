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
    BackendError,
    MemoryCache,
    RedisCache,
    TieredCache,
    WriteThroughCache,
)
from fastcache.plan import Call
from fastcache.scripts import LEASE, RELEASE, RENEW
from fastcache.sidekeys import guard_name


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
    monkeypatch.setattr("fastcache.guards.SCRIPT_BATCH", most)
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


def watched(cache, monkeypatch, wrap):
    """Have `wrap(script, calls, plan)` stand in for the plan that sends some scripts in one round trip."""
    commands = inner(cache)._store._commands
    scripts_plan = commands._scripts_plan
    monkeypatch.setattr(
        commands, "_scripts_plan", lambda script, calls: wrap(script, calls, scripts_plan(script, calls))
    )


def test_leases_of_many_keys_are_given_back_together(face, server, other, monkeypatch):
    """When their loader fails."""
    cache = heard(face.tiered(server.url))
    given_back = []

    def note(script, calls, plan):
        if script is RELEASE:
            given_back.append(len(calls))
        return plan

    def fail(keys):
        assert all(other.exists(guard_name(f"p:{key}".encode())) for key in keys)
        raise KeyError(keys)

    watched(cache, monkeypatch, note)
    with pytest.raises(KeyError):
        cache.get_or_load_many(list("abcde"), fail)
    assert given_back == [5]
    assert other.keys("fastcache-guard:*") == []


def test_leases_are_given_back_though_others_could_not_be_had(face, server, other, monkeypatch):
    """Of more keys than go in one round trip, when a later one fails: what is loaded isn't stored then."""
    monkeypatch.setattr("fastcache.tiers.SCRIPT_BATCH", 2)
    cache = heard(face.tiered(server.url))
    asked = []

    def refuse(script, calls, plan):
        if script is LEASE:
            asked.append(len(calls))
            if len(asked) == 2:
                plan.close()
                raise BackendError("refused")
        return plan

    def load(keys):
        assert len(other.keys("fastcache-guard:*")) == 2
        return dict.fromkeys(keys, 1)

    watched(cache, monkeypatch, refuse)
    assert cache.get_or_load_many(list("abcde"), load) == dict.fromkeys("abcde", 1)
    assert asked == [2, 2]
    assert other.keys("fastcache-guard:*") == []
    assert not inner(cache)._store._guards._held
    monkeypatch.undo()
    assert cache.get_or_load_many(list("abcde"), lambda keys: dict.fromkeys(keys, 2)) == dict.fromkeys("abcde", 2)
    assert cache.get_many(list("abcde")) == dict.fromkeys("abcde", 2)


def test_lease_of_a_load_that_was_cancelled_as_it_asked_is_given_back(server, other, monkeypatch):
    """Redis gave it, and nobody knows: the next one doesn't wait for its end."""
    monkeypatch.setattr("fastcache.guards.Guards.lease_life", 60_000)
    cache = AsyncTieredCache(MemoryCache(), AsyncRedisCache.from_url(server.url, "p", ttl=60, socket_timeout=5))

    async def main():
        given = asyncio.Event()

        def hold_up(script, calls, plan):
            outcome = yield from plan
            if script is LEASE:
                given.set()
                yield Call(asyncio.Event().wait)
            return outcome

        async with cache:
            with monkeypatch.context() as patch:
                watched(cache, patch, hold_up)
                load = asyncio.ensure_future(cache.get_or_load("k", lambda key: 1))
                await asyncio.wait_for(given.wait(), 10)
                assert other.exists(guard_name(b"p:k"))
                load.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await load
            async with asyncio.timeout(10):
                while other.exists(guard_name(b"p:k")):
                    await asyncio.sleep(0.005)
            assert await cache.get_or_load("k", lambda key: 2) == 2
            assert cache.stats().lease_refused == 0
            assert not cache._store._guards._held

    asyncio.run(main())
    assert other.exists("p:k")
