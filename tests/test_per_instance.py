"""`lru_cache(per_instance=True)`: a method's memory that lives and dies with each instance."""

import asyncio
import copy
import gc
import inspect
import pickle
import sys
import threading
import weakref
from dataclasses import dataclass, field

import pytest

from fastcache import ConfigurationError, lru_cache


class Plain:
    def __init__(self, value=0):
        self.value = value
        self.calls = []

    @lru_cache(maxsize=3, per_instance=True)
    def add(self, x, *, twice=False):
        """Add."""
        self.calls.append(x)
        return self.value + x * (2 if twice else 1)


class Slotted:
    __slots__ = ("__weakref__", "value")

    @lru_cache(per_instance=True)
    def get(self):
        return self.value


class Bare:
    __slots__ = ()

    @lru_cache(per_instance=True)
    def get(self):
        return 1


@dataclass(frozen=True)
class Frozen:
    value: int
    calls: list = field(default_factory=list, compare=False)

    @lru_cache(per_instance=True)
    def double(self):
        self.calls.append(1)
        return 2 * self.value


class Unhashable:
    __hash__ = None

    def __eq__(self, other):
        return True

    @lru_cache(per_instance=True)
    def me(self):
        return id(self)


@pytest.fixture(autouse=True)
def _clean():
    yield
    gc.collect()
    for cls in (Plain, Slotted, Frozen, Unhashable):
        for each in vars(cls).values():
            if hasattr(each, "_check"):
                each.cache_clear()
                each._check()


def test_results_are_remembered_for_each_instance():
    """Every instance has its own maxsize; one doesn't push out another's."""
    a, b = Plain(1), Plain(2)
    for _ in range(2):
        assert [a.add(x) for x in range(3)] == [1, 2, 3]
        assert [b.add(x) for x in range(3)] == [2, 3, 4]
    assert (a.calls, b.calls) == ([0, 1, 2], [0, 1, 2])
    assert Plain.add.cache_info() == (6, 6, 3, 6)
    assert a.add(3) == 4
    assert a.add(0) == 1  # was evicted
    assert b.add(0) == 2
    assert (a.calls, b.calls) == ([0, 1, 2, 3, 0], [0, 1, 2])
    assert a.add(1, twice=True) == 3
    assert Plain.add(a, 1, twice=True) == 3


def test_entries_die_with_their_instance():
    """An instance isn't kept alive, its results go with it, and its counts stay in the sums."""
    a, b = Plain(), Plain()
    value = weakref.ref(a)
    a.add(1)
    a.add(1)
    b.add(1)
    del a
    assert value() is None
    assert Plain.add.cache_info() == (1, 2, 3, 1)
    Plain.add._check()


def test_results_die_with_their_instance():
    """What was remembered is released with the instance."""

    class Thing:
        pass

    class A:
        @lru_cache(per_instance=True)
        def make(self):
            return Thing()

    a = A()
    result = weakref.ref(a.make())
    assert result() is not None
    del a
    assert result() is None


def test_instance_in_a_cycle_is_collected():
    """Also where a remembered result refers to the instance? That keeps it alive; a plain cycle doesn't."""
    a = Plain()
    a.me = a
    a.add(1)
    reference = weakref.ref(a)
    del a
    gc.collect()
    assert reference() is None
    assert Plain.add.cache_info().currsize == 0


def test_slots_need_weakref():
    """With `__weakref__` among them they work; without, the error says what to add."""
    a = Slotted()
    a.value = 5
    assert a.get() == a.get() == 5
    with pytest.raises(TypeError, match=r"Bare.*__weakref__.*__slots__"):
        Bare().get()
    with pytest.raises(TypeError, match=r"is for methods: .* of int;"):
        Plain.add(5, 1)
    with pytest.raises(TypeError, match="instance"):
        Plain.add()
    assert Bare.get.cache_info().currsize == 0


