# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: embedsignature=True, embedsignature.format=clinic
"""`Gate`, which says until when copies held in this process may be relied on; `GatedLookup`, a lookup behind one; and
`LookupFirst`, a method that begins with such a lookup.

Whoever learns that the copies are still good moves the gate's time on (a heartbeat); when he falls silent, the gate shuts by
itself. This file must never wait, and knows nothing of what is kept or why it may be relied on.
"""
cimport cython
from cpython.object cimport PyObject
from libc.math cimport INFINITY, isinf, isnan

from ._clock cimport coarse_now
from ._cpython cimport (
    INCREF, Section, enable_vectorcall, forget_exception, handed_out, key_hash, raise_current, section_begin, section_end,
)
from ._ttl cimport TTLCache, read_live

from time import monotonic

from .errors import ConfigurationError

cdef extern from "Python.h":
    enum: PY_VECTORCALL_ARGUMENTS_OFFSET
    object PyVectorcall_Call(object, object, object)
    object PyMethod_New(object, object)
    PyObject* PyObject_Vectorcall(PyObject*, PyObject**, size_t, PyObject*) except NULL


@cython.final
cdef class Gate:
    """Gate(until=-math.inf)\n--\n
    Something that may be relied on until a moment of `time.monotonic()`; whoever says so again later moves the moment on.

    until: seconds, a reading of `time.monotonic()` in the future; `math.inf`: open for good; `-math.inf`: shut.

    Asking is O(1): 5 ns, and less where `until` is infinite. The gate shuts within one step of the coarse clock (4 ms on
    Linux, 16 ms on Windows) of `until`. All operations are atomic. While Linux is suspended the clock stands still.

    >>> gate = Gate()
    >>> gate.is_open()
    False
    >>> gate.until = monotonic() + 60
    >>> gate.is_open()
    True
    """

    def __cinit__(self, *args, **kwargs):
        self.given = self.closes = -INFINITY

    def __init__(self, until=-INFINITY):
        self.until = until

    @property
    def until(self):
        """The moment at which it shuts, a reading of `time.monotonic()` in seconds."""
        return load_double(&self.given)

    @until.setter
    def until(self, moment):
        cdef double given, closes
        if isinstance(moment, (bool, str, bytes)) or not hasattr(moment, "__float__"):
            raise ConfigurationError(f"until must be a time of time.monotonic(), in seconds, not {moment!r}")
        given = closes = moment
        if isnan(given):
            raise ConfigurationError("until must be a time of time.monotonic(), in seconds, not NaN")
        if not isinf(given):
            # The two clocks need not have one zero point: on macOS only this one goes on while the machine sleeps, on Windows
            # they are different counters.
            closes += coarse_now() - <double>monotonic()
        cdef Section section
        section_begin(&section, self)
        store_double(&self.given, given)
        store_double(&self.closes, closes)
        section_end(&section)

    def open(self):
        """Open it for good, until told otherwise."""
        self.until = INFINITY

    def close(self):
        """Shut it now."""
        self.until = -INFINITY

    def is_open(self):
        """Whether it is open now."""
        return is_open(self)

    def __repr__(self):
        return f"<Gate {'open' if is_open(self) else 'shut'}, until={self.until!r}>"


@cython.final
cdef class GatedLookup:
    """GatedLookup(map, gate)\n--\n
    `map.get(key, default)` while the gate is open; while it is shut, `default`, and nothing is looked up or counted.

    map: a TTLCache, not of a subclass (their overridden methods would not be asked). O(1), atomic as `TTLCache.get`.
    """
    def __cinit__(self, TTLCache map not None, Gate gate not None):
        if type(map) is not TTLCache:
            raise TypeError(f"map must be a TTLCache itself, not of its subclass {type(map).__qualname__}")
        self.vectorcall = <PyObject* (*)(GatedLookup, PyObject**, size_t, PyObject*) noexcept>call_lookup
        self.map = map
        self.gate = gate

    def __call__(self, key, default, /):
        return PyVectorcall_Call(self, (key, default), None)


