"""`cached` on a `def` and an `async def`: hits, misses, invalidation, refresh, conditions, and what it refuses."""

import asyncio
import copy
import functools
import inspect
import pickle
import threading

import pytest
from loaders import Clock, Loader, start, wait_until

from fastcache import (
    MISSING,
    AsyncMemoryCache,
    ConfigurationError,
    MemoryCache,
    Policy,
    cached,
)


@cached(key="global:{x}")
def at_module_level(x, y=2):
    """Say something."""
    return x * y


def counted(*args, **options):
    """A decorated function that counts its runs."""
    runs = []

    @cached(*args, **options)
    def function(x=1, y=2):
        runs.append((x, y))
        return x

    return function, runs


def test_cached_runs_the_function_once_for_all_forms_of_a_call():
    """Positional, by keyword and by default are one call."""
    function, runs = counted()
    assert [function(1), function(x=1), function(1, 2), function(y=2, x=1), function()] == [1] * 5
    assert runs == [(1, 2)]
    assert len(function.cache) == 1


def test_cached_tells_types_apart():
    """1, 1.0 and True are three calls, alone and inside a tuple; so are the two zeros."""
    function, runs = counted()
    for value in (1, 1.0, True, (1,), (1.0,), (True,), 0.0, -0.0):
        for _ in range(2):
            assert type(function(value)) is type(value)
    assert len(runs) == 8


def test_cached_is_used_bare_and_with_parentheses():
    """Both ways each function has a bounded cache of its own."""
    for decorate in (cached, cached()):
        function = decorate(lambda x: [x])
        assert function(1) is function(1)
        assert isinstance(function.cache, MemoryCache)
        for i in range(1100):
            function(i)
        assert len(function.cache) == 1024


def test_cached_hit_is_as_valid_as_the_entry_of_the_cache():
    """What expires, is deleted, set or cleared in the cache itself does so for the function."""
    clock = Clock()
    cache = MemoryCache(ttl=10, timer=clock)
    function, runs = counted(cache, key="k:{x}")
    assert function(7) == function(7) == 7
    cache.set("k:7", "other")
    assert function(7) == "other"
    cache.delete("k:7")
    assert function(7) == 7
    cache.clear()
    assert function(7) == 7
    clock.now += 11
    assert function(7) == 7
    assert len(runs) == 4


def test_cached_counts_each_call_once():
    """A hit in the wrapper is a hit of the cache, a miss one miss."""
    cache = MemoryCache(ttl=60)
    function, _ = counted(cache)
    for _ in range(3):
        function(1)
    assert (cache.stats().hits, cache.stats().misses) == (2, 1)


def test_cached_sees_a_mutable_argument_change():
    """The key of an object is made at each call: nothing is remembered by its identity."""

    class User:
        id = 1

    user = User()
    function = cached(key="user:{user.id}")(lambda user: user.id)
    assert function(user) == 1
    user.id = 2
    assert function(user) == 2


def test_cached_sees_a_mutable_default_change():
    """The same for a default."""
    default = [1]

    @cached
    def function(x, more=default):
        return len(more)

    assert function(0) == 1
    default.append(2)
    assert function(0) == 2


def test_invalidate_forgets_one_call():
    """The others stay."""
    function, runs = counted()
    function(1), function(2)
    assert function.invalidate(1) is None
    function(1), function(2)
    assert runs == [(1, 2), (2, 2), (1, 2)]


def test_invalidate_during_a_run_keeps_its_result_from_being_stored():
    """Its callers get it; the next call runs the function again."""
    load = Loader("old")
    function = cached(lambda x: load(x))
    load.open.clear()
    finish = start(function, 1)
    assert load.entered.wait(20)
    function.invalidate(1)
    load.open.set()
    assert finish() == "old"
    load.value = "new"
    assert function(1) == "new"


