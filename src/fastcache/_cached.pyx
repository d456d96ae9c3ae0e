# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The callable that `cached` puts in a function's place: from a call to the value that a cache has in memory.

It owns the hit: from the call to its key, through a memo, and from the key to the value in the cache's own map, behind the
cache's gate. So a hit makes no key and runs no Python code, and what it finds is exactly what the cache would: whatever
expires, evicts or invalidates there does so here. All else (a miss, a value with something beside it, a shut gate, arguments
that have no place in the memo, a cache without a map) is the business of `calls`, Python code in decorators.py. This file
must never make a key, run the user's function or keep a value.

Which calls the memo may hold. It is asked by equality and type of the arguments, the key is made from what they look like:
so only where equal arguments of equal types look equal, and always will. That is true of exact str, bytes, int, bool, None
and float, the zeros (0.0 == -0.0) and NaN left out, and of tuples of these whose items can't be equal across types: without
bool and float. Any other argument may change, or be equal to what has another key.
"""
cimport cython
from cpython.object cimport PyObject
from libc.math cimport INFINITY

from ._cpython cimport DECREF, INCREF, enable_vectorcall, handed_out, is_int, is_str, key_hash, raise_current
from ._gate cimport Gate, GatedLookup, is_open_at
from ._memo cimport Memo
from ._ttl cimport TTLCache, read_live

cdef extern from "Python.h":
    enum: PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyVectorcall_Call(object, object, object)
    object PyMethod_New(object, object)
    bint PyBytes_CheckExact(PyObject*) noexcept
    bint PyFloat_CheckExact(PyObject*) noexcept
    bint PyTuple_CheckExact(PyObject*) noexcept
    bint PyBool_Check(PyObject*) noexcept
    double PyFloat_AS_DOUBLE(PyObject*) noexcept
    Py_ssize_t PyTuple_GET_SIZE(PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t) noexcept
    PyObject* Py_None

cdef enum:
    DEEPEST = 4     # tuples in tuples; comparing deeper ones may run Python code (see `plain_equal`)
    MOST_SPARED = 16    # arguments of a call, some of which its key isn't made from


cdef inline bint is_plain_item(PyObject* o, int depth) noexcept:
    cdef Py_ssize_t i
    if is_str(o) or is_int(o) or PyBytes_CheckExact(o) or o == Py_None:
        return True
    if depth == 0 or not PyTuple_CheckExact(o):
        return False
    for i in range(PyTuple_GET_SIZE(o)):
        if not is_plain_item(PyTuple_GET_ITEM(o, i), depth - 1):
            return False
    return True


cdef inline bint is_plain_argument(PyObject* o) noexcept:
    if is_int(o) or is_str(o):
        return True
    if PyFloat_CheckExact(o):
        return PyFloat_AS_DOUBLE(o) > 0 or PyFloat_AS_DOUBLE(o) < 0
    return PyBool_Check(o) or is_plain_item(o, DEEPEST)


def is_plain(value):
    """Whether calls with such an argument have a place in the memo. O(items)."""
    return is_plain_argument(<PyObject*>value)


cdef object name_of(Cached wrapper):
    """For people. (A partial has no name, nor has an object that is called.)"""
    return getattr(wrapper, "__qualname__", None) or repr(getattr(wrapper, "__wrapped__", None))


@cython.final
@cython.trashcan(True)      # as Memo
cdef class Cached:
    """Not made by hand: see `cached`.

    calls: has `load(key, args, kwargs)` for all that isn't a hit, key None where it hasn't been made; `key`, `invalidate` and
        `refresh` of a call's arguments; and `cache`.
    keys: a Memo of `calls.key`, typed; None: calls are never looked up here.
    lookup: a GatedLookup over the cache's map; apart: the type of the values in it that are for `calls`. None without `keys`.
    ready: what it makes of the value of a hit is the caller's; None: the value itself.
    unused: bit i set: no key depends on argument i, if given by position. The memo gets None for it, so it may be anything, a
        method's `self` for example.
    """
    cdef PyObject* (*vectorcall)(Cached, PyObject**, size_t, PyObject*) noexcept
    cdef unsigned int unused
    cdef Memo keys
    cdef TTLCache map
    cdef Gate gate
    cdef object apart
    cdef object ready
    cdef object calls
    cdef object __weakref__
    cdef dict __dict__

    def __cinit__(self, calls, Memo keys, GatedLookup lookup, apart, ready, unsigned int unused=0):
        self.vectorcall = <PyObject* (*)(Cached, PyObject**, size_t, PyObject*) noexcept>call_any
        self.calls = calls
        self.ready = ready
        if keys is not None and lookup is not None:
            self.vectorcall = <PyObject* (*)(Cached, PyObject**, size_t, PyObject*) noexcept>call_mapped
            self.keys = keys
            self.map = lookup.map
            self.gate = lookup.gate
            self.apart = apart
            self.unused = unused

    def __call__(self, /, *args, **kwargs):
        # For `type(f).__call__(f, ...)` only; every other way of calling goes to `vectorcall`.
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        if instance is owner:
            # A classmethod above this, of Python 3.11 and 3.12; since 3.13 it makes a plain method by itself.
            return PyMethod_New(self, instance)
        return BoundCached.__new__(BoundCached, self, instance)

    def __repr__(self):
        return f"<fastcache.cached of {name_of(self)} at {<size_t><PyObject*>self:#x}>"

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo, /):
        return self

    @property
    def cache(self):
        """The cache that the results are in."""
        return self.calls.cache

    def cache_key(self, /, *args, **kwargs):
        """The key under which the result of this call is in the cache: a str."""
        return self.calls.key(*args, **kwargs)

    def invalidate(self, /, *args, **kwargs):
        """Forget the result of this call; one that is being loaded goes to those who wait for it and isn't stored.

        With the backend away the key isn't read from it until it has heard so. Of an `async def`: to be awaited.
        """
        return self.calls.invalidate(*args, **kwargs)

    def refresh(self, /, *args, **kwargs):
        """Run the function, whatever the cache has, store the result in its place and return it.

        Meanwhile others get the old one, which stays where the function raises. Of an `async def`: to be awaited.
        """
        return self.calls.refresh(*args, **kwargs)


cdef PyObject* call_mapped(Cached self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """A call where the cache has a map: the value in it, else what `calls` makes of the call."""
    cdef Py_ssize_t i, n = <Py_ssize_t>(nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET)
    cdef double now = -INFINITY
    cdef PyObject* found = NULL
    cdef PyObject** given = args
    cdef PyObject* used[MOST_SPARED]
    cdef object key = None
    if not is_open_at(self.gate, &now):
        return load(self, None, args, nargsf, kwnames)
    if kwnames != NULL:
        n += PyTuple_GET_SIZE(kwnames)
    if self.unused and n <= MOST_SPARED:
        given = used
        for i in range(n):
            used[i] = args[i]
        for i in range(n if kwnames == NULL else n - PyTuple_GET_SIZE(kwnames)):
            if self.unused >> i & 1:
                used[i] = Py_None
    for i in range(n):
        if not is_plain_argument(given[i]):
            return load(self, None, args, nargsf, kwnames)
    # Without the offset: args[-1] is the caller's, and not the memo's to lend on.
    found = self.keys.vectorcall(self.keys, given, nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET, kwnames)
    if found == NULL:
        raise_current()
    key = <object>found
    DECREF(found)
    found = read_live(self.map, <PyObject*>key, key_hash(<PyObject*>key), now, <PyObject*>self.apart)
    if found == NULL:
        return load(self, key, args, nargsf, kwnames)
    return handed_out(found, <PyObject*>self.ready)


cdef PyObject* call_any(Cached self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """A call where there is nothing to look up here."""
    return load(self, None, args, nargsf, kwnames)


cdef PyObject* load(Cached self, object key, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """Leave a call to `calls`, with its arguments as objects."""
    cdef Py_ssize_t i, n = <Py_ssize_t>(nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET)
    cdef list positional = []
    cdef dict keywords = {}
    for i in range(n):
        positional.append(<object>args[i])
    if kwnames != NULL:
        for i in range(PyTuple_GET_SIZE(kwnames)):
            keywords[<object>PyTuple_GET_ITEM(kwnames, i)] = <object>args[n + i]
    value = self.calls.load(key, tuple(positional), keywords)
    INCREF(<PyObject*>value)
    return <PyObject*>value


@cython.final
cdef class BoundCached:
    # A cached method bound to an instance: its methods are those of the function, the instance put first. (No docstring: that
    # would be every method's.)
    cdef readonly Cached __func__
    cdef readonly object __self__
    cdef object __weakref__

    def __cinit__(self, Cached function not None, instance, /):
        self.__func__ = function
        self.__self__ = instance

    def __call__(self, /, *args, **kwargs):
        return self.__func__(self.__self__, *args, **kwargs)

    def __get__(self, instance, owner):
        return self     # as a bound method's

    def cache_key(self, /, *args, **kwargs):
        """See `Cached.cache_key`."""
        return self.__func__.calls.key(self.__self__, *args, **kwargs)

    def invalidate(self, /, *args, **kwargs):
        """See `Cached.invalidate`."""
        return self.__func__.calls.invalidate(self.__self__, *args, **kwargs)

    def refresh(self, /, *args, **kwargs):
        """See `Cached.refresh`."""
        return self.__func__.calls.refresh(self.__self__, *args, **kwargs)

    @property
    def __doc__(self):
        return self.__func__.__doc__

    @property
    def __signature__(self):
        from inspect import signature
        return signature(PyMethod_New(self.__func__, self.__self__))

    def __getattr__(self, name):
        return getattr(self.__func__, name)

    def __eq__(self, other):
        if not isinstance(other, BoundCached):
            return NotImplemented
        return self.__func__ is (<BoundCached>other).__func__ and self.__self__ is (<BoundCached>other).__self__

    def __hash__(self):
        return hash((id(self.__func__), id(self.__self__)))

    def __repr__(self):
        return f"<bound fastcache.cached of {name_of(self.__func__)} of {self.__self__!r}>"

    def __reduce__(self):
        return getattr, (self.__self__, self.__func__.__name__)


# Before anyone can make a subclass or an instance. A method is called without its BoundCached.
cdef Cached _sample = Cached.__new__(Cached, None, None, None, None, None)
enable_vectorcall(Cached, <char*>&_sample.vectorcall - <char*><PyObject*>_sample, True)
