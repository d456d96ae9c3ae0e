"""get_or_load against its rivals: a hit in memory, sync and async, and a stampede on a cold key.

    python benches/bench_loading.py

Ratios within one process, sides in turns (see measure.py). A rival that isn't installed is left out of the table. "runs" of
a stampede is how often the loader ran: what a cache with protection is about.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import threading
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

from measure import Side, compare

from fastcache import AsyncMemoryCache, MemoryCache, Policy

THREADS, TASKS = 64, 1000
LOAD_SECONDS = 0.02


def load(key: Any) -> int:
    return 42


async def aload(key: Any) -> int:
    return 42


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"(without {name}: not installed)")
        return None


def sync_rivals(loader: Callable[[Any], Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """name -> (statement of a hit, names); each statement asks for key 7."""
    sides: dict[str, tuple[str, dict[str, Any]]] = {}
    if cachetools := optional("cachetools"):
        lock = threading.Lock()
        cached = cachetools.cached(cachetools.TTLCache(1000, 600), lock=lock, condition=threading.Condition(lock))
        sides["cachetools cached(TTLCache, lock, condition)"] = ("f(7)", {"f": cached(loader)})
    if cachebox := optional("cachebox"):
        sides["cachebox cached(TTLCache)"] = ("f(7)", {"f": cachebox.cached(cachebox.TTLCache(1000, 600))(loader)})
    if moka := optional("moka_py"):
        cache = moka.Moka(1000, ttl=600)
        sides["moka-py get_with"] = ("c.get_with(7, f)", {"c": cache, "f": lambda: loader(7)})
    if optional("dogpile.cache"):
        from dogpile.cache import make_region

        region = make_region().configure("dogpile.cache.memory", expiration_time=600)
        sides["dogpile.cache memory get_or_create"] = (
            "c.get_or_create('7', f)",
            {"c": region, "f": lambda: loader(7)},
        )
    return sides


def async_rivals(loader: Callable[[Any], Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    sides: dict[str, tuple[str, dict[str, Any]]] = {}
    if optional("cashews"):
        from cashews import Cache

        cache = Cache()
        cache.setup("mem://", size=1000)
        sides["cashews memory @cache"] = ("await f(7)", {"f": cache(ttl="10m", lock=True)(loader)})
    if optional("aiocache"):
        from aiocache import cached

        sides["aiocache memory @cached"] = ("await f(7)", {"f": cached(ttl=600)(loader)})
    return sides


def table(title: str, rows: list[tuple[str, float]], unit: str, base: str) -> None:
    print(f"\n{title}")
    first = dict(rows)[base]
    for name, value in rows:
        print(f"  {name:52} {value:12,.1f} {unit:3} {value / first:9.2f}")


def hits() -> None:
    cache = MemoryCache(1000, 600)
    cache.get_or_load(7, load)
    stale = MemoryCache(1000, policy=Policy(600, stale_for=60))
    stale.get_or_load(7, load)
    cached = functools.lru_cache(load)
    sides = {
        "functools.lru_cache": ("f(7)", {"f": cached}),
        "fastcache MemoryCache.get_or_load": ("c.get_or_load(7, f)", {"c": cache, "f": load}),
        "  the same with stale_for": ("c.get_or_load(7, f)", {"c": stale, "f": load}),
        **sync_rivals(load),
    }
    for statement, names in sides.values():
        exec(statement, dict(names))
    times = compare([Side(statement, names) for statement, names in sides.values()])
    table("A hit, sync (1.0 = functools)", list(zip(sides, times, strict=True)), "ns", "functools.lru_cache")


def async_hits() -> None:
    async def empty() -> None:
        pass

    cache: AsyncMemoryCache[int, int] = AsyncMemoryCache(1000, 600)
    sides = {
        "awaiting an empty coroutine": ("await f()", {"f": empty}),
        "fastcache AsyncMemoryCache.get_or_load": ("await c.get_or_load(7, f)", {"c": cache, "f": aload}),
        **async_rivals(aload),
    }
    asyncio.run(cache.get_or_load(7, aload))
    times = compare([Side(statement, names, asynchronous=True) for statement, names in sides.values()])
    rows = list(zip(sides, times, strict=True))
    table("A hit, asyncio (1.0 = an empty coroutine)", rows, "ns", "awaiting an empty coroutine")


def stampede() -> None:
    runs: list[int] = []

    def slow(key: Any) -> int:
        runs.append(1)
        sleep(LOAD_SECONDS)
        return 42

    cache = MemoryCache(1000, 600)
    sides = {"fastcache MemoryCache.get_or_load": ("c.get_or_load(7, f)", {"c": cache, "f": slow}), **sync_rivals(slow)}
    print(f"\n{THREADS} threads on a cold key, a loader of {LOAD_SECONDS * 1000:.0f} ms: time until all have it, and runs")
    for name, (statement, names) in sides.items():
        runs.clear()
        code = compile(statement, "<call>", "eval")
        barrier = threading.Barrier(THREADS + 1)

        def work(code: Any = code, names: dict[str, Any] = names, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            eval(code, dict(names))

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        barrier.wait()
        begun = perf_counter()
        for thread in threads:
            thread.join()
        print(f"  {name:52} {(perf_counter() - begun) * 1000:9.1f} ms {len(runs):6} runs")


def async_stampede() -> None:
    runs: list[int] = []

    async def slow(key: Any) -> int:
        runs.append(1)
        await asyncio.sleep(LOAD_SECONDS)
        return 42

    async def main() -> None:
        cache: AsyncMemoryCache[int, int] = AsyncMemoryCache(1000, 600)
        sides = {
            "fastcache AsyncMemoryCache.get_or_load": ("await c.get_or_load(7, f)", {"c": cache, "f": slow}),
            **async_rivals(slow),
        }
        print(f"\n{TASKS} tasks on a cold key")
        for name, (statement, names) in sides.items():
            runs.clear()
            scope = dict(names)
            exec(f"async def call():\n    return {statement}", scope)
            begun = perf_counter()
            await asyncio.gather(*(scope["call"]() for _ in range(TASKS)))
            print(f"  {name:52} {(perf_counter() - begun) * 1000:9.1f} ms {len(runs):6} runs")

    asyncio.run(main())


if __name__ == "__main__":
    hits()
    async_hits()
    stampede()
    async_stampede()
