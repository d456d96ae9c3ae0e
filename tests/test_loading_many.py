"""get_or_load_many in memory, on both faces: one call of the batch loader for what is missing, and flights shared by key."""

import threading

import pytest
from loaders import SECONDS, Loader, quiet, start, wait_until, waiting

from fastcache import MISSING, Policy


def test_many_loads_only_what_is_missing_in_one_call(make):
    """In the order of the keys; what the loader leaves out or calls MISSING is absent; None is a value."""
    cache = make()
    cache.set("a", 1)
    calls = []

    def load(keys):
        calls.append(keys)
        return {"b": 2, "c": None, "d": MISSING, "unasked": 9}

    assert cache.get_or_load_many(["a", "b", "c", "d", "e", "b"], load) == {"a": 1, "b": 2, "c": None}
    assert calls == [["b", "c", "d", "e"]]
    assert cache.get_or_load_many(["a", "b", "c"], load) == {"a": 1, "b": 2, "c": None}
    assert len(calls) == 1
    assert not cache.exists("unasked")
    assert cache.get_or_load_many([], load) == {}
    quiet(cache)


def test_many_joins_what_is_in_flight(make):
    """A key that somebody loads already is waited for, the others loaded meanwhile."""
    cache, load = make(), Loader("single")
    load.open.clear()
    first = start(cache.get_or_load, "a", load)
    assert load.entered.wait(SECONDS)
    calls = []

    def batch(keys):
        calls.append(keys)
        load.open.set()
        return dict.fromkeys(keys, "batch")

    assert cache.get_or_load_many(["a", "b"], batch) == {"a": "single", "b": "batch"}
    assert (first(), calls) == ("single", [["b"]])
    quiet(cache)


def test_single_joins_a_batch(make):
    """And gets its own key's value, the default where the batch has none."""
    cache, gate, entered = make(), threading.Event(), threading.Event()

    def batch(keys):
        entered.set()
        assert gate.wait(SECONDS)
        return {"a": 1}

    many = start(cache.get_or_load_many, ["a", "b"], batch)
    assert entered.wait(SECONDS)
    singles = [start(cache.get_or_load, key, Loader("own"), "none") for key in ("a", "b")]
    wait_until(lambda: cache.stats().misses == 4)
    wait_until(lambda: waiting(cache) == 2)
    gate.set()
    assert many() == {"a": 1}
    assert [single() for single in singles] == [1, "none"]
    quiet(cache)


def test_many_reports_errors_and_wrong_results(make):
    """A batch loader's exception is raised and nothing stored; not returning a mapping is a TypeError."""
    cache = make()

    def fails(keys):
        raise LookupError("no")

    with pytest.raises(LookupError):
        cache.get_or_load_many(["a"], fails)
    with pytest.raises(TypeError, match="mapping"):
        cache.get_or_load_many(["a"], lambda keys: [1])
    with pytest.raises(TypeError, match="a single one"):
        cache._loading.many_plan("abc", len, None, None, None).send(None)
    quiet(cache)


def test_many_serves_stale_and_refreshes_together(make, clock):
    """One batch in the background for all stale keys; fresh and missing ones as ever."""
    cache, calls = make(Policy(10, stale_for=50, jitter=0)), []

    def load(keys):
        calls.append(sorted(keys))
        return {key: len(calls) for key in keys}

    cache.get_or_load_many(["a", "b"], load)
    clock.now += 15
    assert cache.get_or_load_many(["a", "b", "c"], load)["a"] == 1
    assert cache.drain(SECONDS)
    assert sorted(calls) == [["a", "b"], ["a", "b"], ["c"]]
    assert cache.stats().stale_hits == 2
    quiet(cache)


def test_invalidation_of_one_key_of_a_batch(make):
    """Only that one isn't stored."""
    cache, gate, entered = make(), threading.Event(), threading.Event()

    def batch(keys):
        entered.set()
        assert gate.wait(SECONDS)
        return dict.fromkeys(keys, 1)

    many = start(cache.get_or_load_many, ["a", "b"], batch)
    assert entered.wait(SECONDS)
    cache.delete("a")
    gate.set()
    assert many() == {"a": 1, "b": 1}
    assert cache.get_many(["a", "b"]) == {"b": 1}
