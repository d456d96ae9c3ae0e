"""What only asyncio has: cancellation, several event loops, tasks that share a pool, connections that end with it."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import warnings

import pytest
import redis.asyncio
import servers
from proxy import Proxy

import fastcache.link
from fastcache.errors import BackendError
from fastcache.pools import MOST_CONNECTING
from fastcache.redis import AsyncRedisCache


def connections(server, name):
    with server.client(decode_responses=True) as admin:
        return [each for each in admin.client_list() if each["name"] == name]


async def storm(cache, calls, seed, prefix="k"):
    """Many calls, most of them cancelled at a random moment; whoever gets an answer must get its own."""
    chance = random.Random(seed)
    await cache.set_many({f"{prefix}{number}": f"value of {prefix}{number}" for number in range(100)})
    wrong, answered, cancelled = [], 0, 0

    async def one():
        number = chance.randrange(100)
        key = f"{prefix}{number}"
        match chance.randrange(4):
            case 0:
                got = await cache.get_many([key, f"{prefix}{(number + 1) % 100}"])
                right = {each: f"value of {each}" for each in (key, f"{prefix}{(number + 1) % 100}")}
            case 1:
                got, right = await cache.set(key, f"value of {key}"), None
            case _:
                got, right = await cache.get(key), f"value of {key}"
        if got != right:
            wrong.append((key, got))

    pending: set[asyncio.Task[None]] = set()
    for _ in range(calls):
        task = asyncio.create_task(one())
        pending.add(task)
        if chance.random() < 0.5:
            asyncio.get_running_loop().call_later(chance.random() * 0.01, task.cancel)
        if len(pending) > 60:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                cancelled += each.cancelled()
                if not each.cancelled():
                    each.result()
                    answered += 1
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    for each in await asyncio.gather(*pending, return_exceptions=True):
        cancelled += isinstance(each, asyncio.CancelledError)
    assert not wrong, wrong[:5]
    for number in range(100):
        assert await cache.get(f"{prefix}{number}") == f"value of {prefix}{number}"
    return answered, cancelled


@pytest.mark.parametrize("protocol", [2, 3])
def test_ten_thousand_calls_with_random_cancellation_mix_up_no_reply(server, protocol):
    """Through a pool of eight, so that cancellation hits waiting, connecting, sending and reading alike."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    async def main():
        options = {"max_connections": 8, "protocol": protocol, **servers.PATIENT}
        async with AsyncRedisCache.from_url(server.url, ttl=60, **options) as cache:
            answered, cancelled = await storm(cache, 10_000, seed)
            assert answered > 500
            assert cancelled > 500
            pool = cache.client.connection_pool
            assert len(pool._available_connections) <= 8
            assert not pool._in_use_connections, "a cancelled task took its connection with it"
            assert not pool._connecting
            assert cache.stats().breaker == "closed"

    asyncio.run(main())


def test_burst_of_callers_makes_few_connections_at_a_time(server):
    """Two hundred at once on a server that hangs: five try to connect, and when these have failed nobody else waits."""

    async def main():
        with Proxy(server.port) as proxy:
            proxy.mode = "silent"
            async with AsyncRedisCache.from_url(proxy.url, ttl=60) as cache:
                calls = [asyncio.ensure_future(cache.get(f"k{number}")) for number in range(200)]
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                assert proxy.accepted < 2 * MOST_CONNECTING  # of the first that failed, some are followed already
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                assert {isinstance(outcome, BackendError) for outcome in outcomes} == {True}
                assert proxy.accepted <= 4 * MOST_CONNECTING  # some begin while the first ones fail; and the probe
                pool = cache.client.connection_pool
                assert not pool._connecting
                proxy.mode = "pass"
                pool.connection_kwargs["lines"].breaker._reset()
                pool.connection_kwargs |= servers.PATIENT
                assert await asyncio.gather(*(cache.get(f"k{number}") for number in range(200))) == [None] * 200

    asyncio.run(main())


def test_cancellation_with_slow_replies_mixes_up_none(server):
    """Each reply held for 5 ms: nearly every cancellation leaves one on the wire."""

    async def main():
        with Proxy(server.port) as proxy:
            proxy.mode, proxy.delay = "delay", 0.005
            async with AsyncRedisCache.from_url(proxy.url, ttl=60, max_connections=20, **servers.PATIENT) as cache:
                await storm(cache, 1_000, 7)

    asyncio.run(main())


def test_cancellation_on_a_client_of_the_program_s_own_mixes_up_no_reply(server):
    """redis-py's own pool closes the connection of a cancelled call; the cache adds nothing that would undo it."""

    async def main():
        async with redis.asyncio.Redis(port=server.port, max_connections=200) as client:
            await storm(AsyncRedisCache(client, ttl=60), 3_000, 11)

    asyncio.run(main())


def test_three_hundred_tasks_share_a_pool_of_five(server):
    """They wait in the order they came; redis-py's default pool would fail two thirds of three hundred."""

    async def main():
        async with AsyncRedisCache.from_url(server.url, ttl=60, max_connections=5, client_name="five") as cache:
            await asyncio.gather(*(cache.set(f"k{number}", number) for number in range(300)))
            assert await asyncio.gather(*(cache.get(f"k{number}") for number in range(300))) == list(range(300))
            assert len(connections(server, "five")) <= 5

    asyncio.run(main())


