# cython: language_level=3
"""The slot, and the circular doubly-linked list that runs through an array of them: header-only.

The links are slot numbers, 4 bytes each. Slot 0 is the sentinel: its `next` is the most recently used entry, its `prev`
the least recently used one, and both are 0 when the list is empty. All functions are O(1) and run no Python code.
Nothing here knows of keys, hashing or limits.
"""
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

cdef struct Slot:
    Py_hash_t hash      # of the key, computed once when the entry was made
    PyObject* key       # owned; NULL in a free slot
    PyObject* value     # owned
    uint32_t prev       # towards the most recently used
    uint32_t next       # towards the least recently used; in a free slot: the next free one


cdef inline void unlink(Slot* slots, uint32_t s) noexcept nogil:
    cdef uint32_t prev = slots[s].prev
    cdef uint32_t next = slots[s].next
    slots[prev].next = next
    slots[next].prev = prev


cdef inline void link_front(Slot* slots, uint32_t s) noexcept nogil:
    cdef uint32_t head = slots[0].next
    slots[s].prev = 0
    slots[s].next = head
    slots[head].prev = s
    slots[0].next = s


cdef inline void move_to_front(Slot* slots, uint32_t s) noexcept nogil:
    if slots[0].next != s:
        unlink(slots, s)
        link_front(slots, s)
