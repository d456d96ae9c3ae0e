"""`LRUCache` subclassed, pickled and copied."""

import copy
import pickle
import weakref

import pytest

from fastcache import LRUCache, TTLCache


class Plain(LRUCache):
    pass


class Sized(LRUCache):
    def getsizeof(self, value):
        return len(value)


class Slotted(LRUCache):
    __slots__ = ("note",)


class NeedsMore(LRUCache):
    """Its __init__ can't be called by a copy or an unpickler."""

    def __init__(self, name, maxsize):
        super().__init__(maxsize)
        self.name = name


def weigh(value):
    return value


def listen(key, value, cause):
    raise AssertionError("copying evicts nothing")


# Subclasses


def test_subclass_missing_serves_getitem_only():
    """cache[key] asks __missing__ for an absent key; get, pop, setdefault and `in` never do."""

    class Doubling(LRUCache):
        def __missing__(self, key):
            self[key] = key * 2
            return self[key]

    cache = Doubling(3)
    assert (cache.get(1), cache.pop(1, "no"), 1 in cache, cache.peek(1)) == (None, "no", False, None)
    assert cache[1] == 2
    assert cache.setdefault(5, "default") == "default"
    assert list(cache.items()) == [(1, 2), (5, "default")]
    with pytest.raises(KeyError):
        cache.pop(7)


def test_subclass_getsizeof_weighs():
    """getsizeof as a method counts, also through super(), and decides currsize."""
    cache = Sized(5)
    cache["a"], cache["b"] = "xx", "xxx"
    assert (cache.currsize, cache.getsizeof("xyz")) == (5, 3)
    cache["c"] = "x"
    assert list(cache) == ["b", "c"]

    class Twice(Sized):
        def getsizeof(self, value):
            return 2 * super().getsizeof(value)

    twice = Twice(4)
    twice["a"] = "xx"
    assert twice.currsize == 4
    with pytest.raises(ValueError, match="value too large"):
        twice["b"] = "xxx"


def test_subclass_popitem_makes_room():
    """An overridden popitem() chooses what goes when room is needed, and is reported as an eviction."""
    log = []

    class MostRecent(LRUCache):
        def popitem(self):
            key = list(self)[-1]
            return key, self.pop(key)

    cache = MostRecent(3, on_evict=lambda *args: log.append(args))
    cache.update(a=1, b=2, c=3, d=4)
    assert list(cache) == ["a", "b", "d"]
    assert log == [("c", 3, "evicted")]
    cache.resize(1)
    assert list(cache) == ["a"]
    assert log[1:] == [("d", 4, "evicted"), ("b", 2, "evicted")]
    assert cache.popitem() == ("a", 1)
    assert log[3:] == [("a", 1, "deleted")]
    cache._check()


def test_subclass_popitem_through_super_sees_every_eviction():
    """The documented way to hear of evictions in cachetools works: popitem() calling super()."""
    seen = []

    class Telling(LRUCache):
        def popitem(self):
            pair = super().popitem()
            seen.append(pair)
            return pair

    for weighted in (None, lambda value: 1):
        seen.clear()
        cache = Telling(2, weighted)
        cache.update(a=1, b=2, c=3)
        assert seen == [("a", 1)]
        cache.resize(0)
        assert seen == [("a", 1), ("b", 2), ("c", 3)]
        cache._check()


@pytest.mark.parametrize("weighted", [None, lambda value: 1])
def test_subclass_popitem_that_removes_nothing_is_an_error(weighted):
    """Instead of looping for ever."""

    class Lazy(LRUCache):
        def popitem(self):
            return None

    cache = Lazy(1, weighted)
    cache["a"] = 1
    with pytest.raises(RuntimeError, match=r"^Lazy\.popitem\(\) removed nothing, and the cache is full$"):
        cache["b"] = 2
    with pytest.raises(RuntimeError, match="removed nothing"):
        cache.resize(0)
    assert list(cache) == ["a"]


def test_subclass_popitem_raising_stops_the_store():
    """Its error reaches who wanted to store; the cache is unchanged, and works once popitem does."""

    class Refusing(LRUCache):
        refuse = True

        def popitem(self):
            if self.refuse:
                raise LookupError("no")
            return super().popitem()

    cache = Refusing(1)
    cache["a"] = 1
    with pytest.raises(LookupError):
        cache["b"] = 2
    assert dict(cache) == {"a": 1}
    cache.refuse = False
    cache["b"] = 2
    assert dict(cache) == {"b": 2}


def test_subclass_delitem_sees_every_removal():
    """An overridden __delitem__ is called by popitem, by pop and to make room; evictions stay evictions."""
    deleted, log = [], []

    class Watching(LRUCache):
        def __delitem__(self, key):
            deleted.append(key)
            super().__delitem__(key)

    cache = Watching(2, on_evict=lambda *args: log.append(args))
    cache.update(a=1, b=2, c=3)
    assert cache.pop("b") == 2
    assert cache.popitem() == ("c", 3)
    with pytest.raises(KeyError):
        del cache["c"]
    assert deleted == ["a", "b", "c", "c"]
    assert log == [("a", 1, "evicted"), ("b", 2, "deleted"), ("c", 3, "deleted")]
    cache._check()