def test_refresh_replaces_what_is_stored():
    """It runs the function whatever there is; where that raises the old value stays."""
    load = Loader("old")
    function = cached(lambda x: load(x))
    assert function(1) == "old"
    load.value = "new"
    assert function.refresh(1) == function(1) == "new"
    load.error = OSError("away")
    with pytest.raises(OSError, match="away"):
        function.refresh(1)
    assert function(1) == "new"


def test_refresh_wins_over_a_run_that_began_before():
    """The older result goes to its caller and isn't stored."""
    load = Loader("old")
    function = cached(lambda x: load(x))
    load.open.clear()
    finish = start(function, 1)
    assert load.entered.wait(20)
    fresh = Loader("new")
    old, load = load, fresh
    assert function.refresh(1) == "new"
    old.open.set()
    assert finish() == "old"
    assert function(1) == "new"


def test_condition_decides_whether_a_result_is_stored():
    """Every caller gets the result; only where the condition is true is it kept."""
    load = Loader(None)
    function = cached(condition=lambda result: result is not None)(lambda x: load(x))
    assert function(1) is function(1) is None
    assert load.runs == 2
    load.value = "v"
    assert function(1) == function(1) == "v"
    assert load.runs == 3
    load.value = None
    assert function.refresh(1) is None  # what was there is out of date
    assert function(1) is None


def test_condition_leaves_a_stale_value_where_it_is():
    """In the background a result that isn't to be stored changes nothing."""
    clock = Clock()
    cache = MemoryCache(timer=clock)
    load = Loader("good")
    policy = Policy(10, stale_for=100, jitter=0)
    function = cached(cache, policy=policy, condition=lambda result: result != "bad")(lambda x: load(x))
    assert function(1) == "good"
    load.value = "bad"
    clock.now += 11
    assert function(1) == "good"
    assert cache.drain(20)
    assert load.runs == 2
    assert function(1) == "good"
    assert cache.drain(20)


def test_condition_that_raises_reaches_the_caller():
    """Nothing is stored."""
    function = cached(condition=lambda result: 1 / 0)(lambda x: x)
    with pytest.raises(ZeroDivisionError):
        function(1)
    assert len(function.cache) == 0


def test_missing_goes_to_the_caller_as_it_is():
    """Not stored, unless the policy remembers what is missing; None is a value."""
    load = Loader(MISSING)
    function = cached(lambda x: load(x))
    assert function(1) is function(1) is MISSING
    assert load.runs == 2
    remembering = cached(policy=Policy(60, missing_ttl=60))(lambda x: load(x))
    assert remembering(1) is remembering(1) is MISSING
    assert load.runs == 3


def test_concurrent_calls_share_a_run():
    """Eight threads, one run."""
    load = Loader()
    function = cached(lambda x: load(x))
    load.open.clear()
    finishes = [start(function, 1) for _ in range(8)]
    assert load.entered.wait(20)
    flights = function.cache._loading.flights
    wait_until(lambda: any(flight.followers == 7 for flight in list(flights._flights.values())))
    load.open.set()
    assert [finish() for finish in finishes] == ["v1"] * 8
    assert load.runs == 1


def test_recursion_runs_through():
    """Into other keys and into its own."""

    @cached
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(40) == 102334155
    depth = []

    @cached
    def again(x):
        depth.append(x)
        return x if len(depth) > 2 else again(x)

    assert again(1) == 1


def test_errors_are_not_stored():
    """The next call runs the function."""
    load = Loader()
    load.error = ValueError("no")
    function = cached(lambda x: load(x))
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            function(1)
    assert load.runs == 2


def test_wrapper_looks_like_the_function():
    """Signature, name, documentation; it copies and pickles as itself."""
    function = at_module_level
    assert str(inspect.signature(function)) == "(x, y=2)"
    assert (function.__name__, function.__doc__) == ("at_module_level", "Say something.")
    assert function.__wrapped__(2) == 4
    assert inspect.isroutine(function)
    assert copy.copy(function) is copy.deepcopy(function) is function
    assert pickle.dumps(function)
    assert "at_module_level" in repr(function)
    with pytest.raises(TypeError, match=r"at_module_level\(\) missing 1 required positional argument: 'x'"):
        function()


