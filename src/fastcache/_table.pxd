# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The hash table of slots under every cache of this package: its fields, and the operations that are inlined.

Layout. One array of 32-byte slots {hash, key, value, prev, next} and one array of 4-byte slot numbers, the index, of a
power of two in size and at most two thirds full. An entry costs 32 bytes and 6 to 12 in the index; a linked list of
objects in a dict, as in functools, 116. Slots are filled in order and reused through a free list, so growing is one
`realloc`; only the index is ever rehashed. What not every cache needs lies in arrays of its own beside the slots
(`weights`, `expiry`), so that a slot stays half a cache line.

Probing is linear, from the top bits of hash * 2**64/phi (Knuth, TAOCP 3, 6.4): small ints are their own hashes, and
unmixed they cluster, three times slower on a mix of ints and strings. Deletion shifts the followers of the hole back
instead of leaving a tombstone, so a cache that evicts all day needs no rehash.

Re-entrancy. `__hash__`, `__eq__` and `__del__` of keys and values may use this very table. Therefore:
  1. a hash is computed before the table is touched;
  2. around a compare that may run Python code the stored key is held, and afterwards `moves` and the slot are looked at
     again (`find_foreign`); compares of exact str and int run no Python code and skip that;
  3. no pointer into `slots` or `index` is kept across such a call: both may have been reallocated;
  4. removal goes by slot number, never by key: it compares nothing and can't fail;
  5. what was removed is released by the caller, once the structure is whole again.

