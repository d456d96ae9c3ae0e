# cython: language_level=3
"""The order of expiry among entries of one and the same lifetime: header-only.

It is the order of their insertion, kept as a second circular list through the array `expiry` beside the slots. Element 0 is
the sentinel: its `next` expires first. An entry without a place in the order has itself as `prev`, and its `next` is free for
other use. All functions are O(1) and run no Python code.
"""
from libc.stdint cimport uint32_t

from ._table cimport Expiry


cdef inline void expiry_append(Expiry* expiry, uint32_t s, double deadline) noexcept nogil:
    """Give an entry that has none the last place in the order."""
    cdef uint32_t last = expiry[0].prev
    expiry[s].deadline = deadline
    expiry[s].prev = last
    expiry[s].next = 0
    expiry[last].next = s
    expiry[0].prev = s


cdef inline void expiry_remove(Expiry* expiry, uint32_t s) noexcept nogil:
    """Take an entry's place away, if it has one."""
    cdef uint32_t prev = expiry[s].prev
    cdef uint32_t next = expiry[s].next
    if prev != s:
        expiry[prev].next = next
        expiry[next].prev = prev
        expiry[s].prev = s
