# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The callable that `lru_cache` puts in a function's place: from a call to its remembered result.

It owns the key of a call, the vectorcall entry points and the counters of `cache_info()`. It must never wait, and knows
neither threads nor asyncio: where calls share a run, Python code in runs.py decides what a miss does.

Speed. `functools` is reached through tp_call, which builds a tuple for every call; a table behind tp_call, however quick,
gains nothing over it. This type takes vectorcall, which Cython doesn't offer for a class's `__call__`: the field
`vectorcall` holds one of the entry points below, and the type's flags are set at the end of this file. On a hit the key is
never made: one exact int or str is its own key, anything else is hashed and compared where the caller put it.

The key of a call, once stored, is the argument itself if it is a single exact int or str, otherwise a tuple of the
positional arguments and the keyword values, then their types if `typed`, then the tuple of the keyword names if there are
any. It is private to this file and never hashed as an object. Its hash is made here too, and the three lowest bits of it tell
the sort of key (enum Sort), so keys of different sorts are never compared. A small int's hash tells its value: there an equal
hash proves an equal key, and the key itself, which lies elsewhere in memory, isn't read.

Re-entrancy. The user's function runs unlocked and may call this object. Afterwards, if anything was added or removed
(`changes`), the key is looked up again; an entry that appeared meanwhile stays, as in functools.
"""
cimport cython
from cpython.object cimport Py_EQ, PyObject
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t

from ._clock cimport PRECISE_BELOW_MS, coarse_now, precise_now
from ._cpython cimport (
    DECREF, INCREF, Section, defer_counting, enable_vectorcall, handed_out, is_int, is_str, key_hash, known_str_hash, likely,
    plain_equal, section_begin, section_end, small_int, str_equal, str_hash,
)
from ._expiry cimport expiry_append
from ._links cimport move_to_front
from ._readers cimport Stripe
from ._table cimport (
    MAX_ENTRIES, Contents, Entry, Table, admit_readers, count_hit, count_miss, exclude_readers, home, lookup, place,
    read_begin, read_end, read_wait, release, release_all,
)

from collections import namedtuple

cdef extern from "Python.h":
    bint PyFunction_Check(object) noexcept
    bint PyObject_RichCompareBool(PyObject*, PyObject*, int) except -1
    enum: PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyObject_Vectorcall(PyObject*, PyObject**, size_t, PyObject*)
    object PyVectorcall_Call(object, object, object)
    object PyMethod_New(object, object)
    int Py_EnterRecursiveCall(const char*) except -1
    void Py_LeaveRecursiveCall() noexcept
    Py_ssize_t PyTuple_GET_SIZE(PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t) noexcept
    PyObject* PyTuple_New(Py_ssize_t) except NULL
    void PyTuple_SET_ITEM(PyObject*, Py_ssize_t, PyObject*) noexcept
    PyObject* Py_TYPE "(PyObject *)Py_TYPE"(PyObject*) noexcept
    PyObject** PySequence_Fast_ITEMS(PyObject*) noexcept

CacheInfo = namedtuple("CacheInfo", ["hits", "misses", "maxsize", "currsize"])
CacheInfo.__module__ = "fastcache"
CacheInfo.__doc__ = "What `cache_info()` of a cached function returns."

cdef uint64_t LOOK_AGAIN = 0xFFFFFFFFFFFFFFFF   # as `changes`: no table has seen that many

cdef enum:
    RECLAIM_PER_STORE = 2   # expired entries removed by each store: more than one, so that a backlog shrinks; no pauses


cdef enum Sort:
    SMALL_INT = 1       # bit 0; the value is in all the others
    SINGLE = 0          # a str, or an int of several digits
    POSITIONAL = 2      # a tuple
    KEYWORD = 6         # a tuple that ends in names
    SORT_BITS = 7


cdef inline Py_hash_t sorted_hash(uint64_t hash, Sort sort) noexcept nogil:
    return <Py_hash_t>((hash & ~<uint64_t>SORT_BITS) | sort)


cdef inline Py_hash_t small_int_hash(Py_ssize_t value) noexcept nogil:
    return <Py_hash_t>((<uint64_t>value << 1) | SMALL_INT)


cdef inline Py_hash_t single_hash(PyObject* key) except? -1:
    """The hash of an exact int or str."""
    cdef Py_ssize_t value
    if is_int(key) and small_int(key, &value):
        return small_int_hash(value)
    return sorted_hash(<uint64_t>key_hash(key), SINGLE)


cdef inline uint64_t mix(uint64_t acc, uint64_t lane) noexcept nogil:
    """One round of the Fx hash (rustc): one multiplication, good in its high bits, and those are what `home` uses."""
    return (((acc << 5) | (acc >> 59)) ^ lane) * <uint64_t>0x517CC1B727220A95


@cython.final
cdef class CallKey:
    """The key of a call as an object: hashable, and equal to the keys of equal calls of the same function."""

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return isinstance(other, CallKey) and self.hash == (<CallKey>other).hash and self.key == (<CallKey>other).key

    def __repr__(self):
        return f"<CallKey {self.key!r}>"


@cython.final
@cython.trashcan(True)      # wrappers that hold wrappers, however deep, are released on a short C stack
cdef class Memo(Table):
    def __cinit__(self, *args, **kwargs):
        self.vectorcall = <EntryPoint>call_any
        self.single = self.otherwise = <EntryPoint>call_several
        self.equal_str = call_equal_str
        self.ttl = INFINITY

    def __init__(self, function, *, maxsize, typed=False, ttl=None, key=None, runs=None, ready=None):
        # The options were checked by lru_cache().
        if self.function is not None:
            raise TypeError("a cached function can't be initialised twice")
        self.function = function
        self.is_python = PyFunction_Check(function)
        self.maxsize = maxsize
        self.typed = typed
        self.key = key
        self.runs = runs
        self.ready = ready
        self.limit = MAX_ENTRIES if maxsize is None or maxsize > MAX_ENTRIES else maxsize
        self.ordered = maxsize is not None
        if ttl is not None:
            self.ttl = ttl
            self.expiring = True
            self.precise = self.ttl * 1000 < PRECISE_BELOW_MS
        # The quickest entry point that these options allow.
        if key is None and ready is None and self.limit > 0:
            self.vectorcall = call_expiring if self.expiring else call_ordered if self.ordered else call_unordered
            if not typed:
                self.otherwise = <EntryPoint>call_positional

    def __call__(self, /, *args, **kwargs):
        # For `type(f).__call__(f, ...)` only; every other way of calling goes to `vectorcall`.
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __repr__(self):
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"<fastcache.lru_cache of {name} at {<size_t><PyObject*>self:#x}>"

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo, /):
        return self

    def cache_info(self):
        """Hits and misses since the last `cache_clear`, the bound, and the number of entries (expired ones not counted)."""
        cdef Counts counts = self.counts()
        return CacheInfo(counts.hits, counts.misses, self.maxsize, counts.size)

    cdef Counts counts(self) noexcept:
        cdef Counts counts
        cdef Section section
        section_begin(&section, self)
        exclude_readers(self)           # brings the counters up to date
        counts = Counts(self.hits, self.misses, self.used - self.expired())
        admit_readers(self)
        section_end(&section)
        return counts

    def cache_parameters(self):
        """The options it was made with, as a new dict."""
        parameters = {"maxsize": self.maxsize, "typed": bool(self.typed)}
        if self.expiring:
            parameters["ttl"] = self.ttl
        return parameters

    def cache_clear(self):
        """Forget all results and set the counters to 0."""
        cdef Contents contents
        cdef Section section
        if self.runs is not None:
            self.runs.forget_all()
        section_begin(&section, self)
        exclude_readers(self)
        contents = self.detach_all()
        self.hits = self.misses = 0
        self.clears += 1
        admit_readers(self)
        section_end(&section)
        release_all(contents)

    def cache_contains(self, /, *args, **kwargs):
        """Whether a call with these arguments would be a hit now. Counts as neither hit nor use."""
        cdef CallKey key = self.key_of(args, kwargs)
        cdef Py_ssize_t s
        cdef Section section
        section_begin(&section, self)
        try:
            s = lookup(self, <PyObject*>key.key, key.hash)
            return s != 0 and self.alive(s)
        finally:  # pragma: no cover (Cython traces none that a return leads to)
            section_end(&section)

    def cache_invalidate(self, /, *args, **kwargs):
        """Forget the result of the call with these arguments; tells whether there was one.

        A run that is under way goes on for those who wait for it; where runs are shared, its result is not stored.
        """
        cdef CallKey key = self.key_of(args, kwargs)
        cdef Py_ssize_t s
        cdef Entry entry
        cdef bint alive = False
        cdef Section section
        if self.runs is not None:
            self.runs.forget(key)
        section_begin(&section, self)
        try:
            s = lookup(self, <PyObject*>key.key, key.hash)
            if s:
                alive = self.alive(s)
                exclude_readers(self)
                entry = self.take(s)
                admit_readers(self)
        finally:
            section_end(&section)
        if s:
            release(entry)
        return alive

    # For the code in runs.py that lets calls share a run.

    cdef CallKey key_of(self, tuple args, dict kwargs):
        """The CallKey of a call. Raises TypeError for an unhashable argument."""
        cdef list values = [*args, *kwargs.values()]
        cdef tuple names = tuple(kwargs)
        cdef Call call
        if self.key is not None:
            single = self.key(*args, **kwargs)
            call.single = <PyObject*>single
            call.hash = key_hash(call.single)
        else:
            call.args = PySequence_Fast_ITEMS(<PyObject*>values)
            call.n = PyTuple_GET_SIZE(<PyObject*>args) + PyTuple_GET_SIZE(<PyObject*>names)
            call.kwnames = <PyObject*>names if names else NULL
            hash_call(self, &call)
        return make_key(self, &call)

    def add(self, CallKey key not None, value):
        """Store the result of a run, unless there is one already. Returns what had to go, for the caller to release."""
        cdef list kept = []
        if self.limit:
            self.insert(key.key, key.hash, value, LOOK_AGAIN, kept)
        return kept

    def peek(self, CallKey key not None, default):
        """The result stored for a key, or `default`. Counts as neither hit nor use."""
        cdef Py_ssize_t s
        cdef Section section
        section_begin(&section, self)
        try:
            s = lookup(self, <PyObject*>key.key, key.hash)
            return <object>self.slots[s].value if s and self.alive(s) else default
        finally:  # pragma: no cover (Cython traces none that a return leads to)
            section_end(&section)

    def joined(self, CallKey key not None):
        """A call that was counted as a miss joined another's run: count it as a hit, unless the counters were cleared."""
        cdef Section section
        section_begin(&section, self)
        if key.clears == self.clears:
            self.hits += 1
            self.misses -= 1
        section_end(&section)

    # Time

    cdef double now(self) noexcept:
        return precise_now() if self.precise else coarse_now()

    cdef bint alive(self, Py_ssize_t s) noexcept:
        return not self.expiring or self.now() < self.expiry[s].deadline

    cdef uint32_t expired(self) noexcept:
        """How many entries are past their time. O(of these)."""
        cdef uint32_t s, n = 0
        cdef double now
        if self.expiring and self.expiry != NULL:
            now = self.now()
            s = self.expiry[0].next
            while s and self.expiry[s].deadline <= now:
                n += 1
                s = self.expiry[s].next
        return n

    # Storing

    cdef int insert(self, object key, Py_hash_t hash, object value, uint64_t changes, list kept) except -1:
        """Store a result, unless one appeared since `changes`; make room by what expired, else by the least recent.

        `changes`: as of a lookup that missed; LOOK_AGAIN where there was none.
        `kept`, where the caller holds a lock, gets the references of what went: releasing them may run any code.
        """
        cdef Entry[RECLAIM_PER_STORE + 1] gone
        cdef int i, n = 0
        cdef Py_ssize_t s
        cdef double now = 0
        cdef bint excluding = False
        cdef Section section
        section_begin(&section, self)
        try:
            s = lookup(self, <PyObject*>key, hash) if self.changes != changes else 0
            if self.expiring:
                now = self.now()        # after the lookup, whose __eq__ may have stored something that expires later
            if s and (not self.expiring or now < self.expiry[s].deadline):
                return 0
            exclude_readers(self)
            excluding = True
            if s:
                self.expirations += 1
                gone[n] = self.take(s)
                n += 1
            if self.expiring and self.expiry != NULL:
                while n < RECLAIM_PER_STORE and self.expiry[0].next and self.expiry[self.expiry[0].next].deadline <= now:
                    self.expirations += 1
                    gone[n] = self.take(self.expiry[0].next)
                    n += 1
            if self.used >= self.limit:
                self.evictions += 1
                gone[n] = self.take(self.slots[0].prev)
                n += 1
            if self.free == 0:
                self.reserve()
            INCREF(<PyObject*>key)
            INCREF(<PyObject*>value)
            s = place(self, <PyObject*>key, hash, <PyObject*>value)
            if self.expiring:
                expiry_append(self.expiry, s, now + self.ttl)
        finally:
            if excluding:
                admit_readers(self)
            section_end(&section)
            try:
                if kept is not None:
                    for i in range(n):
                        kept.append(<object>gone[i].key)
                        kept.append(<object>gone[i].value)
            finally:
                for i in range(n):
                    release(gone[i])
        return 0

    @cython.critical_section    # a janitor may be at work
    def _check(self):
        """Look for contradictions in the structure; AssertionError names the first one. O(n)."""
        Table._check(self)
        cdef uint32_t s, n = 0
        assert self.used <= self.limit, (self.used, self.limit)
        if self.expiring and self.expiry != NULL:
            s = self.expiry[0].next
            while s:
                assert self.slots[s].key != NULL, f"slot {s} is free and waits to expire"
                assert self.expiry[self.expiry[s].next].prev == s, f"the order of expiry is broken at slot {s}"
                assert self.expiry[s].prev == 0 or self.expiry[self.expiry[s].prev].deadline <= self.expiry[s].deadline
                n += 1
                assert n <= self.used, "the order of expiry runs in a circle"
                s = self.expiry[s].next
            assert n == self.used, (n, self.used)


