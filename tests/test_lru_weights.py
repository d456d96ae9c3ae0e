"""`LRUCache` with `getsizeof` and with `on_evict`: weights, causes, and what happens when either raises."""

import contextlib
import math
import sys
from decimal import Decimal

import pytest

import fastcache
from fastcache import LRUCache


@pytest.fixture
def log():
    return []


@pytest.fixture
def on_evict(log):
    return lambda key, value, cause: log.append((key, value, cause))


def test_getsizeof_decides_what_fits():
    """currsize is the sum of the values' sizes; storing evicts until the new value fits."""
    cache = LRUCache(10, getsizeof=len)
    cache["a"], cache["b"], cache["c"] = "xxxx", "xxxx", "xx"
    assert (cache.currsize, len(cache), cache.getsizeof("xyz")) == (10, 3, 3)
    cache["d"] = "xxxxx"
    assert list(cache) == ["c", "d"]
    assert cache.currsize == 7
    cache._check()


def test_getsizeof_zero_always_fits():
    """A value of size 0 is stored even where maxsize is 0, and evicts nothing."""
    cache = LRUCache(0, getsizeof=len)
    cache.update(a="", b="")
    assert list(cache) == ["a", "b"]
    with pytest.raises(ValueError, match=r"^value too large$"):
        cache["c"] = "x"
    assert list(cache) == ["a", "b"]


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (11, ValueError, r"^value too large$"),
        (math.inf, ValueError, r"^value too large$"),
        (-1, ValueError, r"^value size must be non-negative$"),
        (math.nan, ValueError, r"^value size must be non-negative$"),
        ("x", TypeError, "not supported between"),
        (None, TypeError, "not supported between"),
    ],
)
def test_getsizeof_of_no_use_leaves_the_cache_alone(size, error, message, log, on_evict):
    """A size that is too large, negative or no number is refused before anything is evicted or replaced."""
    cache = LRUCache(10, getsizeof=lambda value: value, on_evict=on_evict)
    cache["a"], cache["b"] = 5, 5
    for key in ("a", "new"):
        with pytest.raises(error, match=message):
            cache[key] = size
    assert list(cache.items()) == [("a", 5), ("b", 5)]
    assert log == []
    cache._check()


def test_getsizeof_raising_leaves_the_cache_alone():
    """Its error reaches the caller; nothing was changed."""
    cache = LRUCache(10, getsizeof=len)
    cache["a"] = "x"
    with pytest.raises(TypeError, match="has no len"):
        cache["a"] = 3
    assert (cache["a"], cache.currsize) == ("x", 1)


def test_getsizeof_is_asked_once_per_store():
    """Once for each stored value, never for eviction, reading or deletion: the size is remembered."""
    asked = []
    cache = LRUCache(3, getsizeof=lambda value: asked.append(value) or 1)
    for i in range(6):
        cache[i] = i
    cache[5], cache.pop(5), cache.popitem()
    cache.resize(1)
    assert asked == list(range(6))


def test_getsizeof_replacing_counts_the_difference(log, on_evict):
    """A larger value under a present key evicts others before that key; a smaller one frees room."""
    cache = LRUCache(10, getsizeof=lambda value: value, on_evict=on_evict)
    cache["a"], cache["b"], cache["c"] = 2, 3, 4
    cache["c"] = 5
    assert (cache.currsize, log) == (10, [("c", 4, "replaced")])
    cache["c"] = 8
    assert list(cache.items()) == [("c", 8)]
    assert cache.currsize == 8
    assert log[1:] == [("a", 2, "evicted"), ("b", 3, "evicted"), ("c", 5, "replaced")]
    cache["c"] = 1
    assert cache.currsize == sum(cache.values())
    cache._check()


@pytest.mark.parametrize("sizes", [[0.1] * 30, [0.1, 0.2, 0.3] * 10, [1e-9, 0.3, 1e-17] * 10])
def test_getsizeof_floats_add_up(sizes):
    """Fractions are fine: currsize never exceeds maxsize, and an empty cache weighs exactly 0."""
    cache = LRUCache(1.0, getsizeof=lambda value: value)
    for key, size in enumerate(sizes):
        cache[key % 17] = size
        assert cache.currsize <= 1.0
        cache._check()
    while cache:
        cache.popitem()
    assert cache.currsize == 0


def test_getsizeof_of_any_number():
    """Decimals work where the limit is one, too."""
    cache = LRUCache(Decimal("1.0"), getsizeof=Decimal)
    cache["a"], cache["b"] = "0.5", "0.5"
    cache["c"] = "0.1"
    assert list(cache) == ["b", "c"]
    assert cache.currsize == Decimal("0.6")


def test_getsizeof_unbounded_still_sums():
    """Without a bound currsize tells the weight."""
    cache = LRUCache(None, getsizeof=len)
    cache.update(a="xx", b="yyy")
    assert cache.currsize == 5
    cache.resize(4)
    assert list(cache) == ["b"]


# on_evict


