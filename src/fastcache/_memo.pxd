# cython: language_level=3
"""`Memo` as other compiled modules see it: what a remembered function is made of."""
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ._table cimport Table

cdef class Memo(Table)

# A vectorcallfunc of CPython, with the type of its first argument named.
ctypedef PyObject* (*EntryPoint)(Memo, PyObject**, size_t, PyObject*) noexcept

cdef struct Call:
    # A call as a key, in the caller's own array.
    PyObject** args         # n objects: the positional arguments, then the values of the keywords
    Py_ssize_t n
    PyObject* kwnames       # a tuple of the keywords' names; NULL without any
    PyObject* single        # the key, where it is one object: an exact int or str, or what `key=` returned; else NULL
    Py_hash_t hash


# What cache_info() tells of a memo.
cdef struct Counts:
    int64_t hits
    int64_t misses
    int64_t size            # entries that have not expired


@cython.final
cdef class CallKey:
    cdef object key
    cdef Py_hash_t hash
    cdef uint64_t clears    # of the memo, when the call missed


@cython.final
cdef class Memo(Table):
    cdef EntryPoint vectorcall      # one of the entry points below
    cdef EntryPoint equal_str       # the same for a str that isn't the stored object
    cdef EntryPoint single          # and for any other single argument
    cdef EntryPoint otherwise       # and for any other call. Through pointers, so that the entry point stays small
    cdef object function        # the user's
    cdef object key             # a function of the call's arguments that gives its key, or None
    cdef object runs            # called as runs(self, CallKey, args, kwargs) on a miss, in the function's place; or None
    cdef object ready           # what it makes of the value of a hit is the caller's; None: the value itself
    cdef object maxsize         # as cache_info() shows it
    cdef uint64_t clears        # how often cache_clear() was called
    cdef double ttl             # seconds; infinite without one
    cdef bint typed
    cdef bint is_python         # the function is one, and guards itself against endless recursion
    cdef bint precise           # by which clock entries expire
    cdef dict __dict__

    cdef CallKey key_of(self, tuple args, dict kwargs)
    cdef double now(self) noexcept
    cdef bint alive(self, Py_ssize_t s) noexcept
    cdef uint32_t expired(self) noexcept
    cdef Counts counts(self) noexcept
    cdef int insert(self, object key, Py_hash_t hash, object value, uint64_t changes, list kept) except -1