def test_equal_instances_are_told_apart():
    """Identity counts: frozen dataclasses that are equal, and instances without a hash."""
    a, b = Frozen(1), Frozen(1)
    assert a == b
    assert (a.double(), b.double(), a.double()) == (2, 2, 2)
    assert (a.calls, b.calls) == ([1], [1])
    c, d = Unhashable(), Unhashable()
    assert c.me() == id(c) != d.me()
    assert c.me() == id(c)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_an_instance_start_empty(make):
    """Nothing is stored on the instance, so pickling and copying see nothing; the copy has results of its own."""
    a = Plain(1)
    a.add(1)
    twin = make(a)
    assert vars(twin).keys() == {"value", "calls"}
    assert not Plain.add.cache_contains(twin, 1)
    twin.value = 100
    assert (twin.add(1), a.add(1)) == (101, 2)


def test_wrapper_looks_like_the_method():
    """Name, docstring, signature, pickling by name, copying by identity."""
    assert (Plain.add.__name__, Plain.add.__doc__) == ("add", "Add.")
    assert list(inspect.signature(Plain.add).parameters) == ["self", "x", "twice"]
    assert list(inspect.signature(Plain().add).parameters) == ["x", "twice"]
    assert copy.copy(Plain.add) is copy.deepcopy(Plain.add) is Plain.add
    assert Plain.add.cache_parameters() == {"maxsize": 3, "typed": False, "per_instance": True}


def test_contains_and_invalidate_name_the_instance():
    """One call on one instance, through the class or the bound method."""
    a, b = Plain(), Plain()
    a.add(1)
    b.add(1)
    assert Plain.add.cache_contains(a, 1)
    assert Plain.add.cache_invalidate(a, 1) is True
    assert Plain.add.cache_invalidate(a, 1) is False
    assert (Plain.add.cache_contains(a, 1), Plain.add.cache_contains(b, 1)) == (False, True)
    assert b.add.cache_invalidate(b, 1) is True
    assert Plain.add.cache_invalidate(Plain(), 1) is False
    a.add(2)
    Plain.add.cache_clear()
    assert Plain.add.cache_info() == (0, 0, 3, 0)
    assert not Plain.add.cache_contains(a, 2)


def test_options_work_together():
    """ttl, typed, key and single_flight, each for each instance; wrong ones fail at decoration."""

    class A:
        @lru_cache(maxsize=None, ttl=0.02, per_instance=True)
        def brief(self):
            return object()

        @lru_cache(typed=True, per_instance=True)
        def typed(self, x, y):
            return type(x)

        @lru_cache(key=lambda x: x % 10, per_instance=True)
        def modulo(self, x):
            return x

        @lru_cache(single_flight=True, per_instance=True)
        def flight(self, x):
            assert release.wait(20)
            return object()

    a, b = A(), A()
    first = a.brief()
    assert a.brief() is first
    while A.brief.cache_contains(a):
        pass
    assert A.brief.cache_info().currsize == 0
    assert a.brief() is not first
    assert (a.typed(1, 2), a.typed(1.0, 2)) == (int, float)
    assert (a.modulo(3), a.modulo(13), b.modulo(13)) == (3, 3, 13)
    release = threading.Event()
    results = []
    threads = [threading.Thread(target=lambda x=x: results.append((x, x.flight(1)))) for x in (a, a, a, b)]
    for thread in threads:
        thread.start()
    release.set()
    for thread in threads:
        thread.join(20)
    assert len({value for x, value in results if x is a}) == 1
    assert len({value for _, value in results}) == 2
    with pytest.raises(ConfigurationError):
        lru_cache(per_instance=True, ttl=0)


def test_wrapper_can_be_called_by_its_type_and_named():
    """As a function can: `type(f).__call__`, its repr, pickle by name."""
    a = Plain(1)
    assert type(Plain.add).__call__(Plain.add, a, 1, twice=True) == a.add(1, twice=True) == 3
    assert a.calls == [1]
    assert repr(Plain.add).startswith("<fastcache.lru_cache per instance of Plain.add at 0x")
    assert pickle.loads(pickle.dumps(Plain.add)) is Plain.add


