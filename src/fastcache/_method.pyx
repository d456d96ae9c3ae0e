# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""The callable that `lru_cache(per_instance=True)` puts in a method's place: a memo for each instance, that dies with it.

It owns the table from instances to their memos, and nothing else: what a call costs and remembers is the memo's affair.
Instances are told apart by identity and held by weak references only, so they need neither `__hash__` nor `__dict__`, and
nothing is stored on them that pickling or copying could see.

In the table an instance is its own hash, namely its address; the key is the weak reference, whose callback removes the entry
before the address can be used again. One exception: where the collector finds an instance and its class to be garbage
together, it clears the weak reference without calling back, and a finalizer may still call the method, or bring both back to
life. So the reference is asked what it refers to.
"""
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t

from ._cpython cimport INCREF, Section, enable_vectorcall, likely, raise_current, referent, section_begin, section_end
from ._memo cimport Counts, Memo
from ._readers cimport Stripe
from ._table cimport (
    Contents, Entry, Table, admit_readers, exclude_readers, home, place, read_end, read_wait, release, release_all,
)

from weakref import ref

from ._memo import CacheInfo

cdef extern from "Python.h":
    enum: PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyVectorcall_Call(object, object, object)
    object PyMethod_New(object, object)


class InstanceRef(ref):
    """A weak reference that still knows the address when its object is gone, and (weakly) who remembers calls on it."""

    __slots__ = ("address", "memos")


def forget(reference):
    """An instance died. (One function for all: Cython's closures don't give back the reference to their type.)"""
    memos = reference.memos()
    if memos is not None:
        memos._forget(reference)


@cython.final
cdef class MethodMemo(Table):
    cdef PyObject* (*vectorcall)(MethodMemo, PyObject**, size_t, PyObject*) noexcept
    cdef object make            # a function of an InstanceRef: a new Memo for that instance
    cdef object maxsize         # of each memo
    cdef object parameters
    cdef object weak_self
    cdef dict __dict__

    def __cinit__(self, *args, **kwargs):
        self.vectorcall = <PyObject* (*)(MethodMemo, PyObject**, size_t, PyObject*) noexcept>call_method
        self.ordered = False

    def __init__(self, make, parameters):
        self.make = make
        self.parameters = parameters
        self.maxsize = parameters["maxsize"]
        self.weak_self = ref(self)

    def __call__(self, /, *args, **kwargs):
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __repr__(self):
        name = getattr(self, "__qualname__", "?")
        return f"<fastcache.lru_cache per instance of {name} at {<size_t><PyObject*>self:#x}>"

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo, /):
        return self

    def cache_info(self):
        """The sums over all instances, dead ones' hits and misses included; `maxsize` is that of each instance."""
        cdef Section section
        cdef Counts one, total
        cdef uint32_t s = 1
        cdef Memo memo
        self.bury_unannounced(False)
        section_begin(&section, self)
        total = Counts(self.hits, self.misses, 0)
        while s <= self.top:                    # `counts` may suspend the section: instances may come and go meanwhile
            if self.slots[s].key != NULL:
                memo = <Memo>self.slots[s].value
                one = memo.counts()
                total.hits += one.hits
                total.misses += one.misses
                total.size += one.size
            s += 1
        section_end(&section)
        return CacheInfo(total.hits, total.misses, self.maxsize, total.size)

    def cache_parameters(self):
        """The options it was made with, as a new dict."""
        return dict(self.parameters)

    def cache_clear(self):
        """Forget the results of all instances and set the counters to 0."""
        cdef Contents contents
        cdef Section section
        section_begin(&section, self)
        exclude_readers(self)
        contents = self.detach_all()
        self.hits = self.misses = 0
        admit_readers(self)
        section_end(&section)
        release_all(contents)

    def cache_contains(self, instance, /, *args, **kwargs):
        """Whether this call on an instance would be a hit now. Counts as neither hit nor use."""
        memo = self.existing(<PyObject*>instance)
        return memo is not None and memo.cache_contains(*args, **kwargs)

    def cache_invalidate(self, instance, /, *args, **kwargs):
        """Forget the result of one call on an instance; tells whether there was one."""
        memo = self.existing(<PyObject*>instance)
        return memo is not None and memo.cache_invalidate(*args, **kwargs)

    def _forget(self, reference):
        """An instance died."""
        cdef Section section
        cdef Entry entry
        cdef uint32_t s
        cdef size_t address = reference.address
        section_begin(&section, self)
        s = self.find_address(address)
        if s and self.slots[s].key == <PyObject*>reference:
            entry = self.take_out(s)
        else:
            s = 0
        section_end(&section)
        if s:
            self.bury(entry)

    cdef Entry take_out(self, uint32_t s) noexcept:
        """Within the section: take out the memo of a dead instance, to be given to `bury`."""
        cdef Entry entry
        exclude_readers(self)
        entry = self.take(s)
        admit_readers(self)
        return entry

    cdef int bury(self, Entry entry) except -1:
        """Outside of the section: keep the counters of a memo that was taken out."""
        cdef Section section
        cdef Counts counts = (<Memo>entry.value).counts()
        section_begin(&section, self)
        self.hits += counts.hits
        self.misses += counts.misses
        section_end(&section)
        release(entry)
        return 0

    cdef int bury_unannounced(self, bint only_if_full) except -1:
        """Outside of the section: O(instances): take out the memos of those whose death nobody told of.

        Since CPython 3.14 the collector clears a weak reference that a finalizer made, and doesn't call back.
        only_if_full: do nothing unless the table is about to grow.
        """
        cdef Section section
        cdef Entry entry
        cdef uint32_t s = 0
        cdef bint going_on = True
        while going_on:
            s += 1
            entry.key = NULL
            section_begin(&section, self)
            # Asked each time: the table changes with what goes on outside of the section.
            going_on = s <= self.top and (s > 1 or not only_if_full or self.used == self.capacity)
            if going_on and self.slots[s].key != NULL and referent(self.slots[s].key) == <PyObject*>None:
                entry = self.take_out(s)
            section_end(&section)
            if entry.key != NULL:
                self.bury(entry)
        return 0

    cdef inline uint32_t find_address(self, size_t address) noexcept:
        cdef size_t i = home(self, <Py_hash_t>address)
        cdef uint32_t s
        while True:
            s = self.index[i]
            if s == 0 or likely(self.slots[s].hash == <Py_hash_t>address):
                return s
            i = (i + 1) & self.mask

    cdef inline uint32_t find_instance(self, PyObject* instance) noexcept:
        cdef uint32_t s = self.find_address(<size_t>instance)
        if s and referent(self.slots[s].key) != instance:
            return 0
        return s

    cdef Memo existing(self, PyObject* instance):
        cdef Memo memo = None
        cdef Section section
        cdef uint32_t s
        section_begin(&section, self)
        s = self.find_instance(instance)
        if s:
            memo = <Memo>self.slots[s].value
        section_end(&section)
        return memo

    cdef Memo new(self, PyObject* instance):
        """The memo of an instance that has none yet."""
        cdef Section section
        cdef uint32_t s
        cdef Entry dead
        cdef Memo memo
        cdef bint excluding = False
        dead.key = NULL
        try:
            reference = InstanceRef(<object>instance, forget)
        except TypeError:
            cls = type(<object>instance)
            raise TypeError(
                "lru_cache(per_instance=True) is for methods: it needs weak references to their instances, here of "
                f"{cls.__qualname__}; add '__weakref__' to its __slots__") from None
        reference.address = <size_t>instance
        reference.memos = self.weak_self
        memo = self.make(reference)
        self.bury_unannounced(True)     # so that the dead are never more than the living
        section_begin(&section, self)
        try:
            s = self.find_address(<size_t>instance)
            if s:
                if referent(self.slots[s].key) == instance:
                    return <Memo>self.slots[s].value    # another thread was quicker
                dead = self.take_out(s)
            exclude_readers(self)
            excluding = True
            self.reserve()
            INCREF(<PyObject*>reference)
            INCREF(<PyObject*>memo)
            place(self, <PyObject*>reference, <Py_hash_t><size_t>instance, <PyObject*>memo)
            return memo
        finally:
            if excluding:
                admit_readers(self)
            section_end(&section)
            if dead.key != NULL:
                self.bury(dead)


cdef PyObject* call_method(MethodMemo self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """Hand a call on to the memo of its first argument, without copying the others."""
    cdef size_t n = nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET
    cdef uint32_t s
    cdef Stripe* stripe
    cdef Memo memo
    if n == 0:
        raise TypeError(f"{getattr(self, '__qualname__', 'the method')} must be called on an instance")
    stripe = read_wait(self)
    s = self.find_instance(args[0])
    memo = <Memo>self.slots[s].value if s else None
    read_end(stripe)
    if memo is None:
        memo = self.new(args[0])
    # Without PY_VECTORCALL_ARGUMENTS_OFFSET: args[0] may lie in a tuple of the caller's, and is not ours to lend.
    cdef PyObject* result = memo.vectorcall(memo, args + 1, n - 1, kwnames)
    if result == NULL:
        raise_current()
    return result


cdef MethodMemo _sample = MethodMemo.__new__(MethodMemo)
enable_vectorcall(MethodMemo, <char*>&_sample.vectorcall - <char*><PyObject*>_sample, True)
