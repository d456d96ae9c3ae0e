"""`lru_cache` and `cache`: options, counters, cache_invalidate and its like, errors, recursion.

The other files: _keys (what makes two calls the same call), _wrapper (the result as an object and as a method).
"""

import sys

import pytest

from fastcache import CacheInfo, cache, lru_cache


class Counted:
    """A function that counts its runs and returns its arguments."""

    def __init__(self):
        self.runs = 0

    def __call__(self, /, *args, **kwargs):
        self.runs += 1
        return args, kwargs


# Options


@pytest.mark.parametrize(
    ("decorate", "parameters"),
    [
        (lru_cache, {"maxsize": 128, "typed": False}),
        (lru_cache(), {"maxsize": 128, "typed": False}),
        (lru_cache(5), {"maxsize": 5, "typed": False}),
        (lru_cache(5, True), {"maxsize": 5, "typed": True}),
        (lru_cache(maxsize=None, typed=1), {"maxsize": None, "typed": True}),
        (lru_cache(-3), {"maxsize": 0, "typed": False}),
        (lru_cache(True), {"maxsize": 1, "typed": False}),
        (lru_cache(2**100), {"maxsize": 2**100, "typed": False}),
        (lambda f: lru_cache(f, True), {"maxsize": 128, "typed": True}),
        (cache, {"maxsize": None, "typed": False}),
    ],
)
def test_options_are_shown_and_obeyed(decorate, parameters):
    """cache_parameters() and cache_info() tell the options, in a fresh dict each time, and caching obeys them."""
    run = Counted()
    f = decorate(run)
    assert f.cache_parameters() == parameters
    f.cache_parameters()["maxsize"] = "changed"
    assert f.cache_parameters() == parameters
    assert f.cache_info() == (0, 0, parameters["maxsize"], 0)
    for i in range(200):
        f(i), f(i)
    bound = parameters["maxsize"]
    assert run.runs == (400 if bound == 0 else 200)
    assert f.cache_info().currsize == min(200, 200 if bound is None else bound)
    f._check()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: lru_cache("5"), "maxsize must be an int or None (or the function to decorate), not '5'"),
        (lambda: lru_cache(2.5), "maxsize must be an int or None (or the function to decorate), not 2.5"),
        (lambda: lru_cache([])(len), "maxsize must be an int or None (or the function to decorate), not []"),
        (lambda: lru_cache(key=3), "key must be a function of the call's arguments, not 3"),
        (lambda: lru_cache(key=len, typed=True), "typed has no effect together with key: let key put the types in"),
        (lambda: lru_cache(5)(3), "the first argument must be callable: lru_cache decorates functions, not 3"),
        (lambda: cache(None), "lru_cache decorates functions, not None"),
    ],
)
def test_options_wrong_are_type_errors(wrong, message):
    """At decoration, not at the first call, and the message shows the value."""
    with pytest.raises(TypeError) as caught:
        wrong()
    assert message in str(caught.value)


def test_option_key_decides():
    """`key` gets the call's arguments and says what the call is remembered by."""
    run = Counted()
    f = lru_cache(key=lambda name, *rest, **options: name.lower())(run)
    assert f("A", 1) == (("A", 1), {})
    assert f("a", 2, x=[]) == (("A", 1), {})
    assert f.cache_contains("a")
    assert f.cache_invalidate("A", unhashable=[])
    assert not f.cache_contains("a")
    with pytest.raises(AttributeError):
        f(3)
    bad = lru_cache(key=lambda x: [x])(run)
    for call in (bad, bad.cache_contains, bad.cache_invalidate):
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            call(1)
    assert bad.cache_info() == (0, 0, 128, 0)
    assert run.runs == 1


@pytest.mark.parametrize("key", [lambda x: x, lambda x: (x,), lambda x: None, lambda x: 1.5, lambda x: frozenset([x])])
def test_option_key_may_return_anything_hashable(key):
    """An int, a tuple, None, a float, a set: each is just a key."""
    f = lru_cache(maxsize=4, key=key)(str)
    assert [f(1), f(1)] == ["1", "1"]
    assert f.cache_info() == (1, 1, 4, 1)
    f._check()


# Counters and the wrapper's own methods


def test_order_is_least_recently_used():
    """A hit makes a call the most recent; cache_contains() doesn't, and neither counts."""
    f = lru_cache(maxsize=3)(Counted())
    f(1), f(2), f(3), f(1)
    assert f.cache_contains(2)
    f(4)
    assert [f.cache_contains(i) for i in (1, 2, 3, 4)] == [True, False, True, True]
    assert f.cache_info() == CacheInfo(hits=1, misses=4, maxsize=3, currsize=3)