def test_exception_of_a_method_reaches_the_caller_as_it_is():
    """And is not remembered."""

    class A:
        runs = 0

        @lru_cache(per_instance=True)
        def fail(self):
            self.runs += 1
            raise error

    error, a = LookupError("no"), A()
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            a.fail()
        assert caught.value is error
    assert (a.runs, A.fail.cache_info().currsize) == (2, 0)


def test_instance_that_is_called_while_its_memory_is_made_has_one_memory():
    """By a finalizer or another thread, say: what came first stays."""
    from fastcache._memo import Memo
    from fastcache._method import MethodMemo

    made, calls = [], []

    def make(reference):
        made.append(reference)
        if len(made) == 1:
            assert memos(a) == "value"
        return Memo(lambda: calls.append(1) or "value", maxsize=3)

    a, memos = Plain(), MethodMemo(make, {"maxsize": 3})
    assert memos(a) == memos(a) == "value"
    assert (len(made), len(calls), memos.cache_info()) == (2, 1, (2, 1, 3, 1))
    memos._check()


def test_reference_that_outlives_a_clearing_forgets_nothing_else():
    """The weak references of an instance can be had by anyone, and kept: its death concerns the memory of now alone."""
    a, b = Plain(), Plain()
    a.add(1)
    kept = weakref.getweakrefs(a)
    Plain.add.cache_clear()
    kept += weakref.getweakrefs(a)
    a.add(1), a.add(1), b.add(1)
    del a
    gc.collect()
    assert Plain.add.cache_info() == (1, 2, 3, 1)
    Plain.add.cache_clear()
    del b
    assert Plain.add.cache_info() == (0, 0, 3, 0)
    Plain.add._check()
    assert all(reference() is None for reference in kept)


def test_classmethod_remembers_for_each_class():
    """Below @classmethod the instance is the class."""

    class A:
        @classmethod
        @lru_cache(per_instance=True)
        def name(cls):
            calls.append(cls)
            return cls.__name__

    class B(A):
        pass

    calls = []
    assert [A.name(), B.name(), A().name(), B.name()] == ["A", "B", "A", "B"]
    assert calls == [A, B]


def test_async_method_may_be_called_on_a_temporary():
    """The run keeps the instance alive until it is done, and not longer."""

    class A:
        @lru_cache(per_instance=True)
        async def m(self, x):
            await asyncio.sleep(0)
            references.append(weakref.ref(self))
            return (type(self), x)

    async def main():
        a = A()
        assert await asyncio.gather(a.m(2), a.m(2), A().m(2)) == [(A, 2)] * 3
        assert len(references) == 2
        del a
        return await asyncio.create_task(A().m(1))

    references = []
    assert inspect.iscoroutinefunction(A.m)
    assert inspect.iscoroutinefunction(A().m)
    assert asyncio.run(main()) == (A, 1)
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert A.m.cache_info() == (1, 3, 128, 0)


def test_many_instances_at_reused_addresses():
    """Instances that come and go, most at an address that was used before: never another's result, nothing left."""
    living = []
    for i in range(20_000):
        a = Slotted()
        a.value = i
        assert a.get() == i
        if i % 10 == 0:
            living.append(a)
            if len(living) > 50:
                del living[i % 50]
    assert all(a.get() == a.value for a in living)
    del a
    assert Slotted.get.cache_info().currsize == len(living)
    Slotted.get._check()


def test_threads_with_instances_of_their_own_and_shared():
    """Instances made, called and dropped in several threads, one shared by all."""
    shared = Plain(7)
    errors = []

    def work():
        try:
            for i in range(3000):
                a = Plain(i)
                assert a.add(1) == i + 1
                assert a.add(1) == i + 1
                assert shared.add(i % 5) == 7 + i % 5
        except BaseException as error:
            errors.append(error)

    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Plain.add.cache_info().currsize == 3
    Plain.add._check()
