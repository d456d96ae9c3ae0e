# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""`LRUCache`: a bounded mapping that forgets what was not used for longest.

It owns the limit (in entries, or in the user's own units), the eviction with its callback, and the mapping protocol.
It must never know of time: where `TTLCache` differs, a C method declared in _lru.pxd is the seam.

Re-entrancy, beyond the rules in _table.pxd: everything a method removes is collected in a list and handed to `on_evict`
after the change, when the cache is whole and no critical section is held.
"""
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ._cpython cimport DECREF, INCREF, XDECREF, Section, key_hash, section_begin, section_end
from ._links cimport Slot, move_to_front
from ._table cimport MAX_ENTRIES, Contents, Entry, Table, lookup, place, release, release_all

from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView
from copyreg import __newobj__
from types import GenericAlias

cdef extern from "Python.h":
    int Py_ReprEnter(object) except -1
    void Py_ReprLeave(object) noexcept
    void PyErr_SetObject(object, object) noexcept
    void PyErr_WriteUnraisable(object) noexcept

cdef enum Kind:
    KEYS
    VALUES
    ITEMS

cdef object ABSENT = object()   # "no such entry", where any value is possible
cdef str INITIALISED = "the cache was changed by __init__ while an entry was being stored"


@cython.trashcan(True)      # a cache in a cache in a cache, 100,000 deep, is released on a short C stack
@cython.collection_type("mapping")
cdef class LRUCache(Table):
    """LRUCache(maxsize, getsizeof=None, *, on_evict=None)\n--\n
    A mapping of at most `maxsize` entries; storing one more removes the least recently used.

    A drop-in for `cachetools.LRUCache`. `cache[key]`, `get`, `setdefault` and storing count as use; `in`, `peek`,
    `len` and iteration do not. Every operation is O(1) expected unless said otherwise. Iteration goes from the least to
    the most recently used; reading entries meanwhile is allowed, adding or removing some raises RuntimeError.

    maxsize: entries, or units of `getsizeof`; None or `math.inf`: unbounded.
    getsizeof: a function of the value that gives its size, a number of 0 or more; a subclass may define it as a method.
    on_evict: called as `on_evict(key, value, cause)` after an entry left, with the cause "evicted" (to make room),
        "replaced", "deleted" (`del`, `pop`, `popitem`) or "cleared". It may use the cache. What it raises reaches the
        caller of the change, which has taken place; after the first error the remaining calls are still made.

    A subclass may override `popitem`, which is then called to make room, and `__missing__`, which `cache[key]` calls
    when the key is absent.

    Raises ValueError when a single value is larger than `maxsize` ("value too large") and TypeError for an unhashable
    key; both leave the cache as it was.

    Thread-safety: every method is atomic, but `update`, which stores more than once; functions of the user (`getsizeof`,
    `on_evict`, `__eq__`) run unlocked.

    >>> cache = LRUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['a', 'c']
    """

    __reversed__ = None     # as every Mapping; without this, reversed() would try cache[0], cache[1], ...
    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._bound = INFINITY
        self._total = 0

    def __init__(self, maxsize, getsizeof=None, *, on_evict=None):
        self.configure(maxsize, getsizeof, on_evict)

    cdef int configure(self, object maxsize, object getsizeof, object on_evict) except -1:
        cdef unsigned int overrides = overridden(type(self), self.compiled_type())
        if getsizeof is not None and not callable(getsizeof):
            raise TypeError(f"getsizeof must be a function of a value or None, not {getsizeof!r}")
        if on_evict is not None and not callable(on_evict):
            raise TypeError(f"on_evict must be a function (key, value, cause) or None, not {on_evict!r}")
        check_maxsize(maxsize)
        cdef bint weighted = getsizeof is not None or overrides & GETSIZEOF
        cdef object bound = INFINITY if maxsize is None else maxsize
        cdef uint32_t limit = limit_of(bound, weighted)
        # What is released may use this cache: it finds it empty and with the new options.
        cdef tuple _replaced = (self._getsizeof, self._on_evict, self._total)
        cdef Contents contents = self.detach_all()
        self.overrides = overrides
        self.weighted = weighted
        self.miscounted = False
        self._getsizeof = getsizeof
        self._on_evict = on_evict
        self._total = 0
        self.set_limit(maxsize, bound, limit)
        release_all(contents)
        return 0

    cdef int set_limit(self, object maxsize, object bound, uint32_t limit) noexcept:
        cdef object _old_maxsize = self._maxsize        # released when all three are set
        cdef object _old_bound = self._bound
        self._maxsize = maxsize
        self._bound = bound
        self.limit = limit
        return 0

    # The seams, as an LRU map needs them.

    cdef type compiled_type(self):
        return LRUCache

    cdef int tick(self) except -1:
        return 0

    cdef int prepare(self) except -1:
        return 0

    cdef bint alive(self, uint32_t s) noexcept:
        return True

    cdef Py_ssize_t count(self) except -1:
        cdef Section section
        section_begin(&section, self)
        n = self.used
        section_end(&section)
        return n

    cdef object weight(self):
        cdef Section section
        section_begin(&section, self)
        try:
            self.recount()
            total = self._total
        finally:
            section_end(&section)
        return total

    cdef int sweep(self, list gone) except -1:
        return 0

    cdef int foresee(self, double ttl) except -1:
        return 0

    cdef int stamp(self, uint32_t s, double ttl) noexcept:
        return 0

    cdef double life(self, uint32_t s) noexcept:
        return INFINITY

    # What the methods are made of.

    cdef list listener(self):
        return None if self._on_evict is None else []

    cdef int notify(self, list gone) except -1:
        """Report what left. Every entry is reported; the first error is raised, later ones are unraisable."""
        cdef object on_evict = self._on_evict
        cdef object first = None
        if not gone or on_evict is None:
            return 0
        for key, value, cause in gone:
            try:
                on_evict(key, value, cause)
            except BaseException as error:
                if first is None:
                    first = error
                else:
                    report_unraisable(error, on_evict)
        if first is not None:
            raise first
        return 0

    cdef int report(self, list gone) except -1:
        """Report what left although the operation failed: nothing on_evict raises may hide why it did."""
        try:
            self.notify(gone)
        except BaseException as error:
            report_unraisable(error, self._on_evict)
        return 0

    cdef int drop(self, Entry entry, str cause, list gone) except -1:
        """Account for a removed entry and release it, or keep it in `gone` for `notify`."""
        return self.drop_all(&entry, 1, cause, gone)

    cdef int drop_all(self, Entry* entries, uint32_t n, str cause, list gone) except -1:
        cdef uint32_t i
        cdef bint subtracted = False
        try:
            if self.weighted:
                for i in range(n):
                    weight = <object>entries[i].weight
                    before = self._total
                    after = before - weight         # may run code that changes the total
                    if self._total is not before:
                        self.miscounted = self.weighted     # or an __init__ in the midst of it left no weights
                        break
                    self._total = after
                subtracted = True
            if gone is not None:
                for i in range(n):
                    gone.append((<object>entries[i].key, <object>entries[i].value, cause))
        finally:
            if self.weighted:
                if not subtracted:
                    self.miscounted = True
                if self.used == 0:
                    self._total = 0         # an empty cache weighs nothing, not 1e-17
                    self.miscounted = False
            for i in range(n):
                release(entries[i])
        return 0

    cdef int recount(self) except -1:
        """Sum up all weights, after arithmetic on them failed and the total may be wrong. O(n)."""
        cdef uint32_t s
        cdef uint64_t changes
        cdef object total, before
        while self.miscounted and self.weighted:
            total = 0
            before = self._total
            changes = self.changes
            s = 1
            while s <= self.top and self.changes == changes:    # an addition may run code that changes the cache
                if self.slots[s].key != NULL:
                    weight = <object>self.weights[s]
                    total = total + weight
                s += 1
            if self._total is before and self.changes == changes:
                self._total = total
                self.miscounted = False
        return 0

    cdef int evict(self, list gone) except -1:
        """Remove the least recently used entry, if there is one."""
        if self.used == 0:
            return 0                # a comparison of weights emptied the cache
        self.evictions += 1
        self.drop(self.take(self.slots[0].prev), "evicted", gone)
        return 0

    cdef int call_popitem(self) except -1:
        """Make room by the subclass's own popitem()."""
        cdef uint64_t changes
        cdef bint idle
        cdef Section section
        section_begin(&section, self)
        changes = self.changes
        self.evicting += 1
        section_end(&section)
        try:
            self.popitem()
        finally:
            section_begin(&section, self)
            self.evicting -= 1
            idle = self.changes == changes
            section_end(&section)
        if idle:
            raise RuntimeError(f"{type(self).__name__}.popitem() removed nothing, and the cache is full")
        return 0

    cdef object size_of(self, object value):
        cdef object size = self.getsizeof(value) if self.overrides & GETSIZEOF else self._getsizeof(value)
        cdef object bound
        cdef Section section
        section_begin(&section, self)
        bound = self._bound                     # held: the comparison may run code that resizes
        section_end(&section)
        if size > bound or size == INFINITY:
            raise ValueError("value too large")
        if not size >= 0:
            raise ValueError("value size must be non-negative")
        return size

    cdef int store(self, object key, object value, double ttl, PyObject** present) except -1:
        """Store an entry. With `present`: unless the key is there; its value is then put there, as a new reference."""
        cdef PyObject* k = <PyObject*>key
        cdef PyObject* v = <PyObject*>value
        cdef Py_hash_t hash = key_hash(k)
        cdef object weight = self.size_of(value) if self.weighted else None
        cdef list gone = self.listener()
        if self.expiring:
            self.prepare()
        if gone is None:
            return self.store_in_turns(k, hash, v, weight, ttl, present, None)
        try:
            self.store_in_turns(k, hash, v, weight, ttl, present, gone)
        except BaseException:
            self.report(gone)
            raise
        if gone:
            self.notify(gone)
        return 0

    cdef int store_in_turns(
            self, PyObject* k, Py_hash_t hash, PyObject* v, object weight, double ttl, PyObject** present,
            list gone) except -1:
        """Try to store; where a subclass makes room, let it, and try again."""
        cdef Section section
        cdef bint stored = False
        while not stored:
            section_begin(&section, self)
            try:
                if self.expiring:
                    self.sweep(gone)
                if self.weighted:
                    stored = self.try_store_weighted(k, hash, v, weight, ttl, present, gone)
                else:
                    stored = self.try_store(k, hash, v, ttl, present, gone)
            finally:
                section_end(&section)
            if not stored:
                self.call_popitem()
        return 0

    cdef bint try_store(
            self, PyObject* key, Py_hash_t hash, PyObject* value, double ttl, PyObject** present, list gone) except -1:
        """Store an entry; False when popitem() is overridden and has to make room first."""
        cdef Py_ssize_t s = lookup(self, key, hash)
        cdef Entry old
        cdef object old_value
        if self.weighted:
            raise RuntimeError(INITIALISED)
        if s and present != NULL and self.is_present(s, present):
            return True
        if self.expiring:
            self.foresee(ttl)
        if s:
            move_to_front(self.slots, s)
            old_value = <object>self.slots[s].value
            INCREF(value)
            self.slots[s].value = value
            DECREF(<PyObject*>old_value)
            if self.expiring:
                self.stamp(s, ttl)
            if gone is not None:
                gone.append((<object>key, old_value, "replaced"))
            return True
        if self.used < self.limit:
            self.reserve()
            old.key = NULL
        elif self.limit == 0:
            raise ValueError("value too large")
        elif self.overrides & (POPITEM | DELITEM):
            return False
        else:
            self.evictions += 1
            old = self.take(self.slots[0].prev)     # leaves a free slot: what follows can't fail
        INCREF(key)
        INCREF(value)
        s = place(self, key, hash, value)
        if self.expiring:
            self.stamp(s, ttl)
        if old.key != NULL:
            self.drop(old, "evicted", gone)
        return True

    cdef bint try_store_weighted(
            self, PyObject* key, Py_hash_t hash, PyObject* value, object weight, double ttl, PyObject** present,
            list gone) except -1:
        """The same by weight. Arithmetic on the user's numbers may run code, so each round looks the key up again."""
        cdef Py_ssize_t s
        cdef object growth, old_value, before, replaced, bound
        cdef uint64_t changes
        cdef PyObject* old_weight
        while True:
            self.recount()
            s = lookup(self, key, hash)
            if not self.weighted:       # since an __init__ in the midst of arithmetic or of a comparison
                raise RuntimeError(INITIALISED)
            if s and present != NULL and self.is_present(s, present):
                return True
            changes = self.changes
            before = self._total
            replaced = <object>self.weights[s] if s else None
            growth = weight - replaced if s else weight
            total = before + growth
            bound = self._bound
            fits = not total > bound
            # Entries came or went, or one was replaced by one of another weight: start again.
            if self.changes != changes or self._total is not before or (s and replaced is not <object>self.weights[s]):
                continue
            if fits:
                break
            if self.used == 0:
                raise ValueError("value too large")     # resized since size_of() looked, by an __eq__ or another thread
            if self.overrides & (POPITEM | DELITEM):
                return False
            if s:
                move_to_front(self.slots, s)        # so that the others go first
            self.evict(gone)
        self.foresee(ttl)
        if s:
            move_to_front(self.slots, s)
            old_value = <object>self.slots[s].value
            old_weight = self.weights[s]
            INCREF(value)
            INCREF(<PyObject*>weight)
            self.slots[s].value = value
            self.weights[s] = <PyObject*>weight
            self._total = total
            DECREF(<PyObject*>old_value)
            DECREF(old_weight)
            self.stamp(s, ttl)
            if gone is not None:
                gone.append((<object>key, old_value, "replaced"))
            return True
        self.reserve()
        INCREF(key)
        INCREF(value)
        INCREF(<PyObject*>weight)
        s = place(self, key, hash, value)
        self.weights[s] = <PyObject*>weight
        self._total = total
        self.stamp(s, ttl)
        return True

    cdef bint is_present(self, uint32_t s, PyObject** present) noexcept:
        """Whether an entry is alive; its value is then used."""
        if not self.alive(s):  # pragma: no cover (stored, and expired, since `setdefault` found nothing)
            return False
        move_to_front(self.slots, s)
        present[0] = self.slots[s].value
        INCREF(present[0])
        return True

    cdef object read(self, object key, bint touch):
        cdef PyObject* k = <PyObject*>key
        cdef Py_hash_t hash = key_hash(k)
        cdef Py_ssize_t s
        cdef Section section
        self.tick()
        section_begin(&section, self)
        try:
            s = lookup(self, k, hash)
            if s and self.alive(s):
                if touch:
                    move_to_front(self.slots, s)
                    self.hits += 1
                return <object>self.slots[s].value
            if touch:
                self.misses += 1
            return ABSENT
        finally:  # pragma: no cover (Cython traces none that a return leads to)
            section_end(&section)

    cdef object remove(self, object key):
        cdef PyObject* k = <PyObject*>key
        cdef Py_hash_t hash = key_hash(k)
        cdef list gone = self.listener()
        cdef object value = ABSENT
        cdef str cause = "deleted"
        cdef Py_ssize_t s
        cdef Section section
        self.tick()
        section_begin(&section, self)
        try:
            s = lookup(self, k, hash)
            if s:
                if self.alive(s):
                    value = <object>self.slots[s].value
                    if self.evicting:           # a subclass's popitem() or __delitem__(), on our behalf
                        cause = "evicted"
                        self.evictions += 1
                else:
                    cause = "expired"
                    self.expirations += 1
                self.drop(self.take(s), cause, gone)
        finally:
            section_end(&section)
        if gone:
            self.notify(gone)
        return value

    cdef uint64_t edits(self) noexcept:
        cdef Section section
        cdef uint64_t edits
        section_begin(&section, self)
        edits = self.changes - <uint64_t>self.expirations
        section_end(&section)
        return edits

    cdef list flat(self, bint whole):
        """key, value, key, value, ... of the live entries, least recently used first; `whole`: weight and life, too.

        In one list, and in pairs only afterwards: a tuple made on the way could start a garbage collection, that could
        run a `__del__`, and that could change the list being walked.
        """
        cdef list result = []
        cdef uint32_t s
        cdef Section section
        self.tick()
        section_begin(&section, self)
        try:
            s = self.slots[0].prev if self.used else 0
            while s:
                if self.alive(s):
                    result.append(<object>self.slots[s].key)
                    result.append(<object>self.slots[s].value)
                    if whole:
                        result.append(<object>self.weights[s] if self.weighted else None)
                        result.append(self.life(s))
                s = self.slots[s].prev
        finally:
            section_end(&section)
        return result

    cdef list entries(self):
        each = iter(self.flat(False))
        return list(zip(each, each))

    # The mapping.

    def __getitem__(self, key):
        cdef PyObject* k = <PyObject*>key
        cdef Py_hash_t hash = key_hash(k)
        cdef Py_ssize_t s
        cdef Section section
        section_begin(&section, self)
        try:
            s = lookup(self, k, hash)
            if s:
                move_to_front(self.slots, s)
                self.hits += 1
                return <object>self.slots[s].value
            self.misses += 1
        finally:
            section_end(&section)
        return self.__missing__(key)

    def __missing__(self, key):
        """Called by `cache[key]` for an absent key; a subclass may return a value (and store it)."""
        raise KeyError(key)

    def __setitem__(self, key, value):
        self.store(key, value, NAN, NULL)

    def __delitem__(self, key):
        if self.remove(key) is ABSENT:
            raise KeyError(key)

    def __contains__(self, key):
        return self.read(key, False) is not ABSENT

    def __len__(self):
        return self.count()

    def __iter__(self):
        return iterate(self, KEYS)

    def __eq__(self, other):
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.entries()) == dict(other.items())

    def __repr__(self):
        if Py_ReprEnter(self):
            return f"{type(self).__name__}(...)"
        cdef list shown = []
        try:
            # Not a comprehension, here and elsewhere in the core: without memory for it Cython (3.3) releases an item twice.
            for key, value in self.entries():
                pair = f"{key!r}: {value!r}"
                shown.append(pair)
            entries = ", ".join(shown)
            return f"{type(self).__name__}({{{entries}}}, maxsize={self.maxsize!r}, currsize={self.currsize!r})"
        finally:  # pragma: no cover (Cython traces none that a return leads to)
            Py_ReprLeave(self)

    def keys(self):
        """A view of the keys, least recently used first."""
        return KeysView(self)

    def values(self):
        """A view of the values, least recently used first. Looking at them doesn't count as use."""
        return LRUValuesView(self)

    def items(self):
        """A view of the (key, value) pairs, least recently used first. Looking at them doesn't count as use."""
        return LRUItemsView(self)

    def get(self, key, default=None):
        """The value of a key, now most recently used; `default` when absent (`__missing__` is not asked). O(1)."""
        cdef PyObject* k = <PyObject*>key
        cdef Py_hash_t hash
        cdef Py_ssize_t s
        cdef Section section
        if self.overrides & ITEM_ACCESS:
            return self[key] if key in self else default
        hash = key_hash(k)
        section_begin(&section, self)
        try:
            s = lookup(self, k, hash)
            if s:
                move_to_front(self.slots, s)
                self.hits += 1
                return <object>self.slots[s].value
            self.misses += 1
            return default
        finally:  # pragma: no cover (Cython traces none that a return leads to)
            section_end(&section)

    def peek(self, key, default=None):
        """The value of a key without counting as use: neither order nor counters change. O(1)."""
        value = self.read(key, False)
        return default if value is ABSENT else value

    def pop(self, key, default=ABSENT):
        """Remove a key and return its value; `default` when absent, KeyError without one. O(1)."""
        if self.overrides & (ITEM_ACCESS | DELITEM):
            if key in self:
                value = self[key]
                del self[key]
                return value
            value = ABSENT
        else:
            value = self.remove(key)
        if value is not ABSENT:
            return value
        if default is ABSENT:
            raise KeyError(key)
        return default

    def popitem(self):
        """Remove and return the least recently used (key, value) pair; KeyError when there is none. O(1).

        Called to make room when a subclass overrides it.
        """
        cdef list gone = self.listener()
        cdef object key = None
        cdef object value = ABSENT
        cdef str cause = "deleted"
        cdef Section section
        self.prepare()
        section_begin(&section, self)
        try:
            self.sweep(gone)
            if self.used:
                key = <object>self.slots[self.slots[0].prev].key
                value = <object>self.slots[self.slots[0].prev].value
                if not self.overrides & DELITEM:
                    if self.evicting:
                        cause = "evicted"
                        self.evictions += 1
                    self.drop(self.take(self.slots[0].prev), cause, gone)
        finally:
            section_end(&section)
        if gone:
            self.notify(gone)
        if value is ABSENT:
            raise KeyError(f"{type(self).__name__} is empty")
        if self.overrides & DELITEM:
            del self[key]
        return key, value

    def setdefault(self, key, default=None):
        """The value of a key; when absent, `default` is stored and returned. O(1).

        Atomic, unless a subclass overrides how items are read or stored: of simultaneous callers all get the same object.
        """
        cdef PyObject* present = NULL
        if self.overrides & ITEM_ACCESS:
            if key in self:
                return self[key]
            self[key] = default
            return default
        value = self.read(key, True)
        if value is not ABSENT:
            return value
        try:
            self.store(key, default, NAN, &present)     # looks again: what runs meanwhile may have stored the key
            return default if present == NULL else <object>present
        finally:  # pragma: no cover (Cython traces none that a return leads to)
            XDECREF(present)

    def update(self, other=(), /, **kwargs):
        """Store every pair of a mapping or of an iterable of pairs, then the keyword arguments, in order."""
        if isinstance(other, Mapping):
            for key in other:
                self[key] = other[key]
        elif hasattr(other, "keys"):
            for key in other.keys():
                self[key] = other[key]
        else:
            for key, value in other:
                self[key] = value
        for key, value in kwargs.items():
            self[key] = value

    def clear(self):
        """Remove everything; memory is given back. O(n) to release the entries. The counters stay."""
        cdef Contents contents
        cdef list gone = self.listener()
        cdef Section section
        cdef uint32_t s
        section_begin(&section, self)
        contents = self.detach_all()
        self._total = 0
        section_end(&section)
        try:
            if gone is not None and contents.slots != NULL:
                s = contents.slots[0].prev
                while s:
                    gone.append((<object>contents.slots[s].key, <object>contents.slots[s].value, "cleared"))
                    s = contents.slots[s].prev
        finally:
            release_all(contents)
        if gone:
            self.notify(gone)

    def resize(self, maxsize):
        """Change `maxsize`; the least recently used entries that no longer fit are evicted. O(entries evicted)."""
        cdef list gone = []         # keeps what goes until all of it has gone, with or without a listener
        cdef Section section
        cdef bint fits = False
        cdef object bound = INFINITY if maxsize is None else maxsize
        cdef uint32_t limit
        cdef bint weighted
        check_maxsize(maxsize)
        self.prepare()
        try:
            while not fits:
                section_begin(&section, self)
                try:
                    self.sweep(gone)
                    while True:
                        weighted = self.weighted
                        limit = limit_of(bound, weighted)
                        fits = self.fits(bound, limit)
                        if self.weighted != weighted:
                            continue                # what ran meanwhile initialised the cache again
                        if fits or self.overrides & (POPITEM | DELITEM):
                            break
                        self.evict(gone)
                    if fits:
                        self.set_limit(maxsize, bound, limit)
                finally:
                    section_end(&section)
                if not fits:
                    self.call_popitem()
        except BaseException:
            self.report(gone)
            raise
        if gone:
            self.notify(gone)

    cdef bint fits(self, object bound, uint32_t limit) except -1:
        """Whether the entries are within a limit. Compares the user's numbers, which may run code that changes the total."""
        cdef object total
        cdef bint fits = True
        if not self.weighted:
            return self.used <= limit
        while self.used:
            self.recount()
            total = self._total
            fits = not total > bound
            if self._total is total:
                return fits
        return True

    def getsizeof(self, value):
        """The size of a value in the units of `maxsize`: 1 unless a function was given or a subclass says otherwise."""
        return 1 if self._getsizeof is None else self._getsizeof(value)

    @property
    def maxsize(self):
        """The most that the cache holds: entries, or units of `getsizeof`; None: unbounded."""
        cdef Section section
        section_begin(&section, self)
        maxsize = self._maxsize
        section_end(&section)
        return maxsize

    @property
    def currsize(self):
        """What the cache holds now, in the same units as `maxsize`."""
        if self.weighted:
            return self.weight()
        return self.count()

    def _entries(self):
        """[(key, value)] of the live entries at one moment, least recently used first; other threads may go on. O(n)."""
        return self.entries()

    def _counters(self):
        """(hits, misses, evictions, expirations) since the cache was made; for `stats()` of the caches built on this."""
        cdef Section section
        cdef int64_t hits, misses, evictions, expirations
        section_begin(&section, self)
        hits, misses, evictions, expirations = self.hits, self.misses, self.evictions, self.expirations
        section_end(&section)
        return hits, misses, evictions, expirations

    @property
    def on_evict(self):
        """The function called as `on_evict(key, value, cause)`, or None."""
        return self._on_evict

    # Copies

    def __getstate__(self):
        each = iter(self.flat(True))
        return {
            "maxsize": self.maxsize,
            "getsizeof": self._getsizeof,
            "on_evict": self._on_evict,
            "rows": list(zip(each, each, each, each)),      # key, value, weight, seconds left
            "attributes": object.__getstate__(self),            # of a subclass: its __dict__, its __slots__
        }

    def __setstate__(self, state):
        cdef PyObject* k
        cdef Py_hash_t hash
        cdef uint32_t s
        cdef double life
        self.configure(state["maxsize"], state["getsizeof"], state["on_evict"])
        attributes, slots = state["attributes"], None
        if isinstance(attributes, tuple):
            attributes, slots = attributes
        if attributes:
            self.__dict__.update(attributes)
        if slots:
            for name, value in slots.items():
                setattr(self, name, value)
        self.tick()
        for key, value, weight, life in state["rows"]:
            k = <PyObject*>key
            hash = key_hash(k)
            if lookup(self, k, hash):
                continue
            total = self._total + weight if self.weighted else None
            self.foresee(life)
            self.reserve()
            INCREF(k)
            INCREF(<PyObject*>value)
            s = place(self, k, hash, <PyObject*>value)
            if self.weighted:
                INCREF(<PyObject*>weight)
                self.weights[s] = <PyObject*>weight
                self._total = total
            self.stamp(s, life)

    def __reduce__(self):
        return __newobj__, (type(self),), self.__getstate__()

    def __copy__(self):
        cls = type(self)
        copy = cls.__new__(cls)
        copy.__setstate__(self.__getstate__())
        return copy

    def copy(self):
        """A shallow copy: the same keys and values in the same order, with the same limits and callbacks. O(n)."""
        return self.__copy__()

    @cython.critical_section    # a janitor may be at work
    def _check(self):
        """Look for contradictions in the structure; AssertionError names the first one. O(n)."""
        Table._check(self)
        cdef uint32_t s
        cdef double total = 0
        if self.weighted:
            self.recount()
            for s in range(1, self.top + 1):
                if self.slots[s].key != NULL:
                    total += <object>self.weights[s]
            assert abs(total - self._total) <= 1e-6 * (1 + abs(total)), (total, self._total)
            assert not self._total > self._bound, (self._total, self._bound)
        else:
            assert self.used <= self.limit, (self.used, self.limit)


