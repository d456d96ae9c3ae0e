# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The hash table of slots: growth, removal, and the part of garbage collection that Cython doesn't offer.

The theory is in _table.pxd. This file must never know what a cache is for: no limits by weight, no time, no callbacks.
"""
cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject, Py_EQ, visitproc
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memmove, memset

from ._cpython cimport DECREF, INCREF, RichCompare, Section, hint_large, plain_equal, section_begin, section_end
from ._expiry cimport expiry_remove
from ._links cimport Slot, move_to_front, unlink
from ._readers cimport (
    MAX_STRIPES, STRIPES, Stripe, Use, load_stripe, own_place, place_of, store_stripe, unlock, wait_for_lock,
)

cdef enum:
    FIRST_INDEX_BITS = 3    # 8 positions, as CPython's dict: many caches stay tiny
    FIRST_CAPACITY = 5      # what two thirds of 8 positions hold
    MALLOC_ALIGNMENT = 16   # what malloc promises on 64-bit platforms; a slot is twice that
    MAX_RESTARTS = 1000     # see find_foreign; no program that makes sense comes near
    STRIPE_SIZE = 64        # a cache line: no two threads write into the same one

cdef uint32_t[2] EMPTY_INDEX
EMPTY_INDEX[0] = EMPTY_INDEX[1] = 0


cdef class Table:
    def __cinit__(self, *args, **kwargs):
        self.limit = MAX_ENTRIES
        self.ordered = True
        reset(self)

    def __dealloc__(self):
        cdef Stripe* stripe
        cdef int i
        release_all(self.detach_all())
        for i in range(STRIPES):  # pragma: no cover (without the GIL only)
            stripe = <Stripe*>load_stripe(place_of(&self.readers, i))
            if stripe != NULL:
                PyMem_Free(stripe.uses)
                PyMem_Free(stripe.block)

    cdef Py_ssize_t find_foreign(self, PyObject* key, Py_hash_t hash) except -1:
        cdef size_t i
        cdef uint32_t s
        cdef uint64_t moves
        cdef PyObject* stored
        cdef int equal
        cdef int _restart
        for _restart in range(MAX_RESTARTS):
            moves = self.moves
            i = home(self, hash)
            while True:
                s = self.index[i]
                if s == 0:
                    return 0
                if self.slots[s].hash == hash:
                    stored = self.slots[s].key
                    equal = plain_equal(stored, key)
                    if equal < 0:
                        INCREF(stored)
                        equal = RichCompare(stored, key, Py_EQ)     # runs __eq__
                        if equal < 0:
                            DECREF(stored)
                            return -1
                        if self.moves != moves:
                            DECREF(stored)
                            break                                   # positions changed: start again
                        if self.slots[s].key != stored:
                            DECREF(stored)
                            break           # no longer here; if unequal, what we seek may have come into its place
                        DECREF(stored)
                    if equal:
                        return s
                i = (i + 1) & self.mask
        # Each __eq__ along the way removed entries so that others moved, a thousand times over. A dict would go on.
        raise RuntimeError("the cache was changed by a key's __eq__ during each of %d lookups of it" % MAX_RESTARTS)

    cdef int reserve(self) except -1:
        if self.used < self.top:
            return 0                            # a freed slot, and the index has room for it
        if self.top == self.capacity:
            grow_slots(self)
        if (<uint64_t>self.used + 1) * 3 > (<uint64_t>self.mask + 1) * 2 or self.mask == 1:
            grow_index(self)
        return 0

    cdef Entry take(self, uint32_t s) noexcept:
        cdef Slot* slots = self.slots
        cdef uint32_t* index = self.index
        cdef size_t mask = self.mask
        cdef size_t hole = home(self, slots[s].hash)
        cdef size_t i
        cdef uint32_t follower
        cdef bint shifted = False
        cdef Entry entry
        while index[hole] != s:
            hole = (hole + 1) & mask
        index[hole] = 0
        i = hole
        while True:
            i = (i + 1) & mask
            follower = index[i]
            if follower == 0:
                break
            # A follower may fill the hole unless its own home lies behind the hole.
            if ((i - home(self, slots[follower].hash)) & mask) >= ((i - hole) & mask):
                index[hole] = follower
                index[i] = 0
                hole = i
                shifted = True
        if shifted:
            self.moves += 1
        entry.key = slots[s].key
        entry.value = slots[s].value
        entry.weight = NULL
        if self.weighted:
            entry.weight = self.weights[s]
        if self.expiring:
            expiry_remove(self.expiry, s)
        if self.ordered:
            unlink(slots, s)
        slots[s].key = NULL
        slots[s].next = self.free
        self.free = s
        self.used -= 1
        self.changes += 1
        return entry

    cdef Contents detach_all(self) noexcept:
        cdef Contents contents
        contents.slots = self.slots
        contents.block = self.block
        contents.index = self.index
        contents.owns_index = self.index != EMPTY_INDEX
        contents.weights = self.weights
        contents.expiry = self.expiry
        contents.top = self.top
        reset(self)
        self.moves += 1
        self.changes += 1
        return contents

    cdef Stripe* read_slowly(self) except NULL:  # pragma: no cover (without the GIL only)
        cdef Stripe* stripe
        while True:
            stripe = <Stripe*>load_stripe(own_place(&self.readers))
            if stripe != NULL:
                wait_for_lock(&stripe.busy)
                if stripe.room >= self.capacity:
                    return stripe
                unlock(&stripe.busy)
            provide_stripe(self)

    cdef int stop_readers(self) noexcept:  # pragma: no cover (without the GIL only)
        cdef Stripe* stripe
        cdef Use* orders[MAX_STRIPES]
        cdef int i, n = 0
        for i in range(STRIPES):
            stripe = <Stripe*>load_stripe(place_of(&self.readers, i))
            if stripe == NULL:
                continue
            wait_for_lock(&stripe.busy)
            self.hits += stripe.hits
            self.misses += stripe.misses
            stripe.hits = stripe.misses = 0
            if stripe.uses != NULL and stripe.uses[0].prev:
                orders[n] = stripe.uses
                n += 1
        while n:
            n = move_oldest(self.slots, orders, n)
        return 0

    def __sizeof__(self):
        """Bytes of the object and of its arrays; keys and values are not counted."""
        cdef size_t slot = sizeof(Slot)
        cdef size_t size = object.__sizeof__(self)
        cdef Stripe* stripe
        cdef Section section
        cdef int i
        if self.weighted:
            slot += sizeof(PyObject*)
        if self.expiring:
            slot += sizeof(Expiry)
        section_begin(&section, self)
        if self.slots != NULL:
            size += (<size_t>self.capacity + 1) * slot + MALLOC_ALIGNMENT
        if self.index != EMPTY_INDEX:
            size += (self.mask + 1) * sizeof(uint32_t)
        for i in range(STRIPES):  # pragma: no cover (without the GIL only)
            stripe = <Stripe*>load_stripe(place_of(&self.readers, i))
            if stripe != NULL:
                size += 2 * STRIPE_SIZE
                if stripe.uses != NULL:
                    size += (<size_t>stripe.room + 1) * sizeof(Use)
        section_end(&section)
        return size

    @cython.critical_section    # a janitor may be at work
    def _check(self):
        """Walk index, slots, free list and list in both directions; AssertionError where they disagree. O(n)."""
        cdef uint32_t s, n
        cdef size_t i, positions = 0
        if self.slots == NULL:
            assert self.used == 0 and self.top == 0 and self.free == 0 and self.index == EMPTY_INDEX
            return
        assert self.used <= self.top <= self.capacity, (self.used, self.top, self.capacity)
        assert self.used * 3 <= (self.mask + 1) * 2, (self.used, self.mask)
        for i in range(self.mask + 1):
            if self.index[i]:
                positions += 1
                assert self.index[i] <= self.top and self.slots[self.index[i]].key != NULL, self.index[i]
        assert positions == self.used, (positions, self.used)
        n = 0
        for s in range(1, self.top + 1):
            if self.slots[s].key == NULL:
                continue
            n += 1
            assert self.slots[s].value != NULL
            assert not self.weighted or self.weights[s] != NULL
            i = home(self, self.slots[s].hash)
            while self.index[i] != s:
                assert self.index[i] != 0, f"slot {s} can't be reached from its home"
                i = (i + 1) & self.mask
        assert n == self.used, (n, self.used)
        n = 0
        s = self.free
        while s:
            assert self.slots[s].key == NULL, f"slot {s} is free and in use"
            n += 1
            assert n <= self.top, "the free list runs in a circle"
            s = self.slots[s].next
        assert n == self.top - self.used, (n, self.top, self.used)
        if self.ordered:
            n = 0
            s = self.slots[0].next
            while s:
                assert self.slots[s].key != NULL, f"slot {s} is free and in the list"
                assert self.slots[self.slots[s].next].prev == s, f"the links around slot {s} disagree"
                n += 1
                assert n <= self.used, "the list runs in a circle"
                s = self.slots[s].next
            assert n == self.used, (n, self.used)


cdef inline int move_oldest(Slot* slots, Use** orders, int n) noexcept:  # pragma: no cover (without the GIL only)
    """Move the least recent use of n stripes, none of them empty, on to the list; how many are still not empty."""
    cdef int i, oldest = 0
    cdef Use* uses
    cdef uint32_t s
    for i in range(1, n):
        if orders[i][orders[i][0].prev].moment < orders[oldest][orders[oldest][0].prev].moment:
            oldest = i
    uses = orders[oldest]
    s = uses[0].prev
    uses[0].prev = uses[s].prev
    uses[s].prev = uses[s].next = 0
    move_to_front(slots, s)
    if uses[0].prev == 0:
        uses[0].next = 0
        n -= 1
        orders[oldest] = orders[n]
    return n


cdef int provide_stripe(Table t) except -1:  # pragma: no cover (without the GIL only)
    """Give the stripe of this thread to the table, and a place for each slot to the stripe."""
    cdef void** place = own_place(&t.readers)
    cdef Stripe* stripe
    cdef void* block
    cdef Use* uses
    cdef Section section
    cdef bint failed = False
    section_begin(&section, t)
    if load_stripe(place) == NULL:
        block = PyMem_Calloc(2, STRIPE_SIZE)
        if block != NULL:
            stripe = <Stripe*>((<size_t>block + STRIPE_SIZE - 1) & ~<size_t>(STRIPE_SIZE - 1))
            stripe.block = block
            if not t.ordered:
                stripe.room = MAX_ENTRIES
            store_stripe(place, stripe)
    stripe = <Stripe*>load_stripe(place)
    if stripe != NULL and stripe.room < t.capacity:
        uses = <Use*>PyMem_Calloc(<size_t>t.capacity + 1, sizeof(Use))
        if uses != NULL:
            exclude_readers(t)              # empties the old list
            PyMem_Free(stripe.uses)
            stripe.uses = uses
            stripe.room = t.capacity
            admit_readers(t)
        failed = uses == NULL
    failed = failed or stripe == NULL
    section_end(&section)
    if failed:
        raise MemoryError()
    return 0


cdef int grow_slots(Table t) except -1:
    cdef uint64_t capacity = t.capacity + (t.capacity >> 1) + FIRST_CAPACITY
    if capacity > t.limit:
        capacity = t.limit
    if capacity <= t.capacity:
        capacity = t.capacity + 1        # a state that was unpickled may hold more than its maxsize
    if capacity > MAX_ENTRIES:  # pragma: no cover (2**31 entries)
        raise MemoryError("a cache holds at most %d entries" % MAX_ENTRIES)
    cdef size_t n = <size_t>capacity + 1
    resize_slots(t, n)
    if t.capacity == 0:
        memset(t.slots, 0, sizeof(Slot))        # the sentinel of an empty list links to itself
    if t.weighted:
        t.weights = <PyObject**>resized(t.weights, n * sizeof(PyObject*))
    if t.expiring:
        t.expiry = <Expiry*>resized(t.expiry, n * sizeof(Expiry))
        if t.capacity == 0:
            memset(t.expiry, 0, sizeof(Expiry))
    t.capacity = <uint32_t>capacity
    return 0


cdef int resize_slots(Table t, size_t n) except -1:
    """Resize the array of slots, keeping it on a multiple of a slot's size: none then straddles two cache lines."""
    cdef size_t before = <char*>t.slots - <char*>t.block
    cdef size_t after
    cdef char* block = <char*>resized(t.block, n * sizeof(Slot) + MALLOC_ALIGNMENT)
    t.block = block
    after = -<size_t>block & (sizeof(Slot) - 1)
    if after > MALLOC_ALIGNMENT:  # pragma: no cover (no such malloc is known)
        after = 0                               # the array would just lie where it lies
    if t.capacity and after != before:
        memmove(block + after, block + before, (<size_t>t.capacity + 1) * sizeof(Slot))
    t.slots = <Slot*>(block + after)
    return 0