@pytest.mark.parametrize(("base", "arguments"), [(LRUCache, (9,)), (TTLCache, (9, 60))])
def test_subclass_item_access_is_used_by_the_other_methods(base, arguments):
    """get, pop, setdefault and update go through an overridden __getitem__, __setitem__ and __contains__."""

    class Folding(base):
        def __getitem__(self, key):
            return super().__getitem__(key.lower())

        def __setitem__(self, key, value):
            super().__setitem__(key.lower(), value)

        def __delitem__(self, key):
            super().__delitem__(key.lower())

        def __contains__(self, key):
            return super().__contains__(key.lower())

    cache = Folding(*arguments)
    cache.update({"A": 1}, B=2)
    assert cache["a"] == cache.get("A") == cache.setdefault("A", 5) == cache.pop("A") == 1
    assert cache.get("x", 7) == cache.setdefault("C", 7) == 7
    assert list(cache) == ["b", "c"]
    with pytest.raises(KeyError):
        cache.pop("x")


def test_subclass_has_attributes_and_weak_references():
    """A subclass instance takes attributes; the base class doesn't. Both can be weakly referenced."""
    cache = Plain(1)
    cache.note = "here"
    assert cache.note == "here"
    with pytest.raises(AttributeError):
        LRUCache(1).note = "nowhere"
    for cls in (LRUCache, Plain):
        cache = cls(1)
        reference = weakref.ref(cache)
        assert reference() is cache
        del cache
        assert reference() is None


# Copies


def pickled(protocol):
    return lambda cache: pickle.loads(pickle.dumps(cache, protocol))


COPIES = {"copy.copy": copy.copy, "copy()": lambda c: c.copy(), "deepcopy": copy.deepcopy} | {
    f"pickle {n}": pickled(n) for n in range(pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(
    "original",
    [
        lambda: LRUCache(3),
        lambda: LRUCache(None),
        lambda: LRUCache(3, on_evict=listen),
        lambda: LRUCache(10, getsizeof=weigh),
        lambda: Plain(3),
        lambda: NeedsMore("name", 3),
    ],
    ids=["bounded", "unbounded", "listening", "weighing", "subclass", "own __init__"],
)
def test_copy_is_equal_and_apart(make, original):
    """Class, entries, their order, limits and callbacks come along; afterwards the two live apart."""
    cache = original()
    cache.update(a=1, b=2, c=3)
    cache["a"]
    if hasattr(cache, "__dict__"):
        cache.note = ["attribute"]
    twin = make(cache)
    assert type(twin) is type(cache)
    assert list(twin.items()) == list(cache.items()) == [("b", 2), ("c", 3), ("a", 1)]
    assert (twin.maxsize, twin.currsize, twin.on_evict) == (cache.maxsize, cache.currsize, cache.on_evict)
    assert getattr(twin, "__dict__", None) == getattr(cache, "__dict__", None)
    twin._check()
    if cache.on_evict is None:
        twin["z"] = 1
        assert "z" not in cache
        del twin["c"]
        assert "c" in cache
        twin.resize(0)
        assert len(cache) == 3


def test_copy_is_shallow_and_deepcopy_deep():
    """As everywhere."""
    cache = LRUCache(2)
    cache["a"] = value = ["x"]
    assert cache.copy()["a"] is value
    assert copy.deepcopy(cache)["a"] is not value
    assert copy.deepcopy(cache)["a"] == ["x"]


@pytest.mark.parametrize("make", [copy.deepcopy, *map(pickled, range(2, pickle.HIGHEST_PROTOCOL + 1))])
def test_copy_of_a_cache_in_itself(make):
    """A cache that holds itself comes back holding itself."""
    cache = Plain(2)
    cache["self"] = cache
    cache.me = cache
    twin = make(cache)
    assert twin is not cache
    assert twin["self"] is twin
    assert twin.me is twin


def test_copy_weights_are_not_asked_again():
    """The remembered sizes are copied: getsizeof isn't called, and its total stays."""
    sizes = {"a": 3, "b": 4}
    cache = LRUCache(10, getsizeof=sizes.pop)
    cache.update(first="a", second="b")
    twin = cache.copy()
    assert twin.currsize == 7
    twin._check()
    sized = Sized(10)
    sized["a"] = "xxx"
    assert pickle.loads(pickle.dumps(sized)).currsize == 3


def test_copy_keeps_slots_of_a_subclass():
    """What a subclass keeps in __slots__ is copied and pickled like what it keeps in __dict__."""
    cache = Slotted(2)
    cache.note = "kept"
    assert copy.copy(cache).note == "kept"
    assert pickle.loads(pickle.dumps(cache)).note == "kept"


def test_copy_counts_no_use():
    """Pickling and copying change neither order nor counters of the original, and can happen during iteration."""
    cache = Plain(3)
    cache.update(a=1, b=2, c=3)
    for _ in cache:
        pickle.dumps(cache), cache.copy()
    assert list(cache) == ["a", "b", "c"]


def test_copy_of_keys_that_become_equal_keeps_one():
    """A deep copy of a key need not differ from that of another: the first one, in the order of use, stays."""

    class Key:
        def __deepcopy__(self, memo):
            return "copied"

    cache = LRUCache(5, getsizeof=lambda value: value)
    cache.update({Key(): 1, Key(): 2, "other": 1})
    twin = copy.deepcopy(cache)
    assert list(twin.items()) == [("copied", 1), ("other", 1)]
    assert twin.currsize == 2
    twin._check()
