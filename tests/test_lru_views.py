"""`LRUCache` iterated, viewed, compared and shown."""

import math
from collections import UserDict
from collections.abc import MutableMapping

import pytest

from fastcache import LRUCache


def filled(maxsize=3, keys="abc"):
    cache = LRUCache(maxsize)
    for i, key in enumerate(keys):
        cache[key] = i
    return cache


# Iteration and views


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (lambda c: c, ["a", "b", "c"]),
        (lambda c: c.keys(), ["a", "b", "c"]),
        (lambda c: c.values(), [0, 1, 2]),
        (lambda c: c.items(), [("a", 0), ("b", 1), ("c", 2)]),
    ],
    ids=["cache", "keys", "values", "items"],
)
def test_iteration_goes_from_least_to_most_recent(view, expected):
    """The cache and its three views; reading meanwhile is allowed and doesn't disturb the order that was begun."""
    cache = filled()
    assert list(view(cache)) == expected
    assert len(view(cache)) == 3
    seen = []
    for each in view(cache):
        cache["a"], cache.get("c")
        seen.append(each)
    assert sorted(seen) == expected
    iterator = iter(view(cache))
    assert iter(iterator) is iterator


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.__setitem__("x", 1),
        lambda c: c.__delitem__("c"),
        lambda c: c.pop("b"),
        lambda c: c.popitem(),
        lambda c: c.clear(),
        lambda c: c.resize(1),
        lambda c: c.setdefault("x"),
    ],
)
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_iteration_notices_a_change(change, steps):
    """Adding or removing an entry at any point raises RuntimeError at the next step, and never crashes."""
    for view in (LRUCache.__iter__, LRUCache.values, LRUCache.items):
        cache = filled()
        iterator = iter(view(cache))
        for _ in range(steps):
            next(iterator)
        change(cache)
        with pytest.raises(RuntimeError, match="LRUCache changed during iteration"):
            next(iterator)


def test_iteration_ends_for_good():
    """An exhausted iterator stays exhausted, whatever happens to the cache then."""
    cache = filled()
    iterator = iter(cache)
    assert list(iterator) == ["a", "b", "c"]
    cache["d"] = 1
    assert list(iterator) == []
    assert list(iter(LRUCache(1))) == []


def test_iteration_replacing_a_value_is_no_change():
    """As with dict, storing under a present key is allowed."""
    cache = filled()
    for key in cache:
        cache[key] = 9
    assert list(cache.values()) == [9, 9, 9]


def test_views_are_set_like_and_live():
    """Set operations, membership and length follow the cache."""
    cache = filled()
    keys, items, values = cache.keys(), cache.items(), cache.values()
    assert keys & {"a", "x"} == {"a"}
    assert items - {("a", 0)} == {("b", 1), ("c", 2)}
    assert 2 in values
    assert 7 not in values
    assert ("a", 1) not in items
    assert ("x", None) not in items
    cache["d"] = 3
    assert (len(keys), len(items), len(values)) == (3, 3, 3)
    assert keys == {"b", "c", "d"}
    assert math.nan not in values
    cache["n"] = math.nan
    assert math.nan in values
    assert ("n", math.nan) in items


def test_reversed_is_refused():
    """As of every Mapping: there is no __getitem__ by position to fall back on."""
    with pytest.raises(TypeError, match="not reversible"):
        reversed(filled())


# As an object


def test_equality_is_a_mapping_s():
    """Equal to any mapping of the same items, whatever its order and limits; unhashable for it."""
    cache = filled()
    assert cache == {"a": 0, "b": 1, "c": 2} == cache
    assert cache == UserDict(a=0, b=1, c=2)
    assert cache == filled(99, "abc")
    assert cache != {"a": 0}
    assert cache != [("a", 0), ("b", 1), ("c", 2)]
    assert not cache == 3  # noqa: SIM201
    with pytest.raises(TypeError, match="unhashable"):
        hash(cache)


def test_mapping_protocols_are_there():
    """A MutableMapping for isinstance and for match; false when empty; generic."""
    cache = filled()
    assert isinstance(cache, MutableMapping)
    match cache:
        case {"a": found, **rest}:
            assert (found, rest) == (0, {"b": 1, "c": 2})
        case _:
            pytest.fail("a mapping pattern must match")
    assert not LRUCache(1)
    assert cache
    assert dict(cache) == {**cache} == {"a": 0, "b": 1, "c": 2}
    assert LRUCache[int, str].__origin__ is LRUCache
    assert isinstance(LRUCache[int, str](2), LRUCache)


def test_repr_shows_what_is_there():
    """cachetools' form; a cache inside itself is three dots."""
    assert repr(filled()) == "LRUCache({'a': 0, 'b': 1, 'c': 2}, maxsize=3, currsize=3)"
    assert repr(LRUCache(None, getsizeof=len)) == "LRUCache({}, maxsize=None, currsize=0)"
    cache = LRUCache(1)
    cache["self"] = cache
    assert repr(cache) == "LRUCache({'self': LRUCache(...)}, maxsize=1, currsize=1)"
    assert repr([cache, cache]).count("(...)") == 2


def test_repr_that_failed_leaves_no_trace():
    """The next one shows the cache, not the three dots of a cache inside itself."""

    class Shy:
        def __repr__(self):
            raise LookupError("no")

    cache = LRUCache(1)
    cache["a"] = Shy()
    with pytest.raises(LookupError):
        repr(cache)
    cache["a"] = 1
    assert repr(cache) == "LRUCache({'a': 1}, maxsize=1, currsize=1)"


def test_cache_equals_itself_whatever_it_holds():
    """No key or value is looked at."""

    class Incomparable:
        def __eq__(self, other):
            raise LookupError("no")

        def __hash__(self):
            if armed:
                raise LookupError("no")
            return 1

    armed = []
    cache = LRUCache(1)
    cache[Incomparable()] = Incomparable()
    armed.append(1)
    same = cache
    assert cache == same
    armed.clear()
