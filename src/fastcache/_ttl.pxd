# cython: language_level=3
"""`TTLCache` as other compiled modules see it: the LRU map, a clock, and the order in which its entries expire.

Two structures hold that order. Entries of the cache's own ttl expire in the order of their insertion: a list through the
array `expiry` (_expiry.pxd), O(1) for everything. Entries with a ttl of their own go into a heap of nodes that are deleted
lazily: a node counts only while its entry carries the same ticket, and when more than half are void the heap is rebuilt.
So storing costs O(1), or O(log n) with a ttl of its own, and a sweep O(expired), never O(entries).

All times are doubles on one axis, in the units of the timer: seconds for numbers, microseconds for datetimes (exact).
"""
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from ._clock cimport coarse_now
from ._cpython cimport INCREF, Section, section_begin, section_end
from ._links cimport move_to_front
from ._lru cimport LRUCache
from ._table cimport lookup

# When one entry with a ttl of its own expires. Void unless expiry[slot] has no place in the list and the same ticket.
cdef struct Node:
    double deadline
    uint32_t slot
    uint32_t ticket


cdef class TTLCache(LRUCache):
    cdef object _ttl            # as given
    cdef object _timer          # the user's; None: the coarse or the precise clock
    cdef object origin          # a first reading of a timer whose readings are no numbers, else None
    cdef object base            # subtracted from readings that are numbers: large ints, as of time_ns, have no exact double
    cdef double lifetime        # _ttl on the axis
    cdef double now             # as of the last tick; never goes back
    cdef double offset          # from the precise clock to the axis
    cdef bint precise
    cdef Node* heap             # 4-ary: the children of i are 4i+1 .. 4i+4, a cache line
    cdef uint32_t heap_size
    cdef uint32_t heap_capacity
    cdef uint32_t heap_rebuild  # the size at which void nodes are thrown out
    cdef uint32_t ticket        # the last one given

    cdef int set_clock(self, object ttl, object timer) except -1
    cdef double clock(self) noexcept
    cdef int be_precise(self) noexcept
    cdef double span(self, object duration) except? -1
    cdef double reading(self, object time) except? -1
    cdef double seconds(self, double span) noexcept
    cdef bint is_void(self, Node node) noexcept
    cdef double next_deadline(self) noexcept
    cdef Py_ssize_t sweep_until(self, double now, list gone, Py_ssize_t most=?) except -1
    cdef uint32_t batch_from_list(self, double now, uint32_t* batch) noexcept
    cdef uint32_t batch_from_heap(self, double now, uint32_t* batch) noexcept
    cdef int push(self, uint32_t s, double deadline) noexcept
    cdef Node pop(self) noexcept
    cdef int rebuild(self) noexcept
    cdef list expired(self)


cdef extern from "Python.h":
    PyObject* type_of "(PyObject *)Py_TYPE"(PyObject*) noexcept


cdef inline PyObject* read_live(TTLCache map, PyObject* key, Py_hash_t hash, double coarse, PyObject* apart) except? NULL:
    """The value of a live key as a new reference, now most recently used and counted as a hit; NULL, and a miss, otherwise.

    `coarse` is a reading of the coarse clock, where the caller has one already; minus infinity otherwise. `apart` is NULL, or
    a type: then values of that type aren't returned, and nothing but hits is counted, because the caller will look again.
    Methods that a Python subclass replaced aren't asked. May run the `__eq__` of keys of equal hash, and a user's timer.
    """
    cdef Py_ssize_t s
    cdef Section section
    cdef PyObject* value = NULL
    cdef double now = coarse
    cdef bint timed = map._timer is not None
    if timed:
        map.tick()
    section_begin(&section, map)
    try:
        if not timed:
            if map.precise:
                now = map.clock()
            elif now < 0:
                now = coarse_now()
            if now > map.now:
                map.now = now
        s = lookup(map, key, hash)
        if s and map.now < map.expiry[s].deadline and (apart == NULL or type_of(map.slots[s].value) != apart):
            move_to_front(map.slots, s)
            map.hits += 1
            value = map.slots[s].value
            INCREF(value)
        elif apart == NULL:
            map.misses += 1
    finally:
        section_end(&section)
    return value
