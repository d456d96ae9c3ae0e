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
from libc.stdint cimport int64_t, uint32_t

from ._cpython cimport (
    INCREF, Section, enable_vectorcall, likely, raise_current, section_begin, section_end, share_between_threads,
)
from ._memo cimport Memo
from ._table cimport Contents, Entry, Table, home, place, release, release_all

from weakref import ref

from ._memo import CacheInfo

cdef extern from "Python.h":
    enum: PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyVectorcall_Call(object, object, object)
    object PyMethod_New(object, object)
    ctypedef struct PyWeakReference:
        PyObject* wr_object             # what it refers to; None when that is gone


class InstanceRef(ref):
    """A weak reference that still knows the address when its object is gone."""

    __slots__ = ("address",)


@cython.final
cdef class MethodMemo(Table):
    cdef PyObject* (*vectorcall)(MethodMemo, PyObject**, size_t, PyObject*) noexcept
    cdef object make            # a function of an InstanceRef: a new Memo for that instance
    cdef object maxsize         # of each memo
    cdef object parameters
    cdef object forget          # the callback of the weak references
    cdef dict __dict__

    def __cinit__(self, *args, **kwargs):
        self.vectorcall = <PyObject* (*)(MethodMemo, PyObject**, size_t, PyObject*) noexcept>call_method
        self.ordered = False

    def __init__(self, make, parameters):
        self.make = make
        self.parameters = parameters
        self.maxsize = parameters["maxsize"]
        weak_self = ref(self)

        def forget(reference):
            memos = weak_self()
            if memos is not None:
                memos._forget(reference)

        self.forget = forget
        share_between_threads(self)

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
        cdef int64_t hits, misses, size = 0
        cdef uint32_t s
        section_begin(&section, self)
        hits = self.hits
        misses = self.misses
        for s in range(1, self.top + 1):
            if self.slots[s].key != NULL:
                hits += (<Memo>self.slots[s].value).hits
                misses += (<Memo>self.slots[s].value).misses
                size += (<Memo>self.slots[s].value).used - (<Memo>self.slots[s].value).expired()
        section_end(&section)
        return CacheInfo(hits, misses, self.maxsize, size)

    def cache_parameters(self):
        """The options it was made with, as a new dict."""
        return dict(self.parameters)

    def cache_clear(self):
        """Forget the results of all instances and set the counters to 0."""
        cdef Contents contents
        cdef Section section
        section_begin(&section, self)
        contents = self.detach_all()
        self.hits = self.misses = 0
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
            self.hits += (<Memo>self.slots[s].value).hits
            self.misses += (<Memo>self.slots[s].value).misses
            entry = self.take(s)
        else:
            s = 0
        section_end(&section)
        if s:
            release(entry)

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
        if s and (<PyWeakReference*>self.slots[s].key).wr_object != instance:
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
        dead.key = NULL
        try:
            reference = InstanceRef(<object>instance, self.forget)
        except TypeError:
            cls = type(<object>instance)
            raise TypeError(
                f"lru_cache(per_instance=True) needs weak references to instances of {cls.__qualname__}: "
                "add '__weakref__' to its __slots__") from None
        reference.address = <size_t>instance
        memo = self.make(reference)
        section_begin(&section, self)
        try:
            s = self.find_address(<size_t>instance)
            if s:
                if (<PyWeakReference*>self.slots[s].key).wr_object == instance:
                    return <Memo>self.slots[s].value    # another thread was quicker
                self.hits += (<Memo>self.slots[s].value).hits
                self.misses += (<Memo>self.slots[s].value).misses
                dead = self.take(s)
            self.reserve()
            INCREF(<PyObject*>reference)
            INCREF(<PyObject*>memo)
            place(self, <PyObject*>reference, <Py_hash_t><size_t>instance, <PyObject*>memo)
            return memo
        finally:
            section_end(&section)
            if dead.key != NULL:
                release(dead)


cdef PyObject* call_method(MethodMemo self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    """Hand a call on to the memo of its first argument, without copying the others."""
    cdef size_t n = nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET
    cdef uint32_t s
    cdef Section section
    cdef Memo memo
    if n == 0:
        raise TypeError(f"{getattr(self, '__qualname__', 'the method')} must be called on an instance")
    section_begin(&section, self)
    s = self.find_instance(args[0])
    memo = <Memo>self.slots[s].value if s else None
    section_end(&section)
    if memo is None:
        memo = self.new(args[0])
    # Without PY_VECTORCALL_ARGUMENTS_OFFSET: args[0] may lie in a tuple of the caller's, and is not ours to lend.
    cdef PyObject* result = memo.vectorcall(memo, args + 1, n - 1, kwnames)
    if result == NULL:
        raise_current()
    return result


cdef MethodMemo _sample = MethodMemo.__new__(MethodMemo)
enable_vectorcall(MethodMemo, <char*>&_sample.vectorcall - <char*><PyObject*>_sample, True)
