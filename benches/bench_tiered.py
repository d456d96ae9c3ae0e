"""What a two-level cache costs, and how soon a write here is seen there.

    python benches/bench_tiered.py

A hit in memory beside functools and an empty coroutine, and beside cashews with its client-side caching; a hit in Redis, a
write and a miss beside the bare redis-py calls; and the time from a write in one process to the moment when another one no
longer serves the old copy. Ratios within one run, sides in turns (see measure.py). Needs a redis-server on PATH.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import subprocess
import sys
import time
from typing import Any

import redis
from bench_redis import acompare, server
from bench_redis import compare as compare_calls
from measure import Side, compare

import fastcache.decorators as decorators
from fastcache import AsyncMemoryCache, AsyncRedisCache, AsyncTieredCache, MemoryCache, RedisCache, TieredCache

WRITES = 400  # each waited for; the second process looks without a pause


def tiered(url: str, **options: Any) -> TieredCache:
    return TieredCache(MemoryCache(), RedisCache.from_url(url, "bench", ttl=600), **options)


def listening(cache: Any) -> None:
    """Wait until copies are kept."""
    cache.set("k", 42)
    while not cache._front.gate.is_open():
        time.sleep(0.01)
    cache.get("k")


async def alistening(cache: Any) -> None:
    await cache.set("k", 42)
    while not cache._front.gate.is_open():
        await asyncio.sleep(0.01)
    await cache.get("k")


def table(title: str, rows: list[tuple[str, float]], bar: str) -> None:
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:58} {value:12,.1f} ns {value / rows[0][1]:9.2f}")
    print(f"  bar: {bar}")


def hits(url: str) -> None:
    with tiered(url) as cache:
        listening(cache)
        plain = functools.lru_cache(lambda key: 42)
        plain("k")

        @decorators.cached(cache, key="{key}", ttl=600)
        def decorated(key: str) -> int:
            return 42

        decorated("k")
        sides = {
            "functools.lru_cache": Side("f('k')", {"f": plain}),
            "TieredCache.get": Side("c.get('k')", {"c": cache}),
            "TieredCache.get_or_load": Side("c.get_or_load('k', f)", {"c": cache, "f": plain}),
            "@cached(TieredCache)": Side("f('k')", {"f": decorated}),
        }
        times = compare(list(sides.values()))
        table(
            "A hit in memory, sync (1.0 = functools)",
            list(zip(sides, times, strict=True)),
            "get at most 3, @cached at most 2",
        )


async def async_hits(url: str) -> None:
    async def empty() -> None:
        pass

    async with AsyncTieredCache(AsyncMemoryCache(), AsyncRedisCache.from_url(url, "bench", ttl=600)) as cache:
        await alistening(cache)
        sides = {
            "awaiting an empty coroutine": Side("await f()", {"f": empty}, asynchronous=True),
            "AsyncTieredCache.get": Side("await c.get('k')", {"c": cache}, asynchronous=True),
        }
        rival = await cashews(url)
        if rival is not None:
            sides["cashews get, client_side=True"] = Side("await c.get('k')", {"c": rival}, asynchronous=True)
        times = await asyncio.to_thread(compare, list(sides.values()))
        rows = list(zip(sides, times, strict=True))
        table("A hit in memory, asyncio (1.0 = an empty coroutine)", rows, "get at most 2; cashews at least 20 times ours")
        if rival is not None:
            print(f"  cashews / ours: {times[2] / times[1]:.1f}")
            await rival.close()


async def cashews(url: str) -> Any:
    """Its client-side caching over the same server; None where it isn't installed or doesn't work here."""
    try:
        from cashews import Cache
    except ImportError:
        print("(without cashews: not installed)")
        return None
    cache = Cache()
    cache.setup(url, client_side=True)
    try:
        await cache.init()
        await cache.set("k", 42, expire="10m")
        await asyncio.sleep(0.5)
        assert await cache.get("k") == 42
    except Exception as error:
        print(f"(without cashews: {error!r})")
        return None
    return cache


def round_trips(url: str) -> None:
    client = redis.Redis.from_url(url)
    client.set("bench-bare", "42")
    rows: list[tuple[str, float, float]] = []
    with tiered(url, coherence=None) as cache:
        cache.set("k", 42)
        drop = cache._front._map.clear

        def read() -> Any:
            drop()
            return cache.get("k")

        def load() -> Any:
            cache._front._map.clear()
            client.delete("bench:m")
            return cache.get_or_load("m", lambda key: 42)

        def bare_load() -> Any:
            client.delete("bench:m")
            if client.get("bench:m") is None:
                client.set("bench:m", "42", px=600_000)

        rows.append(("get, a hit in Redis / GET", *compare_calls(lambda: client.get("bench-bare"), read)))
        rows.append(("set / SET", *compare_calls(lambda: client.set("bench-bare", "42", px=9), lambda: cache.set("k", 42))))
        rows.append(("get_or_load, a miss / DEL, GET, SET", *compare_calls(bare_load, load)))
    print("\nOne round trip and more (1.0 = the bare calls of redis-py)")
    for name, bare, ours in rows:
        print(f"  {name:58} {ours * 1e6:9.1f} us {ours / bare:9.2f}")


async def async_round_trips(url: str) -> None:
    client = redis.asyncio.Redis.from_url(url)
    await client.set("bench-bare", "42")
    async with AsyncTieredCache(
        AsyncMemoryCache(), AsyncRedisCache.from_url(url, "bench", ttl=600), coherence=None
    ) as cache:
        await cache.set("k", 42)

        async def read() -> Any:
            cache._front._map.clear()
            return await cache.get("k")

        bare, ours = await acompare(lambda: client.get("bench-bare"), read)
        print(f"  {'await get, a hit in Redis / GET':58} {ours * 1e6:9.1f} us {ours / bare:9.2f}")
    await client.aclose()


WATCHER = """
import sys, time
from fastcache import MemoryCache, RedisCache, TieredCache
url, mode = sys.argv[1:]
with TieredCache(MemoryCache(), RedisCache.from_url(url, "seen-" + mode, ttl=600), coherence=mode) as cache:
    cache.get("n")
    while not cache._front.gate.is_open():
        time.sleep(0.01)
    print("ready", flush=True)
    last = cache.get("n")
    while last != -1:
        value = cache.get("n")
        if value != last:
            print(value, time.monotonic_ns(), flush=True)
            last = value
        time.sleep(0)
