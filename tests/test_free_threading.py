"""Eight threads that do everything to one cached function at once, started at a barrier: nothing lost, wrong or too much.

They run with the GIL too, where less can go wrong, for less long. Without it, ThreadSanitizer sees what luck hides.
"""

import gc
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hammering import FREE_THREADED, LIMIT, MAKERS, ROUNDS, THREADS, Value, hammer, nothing

import fastcache
from fastcache import MemoryCache, lru_cache

try:
    from test.test_free_threading import test_functools as theirs
except ImportError:
    theirs = None

KEYS = 64

pytestmark = pytest.mark.thread_unsafe(reason="starts threads of its own")


FUNCTIONS = {
    "bounded": {"maxsize": LIMIT},
    "unbounded": {"maxsize": None},
    "one": {"maxsize": 1},
    "none": {"maxsize": 0},
    "typed": {"maxsize": LIMIT, "typed": True},
    "ttl": {"maxsize": LIMIT, "ttl": 0.02},
    "precise ttl": {"maxsize": None, "ttl": 0.001},
    "key function": {"maxsize": LIMIT, "key": lambda x, *rest, **options: x},
    "single flight": {"maxsize": LIMIT, "single_flight": True},
}


@pytest.mark.parametrize("make_key", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("options", FUNCTIONS.values(), ids=FUNCTIONS)
def test_function_bears_everything_at_once(options, make_key):
    """Calls of every shape, with clearing, invalidating and asking in between: right results, exact totals, whole after."""
    before = Value.alive()
    keys = [make_key(n) for n in range(KEYS)]
    numbers = {id(key): n for n, key in enumerate(keys)}
    maxsize = options["maxsize"]

    @lru_cache(**options)
    def f(x, *rest, **named):
        return Value(numbers[id(x)])

    def work(number, disturb):
        choose = random.Random(number)
        for i in range(ROUNDS):
            n = choose.randrange(KEYS) if i % 4 else choose.randrange(4)
            x = keys[n]
            assert (f(x) if i % 3 else f(x, n) if i % 2 else f(x, named=n)).n == n
            if i % 50 == number:
                info = f.cache_info()
                assert maxsize is None or info.currsize <= maxsize
                f.cache_contains(x)
            if disturb and i % 10 == number:
                f.cache_invalidate(x)
            if disturb and i % 400 == number:
                f.cache_clear()

    hammer(lambda number: work(number, False))
    info = f.cache_info()
    assert info.hits + info.misses == THREADS * ROUNDS
    f._check()
    hammer(lambda number: work(number, True))
    f._check()
    f.cache_clear()
    gc.collect()
    assert Value.alive() == before
    assert f.cache_info()[:2] == (0, 0)


def test_function_forgets_in_each_threads_order():
    """What a thread used is forgotten in the order of that thread's last uses, whatever the others do meanwhile."""
    f = lru_cache(KEYS * THREADS)(lambda x: x)
    orders = {}
    for n in range(KEYS * THREADS):
        f(n)

    def work(number):
        choose = random.Random(number)
        mine = range(number * KEYS, (number + 1) * KEYS)
        used = [choose.choice(mine) for _ in range(ROUNDS)]
        for n in used:
            f(n)
        orders[number] = sorted(set(used), key=lambda n: len(used) - 1 - used[::-1].index(n))

    hammer(work)
    assert f.cache_info() == (THREADS * ROUNDS, KEYS * THREADS, KEYS * THREADS, KEYS * THREADS)
    forgotten, left = [], []
    for new in range(KEYS * THREADS):
        if new % 16 == 0:
            left = [n for n in range(KEYS * THREADS) if f.cache_contains(n)]
        f(-1 - new)
        if new % 16 == 15:
            forgotten.append({n for n in left if not f.cache_contains(n)})
    for number, order in orders.items():
        place = {n: i for i, gone in enumerate(forgotten) for n in gone}
        assert [place[n] for n in order] == sorted(place[n] for n in order), number
    f._check()


def test_function_forgets_in_the_order_of_use_whoever_used():
    """Threads that use entries one after the other, with no miss in between: forgotten is what was used least recently."""
    f = lru_cache(KEYS)(lambda x: x)
    for n in range(KEYS):
        f(n)
    choose = random.Random(1)
    uses = [choose.randrange(KEYS) for _ in range(KEYS * 6)]
    crew = [ThreadPoolExecutor(1) for _ in range(THREADS)]
    for n in uses:
        assert choose.choice(crew).submit(f, n).result() == n
    for each in crew:
        each.shutdown()
    last = {n: i for i, n in enumerate([*range(KEYS), *uses])}
    expected = sorted(range(KEYS), key=last.__getitem__)
    forgotten = []
    for new in range(KEYS):
        before = {n for n in range(KEYS) if f.cache_contains(n)}
        f(-1 - new)
        forgotten += [n for n in before if not f.cache_contains(n)]
    assert forgotten == expected
    f._check()


def test_function_of_instances_bears_everything_at_once():
    """Instances that come and go in all threads, one shared by all: right results, exact totals over dead and living."""

    class A:
        def __init__(self, n):
            self.n = n

        @lru_cache(LIMIT, per_instance=True)
        def m(self, x):
            return self.n, x

    shared = A(-1)

    def work(number):
        own = A(number)
        for i in range(ROUNDS):
            if i % 10 == 0:
                own = A(number + i)
            assert own.m(i % 5) == (own.n, i % 5)
            assert shared.m(i % 50) == (-1, i % 50)
            if i % 100 == number:
                assert A.m.cache_info().hits >= 0
                A.m.cache_invalidate(shared, i % 50)

    hammer(work)
    gc.collect()
    info = A.m.cache_info()
    assert info.hits + info.misses == THREADS * ROUNDS * 2
    A.m._check()


def test_memory_cache_bears_everything_at_once():
    """The in-memory cache with its lock, its janitor and its shared loads: each value at its key, and exact counters."""
    cache = MemoryCache(LIMIT, ttl=0.05, cleanup_interval=0.01, on_evict=nothing)

    def work(number):
        choose = random.Random(number)
        for i in range(ROUNDS // 2):
            n = choose.randrange(KEYS)
            assert cache.get_or_load(n, str) == str(n)
            assert cache.get(n) in (None, str(n))
            if i % 3 == 0:
                cache.set(n, str(n), ttl=0.01)
            if i % 7 == 0:
                cache.delete(n)
            if i % 50 == number:
                assert all(value == str(n) for n, value in cache.get_many(range(KEYS)).items())
                cache.stats()
            if i % 300 == number:
                cache.clear()

    hammer(work)
    cache._map._check()
    cache.close()


def test_importing_leaves_the_gil_off(run_script):
    """No module of the package turns the GIL on, on an interpreter that runs without."""
    run_script(
        "import importlib, pkgutil, sys, warnings\n"
        "import fastcache\n"
        "names = [each.name for each in pkgutil.iter_modules(fastcache.__path__) if each.name != '__main__']\n"
        "assert {'_memo', '_lru', '_ttl', '_table', 'memory'} <= set(names), names\n"
        "for name in names:\n"
        "    try:\n"
        "        importlib.import_module('fastcache.' + name)\n"
        "    except ImportError as error:\n"
        "        assert error.name in (None, 'redis', 'msgspec'), error\n"
        f"assert not {FREE_THREADED} or not sys._is_gil_enabled()\n"
    )


@pytest.mark.skipif(theirs is None, reason="CPython's own tests of functools under threads came with 3.14")
@pytest.mark.parametrize("name", [n for n in dir(getattr(theirs, "TestLRUCache", None)) if n.startswith("test_")])
def test_functools_suite_of_free_threading(name, monkeypatch):
    """CPython's own tests of `lru_cache` under threads, unmodified, with ours."""
    monkeypatch.setattr(theirs, "lru_cache", fastcache.lru_cache)
    result = theirs.TestLRUCache(name).run()
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.errors + result.failures
    assert not result.skipped
