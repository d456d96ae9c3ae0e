"""Methods that begin with a lookup in compiled code: the same in all but time, whatever they are called with."""

import asyncio
import copy
import inspect
import pydoc

import pytest

from fastcache import AsyncMemoryCache, MemoryCache
from fastcache._gate import Gate, GatedLookup
from fastcache._ttl import TTLCache
from fastcache.memory import Entry
from fastcache.methods import lookup_first


class Apart:
    """Says what its method was asked; the compiled lookup is over `map`."""

    def __init__(self):
        self.map = TTLCache(10, 60)
        self.gate = Gate()
        self._gated = GatedLookup(self.map, self.gate)
        self.asked = []

    @lookup_first(1)
    def get(self, key, default=None):
        """Get it."""
        self.asked.append(key)
        return default

    @lookup_first(1)
    async def aget(self, key, default=None):
        self.asked.append(key)
        return default


def test_value_at_hand_needs_no_method():
    """A hit behind an open gate, with one argument or one more; counted once."""
    here = Apart()
    here.gate.open()
    here.map["k"] = 1
    assert here.get("k") == here.get("k", 2) == Apart.get(here, "k") == 1
    assert asyncio.run(here.aget("k")) == 1
    assert here.asked == []
    assert here.map._counters()[0] == 4


@pytest.mark.parametrize("value", [None, Entry(1, 2, 3)], ids=["none", "an entry"])
def test_method_is_asked_for_all_else(value):
    """A miss, a shut gate, a value with something beside it; what the map counts is left to the method."""
    here = Apart()
    here.map["k"] = 1
    assert here.get("k", "x") == "x"
    here.gate.open()
    del here.map["k"]
    if value is not None:
        here.map["k"] = value
    assert here.get("k", "y") == "y"
    assert here.asked == ["k", "k"]
    assert here.map._counters()[:2] == (0, 0)


def test_method_is_asked_where_nothing_can_be_looked_up():
    """`_gated` None."""
    here = Apart()
    here._gated = None
    assert here.get("k", 3) == 3


def test_wrong_arguments_are_the_methods_own_error():
    """Too few, too many, unknown keywords, somebody else's instance: as if there were no lookup."""
    here = Apart()
    here.gate.open()
    here.map["k"] = 1
    for call in (
        lambda: here.get(),
        lambda: here.get("k", 1, 2),
        lambda: here.get("k", defualt=1),
        lambda: Apart.get(),
        lambda: Apart.get(here),
    ):
        with pytest.raises(TypeError, match=r"get\(\)"):
            call()
    with pytest.raises(AttributeError, match="asked"):
        Apart.get(object(), "k")
    assert here.get("k", default=1) == 1
    assert here.asked == ["k"]


def test_error_of_a_key_is_raised_where_the_method_raises_it():
    """For an `async def`: when it is awaited."""
    memory, amemory = MemoryCache(), AsyncMemoryCache()
    with pytest.raises(TypeError, match="unhashable"):
        memory.get([])
    awaitable = amemory.get([])
    with pytest.raises(TypeError, match="unhashable"):
        asyncio.run(awaitable)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("cache", [MemoryCache(), AsyncMemoryCache()], ids=["def", "async def"])
def test_error_in_the_midst_of_a_lookup_is_not_lost(error, cache):
    """Also one that a key's comparison raises once only, as an interrupt does. (An `async def` may ask again.)"""

    class Key:
        raises = False

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if Key.raises:
                Key.raises = error is ValueError and isinstance(cache, AsyncMemoryCache)
                raise error
            return self is other

    async def aget():
        return await cache.get(Key())

    (cache if isinstance(cache, MemoryCache) else cache._cache).set(Key(), 1)
    Key.raises = True
    try:
        with pytest.raises(error):
            cache.get(Key()) if isinstance(cache, MemoryCache) else asyncio.run(aget())
    finally:
        Key.raises = False


def test_subclass_replaces_it_and_calls_it():
    """Through super(), as any method."""

    class Loud(MemoryCache):
        def get(self, key, default=None, *, type=None):
            return (super().get(key, default), "!")

    cache = Loud()
    cache.set("k", 1)
    assert cache.get("k") == (1, "!")
    assert cache.get("-", 0) == (0, "!")


def test_task_is_made_of_what_a_hit_returns():
    """It is a coroutine, which a TaskGroup and create_task insist on."""

    async def main():
        cache = AsyncMemoryCache()
        await cache.set("k", 1)
        return await asyncio.create_task(cache.get("k")), await asyncio.wait_for(cache.get("k"), 1)

    assert asyncio.run(main()) == (1, 1)


def test_looks_like_a_method():
    """To inspect, pydoc and copy."""
    cache = MemoryCache()
    assert str(inspect.signature(cache.get)) == "(key: 'K', default: 'Any' = None, *, type: 'Any' = None) -> 'Any'"
    assert inspect.ismethod(cache.get)
    assert inspect.isroutine(MemoryCache.get)
    assert cache.get == cache.get
    assert inspect.getdoc(cache.get) == inspect.getdoc(MemoryCache.get)
    assert MemoryCache.get.__qualname__ == "MemoryCache.get"
    assert inspect.iscoroutinefunction(AsyncMemoryCache().get)
    assert not inspect.iscoroutinefunction(cache.get)
    assert "now most recently used" in pydoc.render_doc(MemoryCache.get)
    assert copy.copy(MemoryCache.get) is MemoryCache.get
    assert repr(MemoryCache.get).startswith("<method MemoryCache.get at 0x")


def test_call_by_the_type_is_the_same():
    """`type(f).__call__(f, ...)`, as a subclass of type or a proxy does it."""
    here = Apart()
    here.gate.open()
    here.map["k"] = 1
    assert type(Apart.get).__call__(Apart.get, here, "k") == 1
    assert type(Apart.get).__call__(Apart.get, here, "other", default=2) == 2
    assert here.asked == ["other"]
