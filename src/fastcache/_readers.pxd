# cython: language_level=3
"""Many readers beside one writer, without a lock that they share: header-only, and only for builds without the GIL.

On builds with the GIL `STRIPES` is 0, a compile-time constant: every branch on it vanishes, and nothing here costs anything.

A critical section around each hit would make two threads that read one cache slower than one: the lock, the counters and
the links of the list are all written at every hit. So the state that a hit writes is divided into stripes, each in cache
lines of its own; a thread reads under the lock of its stripe only (threads are dealt out in the order of their creation,
so the first STRIPES of them share none), and notes there what it used, in a list of its own over the same slot numbers.
A writer, which has the table's critical section, takes the locks of all stripes before its first change
(`exclude_readers` in _table.pxd), adds their counters to the table's and moves what they used to the front of its list,
in the order of the moments that they noted: so the order is exactly that of the last uses, whichever threads they were in.

Cost. A hit is one atomic exchange and one reading of the processor's counter; a change one exchange for each stripe that was
ever used, and the moves that hits put off, each at most once for each thread that used the entry. A stripe takes 128 bytes,
and 16 for each slot where the order of use counts, from the first hit on.

Rules
  1. While a stripe is held nothing may run Python code, wait or allocate, but in `exclude_readers` (which can't fail).
  2. A stripe's lock is waited for by spinning: who has it is never suspended by the interpreter, only by the system.
  3. The section comes first, then the stripes; who has a stripe must not ask for a section.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ._clock cimport ticks

cdef extern from *:
    """
    #ifndef FASTCACHE_READERS_H
    #define FASTCACHE_READERS_H
    #define FC_MAX_STRIPES 16   /* more threads than that share some; a table has 128 bytes of pointers for them */
    #ifdef Py_GIL_DISABLED
      #ifdef _WIN32
        #ifndef WIN32_LEAN_AND_MEAN
        #define WIN32_LEAN_AND_MEAN
        #endif
        #include <windows.h>
        #define fc_yield() SwitchToThread()
      #else
        #include <sched.h>
        #define fc_yield() sched_yield()
      #endif
      #define FC_STRIPES FC_MAX_STRIPES
      typedef struct { void *stripes[FC_STRIPES]; } fc_readers;
      #define fc_place(readers, i) (&(readers)->stripes[i])
      /* Thread states are numbered in the order of their creation. */
      #define fc_own_place(readers) fc_place(readers, PyThreadState_GetUnchecked()->id % FC_STRIPES)
      #define fc_load(place) _Py_atomic_load_ptr_acquire(place)
      #define fc_store(place, stripe) _Py_atomic_store_ptr_release(place, stripe)
      #define fc_try(busy) (_Py_atomic_exchange_int(busy, 1) == 0)
      #define fc_free(busy) _Py_atomic_store_int_release(busy, 0)
      static inline void fc_wait(int *busy) {
          int looks = 0;
          while (!fc_try(busy)) {
              while (_Py_atomic_load_int_relaxed(busy)) {
                  if (++looks > 100) fc_yield();    /* a hit takes some 20 ns: whose lasts longer isn't running */
              }
          }
      }
    #else
      #define FC_STRIPES 0
      typedef char fc_readers;
      #define fc_place(readers, i) ((void **)(readers))
      #define fc_own_place(readers) ((void **)(readers))
      #define fc_load(place) (*(place))
      #define fc_store(place, stripe) ((void)(stripe))
      #define fc_try(busy) 1
      #define fc_free(busy) ((void)(busy))
      #define fc_wait(busy) ((void)(busy))
    #endif
    #endif
    """
    enum: MAX_STRIPES "FC_MAX_STRIPES"
    enum: STRIPES "FC_STRIPES"
    ctypedef struct Readers "fc_readers":
        pass
    void** place_of "fc_place"(Readers* readers, int i) noexcept
    void** own_place "fc_own_place"(Readers* readers) noexcept
    void* load_stripe "fc_load"(void** place) noexcept
    void store_stripe "fc_store"(void** place, void* stripe) noexcept
    bint try_lock "fc_try"(int* busy) noexcept
    void wait_for_lock "fc_wait"(int* busy) noexcept
    void unlock "fc_free"(int* busy) noexcept

# A slot's place in the order in which a stripe's threads used some. Element 0 is the sentinel, as in the table's own list.
cdef struct Use:
    uint32_t prev       # towards the most recent; 0: the most recent itself, or none of them
    uint32_t next
    uint64_t moment     # of the last use, by `ticks`

cdef struct Stripe:
    int busy            # its lock
    uint32_t room       # slots that `uses` has places for
    Use* uses           # NULL until the table has an order
    int64_t hits        # since the last change of the table
    int64_t misses
    void* block         # the allocation that this lies in


cdef inline void note_use(Use* uses, uint32_t s) noexcept:  # pragma: no cover (without the GIL only)
    """Make a slot the most recently used one of a stripe."""
    cdef uint32_t head = uses[0].next
    cdef uint32_t prev
    uses[s].moment = ticks()
    if head != s:
        prev = uses[s].prev
        if prev:                        # in the list, and not its head
            uses[prev].next = uses[s].next
            uses[uses[s].next].prev = prev
        uses[s].prev = 0
        uses[s].next = head
        uses[head].prev = s
        uses[0].next = s
