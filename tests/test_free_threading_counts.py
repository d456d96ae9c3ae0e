"""The reference count of what takes a function's place: many threads call it, and must not contend for that.

CPython 3.13 without the GIL makes functions that aren't nested immortal once a thread was started, later versions defer
their counting until the collector runs. Wrappers do as the function does; nothing else here may outlive its last reference.
"""

import gc
import sys
import threading
import weakref

import pytest
from hammering import IMMORTALS

from fastcache import MemoryCache, cached, lru_cache

MAKERS = {
    "lru_cache": lru_cache(8),
    "lru_cache single flight": lru_cache(8, single_flight=True),
    "lru_cache per instance": lru_cache(8, per_instance=True),
    "cached": cached(MemoryCache(8)),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def function(x):
    return x


def start_a_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


@pytest.mark.skipif(not IMMORTALS, reason="only CPython 3.13 without the GIL tells by getrefcount")
@every_maker
def test_wrapper_is_as_immortal_as_its_function(make):
    """Made after the first thread was started, it is immortal from the beginning: nothing counts references to it."""
    start_a_thread()
    wrapper = make(function)
    count = sys.getrefcount(wrapper)
    assert count == sys.getrefcount(function)
    _references = [wrapper] * 5
    assert sys.getrefcount(wrapper) == count
    gc.collect()
    assert wrapper.__wrapped__ is function


@pytest.mark.skipif(not IMMORTALS, reason="only CPython 3.13 without the GIL tells by getrefcount")
def test_wrapper_becomes_immortal_with_its_function(run_script):
    """Made before the first thread, it can be collected until that is started; kept, it is immortal then."""
    run_script(
        "import gc, sys, threading, weakref\n"
        "from fastcache import lru_cache\n"
        "def function(x): return x\n"
        "kept, dropped = lru_cache(function), lru_cache(function)\n"
        "kept(1), dropped(1)\n"
        "gone = weakref.ref(dropped)\n"
        "del dropped\n"
        "gc.collect()\n"
        "assert gone() is None\n"
        "mortal = sys.getrefcount(kept)\n"
        "thread = threading.Thread(target=kept, args=(1,))\n"
        "thread.start()\n"
        "thread.join()\n"
        "assert sys.getrefcount(kept) == sys.getrefcount(function) > mortal\n"
        "gc.collect()\n"
        "assert kept.cache_info()[:2] == (1, 1)\n"
    )


@every_maker
def test_wrapper_of_nested_function_is_released(make):
    """What is made again and again at run time doesn't stay: it goes at a collection at the latest."""

    def nested(x):
        return x

    start_a_thread()
    wrapper = make(nested)
    gone = weakref.ref(wrapper)
    del wrapper, nested
    gc.collect()
    assert gone() is None


class Value:
    pass


@pytest.mark.parametrize("single_flight", [False, True])
def test_results_of_an_instance_go_at_once(single_flight):
    """A memo for each instance is counted as ever: with the instance its results go, without a collection."""

    class A:
        @lru_cache(8, per_instance=True, single_flight=single_flight)
        def m(self, x):
            return Value()

    start_a_thread()
    gc.disable()
    try:
        a = A()
        value = weakref.ref(a.m(1))
        assert value() is a.m(1)
        del a
        assert value() is None
    finally:
        gc.enable()
