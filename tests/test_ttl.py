"""`TTLCache` by itself: what a lifetime is, what is removed when, what on_evict is told. Every clock is the test's own."""

import math

import cachetools
import pytest

from fastcache import ConfigurationError, TTLCache

# cachetools 8 documents `timer` as a function and `ttl` as what is added to its result.


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


@pytest.fixture
def cache(clock, gone):
    cache = TTLCache(3, 10, clock, on_evict=lambda *args: gone.append(args))
    yield cache
    cache._check()


def test_entry_lives_until_its_ttl_is_over(cache, clock):
    """A lifetime is half-open: at exactly ttl the entry is gone."""
    cache["a"] = 1
    clock.now = 9.999
    assert (cache["a"], "a" in cache, len(cache), list(cache)) == (1, True, 1, ["a"])
    clock.now = 10.0
    assert ("a" in cache, len(cache), cache.currsize, list(cache)) == (False, 0, 0, [])
    assert (cache.get("a", 7), cache.peek("a", 7), list(cache.items())) == (7, 7, [])
    with pytest.raises(KeyError, match="a"):
        cache["a"]


def test_set_gives_an_entry_a_ttl_of_its_own(cache, clock):
    """Shorter, longer and endless lifetimes live side by side with the cache's own."""
    cache["own"] = 1
    cache.set("short", 2, ttl=5)
    cache.set("long", 3, ttl=50)
    assert [cache.remaining(key) for key in ("own", "short", "long", "none")] == [10, 5, 50, None]
    for now, alive in ((5, ["own", "long"]), (10, ["long"]), (49.5, ["long"]), (50, [])):
        clock.now = now
        assert list(cache) == alive
    cache.set("ever", 4, ttl=math.inf)
    clock.now = 1e12
    assert cache.remaining("ever") == math.inf
    assert cache["ever"] == 4


def test_setting_again_starts_a_new_life(cache, clock):
    """Overwriting replaces the ttl in both directions, and old notes of expiry have no effect."""
    cache.set("a", 1, ttl=2)
    cache["a"] = 2
    clock.now = 5
    assert cache.remaining("a") == 5
    cache.set("a", 3, ttl=100)
    clock.now = 50
    assert cache.remaining("a") == 55
    cache.set("a", 4, ttl=1)
    assert cache.remaining("a") == 1
    cache.set("a", 5)
    assert cache.remaining("a") == 10


def test_reading_does_not_prolong_a_life(cache, clock):
    """Neither get nor [] nor setdefault moves the end."""
    cache["a"] = 1
    clock.now = 9
    assert cache["a"] == cache.get("a") == cache.setdefault("a", 5) == 1
    assert cache.remaining("a") == 1


def test_expired_entries_are_removed_before_live_ones(cache, clock, gone):
    """What has expired makes room first, however recently it was used."""
    cache["old"] = 1
    cache["older"] = 2
    cache.set("short", 3, ttl=1)
    assert cache["short"] == 3  # the most recently used
    clock.now = 1
    cache["new"] = 4
    assert gone == [("short", 3, "expired")]
    assert list(cache) == ["old", "older", "new"]
    cache["newer"] = 5
    assert gone[1:] == [("old", 1, "evicted")]


def test_reading_never_removes(cache, clock, gone):
    """No lookup, test, length or iteration drops an expired entry, so none of them calls on_evict."""
    cache["a"] = 1
    clock.now = 20
    assert cache.get("a") is None
    assert cache.peek("a") is None
    assert "a" not in cache
    assert len(cache) == cache.currsize == 0
    assert not list(cache.items())
    assert repr(cache) == "TTLCache({}, maxsize=3, currsize=0)"
    assert gone == []
    assert cache.expire() == [("a", 1)]
    assert gone == [("a", 1, "expired")]


def test_expire_returns_what_expired_in_the_order_of_expiry(cache, clock, gone):
    """Own and common lifetimes are merged into one order."""
    cache["b"] = 1
    cache.set("c", 2, ttl=20)
    cache.set("a", 3, ttl=5)
    clock.now = 20
    assert cache.expire() == [("a", 3), ("b", 1), ("c", 2)]
    assert [cause for _, _, cause in gone] == ["expired"] * 3
    assert cache.expire() == []