Threads. With the GIL these rules are enough. Without it every public operation runs in a critical section of the
table; a compare that suspends the section is covered by rule 2. Hits may do without the section (_readers.pxd): between
`read_begin` and `read_end` the table doesn't change, if whoever changes it keeps them out (`exclude_readers`).
"""
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stddef cimport size_t

from ._cpython cimport DECREF, XDECREF, likely, plain_equal
from ._links cimport Slot, link_front, move_to_front
from ._readers cimport STRIPES, Readers, Stripe, load_stripe, note_use, own_place, place_of, try_lock, unlock

cdef enum:
    MAX_ENTRIES = 0x7FFFFFF0    # slot numbers are 32 bits wide, and the index holds up to 2**32 of them

# When an entry expires, and its neighbours in the order of expiry (_expiry.pxd).
cdef struct Expiry:
    double deadline     # on the cache's own time axis, in seconds; infinite: never
    uint32_t prev       # the one that expires before; the entry itself: it has no place in the order
    uint32_t next       # the one that expires after; without a place in the order: what its owner likes

# What was taken out of the table and is now the caller's to release. `weight` is NULL without weights.
cdef struct Entry:
    PyObject* key
    PyObject* value
    PyObject* weight

# All arrays of a table at once, detached from it by `detach_all`.
cdef struct Contents:
    Slot* slots
    void* block
    uint32_t* index
    PyObject** weights
    Expiry* expiry
    uint32_t top
    bint owns_index


cdef class Table:
    # The structure
    cdef Slot* slots            # slot 0 is the sentinel of the list; NULL while nothing was ever stored
    cdef void* block            # the allocation that the slots lie in
    cdef uint32_t* index        # slot numbers; 0: empty. Points to a shared pair of zeros while nothing is stored
    cdef PyObject** weights     # beside the slots, owned objects; NULL unless `weighted`
    cdef Expiry* expiry         # beside the slots; NULL unless `expiring`
    cdef size_t mask            # size of the index - 1
    cdef unsigned int shift     # 64 - log2(size of the index)
    cdef uint32_t used          # entries
    cdef uint32_t capacity      # slots allocated, the sentinel not counted
    cdef uint32_t top           # slots 1..top have been in use
    cdef uint32_t free          # the first of the freed slots, chained by `next`; 0: none
    cdef uint32_t limit         # entries allowed; the arrays never grow past it
    cdef bint ordered           # keep the list; an unbounded memo has no use for it
    cdef bint weighted
    cdef bint expiring
    cdef Readers readers        # who may be reading without the section
    # What others watch
    cdef uint64_t moves         # index positions changed: a probe in progress must start again
    cdef uint64_t changes       # entries were added or removed: an answer to "is this key here" is out of date
    # Counters, since the cache was made
    cdef int64_t hits
    cdef int64_t misses
    cdef int64_t evictions
    cdef int64_t expirations
    cdef object __weakref__
    cdef object _gc             # never set; gives the type a tp_traverse, which _table.pyx extends to the slots

    # Look up, when compares may run Python code: the slot, 0 when absent.
    cdef Py_ssize_t find_foreign(self, PyObject* key, Py_hash_t hash) except -1
    # Make room for one more entry in the arrays, so that `place` can't fail.
    cdef int reserve(self) except -1
    # Take an entry out.
    cdef Entry take(self, uint32_t s) noexcept
    # Take everything out at once, in O(1).
    cdef Contents detach_all(self) noexcept
    # Begin to read where `read_begin` can't: wait, or make the stripe of this thread.
    cdef Stripe* read_slowly(self) except NULL
    # Keep readers out, after those that are reading; bring the counters and the list up to date with them.
    cdef int stop_readers(self) noexcept


cdef void release_all(Contents contents) noexcept


cdef inline void release(Entry entry) noexcept:
    """Drop the references of a removed entry; may run any code."""
    DECREF(entry.key)
    DECREF(entry.value)
    XDECREF(entry.weight)


cdef inline size_t home(Table t, Py_hash_t hash) noexcept:
    """The index position where the search for a hash begins."""
    return <size_t>((<uint64_t>hash * <uint64_t>0x9E3779B97F4A7C15) >> t.shift)


cdef inline Py_ssize_t lookup(Table t, PyObject* key, Py_hash_t hash) except -1:
    """The slot of any key, 0 when absent: O(1) expected. May run the `__eq__` of keys of equal hash."""
    cdef size_t i = home(t, hash)
    cdef uint32_t s
    cdef int equal
    while True:
        s = t.index[i]
        if s == 0:
            return 0
        if t.slots[s].hash == hash:
            equal = plain_equal(t.slots[s].key, key)
            if likely(equal == 1):
                return s
            if equal < 0:
                return t.find_foreign(key, hash)
        i = (i + 1) & t.mask


cdef inline uint32_t place(Table t, PyObject* key, Py_hash_t hash, PyObject* value) noexcept:
    """Add a key known to be absent, most recently used; `reserve` came before. Takes over both references."""
    cdef uint32_t s = t.free
    cdef size_t i = home(t, hash)
    if s:
        t.free = t.slots[s].next
    else:
        t.top += 1
        s = t.top
    while t.index[i]:
        i = (i + 1) & t.mask
    t.index[i] = s
    t.slots[s].hash = hash
    t.slots[s].key = key
    t.slots[s].value = value
    if t.ordered:
        link_front(t.slots, s)
    if t.expiring:
        t.expiry[s].prev = s
    t.used += 1
    t.changes += 1
    return s


# Reading without the section. The stripe that `read_begin` returns goes to `count_hit`, `count_miss` and `read_end`; NULL
# means that it isn't to be had at once. On builds with the GIL it is never NULL, and nothing but a token.

cdef inline Stripe* read_begin(Table t) noexcept:
    cdef Stripe* stripe
    if STRIPES:  # pragma: no cover (without the GIL only)
        stripe = <Stripe*>load_stripe(own_place(&t.readers))
        if stripe == NULL or not try_lock(&stripe.busy):
            return NULL
        if stripe.room < t.capacity:
            unlock(&stripe.busy)
            return NULL
        return stripe
    return <Stripe*><size_t>1


cdef inline Stripe* read_wait(Table t) except NULL:
    """The same, waiting if it must. No section may be held. MemoryError when a stripe can't be made."""
    cdef Stripe* stripe = read_begin(t)
    return stripe if stripe != NULL else t.read_slowly()


cdef inline void read_end(Stripe* stripe) noexcept:
    if STRIPES:  # pragma: no cover (without the GIL only)
        unlock(&stripe.busy)


cdef inline void exclude_readers(Table t) noexcept:
    """Within a section: let nobody read until `admit_readers`. In between, no Python code may run."""
    if STRIPES:  # pragma: no cover (without the GIL only)
        t.stop_readers()


cdef inline void admit_readers(Table t) noexcept:
    cdef Stripe* stripe
    cdef int i
    for i in range(STRIPES):  # pragma: no cover (without the GIL only)
        stripe = <Stripe*>load_stripe(place_of(&t.readers, i))
        if stripe != NULL:
            unlock(&stripe.busy)


cdef inline void count_hit(Table t, Stripe* stripe, uint32_t s, bint ordered) noexcept:
    """A slot was used, by a reader."""
    if STRIPES:  # pragma: no cover (without the GIL only)
        stripe.hits += 1
        if ordered:
            note_use(stripe.uses, s)
    else:
        if ordered:
            move_to_front(t.slots, s)
        t.hits += 1


cdef inline void count_miss(Table t, Stripe* stripe) noexcept:
    if STRIPES:  # pragma: no cover (without the GIL only)
        stripe.misses += 1
    else:
        t.misses += 1