# Keys

cdef inline void read_call(Call* call, PyObject** args, size_t nargsf, PyObject* kwnames) noexcept:
    call.args = args
    call.n = <Py_ssize_t>(nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET)
    call.kwnames = NULL
    if kwnames != NULL and PyTuple_GET_SIZE(kwnames):      # f(**{}) is f()
        call.kwnames = kwnames
        call.n += PyTuple_GET_SIZE(kwnames)


cdef inline int hash_call(Memo self, Call* call) except -1:
    """Fill in `hash` and `single`. Runs the `__hash__` of each argument once."""
    cdef uint64_t acc = <uint64_t>call.n
    cdef Py_ssize_t i
    call.single = NULL
    if call.n == 1 and call.kwnames == NULL and (is_str(call.args[0]) or is_int(call.args[0])):
        call.single = call.args[0]
        call.hash = single_hash(call.single)
        return 0
    for i in range(call.n):
        acc = mix(acc, <uint64_t>key_hash(call.args[i]))
    if self.typed:
        for i in range(call.n):
            acc = mix(acc, <uint64_t><size_t>Py_TYPE(call.args[i]) >> 4)
    if call.kwnames == NULL:
        call.hash = sorted_hash(acc, POSITIONAL)
        return 0
    for i in range(PyTuple_GET_SIZE(call.kwnames)):
        acc = mix(acc, <uint64_t>key_hash(PyTuple_GET_ITEM(call.kwnames, i)))
    call.hash = sorted_hash(acc, KEYWORD)
    return 0


