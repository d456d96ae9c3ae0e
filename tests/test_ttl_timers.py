"""`TTLCache` and its clocks: the system's, the user's (datetimes, exact numbers, failing ones), and copies between them."""

import copy
import math
import pickle
import time
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from fastcache import ConfigurationError, TTLCache


class Clock:
    """A clock that stands still; picklable, so that caches with one are."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gone():
    return []


def test_wrong_timer_is_refused_at_construction():
    """What can't be called tells no time."""
    with pytest.raises(TypeError, match="timer"):
        TTLCache(3, 10, 5)
    with pytest.raises(ConfigurationError, match="timedelta"):
        TTLCache(3, timedelta(seconds=1))  # the default clock's readings are numbers
    with pytest.raises(ConfigurationError, match="negative"):
        TTLCache(3, timedelta(seconds=-1), datetime.now)


def test_datetime_timer_is_exact_to_the_microsecond():
    """ttl may be a timedelta where the timer tells datetimes."""
    clock = Clock(datetime(2026, 1, 1))
    tick = timedelta(microseconds=1)
    cache = TTLCache(10, timedelta(days=400), clock)
    cache["a"] = 1
    cache.set("b", 2, ttl=timedelta(days=9, microseconds=1))
    clock.now += timedelta(days=9)
    assert cache["b"] == 2
    assert cache.remaining("b") == pytest.approx(1e-6)
    clock.now += tick
    assert "b" not in cache
    clock.now += timedelta(days=391) - 2 * tick
    assert cache["a"] == 1
    clock.now += tick
    assert "a" not in cache
    assert cache.expire(datetime(2030, 1, 1)) == [("b", 2), ("a", 1)]
    with pytest.raises(ConfigurationError):
        cache.set("c", 3, ttl=5)
    with pytest.raises(ConfigurationError):
        cache.set("c", 3, ttl=timedelta(0))
    assert "c" not in cache
    assert cache.ttl == timedelta(days=400)
    assert cache.timer is clock


@pytest.mark.parametrize(
    ("start", "ttl"),
    [(0, 3), (Fraction(1, 3), Fraction(1, 3)), (Decimal("0.1"), Decimal("0.2")), (2**60, 1), (10**30, 7)],
)
def test_exact_timers_keep_exact_lifetimes(start, ttl):
    """Ints of any size, Fractions and Decimals: alive right before the ttl is over, gone when it is."""
    clock = Clock(start)
    cache = TTLCache(3, ttl, clock)
    cache["a"] = 1
    assert cache.remaining("a") == pytest.approx(float(ttl))
    clock.now = start + ttl - ttl / Decimal(10**6) if isinstance(ttl, Decimal) else start + ttl * Fraction(99, 100)
    if isinstance(start, int):
        clock.now = start + ttl - 1
    assert "a" in cache
    clock.now = start + ttl
    assert "a" not in cache
    assert cache.expire(start + ttl) == [("a", 1)]


@pytest.mark.parametrize("ttl", [0.03, 0.2])
def test_real_clock_keeps_a_lifetime_to_a_tick(ttl):
    """Below 50 ms by the precise clock, above by the coarse one: within a tick of the ttl, never far off."""
    tick = 0.0001 if ttl < 0.05 else 0.02
    cache = TTLCache(3, ttl)
    before = time.monotonic()
    cache["a"] = 1
    after = time.monotonic()
    while "a" in cache:
        pass
    end = time.monotonic()
    assert end - before >= ttl - tick
    assert end - after < ttl + tick + 0.25  # a busy machine may look late


def test_short_ttl_in_set_switches_to_the_precise_clock():
    """One entry of 10 ms in a cache of an hour: it is timed exactly, the others go on where they were."""
    cache = TTLCache(3, 3600)
    cache["long"] = 1
    left = cache.remaining("long")
    before = time.monotonic()
    cache.set("short", 2, ttl=0.01)
    readings = {cache.timer() for _ in range(200)}
    assert len(readings) > 20  # the coarse clock moves every 1 to 16 ms
    while "short" in cache:
        pass
    assert time.monotonic() - before >= 0.0099
    assert left - 60 < cache.remaining("long") <= left
    cache._check()


def test_default_timer_tells_the_time_of_the_cache():
    """timer() can be called, goes forward and fits expire()."""
    cache = TTLCache(3, 60)
    cache["a"] = 1
    assert cache.timer() <= cache.timer()
    assert cache.expire(cache.timer()) == []
    assert cache.expire(cache.timer() + 61) == [("a", 1)]


