"""What the caches keep alive and what they let go: cycles, reference counts, deep chains, the scripts in leaks/."""

import gc
import sys
import weakref
from pathlib import Path

import pytest
from hammering import IMMORTALS

from fastcache import LRUCache, lru_cache

LEAKS = [path for path in sorted((Path(__file__).parent / "leaks").glob("*.py")) if path.stem != "flat"]


class Node:
    """Something to refer to, and to refer from."""


def cycle_through_key():
    cache, node = LRUCache(3), Node()
    node.cache = cache
    cache[node] = 1
    return cache, node


def cycle_through_value():
    cache, node = LRUCache(3), Node()
    node.cache = cache
    cache["key"] = [node]
    return cache, node


def cycle_through_weights():
    cache, node = LRUCache(3, getsizeof=lambda value: Weight(value)), Node()
    node.cache = cache
    cache["key"] = node
    return cache, node


class Weight(float):
    """A weight that refers to something."""

    def __new__(cls, value):
        self = super().__new__(cls, 1)
        self.node = value
        return self


def cycle_through_on_evict():
    node = Node()
    cache = LRUCache(3, on_evict=lambda *args: node)
    node.cache = cache
    return cache, node


def cycle_through_getsizeof():
    node = Node()
    cache = LRUCache(3, getsizeof=lambda value: node and 1)
    node.cache = cache
    cache["key"] = 1
    return cache, node


def cycle_through_maxsize():
    node = Node()
    limit = Weight(node)
    node.cache = LRUCache(limit)
    return node.cache, node


def cycle_of_itself():
    cache, node = LRUCache(3), Node()
    cache["self"], cache["node"] = cache, node
    return cache, node


def cycle_of_two():
    one, two, node = LRUCache(3), LRUCache(None), Node()
    one["two"], two["one"], two["node"] = two, one, node
    return one, node


def cycle_through_iterator():
    cache, node = LRUCache(3), Node()
    cache["node"], cache["more"] = node, 1
    iterator = iter(cache.items())
    next(iterator), next(iterator)
    cache["more"] = iterator
    return cache, node


def cycle_of_a_subclass():
    cache, node = type("Sub", (LRUCache,), {})(3), Node()
    cache.me, cache.node = cache, node
    cache[node] = cache
    return cache, node


def cycle_through_argument():
    node = Node()
    f = lru_cache(lambda x, y: 1)
    node.f = f
    f(node, y=1)
    return f, node


def cycle_through_result():
    node = Node()
    f = lru_cache(None)(lambda x: node)
    node.f = f
    f(1)
    return f, node


def cycle_through_function():
    node = Node()

    @lru_cache
    def f(x):
        return f, node

    f(1)
    return f, node


def cycle_through_wrapper_attribute():
    node, f = Node(), lru_cache(lambda: 1)
    f.me, f.node = f, node
    return f, node


def cycle_through_key_function():
    node = Node()
    f = lru_cache(key=lambda x: node)(lambda x: 1)
    node.f = f
    f(1)
    return f, node


def cycle_through_bound_method():
    node = type("A", (), {"m": lru_cache(lambda self: self.m)})()
    node.m()
    return type(node).m, node


CYCLES = {name: make for name, make in globals().items() if name.startswith("cycle_")}


@pytest.mark.parametrize("make", CYCLES.values(), ids=CYCLES)
def test_cycle_is_collected(make):
    """A cycle through any reference that a cache holds is found and freed, and before that it lives."""
    if IMMORTALS and make is cycle_through_bound_method:
        pytest.skip("free-threaded 3.13 makes types immortal once a thread was started")
    cache, node = make()
    references = weakref.ref(cache), weakref.ref(node)
    gc.collect()
    cache._check()
    assert all(reference() is not None for reference in references)
    del cache, node
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("weigh", [None, Weight])
def test_collector_is_shown_each_reference_once(weigh):
    """gc.get_referents tells the keys, values and weights that are there: one too many would free live objects."""
    cache = LRUCache(3, weigh)
    first, second, third = Node(), Node(), Node()
    cache[first] = second
    cache["gone"] = third
    del cache["gone"]
    shown = gc.get_referents(cache)
    assert [sum(each is node for each in shown) for node in (first, second, third)] == [1, 1, 0]
    assert sum(isinstance(each, Weight) for each in shown) == (1 if weigh else 0)
    cache.clear()
    assert not any(isinstance(each, Node) for each in gc.get_referents(cache))
    f = lru_cache(lambda x: second)
    f(first)
    assert [sum(each is node for each in gc.get_referents(f)) for node in (second, third)] == [1, 0]
    assert sum(first in each for each in gc.get_referents(f) if isinstance(each, tuple)) == 1