cdef object stored_key(Memo self, Call* call):
    """The key as an object, as described at the head of this file."""
    if call.single != NULL:
        return <object>call.single
    cdef Py_ssize_t i, n = call.n
    cdef Py_ssize_t size = n * (2 if self.typed else 1) + (call.kwnames != NULL)
    cdef PyObject* key = PyTuple_New(size)
    for i in range(n):
        fill(key, i, call.args[i])
        if self.typed:
            fill(key, n + i, Py_TYPE(call.args[i]))
    if call.kwnames != NULL:
        fill(key, size - 1, call.kwnames)
    result = <object>key
    DECREF(key)
    return result


cdef inline void fill(PyObject* tuple_, Py_ssize_t i, PyObject* item) noexcept:
    INCREF(item)
    PyTuple_SET_ITEM(tuple_, i, item)


cdef CallKey make_key(Memo self, Call* call):
    cdef CallKey key = CallKey.__new__(CallKey)
    cdef Section section
    key.key = stored_key(self, call)
    key.hash = call.hash
    section_begin(&section, self)
    key.clears = self.clears
    section_end(&section)
    return key


cdef inline int matches(Memo self, PyObject* stored, Call* call) noexcept:
    """Is a stored tuple of equal hash this call's key? 1 yes, 0 no, -1 can't be told without running foreign code."""
    cdef Py_ssize_t i, n = call.n
    cdef int equal, result = 1
    if PyTuple_GET_SIZE(stored) != n * (2 if self.typed else 1) + (call.kwnames != NULL):
        return 0
    for i in range(n):
        if PyTuple_GET_ITEM(stored, i) != call.args[i]:
            equal = plain_equal(PyTuple_GET_ITEM(stored, i), call.args[i])
            if equal == 0:
                return 0
            if equal < 0:
                result = -1
    if self.typed:
        for i in range(n):
            if PyTuple_GET_ITEM(stored, n + i) != Py_TYPE(call.args[i]):
                return 0
    if call.kwnames != NULL:
        equal = plain_equal(PyTuple_GET_ITEM(stored, PyTuple_GET_SIZE(stored) - 1), call.kwnames)
        return equal if equal != 1 else result
    return result


