"""Eight threads that do everything to one cache at once, started at a barrier: nothing lost, wrong, too much or left broken.

They run with the GIL too, where less can go wrong, for less long. Without it, ThreadSanitizer sees what luck hides.
"""

import gc
import pickle
import random
import sys
import threading

import pytest
from hammering import FREE_THREADED, THREADS, Key, Value, hammer

import fastcache
from fastcache import LRUCache, MemoryCache, TTLCache, lru_cache

try:
    from test.test_free_threading import test_functools as theirs
except ImportError:
    theirs = None

ROUNDS = 2000 if FREE_THREADED else 400
LIMIT = 40
KEYS = 64

pytestmark = pytest.mark.thread_unsafe(reason="starts threads of its own")


class Clock:
    """Time that any thread moves on."""

    now = 0.0

    def __call__(self):
        return self.now


def nothing(*args):
    pass


MAPS = {
    "lru": lambda: LRUCache(LIMIT),
    "lru unbounded": lambda: LRUCache(None),
    "lru weighted": lambda: LRUCache(LIMIT, lambda value: 1.0),
    "lru with a listener": lambda: LRUCache(LIMIT, on_evict=nothing),
    "ttl": lambda: TTLCache(LIMIT, 0.06),
    "ttl precise": lambda: TTLCache(LIMIT, 0.001, on_evict=nothing),
    "ttl weighted": lambda: TTLCache(LIMIT, 5, Clock(), lambda value: 1),
}
MAKERS = {"int": int, "str": str, "python": Key}


def operations(cache, keys):
    """Each operation as a function of a number below KEYS. A value belongs to its key wherever one comes out."""

    def right(n, value):
        assert value is None or value.n == n

    def delete(n):
        try:
            del cache[keys[n]]
        except KeyError:
            pass

    def subscript(n):
        try:
            right(n, cache[keys[n]])
        except KeyError:
            pass

    def popitem(n):
        try:
            _, value = cache.popitem()
            right(value.n, value)
        except KeyError:
            pass

    def iterate(n):
        try:
            for key, value in cache.items():
                assert keys[value.n] == key
            list(cache)
        except RuntimeError as error:
            assert "changed during iteration" in str(error)  # noqa: PT017

    def copy(n):
        twin = cache.copy()
        twin._check()
        assert all(keys[value.n] == key for key, value in twin.items())

    def time_passes(n):
        if isinstance(getattr(cache, "timer", None), Clock):
            cache.timer.now += 0.5

    def limits(n):
        if cache.maxsize is not None:
            cache.resize(LIMIT - n % 3)
            assert cache.maxsize <= LIMIT

    def size(n):
        assert 0 <= len(cache) <= (KEYS if cache.maxsize is None else LIMIT)
        assert 0 <= cache.currsize <= (KEYS if cache.maxsize is None else LIMIT)

    often = [
        lambda n: cache.__setitem__(keys[n], Value(n)),
        lambda n: right(n, cache.get(keys[n])),
        lambda n: right(n, cache.peek(keys[n])),
        lambda n: right(n, cache.pop(keys[n], None)),
        lambda n: right(n, cache.setdefault(keys[n], Value(n))),
        lambda n: keys[n] in cache,
        subscript,
        delete,
        size,
        time_passes,
    ]
    seldom = [
        iterate,
        popitem,
        limits,
        copy,
        lambda n: cache.update({keys[n]: Value(n)}),
        lambda n: repr(cache),
        lambda n: sys.getsizeof(cache),
        lambda n: cache == {},
        lambda n: cache._counters(),
    ]
    rarely = [lambda n: cache.clear(), lambda n: gc.collect(0)]
    if isinstance(cache, TTLCache):
        often.append(lambda n: cache.set(keys[n], Value(n), ttl=None if cache.timer.__class__ is Clock else 0.01))
        often.append(lambda n: cache.remaining(keys[n]))
        seldom.append(lambda n: cache.expire())
        seldom.append(lambda n: cache._sweep(4))
    return often, seldom, rarely


@pytest.mark.parametrize("make_key", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("make", MAPS.values(), ids=MAPS)
def test_map_bears_everything_at_once(make, make_key):
    """All operations from all threads: sizes within the limit, each value at its key, all whole, nothing leaked."""
    before = Value.alive
    cache = make()
    keys = [make_key(n) for n in range(KEYS)]

    def work(number):
        choose = random.Random(number)
        often, seldom, rarely = operations(cache, keys)
        for i in range(ROUNDS):
            kind = rarely if i % 200 == 199 else seldom if i % 20 == 19 else often
            choose.choice(kind)(choose.randrange(KEYS))

    hammer(work)
    cache._check()
    assert len(cache) <= (KEYS if cache.maxsize is None else LIMIT)
    assert all(keys[value.n] == key for key, value in cache.items())
    cache.clear()
    gc.collect()
    assert Value.alive == before


@pytest.mark.parametrize("make", [LRUCache, lambda maxsize: TTLCache(maxsize, 60)], ids=["lru", "ttl"])
def test_map_loses_nothing(make):
    """What the threads store under keys of their own is all there, in each thread's order, and so are the counters."""
    cache = make(None)

    def work(number):
        for i in range(ROUNDS):
            cache[number, i] = i
        for i in range(ROUNDS):
            assert cache[number, i] == i
            assert cache.get((number, -1)) is None

    hammer(work)
    cache._check()
    assert len(cache) == THREADS * ROUNDS
    for number in range(THREADS):
        assert [i for owner, i in cache if owner == number] == list(range(ROUNDS))
    assert cache._counters() == (THREADS * ROUNDS, THREADS * ROUNDS, 0, 0)


def test_map_pickles_while_it_changes():
    """A pickle made while others store and delete is a whole cache of right values."""
    cache = LRUCache(LIMIT)

    def work(number):
        for i in range(ROUNDS // 4):
            n = (i * 7 + number) % KEYS
            if number % 2:
                cache[n] = str(n)
                cache.pop((n + 9) % KEYS, None)
            else:
                twin = pickle.loads(pickle.dumps(cache))
                twin._check()
                assert all(value == str(n) for n, value in twin.items())

    hammer(work)
    cache._check()


def test_iterator_may_be_shared():
    """Threads that take from one iterator get each key once between them."""
    cache = LRUCache(None)
    for n in range(THREADS * 200):
        cache[n] = n
    iterator, taken = iter(cache), []
    hammer(lambda number: taken.extend(list(iterator)))
    assert sorted(taken) == list(range(THREADS * 200))
    assert list(iterator) == []


def test_ttl_serves_nothing_expired():
    """A thread that read the time of expiry never gets the value after it, though other threads move the clock."""
    clock = Clock()
    cache = TTLCache(None, 10, clock)
    lock = threading.Lock()

    def work(number):
        for i in range(ROUNDS):
            cache[number] = i
            stored = clock.now  # or earlier
            with lock:
                clock.now += 1
            if clock.now - stored > 10:
                assert cache.get(number) is None or clock.now - stored <= 10 + THREADS
            before = clock.now
            value = cache.get(number)
            assert value is None or before < stored + 10

    hammer(work)
    cache._check()
    clock.now += 20
    assert len(cache) == 0


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
    before = Value.alive
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
    assert Value.alive == before
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
