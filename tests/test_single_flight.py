"""`lru_cache(single_flight=True)` on a `def`: who runs the function, who waits, and what is left behind."""

import gc
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastcache import lru_cache

PATIENCE = 20  # seconds until a test gives up on threads that hang


def runs_of(function):
    """The table of a cached function's flights, by way of the garbage collector: the wrapper doesn't show it."""
    from fastcache.runs import Runs

    (runs,) = [each for each in gc.get_referents(function) if isinstance(each, Runs)]
    return runs


def flights(function):
    return len(runs_of(function)._flights)


def in_threads(n, function):
    """Run function(i) in n threads at once; results and exceptions in order. Fails where one hangs."""
    outcomes = [None] * n
    barrier = threading.Barrier(n)

    def work(i):
        barrier.wait(PATIENCE)
        try:
            outcomes[i] = function(i)
        except BaseException as error:
            outcomes[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "threads hang"
    return outcomes


def wait_until(condition):
    """Spin until a condition holds; fails when it takes too long."""
    done = threading.Event()
    for _ in range(PATIENCE * 1000):
        if condition():
            return
        done.wait(0.001)
    raise AssertionError("waited in vain")


def followers(function):
    return sum(flight.followers for flight in list(runs_of(function)._flights.values()))


def test_thousand_threads_run_the_function_once():
    """On one cold key: one miss, the calls that joined are hits, and the table is empty afterwards."""
    calls = []
    release = threading.Event()

    @lru_cache(single_flight=True)
    def f(x):
        calls.append(x)
        assert release.wait(PATIENCE)
        return [x]

    threading.Thread(target=lambda: (wait_until(lambda: followers(f) == 999), release.set())).start()
    outcomes = in_threads(1000, lambda i: f(1))
    assert calls == [1]
    assert all(outcome is outcomes[0] for outcome in outcomes)
    assert f.cache_info() == (999, 1, 128, 1)
    assert flights(f) == 0


@pytest.mark.parametrize("options", [{"maxsize": 0}, {"maxsize": None}, {"typed": True}, {"ttl": 60}, {"key": str}])
def test_single_flight_joins_with_any_option(options):
    """Four threads, one run, whatever else is asked for; with maxsize=0 calls in flight are joined, nothing is kept."""
    calls = []
    release = threading.Event()

    @lru_cache(single_flight=True, **options)
    def f(x):
        calls.append(x)
        assert release.wait(PATIENCE)
        return x

    threading.Thread(target=lambda: (wait_until(lambda: followers(f) == 3), release.set())).start()
    assert in_threads(4, lambda i: f(1)) == [1] * 4
    assert calls == [1]
    assert f.cache_info()[:2] == (3, 1)
    assert f.cache_info().currsize == (0 if options.get("maxsize") == 0 else 1)
    f(1)
    assert len(calls) == (2 if options.get("maxsize") == 0 else 1)
    assert flights(f) == 0
    f._check()


@pytest.mark.parametrize("typed", [False, True])
def test_typed_keys_have_flights_of_their_own(typed):
    """(0, 1) and (0, 1.0) are one run, but two when typed."""
    calls = []
    release = threading.Event()

    @lru_cache(single_flight=True, typed=typed)
    def f(x, y):
        calls.append(y)
        assert release.wait(PATIENCE)

    threading.Thread(
        target=lambda: (wait_until(lambda: len(calls) == 2 if typed else followers(f) == 1), release.set())
    ).start()
    in_threads(2, lambda i: f(0, (1, 1.0)[i]))
    assert len(calls) == (2 if typed else 1)
    assert f.cache_info()[:2] == ((0, 2) if typed else (1, 1))


def test_exception_reaches_every_waiter_as_an_object_of_its_own():
    """With cause, notes and attributes; it isn't cached, the next call runs the function again."""
    release = threading.Event()
    calls = []

    @lru_cache(single_flight=True)
    def f(x):
        calls.append(x)
        assert release.wait(PATIENCE)
        error = OSError(5, "broken")
        error.add_note("a note")
        raise error from ValueError("cause")

    threading.Thread(target=lambda: (wait_until(lambda: followers(f) == 7), release.set())).start()
    errors = in_threads(8, lambda i: f(1))
    assert calls == [1]
    assert len({id(error) for error in errors}) == 8
    depths = set()
    for error in errors:
        assert (type(error), error.args, error.errno) == (OSError, (5, "broken"), 5)
        assert isinstance(error.__cause__, ValueError)
        assert error.__notes__ == ["a note"]
        assert traceback.extract_tb(error.__traceback__)[-1].name == "f"
        depths.add(len(traceback.extract_tb(error.__traceback__)))
    assert max(depths) - min(depths) <= 1, "the traceback grew"  # a waiter's has one more line: result()
    errors[0].add_note("mine")
    assert sum("mine" in error.__notes__ for error in errors) == 1
    assert (flights(f), f.cache_info().currsize, f.cache_contains(1)) == (0, 0, False)
    with pytest.raises(OSError, match="broken"):
        f(1)
    assert calls == [1, 1]


class Formatted(Exception):
    """An exception whose arguments aren't those of its constructor."""

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


class TwoArguments(Exception):
    def __init__(self, what, *, why):
        super().__init__(what)
        self.why = why


@pytest.mark.parametrize(
    "original", [Formatted(5), TwoArguments("a", why="b"), KeyError("k"), ExceptionGroup("g", [OSError()])]
)
def test_exception_is_the_same_to_all(original):
    """However an exception class is built, waiters see the message and the attributes of the original."""
    release = threading.Event()

    @lru_cache(single_flight=True)
    def f(x):
        assert release.wait(PATIENCE)
        raise original

    threading.Thread(target=lambda: (wait_until(lambda: followers(f) == 2), release.set())).start()
    for error in in_threads(3, lambda i: f(1)):
        assert type(error) is type(original)
        assert (str(error), error.args, vars(error)) == (str(original), original.args, vars(original))


def test_exception_that_cannot_be_copied_is_shared():
    """Where neither copy nor the class makes another one, all get the original."""

    class Single(Exception):
        made = False

        def __new__(cls, *args):
            if cls.made:
                raise TypeError("there is one already")
            cls.made = True
            return super().__new__(cls, *args)

    original, release = Single("x"), threading.Event()

    @lru_cache(single_flight=True)
    def f(x):
        assert release.wait(PATIENCE)
        raise original

    threading.Thread(target=lambda: (wait_until(lambda: followers(f) == 2), release.set())).start()
    assert all(error is original for error in in_threads(3, lambda i: f(1)))


def test_keywords_reach_the_function():
    """As they were given, and they are part of the key."""
    f = lru_cache(single_flight=True)(lambda *args, **kwargs: (args, kwargs))
    assert f(1, a=2, b=3) == ((1,), {"a": 2, "b": 3})
    assert f(a=2) == ((), {"a": 2})
    assert f(1, a=2, b=3) is f(1, a=2, b=3)
    assert f.cache_info()[:2] == (2, 2)


def test_exception_without_waiters_is_the_original():
    """Nobody else gets it, so it is raised as it is, and no cycle keeps it alive."""
    original = ValueError("x")

    @lru_cache(single_flight=True)
    def f(x):
        raise original

    for _ in range(3):
        with pytest.raises(ValueError, match="x") as info:
            f(1)
        assert info.value is original


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_leader_that_is_ended_hands_over(ending):
    """A SystemExit or KeyboardInterrupt ends one thread, not those that wait: one of them runs the function."""
    release = threading.Event()
    calls = []

    @lru_cache(single_flight=True)
    def f(x):
        calls.append(x)
        if len(calls) == 1:
            assert release.wait(PATIENCE)
            raise ending
        return "value"

    threading.Thread(target=lambda: (wait_until(lambda: followers(f) == 4), release.set())).start()
    outcomes = in_threads(5, lambda i: f(1))
    assert [type(outcome) for outcome in outcomes].count(ending) == 1
    assert outcomes.count("value") == 4
    assert calls == [1, 1]
    assert flights(f) == 0


def test_function_that_calls_itself_with_its_own_key_runs_through():
    """A wait for oneself would be for ever: the inner call runs the function."""
    depth = []

    @lru_cache(single_flight=True)
    def f(x):
        depth.append(x)
        return x if len(depth) == 3 else f(x) + 1

    assert in_threads(1, lambda i: f(1)) == [3]
    assert depth == [1, 1, 1]
    assert flights(f) == 0
    assert f.cache_contains(1)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_threads_in_a_ring_run_through(n):
    """n threads, each inside one key and wanting the next one's: the wait that would close the ring is none."""
    barrier = threading.Barrier(n)
    inner = threading.local()

    @lru_cache(single_flight=True)
    def f(x):
        if getattr(inner, "depth", 0):
            return x
        inner.depth = 1
        barrier.wait(PATIENCE)
        return (x, f((x + 1) % n))

    outcomes = in_threads(n, lambda i: f(i))
    assert all(outcome[0] == i for i, outcome in enumerate(outcomes)), outcomes
    assert flights(f) == 0


def test_two_functions_that_cross_run_through():
    """The circle may lead through several tables."""
    barrier = threading.Barrier(2)
    entered = threading.local()

    def make(name):
        @lru_cache(single_flight=True)
        def f(x):
            if getattr(entered, "once", False):
                return name
            entered.once = True
            barrier.wait(PATIENCE)
            return name + functions[1 - x](1 - x)

        return f

    functions = [make("a"), make("b")]
    outcomes = in_threads(2, lambda i: functions[i](i))
    assert set(outcomes) <= {"ab", "ba", "aba", "bab"}
    assert [flights(f) for f in functions] == [0, 0]


def test_recursion_is_unhindered():
    """Different keys nest; each is one miss."""

    @lru_cache(maxsize=None, single_flight=True)
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(60) == 1548008755920
    assert fib.cache_info().misses == 61
    assert flights(fib) == 0


@pytest.mark.parametrize("forget", ["clear", "invalidate"])
def test_forgetting_during_a_run_discards_its_result(forget):
    """It goes to its callers and isn't stored; a later call starts a run of its own, and only that is stored."""
    started, release = threading.Event(), threading.Event()
    calls = []

    @lru_cache(single_flight=True)
    def f(x):
        calls.append(x)
        value = len(calls)
        if value == 1:
            started.set()
            assert release.wait(PATIENCE)
        return value

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(f, 1)
        assert started.wait(PATIENCE)
        second = pool.submit(f, 1)
        wait_until(lambda: followers(f) == 1)
        assert f.cache_contains(1) is False
        if forget == "clear":
            f.cache_clear()
        else:
            assert f.cache_invalidate(1) is False
        assert f(1) == 2  # a new run, while the first still flies
        release.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 1)
    assert f(1) == 2
    assert calls == [1, 1]
    assert flights(f) == 0


def test_unhashable_argument_raises_and_leaves_nothing():
    """TypeError, as without single flight."""

    @lru_cache(single_flight=True)
    def f(x):
        return x

    with pytest.raises(TypeError, match="unhashable"):
        f([])
    assert flights(f) == 0
    assert f.cache_info() == (0, 0, 128, 0)
