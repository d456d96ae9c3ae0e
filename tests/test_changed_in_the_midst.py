"""A cache whose limit, options or counters change while one of its own operations is under way."""

import asyncio
import sys
import threading

import pytest

from fastcache import LRUCache, TTLCache, lru_cache
from fastcache.janitor import Janitor


def colliding(during_eq):
    """Two keys of one hash; comparing them runs a function and says that they differ."""

    class Key:
        def __hash__(self):
            return 7

        def __eq__(self, other):
            during_eq()
            return False

    return Key(), Key()


def test_store_fails_whole_when_the_timer_makes_the_limit_zero():
    """The limit is asked again where the entry is stored: an error, and an empty, sound cache."""
    armed = []

    def timer():
        if armed and not armed.pop():
            cache.resize(0)
        return 0.0

    cache = TTLCache(10, 10, timer)
    armed.append(False)
    with pytest.raises(ValueError, match="value too large"):
        cache["a"] = 1
    cache._check()
    assert len(cache) == 0


@pytest.mark.parametrize(("getsizeof", "limit"), [(None, 0), (lambda value: value, 1)])
def test_store_fails_whole_when_an_eq_makes_the_limit_too_small(getsizeof, limit):
    """The same from a key's __eq__, by number of entries and by weight."""
    armed = []
    first, second = colliding(lambda: armed and cache.resize(limit))
    cache = LRUCache(1 if getsizeof is None else 10, getsizeof)
    cache[first] = 1
    armed.append(1)
    with pytest.raises(ValueError, match="value too large"):
        cache[second] = 5
    armed.clear()
    cache._check()


def test_weight_that_cannot_be_subtracted_leaves_an_empty_cache_empty():
    """An error in a weight's arithmetic reaches the caller, and an empty cache weighs nothing."""

    class Weight:
        broken = False

        def __init__(self, n):
            self.n = n

        def __add__(self, other):
            return self.n + other

        __radd__ = __add__

        def __rsub__(self, other):
            if Weight.broken:
                raise ZeroDivisionError
            return other - self.n

        def __gt__(self, other):
            return self.n > other

        def __ge__(self, other):
            return self.n >= other

        __eq__ = object.__eq__
        __hash__ = object.__hash__

    cache = LRUCache(10, Weight)
    cache["a"] = 5
    Weight.broken = True
    with pytest.raises(ZeroDivisionError):
        del cache["a"]
    Weight.broken = False
    assert (len(cache), cache.currsize) == (0, 0)
    cache["b"] = 6
    assert cache.currsize == 6


@pytest.mark.parametrize("sizes", [(None, len), (len, None)])
def test_store_is_refused_when_an_eq_initialises_the_cache_again(sizes):
    """Weighed or not is decided before: an entry with no weight must not come among others, nor the other way round."""
    before, after = sizes

    def initialise():
        if armed:
            armed.pop()
            cache.__init__(10, after)
            cache["x"] = "yz"

    armed = []
    first, second = colliding(initialise)
    cache = LRUCache(10, before)
    cache[first] = "a"
    armed += [1]
    with pytest.raises(RuntimeError, match="changed by __init__"):
        cache[second] = "b"
    cache._check()
    assert dict(cache.items()) == {"x": "yz"}


def test_comparison_of_a_weight_may_resize():
    """The bound that a weight is compared with stays alive during the comparison."""

    class Bound:
        def __ge__(self, other):
            return True

        def __lt__(self, other):
            return False

    class Weight(int):
        def __gt__(self, other):
            if armed:
                cache.resize(7)
            return NotImplemented

    armed = []
    cache = LRUCache(Bound(), Weight)
    armed.append(1)
    cache["a"] = 1
    assert (cache.maxsize, list(cache)) == (7, ["a"])


def test_on_evict_hears_of_what_left_before_the_operation_failed():
    """Expired entries are gone although the key's __eq__ then raised, and are reported; the error is the caller's."""

    class Key:
        def __hash__(self):
            return hash("x")

        def __eq__(self, other):
            raise ZeroDivisionError

    now = 0
    gone = []
    cache = TTLCache(10, 5, lambda: now, on_evict=lambda *event: gone.append(event))
    cache.set(Key(), 1, ttl=100)
    cache["b"] = 1
    now = 20
    with pytest.raises(ZeroDivisionError):
        cache[Key()] = 3
    assert gone == [("b", 1, "expired")]
    assert len(cache) == 1


def test_on_evict_that_raises_then_is_reported(monkeypatch):
    """It must not hide why the operation failed."""
    reports = []
    monkeypatch.setattr("sys.unraisablehook", lambda report: reports.append(report.exc_value))

    class Weight(int):
        def __gt__(self, other):
            if armed and self == 1:
                raise ZeroDivisionError
            return super().__gt__(other)

        def __add__(self, other):
            return Weight(int(self) + other)

        def __sub__(self, other):
            return Weight(int(self) - other)

        __radd__ = __add__

    def fail(*event):
        raise error

    armed = []
    error = OSError("from on_evict")
    cache = LRUCache(2, Weight, on_evict=fail)
    cache.update(a=1, b=1)
    armed.append(1)
    with pytest.raises(ZeroDivisionError):
        cache.resize(0)
    assert reports == [error]
    assert list(cache) == ["b"]


