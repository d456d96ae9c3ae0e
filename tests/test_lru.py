"""`LRUCache` as a mapping: construction, order of use, limit, resize.

Also: _views (iteration, equality, repr), _weights (getsizeof, on_evict), _subclass (and copies), _cachetools.
"""

import math
import sys
from collections import UserDict
from decimal import Decimal
from fractions import Fraction

import pytest

from fastcache import LRUCache


def filled(maxsize=3, keys="abc", **options):
    cache = LRUCache(maxsize, **options)
    for i, key in enumerate(keys):
        cache[key] = i
    return cache


@pytest.fixture
def log():
    """A list that on_evict=log.append can't be given to: calls arrive as (key, value, cause)."""
    return []


@pytest.fixture
def on_evict(log):
    return lambda key, value, cause: log.append((key, value, cause))


# Construction


@pytest.mark.parametrize("maxsize", [None, math.inf])
def test_maxsize_unbounded_never_evicts(maxsize):
    """None and infinity both mean no bound, and are shown as given."""
    cache = filled(maxsize, range(1000))
    assert len(cache) == cache.currsize == 1000
    assert cache.maxsize is maxsize
    cache._check()


@pytest.mark.parametrize(
    ("maxsize", "entries"),
    [(0, 0), (0.0, 0), (0.5, 0), (1, 1), (True, 1), (2.5, 2), (Fraction(7, 2), 3), (Decimal(2), 2)],
)
def test_maxsize_any_number_is_a_bound(maxsize, entries):
    """Any number of 0 or more is accepted; entries weigh 1 each and never exceed it."""
    cache = LRUCache(maxsize)
    for key in range(5):
        if entries:
            cache[key] = key
        else:
            with pytest.raises(ValueError, match=r"^value too large$"):
                cache[key] = key
    assert list(cache) == list(range(5 - entries, 5))
    assert cache.maxsize is maxsize


@pytest.mark.parametrize("maxsize", [-1, -0.5, -math.inf, math.nan])
def test_maxsize_negative_or_nan_is_refused(maxsize):
    """The constructor and resize() refuse the same numbers, with cachetools' words; the cache stays as it was."""
    with pytest.raises(ValueError, match=r"^maxsize must be non-negative$"):
        LRUCache(maxsize)
    cache = filled()
    with pytest.raises(ValueError, match=r"^maxsize must be non-negative$"):
        cache.resize(maxsize)
    assert cache.maxsize == 3
    assert list(cache) == ["a", "b", "c"]


@pytest.mark.parametrize("maxsize", ["3", [], object, 1j])
def test_maxsize_of_a_wrong_type_is_refused(maxsize):
    """What can't be compared with 0 is a TypeError that shows the value."""
    with pytest.raises(TypeError, match=r"^maxsize must be a number or None, not "):
        LRUCache(maxsize)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"getsizeof": 1}, "getsizeof must be a function of a value or None, not 1"),
        ({"on_evict": "x"}, r"on_evict must be a function \(key, value, cause\) or None, not 'x'"),
    ],
)
def test_constructor_options_must_be_callable(options, message):
    """Bad options fail at construction, not at first use."""
    with pytest.raises(TypeError, match=message):
        LRUCache(1, **options)


def test_constructor_signature_is_the_documented_one():
    """maxsize and getsizeof by position or name, on_evict by name only."""
    assert LRUCache(maxsize=2, getsizeof=len).maxsize == 2
    assert LRUCache(2, len).currsize == 0
    assert LRUCache(2, on_evict=print).on_evict is print
    assert LRUCache(2).on_evict is None
    with pytest.raises(TypeError):
        LRUCache()
    with pytest.raises(TypeError):
        LRUCache(2, None, print)


def test_constructor_called_again_starts_afresh():
    """A second __init__ empties the cache and takes the new options, as of a list or dict subclass."""
    cache = filled()
    cache.__init__(10, getsizeof=lambda value: 2)
    assert (len(cache), cache.currsize, cache.maxsize) == (0, 0, 10)
    cache["a"] = 1
    assert cache.currsize == 2
    cache._check()


