"""`LRUCache` and `TTLCache` beside the peers' maps; `pytest benches`, one group for each operation.

pytest-benchmark runs one side after the other: good for a profile or a history. For ratios, `make bench` is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import cachebox
import cachetools
import lru
import moka_py
import pytest
import theine

import fastcache

MAXSIZE, TTL = 128, 60
LRU: dict[str, Callable[[], Any]] = {
    "fastcache": lambda: fastcache.LRUCache(MAXSIZE),
    "cachetools": lambda: cachetools.LRUCache(MAXSIZE),
    "cachebox": lambda: cachebox.LRUCache(MAXSIZE),
    "lru-dict": lambda: lru.LRU(MAXSIZE),
    "moka-py": lambda: moka_py.Moka(MAXSIZE, policy="lru"),
    "theine": lambda: theine.Cache(MAXSIZE),
}
TIMED: dict[str, Callable[[], Any]] = {
    "fastcache": lambda: fastcache.TTLCache(MAXSIZE, TTL),
    "cachetools": lambda: cachetools.TTLCache(MAXSIZE, TTL),
    "cachebox": lambda: cachebox.TTLCache(MAXSIZE, TTL),
    "cachebox VTTL": lambda: cachebox.VTTLCache(MAXSIZE, ttl=TTL),
    "moka-py": lambda: moka_py.Moka(MAXSIZE, ttl=TTL, policy="lru"),
    "theine": lambda: theine.Cache(MAXSIZE),
}
MAPS = [("LRU", LRU, package) for package in LRU] + [("TTL", TIMED, package) for package in TIMED]
CASES = [pytest.param(*case, id=f"{case[0]}-{case[2]}") for case in MAPS]


def store(kind: str, cache: Any) -> Callable[[Any, Any], object]:
    """The map's own way to store, so that theine's entries have a ttl too."""
    if isinstance(cache, theine.Cache):
        ttl = timedelta(seconds=TTL) if kind == "TTL" else None
        return lambda key, value: cache.set(key, value, ttl)
    return cache.__setitem__ if hasattr(type(cache), "__setitem__") else cache.set


@pytest.mark.parametrize(("kind", "maps", "package"), CASES)
def test_bench_get(benchmark: Any, kind: str, maps: dict[str, Callable[[], Any]], package: str) -> None:
    """A thousand lookups that hit."""
    benchmark.group = f"{kind}: a thousand lookups"
    cache = maps[package]()
    for k in range(MAXSIZE // 2):
        store(kind, cache)(k, k)
    keys = [k % (MAXSIZE // 2) for k in range(1000)]
    get = cache.__getitem__ if hasattr(type(cache), "__getitem__") else cache.get

    def run() -> None:
        for k in keys:
            get(k)

    benchmark(run)


@pytest.mark.parametrize(("kind", "maps", "package"), CASES)
def test_bench_store_and_evict(benchmark: Any, kind: str, maps: dict[str, Callable[[], Any]], package: str) -> None:
    """A thousand new keys in a full map."""
    benchmark.group = f"{kind}: a thousand new keys, one evicted by each"
    cache = maps[package]()
    put = store(kind, cache)

    def run() -> None:
        for k in range(1000):
            put(k, k)

    benchmark(run)