@pytest.mark.parametrize("meanwhile", ["clear", "init"])
def test_comparison_of_a_weight_may_empty_the_cache_that_is_resized(meanwhile):
    """There is nothing to evict then, and nothing is counted."""

    class Bound(int):
        def __lt__(self, other):
            if not armed or other:
                return super().__lt__(other)
            armed.clear()
            cache.clear() if meanwhile == "clear" else cache.__init__(9)
            return True

        def __ge__(self, other):
            return True

    armed = []
    cache = LRUCache(5, lambda value: value)
    cache["a"] = 0
    armed.append(1)
    cache.resize(Bound(3))
    assert not armed
    assert (len(cache), cache.maxsize, cache._counters()[2]) == (0, 3, 0)
    cache.update(a=1, b=1)
    assert len(cache) == 2
    cache._check()


def test_lookup_that_is_never_done_is_an_error():
    """Where each comparison changes the cache, all over again. The cache is whole."""
    first, second = colliding(lambda: (cache.clear(), cache.update({first: 1})))
    cache = LRUCache(5)
    cache[first] = 1
    for operate in (cache.get, cache.__contains__, cache.pop, lambda key: cache.update({key: 2})):
        with pytest.raises(RuntimeError, match="changed by a key's __eq__ during each of"):
            operate(second)
    cache._check()
    assert list(cache.items()) == [(first, 1)]


@pytest.mark.parametrize("base", [LRUCache, TTLCache])
def test_state_that_holds_more_than_its_maxsize(base):
    """As one that was edited: all of it is there, until the cache is resized."""
    cache = base(9, *([60] if base is TTLCache else []))
    cache.update(a=1, b=2, c=3)
    twin = base.__new__(base)
    twin.__setstate__(cache.__getstate__() | {"maxsize": 1})
    assert dict(twin) == {"a": 1, "b": 2, "c": 3}
    twin["d"] = 4
    assert dict(twin) == {"b": 2, "c": 3, "d": 4}
    twin.resize(1)
    assert dict(twin) == {"d": 4}
    twin._check()


def test_second_init_of_a_ttl_cache_loses_nothing_when_refused():
    """Bad options are found before the entries go."""
    cache = TTLCache(10, 5)
    cache["a"] = 1
    with pytest.raises(ValueError, match="non-negative"):
        cache.__init__(-1, 5)
    assert dict(cache.items()) == {"a": 1}
    cache.__init__(3, 60)
    assert (len(cache), cache.ttl, cache.maxsize) == (0, 60, 3)
    cache._check()


def test_cached_function_is_not_initialised_twice():
    """Its table was made for its options."""
    function = lru_cache(abs)
    with pytest.raises(TypeError, match="twice"):
        function.__init__(abs, maxsize=1)
    assert function(-1) == 1


def test_clear_during_a_shared_async_run_leaves_the_counters_at_zero():
    """Callers that join a run count as hits, but not against misses that were cleared meanwhile."""

    async def main():
        release = asyncio.Event()

        @lru_cache
        async def function(x):
            await release.wait()
            return x

        callers = [asyncio.create_task(function(1)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        function.cache_clear()
        release.set()
        assert await asyncio.gather(*callers) == [1, 1, 1]
        assert function.cache_info() == (0, 0, 128, 0)

    asyncio.run(main())


def test_eq_under_the_lock_of_shared_runs_does_not_wait():
    """A key's __eq__ that calls the function runs it: the leader it would wait for may need the lock."""
    started, release = threading.Event(), threading.Event()
    here = threading.current_thread()

    def during_eq():
        if started.is_set() and threading.current_thread() is here and called_from_runs():
            assert function("slow") == "slow"

    def called_from_runs():
        frame = sys._getframe(2)
        while frame is not None and "test_changed" in frame.f_code.co_filename and frame.f_code.co_name == "__eq__":
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename.endswith("runs.py")

    first, second = colliding(during_eq)

    @lru_cache(single_flight=True)
    def function(x):
        if x == "slow" and threading.current_thread() is not here:
            started.set()
            release.wait(30)
        return x

    function(first)
    thread = threading.Thread(target=function, args=("slow",))
    thread.start()
    assert started.wait(30)
    threading.Timer(0.05, release.set).start()
    assert function(second) is second
    thread.join()


def test_attributes_of_the_function_do_not_hide_what_shared_runs_need():
    """The wrapper takes over the function's attributes, whatever their names."""

    @lru_cache(single_flight=True)
    def function(x):
        return x

    function.add = function.peek = function.joined = "an attribute of the user's"
    assert function(1) == function(1) == 1
    assert function.cache_info().hits == 1


def test_janitor_sees_a_cache_taken_on_between_a_sweep_and_the_wait():
    """How long to wait is worked out under the lock, so the new cache is waited for, too."""
    swept = threading.Event()

    class Probe:
        def _counters(self):
            return 0, 0, 0, 0

        def _sweep(self, most):
            if self is quick:
                swept.set()
            return 0

    quick, slow = Probe(), Probe()
    janitor = Janitor()
    sweep_due = janitor.sweep_due
    first = [1]

    def sweep_and_take_on():
        result = sweep_due()
        if first:
            first.clear()
            other = threading.Thread(target=janitor.take_on, args=(quick, 0.01))
            other.start()
            other.join()
        return result

    janitor.sweep_due = sweep_and_take_on
    janitor.take_on(slow, 3600)
    assert swept.wait(30)
    janitor.give_up(quick)
    janitor.give_up(slow)


def test_janitor_drops_a_cache_whose_callback_failed():
    """A dead reference that nobody took away is not due for ever."""

    class Probe:
        def _counters(self):
            return 0, 0, 0, 0

        def _sweep(self, most):
            return 0

    now = 0.0
    janitor = Janitor(clock=lambda: now)
    janitor._start = lambda: None
    probe, other = Probe(), Probe()
    janitor.take_on(probe, 1)
    janitor.take_on(other, 100)
    janitor.forget = lambda identity: None  # as at the recursion limit
    del probe
    now = 2.0
    assert janitor.sweep_due() == 98
