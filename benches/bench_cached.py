"""A hit of `cached` on a MemoryCache against functools.lru_cache and cachetools.

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


def main() -> None:
    functions = {
        "functools.lru_cache": functools.lru_cache(square),
        "cached(MemoryCache), key template": cached(MemoryCache(1000, 60), key="square:{x}")(square),
        "cached(MemoryCache), key from the arguments": cached(MemoryCache(1000, 60))(square),
        "cachetools.cached(TTLCache)": cachetools.cached(cachetools.TTLCache(1000, 60))(square),
    }
    for function in functions.values():
        function(7)
    times = compare([Side("f(7)", {"f": function}) for function in functions.values()])
    for name, time in zip(functions, times, strict=True):
        print(f"  {name:46} {time:8.1f} ns {time / times[0]:7.2f}")


if __name__ == "__main__":
    main()