def test_expire_takes_a_time(cache, clock):
    """expire(time) looks at another moment than now, past or future."""
    cache["a"] = 1
    cache.set("b", 2, ttl=20)
    assert cache.expire(9.5) == []
    assert cache.expire(10) == [("a", 1)]
    clock.now = 15
    assert cache.expire(3) == []
    assert cache.expire(time=1000) == [("b", 2)]


def test_expire_takes_a_time_of_the_caches_own_clock():
    """Whole seconds as well as others; what is no time is refused, and the next time is right again."""
    cache = TTLCache(3, 3600)
    cache["a"] = 1
    with pytest.raises(TypeError, match=r"a time is a number of seconds.*'soon'"):
        cache.expire("soon")
    assert cache.expire(int(cache.timer())) == []
    assert cache.expire(int(cache.timer()) + 3602) == [("a", 1)]
    cache["a"] = 1
    assert cache.expire(cache.timer() + 3602) == [("a", 1)]


def test_first_reading_that_is_no_time_does_no_harm():
    """The timer's error reaches the caller, and the cache works as soon as the timer does."""
    readings = ["soon", 100, 109, 110]
    cache = TTLCache(3, 10, lambda: readings.pop(0))
    with pytest.raises(TypeError):
        cache["a"] = 1
    cache["a"] = 1
    assert cache["a"] == 1
    assert "a" not in cache

def test_on_evict_names_the_cause(clock, gone):
    """Each way to leave has its cause, and an expired entry is always reported as expired."""
    cache = TTLCache(2, 10, clock, on_evict=lambda key, value, cause: gone.append((key, cause)))
    cache["a"] = 1
    cache["a"] = 2
    assert gone.pop() == ("a", "replaced")
    del cache["a"]
    assert gone.pop() == ("a", "deleted")
    cache["a"] = 3
    assert cache.pop("a") == 3
    assert gone.pop() == ("a", "deleted")
    cache["a"] = 4
    assert cache.popitem() == ("a", 4)
    assert gone.pop() == ("a", "deleted")
    cache.update(a=1, b=2, c=3)
    assert gone.pop() == ("a", "evicted")
    cache.resize(1)
    assert gone.pop() == ("b", "evicted")
    clock.now = 10
    cache["c"] = 4
    assert gone.pop() == ("c", "expired")
    clock.now = 20
    with pytest.raises(KeyError):
        del cache["c"]
    assert gone.pop() == ("c", "expired")
    cache["d"] = 1
    clock.now = 30
    assert cache.pop("d", None) is None
    assert gone.pop() == ("d", "expired")
    cache["e"] = 1
    cache.clear()
    assert gone.pop() == ("e", "cleared")
    assert gone == []
    cache._check()


def test_popitem_passes_over_expired_entries(cache, clock, gone):
    """popitem gives the least recently used live entry; with none alive it is empty."""
    cache.set("short", 1, ttl=1)
    cache["a"] = 2
    clock.now = 2
    assert cache.popitem() == ("a", 2)
    assert gone == [("short", 1, "expired"), ("a", 2, "deleted")]
    with pytest.raises(KeyError, match="empty"):
        cache.popitem()


def test_setdefault_replaces_an_expired_entry(cache, clock, gone):
    """An expired value is no value: the default is stored, with a full life."""
    cache["a"] = 1
    clock.now = 12
    assert cache.setdefault("a", 2) == 2
    assert cache.remaining("a") == 10
    assert gone == [("a", 1, "expired")]


def test_time_passing_never_breaks_an_iteration(cache, clock):
    """Entries that expire, or are swept, while an iteration is on are left out without an error."""
    cache.update(a=1, b=2)
    cache.set("c", 3, ttl=50)
    iterator = iter(cache)
    assert next(iterator) == "a"
    clock.now = 20
    assert cache.expire() == [("a", 1), ("b", 2)]
    assert list(iterator) == ["c"]
    iterator = iter(cache.items())
    clock.now = 100
    cache.expire()
    assert list(iterator) == []


def test_adding_in_an_iteration_raises(cache):
    """A change that isn't the passing of time raises, as in a dict."""
    cache.update(a=1, b=2)
    iterator = iter(cache)
    next(iterator)
    cache["c"] = 3
    with pytest.raises(RuntimeError, match="changed during iteration"):
        next(iterator)


