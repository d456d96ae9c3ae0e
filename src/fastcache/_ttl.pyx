# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""`TTLCache`: the LRU map with a time to live.

It owns the clock, the order of expiry and the sweep. Reading never removes anything, so no callback runs from `cache[key]`,
`in`, `len` or an iteration; storing, `popitem`, `resize` and `expire` first remove what has expired.
"""
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from libc.math cimport INFINITY, isinf, isnan
from libc.stdint cimport uint32_t

from ._clock cimport PRECISE_BELOW_MS, coarse_now, precise_now
from ._cpython cimport DECREF, Section, key_hash, prefetch, section_begin, section_end
from ._expiry cimport expiry_append, expiry_remove
from ._lru cimport EXPIRE, ITEM_ACCESS, LRUCache
from ._table cimport Contents, Entry, Table, home, lookup, release_all

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

from .errors import ConfigurationError

cdef enum:
    BATCH = 16          # entries whose index positions are fetched ahead of their removal
    FIRST_HEAP = 64     # nodes


cdef object microsecond():
    from datetime import timedelta      # here: most programs that import this module have no use for datetime
    return timedelta(microseconds=1)


def check_ttl(ttl, name="ttl"):
    """A duration in seconds as a float, or ConfigurationError: a positive number; `math.inf` means for ever."""
    if isinstance(ttl, (bool, str, bytes)) or not hasattr(ttl, "__float__"):
        raise ConfigurationError(f"{name} must be a positive number of seconds (math.inf: for ever), not {ttl!r}")
    cdef double seconds
    try:
        seconds = ttl
    except OverflowError:
        raise ConfigurationError(f"{name} is too large a number of seconds; math.inf: for ever") from None
    if not seconds > 0:
        raise ConfigurationError(f"{name} must be greater than 0 (seconds; math.inf: for ever), not {ttl!r}")
    return seconds


@cython.trashcan(True)      # as LRUCache
@cython.collection_type("mapping")
cdef class TTLCache(LRUCache):
    """TTLCache(maxsize, ttl, timer=None, getsizeof=None, *, on_evict=None)\n--\n
    A mapping of at most `maxsize` entries, each of which expires `ttl` after it was stored.

    A drop-in for `cachetools.TTLCache`, and an `LRUCache` in everything else: what has expired is removed before anything
    live is evicted. An expired entry is never served, counted or iterated, and time passing never breaks an iteration.

    ttl: seconds, more than 0; `math.inf`: entries don't expire unless `set` says so. With 0, as in cachetools, everything
        is expired at once. With a `timer` whose readings are no numbers, what is added to a reading, such as a timedelta.
    timer: a function without arguments that tells the time, in seconds; for tests, or `datetime.now`. When it goes back,
        time stands still until it has caught up. By default the system's monotonic clock, in steps of a few milliseconds
        (read in 5 ns), or exactly where a ttl below 50 ms is in use. A lifetime is the ttl, give or take one such step.
    on_evict: as for LRUCache, with one more cause, "expired" (also when an expired entry is overwritten or deleted).

    Every operation is O(1) expected, plus O(1) for each expired entry that it removes (O(log n) for one with a ttl of its
    own). `len` and `currsize` are O(expired entries not yet removed).

    Raises ConfigurationError (a ValueError) for a ttl that is negative, NaN, a bool or a str.

    >>> now = 0
    >>> cache = TTLCache(maxsize=100, ttl=60, timer=lambda: now)
    >>> cache["a"] = 1
    >>> cache.set("b", 2, ttl=5)
    >>> now = 10
    >>> "b" in cache, cache["a"], cache.remaining("a")
    (False, 1, 50.0)
    """

    def __cinit__(self, *args, **kwargs):
        self.expiring = True
        self.now = -INFINITY
        self.heap_rebuild = FIRST_HEAP
        self.lifetime = INFINITY
        self._ttl = INFINITY

    def __init__(self, maxsize, ttl, timer=None, getsizeof=None, *, on_evict=None):
        cdef Contents contents
        if self.slots != NULL:
            # A second time. What is wrong is found before anything is lost; then the entries go before their clock does.
            TTLCache(maxsize, ttl, timer, getsizeof, on_evict=on_evict)
            contents = self.detach_all()
            self._total = 0
            release_all(contents)
        self.set_clock(ttl, timer)
        self.configure(maxsize, getsizeof, on_evict)

    # The clock

    cdef int set_clock(self, object ttl, object timer) except -1:
        cdef double lifetime
        if timer is not None and not callable(timer):
            raise TypeError(f"timer must be a function without arguments or None, not {timer!r}")
        self.origin = None
        self.base = None
        if isinstance(ttl, (bool, str, bytes)) or ttl is None:
            lifetime = check_ttl(ttl)
        elif hasattr(ttl, "__float__"):
            try:
                lifetime = ttl
            except OverflowError:
                raise ConfigurationError("ttl is too large a number of seconds; math.inf: for ever") from None
            if not lifetime >= 0:
                raise ConfigurationError(f"ttl must be 0 or more (math.inf: for ever), not {ttl!r}")
        elif timer is None:
            raise ConfigurationError(f"ttl must be a number of seconds, unless a timer is given; not {ttl!r}")
        else:
            try:
                self.origin = timer()
                later = self.origin + ttl
                negative = bool(later < self.origin)    # in a unit of its own, the ttl is 1 on the axis in any case
            except TypeError as error:
                raise ConfigurationError(f"ttl {ttl!r} can't be added to what the timer returns") from error
            self._ttl = ttl
            lifetime = self.span(later - self.origin)
            if negative or not lifetime >= 0:
                raise ConfigurationError(f"ttl must not be negative, but is {ttl!r}")
        self._ttl = ttl
        self._timer = timer
        self.lifetime = lifetime
        self.precise = timer is None and lifetime * 1000 < PRECISE_BELOW_MS
        self.offset = 0
        self.now = -INFINITY
        return 0

    cdef double span(self, object duration) except? -1:
        """A duration on the axis."""
        if self.origin is None:
            return duration
        if hasattr(duration, "total_seconds"):
            return duration // microsecond()    # an int: exact, so that a deadline is met to the microsecond
        return duration / self._ttl

    cdef double reading(self, object time) except? -1:
        """A reading of the timer on the axis."""
        cdef object zero = self.origin      # held: the subtraction may run code
        cdef Section section
        if zero is not None:
            return self.span(time - zero)
        if self._timer is None:
            if not hasattr(time, "__float__"):
                raise TypeError(f"a time is a number of seconds, as `timer` tells it, not {time!r}")
            return time
        section_begin(&section, self)
        zero = self.base
        section_end(&section)
        if zero is None:
            zero = 0.0 if isinstance(time, float) else time
            self.span(time - zero)      # what can't be placed on the axis doesn't become its origin
            section_begin(&section, self)
            if self.base is None:
                self.base = zero
            zero = self.base
            section_end(&section)
        return time - zero

    cdef double seconds(self, double span) noexcept:
        return span if self.origin is None else span * 1e-6

    cdef int tick(self) except -1:
        cdef double now = 0
        cdef bint timed = self._timer is not None
        cdef Section section
        if timed:
            now = self.reading(self._timer())
        section_begin(&section, self)
        if not timed:
            now = self.clock()
        if now > self.now:
            self.now = now
        section_end(&section)
        return 0

    cdef inline double clock(self) noexcept:
        """The time by the cache's own clock. Within the section."""
        return precise_now() + self.offset if self.precise else coarse_now()

    cdef int prepare(self) except -1:
        self.tick()
        if self.overrides & EXPIRE:
            self.expire()
        return 0

    cdef int be_precise(self) noexcept:
        """Go over to the precise clock, for good, without a jump."""
        cdef Section section
        section_begin(&section, self)
        if self._timer is None and not self.precise:
            self.offset = coarse_now() - precise_now()
            self.precise = True
        section_end(&section)
        return 0

    def _time(self):
        """The time on the cache's own clock, in seconds."""
        cdef Section section
        section_begin(&section, self)
        now = self.clock()
        section_end(&section)
        return now

    # The seams of LRUCache

    cdef type compiled_type(self):
        return TTLCache

    cdef bint alive(self, uint32_t s) noexcept:
        return self.now < self.expiry[s].deadline

    cdef Py_ssize_t count(self) except -1:
        cdef Py_ssize_t n = 0
        cdef Section section
        self.prepare()
        section_begin(&section, self)
        try:
            if self.used and self.next_deadline() <= self.now:
                n = len(self.expired())     # makes lists, so a collection may have changed everything; only then:
            n = self.used - n
        finally:
            section_end(&section)
        return n

    cdef object weight(self):
        cdef Section section
        cdef list expired = []
        self.prepare()
        section_begin(&section, self)
        try:
            self.recount()
            if self.weighted and self.used and self.next_deadline() <= self.now:
                expired = self.expired()
                for i in range(len(expired)):
                    expired[i] = <object>self.weights[<uint32_t>expired[i]]
            total = self._total
        finally:
            section_end(&section)
        for weight in expired:
            total = total - weight
        return total

    cdef int sweep(self, list gone) except -1:
        if self.used and self.next_deadline() <= self.now:
            self.sweep_until(self.now, gone)
        return 0

    cdef int foresee(self, double ttl) except -1:
        cdef uint32_t capacity
        cdef void* heap
        if isnan(ttl) or ttl == self.lifetime or isinf(ttl):
            return 0
        if self.heap_size >= self.heap_rebuild:
            self.rebuild()
        if self.heap_size == self.heap_capacity:
            capacity = 2 * self.heap_capacity if self.heap_capacity else FIRST_HEAP
            heap = PyMem_Realloc(self.heap, capacity * sizeof(Node))
            if heap == NULL:  # pragma: no cover (no memory: its test isn't traced)
                raise MemoryError()
            self.heap = <Node*>heap
            self.heap_capacity = capacity
        return 0

    cdef int stamp(self, uint32_t s, double ttl) noexcept:
        expiry_remove(self.expiry, s)
        self.ticket += 1
        self.expiry[s].next = self.ticket       # voids a node of the heap
        if isnan(ttl) or ttl == self.lifetime:
            if isinf(self.lifetime):
                self.expiry[s].deadline = INFINITY
            else:
                expiry_append(self.expiry, s, self.now + self.lifetime)
        elif isinf(ttl):
            self.expiry[s].deadline = INFINITY
        else:
            self.push(s, self.now + ttl)
            self.expiry[s].deadline = self.now + ttl
        return 0

    cdef double life(self, uint32_t s) noexcept:
        return self.expiry[s].deadline - self.now

    cdef Contents detach_all(self) noexcept:
        PyMem_Free(self.heap)
        self.heap = NULL
        self.heap_size = self.heap_capacity = 0
        self.heap_rebuild = FIRST_HEAP
        return Table.detach_all(self)

    # The order of expiry

    cdef bint is_void(self, Node node) noexcept:
        return (
            self.slots[node.slot].key == NULL
            or self.expiry[node.slot].prev != node.slot
            or self.expiry[node.slot].next != node.ticket
        )

    cdef double next_deadline(self) noexcept:
        """A time before which nothing expires. There is at least one entry."""
        cdef double deadline = INFINITY
        if self.expiry[0].next:
            deadline = self.expiry[self.expiry[0].next].deadline
        if self.heap_size and self.heap[0].deadline < deadline:
            deadline = self.heap[0].deadline
        return deadline

    cdef Py_ssize_t sweep_until(self, double now, list gone, Py_ssize_t most=PY_SSIZE_T_MAX) except -1:
        """Remove what expires by `now`, earliest first, until `most` entries or a few more are gone; how many are."""
        cdef Py_ssize_t removed = 0
        cdef uint32_t[BATCH] batch
        cdef Entry[BATCH] entries
        cdef uint32_t i, n
        cdef double first_of_list, first_of_heap
        while self.used and removed < most:
            first_of_list = self.expiry[self.expiry[0].next].deadline if self.expiry[0].next else INFINITY
            first_of_heap = self.heap[0].deadline if self.heap_size else INFINITY
            if min(first_of_list, first_of_heap) > now:
                break
            if first_of_heap < first_of_list:
                n = self.batch_from_heap(min(now, first_of_list), batch)
            else:
                n = self.batch_from_list(min(now, first_of_heap), batch)
            # The index positions of the batch are spread over all of memory: fetched together, not one after the other.
            for i in range(n):
                prefetch(&self.index[home(self, self.slots[batch[i]].hash)])
            for i in range(n):
                entries[i] = self.take(batch[i])
            self.expirations += n
            removed += n
            # Only now, with everything in order, what may run code.
            self.drop_all(entries, n, "expired", gone)
        return removed

    cdef uint32_t batch_from_list(self, double now, uint32_t* batch) noexcept:
        cdef uint32_t n = 0
        cdef uint32_t s = self.expiry[0].next
        while s and n < BATCH and self.expiry[s].deadline <= now:
            batch[n] = s
            n += 1
            s = self.expiry[s].next
        return n

    cdef uint32_t batch_from_heap(self, double now, uint32_t* batch) noexcept:
        """Pop the nodes of the next entries; void ones on the way are dropped."""
        cdef uint32_t n = 0
        cdef Node node
        while self.heap_size and n < BATCH and self.heap[0].deadline <= now:
            node = self.pop()
            if not self.is_void(node):
                batch[n] = node.slot
                n += 1
        return n

    cdef list expired(self):
        """The slots of the expired entries. O(expired). Allocates nothing that could start a garbage collection."""
        cdef list result = []
        cdef list todo = [0]
        cdef uint32_t s, i, child
        if self.used == 0:  # pragma: no cover (CPython 3.11: a collection, started by making a list, emptied the cache)
            return result
        s = self.expiry[0].next
        while s and self.expiry[s].deadline <= self.now:
            result.append(s)
            s = self.expiry[s].next
        while todo:
            i = todo.pop()
            if i < self.heap_size and self.heap[i].deadline <= self.now:
                if not self.is_void(self.heap[i]):
                    result.append(self.heap[i].slot)
                for child in range(4 * i + 1, 4 * i + 5):
                    todo.append(child)
        return result

    cdef int push(self, uint32_t s, double deadline) noexcept:
        """Add a node, for which `foresee` made room."""
        cdef uint32_t parent
        cdef uint32_t i = self.heap_size
        self.heap_size += 1
        while i:
            parent = (i - 1) >> 2
            if self.heap[parent].deadline <= deadline:
                break
            self.heap[i] = self.heap[parent]
            i = parent
        self.heap[i] = Node(deadline, s, self.ticket)
        return 0

    cdef Node pop(self) noexcept:
        cdef Node first = self.heap[0]
        self.heap_size -= 1
        sift_down(self.heap, self.heap_size, 0, self.heap[self.heap_size])
        return first

    cdef int rebuild(self) noexcept:
        """Throw out the void nodes; O(n), paid for by the n/2 pushes since the last time."""
        cdef uint32_t i, n = 0
        for i in range(self.heap_size):
            if not self.is_void(self.heap[i]):
                self.heap[n] = self.heap[i]
                n += 1
        self.heap_size = n
        self.heap_rebuild = max(2 * n, FIRST_HEAP)
        for i in range((n + 2) >> 2, 0, -1):
            sift_down(self.heap, n, i - 1, self.heap[i - 1])
        return 0

    # The mapping, where it is not LRUCache's

    def __getitem__(self, key):
        cdef PyObject* found = read_live(self, <PyObject*>key, key_hash(<PyObject*>key), -INFINITY, NULL)
        if found == NULL:
            return self.__missing__(key)
        value = <object>found
        DECREF(found)
        return value

    def __len__(self):
        return self.count()

    def get(self, key, default=None):
        """The value of a live key, now most recently used; `default` otherwise (`__missing__` is not asked). O(1)."""
        cdef PyObject* found
        if self.overrides & ITEM_ACCESS:
            return self[key] if key in self else default
        found = read_live(self, <PyObject*>key, key_hash(<PyObject*>key), -INFINITY, NULL)
        if found == NULL:
            return default
        value = <object>found
        DECREF(found)
        return value

    def set(self, key, value, ttl=None):
        """Store an entry with a ttl of its own, shorter or longer than the cache's; None: the cache's. O(log n).

        Raises ConfigurationError for a ttl that isn't greater than 0; the entry is then not stored.
        """
        cdef double span
        if ttl is None:
            self[key] = value
            return
        if self.origin is None:
            span = check_ttl(ttl)
            if span * 1000 < PRECISE_BELOW_MS:
                self.be_precise()
        else:
            try:
                span = self.span((self.origin + ttl) - self.origin)
            except TypeError as error:
                raise ConfigurationError(f"ttl {ttl!r} can't be added to what the timer returns") from error
            if not span > 0:
                raise ConfigurationError(f"ttl must be greater than 0, not {ttl!r}")
        self.store(key, value, span, NULL)

    def remaining(self, key):
        """Seconds until a key expires; `math.inf` if it never does, None if it is absent or has expired. O(1)."""
        cdef PyObject* k = <PyObject*>key
        cdef Py_hash_t hash = key_hash(k)
        cdef Py_ssize_t s
        cdef Section section
        self.tick()
        section_begin(&section, self)
        try:
            s = lookup(self, k, hash)
            if s == 0 or not self.alive(s):
                return None
            return self.seconds(self.life(s))
        finally:  # pragma: no cover (Cython traces none that a return leads to)
            section_end(&section)

    def expire(self, time=None):
        """Remove the entries that have expired by `time` (a reading of the timer; default: now).

        Returns them as a list of (key, value), in the order of expiry. O(expired). Raises TypeError for what isn't a time.
        """
        cdef list gone = []
        cdef double until = 0
        cdef Section section
        self.tick()
        if time is not None:
            until = self.reading(time)
        section_begin(&section, self)
        try:
            if time is None:
                until = self.now
            if self.used and self.next_deadline() <= until:
                self.sweep_until(until, gone)
        finally:
            section_end(&section)
        self.notify(gone)
        for i in range(len(gone)):
            gone[i] = gone[i][:2]
        return gone

    def _sweep(self, most):
        """Remove up to about `most` expired entries; how many were removed. For the janitor, which goes in small steps."""
        cdef list gone = self.listener()
        cdef Py_ssize_t removed = 0
        cdef Section section
        self.tick()
        section_begin(&section, self)
        try:
            if self.used and self.next_deadline() <= self.now:
                removed = self.sweep_until(self.now, gone, most)
        finally:
            section_end(&section)
        if gone:
            self.notify(gone)
        return removed

    @property
    def ttl(self):
        """The time to live of entries stored without one of their own."""
        return self._ttl

    @property
    def timer(self):
        """The function that tells the cache the time."""
        return self._time if self._timer is None else self._timer

    def __sizeof__(self):
        """Bytes of the object and of its arrays; keys and values are not counted."""
        return LRUCache.__sizeof__(self) + self.heap_capacity * sizeof(Node)

    def __getstate__(self):
        state = LRUCache.__getstate__(self)
        state["precise"] = bool(self.precise)
        state["ttl"] = self._ttl
        state["timer"] = self._timer
        return state

    def __setstate__(self, state):
        self.set_clock(state["ttl"], state["timer"])
        if state["precise"]:
            self.be_precise()
        LRUCache.__setstate__(self, state)

    @cython.critical_section    # a janitor may be at work
    def _check(self):
        """Look for contradictions in the structure; AssertionError names the first one. O(n)."""
        LRUCache._check(self)
        cdef uint32_t s, n = 0
        cdef uint32_t i
        if self.expiry == NULL:
            assert self.used == self.heap_size == 0
            return
        s = self.expiry[0].next
        while s:
            assert self.slots[s].key != NULL, f"slot {s} is free and waits to expire"
            assert self.expiry[self.expiry[s].next].prev == s, f"the order of expiry is broken at slot {s}"
            assert self.expiry[s].prev == 0 or self.expiry[self.expiry[s].prev].deadline <= self.expiry[s].deadline
            n += 1
            assert n <= self.used, "the order of expiry runs in a circle"
            s = self.expiry[s].next
        for i in range(self.heap_size):
            assert i == 0 or self.heap[(i - 1) >> 2].deadline <= self.heap[i].deadline, f"no heap at {i}"
            if not self.is_void(self.heap[i]):
                assert self.heap[i].deadline == self.expiry[self.heap[i].slot].deadline
                n += 1
        for s in range(1, self.top + 1):
            if self.slots[s].key != NULL and self.expiry[s].prev == s and isinf(self.expiry[s].deadline):
                n += 1
        assert n == self.used, (n, self.used)


cdef void sift_down(Node* heap, uint32_t size, uint32_t i, Node node) noexcept nogil:
    """Put `node` at i or below, among the first `size` nodes."""
    cdef uint32_t child, least, end
    while True:
        child = 4 * i + 1
        if child >= size:
            break
        end = child + 4 if child + 4 < size else size
        least = child
        child += 1
        while child < end:
            if heap[child].deadline < heap[least].deadline:
                least = child
            child += 1
        if heap[least].deadline >= node.deadline:
            break
        heap[i] = heap[least]
        i = least
    heap[i] = node