@pytest.mark.parametrize("maxsize", [None, 10])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        (("x",), {}),
        ((2.5,), {}),
        ((1, "x"), {}),
        ((), {"self": 1, "args": 2, "key": 3}),
        ((1,), {"x": 2}),
    ],
)
def test_invalidate_and_contains_name_a_call(maxsize, typed, args, kwargs):
    """Any call can be looked for and forgotten, whatever its keywords are called; others stay."""
    run = Counted()
    f = lru_cache(maxsize, typed)(run)
    f("other")
    assert not f.cache_contains(*args, **kwargs)
    assert not f.cache_invalidate(*args, **kwargs)
    assert f(*args, **kwargs) == (args, kwargs)
    assert f.cache_contains(*args, **kwargs) is True
    assert f.cache_invalidate(*args, **kwargs) is True
    assert f.cache_invalidate(*args, **kwargs) is False
    assert f.cache_contains(*args, **kwargs) is False
    assert f.cache_contains("other")
    f(*args, **kwargs)
    assert run.runs == 3
    assert f.cache_info() == (0, 3, maxsize, 2)
    f._check()


def test_clear_forgets_results_and_counters():
    """Everything runs again afterwards."""
    run = Counted()
    f = lru_cache(None)(run)
    for i in range(100):
        f(i), f(i)
    f.cache_clear()
    assert f.cache_info() == (0, 0, None, 0)
    f(1)
    assert run.runs == 101


def test_maxsize_zero_counts_misses_only():
    """Nothing is kept and nothing is hashed, as in functools: unhashable arguments pass."""
    f = lru_cache(0)(Counted())
    assert f([1], x={}) == (([1],), {"x": {}})
    f(1), f(1)
    assert f.cache_info() == (0, 3, 0, 0)
    assert not f.cache_contains(1)


def test_values_are_the_very_objects():
    """The result itself is returned each time, None and exceptions as values included."""
    results = {1: [], 2: None, 3: ValueError("a value"), 4: NotImplemented}
    f = lru_cache(results.__getitem__)
    for key, value in results.items():
        assert f(key) is value
        assert f(key) is value
    assert f.cache_info().hits == 4


# Errors


@pytest.mark.parametrize("maxsize", [None, 3])
def test_exceptions_pass_and_are_not_remembered(maxsize):
    """The function's exception arrives as raised, without context; the miss counts; the next call runs again."""
    run = Counted()

    @lru_cache(maxsize)
    def f(x):
        run()
        raise LookupError(x)

    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            f(1)
        assert caught.value.__context__ is None
    assert run.runs == 2
    assert f.cache_info() == (0, 2, maxsize, 0)
    f._check()


@pytest.mark.thread_unsafe(reason="counts references to arguments that its threads share")
@pytest.mark.parametrize("args", [([],), (1, []), ((1, []),), ({},)])
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("maxsize", [None, 3])
def test_unhashable_arguments_leave_no_trace(args, typed, maxsize):
    """TypeError; the function isn't run; counters, entries and reference counts are as before, by keyword too."""
    run = Counted()
    f = lru_cache(maxsize, typed)(run)
    f(1)
    counts = [sys.getrefcount(each) for each in args if each != 1]
    for _ in range(50):
        for call in (f, f.cache_contains, f.cache_invalidate):
            with pytest.raises(TypeError, match="unhashable type"):
                call(*args)
            with pytest.raises(TypeError, match="unhashable type"):
                call(1, keyword=args[-1])
    assert [sys.getrefcount(each) for each in args if each != 1] == counts
    assert (run.runs, f.cache_info()) == (1, (0, 1, maxsize, 1))
    f._check()


def test_wrong_arguments_are_the_function_s_error():
    """A call that doesn't fit the signature raises what the function raises, and isn't remembered."""
    f = lru_cache(lambda x: x)
    with pytest.raises(TypeError, match="positional argument"):
        f()
    with pytest.raises(TypeError, match="unexpected keyword"):
        f(y=1)
    assert f.cache_info() == (0, 2, 128, 0)


# Recursion


def test_recursion_through_the_cache():
    """A recursive function is computed once per argument."""

    @cache
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(150) == 9969216677189303386214405760200
    assert fib.cache_info() == (148, 151, None, 151)


@pytest.mark.parametrize("maxsize", [None, 128, 0])
def test_recursion_without_end_is_a_recursion_error(maxsize, run_script):
    """RecursionError and no crash, for Python functions and for C functions that recurse through the wrapper alone."""
    run_script(
        f"""
import functools, operator
from fastcache import lru_cache

@lru_cache({maxsize})
def endless(n):
    return endless(n + 1)

class Loop:                         # operator.index calls __index__ from C, over and over
    @lru_cache({maxsize})
    def __index__(self):
        return operator.index(Loop())

through_c = lru_cache({maxsize})(lambda n: list(map(through_c, [n + 1])))
bare = lru_cache({maxsize})(functools.partial(lambda n: bare(n + 1)))
only_c = lru_cache({maxsize}, key=lambda *a: object())(operator.call)
for call in (lambda: endless(0), lambda: operator.index(Loop()), lambda: through_c(0), lambda: bare(0),
             lambda: only_c(only_c, *[only_c] * 100_000)):
    try:
        call()
    except RecursionError:
        pass
    else:
        raise SystemExit("no RecursionError")
for f in (endless, Loop.__dict__["__index__"], through_c, bare, only_c):
    f._check()
    assert f.cache_info().currsize == 0, f.cache_info()
"""
    )
