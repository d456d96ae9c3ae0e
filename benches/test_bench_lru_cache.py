"""`lru_cache` beside functools and the peers' decorators; `pytest benches`, one group for each kind of call.

pytest-benchmark runs one side after the other: good for a profile or a history. For ratios, `make bench` is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cachebox
import cachetools
import moka_py
import pytest
import theine

import fastcache

MAXSIZE = 128
DECORATORS: dict[str, Callable[[Any], Any]] = {
    "fastcache": fastcache.lru_cache(maxsize=MAXSIZE),
    "functools": functools.lru_cache(maxsize=MAXSIZE),
    "cachetools": lambda function: cachetools.cached(cachetools.LRUCache(MAXSIZE))(function),
    "cachebox": lambda function: cachebox.cached(cachebox.LRUCache(MAXSIZE))(function),
    "moka-py": moka_py.cached(maxsize=MAXSIZE, policy="lru"),
    "theine": lambda function: theine.Memoize(MAXSIZE, None)(function),
}
CALLS: dict[str, str] = {
    "one int": "f(5)",
    "one str": "f('abc')",
    "two arguments": "f(1, 2)",
    "one keyword": "f(a=1)",
    "a tuple": "f((1, 2))",
    "a float": "f(1.5)",
}


def repeated(statement: str, **names: Any) -> Callable[[], None]:
    """A function that runs the statement a thousand times."""
    exec("def run():\n    for _ in range(100):\n" + f"        {statement}\n" * 10, names)
    return names["run"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("package", DECORATORS)
def test_bench_hit(benchmark: Any, package: str, call: str) -> None:
    """A thousand hits."""
    benchmark.group = f"lru_cache: a thousand hits, {call}"
    function = DECORATORS[package](lambda a=None, b=None: a)
    benchmark(repeated(CALLS[call], f=function))


@pytest.mark.parametrize("package", DECORATORS)
def test_bench_method_hit(benchmark: Any, package: str) -> None:
    """A thousand hits of a method."""
    benchmark.group = "lru_cache: a thousand hits, a method"

    class Thing:
        @DECORATORS[package]
        def method(self, x: int) -> int:
            return x

    benchmark(repeated("thing.method(5)", thing=Thing()))


@pytest.mark.parametrize("package", DECORATORS)
def test_bench_miss(benchmark: Any, package: str) -> None:
    """Each call is a miss that evicts another entry."""
    benchmark.group = "lru_cache: 20,000 misses, one evicted by each"
    function = DECORATORS[package](lambda x: x)

    def run() -> None:
        for k in range(20_000):
            function(k)

    benchmark(run)
