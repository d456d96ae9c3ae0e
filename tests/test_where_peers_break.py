"""What makes other caches hang, crash, leak or lie. What could hang runs in a thread of its own."""

import gc
import threading

import pytest

from fastcache import LRUCache, lru_cache


def in_time(function, seconds=20):
    """Run a function in a thread; fail when it hangs, raise what it raised, return what it returned."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    value, error = outcome[0]
    if error:
        raise error
    return value


class Key:
    """All of one hash; equal by name. `during_eq` runs at each comparison, at most `times` times."""

    def __init__(self, name, during_eq=None, times=5):
        self.name, self.during_eq, self.times = name, during_eq, times

    def __hash__(self):
        return 7

    def __eq__(self, other):
        if self.during_eq is not None and self.times:
            self.times -= 1
            self.during_eq()
        return isinstance(other, Key) and self.name == other.name


class Last:
    """A value that does something when it dies."""

    def __init__(self, act):
        self.act = act

    def __del__(self):
        self.act()


EQ_ACTIONS = {
    "read": lambda c: (c.get("a"), c.get(Key("x")), len(c), list(c.items())),
    "touch": lambda c: c.get("filler"),
    "insert": lambda c: c.__setitem__(object(), 1),
    "insert many": lambda c: c.update((object(), i) for i in range(50)),
    "insert the same key": lambda c: c.__setitem__(Key("sought"), "early"),
    "delete others": lambda c: c.pop("filler", None),
    "delete all": lambda c: [c.pop(key) for key in list(c)],
    "popitem": lambda c: c and c.popitem(),
    "clear": lambda c: c.clear(),
    "clear and refill": lambda c: (c.clear(), c.update({i: i for i in range(20)})),
    "resize": lambda c: (c.resize(1), c.resize(100)),
    "replace": lambda c: c.__setitem__("filler", 2),
    "init": lambda c: c.__init__(10),
}
OPERATIONS = {
    "get": lambda c, k: c.get(k, "none"),
    "getitem": lambda c, k: c.get(k) if k not in c else c.setdefault(k),
    "contains": lambda c, k: k in c,
    "set": lambda c, k: c.__setitem__(k, "new"),
    "pop": lambda c, k: c.pop(k, "none"),
    "setdefault": lambda c, k: c.setdefault(k, "new"),
    "peek": lambda c, k: c.peek(k),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("action", EQ_ACTIONS.values(), ids=EQ_ACTIONS)
@pytest.mark.parametrize("maxsize", [None, 3, 8])
def test_eq_may_use_the_cache(operation, action, maxsize):
    """A key's __eq__ reads and changes the very cache that is comparing it: no hang, no crash, no key twice."""

    def use():
        cache = LRUCache(maxsize)
        cache["filler"] = 0
        cache[Key("first", lambda: action(cache))] = 1
        cache[Key("second", lambda: action(cache))] = 2
        operation(cache, Key("sought", lambda: action(cache)))
        cache._check()
        return [key.name for key in cache if isinstance(key, Key)]

    names = in_time(use)
    assert len(names) == len(set(names))


def test_eq_may_delete_and_insert_the_sought_key():
    """The stored key's __eq__ removes that key and stores the sought one: found, it isn't stored twice."""
    cache = LRUCache(10)

    def swap():
        stored.during_eq = None
        cache.clear() if clear else cache.__delitem__(stored)
        cache[Key("sought")] = "early"

    for clear in (False, True):  # noqa: B007 (swap reads it)
        cache.clear()
        stored = Key("stored", swap, times=1)
        cache[stored] = 0
        cache[Key("sought")] = "late"
        assert [(key.name, value) for key, value in cache.items()] == [("sought", "late")]
        cache._check()


@pytest.mark.parametrize("maxsize", [None, 2])
@pytest.mark.parametrize(
    "action",
    [
        lambda f: f(1, 2),
        lambda f: f(Key("new"), 0),
        lambda f: f.cache_clear(),
        lambda f: f.cache_invalidate(Key("first"), 0),
        lambda f: [f(i, i) for i in range(30)],
    ],
)
def test_eq_may_call_the_cached_function(maxsize, action):
    """The same for lru_cache: whatever __eq__ does to the function, the caller gets the result of its own call."""
    f = lru_cache(maxsize)(lambda key, n: (getattr(key, "name", key), n))

    def use():
        f(Key("first", lambda: action(f)), 0)
        f(Key("second", lambda: action(f)), 0)
        for name in ("first", "second", "third"):
            assert f(Key(name, lambda: action(f)), 0) == (name, 0)
        f._check()

    in_time(use)