cdef int matches_foreign(Memo self, uint32_t s, Call* call) except -2:
    """The same, running `__eq__` where it must: 1 or 0, or -1 when the table was changed by that."""
    cdef PyObject* stored = self.slots[s].key
    cdef object _held = <object>stored
    cdef uint64_t moves = self.moves
    cdef Py_ssize_t i
    cdef bint equal = True
    for i in range(call.n):
        equal = equal and PyObject_RichCompareBool(PyTuple_GET_ITEM(stored, i), call.args[i], Py_EQ)
    if equal and call.kwnames != NULL:
        equal = PyObject_RichCompareBool(PyTuple_GET_ITEM(stored, PyTuple_GET_SIZE(stored) - 1), call.kwnames, Py_EQ)
    if self.moves != moves or self.slots[s].key != stored:
        return -1
    return equal


cdef inline Py_ssize_t find_plain(Memo self, Call* call) noexcept:
    """The slot of a call, 0 when absent, -1 when only foreign code can tell."""
    cdef size_t i = home(self, call.hash)
    cdef uint32_t s
    cdef int equal
    while True:
        s = self.index[i]
        if s == 0:
            return 0
        if self.slots[s].hash == call.hash:
            if call.single != NULL:
                equal = plain_equal(self.slots[s].key, call.single)
            else:
                equal = matches(self, self.slots[s].key, call)
            if equal:
                return s if equal == 1 else -1
        i = (i + 1) & self.mask


