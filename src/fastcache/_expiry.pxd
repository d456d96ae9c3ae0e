# cython: language_level=3
"""The order of expiry among entries of one and the same lifetime: header-only.

It is the order of their insertion, kept as a second circular list through the array `expiry` beside the slots. Element 0 is
the sentinel: its `next` expires first. An entry that has no place in the order links to itself. All functions are O(1).
"""
from libc.stdint cimport uint32_t

from ._table cimport Expiry


cdef inline void expiry_append(Expiry* expiry, uint32_t s, double deadline) noexcept nogil:
    """Add an entry that expires after all others."""
    cdef uint32_t last = expiry[0].prev
    expiry[s].deadline = deadline
    expiry[s].prev = last
    expiry[s].next = 0
    expiry[last].next = s
    expiry[0].prev = s


cdef inline void expiry_remove(Expiry* expiry, uint32_t s) noexcept nogil:
    """Take an entry out of the order, if it is there."""
    cdef uint32_t prev = expiry[s].prev
    cdef uint32_t next = expiry[s].next
    expiry[prev].next = next
    expiry[next].prev = prev
    expiry_detach(expiry, s)


cdef inline void expiry_detach(Expiry* expiry, uint32_t s) noexcept nogil:
    """Mark a new entry as having no place in the order."""
    expiry[s].prev = expiry[s].next = s
