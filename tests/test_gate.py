"""`Gate` and `GatedLookup`: until when copies may be relied on, and the lookup that asks."""

import gc
import math
import threading
import time
import weakref

import pytest

from fastcache import ConfigurationError, TTLCache
from fastcache._gate import Gate, GatedLookup

STEP = 0.02  # seconds: no coarse clock has a larger step


def test_gate_is_shut_until_told_otherwise():
    """A new gate is shut; open() and close() are for good."""
    gate = Gate()
    assert not gate.is_open()
    assert gate.until == -math.inf
    gate.open()
    assert gate.is_open()
    assert gate.until == math.inf
    gate.close()
    assert not gate.is_open()


def test_gate_is_open_before_its_time_and_shut_after_it():
    """The moment is one of time.monotonic(), give or take a step of the coarse clock."""
    gate = Gate(time.monotonic() + 60)
    assert gate.is_open()
    gate.until = time.monotonic() + STEP
    assert gate.is_open()
    gate.until = time.monotonic() - STEP
    assert not gate.is_open()


def test_gate_shuts_by_itself():
    """When nobody moves its time on, it shuts, not early and at most one step late."""
    gate = Gate()
    gate.until = until = time.monotonic() + 0.1
    while gate.is_open():
        assert time.monotonic() < until + STEP
    assert time.monotonic() > until - STEP


def test_gate_gives_back_the_time_it_was_given():
    """`until` reads as it was set, whatever axis the gate's own clock is on."""
    moment = time.monotonic() + 1.25
    gate = Gate(moment)
    assert gate.until == moment
    gate.until = 12  # long ago
    assert gate.until == 12.0
    assert "shut" in repr(gate)


@pytest.mark.parametrize("wrong", [math.nan, None, "1", True, b"1", []])
def test_gate_refuses_what_is_no_time(wrong):
    """Anything but a number is an error, and the gate stays as it was."""
    gate = Gate(math.inf)
    with pytest.raises(ConfigurationError, match="until must be"):
        gate.until = wrong
    assert gate.is_open()


def test_lookup_finds_what_the_map_holds_while_the_gate_is_open():
    """A hit gives the value, counted and made the most recently used; a miss gives the default, counted."""
    cache = TTLCache(2, 60)
    cache["a"], cache["b"] = 1, None
    lookup = GatedLookup(cache, Gate(math.inf))
    assert lookup("a", "default") == 1
    cache["c"] = 3  # evicts b, not a
    assert lookup("b", "default") == "default"
    assert lookup("a", "default") == 1
    assert cache._counters()[:2] == (2, 1)


def test_lookup_behind_a_shut_gate_counts_nothing():
    """The default, without a look into the map."""
    cache = TTLCache(2, 60)
    cache["a"] = 1
    gate = Gate(time.monotonic() + 60)
    lookup = GatedLookup(cache, gate)
    assert lookup("a", None) == 1
    gate.close()
    assert lookup("a", None) is None
    gate.until = time.monotonic() - STEP
    assert lookup("a", None) is None
    assert cache._counters()[:2] == (1, 0)


def test_lookup_never_finds_what_has_expired():
    """Whatever clock the map has: coarse, precise or the user's."""
    now = [0.0]
    for cache in (TTLCache(2, 60), TTLCache(2, 0.02), TTLCache(2, 60, lambda: now[0])):
        lookups = GatedLookup(cache, Gate(math.inf)), GatedLookup(cache, Gate(time.monotonic() + 60))
        cache.set("a", 1, 0.1)
        assert [lookup("a", None) for lookup in lookups] == [1, 1]
        now[0] += 0.2
        while cache.remaining("a") is not None:
            time.sleep(0.001)
        assert [lookup("a", None) for lookup in lookups] == [None, None]


def test_lookup_raises_what_a_key_raises():
    """Unhashable keys and failing comparisons reach the caller."""

    class Odd:
        def __hash__(self):
            return 7

        def __eq__(self, other):
            raise RuntimeError("compared")

    cache = TTLCache(2, 60)
    lookup = GatedLookup(cache, Gate(math.inf))
    with pytest.raises(TypeError, match="unhashable"):
        lookup([], None)
    cache[Odd()] = 1
    with pytest.raises(RuntimeError, match="compared"):
        lookup(Odd(), None)
    cache._check()


def test_lookup_takes_two_arguments_by_position():
    """Anything else is a TypeError, by every way of calling."""
    lookup = GatedLookup(TTLCache(2, 60), Gate(math.inf))
    for call in (lookup, lookup.__call__):
        assert call("a", 1) == 1
        with pytest.raises(TypeError):
            call("a")
        with pytest.raises(TypeError):
            call("a", default=1)


def test_lookup_refuses_a_subclass_and_what_is_no_map():
    """Methods that a subclass overrides would not be asked."""

    class Mine(TTLCache):
        pass

    with pytest.raises(TypeError, match="Mine"):
        GatedLookup(Mine(1, 1), Gate())
    with pytest.raises(TypeError):
        GatedLookup({}, Gate())
    with pytest.raises(TypeError):
        GatedLookup(TTLCache(1, 1), None)


def test_lookup_in_a_class_is_no_method():
    """Found through an instance it is itself, and is called without it."""

    class Holder:
        lookup = GatedLookup(TTLCache(2, 60), Gate(math.inf))

    assert Holder().lookup is Holder.lookup
    assert Holder().lookup("a", 1) == 1


def test_lookup_is_collected_with_what_the_map_holds():
    """A cycle through the map is garbage once nobody else refers to it."""

    class Value:
        pass

    value = Value()
    cache = TTLCache(2, 60)
    cache["a"] = value
    value.lookup = GatedLookup(cache, Gate(math.inf))
    seen = weakref.ref(value)
    del value, cache
    gc.collect()
    assert seen() is None


def test_gate_is_moved_by_one_thread_and_asked_by_others():
    """No reader sees a time that was never set: the gate stays open while its writer moves between future times."""
    gate = Gate(time.monotonic() + 60)
    cache = TTLCache(2, 60)
    cache["a"] = 1
    lookup = GatedLookup(cache, gate)
    done = threading.Event()
    wrong = []

    def read():
        while not done.is_set():
            if not gate.is_open() or lookup("a", None) != 1:
                wrong.append(gate.until)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(20_000):
        gate.until = math.inf if i % 3 == 0 else time.monotonic() + 60 + i
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