cdef LRUIterator iterate(LRUCache cache, Kind kind):
    cdef LRUIterator iterator = LRUIterator.__new__(LRUIterator)
    iterator.cache = cache
    iterator.kind = kind
    iterator.edits = cache.edits()
    return iterator


@cython.trashcan(True)
cdef class LRUIterator:
    """Iterates from the least to the most recently used.

    The first entry is read off the list, so `next(iter(cache))` is O(1). The order of the others is noted when the second
    is asked for, 4 bytes each: reading entries meanwhile moves them in the list, and may.
    """
    cdef LRUCache cache         # what follows is guarded by its section: several threads may share an iterator
    cdef bint exhausted
    cdef Kind kind
    cdef uint64_t edits
    cdef uint32_t* order        # slot numbers; NULL before the second entry
    cdef uint32_t first, n, i

    def __dealloc__(self):
        PyMem_Free(self.order)

    def __iter__(self):
        return self

    def __next__(self):
        cdef LRUCache cache = self.cache
        cdef Section section
        cdef uint32_t s
        cache.tick()
        section_begin(&section, cache)
        try:
            if self.exhausted:
                raise StopIteration
            if cache.changes - <uint64_t>cache.expirations != self.edits:
                raise RuntimeError(f"{type(cache).__name__} changed during iteration")
            s = self.advance()
            if s == 0:
                self.exhausted = True
                raise StopIteration
            if self.kind == KEYS:
                return <object>cache.slots[s].key
            if self.kind == VALUES:
                return <object>cache.slots[s].value
            key = <object>cache.slots[s].key        # held before the tuple is made: that may start a collection (3.11)
            value = <object>cache.slots[s].value
        finally:
            section_end(&section)
        return key, value

    cdef uint32_t advance(self) except? 0:
        cdef LRUCache cache = self.cache
        cdef Slot* slots = cache.slots
        cdef uint32_t s
        if slots == NULL:
            return 0
        if self.first == 0:
            s = slots[0].prev
            while s and not cache.alive(s):
                s = slots[s].prev
            self.first = s
            return s
        if self.order == NULL:
            self.order = <uint32_t*>PyMem_Malloc((<size_t>cache.used + 1) * sizeof(uint32_t))
            if self.order == NULL:  # pragma: no cover (no memory: its test isn't traced)
                raise MemoryError()
            s = slots[0].prev
            while s:
                if s != self.first:
                    self.order[self.n] = s
                    self.n += 1
                s = slots[s].prev
        while self.i < self.n:
            s = self.order[self.i]
            self.i += 1
            if slots[s].key != NULL and cache.alive(s):     # a sweep may have freed it: time passing is no change
                return s
        return 0


