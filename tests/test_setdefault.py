"""`setdefault` is one operation: whatever runs in the midst of it, all callers of one key get the object that is stored."""

import threading
import time

import pytest
from hammering import THREADS, Key, hammer

from fastcache import LRUCache, TTLCache

KINDS = {
    "lru": lambda **options: LRUCache(50, **options),
    "ttl": lambda **options: TTLCache(50, 60, **options),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


class Meddling(Key):
    """A key whose hash stores it, the second time that it is asked for: by then it has been looked up once."""

    asked = 0

    def __hash__(self):
        Meddling.asked += 1
        if Meddling.asked == 2:
            self.cache[Key(self.n)] = "first"
        return super().__hash__()


def test_setdefault_returns_what_the_keys_hash_stored(kind):
    """The key came between the look and the store: it stays, and is returned."""
    cache, key = kind(), Meddling(1)
    key.cache, Meddling.asked = cache, 0
    assert cache.setdefault(key, "second") == "first"
    assert list(cache.items()) == [(Key(1), "first")]
    cache._check()


def test_setdefault_returns_what_an_eq_stored(kind):
    """The same from the comparison with another key of equal hash."""
    cache = kind()

    class Comparing(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            if armed:
                armed.pop()
                cache[Key(1)] = "first"
            return super().__eq__(other)

    armed = []
    cache[Comparing(8)] = "other"
    armed += [1]
    assert cache.setdefault(Key(1), "second") == "first"
    assert sorted(cache.values()) == ["first", "other"]
    cache._check()


def test_setdefault_returns_what_getsizeof_stored(kind):
    """The same from the function that weighs the default."""

    def weigh(value):
        if value == "second" and "key" not in cache:
            cache["key"] = "first"
        return len(value)

    cache = kind(getsizeof=weigh)
    assert cache.setdefault("key", "second") == "first"
    assert (cache.currsize, dict(cache.items())) == (5, {"key": "first"})
    cache._check()


def test_setdefault_returns_what_the_timer_stored():
    """The same from the user's clock."""

    def timer():
        if armed and armed.pop() == "store":
            cache["key"] = "first"
        return 0.0

    armed = []
    cache = TTLCache(5, 60, timer)
    assert "key" not in cache
    armed += ["store", "look"]
    assert cache.setdefault("key", "second") == "first"
    cache._check()


def test_setdefault_replaces_what_has_expired():
    """An expired entry is absent."""
    now = 0
    cache = TTLCache(5, 10, lambda: now)
    cache["key"] = "old"
    now = 20
    assert cache.setdefault("key", "new") == cache["key"] == "new"


def test_setdefault_hears_on_evict_last(kind):
    """What on_evict does comes after: the default was stored, and is returned."""

    def on_evict(key, value, cause):
        if key == 0:
            cache["key"] = "third"

    cache = kind(on_evict=on_evict)
    for i in range(50):
        cache[i] = i
    assert cache.setdefault("key", "second") == "second"
    assert cache["key"] == "third"
    cache._check()


class Yielding(Key):
    """Lets another thread run whenever its hash is asked for."""

    def __hash__(self):
        time.sleep(0)
        return super().__hash__()


def test_setdefault_gives_all_threads_the_same_object(kind):
    """One object for each key, whoever came first."""
    cache = kind()
    got = [[None] * THREADS for _ in range(40)]
    rounds = [threading.Barrier(THREADS) for _ in got]

    def work(number):
        for n, objects in enumerate(got):
            rounds[n].wait(30)
            objects[number] = cache.setdefault(Yielding(n), object())

    hammer(work)
    assert [len(set(map(id, objects))) for objects in got] == [1] * len(got)
    cache._check()
