# cython: language_level=3
"""The monotonic clocks of the platform, in seconds: header-only.

Two of them, because reading a precise clock (25 ns on Linux) costs more than a cache hit:

* `coarse_now()`: 5 ns, in steps of 4 ms (Linux), under 1 ms (macOS) or up to 16 ms (Windows);
* `precise_now()`: for lifetimes that such a step would distort.

Neither is set back or forward by anyone. Their zero points may differ. Neither can fail, and neither runs Python code.

And `ticks()`, which tells no time but only what came first, on whichever cores: the processor's own counter (16 ns in a
virtual machine), which all cores share on every machine whose system takes its time from it.
"""
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef FASTCACHE_CLOCK_H
    #define FASTCACHE_CLOCK_H
    #if defined(_WIN32)
      #ifndef WIN32_LEAN_AND_MEAN
      #define WIN32_LEAN_AND_MEAN
      #endif
      #include <windows.h>
      static inline double fc_coarse_now(void) { return (double)GetTickCount64() * 1e-3; }
      static inline double fc_precise_now(void) {
          LARGE_INTEGER count, frequency;
          QueryPerformanceCounter(&count);
          QueryPerformanceFrequency(&frequency);
          return (double)count.QuadPart / (double)frequency.QuadPart;
      }
    #else
      #include <time.h>
      #if defined(CLOCK_MONOTONIC_COARSE)            /* Linux */
        #define FC_COARSE CLOCK_MONOTONIC_COARSE
      #elif defined(CLOCK_MONOTONIC_RAW_APPROX)      /* macOS */
        #define FC_COARSE CLOCK_MONOTONIC_RAW_APPROX
      #elif defined(CLOCK_MONOTONIC_FAST)            /* FreeBSD */
        #define FC_COARSE CLOCK_MONOTONIC_FAST
      #else
        #define FC_COARSE CLOCK_MONOTONIC
      #endif
      static inline double fc_now(clockid_t clock) {
          struct timespec t;
          clock_gettime(clock, &t);
          return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
      }
      #define fc_coarse_now() fc_now(FC_COARSE)
      #define fc_precise_now() fc_now(CLOCK_MONOTONIC)
    #endif

    #if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
      #include <x86intrin.h>
      #define fc_ticks() ((uint64_t)__rdtsc())
    #elif defined(_MSC_VER) && defined(_M_X64)
      #include <intrin.h>
      #define fc_ticks() ((uint64_t)__rdtsc())
    #elif (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__)
      static inline uint64_t fc_ticks(void) { uint64_t t; __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t)); return t; }
    #else
      #define fc_ticks() ((uint64_t)(fc_precise_now() * 1e9))
    #endif
    #endif
    """
    uint64_t ticks "fc_ticks"() noexcept nogil
    double coarse_now "fc_coarse_now"() noexcept nogil
    double precise_now "fc_precise_now"() noexcept nogil

cdef enum:
    # Lifetimes below this many milliseconds are measured by the precise clock: the coarse one's step would be 8 % or more.
    PRECISE_BELOW_MS = 50
