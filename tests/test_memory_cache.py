"""`MemoryCache`: the Cache protocol in memory. What its background sweeps do is in test_janitor.py."""

import asyncio
import copy
import dataclasses
import inspect
import math
import pickle
import sys
import threading

import pytest

from fastcache import (
    MISSING,
    AsyncMemoryCache,
    CacheMiss,
    CacheStats,
    ConfigurationError,
    FastCacheError,
    MemoryCache,
)
from fastcache.backends import Cache


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(clock):
    with MemoryCache(maxsize=3, ttl=10, timer=clock, cleanup_interval=None) as cache:
        yield cache
        cache._map._check()


def test_memory_cache_has_every_method_of_the_protocol():
    """With the same parameters in the same order."""
    for name, method in vars(Cache).items():
        if name.startswith("_"):
            continue
        expected = [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
        actual = inspect.signature(getattr(MemoryCache, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in actual] == expected, name


def test_values_are_stored_read_and_deleted(cache):
    """None is a value, and every reader gets the very object."""
    value = []
    cache.set("a", value)
    cache.set("none", None)
    assert cache.get("a") is value
    assert cache.get("a", type=list) is value
    assert cache.get("none", 5) is None
    assert cache.get("b") is None
    assert cache.get("b", 5) == 5
    assert (cache.exists("a"), cache.exists("none"), cache.exists("b")) == (True, True, False)
    assert (cache.delete("none"), cache.delete("none")) == (True, False)
    assert (len(cache), list(cache), "a" in cache) == (1, ["a"], True)


def test_item_access_raises_cache_miss(cache):
    """A KeyError that names the key; None and falsy values are found."""
    cache["a"] = None
    assert cache["a"] is None
    with pytest.raises(CacheMiss) as info:
        cache["b"]
    assert info.value.args == ("b",)
    assert isinstance(info.value, KeyError)
    assert isinstance(info.value, FastCacheError)
    del cache["a"]
    with pytest.raises(CacheMiss):
        del cache["a"]


def test_entries_expire_by_their_own_ttl_or_the_caches(cache, clock):
    """Expired ones are served by no method."""
    cache.set("a", 1)
    cache.set("b", 2, ttl=2)
    cache.set("c", 3, ttl=math.inf)
    assert [cache.remaining(key) for key in "abcd"] == [10, 2, math.inf, None]
    clock.now = 2
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "c": 3}
    assert (cache.exists("b"), cache.delete("b"), len(cache), list(cache)) == (False, False, 2, ["a", "c"])
    clock.now = 10
    assert cache.get_many(["a", "b", "c"]) == {"c": 3}
    with pytest.raises(CacheMiss):
        cache["a"]


def test_no_ttl_at_all_means_for_ever(clock):
    """ttl=None at construction and none in set: the entry stays."""
    cache = MemoryCache(timer=clock)
    cache.set("a", 1)
    clock.now = 1e15
    assert (cache["a"], cache.remaining("a")) == (1, math.inf)


def test_many_at_once(cache, clock):
    """get_many leaves out what is missing, delete_many counts what was there, set_many takes one ttl for all."""
    cache.set_many({"a": 1, "b": None}, ttl=5)
    assert cache.get_many(["b", "x", "a"]) == {"b": None, "a": 1}
    assert cache.remaining("b") == 5
    assert cache.get_many([]) == {}
    assert cache.get_many(iter("a")) == {"a": 1}
    assert cache.delete_many(["a", "x", "b", "a"]) == 2
    with pytest.raises(ConfigurationError):
        cache.set_many({"a": 1}, ttl=0)
    with pytest.raises(ConfigurationError):
        cache.set_many({}, ttl=-1)
    assert len(cache) == 0


@pytest.mark.parametrize("ttl", [0, -1, math.nan, True, "5", b"5", [], None.__class__])
def test_wrong_ttl_is_refused_where_it_is_given(cache, ttl):
    """And nothing is stored; the value that was there stays."""
    cache.set("a", 1)
    with pytest.raises(ConfigurationError, match="ttl"):
        cache.set("a", 2, ttl=ttl)
    assert cache["a"] == 1
    with pytest.raises(ConfigurationError, match="ttl"):
        MemoryCache(ttl=ttl)
    with pytest.raises(ConfigurationError, match="cleanup_interval"):
        MemoryCache(cleanup_interval=ttl)


def test_what_is_meant_for_many_is_refused_if_it_is_one(cache):
    """A str isn't its characters, pairs are no mapping: of both forms, with the words of a Redis cache."""

    def load(keys):
        raise AssertionError("it has nothing to load")

    asynchronous = AsyncMemoryCache()
    cache.set("u", 1)
    for one in ("us", b"us"):
        for call in (cache.get_many, cache.delete_many, lambda keys: cache.get_or_load_many(keys, load)):
            with pytest.raises(TypeError, match=r"list \(or another iterable\) of keys, got a single one: b?'us'"):
                call(one)
        for call in (
            asynchronous.get_many,
            asynchronous.delete_many,
            lambda keys: asynchronous.get_or_load_many(keys, load),
        ):
            with pytest.raises(TypeError, match="got a single one"):
                asyncio.run(call(one))
    for wrong in ([("a", 1)], "ab", None, {"a"}):
        with pytest.raises(TypeError, match="set_many takes a mapping of keys to values, not"):
            cache.set_many(wrong)
        with pytest.raises(TypeError, match="set_many takes a mapping"):
            asyncio.run(asynchronous.set_many(wrong))
    assert list(cache) == ["u"]


@pytest.mark.parametrize("kind", [MemoryCache, AsyncMemoryCache])
def test_on_evict_has_to_be_a_function(kind):
    """Told at construction, not when the first entry leaves."""
    with pytest.raises(TypeError, match="on_evict must be a function"):
        kind(on_evict=5)


@pytest.mark.parametrize("kind", [MemoryCache, AsyncMemoryCache])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_cache_is_not_copied(kind, way):
    """A copy would share the entries, and nothing else."""
    with pytest.raises(TypeError, match=f"a {kind.__name__} can't be copied or pickled"):
        way(kind())


@pytest.mark.parametrize("maxsize", [0, -1, math.nan, 0.5, "10", []])
def test_wrong_maxsize_is_refused(maxsize):
    """A cache that can hold nothing is a mistake, told at construction."""
    with pytest.raises(ConfigurationError, match="maxsize"):
        MemoryCache(maxsize)


def test_unhashable_key_is_a_type_error(cache):
    """In every method that takes a key."""
    for operation in (cache.get, cache.delete, cache.exists, cache.remaining, lambda key: cache.set(key, 1)):
        with pytest.raises(TypeError, match="unhashable"):
            operation([])


def test_delete_pattern_removes_str_keys_that_match(clock):
    """The whole key, case-sensitive; other keys are left alone; expired ones aren't counted."""
    cache = MemoryCache(timer=clock)
    cache.set_many({"user:1": 1, "user:2": 2, "User:3": 3, b"user:4": 4, ("user:5",): 5, "xuser:6": 6})
    cache.set("user:7", 7, ttl=1)
    clock.now = 1
    assert cache.delete_pattern("user:[^2]") == 1
    assert set(cache) == {"user:2", "User:3", b"user:4", ("user:5",), "xuser:6"}
    assert cache.delete_pattern("*") == 3
    with pytest.raises(TypeError, match="str"):
        cache.delete_pattern(b"*")


@pytest.mark.parametrize("operation", ["delete_pattern", "iterate"])
def test_walking_all_keys_is_atomic(operation):
    """Another thread that stores and deletes meanwhile makes neither fail: it sees one moment."""
    cache = MemoryCache()
    cache.set_many({f"k{i}": i for i in range(300)})
    stop = threading.Event()

    def work():
        i = 0
        while not stop.is_set():
            i += 1
            cache.set(f"new{i % 50}", i)
            cache.delete(f"new{(i + 25) % 50}")

    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(150):
            if operation == "iterate":
                assert sum(key.startswith("k") for key in cache) == 300
            else:
                assert cache.delete_pattern("nothing") == 0
    finally:
        stop.set()
        thread.join()


def test_walking_all_keys_survives_a_timer_that_stores(clock):
    """The timer is foreign code; what it stores is no reason to fail."""

    def timer():
        if armed:
            armed.pop()
            cache.set("from the timer", 1)
        return 0.0

    armed = []
    cache = MemoryCache(ttl=5, timer=timer, cleanup_interval=None)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    armed = [1] * 4
    assert cache.delete_pattern("[abc]") == 3


def test_stats_count_by_cause(clock):
    """Hits, misses, evictions and expirations; the record is frozen and gives the ratio."""
    cache = MemoryCache(2, 10, timer=clock, cleanup_interval=None)
    assert cache.stats() == CacheStats()
    assert cache.stats().hit_ratio == 0.0
    cache.set("a", 1)
    cache.get("a")
    cache.get("x")
    cache.get_many(["a", "x"])
    cache.exists("a")  # no use, not counted
    cache.set_many({"b": 1, "c": 1})  # evicts a
    clock.now = 10
    cache.get("b")
    cache.set("d", 1)  # b and c have expired
    stats = cache.stats()
    assert stats == CacheStats(hits=2, l1_hits=2, misses=3, evictions=1, expirations=2)
    assert stats.hit_ratio == pytest.approx(0.4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.hits = 5
    assert CacheStats(hits=1, stale_hits=1, misses=2).hit_ratio == 0.5


def test_exists_does_not_count_as_use(cache):
    """The least recently used goes, whatever exists() was asked; get() is use."""
    cache.set_many({"a": 1, "b": 2, "c": 3})
    assert cache.exists("a")
    cache.get("b")
    cache.set("d", 4)
    assert set(cache) == {"b", "c", "d"}


def test_on_evict_names_the_cause(clock):
    """All five of them; an error of it reaches the caller after the change."""
    gone = []

    def on_evict(*args):
        gone.append(args)
        if args[0] == "bad":
            raise OSError("bad")

    cache = MemoryCache(1, 10, timer=clock, cleanup_interval=None, on_evict=on_evict)
    cache.set("a", 1)
    cache.set("a", 2)
    cache.set("b", 3)
    cache.delete("b")
    cache.set("c", 4)
    clock.now = 10
    cache.set("d", 5)
    cache.clear()
    assert [(key, cause) for key, _, cause in gone] == [
        ("a", "replaced"),
        ("a", "evicted"),
        ("b", "deleted"),
        ("c", "expired"),
        ("d", "cleared"),
    ]
    cache.set("bad", 1)
    with pytest.raises(OSError, match="bad"):
        cache.set("e", 1)
    assert list(cache) == ["e"]


def test_close_can_be_called_twice_and_the_cache_still_used(cache):
    """It concerns the background alone."""
    cache.set("a", 1)
    cache.close()
    cache.close()
    cache.set("b", 2)
    assert (cache["a"], cache["b"]) == (1, 2)


def test_repr_says_what_it_is(cache):
    """Entries are counted, not shown."""
    cache.set("secret", "value")
    assert repr(cache) == "<MemoryCache of 1 entries, maxsize=3, ttl=10.0>"
    assert repr(AsyncMemoryCache(3, ttl=10)) == "<AsyncMemoryCache of 0 entries, maxsize=3, ttl=10.0>"


def test_cache_is_used_where_no_module_can_be_imported(clock, monkeypatch):
    """As a finalizer does when the interpreter ends: nothing is swept, and all else works."""
    monkeypatch.setitem(sys.modules, "fastcache.janitor", None)
    with MemoryCache(ttl=10, timer=clock) as cache:
        cache.set("a", 1)
    assert cache.get("a") == 1
    clock.now += 10
    assert cache.get("a") is None


def test_missing_is_false_and_stays_itself():
    """Under copy and pickle, too: a loader in another process may have returned it."""
    assert not MISSING
    for copied in (copy.copy(MISSING), copy.deepcopy(MISSING), pickle.loads(pickle.dumps(MISSING)), type(MISSING)()):
        assert copied is MISSING
