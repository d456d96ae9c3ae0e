# cython: language_level=3
"""`Gate` and `GatedLookup` as other compiled modules see them: a time until which something may be relied on.

The time is on the axis of `coarse_now()` (_clock.pxd) and lies in one double, written by one thread and read by many:
relaxed atomics on both sides, which on common machines are plain moves.
"""
cimport cython
from cpython.object cimport PyObject
from libc.math cimport INFINITY

from ._clock cimport coarse_now
from ._ttl cimport TTLCache

cdef extern from *:
    """
    #ifndef FASTCACHE_GATE_H
    #define FASTCACHE_GATE_H
    #if defined(__GNUC__) || defined(__clang__)
    static inline double fc_load_double(const double *p) { double v; __atomic_load(p, &v, __ATOMIC_RELAXED); return v; }
    static inline void fc_store_double(double *p, double v) { __atomic_store(p, &v, __ATOMIC_RELAXED); }
    #else       /* aligned doubles are read and written whole */
    static inline double fc_load_double(const double *p) { return *(const volatile double *)p; }
    static inline void fc_store_double(double *p, double v) { *(volatile double *)p = v; }
    #endif
    #endif
    """
    double load_double "fc_load_double"(const double* p) noexcept nogil
    void store_double "fc_store_double"(double* p, double v) noexcept nogil


@cython.final
cdef class Gate:
    cdef double closes      # on the axis of coarse_now(); infinite: never; minus infinity: it is shut
    cdef double given       # the same as a reading of time.monotonic(), as it was given


cdef inline bint is_open(Gate gate) noexcept nogil:
    """O(1), runs no Python code. Reads the clock only where the answer depends on the time."""
    cdef double closes = load_double(&gate.closes)
    return closes == INFINITY or (closes > -INFINITY and coarse_now() < closes)


cdef inline bint is_open_at(Gate gate, double* now) noexcept nogil:
    """The same, for who looks something up then: `now` gets the reading of the clock, if there was need for one."""
    cdef double closes = load_double(&gate.closes)
    if closes == INFINITY:
        return True
    now[0] = coarse_now()
    return now[0] < closes


@cython.final
cdef class GatedLookup:
    cdef PyObject* (*vectorcall)(GatedLookup, PyObject**, size_t, PyObject*) noexcept
    cdef readonly TTLCache map
    cdef readonly Gate gate