cdef Py_ssize_t find_call(Memo self, Call* call) except -1:
    """The slot of any call, 0 when absent. May run the `__eq__` of arguments of equal hash."""
    cdef size_t i
    cdef uint32_t s
    cdef int equal
    if call.single != NULL:
        return lookup(self, call.single, call.hash)
    i = home(self, call.hash)
    while True:
        s = self.index[i]
        if s == 0:
            return 0
        if self.slots[s].hash == call.hash:
            equal = matches(self, self.slots[s].key, call)
            if equal < 0:
                equal = matches_foreign(self, s, call)
            if equal == 1:
                return s
            if equal < 0:
                # Others moved meanwhile. Made into an object, the key can be sought by the rules of the table.
                key = stored_key(self, call)
                return self.find_foreign(<PyObject*>key, call.hash)
        i = (i + 1) & self.mask


# The entry points.
#
# The first three serve one exact int or str, the call that matters most, and are made for it: they call nothing, so they need
# no stack frame, and leave by a jump to `otherwise` for anything else, a str included that is equal but not the same object.
# (With a frame: 12 ns instead of 10.) That is why they return a bare PyObject*, without Cython's own handling of errors.

cdef inline uint32_t find_quickly(Memo self, PyObject* key) noexcept:
    """The slot of a small int, or of a str that is the stored object itself; else 0. Calls nothing."""
    cdef Py_ssize_t value
    cdef Py_hash_t hash
    cdef size_t i
    cdef uint32_t s
    if is_int(key):
        if not small_int(key, &value):
            return 0
        hash = small_int_hash(value)
        i = home(self, hash)
        while True:
            s = self.index[i]
            if s == 0 or likely(self.slots[s].hash == hash):
                return s
            i = (i + 1) & self.mask
    if is_str(key):
        i = home(self, sorted_hash(<uint64_t>known_str_hash(key), SINGLE))
        while True:
            s = self.index[i]
            if s == 0 or likely(self.slots[s].key == key):
                return s
            i = (i + 1) & self.mask
    return 0


cdef inline PyObject* hit(Memo self, Stripe* stripe, Py_ssize_t s, bint ordered) noexcept:
    """The value of a live entry, as a new reference."""
    cdef PyObject* value = self.slots[s].value
    count_hit(self, stripe, s, ordered)
    INCREF(value)
    return value