def test_eq_that_swaps_calls_leaves_one_entry():
    """A stored argument's __eq__ forgets its call and makes the one that is sought: it is found, and runs once."""
    runs = []
    f = lru_cache(None)(lambda key: runs.append(key.name))

    def swap():
        f.cache_clear()
        f(Key("sought"))

    f(Key("stored", swap, times=1))
    f(Key("sought"))
    assert runs == ["stored", "sought"]
    assert f.cache_info().currsize == 1
    f._check()


def test_eq_that_raises_is_heard_and_leaves_the_cache_whole():
    """The error reaches the caller of every operation; nothing is lost or added."""

    def fail():
        raise LookupError("from __eq__")

    for operation in OPERATIONS.values():
        cache = LRUCache(3)
        cache[Key("a", fail)] = 1
        with pytest.raises(LookupError, match="from __eq__"):
            operation(cache, Key("a"))
        assert [key.name for key in cache] == ["a"]
        cache._check()


def test_hash_may_use_the_cache():
    """__hash__ runs before the table is looked at: it may empty it or fill it."""

    class Busy:
        def __hash__(self):
            cache.clear()
            cache.update({i: i for i in range(20)})
            return 1

    cache = LRUCache(10)
    for operation in OPERATIONS.values():
        in_time(lambda operation=operation: operation(cache, Busy()))
        cache._check()
        assert len(cache) <= 10


def test_hash_that_raises_is_heard():
    """Not only TypeError for what can't be hashed: any error of __hash__ passes."""

    class Broken:
        def __hash__(self):
            raise LookupError("from __hash__")

    cache, f = LRUCache(1), lru_cache(lambda *args: args)
    for operation in (*OPERATIONS.values(), lambda c, k: f(k), lambda c, k: f(1, k)):
        with pytest.raises(LookupError, match="from __hash__"):
            operation(cache, Broken())
    assert (len(cache), f.cache_info()) == (0, (0, 0, 128, 0))


def test_equal_hashes_are_not_equal_keys():
    """-1 and -2, and fifty keys of one hash, are all kept apart through insertion, deletion and eviction."""
    cache = LRUCache(50)
    cache[-1], cache[-2] = "minus one", "minus two"
    assert (cache[-1], cache[-2]) == ("minus one", "minus two")
    for i in range(120):
        cache[Key(i)] = i
        if i % 3 == 0:
            del cache[Key(i)]
        cache._check()
    assert all(cache[Key(i)] == i for i in range(100, 120) if i % 3)
    f = lru_cache(lambda x: x)
    assert [f(x) for x in (-1, -2, -1, -2)] == [-1, -2, -1, -2]


DEL_ACTIONS = {
    "read": lambda c: (c.get(1), list(c), repr(c), len(c)),
    "insert": lambda c: c.__setitem__("from del", 1),
    "insert many": lambda c: c.update({("from del", i): i for i in range(30)}),
    "delete": lambda c: c.pop(2, None),
    "popitem": lambda c: c and c.popitem(),
    "clear": lambda c: c.clear(),
    "resize": lambda c: (c.resize(2), c.resize(5)),
    "init": lambda c: c.__init__(4, getsizeof=lambda value: 1),
    "copy": lambda c: c.copy(),
}


@pytest.mark.parametrize("weighted", [None, lambda value: 1])
@pytest.mark.parametrize("action", DEL_ACTIONS.values(), ids=DEL_ACTIONS)
def test_del_of_a_removed_value_may_use_the_cache(action, weighted):
    """A value's __del__ uses the cache it just left, by whatever way it left: no hang, no crash, a whole cache."""
    ways = [
        lambda c: c.__setitem__(0, 1),
        lambda c: c.__setitem__("new", 1),
        lambda c: c.__delitem__(0),
        lambda c: c.pop(0) and None,
        lambda c: c.popitem() and None,
        lambda c: c.clear(),
        lambda c: c.resize(1),
        lambda c: c.__init__(5),
        lambda c: c.__init__(5, getsizeof=lambda value: 1),
        lambda c: c.__setstate__(LRUCache(7).__getstate__()),
    ]

    def use():
        for leave in ways:
            cache = LRUCache(3, weighted)
            acted = []
            for i in range(3):
                cache[i] = Last(lambda cache=cache, acted=acted: (acted.append(1), action(cache), cache._check()))
            leave(cache)
            cache._check()
            assert acted
            for i in range(10):
                cache[i] = i
            cache._check()
            cache.clear()

    in_time(use)