cdef void* resized(void* array, size_t size) except NULL:
    array = PyMem_Realloc(array, size)
    if array == NULL:  # pragma: no cover (no memory: its test isn't traced)
        raise MemoryError()
    hint_large(array, size)
    return array


cdef int grow_index(Table t) except -1:
    cdef unsigned int bits = 64 - t.shift + 1 if t.mask > 1 else FIRST_INDEX_BITS
    cdef size_t size = <size_t>1 << bits
    cdef uint32_t* index = <uint32_t*>PyMem_Calloc(size, sizeof(uint32_t))
    cdef uint32_t s
    cdef size_t i
    if index == NULL:  # pragma: no cover (no memory: its test isn't traced)
        raise MemoryError()
    hint_large(index, size * sizeof(uint32_t))
    if t.index != EMPTY_INDEX:
        PyMem_Free(t.index)
    t.index = index
    t.mask = size - 1
    t.shift = 64 - bits
    for s in range(1, t.top + 1):
        if t.slots[s].key != NULL:
            i = home(t, t.slots[s].hash)
            while index[i]:
                i = (i + 1) & t.mask
            index[i] = s
    t.moves += 1
    return 0


cdef void reset(Table t) noexcept:
    t.slots = NULL
    t.block = NULL
    t.index = EMPTY_INDEX
    t.weights = NULL
    t.expiry = NULL
    t.mask = 1
    t.shift = 63
    t.used = t.capacity = t.top = t.free = 0


