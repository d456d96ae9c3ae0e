"""Eight threads that do everything to one map at once, started at a barrier: nothing lost, wrong, too much or left broken.

As test_free_threading.py, for `LRUCache` and `TTLCache`.
"""

import copy
import gc
import pickle
import random
import sys
import threading
from collections import Counter

import pytest
from hammering import LIMIT, MAKERS, ROUNDS, THREADS, Clock, Value, hammer, nothing, weigh

from fastcache import LRUCache, TTLCache

KEYS = 64

pytestmark = pytest.mark.thread_unsafe(reason="starts threads of its own")


MAPS = {
    "lru": lambda: LRUCache(LIMIT),
    "lru unbounded": lambda: LRUCache(None),
    "lru weighted": lambda: LRUCache(LIMIT, weigh),
    "lru with a listener": lambda: LRUCache(LIMIT, on_evict=nothing),
    "ttl": lambda: TTLCache(LIMIT, 0.06),
    "ttl precise": lambda: TTLCache(LIMIT, 0.001, on_evict=nothing),
    "ttl weighted": lambda: TTLCache(LIMIT, 5, Clock(), weigh),
}


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

    def twins(make):
        def check(n):
            twin = make(cache)
            twin._check()
            assert all(keys[value.n] == key for key, value in twin.items())
            assert twin.maxsize is None or twin.currsize <= LIMIT

        return check

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
        twins(copy.copy),
        twins(lambda cache: cache.copy()),
        twins(lambda cache: pickle.loads(pickle.dumps(cache))),
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
    before = Value.alive()
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
    assert Value.alive() == before


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


@pytest.mark.parametrize("make", [LRUCache, lambda *args, **options: TTLCache(*args[:1], 60, None, *args[1:], **options)])
@pytest.mark.parametrize("weighted", [False, True])
def test_map_accounts_for_every_value(make, weighted):
    """Each value that was stored is there or was reported once with its cause; all lookups are counted as hit or miss."""
    left = []
    stored, looked_up = Counter(), Counter()
    cache = make(LIMIT, *[weigh] * weighted, on_evict=lambda key, value, cause: left.append((value, cause)))

    def work(number):
        choose = random.Random(number)
        for i in range(ROUNDS):
            n = choose.randrange(KEYS)
            if i % 3:
                cache[n] = number, i
                stored[number] += 1
            elif i % 2:
                cache.get(n)
                looked_up[number] += 1
            else:
                cache.pop(n, None)
            if i % 500 == number:
                cache.clear()
            if i % 100 == number:
                cache.resize(LIMIT - i % 3)
            assert cache.currsize <= LIMIT

    hammer(work)
    cache._check()
    values = [value for value, _ in left] + list(cache.values())
    assert len(values) == len(set(values)) == stored.total()
    causes = Counter(cause for _, cause in left)
    assert set(causes) <= {"evicted", "replaced", "deleted", "cleared"}
    hits, misses, evictions, _ = cache._counters()
    assert hits + misses == looked_up.total()
    assert evictions == causes["evicted"]


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
