"""A hit of `cached` on a MemoryCache, and of the cache itself, against functools.lru_cache and cachetools.

    python benches/bench_cached.py

Ratios within one process, sides in turns (see measure.py): below 1 is quicker than functools.
"""

from __future__ import annotations

import functools

import cachetools
from measure import Side, compare

from fastcache import MemoryCache, cached


def square(x: int) -> int:
    return x * x


class Shop:
    @functools.lru_cache  # noqa: B019 (what is measured)
    def theirs(self, x: int) -> int:
        return x * x

    @cached(MemoryCache(1000, 60), key="square:{x}")
    def ours(self, x: int) -> int:
        return x * x


def main() -> None:
    functions = {
        "functools.lru_cache": functools.lru_cache(square),
        "cached(MemoryCache), key template": cached(MemoryCache(1000, 60), key="square:{x}")(square),
        "cached(MemoryCache), key from the arguments": cached(MemoryCache(1000, 60))(square),
        "cachetools.cached(TTLCache)": cachetools.cached(cachetools.TTLCache(1000, 60))(square),
    }
    shop, memory = Shop(), MemoryCache[str, int](1000, 60)
    memory.set("k", 49)
    for function in [*functions.values(), shop.theirs, shop.ours]:
        function(7)
    sides = {name: Side("f(7)", {"f": function}) for name, function in functions.items()}
    sides["functools.lru_cache, a method"] = Side("s.theirs(7)", {"s": shop})
    sides["cached(MemoryCache), a method, key template"] = Side("s.ours(7)", {"s": shop})
    sides["MemoryCache.get"] = Side("m.get('k')", {"m": memory})
    sides["MemoryCache.get_or_load"] = Side("m.get_or_load('k', f)", {"m": memory, "f": square})
    times = compare(list(sides.values()))
    for name, time in zip(sides, times, strict=True):
        print(f"  {name:46} {time:8.1f} ns {time / times[0]:7.2f}")


if __name__ == "__main__":
    main()