def test_subclass_of_a_cache_is_asked():
    """An overridden get_or_load isn't passed by."""
    asked = []

    class Mine(MemoryCache):
        def get_or_load(self, key, *args, **kwargs):
            asked.append(key)
            return super().get_or_load(key, *args, **kwargs)

    function, runs = counted(Mine(), key="{x}")
    function(1), function(1)
    assert (asked, len(runs)) == (["1", "1"], 1)


def generator(x):
    yield x


async def asynchronous(x):
    return x


@pytest.mark.parametrize(
    ("options", "function", "message"),
    [
        ({"key": "{other}"}, generator, "generator"),
        ({"key": "{other}"}, len, "no parameter 'other'"),
        ({"key": "{}"}, len, "named, not numbered"),
        ({"key": "{obj"}, len, "not a template"),
        ({"key": "{obj.}"}, len, "is no field"),
        ({"key": "{obj!q}"}, len, "!r, !s or !a"),
        ({"key": "{obj:{obj}}"}, len, "format without fields"),
        ({}, min, "min has no signature"),
        ({}, functools.partial(len), "has no name"),
        ({"ttl": -1}, len, "ttl"),
        ({"tags": ("a",)}, len, "has no tags"),
        ({"tags": "a"}, len, "has no tags"),
        ({"cache": MemoryCache()}, asynchronous, "use AsyncMemoryCache"),
        ({"cache": AsyncMemoryCache()}, len, "use MemoryCache"),
        ({}, classmethod(len), "above @cached"),
        ({}, staticmethod(len), "above @cached"),
    ],
)
def test_wrong_options_are_refused_when_decorating(options, function, message):
    """With a ConfigurationError that says what to do."""
    with pytest.raises(ConfigurationError, match=message):
        cached(**options)(function)


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({"key": 3}, len),
        ({"policy": 3}, len),
        ({"condition": 3}, len),
        ({"condition": asynchronous}, len),
        ({}, 3),
        ({}, dict),
    ],
)
def test_wrong_types_are_refused_when_decorating(options, function):
    """With a TypeError."""
    with pytest.raises(TypeError):
        cached(**options)(function)
    with pytest.raises(TypeError, match="cache of this package"):
        cached(3)


def test_results_that_can_be_used_once_are_refused():
    """A generator or a coroutine from a plain def."""
    with pytest.raises(TypeError, match="return a list"):
        cached(lambda x: (each for each in x))([1])
    with pytest.raises(TypeError, match="decorate the async def"):
        cached(lambda x: asynchronous(x))(1)


@pytest.mark.parametrize("make", [lambda: AsyncMemoryCache(ttl=60), lambda: None], ids=["given", "its own"])
def test_async_functions_cache_the_awaited_result(make):
    """Concurrent awaits share a run; invalidate and refresh are awaited."""
    runs = []

    @cached(make(), key="a:{x}", condition=lambda result: result != 3)
    async def function(x):
        runs.append(x)
        await asyncio.sleep(0)
        return x

    async def main():
        assert await asyncio.gather(function(1), function(1), function(x=1)) == [1, 1, 1]
        assert await function(1) == 1
        assert runs == [1]
        await function.invalidate(1)
        assert await function(1) == 1
        assert await function.refresh(1) == 1
        assert runs == [1, 1, 1]
        await function(3), await function(3)
        assert runs[3:] == [3, 3]

    assert inspect.iscoroutinefunction(function)
    asyncio.run(main())


def test_hits_from_many_threads_while_keys_are_invalidated():
    """Every call gets the value of its own argument."""
    function = cached(MemoryCache(50), key="{x}")(lambda x: x * 3)
    wrong = []

    def work(seed):
        for i in range(3000):
            x = (i * 7 + seed) % 80
            if function(x) != x * 3:
                wrong.append(x)
            if i % 13 == 0:
                function.invalidate(x)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