def test_constructor_refused_leaves_the_old_state():
    """A second __init__ with wrong options changes nothing."""
    cache = filled()
    with pytest.raises(ValueError, match="non-negative"):
        cache.__init__(-1)
    assert (list(cache), cache.maxsize) == (["a", "b", "c"], 3)


@pytest.mark.parametrize("name", ["maxsize", "currsize", "on_evict"])
def test_properties_are_read_only(name):
    """The limit changes by resize() only."""
    with pytest.raises(AttributeError):
        setattr(LRUCache(1), name, 2)


# Order and limit


@pytest.mark.parametrize(
    ("use", "order"),
    [
        (lambda c: c["a"], "bca"),
        (lambda c: c.get("a"), "bca"),
        (lambda c: c.setdefault("a", 9), "bca"),
        (lambda c: c.__setitem__("a", 9), "bca"),
        (lambda c: c.update(a=9), "bca"),
        (lambda c: c.peek("a"), "abc"),
        (lambda c: "a" in c, "abc"),
        (lambda c: len(c), "abc"),
        (lambda c: list(c.items()), "abc"),
        (lambda c: repr(c), "abc"),
        (lambda c: c == dict(c.items()), "abc"),
        (lambda c: 0 in c.values(), "abc"),
        (lambda c: ("a", 0) in c.items(), "abc"),
        (lambda c: "a" in c.keys(), "abc"),  # noqa: SIM118
        (lambda c: c.get("x"), "abc"),
        (lambda c: c.copy(), "abc"),
    ],
)
def test_use_decides_the_order(use, order):
    """Reading and storing a key makes it the most recently used; looking around does not."""
    cache = filled()
    use(cache)
    assert "".join(cache) == order
    cache["d"] = 3
    assert "".join(cache) == order[1:] + "d"
    cache._check()


def test_store_replaces_in_place():
    """Storing under a present key removes nothing and keeps the first key object."""
    cache = LRUCache(2)
    first, second = "".join(["k", "ey"]), "".join(["ke", "y"])
    cache[first] = 1
    cache["other"] = 2
    cache[second] = 3
    assert list(cache.items()) == [("other", 2), ("key", 3)]
    assert list(cache)[1] is first


@pytest.mark.parametrize("n", [1, 2, 5, 6, 100, 5000])
def test_store_beyond_the_limit_evicts_the_oldest(n):
    """Whatever the size, exactly the last `maxsize` keys are there, in order."""
    cache = filled(n, range(3 * n))
    assert list(cache.items()) == [(k, k) for k in range(2 * n, 3 * n)]
    assert len(cache) == cache.currsize == n
    cache._check()


def test_delete_then_store_reuses_the_room():
    """Removing and adding for long neither loses nor keeps anything."""
    cache = LRUCache(50)
    for i in range(5000):
        cache[i] = i
        if i % 3 == 0:
            del cache[i]
        if i % 7 == 0 and i - 5 in cache:
            assert cache.pop(i - 5) == i - 5
    cache._check()
    assert all(cache.peek(k) == k for k in cache)


def test_popitem_goes_from_the_least_recently_used():
    """popitem() empties the cache in the order of iteration, then says that it is empty."""
    cache = filled()
    cache["a"]
    assert [cache.popitem() for _ in range(3)] == [("b", 1), ("c", 2), ("a", 0)]
    with pytest.raises(KeyError, match="LRUCache is empty"):
        cache.popitem()


@pytest.mark.parametrize(
    "remove", [lambda c: c.__delitem__("x"), lambda c: c.pop("x"), lambda c: c["x"]], ids=["del", "pop", "getitem"]
)
def test_absent_key_is_a_key_error(remove):
    """The key itself is the KeyError's only argument, and nothing changes."""
    cache = filled()
    with pytest.raises(KeyError) as caught:
        remove(cache)
    assert caught.value.args == ("x",)
    assert list(cache) == ["a", "b", "c"]


