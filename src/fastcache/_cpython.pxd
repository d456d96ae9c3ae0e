# cython: language_level=3
"""What the core needs of CPython beyond Cython's own declarations: header-only.

Everything that differs between CPython versions, or between builds with and without the GIL, is here and nowhere else.
Nothing here may allocate or run foreign code, but for `key_hash`, `RichCompare` and `handed_out`.
"""
from cpython.object cimport PyObject

cdef extern from *:
    """
    #ifndef FASTCACHE_CPYTHON_H
    #define FASTCACHE_CPYTHON_H
    #include <string.h>

    /* One critical section per operation on free-threaded builds; nothing at all elsewhere, where the GIL is the lock.
       (Cython's own `critical_section` was measured at 2 to 7 ns on GIL builds: too much for a hit of 14 ns.) */
    #ifdef Py_GIL_DISABLED
    typedef PyCriticalSection fc_section;
    #define fc_begin(section, op) PyCriticalSection_Begin((section), (PyObject *)(op))
    #define fc_end(section) PyCriticalSection_End(section)
    #else
    typedef char fc_section;
    #define fc_begin(section, op) ((void)(section))
    #define fc_end(section) ((void)(section))
    #endif

    /* Exact str and int: their hash and their comparison run no Python code. */
    #define fc_is_str(o) PyUnicode_CheckExact(o)
    #define fc_is_int(o) PyLong_CheckExact(o)

    /* The value of an exact int of one digit (30 bits); false where it has more. */
    static inline int fc_small_int(PyObject *o, Py_ssize_t *value) {
    #if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)o)) return 0;
        *value = PyUnstable_Long_CompactValue((PyLongObject *)o);
        return 1;
    #else
        Py_ssize_t size = Py_SIZE(o);
        if (size < -1 || size > 1) return 0;
        *value = size == 0 ? 0 : size * (Py_ssize_t)((PyLongObject *)o)->ob_digit[0];
        return 1;
    #endif
    }

    /* The hash of an exact int: of a one-digit one without a call (Objects/longobject.c, long_hash). */
    static inline Py_hash_t fc_int_hash(PyObject *o) {
        Py_ssize_t value;
        if (fc_small_int(o, &value)) return value == -1 ? -2 : (Py_hash_t)value;
        return Py_TYPE(o)->tp_hash(o);
    }

    /* The hash of an exact str: cached in the object after its first use (-1: not yet). */
    static inline Py_hash_t fc_str_hash(PyObject *o) {
    #ifdef Py_GIL_DISABLED
        return Py_TYPE(o)->tp_hash(o);
    #else
        Py_hash_t h = ((PyASCIIObject *)o)->hash;
        return h != -1 ? h : Py_TYPE(o)->tp_hash(o);
    #endif
    }

    /* The same if it costs no call, else -1. */
    static inline Py_hash_t fc_known_str_hash(PyObject *o) {
    #ifdef Py_GIL_DISABLED
        return Py_TYPE(o)->tp_hash(o);
    #else
        return ((PyASCIIObject *)o)->hash;
    #endif
    }

    /* hash(o), or -1 with an error set; runs foreign code unless o is an exact int or str. */
    static inline Py_hash_t fc_hash(PyObject *o) {
        if (fc_is_str(o)) return fc_str_hash(o);
        if (fc_is_int(o)) return fc_int_hash(o);
        return PyObject_Hash(o);
    }

    static inline int fc_str_equal(PyObject *a, PyObject *b) {
        Py_ssize_t n = PyUnicode_GET_LENGTH(a);
        int kind = (int)PyUnicode_KIND(a);
        return n == PyUnicode_GET_LENGTH(b) && kind == (int)PyUnicode_KIND(b)
            && memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)n * (size_t)kind) == 0;
    }

    /* Equality of two exact ints. Runs no Python code. */
    static inline int fc_int_equal(PyObject *a, PyObject *b) {
        Py_ssize_t x, y;
        if (fc_small_int(a, &x) && fc_small_int(b, &y)) return x == y;
        return PyObject_RichCompareBool(a, b, Py_EQ);
    }

    /* Equality, with no Python code run, of what call arguments are mostly made of: numbers, bytes, None and (nested)
       tuples of these and of str. 1 yes, 0 no, -1 can't be told that way. */
    typedef enum { FC_OTHER, FC_NUMBER, FC_STR, FC_BYTES, FC_NONE, FC_TUPLE } fc_kind;

    static inline fc_kind fc_kind_of(PyObject *o) {
        PyTypeObject *t = Py_TYPE(o);
        if (t == &PyUnicode_Type) return FC_STR;
        if (t == &PyLong_Type || t == &PyFloat_Type || t == &PyBool_Type || t == &PyComplex_Type) return FC_NUMBER;
        if (t == &PyTuple_Type) return FC_TUPLE;
        if (t == &PyBytes_Type) return FC_BYTES;
        return o == Py_None ? FC_NONE : FC_OTHER;
    }

    static int fc_builtin_equal(PyObject *a, PyObject *b, int depth) {
        fc_kind kind, other;
        Py_ssize_t i, n;
        int result = 1;
        if (a == b) return 1;
        kind = fc_kind_of(a);
        other = fc_kind_of(b);
        if (kind == FC_OTHER || other == FC_OTHER) return -1;
        if (kind != other) return 0;        /* also keeps `python -bb` from warning of str against bytes */
        switch (kind) {
        case FC_STR:
            return fc_str_equal(a, b);
        case FC_NUMBER:
            if (PyFloat_CheckExact(a) && PyFloat_CheckExact(b)) return PyFloat_AS_DOUBLE(a) == PyFloat_AS_DOUBLE(b);
            return PyObject_RichCompareBool(a, b, Py_EQ);
        case FC_BYTES:
            n = PyBytes_GET_SIZE(a);
            return n == PyBytes_GET_SIZE(b) && memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)n) == 0;
        case FC_TUPLE:
            n = PyTuple_GET_SIZE(a);
            if (n != PyTuple_GET_SIZE(b)) return 0;
            if (depth == 0) return -1;
            for (i = 0; i < n; i++) {
                int equal = fc_builtin_equal(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i), depth - 1);
                if (equal == 0) return 0;
                if (equal < 0) result = -1;
            }
            return result;
        default:
            return 1;                       /* None and None */
        }
    }

    /* Are two objects of equal hash equal? As above; the two most frequent types first. */
    static inline int fc_plain_equal(PyObject *a, PyObject *b) {
        if (a == b) return 1;
        if (fc_is_str(a) && fc_is_str(b)) return fc_str_equal(a, b);
        if (fc_is_int(a) && fc_is_int(b)) return fc_int_equal(a, b);
        return fc_builtin_equal(a, b, 4);
    }

    #if defined(__GNUC__) || defined(__clang__)
    #define fc_likely(x) __builtin_expect(!!(x), 1)
    #define fc_prefetch(p) __builtin_prefetch(p)
    #else
    #define fc_likely(x) (x)
    #define fc_prefetch(p) ((void)(p))
    #endif

    /* Ask for huge pages under a large array that is read at random: a hit among 500,000 entries then misses the TLB
       less often. As numpy, from 4 MB on. A hint; where the system has no such thing, nothing happens. */
    #if defined(__linux__)
    #include <sys/mman.h>
    #include <stdint.h>
    #endif
    static inline void fc_hint_large(void *p, size_t size) {
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (size >= ((size_t)4 << 20)) {
            uintptr_t begin = ((uintptr_t)p + 4095) & ~(uintptr_t)4095;
            uintptr_t end = ((uintptr_t)p + size) & ~(uintptr_t)4095;
            (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
        }
    #else
        (void)p; (void)size;
    #endif
    }

    /* What takes a function's place is called from many threads: keep its reference count from becoming what they contend
       for (cpython#142631). CPython 3.13 has no call for that. It defers the counting of functions that aren't nested in
       others, and makes them immortal when the first thread starts (cpython#117783, Objects/object.c); what takes the place
       of such a function may live as long, and is given the same. */
    #if !defined(Py_GIL_DISABLED)
    #define fc_defer_counting(wrapper, function) ((void)(wrapper), (void)(function))
    #elif PY_VERSION_HEX >= 0x030E0000
    #define fc_defer_counting(wrapper, function) ((void)(function), (void)PyUnstable_Object_EnableDeferredRefcount(wrapper))
    #else
    #define FC_GC_BITS_DEFERRED 64      /* _PyGC_BITS_DEFERRED */
    static inline void fc_defer_counting(PyObject *wrapper, PyObject *function) {
        if (!PyFunction_Check(function) || wrapper->ob_tid != _Py_ThreadId()) return;
        if (_Py_IsImmortal(function)) {
            PyObject_GC_UnTrack(wrapper);
            wrapper->ob_tid = _Py_UNOWNED_TID;
            wrapper->ob_ref_local = _Py_IMMORTAL_REFCNT_LOCAL;
            wrapper->ob_ref_shared = 0;
        } else if (function->ob_gc_bits & FC_GC_BITS_DEFERRED && !(wrapper->ob_gc_bits & FC_GC_BITS_DEFERRED)) {
            wrapper->ob_gc_bits |= FC_GC_BITS_DEFERRED;
            wrapper->ob_ref_local += 1;
            wrapper->ob_ref_shared = _Py_REF_QUEUED;
        }
    }
    #endif

    /* What a weak reference refers to, borrowed, for comparing only; None when that is gone. */
    #ifdef Py_GIL_DISABLED
    #define fc_referent(r) ((PyObject *)_Py_atomic_load_ptr_relaxed(&((PyWeakReference *)(r))->wr_object))
    #else
    #define fc_referent(r) (((PyWeakReference *)(r))->wr_object)
    #endif

    /* Let instances of a type be called by vectorcall, through the function pointer `offset` bytes into them. tp_call, which
       C code may use, goes the same way. `binds`: as methods they are called with the instance put first, without the object
       that `__get__` returns; to be called must then be the same thing as to be bound and called. */
    static inline void fc_enable_vectorcall(PyObject *type, Py_ssize_t offset, int binds) {
        PyTypeObject *t = (PyTypeObject *)type;
        t->tp_vectorcall_offset = offset;
        t->tp_call = PyVectorcall_Call;
        t->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL | (binds ? Py_TPFLAGS_METHOD_DESCRIPTOR : 0);
        PyType_Modified(t);
    }

    /* What a caller gets for a value that was found, whose reference this takes over: what `ready` makes of it, or, None,
       itself. A Python function is entered directly: about 100 instructions fewer than by PyObject_CallOneArg, which looks
       at its type, at the thread and at what came back. */
    static inline PyObject *fc_handed_out(PyObject *found, PyObject *ready) {
        PyObject *arguments[2] = {NULL, found}, *made;      /* a callee may use the place before its arguments */
        if (ready == Py_None) return found;
        made = PyFunction_Check(ready)
            ? ((PyFunctionObject *)ready)->vectorcall(ready, arguments + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
            : PyObject_CallOneArg(ready, found);
        Py_DECREF(found);
        return made;
    }

    /* Clears an error that is set, but for what isn't an Exception (KeyboardInterrupt). Whether none is set now. */
    static inline int fc_forget_exception(void) {
        if (!PyErr_Occurred()) return 1;
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return 0;
        PyErr_Clear();
        return 1;
    }

    /* For functions that found a Python error already set. */
    #define fc_error() (-1)
    #endif
    """
    ctypedef struct Section "fc_section":
        pass
    void section_begin "fc_begin"(Section* section, object owner) noexcept
    void section_end "fc_end"(Section* section) noexcept

    bint is_str "fc_is_str"(PyObject* o) noexcept nogil
    bint is_int "fc_is_int"(PyObject* o) noexcept nogil
    bint small_int "fc_small_int"(PyObject* o, Py_ssize_t* value) noexcept
    Py_hash_t str_hash "fc_str_hash"(PyObject* o) noexcept
    Py_hash_t known_str_hash "fc_known_str_hash"(PyObject* o) noexcept
    Py_hash_t key_hash "fc_hash"(PyObject* o) except -1
    bint str_equal "fc_str_equal"(PyObject* a, PyObject* b) noexcept
    int plain_equal "fc_plain_equal"(PyObject* a, PyObject* b) noexcept
    PyObject* referent "fc_referent"(PyObject* reference) noexcept
    void defer_counting "fc_defer_counting"(object wrapper, object function) noexcept
    void enable_vectorcall "fc_enable_vectorcall"(object type, Py_ssize_t offset, bint binds) noexcept
    bint likely "fc_likely"(bint x) noexcept nogil
    void prefetch "fc_prefetch"(const void* p) noexcept nogil
    void hint_large "fc_hint_large"(void* p, size_t size) noexcept
    PyObject* handed_out "fc_handed_out"(PyObject* found, PyObject* ready) except NULL
    bint forget_exception "fc_forget_exception"() noexcept
    int raise_current "fc_error"() except -1

    # Cython declares these on `object`, which would count references; here they work on borrowed pointers.
    void INCREF "Py_INCREF"(PyObject* o) noexcept
    void DECREF "Py_DECREF"(PyObject* o) noexcept
    void XDECREF "Py_XDECREF"(PyObject* o) noexcept
    int RichCompare "PyObject_RichCompareBool"(PyObject* a, PyObject* b, int op) noexcept
