"""What `lru_cache` puts in a function's place: as an object, as a callable, and as a method of a class."""

import copy
import functools
import gc
import inspect
import pickle
import types
import weakref

import pytest

from fastcache import lru_cache
from fastcache._memo import Memo


class Counted:
    """A function that counts its runs and returns its arguments."""

    def __init__(self):
        self.runs = 0

    def __call__(self, /, *args, **kwargs):
        self.runs += 1
        return args, kwargs


@lru_cache
def module_level(x):
    """Here for pickling."""
    return x


# As a callable


def test_wrapper_is_dressed_as_the_function():
    """Name, docs, annotations, signature and attributes are the function's; __wrapped__ is the function."""

    def f(a, /, b: int = 2, *, c="c") -> str:
        """Doc."""

    f.attribute = "kept"
    wrapper = lru_cache(f)
    for name in functools.WRAPPER_ASSIGNMENTS:
        assert getattr(wrapper, name) == getattr(f, name)
    assert inspect.signature(wrapper) == inspect.signature(f)
    assert wrapper.__wrapped__ is f
    assert wrapper.attribute == "kept"
    assert callable(wrapper)
    assert inspect.isroutine(wrapper.cache_info)
    assert "test_wrapper_is_dressed_as_the_function.<locals>.f" in repr(wrapper)
    for method, text in [("cache_info", "()"), ("cache_clear", "()"), ("cache_parameters", "()")]:
        assert str(inspect.signature(getattr(wrapper, method))) == text
    for method in ("cache_invalidate", "cache_contains"):
        assert str(inspect.signature(getattr(wrapper, method))) == "(*args, **kwargs)"


@pytest.mark.parametrize(
    "call",
    [
        lambda f: type(f).__call__(f, 1, k=2),
        lambda f: f.__call__(1, k=2),
        lambda f: functools.partial(f, 1)(k=2),
        lambda f: functools.partial(f, 1, k=2)(),
        lambda f: functools.partial(f, k=2)(1),
        lambda f: f(*[1], **dict(k=2)),  # noqa: C408
        lambda f: lru_cache(f)(1, k=2),
        lambda f: types.MethodType(f, 1)(k=2),
        lambda f: next(map(functools.partial(f, k=2), [1])),
    ],
)
def test_wrapper_can_be_called_every_way(call):
    """tp_call, vectorcall, through a partial, a method or another cache: one and the same call."""
    run = Counted()
    f = lru_cache(run)
    assert f(1, k=2) == call(f) == ((1,), {"k": 2})
    assert run.runs == 1


def test_key_of_a_call_shows_what_it_is_made_of():
    """It is what shared runs are given, with the arguments."""
    memo = Memo(len, maxsize=3, runs=lambda memo, key, args, kwargs: (repr(key), args, kwargs))
    assert memo("a") == ("<CallKey 'a'>", ("a",), {})
    assert memo(1, b=2) == ("<CallKey (1, 2, ('b',))>", (1,), {"b": 2})


def test_wrapper_maps_and_sorts():
    """C code of the interpreter calls it well."""
    f = lru_cache(maxsize=2)(lambda x: -x)
    assert list(map(f, [1, 2, 1, 3])) == [-1, -2, -1, -3]
    assert sorted([1, 2, 3], key=f) == [3, 2, 1]
    assert list(filter(f, [0, 1])) == [1]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_wrapper_pickles_by_name(protocol):
    """Pickle finds the very wrapper again; copies are the wrapper itself; what has no name can't be pickled."""
    assert pickle.loads(pickle.dumps(module_level, protocol)) is module_level
    assert copy.copy(module_level) is copy.deepcopy(module_level) is module_level
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(lru_cache(lambda: 1), protocol)


def test_wrapper_is_final_with_attributes_and_weak_references():
    """No subclasses, as functools; attributes and weak references, as a function."""
    f = lru_cache(lambda: 1)
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (type(f),), {})
    f.note = 1
    assert f.__dict__["note"] == 1
    reference = weakref.ref(f)
    del f
    gc.collect()
    assert reference() is None


# In a class


def test_method_is_cached_per_instance():
    """self is the first argument of the call; the cache is the class's."""

    class A:
        @lru_cache(maxsize=10)
        def m(self, x, y=0):
            return self, x, y

    a, b = A(), A()
    assert a.m(1) == (a, 1, 0)
    assert a.m(1) == A.m(a, 1) == a.m.__func__(a, 1)
    assert b.m(1) == (b, 1, 0)
    assert A.m.cache_info() == a.m.cache_info() == (3, 2, 10, 2)
    assert A.m.cache_invalidate(a, 1)
    assert not a.m.cache_contains(a, 1)
    assert A.m.cache_contains(b, 1)
    bound = a.m
    assert bound(2) is bound(2)
    assert bound.__self__ is a
    assert isinstance(bound, types.MethodType)
    assert A.__dict__["m"].__get__(None, A) is A.m


def test_static_and_class_methods_are_cached():
    """In either order of the decorators that Python allows."""

    class A:
        runs = 0

        @staticmethod
        @lru_cache
        def s(x):
            A.runs += 1
            return x

        @classmethod
        @lru_cache
        def c(cls, x):
            A.runs += 1
            return cls, x

        @property
        @lru_cache
        def p(self):
            A.runs += 1
            return self

    class B(A):
        pass

    a = A()
    assert A.s(1) == a.s(1) == B.s(1) == 1
    assert A.c(1) == a.c(1) == (A, 1)
    assert B.c(1) == (B, 1)
    assert a.p is a.p is a
    assert A.runs == 4


def test_descriptor_needs_no_owner():
    """__get__ binds to any instance but None."""
    f = lru_cache(lambda *args: args)
    assert f.__get__(5, int)(6) == (5, 6)
    assert f.__get__(None, int) is f
