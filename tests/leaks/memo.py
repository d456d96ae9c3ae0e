"""lru_cache: misses, evictions, invalidations, clears, errors, unhashable calls. Fails when memory grows."""

import gc

from flat import check

from fastcache import lru_cache


class Fails:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        raise LookupError


bounded = lru_cache(1000)(lambda *args, **kwargs: [args, kwargs])
unbounded = lru_cache(None)(lambda *args, **kwargs: [args, kwargs])
typed = lru_cache(500, typed=True)(lambda *args, **kwargs: [args, kwargs])
keyed = lru_cache(100, key=lambda x, **rest: (x,))(lambda *args, **kwargs: [args, kwargs])
nothing = lru_cache(0)(lambda *args, **kwargs: [args, kwargs])


@lru_cache(10)
def failing(x):
    raise LookupError(x)


functions = (bounded, unbounded, typed, keyed, nothing, failing)


def work(n):
    for i in range(n):
        bounded(i), bounded(str(i), float(i)), bounded(i, key=(i, [].__len__))
        typed(x=i), keyed(str(i), rest=[i])
        unbounded((i, str(i))), nothing([i], k=i)
        if i % 3 == 0:
            bounded.cache_invalidate(i), bounded.cache_contains(i, key=i), unbounded.cache_invalidate((i, str(i)))
        if i % 10 == 0:
            for call in (failing, bounded, typed, bounded.cache_contains, bounded.cache_invalidate):
                try:
                    call(i if call is failing else [i])
                except (LookupError, TypeError):
                    pass
            short = lru_cache(lambda x: x)
            short(Fails())
            try:
                short(Fails())
            except LookupError:
                pass
        if i % 10_000 == 0:
            unbounded.cache_clear()
    for function in functions:
        function.cache_clear()
        function._check()
    gc.collect()


check(work, each=7)  # as many misses a round