@pytest.mark.parametrize("method", ["copy", "copy.copy", "deepcopy", "pickle"])
def test_copies_keep_the_remaining_time(method):
    """However a copy is made, its entries live exactly as long as the originals would have, in the same order."""
    clock = Clock(100.0)
    cache = TTLCache(4, 10, clock)
    cache["a"] = [1]
    clock.now = 104.0
    cache.set("b", [2], ttl=3)
    cache.set("c", [3], ttl=math.inf)
    cache["dead"] = 1
    cache.set("dead", 1, ttl=0.5)
    clock.now = 105.0
    assert cache["a"] == [1]
    make = {
        "copy": TTLCache.copy,
        "copy.copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda cache: pickle.loads(pickle.dumps(cache)),
    }[method]
    twin = make(cache)
    twin._check()
    assert type(twin) is TTLCache
    assert (twin.maxsize, twin.ttl, list(twin.items())) == (4, 10, [("b", [2]), ("c", [3]), ("a", [1])])
    assert [twin.remaining(key) for key in "abc"] == [5, 2, math.inf]
    assert (twin["a"] is cache["a"]) == method.startswith("copy")
    twin["new"] = 1
    assert "new" not in cache


def test_pickle_moves_to_another_clock():
    """Pickling stores what is left of each life, not a reading: the default clock differs in each process."""
    cache = TTLCache(4, 1000)
    cache["a"] = 1
    cache.set("b", 2, ttl=50)
    twin = pickle.loads(pickle.dumps(cache))
    assert 999 < twin.remaining("a") <= 1000.000001
    assert 49 < twin.remaining("b") <= 50.000001


def test_error_of_the_timer_reaches_the_caller_and_changes_nothing(clock, gone):
    """A timer that fails fails the operation, whole and before any change."""

    def timer():
        if clock.now is None:
            raise OSError("no time")
        return clock.now

    cache = TTLCache(3, 10, timer, on_evict=lambda *args: gone.append(args))
    cache["a"] = 1
    clock.now = None
    for operation in (
        lambda: cache["a"],
        lambda: cache.get("a"),
        lambda: cache.__setitem__("b", 2),
        lambda: cache.set("a", 2, ttl=3),
        lambda: cache.__delitem__("a"),
        lambda: cache.popitem(),
        lambda: cache.setdefault("b", 1),
        lambda: "a" in cache,
        lambda: len(cache),
        lambda: list(cache),
        lambda: repr(cache),
        lambda: cache.expire(),
        lambda: cache.resize(1),
        lambda: cache.remaining("a"),
        lambda: cache.copy(),
        lambda: cache == {},
    ):
        with pytest.raises(OSError, match="no time"):
            operation()
        cache._check()
    clock.now = 5
    assert (dict(cache), gone, cache.remaining("a")) == ({"a": 1}, [], 5)


class Ticks:
    """Time and its differences in a unit of their own, which is no float."""

    def __init__(self, n, during=lambda: None):
        self.n, self.during = n, during

    def __lt__(self, other):
        return self.n < other.n

    def __add__(self, other):
        return Ticks(self.n + other.n) if isinstance(other, Ticks) else NotImplemented

    def __sub__(self, other):
        self.during()
        return Ticks(self.n - other.n)

    def __truediv__(self, other):
        return self.n / other.n


def test_timer_may_have_a_unit_of_its_own():
    """What can be added, subtracted, compared and divided: a lifetime is a multiple of the ttl."""
    clock = Clock(Ticks(5))
    cache = TTLCache(5, Ticks(10), clock)
    cache["a"] = 1
    cache.set("b", 2, ttl=Ticks(25))
    clock.now = Ticks(14)
    assert dict(cache) == {"a": 1, "b": 2}
    clock.now = Ticks(15)
    assert dict(cache) == {"b": 2}
    clock.now = Ticks(29)
    assert "b" in cache
    clock.now = Ticks(30)
    assert len(cache) == 0
    with pytest.raises(ConfigurationError, match="negative"):
        TTLCache(5, Ticks(-1), clock)
    with pytest.raises(ConfigurationError, match="added to what the timer returns"):
        TTLCache(5, object(), clock)
    with pytest.raises(ConfigurationError, match="added to what the timer returns"):
        cache.set("c", 3, ttl=object())


def test_subtraction_of_readings_may_initialise_the_cache_again():
    """With a timer of numbers: the reading that was under way is no number then, and the cache is the new one, whole."""
    clock = Clock(Ticks(0))
    cache = TTLCache(5, Ticks(10), clock)
    cache["a"] = 1
    clock.now = Ticks(3, lambda: cache.__init__(7, 60, lambda: 1.0))
    with pytest.raises(TypeError, match="Ticks"):
        cache.get("a")
    assert (cache.maxsize, cache.ttl, len(cache)) == (7, 60, 0)
    cache["b"] = 2
    assert dict(cache) == {"b": 2}
    cache._check()