cdef PyObject* call_lookup(GatedLookup self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    cdef PyObject* found
    if kwnames != NULL or (nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET) != 2:
        raise TypeError("a lookup takes a key and a default, by position")
    found = at_hand(self, args[0], NULL)
    if found == NULL:
        found = args[1]
        INCREF(found)
    return found


@cython.final
cdef class LookupFirst:
    """LookupFirst(method, arguments, apart, ready=None)\n--\n
    A method that needn't be called where the value of its first argument, a key, is at hand: in the GatedLookup that is the
    instance's attribute `_gated`. (Not in a field of a compiled base class: the instances of such have slower attributes and
    methods, on 3.13 by 20 ns each.)

    method: what is called for all else: a miss, a shut gate, a value of type `apart`, any keyword.
    arguments: how many it must be given by position, the key among them; one more may be; with others it is asked itself.
    ready: what it makes of the value is returned, for an `async def` something to be awaited; None: the value itself.

    Nothing is counted twice: what isn't returned from here isn't counted here. Free of Python code on a hit but for `ready`.
    """
    cdef PyObject* (*vectorcall)(LookupFirst, PyObject**, size_t, PyObject*) noexcept
    cdef size_t arguments
    cdef object apart
    cdef object method
    cdef object ready
    cdef object __weakref__
    cdef dict __dict__

    def __cinit__(self, method, size_t arguments, type apart not None, ready=None):
        self.vectorcall = <PyObject* (*)(LookupFirst, PyObject**, size_t, PyObject*) noexcept>call_first
        self.method = method
        self.arguments = arguments
        self.apart = apart
        self.ready = ready

    def __call__(self, /, *args, **kwargs):
        # For `type(f).__call__(f, ...)` only; every other way of calling goes to `vectorcall`.
        return PyVectorcall_Call(self, args, kwargs)

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __reduce__(self):
        return self.__qualname__

    def __repr__(self):
        return f"<method {self.__qualname__} at {<size_t><PyObject*>self:#x}>"


cdef PyObject* call_first(LookupFirst self, PyObject** args, size_t nargsf, PyObject* kwnames) except NULL:
    cdef size_t n = (nargsf & ~<size_t>PY_VECTORCALL_ARGUMENTS_OFFSET) - 1    # without the instance; very large for none
    cdef PyObject* found = NULL
    cdef object gated
    if kwnames == NULL and (n == self.arguments or n == self.arguments + 1):
        gated = getattr(<object>args[0], "_gated", None)
        if type(gated) is GatedLookup:
            if self.ready is None:
                found = at_hand(<GatedLookup>gated, args[1], <PyObject*>self.apart)
            else:
                found = at_hand_or_later(<GatedLookup>gated, args[1], <PyObject*>self.apart)
    if found == NULL:
        return PyObject_Vectorcall(<PyObject*>self.method, args, nargsf, kwnames)
    return handed_out(found, <PyObject*>self.ready)


cdef inline PyObject* at_hand(GatedLookup lookup, PyObject* key, PyObject* apart) except? NULL:
    """The value of a key, unless it is `apart`; NULL where there is none, or the gate is shut."""
    cdef Py_hash_t hash = key_hash(key)
    cdef double now = -INFINITY
    if not is_open_at(lookup.gate, &now):
        return NULL
    return read_live(lookup.map, key, hash, now, apart)


cdef inline PyObject* at_hand_or_later(GatedLookup lookup, PyObject* key, PyObject* apart) except? NULL:
    """The same, and NULL for an error of the key's: an `async def` raises none when it is called, only when it is awaited."""
    # By a function type that tells of no errors, and a look at whether there is one: `try` costs 15 ns where there is none.
    cdef PyObject* found = (<PyObject* (*)(GatedLookup, PyObject*, PyObject*) noexcept>at_hand)(lookup, key, apart)
    if found == NULL and not forget_exception():
        raise_current()
    return found


cdef LookupFirst _method = LookupFirst.__new__(LookupFirst, None, 0, object)
enable_vectorcall(LookupFirst, <char*>&_method.vectorcall - <char*><PyObject*>_method, True)
cdef GatedLookup _sample = GatedLookup.__new__(GatedLookup, TTLCache(1, 1), Gate())
enable_vectorcall(GatedLookup, <char*>&_sample.vectorcall - <char*><PyObject*>_sample, False)