def test_timer_going_back_revives_nothing(cache, clock):
    """When the clock is set back, time stands still until it has caught up."""
    cache["a"] = 1
    clock.now = 10
    assert "a" not in cache
    clock.now = 0
    assert "a" not in cache
    assert cache.get("a") is None
    cache["b"] = 2  # stored at 10, whatever the clock says
    assert cache.remaining("b") == 10
    clock.now = 15
    assert cache.remaining("b") == 5


def test_ttl_zero_expires_everything_at_once(clock, gone):
    """As in cachetools; set() still gives single entries a life."""
    cache = TTLCache(3, 0, clock, on_evict=lambda *args: gone.append(args))
    cache["a"] = 1
    assert ("a" in cache, len(cache), cache.remaining("a")) == (False, 0, None)
    cache.set("b", 2, ttl=1)
    assert list(cache) == ["b"]
    assert gone == [("a", 1, "expired")]
    cache._check()


@pytest.mark.parametrize("ttl", [-1, -0.001, math.nan, -math.inf, True, False, "5", b"5", None, [], object()])
def test_wrong_ttl_is_refused_at_construction(ttl):
    """With an error that names the value and is a ValueError."""
    with pytest.raises(ConfigurationError, match="ttl"):
        TTLCache(3, ttl)
    with pytest.raises(ValueError, match="ttl"):
        TTLCache(3, ttl)


def test_ttl_that_no_float_can_hold_is_refused_at_construction():
    """`math.inf` is for that."""
    for timer in (None, lambda: 0):
        with pytest.raises(ConfigurationError, match=r"math\.inf"):
            TTLCache(3, 10**400, timer)


@pytest.mark.parametrize("ttl", [0, 0.0, -1, math.nan, -math.inf, True, False, "5", b"5", [], object()])
def test_wrong_ttl_in_set_stores_nothing(cache, ttl):
    """Nor does it replace what is there."""
    cache["a"] = 1
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.set("a", 2, ttl=ttl)
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.set("b", 2, ttl=ttl)
    assert dict(cache) == {"a": 1}


def test_weights_of_expired_entries_are_not_counted(clock):
    """currsize is the weight of the live; expired weight makes room before anything is evicted."""
    cache = TTLCache(10, 10, clock, getsizeof=len)
    cache["a"] = "xxxx"
    cache.set("b", "yyy", ttl=1)
    assert cache.currsize == 7
    clock.now = 1
    assert cache.currsize == 4
    cache["c"] = "zzzzzz"
    assert dict(cache) == {"a": "xxxx", "c": "zzzzzz"}
    with pytest.raises(ValueError, match="value too large"):
        cache.set("d", "x" * 11, ttl=1)
    clock.now = 100
    assert cache.currsize == 0
    cache._check()


@pytest.mark.parametrize("maxsize", [None, math.inf])
def test_unbounded_cache_only_expires(maxsize, clock):
    """Without a bound nothing is evicted."""
    cache = TTLCache(maxsize, 10, clock)
    for i in range(1000):
        cache[i] = i
    assert len(cache) == 1000
    clock.now = 10
    cache["a"] = 1
    assert len(cache.expire()) == 0
    assert list(cache) == ["a"]
    cache._check()


def test_maxsize_zero_stores_nothing(clock):
    """As in cachetools, a value is then always too large."""
    cache = TTLCache(0, 10, clock)
    with pytest.raises(ValueError, match="value too large"):
        cache["a"] = 1
    assert len(cache) == 0


def test_resize_removes_the_expired_first(cache, clock):
    """Shrinking costs no live entry where expired ones go."""
    cache.set("short", 1, ttl=1)
    cache.update(a=1, b=2)
    clock.now = 1
    cache.resize(2)
    assert list(cache) == ["a", "b"]
    cache.resize(1)
    assert list(cache) == ["b"]


def test_cachetools_decorators_work_with_it(clock):
    """cachetools.cached and cachedmethod accept it as their cache."""
    cache = TTLCache(2, 10, clock)
    calls = []

    @cachetools.cached(cache)
    def double(x):
        calls.append(x)
        return 2 * x

    assert [double(1), double(1)] == [2, 2]
    clock.now = 10
    assert double(1) == 2
    assert calls == [1, 1]
