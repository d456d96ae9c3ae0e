"""`lru_cache(ttl=...)`: when a result is forgotten. The clock is the system's, so lifetimes here are short or endless.

Where nothing may happen before a lifetime is over, the ttl is an hour; where it must be over, the test waits for it.
"""

import math
import time
import weakref
from fractions import Fraction

import pytest

from fastcache import ConfigurationError, lru_cache

SHORT = 0.02


def pass_time(seconds=SHORT):
    """Wait until so many seconds have passed, by every clock there is."""
    end = time.monotonic() + seconds + 0.005
    while time.monotonic() < end:
        time.sleep(0.001)


@pytest.mark.parametrize("args", [(1,), ("a",), (1, 2), (1.5,), ((1, 2),)])
def test_result_is_forgotten_after_the_ttl(args):
    """Whatever the kind of key: a hit before, a miss after."""
    calls = []

    @lru_cache(ttl=SHORT)
    def f(*args):
        calls.append(args)
        return len(calls)

    start = time.monotonic()
    first = f(*args)
    second = f(*args)
    assert second == first or time.monotonic() - start > SHORT
    pass_time()
    assert f(*args) > second
    f._check()


def test_long_ttl_is_a_hit():
    """An hour is not over: one call, all the rest are hits."""
    calls = []

    @lru_cache(ttl=3600)
    def f(x, y=0):
        calls.append(x)
        return x

    for _ in range(10):
        assert (f(1), f("a"), f(1, y=2), f((1,))) == (1, "a", 1, (1,))
    assert len(calls) == 4
    assert f.cache_info() == (36, 4, 128, 4)


def test_lifetime_starts_when_the_function_returned():
    """A function slower than its own ttl is cached all the same."""
    calls = []

    @lru_cache(ttl=0.5)
    def f(x):
        calls.append(x)
        pass_time(0.6)
        return x

    f(1)
    f(1)
    assert calls == [1]


def test_expired_result_is_neither_counted_nor_contained():
    """currsize, cache_contains and cache_invalidate all say that it is gone."""

    @lru_cache(ttl=SHORT)
    def f(x):
        return x

    f(1)
    f(2)
    pass_time()
    assert f.cache_info() == (0, 2, 128, 0)
    assert f.cache_contains(1) is False
    assert f.cache_invalidate(1) is False
    assert f.cache_info().currsize == 0
    f(1)
    assert f.cache_contains(1) is True
    assert f.cache_info() == (0, 3, 128, 1)
    assert f.cache_invalidate(1) is True
    f._check()


def test_expired_results_go_before_live_ones():
    """What has expired makes room, so a full cache of dead results evicts nothing alive."""

    @lru_cache(maxsize=3, ttl=0.3)
    def f(x):
        return x

    f(1)
    f(2)
    pass_time(0.2)
    f(3)
    f(1)  # recently used, and yet the first to expire
    pass_time(0.15)
    f(4)
    assert [x for x in range(1, 5) if f.cache_contains(x)] == [3, 4]
    f._check()


def test_order_of_use_decides_among_the_live():
    """With a ttl the cache is still an LRU."""

    @lru_cache(maxsize=2, ttl=3600)
    def f(x):
        return x

    for x in (1, 2, 1, 3):
        f(x)
    assert [f.cache_contains(x) for x in (1, 2, 3)] == [True, False, True]


def test_unbounded_cache_gives_expired_memory_back():
    """maxsize=None with a ttl doesn't grow for ever: each store removes up to two expired results."""
    alive = []

    class Value:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    @lru_cache(maxsize=None, ttl=SHORT)
    def f(x):
        return Value()

    for x in range(100):
        f(x)
    pass_time()
    for x in range(100, 160):
        f(x)
    assert len(alive) <= 60
    f._check()


def test_recomputed_result_has_a_life_of_its_own():
    """An expired result in the way of a new one is replaced, not prolonged."""

    @lru_cache(ttl=SHORT)
    def f(x):
        return object()

    for _ in range(3):
        first = f(1)
        pass_time()
        second = f(1)
        assert second is not first
    assert f.cache_info().misses >= 4
    f._check()


def test_recursion_and_ttl_work_together():
    """The inner call's result is there when the outer one is stored."""

    @lru_cache(maxsize=None, ttl=3600)
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(80) == 23416728348467685
    fib._check()


@pytest.mark.parametrize("ttl", [0, 0.0, -1, math.nan, -math.inf, True, False, "5", b"5", [], object()])
def test_wrong_ttl_is_refused_at_decoration(ttl):
    """Before any function is seen, with an error that names it."""
    with pytest.raises(ConfigurationError, match="ttl"):
        lru_cache(ttl=ttl)


def test_cache_parameters_tell_the_ttl():
    """As a float; without a ttl the dict is functools' own."""
    assert lru_cache(ttl=Fraction(5, 2))(len).cache_parameters() == {"maxsize": 128, "typed": False, "ttl": 2.5}
    assert lru_cache(ttl=math.inf)(len).cache_parameters()["ttl"] == math.inf
    assert lru_cache(maxsize=5)(len).cache_parameters() == {"maxsize": 5, "typed": False}


def test_endless_ttl_never_expires():
    """math.inf is a ttl like any other."""

    @lru_cache(ttl=math.inf)
    def f(x):
        return x

    f(1)
    f(1)
    assert f.cache_info() == (1, 1, 128, 1)
    f._check()


@pytest.mark.parametrize("maxsize", [0, -5])
def test_ttl_without_room_stores_nothing(maxsize):
    """Misses are counted, as without a ttl."""

    @lru_cache(maxsize=maxsize, ttl=60)
    def f(x):
        return x

    f(1)
    f(1)
    assert f.cache_info() == (0, 2, 0, 0)
    f._check()


@pytest.mark.parametrize("single_flight", [False, True])
def test_result_that_expired_during_a_run_of_the_same_call_is_replaced(single_flight):
    """The call asks for itself; what that stored is past its time when the outer run ends."""
    made = []

    class Result:
        pass

    @lru_cache(ttl=1e-9, single_flight=single_flight)
    def function(x):
        result = Result()
        made.append(weakref.ref(result))
        if len(made) < 3:
            function(x)
        return result

    last = function(1)
    assert [reference() for reference in made] == [last, None, None]
    function._check()
    assert function.cache_info()[:2] == (0, 3)
    assert not function.cache_contains(1)
