"""`lru_cache(per_instance=True)` in the last moments of an instance: finalizers, dying classes, resurrection."""

import gc
import weakref

from fastcache import lru_cache


def test_finalizer_may_call_the_method():
    """By reference count and by the collector; no memory of the dead instance is left."""
    results = []

    class A:
        @lru_cache(per_instance=True)
        def m(self, x):
            return (type(self).__name__, x)

        def __del__(self):
            results.append((self.m(1), self.m(2)))

    a = A()
    a.m(1)
    del a
    a = A()
    a.m(1)
    a.me = a
    del a
    gc.collect()
    A()  # never called before
    assert results == [(("A", 1), ("A", 2))] * 3
    assert A.m.cache_info().currsize == 0
    A.m._check()


def test_instances_that_die_unannounced_are_never_more_than_the_living():
    """CPython >= 3.14 doesn't tell of one in a cycle whose finalizer called the method: its results go all the same."""
    results = set()

    class A:
        @lru_cache(per_instance=True)
        def m(self, x):
            results.add(result := Result())
            return result

        def __del__(self):
            self.m(1)

    class Result:
        pass

    alive = weakref.WeakSet()
    for _ in range(200):
        a = A()
        alive.add(a.m(1))
        a.me = a
        alive.add(a.m(2))
        results.clear()
    del a
    gc.collect()
    results.clear()
    kept = [A() for _ in range(100)]
    for a in kept:
        a.m(1)
    results.clear()
    gc.collect()
    assert len(alive) == 0
    assert A.m.cache_info().currsize == 100
    A.m._check()


def test_finalizer_may_call_the_method_when_the_class_dies_too():
    """Then the collector clears the weak reference without telling; the instance is still itself."""
    results = []

    def make():
        class A:
            @lru_cache(per_instance=True)
            def m(self, x):
                return (self.name, x)

            def __del__(self):
                results.append((self.m(1), self.m(2)))

        a = A()
        a.name = "a"
        a.me = a
        a.m(1)

    make()
    gc.collect()
    assert results == [(("a", 1), ("a", 2))]


def test_resurrected_instance_leaves_no_wrong_memory():
    """An instance and its class that come back to life have lost their memory, not their identity; nor has another."""
    saved = []

    def make():
        class A:
            @lru_cache(per_instance=True)
            def m(self):
                return self.name

            def __del__(self):
                if not saved:
                    saved.append(self)

        a = A()
        a.name = "old"
        a.me = a
        a.m()

    make()
    gc.collect()
    (a,) = saved
    cls = type(a)
    a.name = "new"
    assert a.m() == "new"
    address = id(a)
    saved.append("no more")
    a.me = None
    saved[0] = None
    del a
    for i in range(1000):
        b = cls()
        b.name = i
        assert b.m() == i
        if id(b) == address:
            break
        saved.append(b)
    cls.m._check()


def test_arguments_in_a_tuple_are_left_alone():
    """A call with *args, whose key function is a bound method, must not lend the caller's tuple to it."""
    seen = []

    class Keys:
        def key(self, x):
            seen.append(args[0] is a)
            return x

    class A:
        @lru_cache(per_instance=True, key=Keys().key)
        def m(self, x):
            return x

    a = A()
    args = (a, 1)
    assert A.m(*args) == 1
    assert seen == [True]