def test_on_evict_names_the_cause(log, on_evict):
    """Each way of leaving has its cause, and what never was there is not reported."""
    cache = LRUCache(2, on_evict=on_evict)
    cache["a"] = 1
    cache["a"] = 2
    cache["b"] = 3
    cache["c"] = 4
    del cache["b"]
    cache.pop("c")
    cache["d"] = 5
    cache.popitem()
    cache["e"], cache["f"] = 6, 7
    cache.resize(1)
    cache.clear()
    cache.pop("x", None)
    cache.clear()
    assert log == [
        ("a", 1, "replaced"),
        ("a", 2, "evicted"),
        ("b", 3, "deleted"),
        ("c", 4, "deleted"),
        ("d", 5, "deleted"),
        ("e", 6, "evicted"),
        ("f", 7, "cleared"),
    ]


def test_on_evict_order_is_the_order_of_use(log, on_evict):
    """Several that leave at once are reported from the least recently used on, after all have left."""
    cache = LRUCache(6, getsizeof=lambda value: value, on_evict=lambda *args: log.append((*args, list(cache))))
    cache["a"], cache["b"], cache["c"] = 1, 2, 3
    cache["a"]
    cache["d"] = 5
    assert log == [("b", 2, "evicted", ["a", "d"]), ("c", 3, "evicted", ["a", "d"])]
    log.clear()
    cache.clear()
    assert log == [("a", 1, "cleared", []), ("d", 5, "cleared", [])]


def test_on_evict_runs_after_the_change():
    """The callback sees the new entry in and the old one out."""
    seen = []
    cache = LRUCache(1, on_evict=lambda *args: seen.append((args, dict(cache))))
    cache["a"] = 1
    cache["b"] = 2
    cache["b"] = 3
    assert seen == [(("a", 1, "evicted"), {"b": 2}), (("b", 2, "replaced"), {"b": 3})]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.__setitem__("c", 3),
        lambda c: c.__setitem__("a", 3),
        lambda c: c.__delitem__("a"),
        lambda c: c.pop("a"),
        lambda c: c.popitem(),
        lambda c: c.resize(1),
        lambda c: c.clear(),
    ],
)
def test_on_evict_error_reaches_the_caller_after_the_change(change):
    """Whatever the change was, it has taken place when the callback's error arrives, and the cache is whole."""

    def fail(key, value, cause):
        if key == "a":
            raise LookupError(key)

    untroubled, cache = LRUCache(2), LRUCache(2, on_evict=fail)
    for each in (untroubled, cache):
        each.update(a=1, b=2)
    change(untroubled)
    with pytest.raises(LookupError):
        change(cache)
    assert list(cache.items()) == list(untroubled.items())
    assert cache.maxsize == untroubled.maxsize
    cache._check()


def test_on_evict_first_error_is_raised_and_later_ones_unraisable(monkeypatch):
    """Every entry is reported; of several errors the caller gets the first, sys.unraisablehook the others."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: unraisable.append((it.exc_value.args, it.object)))

    def fail(key, value, cause):
        raise LookupError(key)

    cache = LRUCache(3, on_evict=fail)
    cache.update(a=1, b=2, c=3)
    with pytest.raises(LookupError) as caught:
        cache.clear()
    assert caught.value.args == ("a",)
    assert unraisable == [(("b",), fail), (("c",), fail)]
    assert len(cache) == 0


def test_on_evict_base_exceptions_pass_too():
    """KeyboardInterrupt in a callback isn't lost."""

    def interrupt(*args):
        raise KeyboardInterrupt

    cache = LRUCache(1, on_evict=interrupt)
    cache["a"] = 1
    with pytest.raises(KeyboardInterrupt):
        cache["b"] = 2
    assert list(cache) == ["b"]


def test_on_evict_may_store_what_left():
    """A callback that puts the evicted entry into a second cache, and one that re-inserts, stay within the limits."""
    second = LRUCache(2)
    cache = LRUCache(2, on_evict=lambda key, value, cause: second.__setitem__(key, value))
    for i in range(6):
        cache[i] = i
    assert (list(cache), list(second)) == ([4, 5], [2, 3])

    rounds = []

    def stubborn(key, value, cause):
        if len(rounds) < 10:
            rounds.append(key)
            again[key] = value

    again = LRUCache(2, on_evict=stubborn)
    for i in range(4):
        again[i] = i
        assert len(again) <= 2
    assert len(rounds) == 10
    again._check()


@pytest.mark.parametrize(
    "operate",
    [lambda c: c.__setitem__("d", 4), lambda c: c.setdefault("d", 4), lambda c: c.popitem()],
    ids=["store", "setdefault", "popitem"],
)
@pytest.mark.parametrize("kind", ["LRUCache", "TTLCache"])
def test_cache_that_loses_its_weights_in_the_midst_of_arithmetic(kind, operate):
    """An __init__ without getsizeof, called by a weight's subtraction: an error, and the cache is whole."""

    class Weight(float):
        def __sub__(self, other):
            return again(float(self) - other)

        def __rsub__(self, other):
            return again(other - float(self))

    def again(weight):
        if armed:
            armed.clear()
            cache.__init__(*arguments)
            cache["x"], cache["y"] = 1, 2
        return Weight(weight)

    armed: list[bool] = []
    arguments = (3,) if kind == "LRUCache" else (3, 60)
    cache = getattr(fastcache, kind)(*arguments, getsizeof=lambda value: Weight(1))
    cache.update(a=1, b=2, c=3)
    armed.append(True)
    with contextlib.suppress(RuntimeError):
        operate(cache)
    assert not armed
    cache["q"] = 1
    cache._check()
    assert cache.currsize == len(cache) <= 3
