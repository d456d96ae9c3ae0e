# cython: language_level=3
"""`LRUCache` as other compiled modules see it: a table, a limit, and the seams where `TTLCache` steps in."""
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from ._table cimport Entry, Table

# Which methods a Python subclass replaced, so that compiled code must call them.
cdef enum Overrides:
    GETSIZEOF = 1
    POPITEM = 2
    DELITEM = 4
    ITEM_ACCESS = 8     # __getitem__, __setitem__ or __contains__
    EXPIRE = 16         # of TTLCache


cdef class LRUCache(Table):
    cdef object _maxsize        # as given; None: unbounded
    cdef object _bound          # the same as a number, infinite when unbounded
    cdef object _getsizeof      # a function of the value; None: every entry weighs 1
    cdef object _on_evict       # a function (key, value, cause), or None
    cdef object _total          # the sum of all weights; only when `weighted`
    cdef bint miscounted        # or not: arithmetic on weights failed, and they have to be summed up
    cdef unsigned int overrides  # which methods a Python subclass replaced (enum Overrides)
    cdef int evicting           # how many threads have a subclass's popitem() make room

    # The seams: what has a sense of time replaces these. In an LRU map every entry is alive.
    cdef type compiled_type(self)                           # the class that Python subclasses are compared with
    cdef int tick(self) except -1                           # read the clock, once per operation; may run a user's timer
    cdef int prepare(self) except -1                        # tick, before a change
    cdef bint alive(self, uint32_t s) noexcept              # as of the last tick
    cdef Py_ssize_t count(self) except -1                   # live entries
    cdef object weight(self)                                # of the live entries
    cdef int sweep(self, list gone) except -1               # remove what expired
    cdef int foresee(self, double ttl) except -1            # make room for what `stamp` notes, so that it can't fail
    cdef int stamp(self, uint32_t s, double ttl) noexcept   # note when a stored entry expires; NaN: by the default
    cdef double life(self, uint32_t s) noexcept             # seconds left to an entry; infinite without an end

    # What the methods are made of. `gone` collects (key, value, cause) for on_evict; None where nobody listens.
    cdef int configure(self, object maxsize, object getsizeof, object on_evict) except -1
    cdef int set_limit(self, object maxsize, object bound, uint32_t limit) noexcept
    cdef list listener(self)
    cdef int notify(self, list gone) except -1
    cdef int report(self, list gone) except -1
    cdef bint fits(self, object bound, uint32_t limit) except -1
    cdef int store_in_turns(
        self, PyObject* k, Py_hash_t hash, PyObject* v, object weight, double ttl, PyObject** present, list gone) except -1
    cdef int drop(self, Entry entry, str cause, list gone) except -1
    cdef int drop_all(self, Entry* entries, uint32_t n, str cause, list gone) except -1
    cdef int recount(self) except -1
    cdef int evict(self, list gone) except -1
    cdef int call_popitem(self) except -1
    cdef object size_of(self, object value)
    cdef int store(self, object key, object value, double ttl, PyObject** present) except -1
    cdef bint is_present(self, uint32_t s, PyObject** present) noexcept
    cdef bint try_store(
        self, PyObject* key, Py_hash_t hash, PyObject* value, double ttl, PyObject** present, list gone) except -1
    cdef bint try_store_weighted(
        self, PyObject* key, Py_hash_t hash, PyObject* value, object weight, double ttl, PyObject** present,
        list gone) except -1
    cdef object read(self, object key, bint touch)          # the value of a live entry, or ABSENT
    cdef object remove(self, object key)                    # the same, taken out
    cdef uint64_t edits(self) noexcept                      # changes other than by the passing of time
    cdef list flat(self, bint whole)
    cdef list entries(self)                                 # [(key, value)] of the live ones, least recently used first