"""


def coherence(url: str, mode: str) -> None:
    """The clocks of both processes are one: CLOCK_MONOTONIC is the machine's."""
    watcher = subprocess.Popen([sys.executable, "-c", WATCHER, url, mode], stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    with TieredCache(MemoryCache(), RedisCache.from_url(url, "seen-" + mode, ttl=600), coherence=mode) as cache:  # type: ignore[arg-type]
        cache.set("n", 0)
        watcher.stdout.readline()
        delays = []
        for number in range(1, WRITES + 1):
            begun = time.monotonic_ns()
            cache.set("n", number)
            seen, when = watcher.stdout.readline().split()
            assert int(seen) == number
            delays.append((int(when) - begun) / 1e6)
        cache.set("n", -1)
        watcher.wait(10)
    p50, p99 = statistics.median(delays), statistics.quantiles(delays, n=100)[98]
    print(f"  {mode:10} p50 {p50:.2f} ms   p99 {p99:.2f} ms   worst {max(delays):.2f} ms   of {WRITES} writes")


def main() -> None:
    with server() as url:
        hits(url)
        asyncio.run(async_hits(url))
        round_trips(url)
        asyncio.run(async_round_trips(url))
        print("\nFrom a write in one process to its being seen in another (bar: p99 of 5 ms on an idle machine)")
        for mode in ("pubsub", "tracking"):
            coherence(url, mode)


if __name__ == "__main__":
    main()
