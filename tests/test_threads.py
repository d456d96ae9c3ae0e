"""Many threads on one cache, switching as wildly as they can: never above its size, whole after, exact counters."""

import os
import threading

import pytest
from hammering import THREADS, hammer

from fastcache import LRUCache, lru_cache

ROUNDS = int(os.environ.get("FASTCACHE_TEST_ROUNDS", 4000))

pytestmark = pytest.mark.thread_unsafe(reason="starts threads of its own")


class Key:
    """Compared in Python, where threads switch."""

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return self.n % 5

    def __eq__(self, other):
        return isinstance(other, Key) and self.n == other.n


@pytest.mark.parametrize("make", [int, str, Key], ids=["int", "str", "python"])
@pytest.mark.parametrize(
    "options",
    [{}, {"getsizeof": lambda value: 1}, {"on_evict": lambda *args: None}],
    ids=["plain", "getsizeof", "on_evict"],
)
def test_lru_cache_map_under_threads(make, options):
    """All operations from all threads: the size never exceeds the limit, values belong to their keys."""
    limit = 32
    cache = LRUCache(limit, **options)
    keys = [make(n) for n in range(64)]

    def work(number):
        for i in range(ROUNDS // 4):
            n = (i * 7 + number * 13) % 64
            cache[keys[n]] = n
            assert len(cache) <= limit
            assert cache.get(keys[n], n) == n
            assert cache.peek(make(n), n) == n
            if i % 5 == 0:
                assert cache.pop(keys[n], n) == n
            if i % 11 == 0:
                assert cache.setdefault(make(n), n) == n
            if i % 50 == 0:
                assert all(keys[value].__eq__(key) for key, value in cache.copy().items())
            if i % 100 == 0:
                cache.resize(limit - i // 100 % 3)
            if i % 400 == 0:
                cache.clear()

    hammer(work)
    cache._check()
    assert len(cache) <= limit


def test_lru_evictions_are_reported_once_each():
    """What was stored is either there or was reported, exactly once."""
    left = []
    cache = LRUCache(50, on_evict=lambda key, value, cause: left.append((key, value)))
    hammer(lambda number: [cache.__setitem__((number, i), i) for i in range(ROUNDS)])
    cache._check()
    assert len(cache) == 50
    everything = [(number, i) for number in range(THREADS) for i in range(ROUNDS)]
    assert sorted([key for key, _ in left] + list(cache)) == everything


def test_lru_iteration_under_threads_ends_or_raises():
    """Iterating while others store either raises RuntimeError or gives consistent entries; it never crashes."""
    cache = LRUCache(20)

    def work(number):
        for i in range(ROUNDS // 4):
            if number % 2:
                cache[i % 40] = i % 40
            else:
                try:
                    assert all(key == value for key, value in cache.items())
                except RuntimeError as error:
                    assert "changed during iteration" in str(error)  # noqa: PT017

    hammer(work)
    cache._check()


@pytest.mark.parametrize("maxsize", [None, 16, 100])
@pytest.mark.parametrize("make", [int, str, Key, lambda n: (n, str(n))], ids=["int", "str", "python", "tuple"])
def test_lru_cache_function_under_threads(maxsize, make):
    """Results belong to their arguments, the size is kept, and hits + misses is the number of calls."""

    @lru_cache(maxsize)
    def f(x, y=0):
        assert maxsize is None or f.cache_info().currsize <= maxsize
        return [x]

    def work(number):
        for i in range(ROUNDS // 2):
            x = make((i * 7 + number * 13) % 64)
            result = f(x) if i % 3 else f(x, y=i % 2)
            assert result == [x]

    hammer(work)
    info = f.cache_info()
    assert info.hits + info.misses == THREADS * (ROUNDS // 2)
    assert maxsize is None or info.currsize <= maxsize
    f._check()


def test_lru_cache_function_cleared_under_threads():
    """Clearing and invalidating from some threads while others call: no wrong result, a whole table."""
    f = lru_cache(40)(lambda x: -x)

    def work(number):
        for i in range(ROUNDS):
            n = (i * 3 + number) % 60
            assert f(n) == -n
            if number == 0 and i % 10 == 0:
                f.cache_clear()
            if number == 1:
                f.cache_invalidate(n)
                f.cache_contains(n + 1)

    hammer(work)
    f._check()
    assert f.cache_info().currsize <= 40


def test_lru_cache_function_simultaneous_misses_are_all_counted():
    """n simultaneous calls of one missing key are n misses and one entry; the first result to be stored stays."""
    inside = threading.Barrier(THREADS)

    @lru_cache
    def f(x):
        inside.wait(60)
        return object()

    results = []
    hammer(lambda number: results.append(f(1)))
    assert f.cache_info() == (0, THREADS, 128, 1)
    assert f(1) in results
    assert len(set(results)) == THREADS