class LRUValuesView(ValuesView):
    """`cache.values()`: doesn't count as use."""

    __slots__ = ()

    def __iter__(self):
        return iterate(self._mapping, VALUES)

    def __contains__(self, value):
        return any(each is value or each == value for each in self)


class LRUItemsView(ItemsView):
    """`cache.items()`: doesn't count as use."""

    __slots__ = ()

    def __iter__(self):
        return iterate(self._mapping, ITEMS)

    def __contains__(self, item):
        key, value = item
        found = self._mapping.peek(key, ABSENT)
        return found is not ABSENT and (found is value or found == value)


cdef int check_maxsize(object maxsize) except -1:
    if maxsize is None:
        return 0
    try:
        valid = maxsize >= 0        # not `< 0`: that lets NaN through
    except TypeError:
        raise TypeError(f"maxsize must be a number or None, not {maxsize!r}") from None
    if not valid:
        raise ValueError("maxsize must be non-negative")
    return 0


cdef uint32_t limit_of(object bound, bint weighted) except? 0:
    """How many entries a bound allows by their number."""
    return MAX_ENTRIES if weighted or not bound < MAX_ENTRIES else <uint32_t>int(bound)


cdef unsigned int overridden(type cls, type compiled):
    """Which of the methods that the compiled code would bypass a Python subclass defines."""
    cdef unsigned int result = 0
    if cls is compiled:
        return result
    for each in cls.__mro__:
        if each is compiled:
            break
        names = each.__dict__
        if "getsizeof" in names:
            result |= GETSIZEOF
        if "popitem" in names:
            result |= POPITEM
        if "__delitem__" in names:
            result |= DELITEM
        if "expire" in names:
            result |= EXPIRE
        if "__getitem__" in names or "__setitem__" in names or "__contains__" in names:
            result |= ITEM_ACCESS
    return result


def report_unraisable(error, source):
    """Hand an error that nobody is there to catch to `sys.unraisablehook`."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(source)


MutableMapping.register(LRUCache)
