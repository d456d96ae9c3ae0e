"""`TTLCache` used by the very code that it runs: callbacks, finalizers, comparisons, timers, subclasses, the collector."""

import gc
import threading

import pytest
from hammering import FREE_THREADED

from fastcache import LRUCache, TTLCache


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Finalized:
    """A value that runs a function when it is released."""

    def __init__(self, function):
        self.function = function

    def __del__(self):
        self.function()


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize("own_ttl", [None, 7])
def test_on_evict_may_use_the_cache_during_a_sweep(clock, own_ttl):
    """It runs after the change: it sees none of what expired and may store, delete, clear and expire."""
    seen = []

    def on_evict(key, value, cause):
        seen.append((key, cause, len(cache), key in cache))
        if key < 100 and cause == "expired":  # entries of one deadline may come in any order
            cache.set(key + 100, value, own_ttl)
            cache.expire()
            if key == 50:
                cache.clear()

    cache = TTLCache(None, 10, clock, on_evict=on_evict)
    for key in range(100):
        cache.set(key, key, own_ttl)
    clock.now = 10
    cache[1000] = 1
    assert sorted(key for key, cause, _, _ in seen if cause == "expired") == list(range(100))
    assert not any(there for _, _, _, there in seen)
    order = [key for key, cause, _, _ in seen if cause == "expired"]
    assert set(cache) == {key + 100 for key in order[order.index(50) + 1 :]}
    cache._check()


def test_error_of_on_evict_comes_after_the_whole_change(clock):
    """All entries are reported, the first error is raised, and the new value is there."""
    seen = []

    def on_evict(key, value, cause):
        seen.append(key)
        if key == 0:
            raise OSError(key)

    cache = TTLCache(None, 10, clock, on_evict=on_evict)
    for key in range(5):
        cache[key] = key
    clock.now = 10
    with pytest.raises(OSError, match="0"):
        cache["new"] = 1
    assert seen == [0, 1, 2, 3, 4]
    assert dict(cache) == {"new": 1}


@pytest.mark.parametrize("own_ttl", [None, 7])
@pytest.mark.parametrize("action", ["store", "clear", "expire", "len", "iterate", "resize"])
def test_finalizer_may_use_the_cache_during_a_sweep(clock, own_ttl, action):
    """`__del__` of a swept value runs in the middle of the sweep, with the structure whole."""
    ran = []

    def use():
        ran.append(1)
        cache._check()
        {
            "store": lambda: cache.__setitem__(("new", len(ran)), 1),
            "clear": lambda: cache.clear(),
            "expire": lambda: cache.expire(),
            "len": lambda: len(cache),
            "iterate": lambda: list(cache),
            "resize": lambda: cache.resize(1000 - len(ran)),
        }[action]()
        cache._check()

    cache = TTLCache(1000, 10, clock)
    for key in range(100):
        cache.set(key, Finalized(use), own_ttl)
    clock.now = 10
    cache["last"] = 1
    assert len(ran) == 100
    assert "last" in cache
    cache._check()


def test_equality_may_change_the_cache(clock):
    """A key's `__eq__` that stores, sweeps or clears makes the lookup start again."""

    class Key:
        def __init__(self, n):
            self.n = n

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if actions:
                actions.pop()()
            return self.n == other.n

    actions = []
    cache = TTLCache(None, 10, clock)
    for n in range(5):
        cache.set(Key(n), n, 5 if n % 2 else None)
    clock.now = 6  # 1 and 3 have expired, but are there
    actions = [cache.clear, lambda: cache.__setitem__(Key(9), 9), cache.expire]
    assert cache.get(Key(4)) is None
    cache._check()
    actions = [lambda: cache.__setitem__(Key(4), 44)]
    assert cache.get(Key(4)) == 44
    actions = [lambda: cache.__delitem__(Key(4))]
    cache.set(Key(4), 5, ttl=3)
    assert cache.remaining(Key(4)) == 3
    cache._check()


def test_timer_may_use_the_cache(clock):
    """A timer that looks into its own cache, stores or sweeps does so before the operation that asked it."""
    depth = []

    def timer():
        if not depth:
            depth.append(1)
            try:
                cache.expire()
                cache["timer"] = 1
                assert len(cache) >= 1
            finally:
                depth.pop()
        return clock.now

    cache = TTLCache(3, 10, timer)
    cache["a"] = 1
    assert (cache["a"], "a" in cache, len(cache)) == (1, True, 2)
    clock.now = 10
    assert cache.get("a") is None
    assert list(cache.copy()) == ["timer"]
    cache._check()