cdef inline PyObject* call_quick(
        Memo self, PyObject** args, size_t nargsf, PyObject* kwnames, bint ordered, bint expiring) noexcept:
    cdef uint32_t s
    cdef Stripe* stripe
    cdef PyObject* value
    if likely(kwnames == NULL and (nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET) == 1):
        stripe = read_begin(self)
        if likely(stripe != NULL):
            s = find_quickly(self, args[0])
            if likely(s != 0 and (not expiring or self.now() < self.expiry[s].deadline)):
                value = hit(self, stripe, s, ordered)
                read_end(stripe)
                return value
            read_end(stripe)
        if is_str(args[0]):
            return self.equal_str(self, args, nargsf, kwnames)
        return self.single(self, args, nargsf, kwnames)
    return self.otherwise(self, args, nargsf, kwnames)


cdef PyObject* call_ordered(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames) noexcept:
    """A call of a bounded memo."""
    return call_quick(self, args, nargsf, kwnames, True, False)


cdef PyObject* call_unordered(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames) noexcept:
    """A call of an unbounded memo."""
    return call_quick(self, args, nargsf, kwnames, False, False)


cdef PyObject* call_expiring(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames) noexcept:
    """A call of a memo with a ttl."""
    return call_quick(self, args, nargsf, kwnames, self.ordered, True)


cdef PyObject* call_equal_str(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames) noexcept:
    """A call with one exact str that isn't the stored object, but may well be equal to it."""
    cdef PyObject* key = args[0]
    cdef Py_hash_t hash = str_hash(key)
    cdef size_t i
    cdef uint32_t s
    cdef Stripe* stripe = NULL
    cdef PyObject* value
    if hash != -1:                              # -1: no memory; the error is found again where errors are raised
        stripe = read_begin(self)
    if stripe != NULL:
        hash = sorted_hash(<uint64_t>hash, SINGLE)
        i = home(self, hash)
        while True:
            s = self.index[i]
            if s == 0:
                break
            if self.slots[s].hash == hash and is_str(self.slots[s].key) and str_equal(self.slots[s].key, key):
                if self.alive(s):
                    value = hit(self, stripe, s, self.ordered)
                    read_end(stripe)
                    return value
                break
            i = (i + 1) & self.mask
        read_end(stripe)
    return self.single(self, args, nargsf, kwnames)