def test_absent_key_has_a_default():
    """get, peek, pop and setdefault hand out the default; None is a value, not an absence."""
    cache = LRUCache(3)
    assert (cache.get("x"), cache.peek("x"), cache.pop("x", None)) == (None, None, None)
    assert (cache.get("x", 1), cache.peek("x", 2), cache.pop("x", 3)) == (1, 2, 3)
    assert cache.setdefault("x") is None
    assert cache.setdefault("x", 1) is None
    assert "x" in cache
    assert cache.get("x", 1) is None
    assert cache.get("y", default=5) == cache.pop("y", default=5) == cache.peek("y", default=5) == 5


@pytest.mark.parametrize(
    "operation",
    [
        lambda c: c[[]],
        lambda c: c.__setitem__([], 1),
        lambda c: c.__delitem__([]),
        lambda c: [] in c,
        lambda c: c.get([]),
        lambda c: c.peek([]),
        lambda c: c.pop([], None),
        lambda c: c.setdefault([], 1),
        lambda c: c.update([([], 1)]),
    ],
)
def test_unhashable_key_is_a_type_error(operation):
    """Every operation says so and changes nothing, on an empty cache too."""
    for cache in (LRUCache(3), filled()):
        before = list(cache.items())
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            operation(cache)
        assert list(cache.items()) == before
        cache._check()


class WithKeys:
    """No Mapping, but dict.update takes it for one."""

    def __init__(self, pairs):
        self._dict = dict(pairs)

    def keys(self):
        return self._dict.keys()

    def __getitem__(self, key):
        return self._dict[key]


@pytest.mark.parametrize(
    "kind",
    [dict, lambda pairs: pairs, iter, UserDict, WithKeys, lambda pairs: LRUCache(2)],
    ids=["dict", "list", "iter", "userdict", "keys", "lru"],
)
def test_update_takes_what_dict_takes(kind):
    """A mapping, something with keys(), pairs; then keywords, `self` and `other` among them."""
    other = kind([("b", 1), ("c", 2)])
    if isinstance(other, LRUCache):
        other.update(b=1, c=2)
    cache = filled(keys="a", maxsize=9)
    cache.update(other, d=3, self=4, other=5)
    assert list(cache.items()) == [("a", 0), ("b", 1), ("c", 2), ("d", 3), ("self", 4), ("other", 5)]
    cache.update()
    assert len(cache) == 6


def test_resize_down_evicts_and_up_keeps(log, on_evict):
    """Shrinking evicts the least recently used, growing nothing; both move the limit."""
    cache = filled(5, "abcde", on_evict=on_evict)
    cache["a"]
    cache.resize(2)
    assert (list(cache), cache.maxsize) == (["e", "a"], 2)
    assert log == [("b", 1, "evicted"), ("c", 2, "evicted"), ("d", 3, "evicted")]
    cache.resize(3)
    cache["f"] = 5
    assert list(cache) == ["e", "a", "f"]
    cache.resize(0)
    assert len(cache) == 0
    with pytest.raises(ValueError, match="value too large"):
        cache["a"] = 1
    cache.resize(None)
    cache.update(zip(range(100), range(100), strict=True))
    assert len(cache) == 100
    cache._check()


def test_resize_wrong_type_is_refused():
    """As at construction."""
    with pytest.raises(TypeError, match="maxsize must be a number or None, not '2'"):
        filled().resize("2")


def test_clear_empties_and_gives_back_memory():
    """After clear() the object is as small as a new one, and works."""
    cache = filled(None, range(10_000))
    large = sys.getsizeof(cache)
    cache.clear()
    assert len(cache) == cache.currsize == 0
    assert list(cache) == []
    assert sys.getsizeof(cache) == sys.getsizeof(LRUCache(None)) < large
    cache["a"] = 1
    assert cache["a"] == 1
    cache._check()


def test_sizeof_grows_with_the_entries():
    """getsizeof() counts the arrays: 32 bytes a slot and at least 4 for the index, not more than three times that."""
    cache = filled(None, range(10_000))
    assert 36 * 10_000 <= sys.getsizeof(cache) - sys.getsizeof(LRUCache(1)) <= 3 * 36 * 10_000