def test_del_of_a_result_may_call_the_cached_function():
    """The same for the results of lru_cache: evicted, invalidated, cleared."""
    f = lru_cache(2)(lambda n: Last(lambda: calls.append(len(calls) < 40 and f(n + 1))))
    calls = []

    def use():
        f(1), f(2), f(3)
        f.cache_invalidate(3)
        f._check()
        f.cache_clear()
        f._check()
        assert calls
        calls.extend(range(40))
        f.cache_clear()

    in_time(use)


def test_repr_of_a_cache_in_itself_ends():
    """Directly and through others."""
    one, two = LRUCache(2), LRUCache(2)
    one["two"], two["one"] = [two], {"k": one}
    assert in_time(lambda: repr(one)).count("LRUCache(...)") == 1


def test_function_may_call_itself_with_the_same_key():
    """It runs through; the inner result stays, as in functools, and the outer one goes to its caller."""
    for maxsize in (None, 1, 5):
        depth = []

        @lru_cache(maxsize)
        def f(x, depth=depth):
            depth.append(x)
            inner = f(x) if len(depth) < 5 else None
            return len(depth), inner

        in_time(lambda f=f: f(1))
        assert f(1) == (5, None)
        assert f.cache_info() == (1, 5, maxsize, 1)
        f._check()


def test_function_may_change_its_cache_while_it_runs():
    """cache_clear and cache_invalidate inside a run; the result is returned and stored as functools would."""

    @lru_cache(4)
    def f(x):
        if x < 50:
            f(x + 1)
        f.cache_invalidate(x + 1) if x % 2 else f.cache_clear()
        return x

    assert in_time(lambda: f(0)) == 0
    assert f.cache_contains(0)
    f._check()


def test_function_that_raises_can_be_called_again():
    """No lock and no mark is left behind."""

    @lru_cache
    def f(x):
        raise LookupError

    for _ in range(3):
        with pytest.raises(LookupError):
            in_time(lambda: f(1))


def test_callback_that_inserts_stays_within_the_limit():
    """An eviction callback that stores again and again never takes the cache above its size."""
    sizes = []

    def insert(key, value, cause):
        sizes.append(len(cache))
        if len(sizes) < 300:
            cache[len(sizes), key] = value

    cache = LRUCache(3, on_evict=insert)
    in_time(lambda: cache.update({i: i for i in range(20)}))
    assert max(sizes) <= 3
    assert len(cache) == 3
    cache._check()


def test_getsizeof_may_use_the_cache():
    """getsizeof() that empties, fills or resizes the cache it weighs for."""

    acts = {"clear": lambda: cache.clear(), "fill": lambda: cache.update(a=1, b=2), "shrink": lambda: cache.resize(3)}

    def weigh(value):
        acts.get(value, int)()
        return 1

    cache = LRUCache(10, getsizeof=weigh)
    for value in ("fill", "clear", "fill", "shrink", "clear"):
        in_time(lambda value=value: cache.__setitem__(0, value))
        cache._check()
        assert cache[0] == value


@pytest.mark.parametrize("kind", ["cache", "function"])
def test_collector_may_run_at_any_moment(kind):
    """With a collection at every allocation, and finalizers that use the cache, everything works and ends."""

    def use():
        cache, f = LRUCache(20), lru_cache(20)(lambda x, y=0: [x])

        class Cyclic:
            def __init__(self):
                self.me = self

            def __del__(self):
                cache[len(cache)] = 1 if kind == "cache" else f(3)
                cache.popitem()

        gc.set_threshold(1)
        try:
            for i in range(300):
                if kind == "cache":
                    cache[i] = Cyclic()
                    cache[(i, "x")] = (i,)
                    list(cache.items()), repr(cache), cache.copy(), cache.get((i, "x"))
                else:
                    f(Cyclic(), y=(i,)), f(i), f((i, i))
        finally:
            gc.set_threshold(700)
        cache._check()
        f._check()

    in_time(use, seconds=60)