cdef PyObject* call_several(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """A call that the three above did not serve: any arguments, or a miss."""
    cdef Call call
    cdef Py_ssize_t s
    cdef Stripe* stripe
    cdef PyObject* value
    cdef uint64_t changes
    read_call(&call, args, nargsf, kwnames)
    hash_call(self, &call)
    stripe = read_wait(self)
    s = find_plain(self, &call)
    if s > 0 and self.alive(s):
        value = hit(self, stripe, s, self.ordered)
        read_end(stripe)
        return value
    if s == 0 and self.runs is None:
        count_miss(self, stripe)
        changes = self.changes
        read_end(stripe)
        return call_missed(self, &call, changes, args, nargsf, kwnames)
    read_end(stripe)
    return call_hashed(self, &call, args, nargsf, kwnames)


cdef PyObject* call_positional(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """The same for positional arguments, untyped and not just one: what is left when that is known beforehand."""
    cdef Py_ssize_t n = <Py_ssize_t>(nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET)
    cdef uint64_t acc = <uint64_t>n
    cdef Py_ssize_t k
    cdef Call call
    cdef size_t i
    cdef uint32_t s
    cdef int equal = 0
    cdef PyObject* stored
    cdef PyObject* value
    cdef uint64_t changes
    cdef Stripe* stripe
    if kwnames != NULL:
        return call_several(self, args, nargsf, kwnames)
    for k in range(n):
        acc = mix(acc, <uint64_t>key_hash(args[k]))
    call.hash = sorted_hash(acc, POSITIONAL)
    stripe = read_wait(self)
    i = home(self, call.hash)
    while True:
        s = self.index[i]
        if s == 0:
            break
        if likely(self.slots[s].hash == call.hash):
            stored = self.slots[s].key
            equal = PyTuple_GET_SIZE(stored) == n
            k = 0
            while equal == 1 and k < n:
                if PyTuple_GET_ITEM(stored, k) != args[k]:
                    equal = plain_equal(PyTuple_GET_ITEM(stored, k), args[k])
                k += 1
            if equal:
                break
        i = (i + 1) & self.mask
    if likely(equal == 1 and self.alive(s)):
        value = hit(self, stripe, s, self.ordered)
        read_end(stripe)
        return value
    call.args = args
    call.n = n
    call.kwnames = NULL
    call.single = NULL
    if s == 0 and self.runs is None:
        count_miss(self, stripe)
        changes = self.changes
        read_end(stripe)
        return call_missed(self, &call, changes, args, nargsf, kwnames)
    read_end(stripe)
    return call_hashed(self, &call, args, nargsf, kwnames)


cdef PyObject* call_any(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """A call of any memo."""
    cdef Call call
    cdef object single
    cdef Stripe* stripe
    read_call(&call, args, nargsf, kwnames)
    if self.limit == 0 and self.runs is None:
        stripe = read_wait(self)
        count_miss(self, stripe)                # nothing is kept, so no key is made and any argument will do
        read_end(stripe)
        value = run(self, args, nargsf, kwnames)
        INCREF(<PyObject*>value)
        return <PyObject*>value
    if self.key is not None:
        single = PyObject_Vectorcall(<PyObject*>self.key, args, nargsf, kwnames)
        call.single = <PyObject*>single
        call.hash = key_hash(call.single)
    else:
        hash_call(self, &call)
    return call_hashed(self, &call, args, nargsf, kwnames)


cdef PyObject* call_hashed(Memo self, Call* call, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """Look a call up, comparing as `__eq__` says; on a miss run the function, or have it run, and store the result."""
    cdef Py_ssize_t s
    cdef Entry stale
    cdef Section section
    cdef PyObject* found = NULL
    cdef object value
    cdef uint64_t changes = 0
    stale.key = NULL
    section_begin(&section, self)
    try:
        s = find_call(self, call)
        exclude_readers(self)
        if s and self.alive(s):
            found = self.slots[s].value
            INCREF(found)
            if self.ordered:
                move_to_front(self.slots, s)
            self.hits += 1
        else:
            self.misses += 1
            if s:
                self.expirations += 1
                stale = self.take(s)
            changes = self.changes
        admit_readers(self)
    finally:
        section_end(&section)
    if found != NULL:
        return handed_out(found, <PyObject*>self.ready)
    if stale.key != NULL:
        release(stale)
    if self.runs is None:
        return call_missed(self, call, changes, args, nargsf, kwnames)
    value = share(self, call)
    INCREF(<PyObject*>value)
    return <PyObject*>value


cdef PyObject* call_missed(
        Memo self, Call* call, uint64_t changes, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """Run the function and store its result. The miss has been counted; `changes` is as of then."""
    cdef object value = run(self, args, nargsf, kwnames)
    self.insert(stored_key(self, call), call.hash, value, changes, None)
    INCREF(<PyObject*>value)
    return <PyObject*>value


cdef inline object run(Memo self, PyObject** args, size_t nargsf, PyObject* kwnames):
    """Call the user's function. One that isn't written in Python may recurse through here alone, hence the guard."""
    if self.is_python:
        return PyObject_Vectorcall(<PyObject*>self.function, args, nargsf, kwnames)
    Py_EnterRecursiveCall(b" while calling a cached function")
    try:
        return PyObject_Vectorcall(<PyObject*>self.function, args, nargsf, kwnames)
    finally:  # pragma: no cover (Cython traces none that a return leads to)
        Py_LeaveRecursiveCall()


cdef object share(Memo self, Call* call):
    """Leave a miss to `runs`, which gets the key and the arguments as objects."""
    cdef Py_ssize_t i, n = call.n
    cdef dict kwargs = {}
    cdef list args = []
    if call.kwnames != NULL:
        n -= PyTuple_GET_SIZE(call.kwnames)
        for i in range(PyTuple_GET_SIZE(call.kwnames)):
            kwargs[<object>PyTuple_GET_ITEM(call.kwnames, i)] = <object>call.args[n + i]
    for i in range(n):
        args.append(<object>call.args[i])
    return self.runs(self, make_key(self, call), tuple(args), kwargs)


def share_between_threads(wrapper, function):
    """Prepare a new object, which takes a function's place, for being called by many threads at once."""
    defer_counting(wrapper, function)


# Before anyone can make a subclass or an instance. `__call__` in the type's dict stays a wrapper of the method above.
cdef Memo _sample = Memo.__new__(Memo)
enable_vectorcall(Memo, <char*>&_sample.vectorcall - <char*><PyObject*>_sample, True)
