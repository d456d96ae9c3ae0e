"""Memos of instances: instances that come and go, in cycles too, with all that is remembered. Fails when memory grows."""

import gc

from flat import check

from fastcache import lru_cache


class A:
    @lru_cache(maxsize=5, per_instance=True)
    def m(self, *args, **kwargs):
        return [args, kwargs]

    @lru_cache(ttl=500, single_flight=True, per_instance=True)
    def shared(self, x):
        return [self, x]  # keeps the instance until it is forgotten

    @lru_cache(None, typed=True, per_instance=True)
    def failing(self, x):
        raise LookupError(x)


class Slotted:
    __slots__ = ()
    m = A.m


lasting = A()


def work(n):
    for i in range(n):
        a = A()
        a.m(i), a.m(i), a.m(i, key=str(i)), lasting.m(i), lasting.m((i, str(i)))
        if i % 3 == 0:
            a.me = a
            a.shared(i)
        if i % 10 == 0:
            for fail in (a.failing, Slotted().m, lasting.m, A.m):
                try:
                    fail([i])
                except (LookupError, TypeError):
                    pass
            A.m.cache_contains(a, i), A.m.cache_invalidate(a, i), A.m.cache_info()
        if i % 1000 == 0:
            A.m.cache_clear(), A.shared.cache_clear()
            gc.collect()
    for each in (A.m, A.shared, A.failing):
        each.cache_clear()
        each._check()
    gc.collect()


check(work, each=6)