@pytest.mark.skipif(FREE_THREADED, reason="a thread counts its allocations by hundreds there: no collection at each")
@pytest.mark.parametrize("operation", ["len", "iterate", "items", "copy", "repr", "currsize", "expire", "store"])
def test_collector_may_change_the_cache_at_any_allocation(clock, operation):
    """With a collection at every allocation, each running finalizers that change the cache, nothing breaks."""
    cache = TTLCache(50, 10, clock, getsizeof=lambda value: 1, on_evict=lambda *args: None)
    n = 0

    def change():
        nonlocal n
        n += 1
        cache.set(n % 60, n, ttl=1 + n % 20)
        if n % 7 == 0:
            cache.expire()
        if n % 31 == 0:
            cache.clear()

    def make_garbage():
        cycle = [Finalized(change)]
        cycle.append(cycle)

    def perform():
        try:
            {
                "len": lambda: len(cache),
                "iterate": lambda: list(cache),
                "items": lambda: list(cache.items()),
                "copy": lambda: cache.copy()._check(),
                "repr": lambda: repr(cache),
                "currsize": lambda: cache.currsize,
                "expire": lambda: cache.expire(),
                "store": lambda: cache.set((), (), ttl=3),
            }[operation]()
        except RuntimeError as error:
            if "changed during iteration" not in str(error):
                raise

    gc.set_threshold(1)
    for step in range(300):
        clock.now += step % 3
        make_garbage()
        perform()
    gc.set_threshold(700)
    assert n >= 290
    cache._check()


def test_length_is_never_negative(clock):
    """A collection in the middle of `len` that fills the cache with expired entries doesn't make it count below zero."""
    cache = TTLCache(None, 0, clock)

    def fill():
        for i in range(50):
            cache[object()] = i  # expired at once

    cache["a"] = 1
    for _ in range(200):
        cycle = [Finalized(fill)]
        cycle.append(cycle)
        del cycle
        gc.set_threshold(1)
        assert len(cache) == 0
        assert cache.currsize == 0
        gc.set_threshold(700)


def test_weights_with_arithmetic_of_their_own_stay_in_balance(clock):
    """A weight's `__add__` or `__rsub__` that changes the cache must not make the total forget that change."""

    class Weight(float):
        def __add__(self, other):
            act()
            return Weight(float(self) + float(other))

        __radd__ = __add__

        def __sub__(self, other):
            act()
            return Weight(float(self) - float(other))

        def __rsub__(self, other):
            act()
            return Weight(float(other) - float(self))

    def act():
        if actions:
            actions.pop()()

    actions = []
    cache = TTLCache(100, 10, clock, getsizeof=Weight)
    cache["other"] = 1
    cache["a"] = 2
    for operation in (lambda: cache.__setitem__("a", 3), lambda: cache.__delitem__("a"), lambda: cache.expire(20)):
        for times in range(1, 4):
            cache["a"] = 2
            cache["other"] = 1
            actions = [lambda: None] * (times - 1)
            actions.insert(0, lambda: cache.__setitem__("other", 7))
            operation()
            actions = []
            cache._check()
            assert cache.currsize == sum(cache.values())


def test_subclass_may_override_expire(clock):
    """Its expire() is called before a change, as in cachetools, and may call its parent's."""
    expired = []

    class Noting(TTLCache):
        def expire(self, time=None):
            items = super().expire(time)
            expired.extend(items)
            return items

    cache = Noting(2, 10, clock)
    cache["a"] = 1
    clock.now = 10
    cache["b"] = 2
    assert expired == [("a", 1)]
    clock.now = 20
    assert len(cache) == 0
    assert expired == [("a", 1), ("b", 2)]


def test_subclass_may_override_popitem_and_missing(clock):
    """popitem chooses what makes room among the live; `__missing__` is asked for expired keys by [] alone."""

    class Newest(TTLCache):
        def popitem(self):
            key = list(self)[-1]
            return key, self.pop(key)

        def __missing__(self, key):
            self[key] = f"made {key}"
            return self[key]

    cache = Newest(2, 10, clock)
    cache.update(a=1, b=2)
    cache["c"] = 3
    assert dict(cache) == {"a": 1, "c": 3}
    clock.now = 10
    assert cache.get("a") is None
    assert cache["a"] == "made a"
    assert dict(cache) == {"a": "made a"}
    assert isinstance(cache, LRUCache)
    cache._check()


def test_threads_on_one_cache_keep_it_whole():
    """Storing, reading, sweeping and clearing from several threads never breaks the structure nor the bound."""
    cache = TTLCache(50, 0.002)
    errors = []
    barrier = threading.Barrier(4)

    def work(seed):
        try:
            barrier.wait()
            for i in range(4000):
                key = (i * 7919 + seed) % 97
                cache.set(key, i, ttl=None if i % 3 else 0.0005 * (1 + i % 5))
                cache.get(key - 1)
                if i % 50 == 0:
                    cache.expire()
                    assert len(cache) <= 50
                if i % 1000 == 999:
                    cache.clear()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    cache._check()