def test_a_timeout_of_the_callers_own_is_a_cancellation(server):
    """asyncio.timeout around a call raises TimeoutError, counts no failure, and leaves nothing behind."""

    async def main():
        with Proxy(server.port) as proxy:
            async with AsyncRedisCache.from_url(proxy.url, ttl=60, **servers.PATIENT) as cache:
                await cache.set("a", 1)
                proxy.mode, proxy.delay = "delay", 5
                for _ in range(8):
                    with pytest.raises(TimeoutError) as caught:
                        async with asyncio.timeout(0.01):
                            await cache.get("a")
                    assert not isinstance(caught.value, BackendError)
                assert cache.stats().breaker == "closed"
                assert cache.stats().backend_errors == 0
                proxy.mode = "pass"
                assert await cache.get("a") == 1

    asyncio.run(main())


def test_one_cache_in_several_event_loops(server):
    """One after the other, and three at a time in threads: each loop has connections of its own."""
    cache = AsyncRedisCache.from_url(server.url, ttl=60, client_name="loops")

    async def use(name):
        for number in range(30):
            await cache.set(f"{name}:{number}", [name, number])
            assert await cache.get(f"{name}:{number}") == [name, number]

    for name in range(3):
        asyncio.run(use(name))
        assert connections(server, "loops") == [], "asyncio.run left connections open"
    failures = []

    def work(name):
        try:
            asyncio.run(use(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert cache.stats().hits == 6 * 30
    asyncio.run(cache.close())
    assert connections(server, "loops") == []


def test_close_reaches_a_loop_that_runs_in_another_thread(server):
    """And works from a loop that never used the cache."""
    cache = AsyncRedisCache.from_url(server.url, ttl=60, client_name="other")
    started, ended = threading.Event(), threading.Event()

    async def main():
        await cache.set("a", 1)
        started.set()
        while not ended.is_set():
            await asyncio.sleep(0.005)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    started.wait()
    assert len(connections(server, "other")) == 1
    asyncio.run(cache.aclose())
    assert connections(server, "other") == []
    ended.set()
    thread.join()


def test_a_dropped_cache_closes_its_connections_without_a_warning(server):
    """Nobody called close(); the loop finalises what was left, ResourceWarning being an error here."""

    async def main():
        cache = AsyncRedisCache.from_url(server.url, ttl=60, client_name="dropped")
        await cache.set("a", 1)
        assert len(connections(server, "dropped")) == 1
        del cache
        gc.collect()
        for _ in range(20):
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        assert connections(server, "dropped") == []

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()


def test_close_is_final_and_may_be_repeated(server):
    """A closed cache refuses instead of quietly connecting again."""

    async def main():
        cache = AsyncRedisCache.from_url(server.url, ttl=60, client_name="closed")
        async with cache:
            await cache.set("a", 1)
        await cache.close()
        await cache.aclose()
        assert connections(server, "closed") == []
        with pytest.raises(BackendError, match="closed"):
            await cache.get("a")

    asyncio.run(main())


def test_the_probe_ends_with_its_loop(server):
    """A breaker opened in one event loop is probed from the next one that asks, and closes."""
    with Proxy(server.port) as proxy:
        cache = AsyncRedisCache.from_url(proxy.url, ttl=60)
        proxy.refuse()

        async def fail():
            for _ in range(6):
                with pytest.raises(BackendError):
                    await cache.get("a")
            assert cache.stats().breaker == "open"

        asyncio.run(fail())  # its probe is cancelled with it
        proxy.listen()

        async def recover():
            for _ in range(200):
                try:
                    await cache.set("a", 1)
                    break
                except BackendError:
                    await asyncio.sleep(0.01)
            assert await cache.get("a") == 1
            await cache.close()

        asyncio.run(recover())


def test_close_while_the_breaker_is_open_leaves_no_task(server):
    """The probe goes with the cache."""

    async def main():
        cache = AsyncRedisCache.from_url(f"redis://127.0.0.1:{servers.free_port()}", ttl=60)
        for _ in range(6):
            with pytest.raises(BackendError):
                await cache.get("a")
        assert len(asyncio.all_tasks()) == 2
        await cache.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_loop_that_was_closed_unfinished_is_forgotten(server):
    """By a program that doesn't shut down its async generators: the next loop's first call lets go of its client."""
    cache = AsyncRedisCache.from_url(server.url, ttl=60)

    async def use():
        await cache.set("a", 1)
        return cache.client

    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(use())
    loop.run_until_complete(client.connection_pool.disconnect())
    loop.close()

    async def again():
        assert await use() is not client
        assert list(cache._link._clients) == [asyncio.get_running_loop()] == list(cache._link._guards)

    asyncio.run(again())
    asyncio.run(cache.close())


@pytest.mark.parametrize("call", [lambda cache: cache.get("a"), lambda cache: cache.set_many({"a": 1, "b": 2})])
def test_a_cache_closed_while_another_loop_makes_its_client_is_closed(server, monkeypatch, call):
    """That loop's call is refused, and its client isn't kept."""
    cache = AsyncRedisCache.from_url(server.url, ttl=60)
    make = fastcache.link.async_pool

    def late(*arguments):
        closing = threading.Thread(target=lambda: asyncio.run(cache.close()))
        closing.start()
        closing.join()
        return make(*arguments)

    monkeypatch.setattr("fastcache.link.async_pool", late)
    with pytest.raises(BackendError, match=r"^the cache is closed$") as caught:
        asyncio.run(call(cache))
    assert caught.value.__cause__ is None
    assert not cache._link._clients
    assert cache.stats().backend_errors == 0
