"""`LRUCache` in the place of cachetools' class: under its decorators, and doing the same operation by operation."""

import cachetools
from hypothesis import given
from hypothesis import strategies as st

from fastcache import LRUCache


def weigh(value):
    return value


def test_cachetools_cached_works_with_it():
    """`cachetools.cached(cache=LRUCache(...))`: hits, misses, eviction, info and clear."""
    calls = []

    @cachetools.cached(cache=LRUCache(2), info=True)
    def double(x):
        calls.append(x)
        return 2 * x

    assert [double(x) for x in (1, 2, 1, 3, 1, 2)] == [2, 4, 2, 6, 2, 4]
    assert calls == [1, 2, 3, 2]
    assert double.cache_info() == (2, 4, None, 2)  # it reads maxsize of its own classes only
    double.cache_clear()
    assert len(double.cache) == 0


def test_cachetools_cached_too_large_values_pass_through():
    """A value that doesn't fit is returned and not stored: cachetools relies on the ValueError."""
    wordy = cachetools.cached(cache=LRUCache(3, getsizeof=len))(lambda text: text * 2)
    assert wordy("abc") == "abcabc"
    assert wordy("a") == "aa"
    assert wordy.cache.currsize == 2
    nothing = cachetools.cached(cache=LRUCache(0))(lambda x: x)
    assert [nothing(1), nothing(1)] == [1, 1]


def test_cachetools_cachedmethod_works_with_it():
    """One cache per instance, as its documentation shows."""

    class Squares:
        def __init__(self):
            self.cache = LRUCache(2)
            self.calls = 0

        @cachetools.cachedmethod(lambda self: self.cache)
        def square(self, x):
            self.calls += 1
            return x * x

    one, two = Squares(), Squares()
    assert [one.square(x) for x in (2, 2, 3)] == [4, 4, 9]
    assert (one.calls, two.calls, len(one.cache), len(two.cache)) == (2, 0, 2, 0)


keys = st.integers(0, 8)
values = st.integers(0, 6)
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["__getitem__", "__delitem__", "__contains__", "get", "pop"]), keys),
        st.tuples(st.sampled_from(["__setitem__", "setdefault", "get", "pop"]), keys, values),
        st.tuples(st.just("update"), st.dictionaries(keys, values, max_size=4)),
        st.tuples(st.sampled_from(["popitem", "clear", "__len__", "__copy__"])),
    ),
    max_size=60,
)


@given(maxsize=st.one_of(st.integers(0, 12), st.floats(0, 12)), weighted=st.booleans(), operations=operations)
def test_cachetools_lru_does_the_same(maxsize, weighted, operations):
    """Any sequence of operations has the results, errors and order of use that it has with cachetools' LRUCache."""
    getsizeof = weigh if weighted else None
    ours, theirs = LRUCache(maxsize, getsizeof), cachetools.LRUCache(maxsize, getsizeof)

    def outcome(cache, name, *args):
        try:
            return getattr(cache, name)(*args)
        except (KeyError, ValueError) as error:
            return type(error), error.args

    for name, *args in operations:
        a, b = outcome(ours, name, *args), outcome(theirs, name, *args)
        if name == "__copy__":
            ours, theirs = a, b
        else:
            assert a == b
        contents = {key: cachetools.Cache.__getitem__(theirs, key) for key in theirs}  # without touching
        assert dict(ours.items()) == contents
        assert (ours.currsize, len(ours)) == (theirs.currsize, len(theirs))
        assert repr(ours).startswith("LRUCache({")
        ours._check()
    order = [cache.popitem() for cache in (ours, theirs) for _ in range(len(cache))]
    half = len(order) // 2
    assert order[:half] == order[half:]
