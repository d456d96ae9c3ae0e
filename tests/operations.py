"""Every operation of every compiled class, by name: what is repeated to find leaks, and done without memory.

A subject is a function that makes an object in a known state, some entries in it; each of its operations takes such an
object, leaves it whole, and raises nothing but what it is there to raise (`raises`). Nothing here may wait, start a thread
or depend on the time.
"""

import copy
import math
import pickle
import sys

from fastcache import LRUCache, MemoryCache, TTLCache, cached, lru_cache
from fastcache._gate import Gate, GatedLookup

SIZE = 8  # entries of a full cache: the arrays have grown more than once


class Key:
    """Compared in Python; all of them collide. Comparing one that is `broken` raises."""

    __slots__ = ("n",)  # an instance's dict that goes without memory crashes CPython 3.13.0 (PyObject_ClearManagedDict)
    broken = False

    def __init__(self, n):
        self.n = n

    def __hash__(self):
        return 7

    def __eq__(self, other):
        if self.broken or getattr(other, "broken", False):
            raise LookupError
        return isinstance(other, Key) and self.n == other.n


class Broken(Key):
    __slots__ = ()
    broken = True


class Unhashable:
    def __hash__(self):
        raise LookupError


class Clock:
    """A timer that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def fail(*args):
    raise LookupError


def raises(errors, function, *args):
    try:
        function(*args)
    except errors:
        return
    raise AssertionError(f"{function} raised none of {errors}")


# Maps. Their keys are a Key, strs, ints and tuples; "full" ones evict when one more is stored.


def fill(cache):
    for key in (Key(1), "a", 5, (1, "b"), Key(2), "c", 300, Key(3)):
        cache[key] = [key]
    return cache


class Oldest(LRUCache):
    """A subclass that makes room itself."""

    def popitem(self):
        return super().popitem()


def expiring(**options):
    clock = Clock()
    cache = TTLCache(SIZE, 10, clock, **options)
    for number, key in enumerate((Key(1), "a", 5, (1, "b"), Key(2), "c", 300, Key(3))):
        cache.set(key, [key], (None, 20, 5, math.inf)[number % 4])
    return cache


def later(operate):
    """The same with half of the entries expired."""

    def operate_later(cache):
        cache.timer.now += 15
        operate(cache)

    return operate_later


def iterate(cache):
    return [list(each) for each in (cache, cache.keys(), cache.values(), cache.items())]


def change_in_iteration(cache):
    iterator = iter(cache)
    next(iterator), next(iterator)
    del cache["a"]
    raises(RuntimeError, next, iterator)


MAP = {
    "store": lambda cache: cache.__setitem__("new", [1]),
    "store a key compared in Python": lambda cache: cache.__setitem__(Key(9), [1]),
    "store many": lambda cache: cache.update({i: [i] for i in range(20)}),
    "replace": lambda cache: cache.__setitem__("a", [1]),
    "replace a key compared in Python": lambda cache: cache.__setitem__(Key(3), [1]),
    "store where comparing fails": lambda cache: raises(LookupError, cache.__setitem__, Broken(9), [1]),
    "store an unhashable": lambda cache: raises(LookupError, cache.__setitem__, Unhashable(), [1]),
    "get": lambda cache: (cache.get("c"), cache.get(300), cache.get(Key(3)), cache.get("absent")),
    "get where comparing fails": lambda cache: raises(LookupError, cache.get, Broken(1)),
    "subscript": lambda cache: cache["c"],
    "subscript, absent": lambda cache: raises(KeyError, cache.__getitem__, Key(9)),
    "look": lambda cache: ("a" in cache, Key(9) in cache, cache.peek((1, "b")), cache.peek("absent")),
    "pop": lambda cache: cache.pop("c"),
    "pop, absent": lambda cache: (cache.pop(Key(9), None), raises(KeyError, cache.pop, "absent")),
    "delete": lambda cache: cache.__delitem__(Key(3)),
    "delete, absent": lambda cache: raises(KeyError, cache.__delitem__, "absent"),
    "popitem": lambda cache: cache.popitem(),
    "setdefault": lambda cache: (cache.setdefault("c", [1]), cache.setdefault(Key(9), [1])),
    "clear": lambda cache: cache.clear(),
    "resize": lambda cache: (cache.resize(3), cache.resize(30)),
    "measure": lambda cache: (len(cache), cache.currsize, cache.maxsize, sys.getsizeof(cache), cache._counters()),
    "iterate": iterate,
    "change in an iteration": change_in_iteration,
    "compare": lambda cache: (cache == {}, cache != cache.copy(), cache == 1),
    "repr": repr,
    "copy": copy.copy,
    "pickle": lambda cache: pickle.loads(pickle.dumps(cache.__getstate__()["rows"])),
    "initialise again": lambda cache: cache.__init__(3, *([5] if isinstance(cache, TTLCache) else [])),
    "refuse options": lambda cache: raises((TypeError, ValueError), type(cache), -1, 1),
}
TTL = {
    **MAP,
    **{f"{name}, later": later(MAP[name]) for name in MAP if "resize" not in name and "absent" not in name},
    "set": lambda cache: cache.set("new", [1], 3),
    "set, never to expire": lambda cache: cache.set(Key(9), [1], math.inf),
    "set many": lambda cache: [cache.set(i, [i], i + 1) for i in range(200)],
    "set again": lambda cache: cache.set("a", [1], 7),
    "refuse a ttl": lambda cache: raises(ValueError, cache.set, "a", 1, -1),
    "remaining": lambda cache: (cache.remaining("a"), cache.remaining(Key(9))),
    "expire": lambda cache: cache.expire(),
    "expire, later": later(lambda cache: cache.expire()),
    "sweep, later": later(lambda cache: cache._sweep(2)),
}
for name in ("subscript, later", "pop, later", "delete, later", "change in an iteration, later"):
    del TTL[name]  # what they want has expired by then
WEIGHTED = {
    **MAP,
    "refuse a value": lambda cache: raises(ValueError, cache.__setitem__, "a", [1] * 10_000),
    "fail to weigh": lambda cache: raises(TypeError, cache.__setitem__, "a", None),
}
FAILING = {
    "store": lambda cache: raises(LookupError, cache.__setitem__, "new", 1),
    "replace": lambda cache: raises(LookupError, cache.__setitem__, "a", 1),
    "delete": lambda cache: raises(LookupError, cache.__delitem__, "a"),
    "popitem": lambda cache: raises(LookupError, cache.popitem),
    "resize": lambda cache: raises(LookupError, cache.resize, SIZE - 1),
}


def weigh(value):
    return len(value) + 300.25  # neither a small int nor exact in few bits: arithmetic allocates


# Functions, methods. Each run gives a new object.


def result(*args, **kwargs):
    if args and args[-1] == "fail":
        raise LookupError
    return [args, kwargs]


def memo(**options):
    function = lru_cache(SIZE, **options)(result)
    for key in (Key(1), "a", 5, 2.5, Key(2), "c", 300, Key(3)):
        function(key)
    return function


MEMO = {
    "hit": lambda f: (f("c"), f(300)),
    "hit of an equal str": lambda f: f("".join(["c"])),
    "hit compared in Python": lambda f: f(Key(3)),
    "miss": lambda f: f("new"),
    "miss compared in Python": lambda f: f(Key(9)),
    "several arguments": lambda f: (f(1, "a"), f(1, "a"), f(Key(1), 2), f(Key(1), 2)),
    "keywords": lambda f: (f(1, a=2), f(1, a=2), f(k=Key(1)), f(k=Key(1))),
    "many": lambda f: [f(i, i) for i in range(20)],
    "fail": lambda f: raises(LookupError, f, "fail"),
    "fail to compare": lambda f: raises(LookupError, f, Broken(1)),
    "fail to hash": lambda f: raises(LookupError, f, Unhashable()),
    "contains": lambda f: (f.cache_contains("c"), f.cache_contains(Key(9)), f.cache_contains(1, a=2)),
    "invalidate": lambda f: (f.cache_invalidate("c"), f.cache_invalidate(Key(9)), f.cache_invalidate(Key(2))),
    "info": lambda f: (f.cache_info(), f.cache_parameters(), repr(f), sys.getsizeof(f)),
    "clear": lambda f: f.cache_clear(),
    "copy": lambda f: (copy.copy(f), copy.deepcopy(f)),
    "call by the class": lambda f: type(f).__call__(f, 1, a=2),
}


class Remembers:
    def __init__(self, method):
        self.method = method
        self.first, self.second = type("A", (), {"m": method})(), type("B", (), {"m": method})()
        self.first.m(1), self.first.m("a"), self.second.m(1)

    def _check(self):
        self.method._check()


def methods(**options):
    return Remembers(lru_cache(SIZE, per_instance=True, **options)(result))


METHODS = {
    "hit": lambda r: (r.first.m("a"), r.second.m(1)),
    "miss": lambda r: (r.first.m(Key(1)), r.second.m(1, a=2)),
    "many": lambda r: [r.first.m(i) for i in range(20)],
    "new instances": lambda r: [A().m(1) for A in [type("A", (), {"m": r.method})] for _ in range(5)],
    "instance goes": lambda r: setattr(r, "first", None),
    "fail": lambda r: raises(LookupError, r.first.m, "fail"),
    "no weak references": lambda r: raises(TypeError, r.method, 5, 1),
    "no instance": lambda r: raises(TypeError, r.method),
    "contains": lambda r: (r.method.cache_contains(r.first, 1), r.method.cache_contains(r, 1)),
    "invalidate": lambda r: (r.method.cache_invalidate(r.first, 1), r.method.cache_invalidate(r, 1)),
    "info": lambda r: (r.method.cache_info(), r.method.cache_parameters(), repr(r.method)),
    "clear": lambda r: r.method.cache_clear(),
    "call by the class": lambda r: type(r.method).__call__(r.method, r.first, 1),
}


# `cached`, its cache, and the gate before its map.


class Keeps:
    def __init__(self):
        self.cache = MemoryCache(SIZE, ttl=100, cleanup_interval=None, timer=Clock())
        self.f = cached(self.cache)(result)
        self.f(1), self.f("a", b=2)
        self.cache.set("key", [1])
        self.bound = type("A", (), {"m": self.f, "__cache_key__": lambda self: "A"})()

    def _check(self):
        self.cache._map._check()
        if not all(flight.done for table in self.cache._flights._all() for flight in table.values()):
            raise AssertionError("a flight is left on the table that won't end")


CACHED = {
    "hit": lambda k: (k.f(1), k.f("a", b=2)),
    "miss": lambda k: (k.f(3), k.f((1, "a"), b=2.5)),
    "many": lambda k: [k.f(i) for i in range(20)],
    "fail": lambda k: raises(LookupError, k.f, "fail"),
    "invalidate": lambda k: (k.f.invalidate(1), k.f.cache_key("a")),
    "refresh": lambda k: k.f.refresh(1),
    "call by the class": lambda k: type(k.f).__call__(k.f, 1),
    "method": lambda k: (k.bound.m(1), k.bound.m(1), k.bound.m == k.bound.m, k.bound.m.invalidate(1), hash(k.bound.m)),
    "repr": lambda k: (repr(k.f), copy.copy(k.f), k.f.cache),
    "memory: get": lambda k: (k.cache.get("key"), k.cache.get("absent"), k.cache.exists("key"), k.cache["key"]),
    "memory: set": lambda k: (k.cache.set("key", 1), k.cache.set("new", 2, ttl=3)),
    "memory: delete": lambda k: (k.cache.delete("key"), k.cache.delete_pattern("k*"), k.cache.clear()),
    "memory: load": lambda k: (k.cache.get_or_load("new", result), k.cache.get_or_load("key", result)),
    "memory: fail to load": lambda k: raises(LookupError, k.cache.get_or_load, "new", fail),
    "memory: load many": lambda k: k.cache.get_or_load_many(["key", "new"], dict.fromkeys),
    "memory: many": lambda k: (k.cache.set_many({"a": 1, "b": 2}), k.cache.get_many(["a", "c"]), k.cache.delete_many(["a"])),
    "memory: stats": lambda k: (k.cache.stats(), k.cache.remaining("key")),
}


class Gated:
    def __init__(self):
        self.map = TTLCache(SIZE, math.inf)
        self.map["a"] = self.map[Key(1)] = [1]
        self.gate = Gate(math.inf)
        self.get = GatedLookup(self.map, self.gate)

    def _check(self):
        self.map._check()


GATED = {
    "hit": lambda g: (g.get("a", None), g.get(Key(1), None)),
    "miss": lambda g: (g.get("absent", None), g.get(Key(9), None)),
    "shut": lambda g: (g.gate.close(), g.get("a", None), g.gate.is_open()),
    "until": lambda g: (setattr(g.gate, "until", 1e12), g.get("a", None), g.gate.until, repr(g.gate)),
    "refuse": lambda g: (raises(TypeError, g.get, "a"), raises(ValueError, setattr, g.gate, "until", "soon")),
    "fail to compare": lambda g: raises(LookupError, g.get, Broken(1), None),
}

SUBJECTS = {
    "LRUCache": (lambda: fill(LRUCache(SIZE)), MAP),
    "LRUCache, unbounded": (lambda: fill(LRUCache(None)), MAP),
    "LRUCache, weighted": (lambda: fill(LRUCache(301.25 * SIZE, weigh)), WEIGHTED),
    "LRUCache, listening": (lambda: fill(LRUCache(SIZE, on_evict=result)), MAP),
    "LRUCache, failing listener": (lambda: fill(LRUCache(SIZE, on_evict=fail)), FAILING),
    "LRUCache, subclass": (lambda: fill(Oldest(SIZE)), MAP),
    "TTLCache": (expiring, TTL),
    "TTLCache, listening": (lambda: expiring(on_evict=result), TTL),
    "TTLCache, weighted": (lambda: expiring(getsizeof=lambda value: len(value) * 0.7), TTL),
    "memo": (memo, MEMO),
    "memo, typed": (lambda: memo(typed=True), MEMO),
    "memo, ttl": (lambda: memo(ttl=100), MEMO),
    "memo, key": (lambda: memo(key=lambda *args, **kwargs: (args, *kwargs, *kwargs.values())), MEMO),
    "memo, single flight": (lambda: memo(single_flight=True), MEMO),
    "methods": (methods, METHODS),
    "methods, single flight": (lambda: methods(single_flight=True), METHODS),
    "cached": (Keeps, CACHED),
    "gate": (Gated, GATED),
}