cdef void release_all(Contents contents) noexcept:
    """Release the references in detached arrays, then the arrays."""
    cdef uint32_t s
    for s in range(1, contents.top + 1):
        if contents.slots[s].key != NULL:
            DECREF(contents.slots[s].key)
            DECREF(contents.slots[s].value)
            if contents.weights != NULL:
                DECREF(contents.weights[s])
    PyMem_Free(contents.block)
    PyMem_Free(contents.weights)
    PyMem_Free(contents.expiry)
    if contents.owns_index:
        PyMem_Free(contents.index)


# Garbage collection. Cython writes tp_traverse and tp_clear for the attributes that it knows to be objects; these two
# wrap them and add the slots. They replace the type's functions here, before a subclass exists, so every subclass calls
# or inherits them. A traverse must not touch a reference count; a clear detaches first and releases then.

ctypedef int (*traverseproc)(PyObject*, visitproc, void*) noexcept
ctypedef int (*inquiry)(PyObject*) noexcept

cdef extern from *:
    ctypedef struct TypeSlots "PyTypeObject":
        traverseproc tp_traverse
        inquiry tp_clear

cdef traverseproc cython_traverse = (<TypeSlots*>Table).tp_traverse
cdef inquiry cython_clear = (<TypeSlots*>Table).tp_clear


@cython.linetrace(False)  # a tracer is Python code, which must not run while the collector counts references
@cython.profile(False)
cdef int traverse(PyObject* op, visitproc visit, void* arg) noexcept:
    cdef int result = cython_traverse(op, visit, arg)
    cdef Slot* slots = (<Table>op).slots
    cdef uint32_t s
    if result or slots == NULL:
        return result
    for s in range(1, (<Table>op).top + 1):
        if slots[s].key != NULL:
            result = visit(slots[s].key, arg)
            if result:
                return result
            result = visit(slots[s].value, arg)
            if result:
                return result
            if (<Table>op).weights != NULL:
                result = visit((<Table>op).weights[s], arg)
                if result:
                    return result
    return 0


cdef int clear(PyObject* op) noexcept:
    cdef Table t = <Table>op
    release_all(t.detach_all())
    return cython_clear(op)


(<TypeSlots*>Table).tp_traverse = traverse
(<TypeSlots*>Table).tp_clear = clear