def test_references_are_counted_exactly():
    """Each key and value is held once, whatever happened on the way, and not at all once it left."""
    key, value, other = Node(), Node(), Node()
    before = 0, 0, 0

    def held():
        now = sys.getrefcount(key), sys.getrefcount(value), sys.getrefcount(other)
        return [now[i] - before[i] for i in range(3)]

    before = held()

    for weigh in (None, lambda value: 1):
        cache = LRUCache(2, weigh)
        cache[key] = value
        assert held() == [1, 1, 0]
        for _ in range(20):
            cache[key] = value
            cache[key], cache.get(key), cache.peek(key), key in cache, cache.setdefault(key, other), repr(cache)
            list(cache), list(cache.items()), list(cache.values()), cache == cache.copy()
        assert held() == [1, 1, 0]
        cache[key] = other
        assert held() == [1, 0, 1]
        for leave in (
            lambda c: c.pop(key),
            lambda c: c.__delitem__(key),
            lambda c: c.popitem(),
            lambda c: c.clear(),
            lambda c: c.resize(0),
            lambda c: c.update({1: 1, 2: 2}),
            lambda c: c.__init__(1),
        ):
            cache = LRUCache(2, weigh)
            cache[key] = value
            leave(cache)
            assert held() == [0, 0, 0]
        twin = LRUCache(2, weigh)
        twin[key] = value
        copies = [twin.copy() for _ in range(3)]
        assert held() == [4, 4, 0]
        del copies, twin
        assert held() == [0, 0, 0]


@pytest.mark.parametrize(("maxsize", "typed"), [(None, False), (2, False), (2, True)])
def test_references_of_calls_are_counted_exactly(maxsize, typed):
    """Arguments and results of lru_cache are held once per entry, whatever the calls."""
    argument, result = Node(), Node()
    counts = sys.getrefcount(argument), sys.getrefcount(result)
    f = lru_cache(maxsize, typed)(lambda *args, **kwargs: result)

    def held():
        return sys.getrefcount(argument) - counts[0], sys.getrefcount(result) - counts[1] - 1  # the function's own cell

    base = held()[1]
    for call in (lambda g: g(argument), lambda g: g(1, argument), lambda g: g(x=argument), lambda g: g(1, k=argument)):
        for _ in range(10):
            call(f), call(f.cache_contains)
        assert held() == (1, base + 1)
        assert call(f.cache_invalidate)
        assert held() == (0, base)
        call(f)
        f.cache_clear()
        assert held() == (0, base)
        call(f)
        if maxsize:
            f(1), f(2)
        else:
            f.cache_clear()
        assert held()[0] == 0
        f.cache_clear()


CHAINS = {
    "cache": "LRUCache(1); new[0] = chain",
    "weighted cache": "LRUCache(1, lambda value: 1); new[0] = chain",
    "subclass": "Sub(1); new[0] = chain",
    "attribute of a subclass": "Sub(1); new.chain = chain",
    "iterator": "LRUCache(1); new[0] = chain; new = iter(new)",
    "callback": "LRUCache(1, on_evict=functools.partial(print, chain))",
    "attribute of a function": "lru_cache(len); new.chain = chain",
    "argument": "lru_cache(lambda x: 1); new(chain)",
    "result": "lru_cache(lambda: None); new.__wrapped__.__defaults__ = (chain,)",
    "key function": "lru_cache(key=functools.partial(print, chain))(len)",
    "function": "lru_cache(functools.partial(len, chain))",
}


@pytest.mark.parametrize("link", CHAINS.values(), ids=CHAINS)
def test_deep_chain_is_released(link, run_script):
    """A cache in a cache in a cache, 100,000 deep, goes without a crash: dropped, cleared, or collected as a cycle."""
    run_script(f"""
import functools, gc
from fastcache import LRUCache, lru_cache
class Sub(LRUCache): pass
class End: pass
def build(chain):
    for _ in range(100_000):
        new = {link}
        chain = new
    return chain
chain = build(None)
del chain
chain = LRUCache(1)
chain[0] = build(None)
chain.clear()
end = End()
end.chain = build(end)
del end
gc.collect()
""")


@pytest.mark.parametrize("script", LEAKS, ids=lambda path: path.stem)
def test_leak_script_grows_nothing(script, run_script):
    """Up to a million operations leave no object, no block and no memory behind (see the script)."""
    if IMMORTALS and script.stem == "operations":
        pytest.skip("there a function that was wrapped while there are threads is never released, nor its wrapper")
    run_script(script, timeout_seconds=120)
